"""The stored embeddings nearest to a query's, by FAISS's fast scan over the lists that are probed.

Lists whose centroids are nearest to q are probed; in a segment that is divided into cells, the nearest of
those. The similarity of q to an embedding of list l with code c is q·coarse[l] + Σ_s q_s·codebook[s, c_s]
(Jégou et al. 2011, asymmetric distance, for inner products); the entries of a codebook are sums, so two small
tables of products serve each slice.

FAISS rounds these tables to bytes, by a scale that depends on the query and on the lists probed. What it
finds is scored again by the tables themselves, and by how much rounding can err is known: where an embedding
that FAISS left out could be as near as the last one found, the lists are read once more without rounding. Of
equally similar embeddings that of the lower number is the nearer. So the nearest are the same in whatever
parts the library is kept.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from fingerprint.codec import Codec
from index import blocks
from index.segment import Segment, doubled

# Neighbours that FAISS is asked for, for each one that is wanted: the last of them is nearly always clearly
# less near than the last one wanted.
MORE = 2
LEAST_ASKED = 32
# Rounding of FAISS's arithmetic and ours, beside that of its tables.
SLACK = 1e-5

Nearest = tuple[NDArray[np.float32], NDArray[np.int64]]


class Kept:
    """The embeddings of a segment that may be found: a bit for each, and FAISS's selector of these."""

    def __init__(self, embeddings: int, gone: NDArray[np.int64]) -> None:
        """gone : runs (first, end) of embeddings that are not to be found [shape=(m, 2)]"""
        count = int((gone[:, 1] - gone[:, 0]).sum())
        self.none = count == embeddings
        self.bits = np.empty(0, np.uint8)
        self.selector = None
        if count and not self.none:
            self.bits = np.full(-(-embeddings // 8), 255, np.uint8)
            blocks.clear(self.bits, gone)
            self.selector = faiss.IDSelectorBitmap(len(self.bits), faiss.swig_ptr(self.bits))


def kept_of(segments: Mapping[int, Segment], gone: NDArray[np.int64]) -> dict[int, Kept]:
    """Of segments by the number of their first embedding, without runs of numbers, what may be found."""
    made = {}
    for first, segment in segments.items():
        low = np.searchsorted(gone[:, 1], first, side="right")
        high = np.searchsorted(gone[:, 0], first + len(segment), side="left")
        made[first] = Kept(len(segment), np.clip(gone[low:high] - first, 0, len(segment)))
    return made


def nearest(
    embeddings: NDArray[np.float32],
    count: int,
    share: float,
    segments: Mapping[int, Segment],
    kept: Mapping[int, Kept],
    codec: Codec,
) -> Nearest:
    """Similarities and numbers [shape=(n, count)] of the nearest embeddings, best first.

    `segments` and what of them may be found are by the number of their first embedding; a row that is not
    filled ends in -inf and -1, as does all of a query of zeros. `share` is what part of a segment's lists is
    searched for each query [shape=(n, dimension)], at least one.

    Raises LibraryError if a segment is found to be damaged.
    """
    faiss.omp_set_num_threads(1)  # of this thread
    similarity = np.full((len(embeddings), count), -np.inf, np.float32)
    numbers = np.full((len(embeddings), count), -1, np.int64)
    asked = np.flatnonzero(embeddings.any(axis=1))
    if len(asked):
        query = _Query(np.ascontiguousarray(embeddings[asked], np.float32), share, codec)
        similarity[asked], numbers[asked] = query.nearest(count, segments, kept)
    return similarity, numbers


class _Query:
    """Embeddings that are asked, none of them zero, and all that is the same for all segments."""

    def __init__(self, embeddings: NDArray[np.float32], share: float, codec: Codec) -> None:
        slices, _, _, width = codec.books.shape
        self._codec = codec
        self._share = share
        self._to_lists = embeddings @ codec.coarse.T
        self._to_cells = embeddings @ codec.cells.T
        self._doubled = doubled(embeddings, slices)
        parts = embeddings.reshape(len(embeddings), slices, width).transpose(1, 0, 2)
        books = codec.books.reshape(slices, 32, width).transpose(0, 2, 1)
        tables = np.matmul(parts, books).transpose(1, 0, 2)
        self._tables = np.ascontiguousarray(tables).reshape(len(embeddings), slices, 2, 16)
        self._spans = np.ptp(self._tables, axis=3).reshape(len(embeddings), -1)
        self._probed: dict[int, tuple[NDArray[np.int64], NDArray[np.float32]]] = {}

    def nearest(
        self, count: int, segments: Mapping[int, Segment], kept: Mapping[int, Kept]
    ) -> Nearest:
        """As the function of that name."""
        rows = len(self._tables)
        similarity = np.full((rows, count), -np.inf, np.float32)
        numbers = np.full((rows, count), -1, np.int64)
        cut: dict[int, NDArray[np.float32]] = {}  # how near what FAISS left out may be
        largest = sorted(segments, key=lambda first: (-len(segments[first]), first))
        for first in largest:
            if len(segments[first]) and not kept[first].none:
                cut[first] = self._search(first, segments[first], kept[first], similarity, numbers)
        for first, may_be in cut.items():
            again = np.flatnonzero(may_be >= similarity[:, 0])
            if len(again):
                self._scan(again, first, segments[first], kept[first], similarity, numbers)
        return merged([(similarity, numbers)], count)

    def _search(
        self,
        first: int,
        segment: Segment,
        kept: Kept,
        similarity: NDArray[np.float32],
        numbers: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        """Put the nearest of a segment into the heaps; how near to each query what is left out may be."""
        probed, centroids = self._probes(segment.cells)
        rows, probes = probed.shape
        error = self._error(centroids)
        asked = max(MORE * similarity.shape[1], LEAST_ASKED)
        near, ids = np.empty((rows, asked), np.float32), np.empty((rows, asked), np.int64)
        parameters: Any = faiss.SearchParametersIVF()
        parameters.nprobe = probes
        if kept.selector is not None:
            parameters.sel = kept.selector
        segment.index.search_preassigned_c(
            rows,
            faiss.swig_ptr(self._doubled),
            asked,
            faiss.swig_ptr(probed),
            faiss.swig_ptr(centroids),
            faiss.swig_ptr(near),
            faiss.swig_ptr(ids),
            False,
            parameters,
            None,
        )
        if not blocks.rescore(
            near,
            ids,
            error,
            self._tables,
            self._to_lists,
            segment.cells,
            segment.lists,
            segment.starts,
            segment.counts,
            segment.id_starts,
            segment.data,
            segment.long,
            first,
            similarity,
            numbers,
        ):
            raise segment.damaged("its ids are not those of its lists")
        return np.where(ids[:, -1] >= 0, near[:, -1] + error, np.float32(-np.inf))

    def _scan(
        self,
        again: NDArray[np.int64],
        first: int,
        segment: Segment,
        kept: Kept,
        similarity: NDArray[np.float32],
        numbers: NDArray[np.int64],
    ) -> None:
        """Put the nearest of a segment to some queries into the heaps, without FAISS."""
        probed, _ = self._probes(segment.cells)
        blocks.scan(
            again,
            probed,
            self._tables,
            self._to_lists,
            segment.cells,
            segment.starts,
            segment.counts,
            segment.id_starts,
            segment.data,
            segment.long,
            kept.bits,
            first,
            similarity,
            numbers,
        )

    def _probes(self, cells: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Lists that are searched in segments of so many cells, and the products with their centroids."""
        if cells not in self._probed:
            codec = self._codec
            if cells == 1:
                to_cells, halves = np.zeros_like(self._to_cells[:, :1]), codec.half_coarse[:, None]
            else:
                to_cells, halves = self._to_cells, codec.half_cells
            probes = max(1, math.ceil(self._share * halves.size))
            numbers = np.tile(np.arange(probes), (len(self._to_lists), 1))
            if probes < halves.size:
                blocks.closest(self._to_lists, to_cells, halves, numbers)
                numbers.sort(axis=1)
            centroids = np.take_along_axis(self._to_lists, numbers // cells, 1)
            self._probed[cells] = numbers, centroids
        return self._probed[cells]

    def _error(self, centroids: NDArray[np.float32]) -> NDArray[np.float32]:
        """By how much similarities in FAISS's bytes can err at most [shape=(n,)]: half a step for each entry.

        A step is such that the widest table fits a byte, and all of them together two bytes.
        """
        total = self._spans.sum(axis=1) + np.ptp(centroids, axis=1)
        step = np.maximum(self._spans.max(axis=1) / 255, total / 65_535)
        entries = self._spans.shape[1] + 1
        return (0.5 * entries * step + SLACK).astype(np.float32)


def merged(parts: Sequence[Nearest], count: int) -> Nearest:
    """The nearest of what was found in several parts, best first."""
    similarity = np.concatenate([part[0] for part in parts], axis=1)
    numbers = np.concatenate([part[1] for part in parts], axis=1)
    order = np.lexsort((numbers, -similarity))[:, :count]
    return np.take_along_axis(similarity, order, 1), np.take_along_axis(numbers, order, 1)
