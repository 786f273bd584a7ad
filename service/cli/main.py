"""Commands that add recordings, answer queries, make fingerprints and list settings; others are in
`service.cli.upkeep` and `service.cli.inspection`. `service.command` adds the server.

`earmark --help` has to be instant, so numpy, numba, pydantic and FastAPI are imported by the
commands that need them and never at the top of this file.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from itertools import chain
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import click

from index.recording import RIGHTS
from service.cli import (
    history,  # noqa: F401, their commands are part of `main`
    inspection,  # noqa: F401, their commands are part of `main`
    upkeep,  # noqa: F401, their commands are part of `main`
    verification,  # noqa: F401, their commands are part of `main`
)
from service.cli.group import (
    EXIT_STATUSES,
    SOME_FAILED,
    WRITE_WAIT,
    complain,
    current_settings,
    finish,
    hypotheses_option,
    jobs_option,
    json_option,
    library_option,
    limits_of,
    load_encoder,
    main,
    max_e_value_option,
    name_of,
    open_library,
    print_json,
    progress,
    ray_option,
    stopping,
    tell_of_table,
    wrong_per_million_option,
)

_ROWS_NAMED = 10  # of those that lack something

if TYPE_CHECKING:
    from fingerprint.encoder import Encoder
    from fingerprint.fingerprint import Fingerprint
    from index.library import Library
    from index.writer import Writer
    from service.evidence.bundle import Writer as EvidenceWriter
    from service.intake.ingest import Candidate, Make
    from service.intake.metadata import MetadataTable
    from service.query.answer import Answer, Match
    from service.runtime.settings import Settings


@main.command(short_help="Add recordings to the library.", epilog=EXIT_STATUSES)
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
@click.option("--owner", metavar="NAME", help="The owner of keys whose recordings these become.")
@click.option(
    "--allow-damaged",
    is_flag=True,
    help="Take files that are cut off or have holes as far as they can be decoded.",
)
@click.option("--private", is_flag=True, help="They answer this owner's queries only.")
@click.option("--job", is_flag=True, hidden=True, help="As the server's jobs: patient, isolated.")
@click.option("--key", metavar="ID", hidden=True, help="The key that the audit log names.")
@jobs_option
@json_option
@library_option
def ingest(
    paths: Sequence[str],
    rightsholder: str | None,
    rights: str | None,
    licence_until: str | None,
    metadata_file: str | None,
    allow_damaged: bool,
    owner: str | None,
    private: bool,
    job: bool,
    key: str | None,
    as_json: bool,
) -> None:
    """Add recordings to the library, which is made if it is not there.

    \b
    Examples:
      earmark ingest album/ single.flac --rightsholder "Blue Label" --rights owned
      earmark ingest back-catalogue/ --metadata back-catalogue.csv
      earmark ingest delivery.zip --rightsholder "Blue Label" --rights owned
      earmark ingest delivery/ --metadata delivery/release.xml --rightsholder "Blue Label" \\
          --rights licensed --licence-until 2027-12-31

    PATH is a file, a folder or an archive (.zip, .tar, .tar.gz, .tar.zst), which is read as a folder
    and not unpacked. Folders are searched through for audio and video files by their
    extension; a file that is named is tried whatever it is called. The same audio a second time
    is not decoded; it gets what its row of the metadata says. Nothing is added without a rights
    basis: --rightsholder and --rights, or those columns in every row of the metadata.

    A CSV has a header, in any case, and commas, semicolons or tabs. Its only required column is `file`, a
    path relative to the CSV or to a PATH, or a file's bare name; id, title, artist, isrc, iswc,
    work, label, release_date, rightsholder, rights and licence_until are known, and usual other
    names of these. A path of another machine (sftp://host/a.wav, C:\\in\\a.wav) means the file of
    that name, if there is one. An ISRC that is none refuses its row. What the CSV leaves open is
    taken from the files' tags. Of a DDEX ERN 3 or 4 message (NewReleaseMessage, its name ends
    in .xml) the sound recordings' ISRCs, titles, artists, labels, durations and files are read; a
    file that lasts much longer or shorter than its message says is refused.

    A file that states more than can be decoded, because it is cut off or has holes, is refused.
    --allow-damaged takes what there is, and notes in the record how many seconds are not
    ("undecoded_seconds"). Of a file with several sound tracks the first that sounds is stored.

    Ctrl-C finishes and commits the files in hand, and leaves with status 130; again, it stops at
    once, and what was committed stays.

    \b
    JSON, a line per file:
      {"file", "status": "added|changed|unchanged|failed", "recording": id or null,
       "error": {"type", "detail"} or null, "duration": seconds or null, "notes": [...]}
    """
    from service.intake.ingest import failed, find_candidates, whole_only
    from service.intake.ingest import ingest as ingest_files
    from service.intake.metadata import MetadataError
    from service.runtime.reading import Reader

    settings = current_settings()
    if private and owner is None and not job:
        raise click.UsageError("--private: whose? give --owner too")
    try:
        table = _metadata(Path(metadata_file)) if metadata_file else None
    except MetadataError as error:
        raise click.UsageError(str(error)) from error
    given = {"rightsholder": rightsholder, "rights": rights}
    if table is not None:
        tell_of_table(table)
    for name, value in given.items():
        lacking = table.lacking(name) if table else [0]
        if not value and lacking:
            where = ""
            if table:
                more = (
                    f" and {len(lacking) - _ROWS_NAMED} more" if len(lacking) > _ROWS_NAMED else ""
                )
                rows = ", ".join(map(str, lacking[:_ROWS_NAMED])) + more
                where = f" (or in {table.unit} {rows} of {metadata_file})"
            raise click.UsageError(f"no rights basis: --{name} is missing{where}")
    if licence_until:
        given["licence_until"] = _date(licence_until)
    known = {name: value for name, value in given.items() if value}
    reader = click.get_current_context().with_resource(Reader())
    candidates, failures, idle = find_candidates(
        [Path(path) for path in paths], known, table, reader.read
    )
    if idle and table and job:  # nobody sees a warning
        failures += [
            failed(table.path, "metadata", f"{table.where(row)}: {row.file} is none of the files")
            for row in idle
        ]
    elif idle:
        complain(
            f"warning: {len(idle)} rows of {metadata_file} name none of the files, "
            f"the first is number {idle[0].number}: {idle[0].file}"
        )
    if guessed := [it for it in candidates if it.written]:
        complain(
            f"warning: {len(guessed)} rows of {metadata_file} were matched by the end of their path, "
            f"the first: {guessed[0].written} is taken for {guessed[0].path}"
        )
    counts = {"added": 0, "changed": 0, "unchanged": 0, "failed": 0}
    nameless: list[Candidate] = []
    encoder = load_encoder()
    library = open_library(settings, encoder, create=True)
    _tell_cost(library, candidates)
    stop = Event()
    with (
        stopping(stop) as signals,
        progress(sum(it.size for it in candidates), "B") as bar,
        _ways(settings, library, encoder, key, stop, job) as (make, writing),
    ):
        outcomes = ingest_files(
            library,
            candidates,
            make if allow_damaged else whole_only(make),
            writing,
            limits=limits_of(settings),
            jobs=settings.jobs,
            stop=stop,
            owner=owner,
            private=private,
            read=reader.read,
            on_read=lambda candidate: bar.update(candidate.size),
            on_nameless=nameless.append,
        )
        for outcome in chain(failures, outcomes):
            counts[outcome.status] += 1
            with bar.external_write_mode(file=sys.stderr):
                if as_json:
                    print_json(vars(outcome))
                elif outcome.error:
                    complain(outcome.error["detail"])
                else:
                    for note in outcome.notes:
                        complain(f"warning: {outcome.file}: {note}")
    if not as_json:
        changed = f"{counts['changed']} changed, " if counts["changed"] else ""
        click.echo(
            f"{counts['added']} added, {changed}{counts['unchanged']} already there, "
            f"{counts['failed']} failed"
        )
        if nameless:
            complain(
                f"files with neither a title nor an artist, in tags or metadata: {len(nameless)}, "
                f"the first is {nameless[0].path}; give them with --metadata or `earmark change`"
            )
    if signals:
        left = len(candidates) + len(failures) - sum(counts.values())
        complain(f"stopped: what was finished is committed, {left} files were not begun")
        sys.exit(128 + signals[0])
    finish(counts["failed"])


@contextmanager
def _ways(
    settings: "Settings",
    library: "Library",
    encoder: "Encoder",
    key: str | None,
    stop: Event,
    job: bool,
) -> "Iterator[tuple[Make, Callable[[], AbstractContextManager[Writer]]]]":
    """How sounds are fingerprinted and how the library is written.

    A job of the server does the one in processes that may die of it. Each batch takes the writer's turn, so
    that other writers get theirs in between.
    """
    from service.intake.ingest import made_here
    from service.runtime.decoding import Decoder

    limits = limits_of(settings)

    def writing() -> "AbstractContextManager[Writer]":
        return library.writer(key, -1, stop.is_set)

    if job:
        with closing(Decoder(settings, encoder, limits)) as decoder:
            yield decoder.of_source, writing
    else:
        # what cannot be written need not be decoded
        with library.writer(key, WRITE_WAIT):
            pass
        yield made_here(encoder, limits), writing


def _metadata(path: Path) -> "MetadataTable":
    from service.intake.ern import load_message
    from service.intake.metadata import MetadataTable

    return load_message(path) if path.suffix.lower() == ".xml" else MetadataTable.load(path)


def _tell_cost(library: "Library", candidates: "Sequence[Candidate]") -> None:
    """Say what an ingest will take: at a terminal, or where the disk seems to be too small."""
    from service.intake.estimate import estimate

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


@main.command(
    short_help="Say which recordings are in a clip, where, and how sure.", epilog=EXIT_STATUSES
)
@click.argument("clips", nargs=-1, required=True, metavar="CLIP...")
@click.option(
    "--evidence",
    metavar="DIR",
    help="Write a page and a signed bundle of evidence for each match there.",
)
@click.option(
    "--reference",
    "references",
    multiple=True,
    metavar="FILE",
    help="A file that was ingested, whose spectrum the evidence shows under the clip's; may be repeated.",
)
@max_e_value_option
@wrong_per_million_option
@hypotheses_option
@jobs_option
@ray_option
@json_option
@library_option
def query(
    clips: Sequence[str], evidence: str | None, references: Sequence[str], as_json: bool
) -> None:
    """Say which recordings of the library are in CLIP, where, and how sure that is.

    \b
    Examples:
      earmark query suspect.mp3 upload.mp4
      ffmpeg -i stream -t 20 -f wav - | earmark query -
      earmark query --json *.emk > answers.jsonl

    CLIP is a file of audio or video, a fingerprint (.emk, see `earmark fingerprint`), or `-` for
    standard input; of a folder, the audio and video files in it and below. A clip that cannot be read is told
    of, and the others are still answered. All sound tracks of a file are heard: a match names its "track" if
    there are several. What a file states and does not give is "undecoded_seconds"; "notes" say what else was
    not heard. A clip longer than ten minutes is looked up in stretches, each of which is a query.
    Tier `match` can be acted on; tier `review` should be listened to first.

    With --ray, the nodes of a Ray cluster hold the library. Is one of them lost, the others answer: the share
    of the library that did is "answered", and the exit status is 1 if that is not all of it.

    With --evidence, every match gets a page with the pictures that speak for it, and a bundle of what it was
    computed from, signed with the library's key: `earmark verify-evidence` checks and computes it again. With
    --reference, the page also shows the recording's spectrum, if the file is the very one that was ingested.

    \b
    JSON, a line per clip:
      {"clip", "sha256", "duration", "error": null or {"type", "detail"},
       "matches": [{"recording", "source", "title", "artist", "isrc", "work",
                    "rightsholder", "rights", "tier", "e_value", "score",
                    "query_start", "query_end", "reference_start", "reference_end",
                    "tempo", "tempo_low", "tempo_high", "pitch_semitones", "pitch_low",
                    "pitch_high", "changed", "likelihood_ratio", "tested_clips",
                    "tested_closer", "same_file", "repeats", "track": number or null}, ...],
       "undecoded_seconds", "notes": [...],
       "library": {"snapshot", "recordings", "seconds"}, "encoder", "elapsed_ms"}
    A match that rests on what other recordings have too, a loop or a sample, says where that is:
    "shared_start", "shared_end"; one that is less alike than a copy has "other_version". While a shard of a
    cluster is lost, "library" has "answered".
    Error types: not-found, undecodable, too-short, silent, too-long, too-large, timeout.
    """
    from service.evidence.errors import EvidenceError
    from service.query.clips import Asked, answers
    from service.runtime.ray_library import open_searched

    settings = current_settings()
    encoder = load_encoder()
    library = open_searched(settings, encoder)
    named, failures = _clips(clips)

    writer: EvidenceWriter | None = None
    if references and evidence is None:
        raise click.UsageError("--reference goes with --evidence DIR")
    if evidence is not None:
        from service.evidence.bundle import Writer

        try:
            writer = Writer(library, Path(evidence), settings, complain)
            for name in references:
                writer.show(Path(name), limits_of(settings))
        except EvidenceError as error:
            complain(str(error))
            failures += 1

    def on_found(clip: str, made: "Fingerprint", matches: "list[Match]", begins: float) -> None:
        nonlocal failures
        if writer is None:
            return
        try:
            writer.write(clip, made, matches, begins)
        except EvidenceError as error:
            complain(str(error))
            failures += 1

    asked = Asked(library, encoder, limits_of(settings), settings.max_e_value, settings.hypotheses)
    stop = Event()
    with (
        closing(library),
        stopping(stop) as signals,
        progress(len(named), "clip") as bar,
        closing(answers(named, asked, jobs=settings.jobs, on_found=on_found)) as found,
    ):
        for answer in found:
            answered = answer.library.answered
            failures += answer.error is not None or answered < 1
            with bar.external_write_mode(file=sys.stderr):
                if as_json:
                    click.echo(answer.model_dump_json())
                elif answer.error:
                    complain(answer.error.detail)
                else:
                    click.echo(_in_words(answer))
                    for note in answer.notes:
                        complain(f"{answer.clip}: {note}")
                if answered < 1:
                    complain(
                        f"{answer.clip}: only {answered:.1%} of the library answered; try again"
                    )
            bar.update()
            if stop.is_set():
                break
    if signals:
        sys.exit(128 + signals[0])
    finish(failures)


def _clips(paths: Sequence[str]) -> tuple[list[str], int]:
    """The clips at these paths, those in folders among them; and what could not be read or has none."""
    from service.datasets.extensions import is_sound
    from service.datasets.folders import files_below
    from service.query.answer import FINGERPRINT_EXTENSION

    clips: list[str] = []
    failures: list[str] = []

    def unreadable(error: OSError) -> None:
        failures.append(f"{error.filename}: {error.strerror}")

    for path in paths:
        if not os.path.isdir(path):
            clips.append(path)
            continue
        before = len(clips) + len(failures)
        clips += [
            str(file)
            for file in files_below(Path(path), unreadable)
            if is_sound(file.name) or file.suffix.lower() == FINGERPRINT_EXTENSION
        ]
        if len(clips) + len(failures) == before:
            failures.append(f"{path}: no audio file in this folder")
    for failure in failures:
        complain(failure)
    return clips, len(failures)


def _in_words(answer: "Answer") -> str:
    from service.presentation.formatting import clock, in_words, printable, table

    head = f"{printable(answer.clip)} ({clock(answer.duration or 0)})"
    if not answer.matches:
        return f"{head}: no known work"
    rows = [
        (
            name_of(match),
            said["where"],
            "; ".join(filter(None, (said["of"], said["repeats"]))),
            said["changed"],
            ": ".join(filter(None, (match.tier, said["doubt"]))),
            said["chance"],
        )
        for match in answer.matches
        for said in [in_words(match)]
    ]
    header = ("WORK", "IN THE CLIP", "IN THE WORK", "CHANGED", "TIER", "IN A TEST")
    return f"{head}:\n{table(header, rows, indent='  ')}"


@main.command(
    short_help="Fingerprint a clip, so that no audio has to be sent.", epilog=EXIT_STATUSES
)
@click.argument("path", metavar="PATH")
@click.option("-o", "--output", required=True, metavar="FILE.emk", help="Where it is written.")
@json_option
@library_option
def fingerprint(path: str, output: str, as_json: bool) -> None:
    """Fingerprint a clip here, so that only its fingerprint has to be sent.

    \b
    Example:
      earmark fingerprint suspect.wav -o suspect.emk
      earmark query suspect.emk
      curl -H "Content-Type: application/vnd.earmark.fingerprint" \\
           --data-binary @suspect.emk http://127.0.0.1:8000/v1/query

    A fingerprint holds a coarse picture of the sound (40 moments a second, 96 bands), which is less
    than the audio and more than nothing. No library is needed.

    \b
    JSON:
      {"clip", "fingerprint": FILE.emk, "sha256": of the clip, "duration": seconds, "encoder"}
    """
    from service.presentation.formatting import as_text
    from service.query.answer import FINGERPRINT_EXTENSION, fingerprint_clip

    if Path(output).suffix.lower() != FINGERPRINT_EXTENSION:
        raise click.UsageError(f"-o {output}: a fingerprint's name ends in {FINGERPRINT_EXTENSION}")
    made = fingerprint_clip(
        Path(path), Path(path).name, load_encoder(), limits_of(current_settings())
    )
    try:
        made.save(Path(output))
    except OSError as error:
        complain(f"{output} cannot be written: {error.strerror}")
        sys.exit(SOME_FAILED)
    if as_json:
        print_json(
            {
                "clip": as_text(path),
                "fingerprint": as_text(output),
                "sha256": made.sha256,
                "duration": round(made.duration, 3),
                "encoder": made.encoder,
            }
        )


@main.command(
    name="settings", short_help="List every setting and what it means.", epilog=EXIT_STATUSES
)
@json_option
@library_option
def list_settings(as_json: bool) -> None:
    """List every setting: its name, its value here and now, its default, what it means.

    A setting comes from its flag, else from the environment (max_upload: EARMARK_MAX_UPLOAD), else
    from the configuration file (--config, EARMARK_CONFIG, or earmark.toml in the user's configuration
    folder), else it has its default. An earmark.toml in the current folder is ignored.

    \b
    Example:
      EARMARK_MAX_DURATION="30 min" earmark settings
    """
    from service.presentation.formatting import table
    from service.runtime.settings import Settings, in_words

    settings = current_settings()
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
            print_json(row)
    else:
        header = ("NAME", "VALUE", "DEFAULT", "MEANING")
        click.echo(table(header, [tuple(map(str, row.values())) for row in rows]))
