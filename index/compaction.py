"""Compaction: all segments become large ones, and codes of removed recordings are dropped for good.

Neighbouring segments are merged (`index.merging`), one commit for each new segment: so no more than one
segment is on the disk twice, and what was committed before a crash stays compacted.
"""

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np

from index import catalogue
from index.catalogue import Placements, SegmentRow
from index.database import DatabaseErrors
from index.errors import LibraryLocked
from index.library import Library
from index.merging import LARGEST, LOCK, PATIENCE, Merged, merge
from index.writer import Writer


def compact(library: Library) -> Iterator[Merged]:
    """Compact a library; yields after each commit.

    Raises LibraryLocked if another process is writing, LibraryError if a segment is damaged: its codes
    are then left as they are, for `verify` to tell of.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(library.database.lock(LOCK, PATIENCE))
        except TimeoutError:
            raise LibraryLocked(
                f"{library.path}: another process merges segments; try again when it is done"
            ) from None
        except (OSError, *DatabaseErrors) as error:
            raise library.unwritable(error) from None
        writer = stack.enter_context(Writer.locked(library, None))
        with library.reading() as connection:
            rows = catalogue.segments(connection)
            placements = catalogue.placements(connection)
        kept = dict(
            zip(*(it.tolist() for it in _totals(placements)), strict=True)  # by segment
        )
        for group in _groups(rows, kept):
            yield merge(library, group, writer)


def _totals(placements: Placements) -> tuple[np.ndarray, np.ndarray]:
    """Segments that have recordings, and embeddings of those in each."""
    numbers, at = np.unique(placements.segment, return_inverse=True)
    return numbers, np.bincount(at, placements.count, len(numbers)).astype(np.int64)


def _groups(rows: list[SegmentRow], kept: dict[int, int]) -> Iterator[list[SegmentRow]]:
    """Runs of segments that are worth making one: several, or one with codes to drop."""
    group: list[SegmentRow] = []
    total = 0

    def worth() -> bool:
        return len(group) > 1 or any(row.embeddings > kept.get(row.number, 0) for row in group)

    for row in rows:
        if group and total + kept.get(row.number, 0) > LARGEST:
            if worth():
                yield group
            group, total = [], 0
        group.append(row)
        total += kept.get(row.number, 0)
    if worth():
        yield group
