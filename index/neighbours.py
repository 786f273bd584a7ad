"""The stored embeddings nearest to a query's, by product-quantised codes, in the lists that are probed.

Lists whose centroids are nearest to q are probed; in a segment that is divided into cells, the nearest of
those. The similarity of q to an embedding of list l with code c is q·coarse[l] + Σ_s table[s, c_s], where
table[s, e] = q_s·codebook[s, e] (Jégou et al. 2011, asymmetric distance, for inner products). The tables
of one query fit the innermost cache; the codes of a list are read where they lie in the mapped segments.
Queries take turns at a part of the lists, so that those that probe the same find their codes in a cache.

Of equally similar embeddings that of the lower number is the nearer. So the nearest are the same in whatever
parts, and in whatever order, the segments are searched.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fingerprint.codec import Codec
from fingerprint.kernels import njit
from index.segment import BLOCK, Segment

TURN = 16_384  # embeddings that a query is compared with in a turn: 256 kB of codes of 16 bytes
# Of a list or cell, at least: shorter runs cost more than the cache saves, up to twice as much in cells of
# four million embeddings (by `benchmarks.batching`, which goes through each cell once, beside it).
LEAST_TURN = 256

Nearest = tuple[NDArray[np.float32], NDArray[np.int64]]


def nearest(
    embeddings: NDArray[np.float32],
    count: int,
    share: float,
    segments: Mapping[int, Segment],
    gone: NDArray[np.int64],
    codec: Codec,
) -> Nearest:
    """Similarities and numbers [shape=(n, count)] of the nearest embeddings, best first.

    `segments` are by the number of their first embedding; a row that is not filled ends in -inf and -1.
    `share` is what part of a segment's lists, or of its cells, is searched for each query
    [shape=(n, dimension)], at least one; `gone` [shape=(m, 2)] are runs of numbers (first, end), ascending,
    that are not to be found.
    """
    to_lists, to_cells = embeddings @ codec.coarse.T, embeddings @ codec.cells.T
    slices, entries, width = codec.codebooks.shape
    parts = embeddings.reshape(len(embeddings), slices, width).transpose(1, 0, 2)
    tables = np.empty((len(embeddings), slices, entries), np.float32)
    for s in range(slices):
        tables[:, s] = parts[s] @ codec.codebooks[s].T
    similarity = np.full((len(embeddings), count), -np.inf, np.float32)
    numbers = np.full((len(embeddings), count), -1, np.int64)
    probed: dict[int, NDArray[np.int64]] = {}  # by how many cells a list is divided into
    for first, segment in segments.items():
        cells = segment.cells
        if cells not in probed:
            probed[cells] = _probed(to_lists, to_cells, share, cells, codec)
        _scan(
            tables.reshape(len(embeddings), slices * entries),
            to_lists,
            probed[cells],
            cells,
            segment.begins,
            segment.places,
            segment.ids,
            segment.codes,
            first,
            gone,
            similarity,
            numbers,
        )
    return merged([(similarity, numbers)], count)


def _probed(
    to_lists: NDArray[np.float32],
    to_cells: NDArray[np.float32],
    share: float,
    cells: int,
    codec: Codec,
) -> NDArray[np.int64]:
    """Numbers of the lists, or cells, that are searched for each embedding [shape=(n, probes)], ascending.

    Its products with all centroids, and with second ones, are given.
    """
    halves = codec.half_cells
    if cells == 1:  # the lists as they are
        to_cells, halves = np.zeros_like(to_cells[:, :1]), codec.half_coarse[:, None]
    numbers = np.empty((len(to_lists), max(1, math.ceil(share * halves.size))), np.int64)
    _closest(to_lists, to_cells, halves, numbers)
    return np.sort(numbers, axis=1)


def merged(parts: Sequence[Nearest], count: int) -> Nearest:
    """The nearest of what was found in several parts, best first."""
    similarity = np.concatenate([part[0] for part in parts], axis=1)
    numbers = np.concatenate([part[1] for part in parts], axis=1)
    order = np.lexsort((numbers, -similarity))[:, :count]
    return np.take_along_axis(similarity, order, 1), np.take_along_axis(numbers, order, 1)


@njit(cache=True, nogil=True)
def _closest(to_lists, to_cells, halves, out):
    """out[i] are the cells of largest to_lists[i, l] + to_cells[i, k] - halves[l, k], in no order."""
    lists, cells = halves.shape
    near = np.empty(out.shape[1], np.float32)
    row = np.empty(cells, np.float32)
    for i in range(len(out)):
        near[:] = -np.inf
        least = near[0]
        for number in range(lists):
            for k in range(cells):
                row[k] = to_lists[i, number] + to_cells[i, k] - halves[number, k]
            for k in range(cells):
                if row[k] > least:
                    _replace_least(near, out[i], row[k], number * cells + k)
                    least = near[0]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _scan(
    tables, close, probed, cells, begins, places, ids, codes, first, gone, similarity, numbers
):
    """Put the embeddings of one segment, so many of each list or cell in a turn, into each query's heap.

    A heap's root is its least near.
    """
    if not len(codes):
        return
    slices = codes.shape[1]
    ends = np.empty(places.shape[1], np.int64)
    ends[:-1] = places[0, 1:]
    ends[-1] = len(codes)
    longest = np.int64(0)
    for number in probed.flat:
        longest = max(longest, ends[number] - np.int64(places[0, number]))
    turn = max(LEAST_TURN, TURN // probed.shape[1])
    for done in range(0, longest, turn):
        for i in range(len(tables)):
            table = tables[i]
            least = similarity[i, 0]
            for number in probed[i]:
                of_list = close[i, number // cells]
                begin = np.int64(places[0, number]) + done
                for place in range(begin, min(begin + turn, ends[number])):
                    if slices == 16:
                        value = of_list + _sum_of_16(table, codes, place)
                    else:
                        value = of_list + _sum(table, codes, place)
                    if value >= least:
                        found = first + _number(begins, places, ids, number, place)
                        nearer = value > least or found < numbers[i, 0]
                        if nearer and not _within(found, gone):
                            _replace_least(similarity[i], numbers[i], value, found)
                            least = similarity[i, 0]


@njit(cache=True, nogil=True)
def _number(begins, places, ids, number, place):
    """Which embedding of the segment has its code at a place of a list or cell: its block by bisection."""
    low, high = 0, len(places) - 1  # the last block whose codes begin no later
    while low < high:
        middle = (low + high + 1) // 2
        if places[middle, number] <= place:
            low = middle
        else:
            high = middle - 1
    at = np.int64(begins[low, number]) + place - np.int64(places[low, number])
    return low * BLOCK + np.int64(ids[low * BLOCK + at])


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _sum(table, codes, place):
    """Σ_s table[s, c_s] for the code at a place."""
    total = np.float32(0.0)
    for s in range(codes.shape[1]):
        total += table[s * 256 + codes[place, s]]
    return total


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _sum_of_16(table, codes, place):
    """The same for codes of 16 bytes: a loop of known length is unrolled, which is 3 times as fast.

    In four sums, so that no addition waits for the one before.
    """
    a = b = c = d = np.float32(0.0)
    for s in range(0, 16, 4):
        a += table[s * 256 + codes[place, s]]
        b += table[(s + 1) * 256 + codes[place, s + 1]]
        c += table[(s + 2) * 256 + codes[place, s + 2]]
        d += table[(s + 3) * 256 + codes[place, s + 3]]
    return (a + b) + (c + d)


@njit(cache=True, nogil=True)
def _within(number, runs):
    """Whether one of the runs (first, end), ascending, holds a number: by bisection."""
    low, high = 0, len(runs)
    while low < high:
        middle = (low + high) // 2
        if runs[middle, 1] <= number:
            low = middle + 1
        else:
            high = middle
    return low < len(runs) and runs[low, 0] <= number


@njit(cache=True, nogil=True)
def _less_near(value, number, other_value, other_number):
    """Whether the first of two pairs is the less similar, or as similar and of the higher number."""
    return value < other_value or (value == other_value and number > other_number)


@njit(cache=True, nogil=True)
def _replace_least(values, numbers, value, number):
    """Put a pair in the place of a heap's least one, and the heap in order again."""
    count = len(values)
    here = 0
    while True:
        child = 2 * here + 1
        if child >= count:
            break
        other = child + 1
        if other < count and _less_near(
            values[other], numbers[other], values[child], numbers[child]
        ):
            child = other
        if not _less_near(values[child], numbers[child], value, number):
            break
        values[here], numbers[here] = values[child], numbers[child]
        here = child
    values[here], numbers[here] = value, number
