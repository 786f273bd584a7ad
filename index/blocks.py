"""Kernels over inverted lists as FAISS's fast scan keeps them: codes in blocks of 32, then the ids.

In a block the bytes of slice s are the 32 from 32 s on: 16 for the low halves of its codes, then 16 for the
high ones. Each byte has half a code of two embeddings: byte j that of embedding ORDER[j] in its low half, and
that of embedding ORDER[j] + 16 in its high half (André et al. 2015; FAISS's `pq4_pack_codes`).

A list is given by where its codes begin in the file (`starts`, in bytes), how many embeddings it has
(`counts`) and where their ids begin (`id_starts`, in numbers of 8 bytes). Ids ascend within a list.
"""

import numpy as np

from fingerprint.kernels import njit

BLOCK = 32  # embeddings


@njit(cache=True, nogil=True)
def _column(place):
    """At which of 16 bytes the half code of the embedding at a place of a block is: where ORDER has it.

    ORDER is 0, 8, 1, 9, …, 7, 15.
    """
    row = place % 16
    return 2 * row if row < 8 else 2 * row - 15


@njit(cache=True, nogil=True)
def lay_out(starts, counts, id_starts, width, ids, codes, out, out_ids):
    """Write lists into a zeroed buffer: of the embeddings given, in order, the first counts[0] are list 0's.

    ids [shape=(n,)], codes [shape=(n, width)]; out is the buffer as bytes, out_ids as numbers of 8 bytes.
    """
    at = 0
    for number in range(len(starts)):
        for place in range(counts[number]):
            block = starts[number] + place // BLOCK * BLOCK * width
            column = _column(place)
            shift = 4 * (place % BLOCK // 16)
            for s in range(width):
                code = codes[at, s]
                out[block + 32 * s + column] |= (code & 15) << shift
                out[block + 32 * s + 16 + column] |= (code >> 4) << shift
            out_ids[id_starts[number] + place] = ids[at]
            at += 1


@njit(cache=True, nogil=True)
def _code(data, start, place, width, s):
    """The byte of slice s of the embedding at a place of the list whose codes begin at `start`."""
    at = start + place // BLOCK * BLOCK * width + 32 * s + _column(place)
    shift = 4 * (place % BLOCK // 16)
    return (data[at + 16] >> shift & 15) << 4 | data[at] >> shift & 15


@njit(cache=True, nogil=True)
def take(starts, counts, id_starts, width, data, long, out_lists, out_ids, out_codes):
    """All embeddings of lists, one list after the other: the reverse of `lay_out`."""
    at = 0
    for number in range(len(starts)):
        for place in range(counts[number]):
            out_lists[at] = number
            out_ids[at] = long[id_starts[number] + place]
            for s in range(width):
                out_codes[at, s] = _code(data, starts[number], place, width, s)
            at += 1


@njit(cache=True, nogil=True)
def _place(long, begin, count, id):
    """Where an id is among a list's: by bisection; -1 if it is not there."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if long[begin + middle] < id:
            low = middle + 1
        else:
            high = middle
    return low if low < count and long[begin + low] == id else -1


@njit(cache=True, nogil=True)
def look_up(first, lists, starts, counts, id_starts, width, data, long, out_codes):
    """out_codes[i] is the code of embedding first + i, of list lists[i].

    Returns the number of the first embedding that is not in its list, -1 if all are.
    """
    for i in range(len(lists)):
        number = np.int64(lists[i])
        place = -1
        if number < len(counts):
            place = _place(long, id_starts[number], counts[number], first + i)
        if place < 0:
            return first + i
        for s in range(width):
            out_codes[i, s] = _code(data, starts[number], place, width, s)
    return -1


@njit(cache=True, nogil=True)
def _similarity(table, width, data, start, place):
    """Σ_s table[s, 0, high half of c_s] + table[s, 1, low half of c_s] for code c at a place of a list."""
    total = np.float32(0.0)
    for s in range(width):
        code = _code(data, start, place, width, s)
        total += table[s, 0, code >> 4] + table[s, 1, code & 15]
    return total


@njit(cache=True, nogil=True)
def rescore(
    near,
    ids,
    error,
    tables,
    to_lists,
    cells,
    lists,
    starts,
    counts,
    id_starts,
    data,
    long,
    first,
    similarity,
    numbers,
):
    """Put embeddings into each query's heap by their exact similarities, which differ from `near` by `error`.

    near, ids [shape=(n, m)]: candidates of n queries, best first; error [shape=(n,)]; the heaps, `similarity`
    and `numbers` [shape=(n, count)], have their least near entry at the root. Returns False if a candidate is
    not in the list that is said to be its own, or is not as near as it was found to be: something is damaged.
    """
    width = tables.shape[1]
    for i in range(len(ids)):
        for j in range(ids.shape[1]):
            id = ids[i, j]
            if id == -1 or near[i, j] + error[i] < similarity[i, 0]:
                break
            if not 0 <= id < len(lists):
                return False
            number = np.int64(lists[id])
            if number >= len(counts):
                return False
            place = _place(long, id_starts[number], counts[number], id)
            if place < 0:
                return False
            value = to_lists[i, number // cells]
            value += _similarity(tables[i], width, data, starts[number], place)
            if not abs(value - near[i, j]) <= error[i]:
                return False
            _offer(similarity[i], numbers[i], value, first + id)
    return True


@njit(cache=True, nogil=True)
def scan(
    rows,
    probed,
    tables,
    to_lists,
    cells,
    starts,
    counts,
    id_starts,
    data,
    long,
    kept,
    first,
    similarity,
    numbers,
):
    """Put all embeddings of the lists probed into the heaps of some queries, as `rescore` does; slower.

    rows : which queries; probed [shape=(n, probes)]; kept : bits of the embeddings that may be found, or none
    """
    width = tables.shape[1]
    for i in rows:
        for number in probed[i]:
            for place in range(counts[number]):
                id = long[id_starts[number] + place]
                if len(kept) and not (0 <= id < 8 * len(kept) and kept[id >> 3] >> (id & 7) & 1):
                    continue
                value = to_lists[i, number // cells]
                value += _similarity(tables[i], width, data, starts[number], place)
                if value >= similarity[i, 0] and not _is_there(numbers[i], first + id):
                    _offer(similarity[i], numbers[i], value, first + id)


@njit(cache=True, nogil=True)
def _is_there(numbers, number):
    return bool(np.any(numbers == number))


@njit(cache=True, nogil=True)
def clear(bits, runs):
    """Set the bits of runs (first, end) to 0; bit i is bit i % 8 of byte i // 8."""
    for first, end in runs:
        id = first
        while id < end:
            if id % 8 == 0 and id + 8 <= end:
                bits[id >> 3] = 0
                id += 8
            else:
                bits[id >> 3] &= 255 - (1 << (id & 7))
                id += 1


@njit(cache=True, nogil=True)
def closest(to_lists, to_cells, halves, out):
    """out[i] are the cells of largest to_lists[i, l] + to_cells[i, k] - halves[l, k], in no order."""
    lists, cells = halves.shape
    near = np.empty(out.shape[1], np.float32)
    row = np.empty(cells, np.float32)
    for i in range(len(out)):
        near[:] = -np.inf
        out[i] = 0
        least = near[0]
        for number in range(lists):
            for k in range(cells):
                row[k] = to_lists[i, number] + to_cells[i, k] - halves[number, k]
            for k in range(cells):
                if row[k] > least:
                    _replace_least(near, out[i], row[k], number * cells + k)
                    least = near[0]


@njit(cache=True, nogil=True)
def _offer(values, numbers, value, number):
    """Put a pair into a heap if it is nearer than the least near one."""
    if _less_near(values[0], numbers[0], value, number):
        _replace_least(values, numbers, value, number)


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
