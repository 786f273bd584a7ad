"""Local alignment of a query with one recording, along time.

As Smith and Waterman (1981) align sequences, with embeddings for letters: every step of the reference (0.5
s) adds the weight of the query's embedding that lies under it, positive where the two are more alike than
unrelated music is, negative where they are not; the alignment is the run whose sum is largest. The offset
between the two may creep by one query step (0.1 s) a reference step, at a price, which follows a tempo that
is a little off. What lies beyond its ends, where both go on, counts against it up to the price of a border.
A line through the path, weighted by what each step says, then gives offset and tempo more finely than a
step.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fingerprint.fingerprint import REFERENCE_EVERY
from fingerprint.kernels import njit
from fingerprint.view import View
from index.change import Change
from index.query_context import Question
from index.significance import weights

# Score lost for every query step by which the offset changes: true copies seldom bend, and where chance
# may, it finds more (`python -m benchmarks.calibration.prices`).
CREEP_PRICE = 3.0
BEYOND = (
    6  # reference steps (3 s) beyond either end that are looked at for what speaks against a border
)
# Query steps, squared and weighted, that a changing offset must explain better than a constant one
# before it is believed: keeps a clip of five seconds from having a tempo by accident.
CREEP_DOUBT = 150.0

# Share by which a tempo may differ from its hypothesis's, which an alignment follows by itself.
MOST_BEND = 0.08

SLACK = 3  # query steps to either side of a candidate's offset that an alignment may use…
DRIFT = 0.03  # …and more, by this share of what query and recording overlap…
MOST_SLACK = 40  # …up to these 4 s


class Alignment(NamedTuple):
    """Reference steps `first` to `last` (inclusive) against the query.

    The query step under reference step j is `every * j - offset - creep * (j - (first + last) / 2)`, where
    `every` is the number of query steps in a reference step.
    """

    score: float
    first: int
    last: int
    offset: float
    creep: float


@dataclass(frozen=True)
class Found:
    """An alignment of a view of the query with a recording (its index in the snapshot).

    `hypotheses` is how many were tried before this one was believed, `e_value` its chance once it was judged,
    `stretches` the first and last steps of its parts, between which something else is heard, once these were
    looked for (`index.boundaries`), `change` its tempo and pitch with their intervals, once fitted.
    """

    recording: int
    alignment: Alignment
    view: View
    hypotheses: int = 1
    e_value: float = math.inf
    stretches: tuple[tuple[float, float], ...] = ()
    change: Change | None = None

    @property
    def score(self) -> float:
        """What the alignment says for the match.

        Under a faster tempo a second of the query is stretched over more embeddings, which then say
        less that is new: as much less as there are more of them.
        """
        return self.alignment.score / max(1.0, self.view.hypothesis.tempo)

    def query_step(self, step: float) -> float:
        """Step of the view under a reference step."""
        along = step - (self.alignment.first + self.alignment.last) / 2
        return REFERENCE_EVERY * step - self.alignment.offset - self.alignment.creep * along

    def query_steps(self) -> tuple[float, float]:
        """Steps of the view under the alignment's first and last reference step."""
        return self.query_step(self.alignment.first), self.query_step(self.alignment.last)

    def query_seconds(self) -> tuple[float, float]:
        """Beginning and end, in the query, of what the alignment's embeddings look at."""
        first, last = self.query_steps()
        return self.view.at(first) - self.view.reach, self.view.at(last) + self.view.reach

    def second(self, step: float) -> float:
        """Second of the query under a reference step: the centre of the window there."""
        return self.view.at(self.query_step(step))

    @property
    def tempo(self) -> float:
        """Reference seconds that pass per query second."""
        return (
            self.view.hypothesis.tempo * REFERENCE_EVERY / (REFERENCE_EVERY - self.alignment.creep)
        )


