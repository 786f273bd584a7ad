"""Other metadata for recordings that are in the library, from the rows of a CSV file.

A row names its recording by `id`, or else by `file`, the path of the file that it was ingested from or the
end of that path. A cell that is empty leaves what is there, one that holds only `-` empties it. Codes are
not touched.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from index.library import Library
from index.recording import Recording
from service.intake.ingest import ErrorObject
from service.intake.metadata import MetadataTable, Row, changes
from service.intake.paths import Paths

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
    by_file = _ByFile(library, [row.file for row in table.rows])
    with library.writer(wait=_WAIT) as writer:
        for row in table.rows:
            try:
                recording = _recording_of(row, library, by_file)
                id = recording.id
                if id in seen:
                    raise ValueError(f"row {seen[id]} is about the same recording")
                _, changed = writer.change(id, changes(row.fields, recording))
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


class _ByFile:
    """The recordings by the paths that a table's rows have for them."""

    def __init__(self, library: Library, written: Sequence[str]) -> None:
        self._library, self._written = library, written

    def of(self, file: str) -> list[Recording]:
        """The recordings that a path may mean."""
        return self._library.named(file) or [
            recording for path in self._paths[file] for recording in self._sources[path]
        ]

    @cached_property
    def _sources(self) -> dict[Path, list[Recording]]:
        sources: dict[Path, list[Recording]] = {}
        for recording in self._library.every_recording():
            sources.setdefault(Path(recording.source), []).append(recording)
        return sources

    @cached_property
    def _paths(self) -> dict[str, list[Path]]:
        meant = Paths(list(self._sources), []).of(self._written)
        return {file: found for file, (found, _) in zip(self._written, meant, strict=True)}


def _recording_of(row: Row, library: Library, by_file: _ByFile) -> Recording:
    """The recording that a row is about. Raises ValueError if it is not clear."""
    if row.problem:
        raise ValueError(row.problem)
    if id := row.fields.get("id"):
        try:
            return library.recording(id)
        except KeyError:
            raise ValueError(f"no recording {id!r}") from None
    found = by_file.of(row.file)
    if len(found) != 1:
        count = f"{len(found)} recordings were" if found else "no recording was"
        raise ValueError(f"{count} ingested from a file named {row.file!r}; give its id")
    return found[0]
