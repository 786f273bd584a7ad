"""The `earmark` command. Standard output is the result; all else goes to standard error.

`earmark --help` has to be instant, so numpy, numba, FAISS, pydantic and FastAPI are imported by the
commands that need them and never at the top of this file.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from tqdm import tqdm

    from fingerprint.audio import Limits
    from fingerprint.encoder import Encoder
    from index.library import Library
    from index.recording import Recording
    from service.ingest import Candidate
    from service.metadata import MetadataTable
    from service.query import Answer, Match
    from service.settings import Settings

# Files and requests are worked on side by side, so each of them gets one thread of BLAS and OpenMP;
# more would wait for each other. It has to be said before NumPy is imported.
for _library in ("OPENBLAS", "OMP", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

SOME_FAILED = 1
WRONG_USAGE = 2
LIBRARY_UNUSABLE = 3

# The rights bases of index.catalogue, which is too slow to import for this list alone.
RIGHTS = ("owned", "licensed", "open-licence", "public-domain")

_EXIT_STATUSES = """
\b
Exit status: 0 all done; 1 some inputs failed, the rest is done; 2 wrong usage;
3 the library cannot be used (missing, locked, damaged, another encoder's).
"""

Command = TypeVar("Command", bound=Callable[..., Any])


class EarmarkGroup(click.Group):
    """Turns Earmark's errors into one line on standard error and the contract's exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            from fingerprint.errors import EarmarkError

            if not isinstance(error, EarmarkError):
                raise
            complain(str(error))
            ctx.exit(_exit_status(error))


def _exit_status(error: Exception) -> int:
    from fingerprint.errors import AudioError
    from service.settings import SettingsError

    if isinstance(error, AudioError):
        return SOME_FAILED
    return WRONG_USAGE if isinstance(error, SettingsError) else LIBRARY_UNUSABLE


def complain(message: str) -> None:
    """One line to the person at the terminal."""
    click.echo(f"earmark: {message}", err=True)


def _flag(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
    """Keep a setting's flag for `_settings`; given twice, the one nearest the command counts."""
    if value is not None:
        ctx.ensure_object(dict)[parameter.name] = value


def setting(*names: str, help: str, metavar: str) -> Callable[[Command], Command]:
    """An option that is the flag of the setting of its name; `service.settings` checks it."""
    return click.option(*names, metavar=metavar, help=help, callback=_flag, expose_value=False)


library_option = setting(
    "--library",
    metavar="DIR",
    help="The library's folder (also EARMARK_LIBRARY).  [default: earmark-library]",
)
max_e_value_option = setting(
    "--max-e-value",
    metavar="X",
    help="Leave out matches that chance would bring more often than X times a query."
    "  [default: 0.01]",
)
hypotheses_option = setting(
    "--hypotheses",
    metavar="N",
    help="Hypotheses of altered tempo and pitch to try on what is not recognised; 0 for none."
    "  [default: 124]",
)
jobs_option = setting(
    "--jobs", metavar="N", help="Files worked on at the same time.  [default: one per core]"
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")


def _settings() -> "Settings":
    from service.settings import load_settings

    return load_settings(**(click.get_current_context().find_object(dict) or {}))


def _limits(settings: "Settings") -> "Limits":
    from fingerprint.audio import Limits

    return Limits(
        max_seconds=settings.max_duration.total_seconds(), max_bytes=int(settings.max_size)
    )


def _encoder() -> "Encoder":
    from fingerprint.encoder import Encoder

    return Encoder.load()


def _open(
    settings: "Settings", encoder: "Encoder", *, create: bool = False, searchable: bool = False
) -> "Library":
    from index.library import Library

    return Library.open(settings.library, encoder, create=create, searchable=searchable)


def _finish(failures: int) -> None:
    if failures:
        sys.exit(SOME_FAILED)


@click.group(
    cls=EarmarkGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EXIT_STATUSES,
)
@click.version_option(package_name="earmark")
@library_option
def main() -> None:
    """Tell whether a clip contains a known recording, where, and how sure that is.

    \b
    A first round:
      earmark ingest ~/Music --rightsholder "Me" --rights owned
      earmark query suspect.mp3
      earmark serve

    Audio is read, never kept: a library holds fingerprints and who owns what. Standard output is
    the result, standard error the rest; --json makes the result one JSON object per line.
    `earmark COMMAND --help` explains each command, `earmark settings` what can be configured.
    """


@main.command(short_help="Add recordings to the library.", epilog=_EXIT_STATUSES)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--rightsholder", metavar="NAME", help="Who holds the rights in these recordings.")
@click.option("--rights", type=click.Choice(RIGHTS), help="On what basis they are yours to add.")
@click.option(
    "--licence-until",
    metavar="DATE",
    help="Last day (UTC) on which they answer queries: 2027-12-31.",
)
@click.option(
    "--metadata",
    "metadata_file",
    metavar="FILE",
    help="What is known of the files: a CSV, a row each, or a DDEX ERN 4 message (.xml).",
)
@jobs_option
@json_option
@library_option
def ingest(
    paths: Sequence[str],
    rightsholder: str | None,
    rights: str | None,
    licence_until: str | None,
    metadata_file: str | None,
    as_json: bool,
) -> None:
    """Add recordings to the library, which is made if it is not there.

    \b
    Examples:
      earmark ingest album/ single.flac --rightsholder "Blue Label" --rights owned
      earmark ingest archive/ --metadata archive.csv
      earmark ingest delivery/ --metadata delivery/release.xml --rightsholder "Blue Label" \\
          --rights licensed --licence-until 2027-12-31

    PATH is a file or a folder. Folders are searched through for audio and video files by their
    extension; a file that is named is tried whatever it is called. The same audio a second time
    changes nothing and is not decoded. Nothing is added without a rights basis: --rightsholder and
    --rights, or those columns in every row of the metadata.

    A CSV has a header. Its only required column is `file`, a path relative to the CSV or to a PATH,
    or a file's bare name; id, title, artist, isrc, iswc, work, label, release_date,
    rightsholder, rights and licence_until are known. What it leaves open is taken from the files'
    tags. Of a DDEX ERN 4 message (NewReleaseMessage, its name ends in .xml) the sound recordings'
    ISRCs, titles, artists, labels, durations and files are read; a file that lasts much longer or
    shorter than its message says is refused.

    Ctrl-C finishes and commits the files in hand, and leaves with status 130; again, it stops at
    once, and what was committed stays.

    \b
    JSON, a line per file:
      {"file", "status": "added|unchanged|failed", "recording": id or null,
       "error": {"type", "detail"} or null, "duration": seconds or null}
    """
    from service.ingest import find_candidates
    from service.ingest import ingest as ingest_files
    from service.metadata import MetadataError

    settings = _settings()
    try:
        table = _metadata(Path(metadata_file)) if metadata_file else None
    except MetadataError as error:
        raise click.UsageError(str(error)) from error
    given = {"rightsholder": rightsholder, "rights": rights}
    if table is not None:
        for column in table.unknown_columns:
            complain(f"warning: {table.path} has a column {column!r}, which is not known: ignored")
    for name, value in given.items():
        lacking = [row.number for row in table.rows if name not in row.fields] if table else [0]
        if not value and lacking:
            where = f" (or in {table.unit} {lacking[0]} of {metadata_file})" if table else ""
            raise click.UsageError(f"no rights basis: --{name} is missing{where}")
    if licence_until:
        given["licence_until"] = _date(licence_until)
    known = {name: value for name, value in given.items() if value}
    candidates, failures, idle = find_candidates([Path(path) for path in paths], known, table)
    if idle:
        complain(
            f"warning: {len(idle)} rows of {metadata_file} name none of the files, "
            f"the first is number {idle[0].number}: {idle[0].file}"
        )
    counts = {"added": 0, "unchanged": 0, "failed": 0}
    encoder = _encoder()
    library = _open(settings, encoder, create=True)
    _tell_cost(library, candidates)
    stop = Event()
    with _stopping(stop) as signals, _progress(sum(it.size for it in candidates), "B") as bar:
        outcomes = ingest_files(
            library,
            encoder,
            candidates,
            limits=_limits(settings),
            jobs=settings.jobs,
            stop=stop,
            on_read=lambda candidate: bar.update(candidate.size),
        )
        for outcome in chain(failures, outcomes):
            counts[outcome.status] += 1
            with bar.external_write_mode(file=sys.stderr):
                if as_json:
                    _print_json(vars(outcome))
                elif outcome.error:
                    complain(outcome.error["detail"])
    if not as_json:
        click.echo(
            f"{counts['added']} added, {counts['unchanged']} already there, "
            f"{counts['failed']} failed"
        )
    if signals:
        left = len(candidates) + len(failures) - sum(counts.values())
        complain(f"stopped: what was finished is committed, {left} files were not begun")
        sys.exit(128 + signals[0])
    _finish(counts["failed"])


def _metadata(path: Path) -> "MetadataTable":
    from service.ern import load_message
    from service.metadata import MetadataTable

    return load_message(path) if path.suffix.lower() == ".xml" else MetadataTable.load(path)


def _tell_cost(library: "Library", candidates: "Sequence[Candidate]") -> None:
    """Say what an ingest will take: at a terminal, or where the disk seems to be too small."""
    from service.estimate import estimate

    line, enough = estimate(library, candidates)
    if not enough:
        complain(f"warning: the disk may be too small: {line}")
    elif candidates and sys.stderr.isatty():
        complain(line)


def _date(value: str) -> str:
    from datetime import date

    try:
        return date.fromisoformat(value).isoformat()
    except ValueError:
        raise click.UsageError(f"--licence-until {value}: no date like 2027-12-31") from None


@contextmanager
def _stopping(stop: Event) -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM set `stop`, once; a second one ends the process. Yields what came."""
    came: list[int] = []

    def stop_soon(number: int, frame: object) -> None:
        came.append(number)
        stop.set()
        # Not through sys.stderr, which this may have interrupted.
        os.write(2, b"\nearmark: finishing the files in hand; once more to stop at once\n")
        for each in before:
            signal.signal(each, signal.SIG_DFL)

    before = {each: signal.signal(each, stop_soon) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _progress(total: int, unit: str) -> "tqdm[NoReturn]":
    """A progress bar, if standard error is a terminal."""
    from tqdm import tqdm

    return tqdm(total=total, unit=unit, unit_scale=unit == "B", disable=None, leave=False)


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, ensure_ascii=False))


@main.command(
    short_help="Say which recordings are in a clip, where, and how sure.", epilog=_EXIT_STATUSES
)
@click.argument("clips", nargs=-1, required=True, metavar="CLIP...")
@max_e_value_option
@hypotheses_option
@jobs_option
@json_option
@library_option
def query(clips: Sequence[str], as_json: bool) -> None:
    """Say which recordings of the library are in CLIP, where, and how sure that is.

    \b
    Examples:
      earmark query suspect.mp3 upload.mp4
      ffmpeg -i stream -t 20 -f wav - | earmark query -
      earmark query --json *.emk > answers.jsonl

    CLIP is a file of audio or video, a fingerprint (.emk, see `earmark fingerprint`), or `-` for
    standard input. A clip that cannot be read is told of, and the others are still answered.
    Tier `match` can be acted on; tier `review` should be listened to first.

    \b
    JSON, a line per clip:
      {"clip", "sha256", "duration", "error": null or {"type", "detail"},
       "matches": [{"recording", "source", "title", "artist", "isrc", "work",
                    "rightsholder", "rights", "tier", "e_value", "score",
                    "query_start", "query_end", "reference_start", "reference_end",
                    "tempo", "pitch_semitones"}, ...],
       "library": {"snapshot", "recordings", "seconds"}, "encoder", "elapsed_ms"}
    Error types: not-found, undecodable, too-short, silent, too-long, too-large, timeout.
    """
    from service.query import answers

    settings = _settings()
    encoder = _encoder()
    library = _open(settings, encoder, searchable=True)
    failures = 0
    with _progress(len(clips), "clip") as bar:
        for answer in answers(
            clips,
            library,
            encoder,
            limits=_limits(settings),
            max_e_value=settings.max_e_value,
            hypotheses=settings.hypotheses,
            jobs=settings.jobs,
        ):
            failures += answer.error is not None
            with bar.external_write_mode(file=sys.stderr):
                if as_json:
                    click.echo(answer.model_dump_json())
                elif answer.error:
                    complain(answer.error.detail)
                else:
                    click.echo(_in_words(answer))
            bar.update()
    _finish(failures)


def _in_words(answer: "Answer") -> str:
    from service.wording import chance, change, clock, printable, span, table

    head = f"{printable(answer.clip)} ({clock(answer.duration or 0)})"
    if not answer.matches:
        return f"{head}: no known work"
    rows = [
        (
            _name_of(match),
            span(match.query_start, match.query_end),
            span(match.reference_start, match.reference_end),
            change(match.tempo, match.pitch_semitones),
            match.tier,
            chance(match.e_value),
        )
        for match in answer.matches
    ]
    header = ("WORK", "IN THE CLIP", "IN THE WORK", "CHANGED", "TIER", "CHANCE OF BEING WRONG")
    return f"{head}:\n{table(header, rows, indent='  ')}"


def _name_of(recording: "Recording | Match") -> str:
    """Title and artist, or the file's name where there is no title."""
    name = recording.title or recording.source
    return f"{name} ({recording.artist})" if recording.artist else name


@main.command(
    short_help="Change what is said of recordings: names, rights, licence terms.",
    epilog=_EXIT_STATUSES,
)
@click.argument("metadata_file", metavar="FILE.csv")
@json_option
@library_option
def change(metadata_file: str, as_json: bool) -> None:
    """Change what is said of recordings: names, rights, licence terms. Fingerprints stay as they are.

    \b
    Example:
      earmark change renewed.csv

    FILE.csv has a header. A row names its recording by `id`, or else by `file`, the name of the file
    that it was ingested from; the other columns are those of `earmark ingest`. A cell that is empty
    leaves what is there; one that holds only `-` empties it. A row that cannot be used is told of,
    and the others still count.

    \b
    JSON, a line per row:
      {"row", "recording": id or null, "status": "changed|unchanged|failed",
       "error": {"type", "detail"} or null}
    """
    from service.change import KEYS
    from service.change import change as change_recordings
    from service.metadata import MetadataError, MetadataTable

    library = _open(_settings(), _encoder())
    try:
        table = MetadataTable.load(Path(metadata_file), KEYS)
    except MetadataError as error:
        raise click.UsageError(str(error)) from error
    for column in table.unknown_columns:
        complain(f"warning: {table.path} has a column {column!r}, which is not known: ignored")
    counts = {"changed": 0, "unchanged": 0, "failed": 0}
    for outcome in change_recordings(library, table):
        counts[outcome.status] += 1
        if as_json:
            _print_json(vars(outcome))
        elif outcome.error:
            complain(outcome.error["detail"])
    if not as_json:
        click.echo(", ".join(f"{count} {status}" for status, count in counts.items()))
    _finish(counts["failed"])


@main.command(name="list", epilog=_EXIT_STATUSES)
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
    from service.recording import RecordingEntry
    from service.wording import clock, table

    library = _open(_settings(), _encoder())
    if duplicates:
        if expired or rightsholder is not None:
            raise click.UsageError("--duplicates goes with neither --expired nor --rightsholder")
        _list_duplicates(library, as_json)
        return
    recordings = _recordings(library, rightsholder=rightsholder, expired=expired)
    if as_json:
        for recording in recordings:
            click.echo(RecordingEntry.model_validate(recording).model_dump_json())
        return
    rows = [(it.id, _name_of(it), clock(it.duration), it.rightsholder) for it in recordings]
    if rows:
        click.echo(table(("ID", "RECORDING", "LENGTH", "RIGHTSHOLDER"), rows))
    elif expired or rightsholder is not None:
        complain("the library has no such recordings")
    else:
        complain("the library has no recordings yet; `earmark ingest` adds some")


def _list_duplicates(library: "Library", as_json: bool) -> None:
    from index.duplicates import duplicates
    from service.recording import RecordingEntry
    from service.wording import table

    rows = []
    for pair in duplicates(library):
        both = [pair.first, pair.second]
        entries = [RecordingEntry.model_validate(it).model_dump() for it in both]
        if as_json:
            _print_json({"recordings": entries, "share": round(pair.share, 3)})
        rows.append([text for it in both for text in (it.id, _name_of(it))])
    if rows and not as_json:
        click.echo(table(("ID", "RECORDING", "SAME AS", "RECORDING"), rows))
    elif not rows:
        complain("no two recordings sound the same")


def _recordings(library: "Library", **only: Any) -> "Iterator[Recording]":
    cursor: str | None = None
    while True:
        page, cursor = library.recordings(cursor=cursor, limit=1000, **only)
        yield from page
        if cursor is None:
            return


@main.command(short_help="Show all that is recorded of one recording.", epilog=_EXIT_STATUSES)
@click.argument("recording_id", metavar="ID")
@json_option
@library_option
def show(recording_id: str, as_json: bool) -> None:
    """Show all that is recorded of one recording: metadata, rights, origin.

    \b
    Example:
      earmark show 01j9w0c4
    """
    from service.recording import RecordingEntry

    settings = _settings()
    library = _open(settings, _encoder())
    try:
        recording = library.recording(recording_id)
    except KeyError:
        complain(f"no recording {recording_id!r} in {settings.library}; `earmark list` shows them")
        sys.exit(SOME_FAILED)
    fields = RecordingEntry.model_validate(recording).model_dump()
    if as_json:
        _print_json(fields)
    else:
        _print_fields(fields)


def _print_fields(fields: dict[str, Any]) -> None:
    from service.wording import table

    rows = [(name, "" if value is None else str(value)) for name, value in fields.items()]
    click.echo(table(rows[0], rows[1:]))


@main.command(short_help="Remove recordings.", epilog=_EXIT_STATUSES)
@click.argument("recording_ids", nargs=-1, required=True, metavar="ID...")
@json_option
@library_option
def remove(recording_ids: Sequence[str], as_json: bool) -> None:
    """Remove recordings, which are not found again from this moment on.

    \b
    Example:
      earmark remove 01j9w0c4 01j9w0c5

    An ID that is not in the library is told of, and the others are still removed.

    \b
    JSON, a line per ID:
      {"recording", "status": "removed|failed", "error": {"type", "detail"} or null}
    """
    settings = _settings()
    library = _open(settings, _encoder())
    errors: dict[str, dict[str, str] | None] = {}
    with library.writer() as writer:
        for recording_id in recording_ids:
            try:
                writer.remove(recording_id)
            except KeyError:
                detail = f"no recording {recording_id!r} in {settings.library}"
                errors[recording_id] = {"type": "not-found", "detail": detail}
            else:
                errors[recording_id] = None
        writer.commit()
    for recording_id, error in errors.items():
        if as_json:
            status = "failed" if error else "removed"
            _print_json({"recording": recording_id, "status": status, "error": error})
        elif error:
            complain(error["detail"])
    failures = sum(error is not None for error in errors.values())
    if not as_json:
        click.echo(f"{len(errors) - failures} removed, {failures} failed")
    _finish(failures)


@main.command(
    short_help="Say how large the library is and of which encoder.", epilog=_EXIT_STATUSES
)
@json_option
@library_option
def info(as_json: bool) -> None:
    """Say how large the library is, which encoder it is of, and which snapshot is current.

    \b
    Example:
      earmark info --json
    """
    fields = _open(_settings(), _encoder()).info()
    if as_json:
        _print_json(fields)
    else:
        _print_fields(fields)


@main.command(
    short_help="Check that the library is whole, and say how to mend it.", epilog=_EXIT_STATUSES
)
@json_option
@library_option
def verify(as_json: bool) -> None:
    """Check that the library is whole, and say how to mend what is not. Nothing is changed.

    \b
    Example:
      earmark verify

    The catalogue, the audit log's chain, every segment's checksum and every recording's codes are
    checked; others may read and write meanwhile. Exit status 3 if anything is damaged.

    \b
    JSON, a line for each damage, none if all is well:
      {"what", "mend", "recordings": [ids that are affected]}
    """
    from index.verify import orphans
    from index.verify import verify as verify_library

    library = _open(_settings(), _encoder())
    count = 0
    for count, damage in enumerate(verify_library(library), start=1):  # noqa: B007
        if as_json:
            _print_json(vars(damage))
        else:
            click.echo(f"{damage.what}\n  to mend it: {damage.mend}")
    if count:
        sys.exit(LIBRARY_UNUSABLE)
    if not as_json:
        click.echo(f"all is well with {library.info()['recordings']} recordings")
    if left := orphans(library):
        complain(f"{len(left)} files are of no commit; the next command that writes deletes them")


@main.command(short_help="Drop removed recordings' fingerprints for good.", epilog=_EXIT_STATUSES)
@json_option
@library_option
def compact(as_json: bool) -> None:
    """Merge small segments, and drop removed recordings' fingerprints for good.

    \b
    Example:
      earmark compact

    Queries go on meanwhile, and other writers are refused. It takes up to 100 MB of the disk until
    it is done; stopped at any moment, it loses nothing.

    \b
    JSON, a line:
      {"segments_before", "segments", "embeddings", "dropped"}
    """
    from index.compaction import compact as compact_library

    library = _open(_settings(), _encoder())
    before = library.info()["segments"]
    with _progress(before, "segment") as bar:
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
        _print_json(fields)
    else:
        click.echo(f"{before} segments are {info['segments']}, {dropped} embeddings dropped")


@main.command(short_help="Copy the library, also while it is in use.", epilog=_EXIT_STATUSES)
@click.argument("folder", metavar="DIR")
@json_option
@library_option
def snapshot(folder: str, as_json: bool) -> None:
    """Copy the library as of one commit into DIR, also while it is read and written.

    \b
    Example:
      earmark snapshot /backup/earmark-2027-01-31
      earmark --library /backup/earmark-2027-01-31 verify

    DIR must not exist, and exists only once it is whole; it is a library like any other. On the same
    file system segments are shared by hard links, so for safety from a failing disk name another.

    \b
    JSON, a line:
      {"path", "snapshot", "recordings"}
    """
    from index.backup import backup

    library = _open(_settings(), _encoder())
    revision = backup(library, Path(folder))
    recordings = _open(_settings().model_copy(update={"library": Path(folder)}), _encoder())
    count = recordings.info()["recordings"]
    if as_json:
        _print_json({"path": folder, "snapshot": str(revision), "recordings": count})
    else:
        click.echo(f"{count} recordings, snapshot {revision}, in {folder}")


@main.command(
    short_help="Fingerprint a clip, so that no audio has to be sent.", epilog=_EXIT_STATUSES
)
@click.argument("path", metavar="PATH")
@click.option("-o", "--output", required=True, metavar="FILE.emk", help="Where it is written.")
def fingerprint(path: str, output: str) -> None:
    """Fingerprint a clip here, so that only its fingerprint has to be sent.

    \b
    Example:
      earmark fingerprint suspect.wav -o suspect.emk
      earmark query suspect.emk
      curl -H "Content-Type: application/vnd.earmark.fingerprint" \\
           --data-binary @suspect.emk http://127.0.0.1:8000/v1/query

    The audio cannot be had back from a fingerprint. No library is needed.
    """
    from service.query import FINGERPRINT_EXTENSION, fingerprint_clip

    if Path(output).suffix.lower() != FINGERPRINT_EXTENSION:
        raise click.UsageError(f"-o {output}: a fingerprint's name ends in {FINGERPRINT_EXTENSION}")
    made = fingerprint_clip(Path(path), Path(path).name, _encoder(), _limits(_settings()))
    try:
        made.save(Path(output))
    except OSError as error:
        complain(f"{output} cannot be written: {error.strerror}")
        sys.exit(SOME_FAILED)


@main.command(short_help="Answer over HTTP, on this machine only.", epilog=_EXIT_STATUSES)
@setting("--host", metavar="ADDRESS", help="A loopback address.  [default: 127.0.0.1]")
@setting("--port", metavar="PORT", help="0 takes a free one.  [default: 8000]")
@jobs_option
@max_e_value_option
@hypotheses_option
@library_option
def serve() -> None:
    """Answer over HTTP, on this machine only: this server has no keys yet.

    \b
    Examples:
      earmark serve --port 8080
      curl -F clip=@suspect.mp3 http://127.0.0.1:8080/v1/query

    The routes are described, and can be tried, at /docs. The library is made if it is not there.
    What other processes ingest and remove meanwhile is seen at once. Ctrl-C or SIGTERM finishes
    the requests in hand and stops.
    """
    from service.server import run

    run(_settings(), complain)


@main.command(
    name="settings", short_help="List every setting and what it means.", epilog=_EXIT_STATUSES
)
@json_option
@library_option
def list_settings(as_json: bool) -> None:
    """List every setting: its name, its value here and now, its default, what it means.

    A setting comes from its flag, else from the environment (max_upload: EARMARK_MAX_UPLOAD), else
    from earmark.toml in the current folder, else it has its default.

    \b
    Example:
      EARMARK_MAX_DURATION="30 min" earmark settings
    """
    from service.settings import Settings, in_words
    from service.wording import table

    settings = _settings()
    rows = [
        {
            "name": name,
            "value": in_words(getattr(settings, name)),
            "default": in_words(field.get_default(call_default_factory=True)),
            "meaning": field.description,
        }
        for name, field in Settings.model_fields.items()
    ]
    if as_json:
        for row in rows:
            _print_json(row)
    else:
        header = ("NAME", "VALUE", "DEFAULT", "MEANING")
        click.echo(table(header, [tuple(map(str, row.values())) for row in rows]))
