"""Segments: immutable FAISS indexes, mapped and searched where they lie.

A segment is two files, an `IndexIVFPQFastScan` over `OnDiskInvertedLists`:

    00000001.faiss      the header: quantiser, books, and for each list its size and where it begins
    00000001.ivfdata    the lists, one after the other: codes in blocks of 32 (see `index.blocks`), then ids,
                        int64, ascending, filled up to 32 bytes; and after the last list
                        uint16 [shape=(n,)], the list of each embedding

`faiss.read_index(header, faiss.IO_FLAG_READ_ONLY | faiss.IO_FLAG_ONDISK_SAME_DIR)` maps it and needs nothing
of Earmark's. (IO_FLAG_MMAP is for other lists: with it FAISS leaves these out.) FAISS sees twice the
dimensions: each slice of an embedding stands twice, once for each of the two books that its code is of, so a
query q is searched as `doubled(q)`. Its similarity is q·coarse[list] plus the products with the entries.

A segment has its recordings' embeddings, one recording after the other, 0.5 s from one to the next; an id is
an embedding's number among them. A segment of DIVIDED embeddings and more has a list for each cell of each
centroid, a smaller one a list for each centroid: a list that is not empty takes at least 512 bytes. That
makes 26 bytes an embedding, the header, and on average half a block for each list.

Both files are written beside their place, synchronised, and only then named in the catalogue: until that
commit they do not exist, after it they never change.
"""

import ctypes
import hashlib
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from fingerprint.codec import Codec
from index import blocks
from index.database import private
from index.errors import LibraryError

# Embeddings (583 h) from which on lists are divided: half a block for each of 16,384 lists is then 4 % of it.
DIVIDED = 64 * 65_536
BLOCK_BYTES = 32  # for each byte of a code: a block has the codes of 32 embeddings
ID_BYTES = 8
LIST_BYTES = 2  # an embedding's list
ALIGNED = 32  # bytes: every list begins at a multiple
AT_ONCE = 1 << 20  # embeddings laid out at a time: bounds memory
HEADER, LISTS = ".faiss", ".ivfdata"
SEARCHED_BY = (
    113  # FAISS's way for lists that several queries probe, more than 20 neighbours, one thread
)
MEND = "`earmark verify` says what is affected; restore the file from a backup"


@dataclass(frozen=True)
class Codes:
    """Codes of consecutive embeddings: `lists` [shape=(n,)] and `codes` [shape=(n, code size)]."""

    lists: NDArray[np.uint16]
    codes: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.lists)

    def __getitem__(self, run: slice) -> "Codes":
        return Codes(self.lists[run], self.codes[run])

    def sha256(self) -> str:
        """Equal for recordings that Earmark cannot tell apart."""
        digest = hashlib.sha256(self.lists.astype("<u2").tobytes())
        digest.update(self.codes.tobytes())
        return digest.hexdigest()


# Embeddings of some lists: their ids [shape=(n,)] and codes.
Taken = tuple[NDArray[np.int64], Codes]


class Written(NamedTuple):
    """A segment's files as they were written: embeddings, and the SHA-256 of each file."""

    embeddings: int
    sha256: str  # of the lists
    header_sha256: str


