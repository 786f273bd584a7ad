"""The segments of a library, and what a search asks of them, wherever they are held.

Here they are mapped in this process; `index.cluster.shards` has them held by others.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fingerprint.codec import Codec
from fingerprint.cores import pool
from index.neighbours import Kept, Nearest, kept_of, nearest
from index.segment import Codes, Segment


class Searched(Protocol):
    """Segments without the embeddings that are not to be found."""

    def nearest(
        self, passages: Sequence[NDArray[np.float32]], count: int, share: float
    ) -> list[Nearest]:
        """For each passage [shape=(n, dimension)] similarities and numbers [shape=(n, count)] of the
        nearest embeddings, best first; see `index.neighbours`.
        """


class Segments(Protocol):
    """Segments, their embeddings numbered through in order of the segments' own numbers.

    Attributes
    ----------
    firsts : number of each segment's first embedding, by the segment's number, ascending
    total : embeddings of all
    """

    firsts: dict[int, int]
    total: int

    def without(self, gone: NDArray[np.int64]) -> Searched:
        """What remains to be found without runs (first, end) of embeddings [shape=(m, 2)], ascending."""

    def run(self, segment: int, first: int, end: int) -> Codes:
        """Codes of embeddings first to end (excluded) of the segment of that number."""


def nearest_to_each(
    passages: Sequence[NDArray[np.float32]],
    count: int,
    share: float,
    segments: Mapping[int, Segment],
    kept: Mapping[int, Kept],
    codec: Codec,
) -> list[Nearest]:
    """`index.neighbours.nearest` of each passage, side by side."""
    return list(pool().map(lambda it: nearest(it, count, share, segments, kept, codec), passages))


def numbered_through(lengths: Mapping[int, int]) -> tuple[dict[int, int], int]:
    """`firsts` and `total` of segments of these lengths."""
    order = sorted(lengths)
    ends = list(itertools.accumulate((lengths[number] for number in order), initial=0))
    return dict(zip(order, ends, strict=False)), ends[-1]


class Mapped:
    """Segments that are mapped in this process."""

    def __init__(self, by_number: Mapping[int, Segment], codec: Codec) -> None:
        self.firsts, self.total = numbered_through({n: len(it) for n, it in by_number.items()})
        self._by_number = by_number
        self._codec = codec

    def without(self, gone: NDArray[np.int64]) -> Searched:
        """What remains to be found."""
        by_first = {first: self._by_number[number] for number, first in self.firsts.items()}
        return _Here(by_first, kept_of(by_first, gone), self._codec)

    def run(self, segment: int, first: int, end: int) -> Codes:
        """Codes of a segment's embeddings."""
        return self._by_number[segment].run(first, end)


class _Here:
    """Mapped segments without some embeddings."""

    def __init__(
        self, by_first: Mapping[int, Segment], kept: Mapping[int, Kept], codec: Codec
    ) -> None:
        self._by_first = by_first
        self._kept = kept
        self._codec = codec

    def nearest(
        self, passages: Sequence[NDArray[np.float32]], count: int, share: float
    ) -> list[Nearest]:
        return nearest_to_each(passages, count, share, self._by_first, self._kept, self._codec)
