"""The command that shows the audit log."""

import sys
from typing import TYPE_CHECKING

import click

from service.cli.group import (
    EXIT_STATUSES,
    LIBRARY_UNUSABLE,
    complain,
    current_settings,
    json_option,
    library_option,
    load_encoder,
    main,
    open_library,
    print_json,
)

if TYPE_CHECKING:
    from index.audit_log import Entry


@main.command(
    name="log", short_help="Show who did what to the library, and when.", epilog=EXIT_STATUSES
)
@click.option("--recording", metavar="ID", help="Only what was done to this recording.")
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Only entries of this kind.")
@click.option("--since", metavar="DATE", help="Only from this day (UTC) on: 2026-11-30.")
@json_option
@library_option
def show_log(
    recording: str | None, kinds: tuple[str, ...], since: str | None, as_json: bool
) -> None:
    """Show the audit log: every ingest, change, removal and key, in order, and who did it.

    \b
    Examples:
      earmark log --since 2026-11-01
      earmark log --recording 01j9w0c4
      earmark log --kind remove --kind change

    Kinds are ingest, change, remove, compact, calibration, key, revoke and signing-key. The chain of hashes
    is checked on the way; exit status 3 if it is broken.

    \b
    JSON, a line per entry:
      {"number", "at", "kind", "by": id of a key, or null for who sat at the machine, "recording", "details",
      "hash"}
    """
    from index.audit_log import KINDS, entries

    if unknown := set(kinds) - set(KINDS):
        raise click.UsageError(f"--kind {min(unknown)}: is none of {', '.join(KINDS)}")
    library = open_library(current_settings(), load_encoder())
    with library.reading() as connection:
        try:
            for entry in entries(connection):
                wanted = (
                    (recording is None or entry.recording == recording)
                    and (not kinds or entry.kind in kinds)
                    and (since is None or entry.at >= since)
                )
                if not wanted:
                    continue
                if as_json:
                    print_json(vars(entry))
                else:
                    click.echo(_in_words(entry))
        except ValueError as error:
            complain(f"{library.path}: {error}; `earmark verify` checks all of the library")
            sys.exit(LIBRARY_UNUSABLE)


def _in_words(entry: "Entry") -> str:
    """One line: when, what, to what, by whom."""
    from service.presentation.formatting import printable

    details = entry.details
    if entry.kind == "ingest":
        title, artist = details.get("title") or details.get("source"), details.get("artist")
        said = f"{title} ({artist})" if artist else str(title)
        said += f", {details.get('rightsholder')}, {details.get('rights')}"
    elif entry.kind == "change":
        said = ", ".join(f"{name}: {old} -> {new}" for name, (old, new) in details.items())
    elif entry.kind == "calibration":
        said = "fitted to the library" if details else "the one that comes with Earmark"
    else:
        said = ", ".join(f"{name} {value}" for name, value in details.items() if value is not None)
    by = f"key {entry.by}" if entry.by else "at the machine"
    of = f" {entry.recording}" if entry.recording else ""
    line = f"{entry.number}  {entry.at}  {entry.kind}{of}  {said}  ({by})"
    return printable(line)
