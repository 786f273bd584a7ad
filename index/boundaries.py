"""From where to where a recording is heard, once it is known to be and along which line.

That a recording is there at all is asked of every offset of a whole library, so that an alignment counts
only what is well above chance (`index.align`). Where it begins and ends is asked of one line: there a pair
speaks for the recording as soon as it is more likely to be of one moment than not, and music that goes on
under speech, or under another work, is followed as far as it can be made out. A stretch is a run of pairs
along the line whose sum is highest and which no INTERRUPTION divides (as BLAST extends its hits by the X-drop
rule, Altschul et al. 1990). It ends where likeness has fallen half-way from what it is in the stretch to what
it is elsewhere: there half of an embedding's window is inside.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fingerprint.fingerprint import REFERENCE_EVERY
from index.align import Found
from index.query_context import Question
from index.significance import UNIT

# Similarity above the crowding, in units of `index.significance.UNIT`, as
# `python -m benchmarks.timeline --likeness --split tune` tells it; docs/decisions/timeline.md.
ELSEWHERE = -3.9  # mean of pairs of different moments
EVEN = -0.6  # of pairs that are as likely to be of one moment, under speech, as of two
LEAST = -2.0  # what one pair, less EVEN, can say against a recording
# What is lost, from the highest sum so far, where a stretch ends and what follows is another, and what a
# stretch must say for itself: six reference steps (3 s) of unrelated sound.
INTERRUPTION = 12.0
# Median of an alignment in which nothing else is heard: if that were so beyond its ends, it would go on
# there. What lies beyond must then say as much for itself as a stretch.
CLEAR = 8.0
SURE = 3.0  # what a pair that is of one moment beyond doubt exceeds
FARTHEST = 60.0  # s to either side of an alignment to which it is followed


def stretches(found: Found, question: Question) -> tuple[tuple[float, float], ...]:
    """First and last reference step, with fractions, of each stretch of an alignment.

    A stretch that begins or ends with a whole step has none before or after it that both query and recording
    hold.
    """
    view, alignment = found.view, found.alignment
    more = int(FARTHEST / (question.fingerprint.step * REFERENCE_EVERY))
    low = max(0, alignment.first - more)
    high = min(question.snapshot.length(found.recording), alignment.last + more + 1)
    steps = np.arange(low, high)
    at = np.rint([found.query_step(float(step)) for step in steps]).astype(int)
    aligned = (steps >= alignment.first) & (steps <= alignment.last)
    held = aligned | ((at >= 0) & (at < len(view.embeddings)))
    first, end = int(steps[held][0]), int(steps[held][-1]) + 1
    query = at[held].clip(0, len(view.embeddings) - 1)
    codes = question.snapshot.codes(found.recording, first, end)
    reference = view.codec.decode(codes.lists, codes.codes)
    crowding = (view.crowding[query] + view.codec.crowding(reference, codes.lists)) / 2
    above = (np.sum(view.embeddings[query] * reference, axis=1) - crowding) / UNIT
    borders = _borders(above, *_surest(above, alignment.first - first, alignment.last - first))
    return tuple((first + start, first + last) for start, last in borders) or (
        (alignment.first - 0.5, alignment.last + 0.5),
    )


def _surest(above: NDArray[np.float32], first: int, last: int) -> tuple[int, int]:
    """The part of steps first to last whose sum above SURE is highest."""
    total = highest = 0.0
    start, best = first, (first, last)
    for i in range(first, last + 1):
        if total <= 0:
            start, total = i, 0.0
        total += float(above[i]) - SURE
        if total > highest:
            highest, best = total, (start, i)
    return best


def _borders(above: NDArray[np.float32], first: int, last: int) -> Iterator[tuple[float, float]]:
    """Where the runs of `above` begin and end, in steps, that are part of an alignment from first to last."""
    weights = np.maximum(above - EVEN, LEAST)
    least = INTERRUPTION if np.median(above[first : last + 1]) >= CLEAR else 0.0
    for start, end in _runs(weights):
        if end < first or start > last:
            continue
        if start < first and weights[start:first].sum() < least:
            start = first
        if end > last and weights[last + 1 : end + 1].sum() < least:
            end = last
        inside = above[start : end + 1]
        level = (float(np.mean(inside)) + ELSEWHERE) / 2
        yield (
            start + _half_way(inside, level, above[max(0, start - 1) : start]),
            end - _half_way(inside[::-1], level, above[end + 1 : end + 2]),
        )


def _half_way(inside: NDArray[np.float32], level: float, before: NDArray[np.float32]) -> float:
    """Steps after the first at which what rises from `before` into `inside` passes a level.

    Between -1 and 0 if the first is above it already; 0 if there is nothing before.
    """
    if not len(before):
        return 0.0
    rising = np.concatenate([before, inside])
    above = int(np.argmax(inside >= level)) + 1
    lower, upper = float(rising[above - 1]), float(rising[above])
    part = (upper - level) / max(upper - lower, 1e-6)
    return above - 1 - float(np.clip(part, 0, 1))


def _runs(weights: NDArray[np.float32]) -> list[tuple[int, int]]:
    """First and last of the runs of weights of highest sum that no INTERRUPTION divides."""
    found: list[tuple[int, int]] = []
    first = last = 0
    total = highest = 0.0
    # one INTERRUPTION after the last ends the last run
    for i, weight in enumerate([*weights.tolist(), -math.inf]):
        if total <= 0:
            first, total, highest = i, 0.0, 0.0
        total += weight
        if total > highest:
            highest, last = total, i
        elif total < highest - INTERRUPTION:
            if highest >= INTERRUPTION:
                found.append((first, last))
            total = highest = 0.0
    return found
