"""Segments: immutable files of codes.

A segment (safetensors) holds `lists` [uint16, shape=(n,)] and `codes` [uint8, shape=(n, code size)] of
its recordings' embeddings, one recording after the other, 0.5 s from one embedding to the next. It is
written beside its place, synchronised and renamed there, and only then named in the catalogue: until
that commit it does not exist, after it it never changes.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_tensors

from index.errors import LibraryError


@dataclass(frozen=True)
class Codes:
    """Codes of consecutive embeddings: `lists` [shape=(n,)] and `codes` [shape=(n, code size)]."""

    lists: NDArray[np.uint16]
    codes: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.lists)

    def sha256(self) -> str:
        """Equal for recordings that Earmark cannot tell apart."""
        digest = hashlib.sha256(self.lists.astype("<u2").tobytes())
        digest.update(self.codes.tobytes())
        return digest.hexdigest()


def concatenate(parts: list[Codes], code_size: int) -> Codes:
    """Several runs of codes as one."""
    return Codes(
        np.concatenate([np.empty(0, np.uint16), *(part.lists for part in parts)]),
        np.concatenate([np.empty((0, code_size), np.uint8), *(part.codes for part in parts)]),
    )


def write(path: Path, codes: Codes) -> str:
    """Write a segment so that it is on the disk, whole, when this returns; its SHA-256."""
    data = save_tensors({"lists": codes.lists, "codes": codes.codes})
    beside = path.with_suffix(".partial")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return hashlib.sha256(data).hexdigest()


def read(path: Path, embeddings: int) -> Codes:
    """Read a segment that should hold so many embeddings.

    Raises LibraryError if it is missing or cannot be that segment.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            codes = Codes(file.get_tensor("lists"), file.get_tensor("codes"))
    except (OSError, SafetensorError) as error:
        raise LibraryError(
            f"{path}: the library is damaged: this segment cannot be read ({error}); "
            "restore it from a backup"
        ) from None
    if len(codes) != embeddings or len(codes.codes) != embeddings:
        raise LibraryError(
            f"{path}: the library is damaged: this segment holds {len(codes)} embeddings where "
            f"the catalogue names {embeddings}; restore it from a backup"
        )
    return codes
