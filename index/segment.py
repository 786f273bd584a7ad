"""Segments: immutable files of codes, laid out to be searched where they lie.

A segment (safetensors) holds its recordings' embeddings, one recording after the other, 0.5 s from one to
the next, numbered in blocks of 65,536. They are grouped by inverted list, their codes throughout the segment,
their numbers within each block:

    by_list uint8  [shape=(n, code size)]   the codes, list by list, each in the embeddings' order
    ids     uint16 [shape=(n,)]             embeddings' numbers in their block, likewise in each block
    begins  uint16 [shape=(blocks, lists)]  where each list of each block begins among the block's ids
                                            (modulo 65,536, which matters to empty ones only)
    places  uint32 [shape=(blocks, lists)]  where in by_list the codes of each list of each block begin

So a list is searched from end to end, as memory is read fastest, and a recording is read by looking through
its block's numbers, both straight from the mapped file: nothing is sorted or copied when a library is opened,
and all processes share one copy. In a segment of DIVIDED embeddings and more a list has as many parts as the
codec has cells, each laid out as a list is, so that a search can look into the nearest cells alone; in a
smaller one the tables of all these might be larger than what they tell of. That takes 18 bytes an embedding
beside its block's share of `begins` and `places`, 6 bytes a list or cell.

Segments of before had `bounds` instead of `begins`, numbered through the segment; the first had their codes
in the order of ids, as `codes`. What is needed of these, or of a segment that was divided by other cells, is
put in order when it is read; compaction writes it as it is written now.

A segment is written beside its place, synchronised and renamed there, and only then named in the
catalogue: until that commit it does not exist, after it it never changes.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import njit
from numpy.typing import NDArray
from safetensors.numpy import save as save_tensors

from fingerprint.codec import Codec
from index.database import private
from index.errors import LibraryError

BLOCK = 65_536  # embeddings: as many as two bytes can number
# Embeddings (146 h) from which on lists are divided: the tables of a block that is hardly begun, 98 kB, are
# then half a per cent of the segment.
DIVIDED = 16 * BLOCK


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


@dataclass(frozen=True)
class Segment:
    """A segment's arrays, as the file holds them; `cells` is how many parts a list has."""

    begins: NDArray[np.uint16]
    places: NDArray[np.uint32]
    ids: NDArray[np.uint16]
    codes: NDArray[np.uint8]
    cells: int

    def __len__(self) -> int:
        return len(self.ids)

    def run(self, first: int, end: int) -> Codes:
        """Embeddings first to end (excluded), in their order."""
        lists = np.empty(end - first, np.uint16)
        codes = np.empty((end - first, self.codes.shape[1]), np.uint8)
        _run(self.places, self.ids, self.codes, self.cells, first, lists, codes)
        return Codes(lists, codes)


