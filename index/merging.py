"""Merging: several segments become one, in which codes of removed recordings are dropped for good.

After a commit small segments are merged, as in log-structured stores (O'Neil et al. 1996): where FEW segments
are of one size, up to a factor of FEW, they and all smaller ones become one. So a library has at most FEW - 1
segments of each size, their number grows with the logarithm of the library, and an embedding is written again
once for each size that it grows through.

The lists of the new segment are written beside the segments while others go on writing. Then, under the
writer's lock, they get their name and header, and one transaction names the new segment in place of the old
ones; what was removed meanwhile stays removed. The old files are deleted after it. A crash leaves the last
commit, and at most a file that the next merge, or the next writer, deletes. A reader that has mapped an old
file keeps it.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index import audit_log as audit
from index import catalogue, segment
from index.audit_log import Event
from index.catalogue import Placements, SegmentRow
from index.database import DatabaseErrors
from index.errors import LibraryError, LibraryLocked
from index.segment import Lists, Segment, Taken
from index.writer import Writer

if TYPE_CHECKING:
    from index.library import Library

FEW = 4  # segments of one size that are merged, and the factor from one size to the next
SMALLEST = 256  # embeddings (128 s): smaller segments are of one size
# Embeddings (9,300 h, 1.7 GB) that are not merged further: FAISS scans long lists several times as fast as
# short ones, and those of so many are long. Nor are ones of half as many.
LARGEST = 1 << 26
MANY = 64  # segments that are merged at a time: each open one takes a megabyte
LOCK = "merge"
FOLDER = "merging"
PATIENCE = 60.0  # s to wait for another writer, when all but the commit is done

_log = logging.getLogger(__name__)


class Merged(NamedTuple):
    """One commit of a merge: how many segments became one (or none), embeddings kept, dropped."""

    segments: int
    kept: int
    dropped: int


def merge_small(
    library: "Library",
    writer: Writer | None = None,
    give_up: Callable[[], bool] = lambda: False,
) -> list[Merged]:
    """Merge small segments until there are few of each size; what was done.

    Nothing is done where another process merges. `give_up` is asked now and then whether to stop.
    writer : who holds the library's lock; None: it is taken for each commit alone

    Raises LibraryError if a segment is damaged or the disk is full: the library stays as it was.
    """

    def found() -> list[SegmentRow]:
        with library.reading() as connection:
            return due(catalogue.segments(connection))

    done: list[Merged] = []
    if not found():
        return done
    with ExitStack() as stack:
        try:
            stack.enter_context(library.database.lock(LOCK))
        except TimeoutError:
            return done
        except (OSError, *DatabaseErrors) as error:
            raise library.unwritable(error) from None
        while not give_up() and (group := found()):
            done.append(merge(library, group, writer, give_up))
    return done


def due(rows: Sequence[SegmentRow]) -> list[SegmentRow]:
    """Segments that are to become one; none if there are few of each size."""
    rows = [row for row in rows if row.embeddings <= LARGEST // 2]
    sizes = [_size(row.embeddings) for row in rows]
    for size in sorted(set(sizes), reverse=True):
        if sizes.count(size) < FEW:
            continue
        group: list[SegmentRow] = []
        total = 0
        for row in sorted(rows, key=lambda row: (row.embeddings, row.number)):
            if _size(row.embeddings) <= size and total + row.embeddings <= LARGEST:
                group.append(row)
                total += row.embeddings
        if len(group) > 1:
            return sorted(group[:MANY])
    return []


def _size(embeddings: int) -> int:
    """0 for the smallest segments, 1 for ones up to FEW times as large, and so on."""
    return max(0, math.ceil(math.log(max(1, embeddings) / SMALLEST, FEW)))


def merge(
    library: "Library",
    group: Sequence[SegmentRow],
    writer: Writer | None = None,
    give_up: Callable[[], bool] = lambda: False,
) -> Merged:
    """Make some segments one; by one who holds the lock LOCK. The rest is that of `merge_small`."""
    folder = library.path / FOLDER
    codec = library.encoder.codec
    try:
        for file in folder.iterdir() if folder.is_dir() else ():
            file.unlink()  # of a merge that was killed
        folder.mkdir(exist_ok=True)
        path = folder / segment.lists_of(Path(segment.header_name(0))).name
        with library.reading() as connection:
            here = catalogue.placements(connection, segments=[row.number for row in group])
        kept = set(here.segment.tolist())  # one of which nothing is kept may be missing
        sources = [_Source.of(library, row, here) for row in group if row.number in kept]
        lists = None
        if len(here.number):
            total = int(here.count.sum())
            lists = segment.write_lists(path, _parts(library, sources, give_up), total, codec)
        return _commit(library, group, here, lists, path, writer)
    except OSError as error:
        raise library.unwritable(error) from None
    finally:
        with suppress(OSError):
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()


@dataclass(frozen=True)
class _Source:
    """A segment, and which runs of its embeddings are kept: `first` to `end`, from number `new` on."""

    segment: Segment
    first: NDArray[np.int64]
    end: NDArray[np.int64]
    new: NDArray[np.int64]

    @classmethod
    def of(cls, library: "Library", row: SegmentRow, here: Placements) -> "_Source":
        """Raises LibraryError if the files are not what was written."""
        header = library.segment_path(row.number)
        read = library.segment(row)
        require_unaltered(header, row)
        new = np.cumsum(here.count) - here.count
        mine = here.segment == row.number
        first = here.first[mine]
        return cls(read, first, first + here.count[mine], new[mine])

    def taken(self, first: int, end: int) -> Taken:
        """What is kept of the embeddings of centroids first to end, under their new ids."""
        ids, codes = self.segment.taken(first, end)
        run = np.maximum(np.searchsorted(self.first, ids, side="right") - 1, 0)
        kept = np.flatnonzero((ids >= self.first[run]) & (ids < self.end[run]))
        ids = (ids - self.first[run] + self.new[run])[kept]
        return ids, segment.Codes(codes.lists[kept], codes.codes[kept])


def require_unaltered(header: Path, row: SegmentRow) -> None:
    """Raises LibraryError if a segment's files are not what was written."""
    if segment.checksums(header) != (row.sha256, row.header_sha256):
        raise segment.damaged(header, "its checksum is wrong")