def align_near(
    question: Question, view: View, recording: int, offset: int, least: float = 0.0
) -> Iterator[Found]:
    """The alignments near one offset, wherever the two overlap there, the best first.

    least : alignment score under which they are not told
    """
    embeddings, snapshot = view.embeddings, question.snapshot
    first = max(0, -(-offset // REFERENCE_EVERY))
    end = min(snapshot.length(recording), (offset + len(embeddings) - 1) // REFERENCE_EVERY + 1)
    slack = min(MOST_SLACK, SLACK + int(DRIFT * REFERENCE_EVERY * max(0, end - first)))
    # reference steps that only other offsets of the band put under the query
    first = max(0, first - slack // REFERENCE_EVERY - 1)
    end = min(snapshot.length(recording), end + slack // REFERENCE_EVERY + 1)
    if end <= first:
        return
    codes = snapshot.codes(recording, first, end)
    reference = view.codec.decode(codes.lists, codes.codes)
    low = offset - slack - REFERENCE_EVERY * first
    # only the query steps that the band touches
    begin = max(0, -(low + 2 * slack))
    stop = max(begin, REFERENCE_EVERY * (end - first) - low)
    banded = weights(
        embeddings[begin:stop],
        view.crowding[begin:stop],
        reference,
        view.codec.crowding(reference, codes.lists),
        low + begin,
        2 * slack + 1,
        REFERENCE_EVERY,
        question.prices.pair,
    )
    while (alignment := align(banded, low, question.prices.border, least)) is not None:
        if alignment.score > max(0.0, least):
            yield Found(
                recording,
                alignment._replace(
                    first=alignment.first + first,
                    last=alignment.last + first,
                    offset=alignment.offset + REFERENCE_EVERY * first,
                ),
                view,
            )
        banded[alignment.first : alignment.last + 1] = np.nan


def align(
    banded: NDArray[np.float32], low: int, border: float = 0.0, least: float = 0.0
) -> Alignment | None:
    """Best local alignment within a band of offsets; None if its pairs say less than `least` or nothing.

    banded [shape=(reference steps, offsets)]: what each reference step weighs at offset low + column;
    NaN where the query has no step there. border : what either end may cost, at most (`index.significance`)
    """
    score, first, path = _align(banded, np.float32(CREEP_PRICE))
    if score <= 0 or score < least:
        return None
    score -= _against(
        banded[first - BEYOND if first > BEYOND else 0 : first, path[0]][::-1], border
    )
    score -= _against(banded[first + len(path) :, path[-1]][:BEYOND], border)
    steps = np.arange(first, first + len(path))
    weight, at = _peaks(banded[steps], path)
    middle = (steps[0] + steps[-1]) / 2
    centred = steps - middle
    total = weight.sum()
    mean_step, mean_offset = weight @ centred / total, weight @ at / total
    spread = weight @ (centred - mean_step) ** 2
    creep = weight @ ((centred - mean_step) * (at - mean_offset))
    creep /= spread + CREEP_DOUBT
    offset = low + mean_offset - creep * mean_step
    return Alignment(float(score), int(steps[0]), int(steps[-1]), float(offset), float(creep))


def _against(beyond: NDArray[np.float32], border: float) -> float:
    """What the weights beyond an end, from there on, say against a border, at most `border`."""
    there = beyond[: np.argmax(np.isnan(beyond))] if np.isnan(beyond).any() else beyond
    return min(border, max(0.0, -float(there.sum())))


def _peaks(
    rows: NDArray[np.float32], path: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How much each step of a path says, and its offset to a fraction of a step.

    The fraction is that of a parabola through the weights beside the path's.
    """
    every = np.arange(len(path))
    here = np.nan_to_num(rows[every, path], nan=0.0).astype(np.float64)
    padded = np.pad(rows, ((0, 0), (1, 1)), constant_values=np.nan)
    left, right = padded[every, path].astype(float), padded[every, path + 2].astype(float)
    curvature = left - 2 * here + right
    with np.errstate(invalid="ignore", divide="ignore"):
        fraction = 0.5 * (left - right) / curvature
    fraction = np.where(np.isfinite(fraction) & (curvature < 0), fraction, 0.0)
    return np.maximum(here, 0.05), path + np.clip(fraction, -0.5, 0.5)


@njit(cache=True, nogil=True)
def _align(weights, price):
    """S[j, b] = w[j, b] + max(0, S[j-1, b], S[j-1, b±1] - price).

    Returns the largest S, the step it began at, and the offsets (columns) from there to its end.
    """
    steps, offsets = weights.shape
    score = np.zeros((steps + 1, offsets), np.float32)
    source = np.full((steps, offsets), -1, np.int64)  # column of the step before; -1: begins here
    best = np.float32(0.0)
    last, column = -1, -1
    for j in range(steps):
        for b in range(offsets):
            weight = weights[j, b]
            if np.isnan(weight):
                continue
            before = np.float32(0.0)
            for c in range(max(0, b - 1), min(offsets, b + 2)):
                candidate = score[j, c] - (price if c != b else np.float32(0.0))
                if candidate > before or (candidate == before and candidate > 0 and c == b):
                    before = candidate
                    source[j, b] = c
            score[j + 1, b] = max(before + weight, np.float32(0.0))
            if score[j + 1, b] > best:
                best = score[j + 1, b]
                last, column = j, b
    if last < 0:
        return best, 0, np.empty(0, np.int64)
    first = last
    b = column
    while source[first, b] >= 0:
        b = source[first, b]
        first -= 1
    path = np.empty(last - first + 1, np.int64)
    b = column
    for j in range(last, first - 1, -1):
        path[j - first] = b
        b = source[j, b]
    return best, first, path
