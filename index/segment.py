"""Segments: immutable files of codes, laid out to be searched where they lie.

A segment (safetensors) holds its recordings' embeddings, one recording after the other, 0.5 s from one to
the next, numbered in blocks of 65,536. They are grouped by inverted list, their codes throughout the segment,
their numbers within each block:

    by_list uint8  [shape=(n, code size)]       the codes, list by list, each in the embeddings' order
    ids     uint16 [shape=(n,)]                 embeddings' numbers in their block, likewise in each block
    bounds  uint32 [shape=(blocks, lists + 1)]  where each list of each block begins in ids; then, its end
    places  uint32 [shape=(blocks, lists)]      where in by_list the codes of each list of each block begin

So a list is searched from end to end, as memory is read fastest, and a recording is read by looking through
its block's numbers, both straight from the mapped file: nothing is sorted or copied when a library is opened,
and all processes share one copy. That takes 18 bytes an embedding beside its block's share of `bounds` and
`places`, 8 bytes a list.

Segments of before had their codes in the order of ids, as `codes`; they are put in order when they are read.

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
from index.errors import LibraryError

BLOCK = 65_536  # embeddings: as many as two bytes can number


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
    """A segment's arrays, as the file holds them."""

    bounds: NDArray[np.uint32]
    places: NDArray[np.uint32]
    ids: NDArray[np.uint16]
    codes: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.ids)

    def run(self, first: int, end: int) -> Codes:
        """Embeddings first to end (excluded), in their order."""
        lists = np.empty(end - first, np.uint16)
        codes = np.empty((end - first, self.codes.shape[1]), np.uint8)
        _run(self.bounds, self.places, self.ids, self.codes, first, lists, codes)
        return Codes(lists, codes)


@njit(cache=True, nogil=True)
def _run(bounds, places, ids, codes, first, out_lists, out_codes):
    """out[i] is embedding first + i, for all i; looks through the blocks that hold any of them."""
    end = first + len(out_lists)
    for block in range(first // BLOCK, min(len(bounds), -(-end // BLOCK))):
        start = block * BLOCK - first
        for number in range(bounds.shape[1] - 1):
            begin = np.int64(bounds[block, number])
            for at in range(begin, np.int64(bounds[block, number + 1])):
                i = start + np.int64(ids[at])
                if i >= 0 and i < len(out_lists):
                    out_lists[i] = number
                    out_codes[i] = codes[np.int64(places[block, number]) + at - begin]


def file_name(number: int) -> str:
    """What the file of the segment of that number is called."""
    return f"{number:08d}.safetensors"


def size(embeddings: int, codec: Codec) -> int:
    """Bytes of a segment's arrays: codes, ids, and for each block begun bounds and places."""
    blocks = -(-embeddings // BLOCK)
    return embeddings * (codec.code_size + 2) + 4 * blocks * (2 * len(codec.coarse) + 1)


def concatenate(parts: list[Codes], code_size: int) -> Codes:
    """Several runs of codes as one."""
    return Codes(
        np.concatenate([np.empty(0, np.uint16), *(part.lists for part in parts)]),
        np.concatenate([np.empty((0, code_size), np.uint8), *(part.codes for part in parts)]),
    )


def arrange(codes: Codes, lists: int) -> Segment:
    """Consecutive embeddings, over so many inverted lists, as a segment holds them."""
    blocks = -(-len(codes) // BLOCK)
    bounds = np.empty((blocks, lists + 1), np.uint32)
    ids = np.empty(len(codes), np.uint16)
    for block in range(blocks):
        here = codes.lists[block * BLOCK : (block + 1) * BLOCK]
        order = np.argsort(here, kind="stable")
        ids[block * BLOCK : (block + 1) * BLOCK] = order
        bounds[block] = block * BLOCK + np.searchsorted(here[order], np.arange(lists + 1))
    grouped = codes.codes[np.argsort(codes.lists, kind="stable")]
    places = _places(bounds)
    for array in (bounds, places, ids, grouped):
        array.flags.writeable = False
    return Segment(bounds, places, ids, grouped)


def _places(bounds: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Where the codes of each list of each block begin [shape=(blocks, lists)], list by list."""
    counts = np.diff(bounds.astype(np.int64), axis=1).T
    begins = np.cumsum(counts).reshape(counts.shape) - counts
    return np.ascontiguousarray(begins.T, np.uint32)


def write(path: Path, segment: Segment) -> str:
    """Write a segment so that it is on the disk, whole, when this returns; its SHA-256.

    Raises FileExistsError for a file that is there: it may be another writer's.
    """
    data = save_tensors(
        {
            "bounds": segment.bounds,
            "places": segment.places,
            "ids": segment.ids,
            "by_list": segment.codes,
        }
    )
    with path.open("xb") as file:
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


def read(path: Path, embeddings: int, lists: int, code_size: int) -> Segment:
    """Map a segment that should hold so many embeddings; its pages are read when they are needed.

    Raises LibraryError if it is missing or cannot be that segment. A flipped bit among codes and ids
    is for `verify` to find; none can lead a search out of the file.
    """
    blocks = -(-embeddings // BLOCK)
    shapes = {
        "bounds": ("U32", np.uint32, (blocks, lists + 1)),
        "places": ("U32", np.uint32, (blocks, lists)),
        "ids": ("U16", np.uint16, (embeddings,)),
        "by_list": ("U8", np.uint8, (embeddings, code_size)),
    }
    try:
        data = np.asarray(np.memmap(path, np.uint8, "r"))
        start = 8 + int.from_bytes(data[:8].tobytes(), "little")
        header = json.loads(data[8:start].tobytes())
        if "codes" in header:  # a segment of before
            del shapes["places"]
            shapes["codes"] = shapes.pop("by_list")
        arrays = {}
        for name, (kind, dtype, shape) in shapes.items():
            begin, end = header[name]["data_offsets"]
            if (header[name]["dtype"], tuple(header[name]["shape"])) != (kind, shape):
                raise ValueError(f"{name} is not of the shape that the catalogue says")
            arrays[name] = data[start + begin : start + end].view(dtype).reshape(shape)
        begins = arrays["bounds"].astype(np.int64)
        ends = np.minimum(np.arange(1, blocks + 1) * BLOCK, embeddings)
        if (
            (np.diff(begins, axis=1) < 0).any()
            or (begins[:, 0] != np.arange(blocks) * BLOCK).any()
            or (begins[:, -1] != ends).any()
        ):
            raise ValueError("its lists overlap")
        if "codes" not in header and (arrays["places"] != _places(arrays["bounds"])).any():
            raise ValueError("its places are not those of its lists")
    except FileNotFoundError:
        raise LibraryError(
            f"{path}: the library is damaged: this segment is missing; {MEND}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise LibraryError(
            f"{path}: the library is damaged: this segment cannot be read ({error}); {MEND}"
        ) from None
    bounds, ids = arrays["bounds"], arrays["ids"]
    if "codes" in arrays:
        as_ids = Segment(bounds, np.ascontiguousarray(bounds[:, :-1]), ids, arrays["codes"])
        return arrange(as_ids.run(0, embeddings), lists)
    return Segment(bounds, arrays["places"], ids, arrays["by_list"])


MEND = "`earmark verify` says what is affected; restore the file from a backup"
