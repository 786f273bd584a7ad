"""Local alignment of a query with one recording, along time.

As Smith and Waterman (1981) align sequences, with embeddings for letters: every step of the reference
(0.5 s) adds the weight of the query's embedding that lies under it, positive where the two are more
alike than unrelated music is, negative where they are not; the alignment is the run whose sum is
largest. The offset between the two may creep by one query step (0.1 s) a reference step, at a price,
which follows a tempo that is a little off.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fingerprint.fingerprint import REFERENCE_EVERY

CREEP_PRICE = 1.0  # score lost for every query step by which the offset changes


class Alignment(NamedTuple):
    """Reference steps first to last (inclusive) against the query, with the offsets at both ends.

    An offset is REFERENCE_EVERY * reference step - query step. `steps` counts reference steps under
    which the query had an embedding.
    """

    score: float
    first: int
    last: int
    first_offset: int
    last_offset: int
    steps: int


def align(
    weights_of: NDArray[np.float32],
    low: int,
) -> Alignment | None:
    """Best local alignment in a band of offsets.

    weights_of [shape=(reference steps, offsets)]: weight of each reference step at offsets low,
    low + 1, …; NaN where the query has no embedding. None if nothing is positive.
    """
    score, first, last, a, b, steps = _align(weights_of, np.float32(CREEP_PRICE))
    if score <= 0:
        return None
    return Alignment(float(score), int(first), int(last), low + int(a), low + int(b), int(steps))


def band_weights(
    similarity_of: NDArray[np.float32],
    low: int,
    offsets: int,
) -> NDArray[np.float32]:
    """Rearrange weights [shape=(reference steps, query steps)] by offset from `low` on, for `align`."""
    out = np.empty((len(similarity_of), offsets), np.float32)
    _band(similarity_of, low, REFERENCE_EVERY, out)
    return out


@njit(cache=True, nogil=True)
def _band(weights, low, every, out):
    """out[j, b] = weights[j, every * j - (low + b)], NaN outside."""
    steps, frames = weights.shape
    for j in range(steps):
        for b in range(out.shape[1]):
            i = every * j - (low + b)
            out[j, b] = weights[j, i] if 0 <= i < frames else np.nan


@njit(cache=True, nogil=True)
def _align(weights, price):
    """S[j, b] = w[j, b] + max(0, S[j-1, b], S[j-1, b±1] - price); the largest S and where it began."""
    steps, offsets = weights.shape
    score = np.zeros(offsets, np.float32)
    begun = np.zeros((offsets, 3), np.int64)  # first step, first offset, steps counted
    new_score = np.zeros(offsets, np.float32)
    new_begun = np.zeros((offsets, 3), np.int64)
    best = np.float32(0.0)
    best_at = (0, 0, 0, 0, 0)
    for j in range(steps):
        for b in range(offsets):
            weight = weights[j, b]
            if np.isnan(weight):
                new_score[b] = 0
                continue
            before, source = score[b], b
            if b > 0 and score[b - 1] - price > before:
                before, source = score[b - 1] - price, b - 1
            if b + 1 < offsets and score[b + 1] - price > before:
                before, source = score[b + 1] - price, b + 1
            if before > 0:
                new_begun[b, 0] = begun[source, 0]
                new_begun[b, 1] = begun[source, 1]
                new_begun[b, 2] = begun[source, 2] + 1
                total = before + weight
            else:
                new_begun[b, 0] = j
                new_begun[b, 1] = b
                new_begun[b, 2] = 1
                total = weight
            new_score[b] = max(total, np.float32(0.0))
            if total > best:
                best = total
                best_at = (new_begun[b, 0], j, new_begun[b, 1], b, new_begun[b, 2])
        score, new_score = new_score, score
        begun, new_begun = new_begun, begun
    return (best, *best_at)