def _parts(
    library: "Library", sources: Sequence[_Source], give_up: Callable[[], bool]
) -> Iterator[Taken]:
    """The embeddings that are kept of all segments, some centroids at a time."""
    centroids = len(library.encoder.codec.coarse)
    sizes = sum(source.segment.counts.reshape(centroids, -1).sum(axis=1) for source in sources)
    ends = np.cumsum(sizes)
    first = 0
    while first < centroids:
        if give_up():
            raise LibraryLocked(f"{library.path}: merging was stopped")
        done = ends[first - 1] if first else 0
        end = max(first + 1, int(np.searchsorted(ends, done + segment.AT_ONCE, side="right")))
        parts = [source.taken(first, end) for source in sources]
        ids = np.concatenate([ids for ids, _ in parts])
        width = sources[0].segment.width
        yield ids, segment.concatenate([codes for _, codes in parts], width)
        first = end


def _commit(
    library: "Library",
    group: Sequence[SegmentRow],
    here: Placements,
    lists: Lists | None,
    path: Path,
    writer: Writer | None,
) -> Merged:
    """Name what was merged in place of the segments that it was merged from."""
    numbers = [row.number for row in group]
    with ExitStack() as stack:
        if writer is None:
            writer = stack.enter_context(Writer.locked(library, None, PATIENCE))
        with writer.transaction() as connection:
            rows = set(catalogue.segments(connection))
            if not rows.issuperset(group):
                raise LibraryLocked(
                    f"{library.path}: these segments were merged by another process"
                )
            number = None
            if lists is not None:
                number = writer.move_segment(connection, path, lists)
                new = np.cumsum(here.count) - here.count
                present = catalogue.placements(connection, segments=numbers).number
                still = np.isin(here.number, present)
                moved = here.take(np.flatnonzero(still))
                catalogue.move_recordings(connection, moved, number, new[still])
            catalogue.remove_segments(connection, numbers)
            kept = lists.embeddings if lists is not None else 0
            dropped = sum(row.embeddings for row in group) - kept
            details = {"segments": numbers, "into": number, "kept": kept, "dropped": dropped}
            audit.append(connection, [Event("compact", None, details)], catalogue.now(), None)
        for row in group:
            with suppress(OSError):  # the next writer tries again
                segment.delete(library.segment_path(row.number))
    return Merged(len(group), kept, dropped)


def merge_after(
    library: "Library",
    writer: Writer | None = None,
    give_up: Callable[[], bool] = lambda: False,
) -> None:
    """`merge_small` after a commit, which is safe whatever comes of this: what goes wrong is logged."""
    try:
        for merged in merge_small(library, writer, give_up):
            _log.info("%d segments merged into one of %d embeddings", merged.segments, merged.kept)
    except LibraryLocked as error:
        _log.info("segments are merged later: %s", error)
    except LibraryError as error:
        _log.warning("small segments cannot be merged: %s", error)


class Merger:
    """Merges a library's small segments in a thread, while the process does other things."""

    def __init__(self, library: "Library") -> None:
        self._library = library
        self._stopping = False
        self._waiting = Lock()  # held while a merge is to begin
        self._pool = ThreadPoolExecutor(1, "merging")

    def soon(self) -> None:
        """After a commit: see whether there is something to merge."""
        if self._waiting.acquire(blocking=False):
            self._pool.submit(self._merge)

    def close(self) -> None:
        """Stop, also in the middle of a merge: the library stays as it was."""
        self._stopping = True
        self._pool.shutdown()

    def _merge(self) -> None:
        self._waiting.release()
        merge_after(self._library, give_up=lambda: self._stopping)
