"""The commands that look into what others hold: scan a dataset, compare metadata."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli.group import (
    EXIT_STATUSES,
    complain,
    current_settings,
    finish,
    jobs_option,
    json_option,
    library_option,
    load_encoder,
    main,
    max_e_value_option,
    open_library,
    print_json,
    progress,
    ray_option,
    stopping,
    wrong_per_million_option,
)

if TYPE_CHECKING:
    from service.datasets.member import Member
    from service.scan.worker import Heard


report_option = click.option(
    "--report", "folder", required=True, metavar="DIR", help="Where the report goes: a new folder."
)


@main.command(short_help="Say which works a dataset holds, with a report.", epilog=EXIT_STATUSES)
@click.argument("dataset", metavar="DATASET")
@report_option
@click.option("--resume", is_flag=True, help="Go on with a scan that was stopped or killed.")
@click.option(
    "--probe", is_flag=True, help="Look at windows of each file, and at all of it only on evidence."
)
@click.option(
    "--thorough", is_flag=True, help="Look at long files as closely as `earmark query` does."
)
@click.option("--evidence", is_flag=True, help="Write evidence for each match into DIR/evidence.")
@click.option(
    "--operator",
    metavar="NAME",
    help="Who answers for the scan, for the report.  [default: not stated]",
)
@click.option(
    "--hypotheses",
    metavar="N",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Hypotheses of altered tempo and pitch to try on every file that is not recognised;"
    " 124 try all, and take many times as long.",
)
@click.option(
    "--owner", metavar="NAME", help="Compare only with what this owner of keys sees; default: all."
)
@max_e_value_option
@wrong_per_million_option
@jobs_option
@ray_option
@json_option
@library_option
def scan(
    dataset: str,
    folder: str,
    resume: bool,
    probe: bool,
    thorough: bool,
    evidence: bool,
    operator: str | None,
    hypotheses: int,
    owner: str | None,
    as_json: bool,
) -> None:
    """Say which works of the library a dataset holds, where, and how much of them.

    \b
    Examples:
      earmark scan uploads/ --report found
      earmark scan shards/ --report found --probe
      earmark scan dump.tar.zst --report found --resume

    DATASET is a folder, a zip or tar file (also .tar.gz, .tar.zst; WebDataset shards with their JSON),
    a Parquet file with a column of {bytes, path}, or a manifest of paths (.jsonl, .csv, .tsv, also
    .gz and .zst) relative to itself; or the URL of such (s3://…, with fsspec and the store's client
    installed). In a folder, sounds are known by their extension, and archives and
    Parquet files are looked into. Nothing is unpacked to disk. Files of the same content are heard once.

    DIR gets report.html, summary.json, files and segments (.csv and .parquet) and errors.csv. A scan
    that was stopped or killed goes on with --resume, which loses no file and counts none twice; Ctrl-C
    finishes the files in hand. A file that cannot be read is a line in errors.csv, and the exit status
    is 1 in the end.

    With --ray, the nodes of a Ray cluster read and hear the files, --jobs of them at a time (default: one
    per core of the cluster). Library, DATASET and DIR are where all nodes see them.

    \b
    JSON: the line of summary.json.
    """
    from threading import Event

    from fingerprint.hypotheses import LADDER
    from service.datasets.location import place
    from service.datasets.walk import size_of
    from service.scan.scanning import scan_into

    settings = current_settings()
    if hypotheses > len(LADDER):
        raise click.UsageError(f"--hypotheses {hypotheses}: there are {len(LADDER)}")
    library = open_library(settings, load_encoder(), searchable=True)
    stop, heard_files, found_files = Event(), 0, 0
    with stopping(stop) as signals, progress(size_of(place(dataset)), "B") as bar:

        def on_begin(found: int) -> None:
            nonlocal found_files
            found_files = found

        def on_done(member: "Member", heard: "Heard | None") -> None:
            nonlocal heard_files, found_files
            heard_files += 1
            found_files += heard is not None and bool(heard.matches)
            bar.set_postfix(files=heard_files, found=found_files, refresh=False)
            bar.update(member.weight)

        summary = scan_into(
            Path(folder),
            dataset,
            library,
            settings,
            resume=resume,
            probe=probe,
            thorough=thorough,
            evidence=evidence,
            hypotheses=hypotheses,
            owner=owner,
            operator=operator,
            warn=complain,
            stop=stop,
            on_begin=on_begin,
            on_done=on_done,
        )
    if summary is None:
        complain(f"stopped: what was finished is noted; go on with --resume --report {folder}")
        sys.exit(128 + signals[0])
    _tell(summary, Path(folder), as_json)
    finish(summary["failed_files"])


def _tell(summary: dict[str, Any], report: Path, as_json: bool) -> None:
    if as_json:
        print_json(summary)
        return
    click.echo(
        f"{summary['matched_files']} of {summary['files']} files match a known work, "
        f"{summary['review_files']} are to be listened to, {summary['failed_files']} could not be searched"
    )
    click.echo(report / "report.html")


@main.command(short_help="Say which rows of metadata name works.", epilog=EXIT_STATUSES)
@click.argument("metadata", metavar="METADATA")
@report_option
@click.option(
    "--encoding", metavar="NAME", help="Encoding of a text file that is neither UTF-8 nor UTF-16."
)
@json_option
@library_option
def reconcile(metadata: str, folder: str, encoding: str | None, as_json: bool) -> None:
    """Say which rows of metadata name works of the library: names alone, no sound.

    \b
    Example:
      earmark reconcile tracks.parquet --report named

    METADATA is a Parquet, CSV, TSV, JSON or JSON-lines (.jsonl) file (these also .gz and .zst), an SQLite
    file, or a folder of SQLite files. It has columns for ISRC or title, and for artist and duration, under
    any of their usual names, also nested (external_ids.isrc); SQLite's artists may be in a table of their
    own (tracks, track_artists, artists). A row is compared by ISRC, or else by title and artist, with a
    duration within 3 s where it has one; names are compared without case, accents, punctuation,
    brackets, "feat." and "remastered". Each hit has a grade; the grade `near` is to be looked at.

    Durations may be written 225, 3:45, 00:03:45, PT3M45S, 225 s or 225000 (milliseconds). Every row counts:
    one that is odd, cannot be read or names nothing is in errors.csv by its line.

    DIR gets report.html, summary.json, rows (.csv and .parquet) and errors.csv. Exit status 1: some rows
    could not be read.

    \b
    JSON: the line of summary.json.
    """
    from service.scan.reconcile import reconcile as reconcile_metadata

    library = open_library(current_settings(), load_encoder())
    summary = reconcile_metadata(library, Path(metadata), Path(folder), encoding=encoding)
    failures = summary["unread_rows"] + bool(summary["damage"])
    _tell_oddities(metadata, Path(folder) / "errors.csv", summary)
    if as_json:
        print_json(summary)
        finish(failures)
        return
    near = f", {summary['near_rows']} more nearly do" if summary["near_rows"] else ""
    click.echo(
        f"{summary['matched_rows']} of {summary['rows']} rows name one of "
        f"{summary['recordings']} recordings{near}"
    )
    click.echo(Path(folder) / "report.html")
    finish(failures)


def _tell_oddities(metadata: str, errors: Path, summary: Mapping[str, Any]) -> None:
    """Say what was not read, or not as it is written."""
    if summary["damage"]:
        complain(f"{metadata}: {summary['damage']}")
    for name, what in (
        ("unread_rows", "could not be read"),
        ("unnamed_rows", "have neither a title nor an ISRC and were not compared"),
        ("odd_rows", "have too many or too few cells and were compared all the same"),
    ):
        if summary[name]:
            complain(f"{metadata}: {summary[name]} rows {what}: {errors}")
    if lines := summary["rows_of_assumed_encoding"]:
        complain(
            f"{metadata}: {lines} lines are not UTF-8 and were read as Windows-1252; "
            "if that is wrong, give --encoding"
        )
