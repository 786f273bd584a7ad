"""The commands that look after a library: list, change, remove, verify, compact, copy."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from index.key import SCOPES
from service.cli.group import (
    EXIT_STATUSES,
    LIBRARY_UNUSABLE,
    SOME_FAILED,
    WRITE_WAIT,
    complain,
    current_settings,
    finish,
    json_option,
    library_option,
    load_encoder,
    main,
    name_of,
    open_library,
    print_fields,
    print_json,
    progress,
    tell_of_table,
)

if TYPE_CHECKING:
    from index.library import Library
    from index.verify import Damage


@main.command(
    short_help="Change what is said of recordings: names, rights, licence terms.",
    epilog=EXIT_STATUSES,
)
@click.argument("metadata_file", metavar="FILE.csv")
@json_option
@library_option
def change(metadata_file: str, as_json: bool) -> None:
    """Change what is said of recordings: names, rights, licence terms. Fingerprints stay as they are.

    \b
    Example:
      earmark change renewed.csv

    FILE.csv has a header. A row names its recording by `id`, or else by `file`, the path of the file
    that it was ingested from or the end of that path; the other columns are those of `earmark
    ingest`. A cell that is empty leaves what is there; one that holds only `-` empties it. A row
    that cannot be used is told of, and the others still count.

    \b
    JSON, a line per row:
      {"row", "recording": id or null, "status": "changed|unchanged|failed",
       "error": {"type", "detail"} or null}
    """
    from service.intake.metadata import MetadataError, MetadataTable
    from service.intake.metadata_change import KEYS
    from service.intake.metadata_change import change as change_recordings

    library = open_library(current_settings(), load_encoder())
    try:
        table = MetadataTable.load(Path(metadata_file), KEYS)
    except MetadataError as error:
        raise click.UsageError(str(error)) from error
    tell_of_table(table)
    counts = {"changed": 0, "unchanged": 0, "failed": 0}
    for outcome in change_recordings(library, table):
        counts[outcome.status] += 1
        if as_json:
            print_json(vars(outcome))
        elif outcome.error:
            complain(outcome.error["detail"])
    if not as_json:
        click.echo(", ".join(f"{count} {status}" for status, count in counts.items()))
    finish(counts["failed"])


@main.command(name="list", epilog=EXIT_STATUSES)
@click.option("--expired", is_flag=True, help="Only those whose licence has ended.")
@click.option("--rightsholder", metavar="NAME", help="Only those of this rightsholder.")
@click.option("--duplicates", is_flag=True, help="Only pairs of recordings that sound the same.")
@json_option
@library_option
def list_recordings(
    expired: bool, rightsholder: str | None, duplicates: bool, as_json: bool
) -> None:
    """List the recordings of the library.

    \b
    Examples:
      earmark list
      earmark list --expired --rightsholder "Blue Label"
      earmark list --duplicates
      earmark list --json | jq -r .isrc

    --duplicates searches the library for each of its recordings, which takes a while, and names
    those whose sound is the same under two ids, other encodings included. With --json each line is
    {"recordings": [two recordings], "share": of the longer one that matches the other}.
    """
    from service.presentation.formatting import clock, table
    from service.query.recording_fields import RecordingEntry

    library = open_library(current_settings(), load_encoder())
    if duplicates:
        if expired or rightsholder is not None:
            raise click.UsageError("--duplicates goes with neither --expired nor --rightsholder")
        _list_duplicates(library, as_json)
        return
    recordings = library.every_recording(rightsholder=rightsholder, expired=expired)
    if as_json:
        for recording in recordings:
            click.echo(RecordingEntry.model_validate(recording).model_dump_json())
        return
    rows = [(it.id, name_of(it), clock(it.duration), it.rightsholder) for it in recordings]
    if rows:
        click.echo(table(("ID", "RECORDING", "LENGTH", "RIGHTSHOLDER"), rows))
    elif expired or rightsholder is not None:
        complain("the library has no such recordings")
    else:
        complain("the library has no recordings yet; `earmark ingest` adds some")


def _list_duplicates(library: "Library", as_json: bool) -> None:
    from index.duplicates import duplicates
    from service.presentation.formatting import table
    from service.query.recording_fields import RecordingEntry

    rows = []
    for pair in duplicates(library):
        both = [pair.first, pair.second]
        entries = [RecordingEntry.model_validate(it).model_dump() for it in both]
        if as_json:
            print_json({"recordings": entries, "share": round(pair.share, 3)})
        rows.append([text for it in both for text in (it.id, name_of(it))])
    if rows and not as_json:
        click.echo(table(("ID", "RECORDING", "SAME AS", "RECORDING"), rows))
    elif not rows:
        complain("no two recordings sound the same")


@main.command(short_help="Show all that is recorded of one recording.", epilog=EXIT_STATUSES)
@click.argument("recording_id", metavar="ID")
@json_option
@library_option
def show(recording_id: str, as_json: bool) -> None:
    """Show all that is recorded of one recording: metadata, rights, origin.

    \b
    Example:
      earmark show 01j9w0c4
    """
    from service.query.recording_fields import RecordingEntry

    settings = current_settings()
    library = open_library(settings, load_encoder())
    try:
        recording = library.recording(recording_id)
    except KeyError:
        complain(f"no recording {recording_id!r} in {settings.library}; `earmark list` shows them")
        sys.exit(SOME_FAILED)
    fields = RecordingEntry.model_validate(recording).model_dump()
    if as_json:
        print_json(fields)
    else:
        print_fields(fields)


@main.command(short_help="Remove recordings.", epilog=EXIT_STATUSES)
@click.argument("recording_ids", nargs=-1, required=True, metavar="ID...")
@click.option("--yes", is_flag=True, help="Do not ask, also on a terminal.")
@json_option
@library_option
def remove(recording_ids: Sequence[str], yes: bool, as_json: bool) -> None:
    """Remove recordings, which are not found again from this moment on.

    \b
    Example:
      earmark remove 01j9w0c4 01j9w0c5

    On a terminal it names the recordings and asks first; nowhere else. An ID that is not in the library is
    told of, and the others are still removed.

    \b
    JSON, a line per ID:
      {"recording", "status": "removed|failed", "error": {"type", "detail"} or null}
    """
    from service.presentation.formatting import printable

    settings = current_settings()
    library = open_library(settings, load_encoder())
    errors: dict[str, dict[str, str] | None] = {}
    names: dict[str, str] = {}
    for recording_id in dict.fromkeys(recording_ids):
        try:
            names[recording_id] = printable(name_of(library.recording(recording_id)))
        except KeyError:
            detail = f"no recording {recording_id!r} in {settings.library}"
            errors[recording_id] = {"type": "not-found", "detail": detail}
    if names and not yes and _at_terminal():
        for recording_id, name in names.items():
            click.echo(f"{recording_id}  {name}", err=True)
        what = "this recording" if len(names) == 1 else f"these {len(names)} recordings"
        click.confirm(f"Remove {what}?", abort=True, err=True)
    with library.writer(wait=WRITE_WAIT) as writer:
        for recording_id in names:
            try:
                writer.remove(recording_id)
            except KeyError:  # another process was faster
                detail = f"no recording {recording_id!r} in {settings.library} any more"
                errors[recording_id] = {"type": "not-found", "detail": detail}
            else:
                errors[recording_id] = None
        writer.commit()
    for recording_id in dict.fromkeys(recording_ids):
        error = errors[recording_id]
        if as_json:
            status = "failed" if error else "removed"
            print_json({"recording": recording_id, "status": status, "error": error})
        elif error:
            complain(error["detail"])
        else:
            click.echo(f"removed {recording_id}  {names[recording_id]}")
    failures = sum(error is not None for error in errors.values())
    if not as_json:
        click.echo(f"{len(errors) - failures} removed, {failures} failed")
    finish(failures)


def _at_terminal() -> bool:
    """Whether somebody is there to be asked."""
    return sys.stdin is not None and sys.stdin.isatty()


@main.command(short_help="Say how large the library is and of which encoder.", epilog=EXIT_STATUSES)
@json_option
@library_option
def info(as_json: bool) -> None:
    """Say how large the library is, which encoder it is of, and which snapshot is current.

    \b
    Example:
      earmark info --json
    """
    fields = open_library(current_settings(), load_encoder()).info()
    if as_json:
        print_json(fields)
    else:
        print_fields(fields)


@main.command(
    short_help="Check that the library is whole, and say how to mend it.", epilog=EXIT_STATUSES
)
@click.option(
    "--calibration",
    is_flag=True,
    help="If all is well, also fit the chance of a wrong answer to this library's own music.",
)
@json_option
@library_option
def verify(calibration: bool, as_json: bool) -> None:
    """Check that the library is whole, and say how to mend what is not. Nothing is changed.

    \b
    Examples:
      earmark verify
      earmark verify --calibration

    The catalogue, the audit log's chain, every segment's checksum and every recording's codes are
    checked, and the library's own fit of chance; others may read and write meanwhile. Exit status 3 if
    anything is damaged.

    --calibration then looks for the library's recordings among its others, which takes minutes: a
    library of music that is all alike brings more chance matches than one of all kinds. From then on
    the E-values of this library's answers are stated by that fit, and the audit log holds it. A
    library that is too small for a fit goes on with the one that comes with Earmark. A fit that is
    damaged, or another library's, is replaced.

    \b
    JSON, a line for each damage, none if all is well:
      {"what", "mend", "recordings": [ids that are affected]}
    With --calibration, and if all is well, a line:
      {"refitted": true or false, "reason": why not, or null, "recordings", "clips",
       "lengths": [{"seconds", "decay", "decay_least", "decay_most": of the stored codes' tail,
                    "match_score_before", "match_score": that a match must have}]}
    """
    from itertools import chain

    from index.verify import orphans
    from index.verify import verify as verify_library

    library = open_library(current_settings(), load_encoder())
    damages = verify_library(library)
    if not calibration:  # which mends it
        damages = chain(damages, _unusable_calibration(library))
    count = 0
    for count, damage in enumerate(damages, start=1):  # noqa: B007
        if as_json:
            print_json(vars(damage))
        else:
            click.echo(f"{damage.what}\n  to mend it: {damage.mend}")
    if count:
        sys.exit(LIBRARY_UNUSABLE)
    if not as_json:
        click.echo(f"all is well with {library.info()['recordings']} recordings")
    if calibration:
        _refit(library, as_json)
    if left := orphans(library):
        complain(f"{len(left)} files are of no commit; the next command that writes deletes them")


def _unusable_calibration(library: "Library") -> "Iterator[Damage]":
    """A fit of chance that no query can be judged by."""
    from index.errors import LibraryError
    from index.verify import Damage

    try:
        library.own_calibration()
    except LibraryError as error:
        what, _, mend = str(error).rpartition("; ")
        yield Damage(what, mend)


def _refit(library: "Library", as_json: bool) -> None:
    """Fit the chance of a wrong answer to the library, and keep the fit in it."""
    from index.library_calibration import TooSmall, looks_ahead, refit
    from index.significance import Calibration
    from index.stored_query import seconds_of
    from service.presentation.formatting import table

    try:
        with progress(looks_ahead(library), "clip") as bar:
            fitted = refit(library, on_look=bar.update)
    except TooSmall as error:
        if list(_unusable_calibration(library)):
            with library.writer(wait=WRITE_WAIT) as writer:
                writer.calibrate({})
        if as_json:
            print_json({"refitted": False, "reason": str(error)})
        else:
            click.echo(f"the calibration that comes with Earmark stays: {error}")
        return
    with library.writer(wait=WRITE_WAIT) as writer:
        writer.calibrate(fitted.entry())
    before = Calibration.of(library.encoder.id)
    size = library.info()["embeddings"]
    tail = fitted.fit.tail
    lengths = [
        {
            "seconds": round(seconds_of(length, library.encoder)),
            "decay": decay,
            "decay_least": least,
            "decay_most": most,
            "match_score_before": round(before.score(library.gate, round(length), size), 2),
            "match_score": round(fitted.calibration.score(library.gate, round(length), size), 2),
        }
        for length, decay, least, most in zip(
            tail.lengths, tail.decay, tail.least_decay, fitted.fit.most_decay, strict=True
        )
    ]
    if as_json:
        counts = {"recordings": fitted.recordings, "clips": fitted.clips}
        print_json({"refitted": True, "reason": None, **counts, "lengths": lengths})
        return
    click.echo(
        f"chance was fitted to {fitted.clips} stretches of {fitted.recordings} recordings, and this "
        "library's answers are judged by it; a match must score at least"
    )
    rows = [
        (f"{it['seconds']:g} s", f"{it['match_score']:.1f}", f"{it['match_score_before']:.1f}")
        for it in lengths
    ]
    click.echo(table(("CLIP", "NOW", "BY THE ENCODER'S FIT"), rows, indent="  "))


@main.command(short_help="Drop removed recordings' fingerprints for good.", epilog=EXIT_STATUSES)
@json_option
@library_option
def compact(as_json: bool) -> None:
    """Merge small segments, and drop removed recordings' fingerprints for good.

    \b
    Example:
      earmark compact

    Small segments are merged after every ingest anyway; this also drops what was removed. Queries go on
    meanwhile, and other writers are refused. Each new segment takes up to 1.8 GB of the disk before the
    ones that it replaces are deleted; stopped at any moment, it loses nothing.

    \b
    JSON, a line:
      {"segments_before", "segments", "embeddings", "dropped"}
    """
    from index.compaction import compact as compact_library

    library = open_library(current_settings(), load_encoder())
    before = library.info()["segments"]
    with progress(before, "segment") as bar:
        dropped = 0
        for merged in compact_library(library):
            dropped += merged.dropped
            bar.update(merged.segments)
    info = library.info()
    fields = {
        "segments_before": before,
        "segments": info["segments"],
        "embeddings": info["embeddings"],
        "dropped": dropped,
    }
    if as_json:
        print_json(fields)
    else:
        click.echo(
            f"{before} segments merged into {info['segments']}, {dropped} embeddings dropped"
        )


@main.command(short_help="Copy the library, also while it is in use.", epilog=EXIT_STATUSES)
@click.argument("folder", metavar="DIR")
@click.option(
    "--into",
    metavar="URL",
    help="An empty PostgreSQL database that gets the copy's catalogue; default: a file in DIR.",
)
@json_option
@library_option
def snapshot(folder: str, into: str | None, as_json: bool) -> None:
    """Copy the library as of one commit into DIR, also while it is read and written.

    \b
    Example:
      earmark snapshot /backup/earmark-2027-01-31
      earmark --library /backup/earmark-2027-01-31 verify

    DIR must not exist, and exists only once it is whole; it is a library like any other, whose catalogue
    is in DIR wherever this one's is (EARMARK_DATABASE=sqlite://), or with --into in PostgreSQL: so
    catalogues move from one to the other. Every file is copied and checked; name another disk for safety
    from a failing one.

    \b
    JSON, a line:
      {"path", "snapshot", "recordings"}
    """
    from index.backup import TargetInUse, backup
    from index.database import BESIDE
    from service.runtime.settings import load_settings

    settings = current_settings()
    target = load_settings(library=folder, database=into or str(BESIDE))
    library = open_library(settings, load_encoder())
    try:
        revision = backup(library, target.library, target.database)
    except TargetInUse as error:
        raise click.UsageError(str(error)) from error
    count = open_library(target, load_encoder()).info()["recordings"]
    if as_json:
        print_json({"path": folder, "snapshot": str(revision), "recordings": count})
    else:
        click.echo(f"{count} recordings, snapshot {revision}, in {folder}")


@main.group(
    short_help="Who may ask the server what: create, list and revoke keys.", epilog=EXIT_STATUSES
)
def keys() -> None:
    """Who may ask the server what. Without any key it serves this machine only, without asking.

    \b
    Example:
      earmark keys create --owner "Blue Label" --scope ingest
      earmark keys list
      earmark keys revoke 5f0c2a7be9d1

    From the first key on, every question and every change needs one. A recording that is added with a key
    is its owner's, and private unless it is said not to be: only that owner's queries (and an admin's) are
    answered from it. What `earmark ingest` adds answers everybody's.
    """


@keys.command(name="create", short_help="Make a key; it is shown once.", epilog=EXIT_STATUSES)
@click.option(
    "--owner", required=True, metavar="NAME", help="Whose recordings and queries it is for."
)
@click.option(
    "--scope",
    type=click.Choice(SCOPES),
    required=True,
    help="query: ask; ingest: also add, change and remove one's own; admin: everything of everybody.",
)
@click.option("--expires", metavar="DATE", help="Last day (UTC) on which it is good: 2027-12-31.")
@json_option
@library_option
def create_key(owner: str, scope: str, expires: str | None, as_json: bool) -> None:
    """Make a key. Only a hash of it is kept: it is shown now and never again.

    \b
    Example:
      earmark keys create --owner "Blue Label" --scope ingest --expires 2027-12-31

    \b
    JSON, a line:
      {"id", "owner", "scope", "created_at", "expires_at", "revoked_at", "key"}
    """
    from datetime import date

    from index.key import end_of

    expires_at = None
    if expires:
        try:
            expires_at = end_of(date.fromisoformat(expires))
        except ValueError:
            raise click.UsageError(f"--expires {expires}: no date like 2027-12-31") from None
    library = open_library(current_settings(), load_encoder(), create=True)
    try:
        key, text = library.add_key(owner, scope, expires_at)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        print_json(vars(key) | {"key": text})
    else:
        complain(f"key {key.id} of {key.owner} for {key.scope}; it is not shown again")
        click.echo(text)


@keys.command(name="list", short_help="List the keys there are.", epilog=EXIT_STATUSES)
@json_option
@library_option
def list_keys(as_json: bool) -> None:
    """List the keys that were ever made, without their secrets.

    \b
    Example:
      earmark keys list --json
    """
    from service.presentation.formatting import table

    made = open_library(current_settings(), load_encoder()).all_keys()
    if as_json:
        for key in made:
            print_json(vars(key))
        return
    if not made:
        complain("there are no keys; `earmark keys create` makes one")
        return
    rows = [
        (it.id, it.owner, it.scope, it.created_at, it.expires_at or "", it.revoked_at or "")
        for it in made
    ]
    click.echo(table(("ID", "OWNER", "SCOPE", "CREATED", "EXPIRES", "REVOKED"), rows))


@keys.command(name="revoke", short_help="Make a key worthless, at once.", epilog=EXIT_STATUSES)
@click.argument("key_id", metavar="ID")
@json_option
@library_option
def revoke_key(key_id: str, as_json: bool) -> None:
    """Make a key worthless, at once, also for servers that are running.

    \b
    Example:
      earmark keys revoke 5f0c2a7be9d1

    \b
    JSON:
      {"id", "revoked": false if it was worth nothing already}
    """
    settings = current_settings()
    library = open_library(settings, load_encoder())
    try:
        revoked = library.revoke_key(key_id)
    except KeyError:
        complain(f"no key {key_id!r} in {settings.library}; `earmark keys list` shows them")
        sys.exit(SOME_FAILED)
    if as_json:
        print_json({"id": key_id, "revoked": revoked})
        return
    click.echo(f"key {key_id} is worth nothing {'now' if revoked else 'already'}")
