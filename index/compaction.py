"""Compaction: small segments become large ones, and codes of removed recordings are dropped for good.

Neighbouring segments are merged up to SEGMENT embeddings, one commit for each new segment, and the old
files are deleted after it: so no more than one segment is on the disk twice, a crash leaves the last
commit, and what was committed before it stays compacted. A reader that has mapped an old file keeps it.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from index import audit_log as audit
from index import catalogue, segment
from index.audit_log import Event
from index.catalogue import Placements, SegmentRow
from index.errors import LibraryError
from index.library import Library
from index.segment import Codes
from index.writer import Writer

SEGMENT = 64 * segment.BLOCK  # embeddings (583 h, 76 MB): merged in some 300 MB of memory


class Merged(NamedTuple):
    """One commit of a compaction: how many segments became one (or none), embeddings kept, dropped."""

    segments: int
    kept: int
    dropped: int


def compact(library: Library) -> Iterator[Merged]:
    """Compact a library; yields after each commit.

    Raises LibraryLocked if another process is writing, LibraryError if a segment is damaged: its codes
    are then left as they are, for `verify` to tell of.
    """
    with Writer.locked(library, None) as writer:
        with library.reading() as connection:
            rows = catalogue.segments(connection)
            placements = catalogue.placements(connection)
        kept = dict(
            zip(*(it.tolist() for it in _totals(placements)), strict=True)  # by segment
        )
        for group in _groups(library, rows, kept):
            yield _merge(library, writer, group)


def _totals(placements: Placements) -> tuple[np.ndarray, np.ndarray]:
    """Segments that have recordings, and embeddings of those in each."""
    numbers, at = np.unique(placements.segment, return_inverse=True)
    return numbers, np.bincount(at, placements.count, len(numbers)).astype(np.int64)


def _is_undivided(library: Library, row: SegmentRow) -> bool:
    """Whether a segment is one of before, whose lists would be divided into cells now."""
    cells = segment.cells_per_list(row.embeddings, library.encoder.codec)
    return cells > 1 and library.segment(row).cells == 1


def _groups(
    library: Library, rows: list[SegmentRow], kept: dict[int, int]
) -> Iterator[list[SegmentRow]]:
    """Runs of segments that are worth making one: several, or one with codes to drop or to divide."""
    group: list[SegmentRow] = []
    total = 0

    def worth() -> bool:
        return len(group) > 1 or any(
            row.embeddings > kept.get(row.number, 0) or _is_undivided(library, row) for row in group
        )

    for row in rows:
        if group and total + kept.get(row.number, 0) > SEGMENT:
            if worth():
                yield group
            group, total = [], 0
        group.append(row)
        total += kept.get(row.number, 0)
    if worth():
        yield group


def _merge(library: Library, writer: Writer, group: list[SegmentRow]) -> Merged:
    """One commit that puts what is kept of some segments into one."""
    codec = library.encoder.codec
    numbers = [row.number for row in group]
    with writer.transaction() as connection:
        here = catalogue.placements(connection, segments=numbers)
        parts: list[Codes] = []
        for row in group:
            inside = here.where([row.number])
            if len(inside.number):
                parts += _runs(library, row, inside)
        total = int(here.count.sum())
        number = None
        if len(here.number):
            codes = segment.concatenate(parts, codec.code_size)
            number = writer.write_segment(connection, segment.arrange(codes, codec))
            catalogue.move_recordings(connection, here, number, np.cumsum(here.count) - here.count)
        catalogue.remove_segments(connection, numbers)
        dropped = sum(row.embeddings for row in group) - total
        details = {"segments": numbers, "into": number, "kept": total, "dropped": dropped}
        audit.append(connection, [Event("compact", None, details)], catalogue.now(), None)
    for row in group:
        with contextlib.suppress(OSError):  # the next writer tries again
            library.segment_path(row.number).unlink()
    return Merged(len(group), total, dropped)


def _runs(library: Library, row: SegmentRow, inside: Placements) -> list[Codes]:
    """The codes of a segment's recordings, once the file is known to be what was written."""
    path = library.segment_path(row.number)
    read = library.segment(row)
    if segment.checksum(path) != row.sha256:
        raise LibraryError(f"{path}: the library is damaged: its checksum is wrong; {segment.MEND}")
    codes = read.run(0, len(read))
    ends = inside.first + inside.count
    return [codes[first:end] for first, end in zip(inside.first, ends, strict=True)]
