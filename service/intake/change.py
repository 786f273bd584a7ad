"""Other metadata for recordings that are in the library, from the rows of a CSV file.

A row names its recording by `id`, or else by `file`, the name of the file that it was ingested from. A
cell that is empty leaves what is there, one that holds only `-` empties it. Codes are not touched.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from index.library import Library
from service.intake.ingest import ErrorObject
from service.intake.metadata import EMPTY, MetadataTable, Row

KEYS = ("id", "file")
_WAIT = 3.0  # s, for another process that writes: an ingest writes a batch in less


@dataclass(frozen=True)
class Change:
    """What became of one row; its fields are the keys of `earmark change --json`."""

    row: int
    recording: str | None
    status: Literal["changed", "unchanged", "failed"]
    error: ErrorObject | None = None


def change(library: Library, table: MetadataTable) -> Iterator[Change]:
    """Change what the rows say, all in one commit; yields each row's outcome once that is done.

    A row that cannot be used changes nothing, and the others still count.
    Raises LibraryError if another process is writing.
    """
    seen: dict[str, int] = {}
    outcomes = []
    with library.writer(wait=_WAIT) as writer:
        for row in table.rows:
            try:
                id = _recording_of(row, library)
                if id in seen:
                    raise ValueError(f"row {seen[id]} is about the same recording")
                values = {
                    name: None if value == EMPTY else value
                    for name, value in row.fields.items()
                    if name != "id"
                }
                for name in ("rightsholder", "rights"):
                    if name in values and values[name] is None:
                        raise ValueError(f"a recording cannot be without {name}")
                _, changed = writer.change(id, values)
                seen[id] = row.number
                outcomes.append(Change(row.number, id, "changed" if changed else "unchanged"))
            except ValueError as error:
                wrong: ErrorObject = {
                    "type": "metadata",
                    "detail": f"{table.where(row)}: {error}",
                }
                outcomes.append(Change(row.number, None, "failed", wrong))
        writer.commit()
    yield from outcomes


def _recording_of(row: Row, library: Library) -> str:
    """The id of the recording that a row is about. Raises ValueError if it is not clear."""
    if row.problem:
        raise ValueError(row.problem)
    if id := row.fields.get("id"):
        try:
            return library.recording(id).id
        except KeyError:
            raise ValueError(f"no recording {id!r}") from None
    found = library.named(Path(row.file).name)
    if len(found) != 1:
        count = f"{len(found)} recordings were" if found else "no recording was"
        raise ValueError(f"{count} ingested from a file named {row.file!r}; give its id")
    return found[0].id
