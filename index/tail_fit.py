"""The chance of scores, fitted on music that is not in the library: what `index.significance` states.

A clip of unrelated music is aligned with recordings all the same, and with some better than with others. The
best score of each recording is a peak; how many peaks a clip has above S is E(S). Those above the score that
chance reaches RATE times a clip are taken for exponential, of mean 1 / λ = a + b log n, n the clip's
embeddings: one line through all lengths, since a few works set the tail of each. a and b ≥ 0 are fitted by
maximum likelihood, K from the number of peaks.

Related music is no chance: two works over the same drum loop, or in two versions, meet again and again. A
work and a recording that meet with the strength of a `review` in two separate stretches of the work are taken
for related, and their peaks are left out and counted for themselves.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fingerprint.hypotheses import Hypothesis
from index.query_context import Question
from index.search import everything
from index.significance import REVIEW, Tail

RATE = 1.0  # peaks a clip that the fit looks at
RESAMPLES = 200
ROUNDS = 10  # of fitting and of leaving out what is related
_STEPS = 30  # of iteratively reweighted least squares: converges in a few


@dataclass(frozen=True)
class Look:
    """One clip of a work, looked for among recordings that are unrelated to it.

    Attributes
    ----------
    work : what it was cut from, by name
    start, end : where from, in seconds
    length : nominal one, in seconds: looks of one length are fitted together
    query_embeddings, library_embeddings : sizes of both sides
    peaks : best score by recording, for those that were found
    """

    work: str
    start: float
    end: float
    length: float
    query_embeddings: int
    library_embeddings: int
    peaks: dict[str, float]


class Pair(NamedTuple):
    """A work and a recording."""

    work: str
    recording: str


@dataclass(frozen=True)
class Fit:
    """A tail, the upper end of λ's 95 % interval beside the lower one in it, and the related pairs."""

    tail: Tail
    most_decay: tuple[float, ...]
    related: frozenset[Pair]


class Peaks(NamedTuple):
    """Best score by recording (its index in the snapshot), as the query is and under hypotheses."""

    unaltered: dict[int, float]
    altered: dict[int, float]


def peaks(question: Question, rungs: Sequence[Hypothesis] = ()) -> Peaks:
    """All that a query finds, however weak, under all of these rungs too."""
    # nothing is so certain that the ladder would end early
    found = everything(question, rungs, lambda item: 1 / (1 + item.score), math.inf)
    best = Peaks({}, {})
    for item in found:
        of = best.altered if item.hypotheses > 1 else best.unaltered
        of[item.recording] = max(of.get(item.recording, 0.0), item.score)
    return best


def fit(looks: Sequence[Look], seed: int = 0) -> Fit:
    """The tail of what is unrelated; its interval is of RESAMPLES draws of as many works.

    Raises ValueError if there are no two peaks of some length.
    """
    related: frozenset[Pair] = frozenset()
    for _ in range(ROUNDS):
        kept = without(looks, related)
        more = related | meetings(kept, partial(_review, tail_of(kept)))
        if more == related:
            break
        related = more
    kept = without(looks, related)
    tail = tail_of(kept)
    drawn = resampled(kept, RESAMPLES, seed)
    decays = np.array([tail_of(sample).decay for sample in drawn])
    least, most = np.quantile(decays, [0.025, 0.975], axis=0)
    least = np.minimum(least, tail.decay)
    return Fit(replace(tail, least_decay=_rounded(least)), _rounded(most), related)


def without(looks: Iterable[Look], related: Iterable[Pair]) -> list[Look]:
    """Looks without the peaks of related pairs."""
    left_out = set(related)
    return [
        replace(
            look, peaks={r: s for r, s in look.peaks.items() if Pair(look.work, r) not in left_out}
        )
        for look in looks
    ]


def meetings(looks: Iterable[Look], review: Callable[[Look], float]) -> frozenset[Pair]:
    """Pairs that meet as strongly as a `review` in two separate stretches of the work.

    review : the score from which on a recording is one
    """
    met: dict[Pair, list[tuple[float, float]]] = defaultdict(list)
    for look in looks:
        least = review(look)
        for recording, score in look.peaks.items():
            if score >= least:
                met[Pair(look.work, recording)].append((look.start, look.end))
    return frozenset(
        pair
        for pair, spans in met.items()
        if max(start for start, _ in spans) >= min(end for _, end in spans)
    )


def _review(tail: Tail, look: Look) -> float:
    return tail.score(math.log(REVIEW), look.query_embeddings, look.library_embeddings)


def tail_of(looks: Sequence[Look], rate: float = RATE) -> Tail:
    """The tail of all peaks, without an interval of its λ. Raises ValueError as `fit` does."""
    lengths, thresholds, excesses, counts, spaces = [], [], [], [], []
    for length in sorted({look.length for look in looks}):
        group = [look for look in looks if look.length == length]
        peaks = np.sort([score for look in group for score in look.peaks.values()])[::-1]
        if len(peaks) < 2:
            raise ValueError(f"no two clips of {length:g} s are like anything")
        count = min(max(1, round(rate * len(group))), len(peaks) - 1)
        lengths.append(float(np.median([look.query_embeddings for look in group])))
        thresholds.append(float(peaks[count]))
        excesses.append(peaks[:count] - peaks[count])
        counts.append(count)
        spaces.append(sum(float(look.query_embeddings) * look.library_embeddings for look in group))
    decay = 1 / _mean_excess(np.log(lengths), excesses)
    log_density = np.log(counts) - np.log(spaces) + decay * thresholds
    library = round(float(np.median([look.library_embeddings for look in looks])))
    return Tail(tuple(lengths), _rounded(decay), _rounded(log_density), _rounded(decay), library)


def resampled(looks: Sequence[Look], draws: int, seed: int) -> Iterable[list[Look]]:
    """Looks of as many works, drawn with replacement."""
    by_work: dict[str, list[Look]] = defaultdict(list)
    for look in looks:
        by_work[look.work].append(look)
    works = sorted(by_work)
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        yield [
            look for k in rng.integers(len(works), size=len(works)) for look in by_work[works[k]]
        ]


def _mean_excess(
    at: NDArray[np.float64], excesses: Sequence[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Means a + b x, b ≥ 0, of exponential excesses at each x, by maximum likelihood [shape=(m,)].

    That is a generalised linear model with identity link: least squares with weights 1 / mean² (McCullagh
    and Nelder 1989, section 2.5).
    """
    count = np.array([len(some) for some in excesses], float)
    observed = np.array([some.mean() for some in excesses])
    x = at - at[0]
    flat = np.full_like(x, np.sum(count * observed) / np.sum(count))
    mean = flat
    for _ in range(_STEPS):
        weight = count / mean**2
        centre = np.sum(weight * x) / np.sum(weight)
        spread = np.sum(weight * (x - centre) ** 2)
        slope = np.sum(weight * (x - centre) * observed) / spread if spread > 0 else 0.0
        if slope <= 0:
            return flat
        level = np.sum(weight * observed) / np.sum(weight)
        mean = np.maximum(level + slope * (x - centre), 1e-3 * flat)
    return mean


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)