class Segment:
    """A mapped segment. Threads may share one.

    Attributes
    ----------
    index : FAISS's index
    cells : how many lists each centroid has
    counts, starts, id_starts : of each list, its embeddings, and where its codes (in bytes) and its ids (in
        numbers of 8 bytes) begin [shape=(lists,)]
    lists : list of each embedding [shape=(n,)]
    data, long : the lists' file as bytes and as numbers of 8 bytes
    """

    def __init__(self, index: Any, path: Path, embeddings: int, codec: Codec) -> None:
        """Raises ValueError if the index cannot be that of so many embeddings in a mapped file."""
        lists = _on_disk(index)
        self.index = index
        self.path = path
        self.cells = lists.nlist // len(codec.coarse)
        self.width = codec.code_size
        table = _table(lists).astype(np.int64)
        self.counts, capacities, self.starts = (np.ascontiguousarray(part) for part in table.T)
        _require_sound(table, embeddings, codec, lists.totsize)
        self.id_starts = (self.starts + capacities * self.width) // ID_BYTES
        size = lists.totsize
        self.data = faiss.rev_swig_ptr(lists.ptr, size) if size else np.empty(0, np.uint8)
        self.long = self.data[: size - size % ID_BYTES].view(np.int64)
        self.lists = self.data[size - LIST_BYTES * embeddings :].view(np.uint16)
        for array in (self.data, self.long, self.lists):
            array.flags.writeable = False

    def __len__(self) -> int:
        return len(self.lists)

    def run(self, first: int, end: int) -> Codes:
        """Embeddings first to end (excluded), in their order. Raises LibraryError if they are damaged."""
        lists = self.lists[first:end]
        codes = np.empty((len(lists), self.width), np.uint8)
        lost = blocks.look_up(
            first,
            lists,
            self.starts,
            self.counts,
            self.id_starts,
            self.width,
            self.data,
            self.long,
            codes,
        )
        if lost >= 0:
            raise self.damaged(f"embedding {lost:,} is not in its list")
        return Codes((lists // self.cells).astype(np.uint16), codes)

    def taken(self, first: int, end: int) -> Taken:
        """Embeddings of the centroids first to end (excluded): their ids and codes, list by list."""
        some = slice(first * self.cells, end * self.cells)
        total = int(self.counts[some].sum())
        lists, ids = np.empty(total, np.int64), np.empty(total, np.int64)
        codes = np.empty((total, self.width), np.uint8)
        parts = self.starts[some], self.counts[some], self.id_starts[some]
        blocks.take(*parts, self.width, self.data, self.long, lists, ids, codes)
        return ids, Codes((first + lists // self.cells).astype(np.uint16), codes)

    def damaged(self, how: str) -> LibraryError:
        """What is raised for a file that was altered."""
        return damaged(self.path, how)


def damaged(path: Path, how: str) -> LibraryError:
    """What is raised for a segment's file that is not as it was written."""
    return LibraryError(f"{path}: the library is damaged: {how}; {MEND}")


def header_name(number: int) -> str:
    """What the header of the segment of that number is called."""
    return f"{number:08d}{HEADER}"


def names(number: int) -> tuple[str, str]:
    """What the header and the lists of the segment of that number are called."""
    header = header_name(number)
    return header, lists_of(Path(header)).name


def lists_of(header: Path) -> Path:
    """The file of the lists that belongs to a header."""
    return header.with_suffix(LISTS)


def doubled(x: NDArray[np.float32], slices: int) -> NDArray[np.float32]:
    """Each slice twice, as FAISS sees it [shape=(n, 2 * dimension)]."""
    parts = x.reshape(len(x), slices, 1, -1)
    return np.ascontiguousarray(np.repeat(parts, 2, axis=2).reshape(len(x), -1), np.float32)


def cells_per_list(embeddings: int, codec: Codec) -> int:
    """How many lists a centroid has in a segment of so many embeddings."""
    return len(codec.cells) if embeddings >= DIVIDED else 1


def size(embeddings: int, codec: Codec) -> int:
    """Bytes that a segment of so many embeddings takes, about: the lists' last blocks are half full."""
    cells = cells_per_list(embeddings, codec)
    lists = len(codec.coarse) * cells
    filled = lists * -math.expm1(-embeddings / lists)  # lists that are not empty, of even ones
    each = codec.code_size + ID_BYTES + LIST_BYTES
    spare = filled * (codec.code_size * BLOCK_BYTES / 2 + ALIGNED / 2)
    return round(embeddings * each + spare + lists * 24 + _quantiser_bytes(cells, codec))


def _quantiser_bytes(cells: int, codec: Codec) -> int:
    """Bytes of a header's quantiser: centroids in half precision, or, of cells, in single precision."""
    numbers = 2 * codec.coarse.size
    return 2 * numbers if cells == 1 else 4 * numbers


def concatenate(parts: Sequence[Codes], code_size: int) -> Codes:
    """Several runs of codes as one."""
    return Codes(
        np.concatenate([np.empty(0, np.uint16), *(part.lists for part in parts)]),
        np.concatenate([np.empty((0, code_size), np.uint8), *(part.codes for part in parts)]),
    )


def arrange(codes: Codes, codec: Codec) -> Segment:
    """A segment of consecutive embeddings that is in no library; its files are gone at once."""
    with tempfile.TemporaryDirectory(prefix="earmark-") as folder:
        header = Path(folder, header_name(1))
        return read(header, write(header, codes, codec), codec)


def write(header: Path, codes: Codes, codec: Codec) -> Written:
    """Write a segment of consecutive embeddings; it is on the disk, whole, when this returns.

    Raises FileExistsError for a file that is there: it may be another writer's.
    """
    order = np.argsort(codes.lists, kind="stable")
    ends = np.cumsum(np.bincount(codes.lists, minlength=len(codec.coarse)))

    def parts() -> Iterator[Taken]:
        first = 0
        while first < len(order):
            at = int(np.searchsorted(ends, first + AT_ONCE))
            end = int(ends[min(at, len(ends) - 1)])
            some = order[first:end]
            yield some, Codes(codes.lists[some], codes.codes[some])
            first = end

    return write_header(header, write_lists(lists_of(header), parts(), len(codes), codec), codec)


def write_lists(path: Path, parts: Iterable[Taken], total: int, codec: Codec) -> "Lists":
    """Write the lists of `total` embeddings, given some centroids at a time: their ids and codes.

    The centroids ascend through the parts, and no two parts have the same one. Raises as `write`.
    """
    cells = cells_per_list(total, codec)
    table = np.zeros((len(codec.coarse) * cells, 3), np.uint64)  # size, capacity, offset
    lists = np.zeros(total, np.uint16)
    digest = hashlib.sha256()
    done = offset = 0
    with open(path, "xb", opener=private) as file:
        for ids, codes in parts:
            if not len(ids):
                continue
            numbers = codec.cells_of(codes.lists, codes.codes) if cells > 1 else codes.lists
            order = np.lexsort((ids, numbers))
            lists[ids] = numbers
            lowest = int(numbers[order[0]])
            counts = np.bincount(numbers.astype(np.int64) - lowest)
            data, used = _laid_out(counts, ids[order], codes.codes[order], codec.code_size)
            used[:, 2] += np.uint64(offset)
            table[lowest : lowest + len(counts)] = used
            file.write(data.data)
            digest.update(data.data)
            offset += data.nbytes
            done += len(ids)
        if done != total:
            raise ValueError(f"{total} embeddings were announced, {done} came")
        tail = lists.astype("<u2").tobytes()
        file.write(tail)
        digest.update(tail)
        file.flush()
        os.fsync(file.fileno())
    return Lists(table, offset + len(tail), total, digest.hexdigest())


@dataclass(frozen=True)
class Lists:
    """A file of lists as it was written.

    table : of each list its size, its capacity and its offset [shape=(lists, 3)]; size : bytes
    """

    table: NDArray[np.uint64]
    size: int
    embeddings: int
    sha256: str


def write_header(header: Path, lists: Lists, codec: Codec) -> Written:
    """Write the header of lists that lie beside it. Raises as `write`."""
    data = _header(lists, lists_of(header).name, codec)
    with open(header, "xb", opener=private) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    synchronise(header.parent)
    return Written(lists.embeddings, lists.sha256, hashlib.sha256(data).hexdigest())


def _laid_out(
    counts: NDArray[np.int64], ids: NDArray[np.int64], codes: NDArray[np.uint8], width: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """Consecutive lists as the file has them, and their part of its table, offsets from 0 on."""
    capacities = -(-counts // BLOCK_BYTES) * BLOCK_BYTES
    sizes = capacities * width + -(-counts * ID_BYTES // ALIGNED) * ALIGNED
    starts = np.cumsum(sizes) - sizes
    data = np.zeros(int(sizes.sum()), np.uint8)
    long = data.view(np.int64)
    id_starts = (starts + capacities * width) // ID_BYTES
    blocks.lay_out(starts, counts, id_starts, width, ids, np.ascontiguousarray(codes), data, long)
    return data, np.stack([counts, capacities, starts], axis=1).astype(np.uint64)


def _header(of: Lists, name: str, codec: Codec) -> bytes:
    """The header of lists that lie in a file of that name."""
    table = of.table
    width, dimension = codec.code_size, 2 * codec.coarse.shape[1]
    # half a centroid twice is as near to a doubled query as the centroid is to the query
    halves = 0.5 * doubled(codec.coarse, width)
    if len(table) == len(codec.coarse):
        quantiser: Any = faiss.IndexScalarQuantizer(
            dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        quantiser.is_trained = True
        quantiser.add(halves)
    else:  # cells change no similarity: all of a centroid's are as near as it is
        bits = faiss.UInt64Vector()
        for entries in (len(codec.cells), len(codec.coarse)):
            bits.push_back(entries.bit_length() - 1)
        quantiser = faiss.ResidualCoarseQuantizer(dimension, bits, faiss.METRIC_INNER_PRODUCT)
        zeros = np.zeros((len(codec.cells), dimension), np.float32)
        faiss.copy_array_to_vector(np.concatenate([zeros, halves]).ravel(), quantiser.rq.codebooks)
        quantiser.rq.is_trained = quantiser.is_trained = True
        quantiser.beam_factor = -1.0  # exhaustively
        quantiser.ntotal = len(table)
    index = faiss.IndexIVFPQFastScan(
        quantiser, dimension, len(table), 2 * width, 4, faiss.METRIC_INNER_PRODUCT
    )
    index.is_trained = index.by_residual = True
    # a byte's low half is FAISS's first code
    faiss.copy_array_to_vector(_books(codec).ravel(), index.pq.centroids)
    lists: Any = faiss.OnDiskInvertedLists()
    lists.nlist, lists.code_size, lists.totsize = len(table), width, of.size
    lists.filename, lists.read_only = name, True
    lists.lists.resize(len(table))
    _table(lists)[:] = table
    index.replace_invlists(lists, False)
    index.ntotal = of.embeddings
    writer = faiss.VectorIOWriter()
    faiss.write_index(index, writer)
    return faiss.vector_to_array(writer.data).tobytes()


def _books(codec: Codec) -> NDArray[np.float32]:
    """The books in the order of FAISS's codes of 4 bits [shape=(2 * slices, 16, width)]."""
    slices, _, entries, width = codec.books.shape
    return np.ascontiguousarray(codec.books[:, ::-1]).reshape(2 * slices, entries, width)


def _table(lists: Any) -> NDArray[np.uint64]:
    """Size, capacity and offset of each of FAISS's lists, where they lie [shape=(lists, 3)]."""
    where = (ctypes.c_uint64 * (3 * lists.nlist)).from_address(int(lists.lists.data().this))
    return np.frombuffer(where, np.uint64).reshape(-1, 3)


def _on_disk(index: Any) -> Any:
    return faiss.downcast_InvertedLists(index.invlists)


def read(header: Path, written: Written, codec: Codec, lists: Path | None = None) -> Segment:
    """Map a segment that was written so; its pages are read when they are needed.

    lists : where its lists are, if not beside the header

    Raises LibraryError if it is missing or is not that segment. A flipped bit among codes and ids is for
    `verify` to find; none can lead a search out of the file.
    """
    lists = lists or lists_of(header)
    try:
        data = header.read_bytes()
        if hashlib.sha256(data).hexdigest() != written.header_sha256:
            raise damaged(header, "this segment's header was altered")
        lists.stat()
        index: Any = faiss.read_index(
            _reader(data), faiss.IO_FLAG_READ_ONLY | faiss.IO_FLAG_SKIP_IVF_DATA
        )
        on_disk = _on_disk(index)
        if lists.stat().st_size != on_disk.totsize:
            raise damaged(lists, "this segment's lists have another size than its header says")
        on_disk.filename = str(lists)
        if on_disk.totsize:
            on_disk.do_mmap()
        books = faiss.vector_to_array(index.pq.centroids)
        if index.ntotal != written.embeddings or not np.array_equal(books, _books(codec).ravel()):
            raise ValueError("it is of other codes")
        index.implem = SEARCHED_BY
        return Segment(index, lists, written.embeddings, codec)
    except FileNotFoundError as error:
        raise damaged(Path(error.filename), "this segment is missing") from None
    except (OSError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise damaged(
            header, f"FAISS {faiss.__version__} cannot read this segment ({reason})"
        ) from None


def _reader(data: bytes) -> Any:
    reader = faiss.VectorIOReader()
    faiss.copy_array_to_vector(np.frombuffer(data, np.uint8), reader.data)
    return reader


def _require_sound(table: NDArray[np.int64], embeddings: int, codec: Codec, size: int) -> None:
    """Raises ValueError unless a table tells of all embeddings, each once, within the file."""
    counts, capacities, starts = table.T
    width, lists = codec.code_size, len(codec.coarse)
    if len(table) != lists * cells_per_list(embeddings, codec) and len(table) % lists:
        raise ValueError(f"it has {len(table)} lists")
    bound = max(size, 1)
    if (table < 0).any() or (table > bound).any() or counts.sum() != embeddings:
        raise ValueError("its tables are not those of its lists")
    used = np.flatnonzero(counts)
    ends = starts + capacities * width + -(-counts * ID_BYTES // ALIGNED) * ALIGNED
    follow = np.append(starts[used], size - LIST_BYTES * embeddings)
    if (
        (counts > capacities).any()
        or (capacities != -(-counts // BLOCK_BYTES) * BLOCK_BYTES).any()
        or (starts[used[:1]] != 0).any()
        or (ends[used] != follow[1:]).any()
    ):
        raise ValueError("its lists overlap")


def checksums(header: Path) -> tuple[str, str]:
    """SHA-256 of a segment's lists and of its header, as `write` told them."""
    return checksum(lists_of(header)), checksum(header)


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def delete(header: Path) -> None:
    """Delete a segment's files, as far as they are there."""
    for path in (header, lists_of(header)):
        with suppress(FileNotFoundError):
            path.unlink()


def synchronise(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
