"""Segments: immutable files of codes, laid out to be searched where they lie.

A segment (safetensors) holds its recordings' embeddings, one recording after the other, 0.5 s from one to
the next, in blocks of 65,536. Within a block they are grouped by inverted list:

    codes   uint8  [shape=(n, code size)]     the codes, block by block, list by list
    ids     uint16 [shape=(n,)]               which embedding of its block each of them is
    bounds  uint32 [shape=(blocks, lists + 1)]  where each list of each block begins; then, its end

So a list is searched, and a recording read, straight from the mapped file: nothing is sorted or copied
when a library is opened, and all processes share one copy. That takes 18 bytes an embedding beside its
block's share of `bounds`, 4 bytes a list.

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
    ids: NDArray[np.uint16]
    codes: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.ids)

    def run(self, first: int, end: int) -> Codes:
        """Embeddings first to end (excluded), in their order."""
        lists = np.empty(end - first, np.uint16)
        codes = np.empty((end - first, self.codes.shape[1]), np.uint8)
        _run(self.bounds, self.ids, self.codes, first, lists, codes)
        return Codes(lists, codes)


@njit(cache=True, nogil=True)
def _run(bounds, ids, codes, first, out_lists, out_codes):
    """out[i] is embedding first + i, for all i; looks through the blocks that hold any of them."""
    end = first + len(out_lists)
    for block in range(first // BLOCK, min(len(bounds), -(-end // BLOCK))):
        start = block * BLOCK - first
        for number in range(bounds.shape[1] - 1):
            for place in range(bounds[block, number], bounds[block, number + 1]):
                i = start + np.int64(ids[place])
                if i >= 0 and i < len(out_lists):
                    out_lists[i] = number
                    out_codes[i] = codes[place]


def file_name(number: int) -> str:
    """What the file of the segment of that number is called."""
    return f"{number:08d}.safetensors"


def size(embeddings: int, codec: Codec) -> int:
    """Bytes of a segment's arrays: codes, ids, and bounds for each block begun."""
    blocks = -(-embeddings // BLOCK)
    return embeddings * (codec.code_size + 2) + 4 * blocks * (len(codec.coarse) + 1)


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
    grouped = np.empty_like(codes.codes)
    for block in range(blocks):
        here = slice(block * BLOCK, (block + 1) * BLOCK)
        order = np.argsort(codes.lists[here], kind="stable")
        ids[here] = order
        grouped[here] = codes.codes[here][order]
        bounds[block] = block * BLOCK + np.searchsorted(
            codes.lists[here][order], np.arange(lists + 1)
        )
    for array in (bounds, ids, grouped):
        array.flags.writeable = False
    return Segment(bounds, ids, grouped)


def write(path: Path, segment: Segment) -> str:
    """Write a segment so that it is on the disk, whole, when this returns; its SHA-256.

    Raises FileExistsError for a file that is there: it may be another writer's.
    """
    data = save_tensors({"bounds": segment.bounds, "ids": segment.ids, "codes": segment.codes})
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
        "ids": ("U16", np.uint16, (embeddings,)),
        "codes": ("U8", np.uint8, (embeddings, code_size)),
    }
    try:
        data = np.asarray(np.memmap(path, np.uint8, "r"))
        start = 8 + int.from_bytes(data[:8].tobytes(), "little")
        header = json.loads(data[8:start].tobytes())
        arrays = {}
        for name, (kind, dtype, shape) in shapes.items():
            begin, end = header[name]["data_offsets"]
            if (header[name]["dtype"], tuple(header[name]["shape"])) != (kind, shape):
                raise ValueError(f"{name} is not of the shape that the catalogue says")
            arrays[name] = data[start + begin : start + end].view(dtype).reshape(shape)
        bounds = arrays["bounds"].astype(np.int64)
        ends = np.minimum(np.arange(1, blocks + 1) * BLOCK, embeddings)
        if (
            (np.diff(bounds, axis=1) < 0).any()
            or (bounds[:, 0] != np.arange(blocks) * BLOCK).any()
            or (bounds[:, -1] != ends).any()
        ):
            raise ValueError("its lists overlap")
    except FileNotFoundError:
        raise LibraryError(
            f"{path}: the library is damaged: this segment is missing; {MEND}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise LibraryError(
            f"{path}: the library is damaged: this segment cannot be read ({error}); {MEND}"
        ) from None
    return Segment(**arrays)


MEND = "`earmark verify` says what is affected; restore the file from a backup"