@njit(cache=True, nogil=True)
def _run(places, ids, codes, cells, first, out_lists, out_codes):
    """out[i] is embedding first + i, for all i; looks through the blocks that hold any of them."""
    end = first + len(out_lists)
    # where in a block's ids they are, ascending: no more, even where ids are damaged
    hits = np.empty(min(len(out_lists), BLOCK), np.int64)
    for block in range(first // BLOCK, min(len(places), -(-end // BLOCK))):
        begin = block * BLOCK
        lowest = max(first - begin, 0)
        width = np.uint32(min(end - begin, BLOCK) - lowest)
        count = 0
        for at in range(begin, min(begin + BLOCK, len(ids))):
            inside = np.uint32(np.uint32(ids[at]) - np.uint32(lowest)) < width
            if inside and count < len(hits):
                hits[count] = at
                count += 1
        number = -1
        past = begin  # where the ids of that list or cell end
        for at in hits[:count]:
            while past <= at:
                number += 1
                past += _end(places, len(codes), block, number) - np.int64(places[block, number])
            i = begin + np.int64(ids[at]) - first
            out_lists[i] = number // cells
            out_codes[i] = codes[_end(places, len(codes), block, number) - (past - at)]


@njit(cache=True, nogil=True)
def _end(places, embeddings, block, number):
    """Where the codes of a list, or cell, of a block end: where those of the next block, or list, begin."""
    if block + 1 < len(places):
        return np.int64(places[block + 1, number])
    if number + 1 < places.shape[1]:
        return np.int64(places[0, number + 1])
    return np.int64(embeddings)


@njit(cache=True, nogil=True)
def _is_sound(begins, places, embeddings):
    """Whether tables tell of all embeddings, each once."""
    if len(places) and places[0, 0] != 0:
        return False
    for block in range(len(places)):
        at = 0
        for number in range(places.shape[1]):
            count = _end(places, embeddings, block, number) - np.int64(places[block, number])
            if count < 0 or begins[block, number] != at % BLOCK:
                return False
            at += count
        if at != min(BLOCK, embeddings - block * BLOCK):
            return False
    return True


def file_name(number: int) -> str:
    """What the file of the segment of that number is called."""
    return f"{number:08d}.safetensors"


def size(embeddings: int, codec: Codec) -> int:
    """Bytes of a segment's arrays: codes, ids, and for each block begun its tables."""
    blocks = -(-embeddings // BLOCK)
    lists = len(codec.coarse) * cells_per_list(embeddings, codec)
    return embeddings * (codec.code_size + 2) + 6 * blocks * lists


def cells_per_list(embeddings: int, codec: Codec) -> int:
    """Into how many cells a list of a segment of so many embeddings is divided."""
    return len(codec.cells) if embeddings >= DIVIDED else 1


def concatenate(parts: list[Codes], code_size: int) -> Codes:
    """Several runs of codes as one."""
    return Codes(
        np.concatenate([np.empty(0, np.uint16), *(part.lists for part in parts)]),
        np.concatenate([np.empty((0, code_size), np.uint8), *(part.codes for part in parts)]),
    )


def arrange(codes: Codes, codec: Codec) -> Segment:
    """Consecutive embeddings as a segment holds them."""
    cells = cells_per_list(len(codes), codec)
    lists = codes.lists if cells == 1 else codec.cells_of(codes.lists, codes.codes)
    ids = np.empty(len(codes), np.uint16)
    counts = np.empty((-(-len(codes) // BLOCK), len(codec.coarse) * cells), np.int64)
    for block in range(len(counts)):
        here = lists[block * BLOCK : (block + 1) * BLOCK]
        ids[block * BLOCK : (block + 1) * BLOCK] = np.argsort(here, kind="stable")
        counts[block] = np.bincount(here, minlength=counts.shape[1])
    begins = (np.cumsum(counts, axis=1) - counts).astype(np.uint16)
    arrays = (
        begins,
        _places(counts),
        ids,
        codes.codes[np.argsort(lists, kind="stable")],
    )
    for array in arrays:
        array.flags.writeable = False
    return Segment(*arrays, cells)


def write(path: Path, segment: Segment, codec: Codec) -> str:
    """Write a segment so that it is on the disk, whole, when this returns; its SHA-256.

    Raises FileExistsError for a file that is there: it may be another writer's.
    """
    data = save_tensors(
        {
            "begins": segment.begins,
            "places": segment.places,
            "ids": segment.ids,
            "by_list": segment.codes,
        },
        {"cells": codec.cells_id} if segment.cells > 1 else None,
    )
    with open(path, "xb", opener=private) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    synchronise(path.parent)
    return hashlib.sha256(data).hexdigest()


def checksum(path: Path) -> str:
    """SHA-256 of a segment's file, as `write` told it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def synchronise(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path, embeddings: int, codec: Codec) -> Segment:
    """Map a segment that should hold so many embeddings; its pages are read when they are needed.

    Raises LibraryError if it is missing or cannot be that segment. A flipped bit among codes and ids
    is for `verify` to find; none can lead a search out of the file.
    """
    lists = len(codec.coarse)
    blocks = -(-embeddings // BLOCK)
    try:
        data = np.asarray(np.memmap(path, np.uint8, "r"))
        start = 8 + int.from_bytes(data[:8].tobytes(), "little")
        header = json.loads(data[8:start].tobytes())

        def array(name: str, dtype: type, *shape: int) -> NDArray:
            begin, end = header[name]["data_offsets"]
            if header[name]["dtype"] != _KINDS[dtype] or tuple(header[name]["shape"]) != shape:
                raise ValueError(f"{name} is not of the shape that the catalogue says")
            return data[start + begin : start + end].view(dtype).reshape(shape)

        ids = array("ids", np.uint16, embeddings)
        codes = array(
            "codes" if "codes" in header else "by_list", np.uint8, embeddings, codec.code_size
        )
        if "bounds" in header:  # a segment of before
            cells = 1
            bounds = array("bounds", np.uint32, blocks, lists + 1)
            begins = (bounds[:, :-1] % BLOCK).astype(np.uint16)
            if "codes" in header:
                codes, places = _grouped(bounds, codes)
            else:
                places = array("places", np.uint32, blocks, lists)
        else:
            cells = header["begins"]["shape"][1] // lists
            begins = array("begins", np.uint16, blocks, lists * cells)
            places = array("places", np.uint32, blocks, lists * cells)
        if not _is_sound(begins, places, embeddings):
            raise ValueError("its tables are not those of its lists")
    except FileNotFoundError:
        raise LibraryError(
            f"{path}: the library is damaged: this segment is missing; {MEND}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, OverflowError, IndexError) as error:
        raise LibraryError(
            f"{path}: the library is damaged: this segment cannot be read ({error}); {MEND}"
        ) from None
    segment = Segment(begins, places, ids, codes, cells)
    if cells > 1 and header.get("__metadata__", {}).get("cells") != codec.cells_id:
        return arrange(segment.run(0, embeddings), codec)
    return segment


def _grouped(
    bounds: NDArray[np.uint32], of_ids: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    """Codes in the order of ids, list by list, and where those of each list of each block begin."""
    counts = np.subtract(bounds[:, 1:], bounds[:, :-1], dtype=np.int64)
    if (counts < 0).any() or counts.sum() != len(of_ids):
        raise ValueError("its lists overlap")
    lists = np.tile(np.arange(counts.shape[1]), len(counts)).repeat(counts.ravel())
    return of_ids[np.argsort(lists, kind="stable")], _places(counts)


def _places(counts: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Where the codes of each list of each block begin, which are so many [shape=(blocks, lists)]."""
    by_list = counts.T
    begins = np.cumsum(by_list).reshape(by_list.shape) - by_list
    return np.ascontiguousarray(begins.T, np.uint32)


_KINDS: dict[type, str] = {np.uint8: "U8", np.uint16: "U16", np.uint32: "U32"}
MEND = "`earmark verify` says what is affected; restore the file from a backup"
