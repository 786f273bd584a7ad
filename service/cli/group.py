"""What the commands of `earmark` share: the group they are in, options, opening, printing.

Standard output is the result; all else goes to standard error.

`earmark --help` has to be instant, so numpy, numba, pydantic and FastAPI are imported by the
commands that need them and never at the top of this file.
"""

import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from service.runtime.exit_status import (
    INTERRUPTED,
    LIBRARY_UNUSABLE,
    SOME_FAILED,
    WRONG_USAGE,
)

if TYPE_CHECKING:
    from threading import Event

    from tqdm import tqdm

    from fingerprint.audio import Limits
    from fingerprint.encoder import Encoder
    from index.library import Library
    from index.recording import Recording
    from service.intake.metadata import MetadataTable
    from service.query.answer import Match
    from service.runtime.settings import Settings

# s to wait for another process that writes: an ingest writes a batch in less, a compaction takes longer.
WRITE_WAIT = 3.0

EXIT_STATUSES = """
\b
Exit status: 0 all done; 1 some inputs failed, the rest is done; 2 wrong usage;
3 the library cannot be used (missing, locked, damaged, another encoder's), or the cluster.
"""

Command = TypeVar("Command", bound=Callable[..., Any])


class EarmarkGroup(click.Group):
    """Turns Earmark's errors into one line on standard error and the contract's exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            complain("stopped")
            ctx.exit(INTERRUPTED)
        except Exception as error:
            from fingerprint.errors import EarmarkError
            from service.runtime.extras import missing_extra

            missing = missing_extra(error, f"`earmark {ctx.invoked_subcommand}`")
            if missing is not None:
                complain(str(missing))
                ctx.exit(WRONG_USAGE)
            if not isinstance(error, EarmarkError):
                raise
            complain(str(error))
            ctx.exit(_exit_status(error))


def _exit_status(error: Exception) -> int:
    from fingerprint.errors import AudioError
    from service.datasets.location import DatasetError
    from service.evidence.errors import EvidenceError
    from service.runtime.settings import SettingsError
    from service.scan.journal import JournalError, JournalUnwritable

    if isinstance(error, AudioError | EvidenceError | JournalUnwritable):
        return SOME_FAILED
    wrong = isinstance(error, SettingsError | DatasetError | JournalError)
    return WRONG_USAGE if wrong else LIBRARY_UNUSABLE


def tell_of_table(table: "MetadataTable") -> None:
    """Say what of a metadata table is not read, or not as it is written."""
    for column in table.unknown_columns:
        complain(f"warning: {table.path} has a column {column!r}, which is not known: ignored")
    if table.assumed:
        complain(
            f"warning: {table.path}: {table.assumed} lines are not UTF-8 and were read as Windows-1252"
        )


def complain(message: str) -> None:
    """One line to the person at the terminal."""
    click.echo(f"earmark: {message}", err=True)


def _flag(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
    """Keep a setting's flag for `current_settings`; given twice, the one nearest the command counts."""
    if value is not None:
        ctx.ensure_object(dict)[parameter.name] = value


def setting(*names: str, help: str, metavar: str) -> Callable[[Command], Command]:
    """An option that is the flag of the setting of its name; `service.runtime.settings` checks it."""
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
wrong_per_million_option = setting(
    "--wrong-per-million",
    metavar="N",
    help="Wrong answers of tier match to put up with among a million unrelated clips; less makes for"
    " more of tier review.  [default: 1.0]",
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
ray_option = setting(
    "--ray",
    metavar="ADDRESS",
    help="Work on the Ray cluster there: host:port, or auto for the one that runs here."
    "  [default: none]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")


def current_settings() -> "Settings":
    from service.runtime.settings import load_settings

    logging.basicConfig(format="earmark: %(message)s")
    return load_settings(**(click.get_current_context().find_object(dict) or {}))


def limits_of(settings: "Settings") -> "Limits":
    from fingerprint.audio import Limits

    return Limits(
        max_seconds=settings.max_duration.total_seconds(), max_bytes=int(settings.max_size)
    )


def load_encoder() -> "Encoder":
    from fingerprint.encoder import Encoder

    return Encoder.load()


def open_library(
    settings: "Settings", encoder: "Encoder", *, create: bool = False, searchable: bool = False
) -> "Library":
    from index.library import Library

    return Library.open(
        settings.library,
        encoder,
        url=settings.database,
        create=create,
        searchable=searchable,
        gate=settings.gate,
    )


def finish(failures: int) -> None:
    if failures:
        sys.exit(SOME_FAILED)


@click.group(
    cls=EarmarkGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_STATUSES,
)
@click.version_option(package_name="earmark")
@setting(
    "--config",
    metavar="FILE",
    help="Configuration file (also EARMARK_CONFIG).  [default: none]",
)
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


def progress(total: int, unit: str) -> "tqdm[NoReturn]":
    """A progress bar, if standard error is a terminal."""
    from tqdm import tqdm

    return tqdm(total=total, unit=unit, unit_scale=unit == "B", disable=None, leave=False)


def print_json(value: object) -> None:
    click.echo(json.dumps(value, ensure_ascii=False))


def name_of(recording: "Recording | Match") -> str:
    """Title and artist, or the file's name where there is no title."""
    name = recording.title or recording.source
    return f"{name} ({recording.artist})" if recording.artist else name


def print_fields(fields: dict[str, Any]) -> None:
    from service.presentation.formatting import table

    rows = [(name, "" if value is None else str(value)) for name, value in fields.items()]
    click.echo(table(rows[0], rows[1:]))


@contextmanager
def stopping(stop: "Event") -> Iterator[list[int]]:
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
