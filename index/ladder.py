"""Altered copies: excerpts of a query under the ladder of hypotheses of tempo and pitch.

An excerpt is screened under every rung: embedded coarsely, its neighbours voting along several slopes. The
candidates of most votes, over all rungs so far, are aligned like those of an unaltered query, under the
rung's hypothesis with the slope made part of it. The ladder ends with the first answer that chance does not
explain; `index.refine` then finds its tempo and pitch between the rungs, and what surrounds the excerpt.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import numpy as np

from fingerprint.cores import pool
from fingerprint.fingerprint import AUDIBLE, SHORTEST, Fingerprint, as_bytes
from fingerprint.hypotheses import Hypothesis
from fingerprint.spectrogram import FRAME_RATE
from index.align import Found, align_near
from index.query_context import Question
from index.votes import Candidate, Effort, Passage, candidates

# Chosen on the tune packages; docs/decisions/ladder.md says what with.
# Screening: 32 lists hold 51 to 97 % of what is sought on the right rung.
SCREEN = Effort(2, 20, 32, 50_000, 4)
SLOPES = (0.88, 0.92, 0.96, 1.0, 1.04, 1.08, 1.13)
AT_ONCE = 16  # rungs screened before candidates are looked at
EAGER = 3  # candidates aligned then, before the ladder goes on
LAST = 12  # candidates aligned when it has ended
PART = 10.0  # s of a query of which…
SILENT = 2.0  # s of silence at which a query is divided
LONGEST = 6.0  # …at most this much is looked at under the ladder


class Excerpt(NamedTuple):
    """A part of the query, in seconds."""

    start: float
    end: float

    def is_mostly_in(self, found: Found) -> bool:
        """Whether a stretch of a match explains at least half of it."""
        return any(
            min(found.second(last), self.end) - max(found.second(first), self.start)
            >= 0.5 * (self.end - self.start)
            for first, last in found.stretches
        )


def excerpts(fingerprint: Fingerprint) -> list[Excerpt]:
    """What of the query is looked at: the middle of each equal part, at most PART seconds, of what sounds."""
    chosen: list[Excerpt] = []
    for start, end in _sounding(fingerprint):
        parts = max(1, math.ceil((end - start) / PART))
        length = (end - start) / parts
        reach = min(length, LONGEST) / 2
        middles = (start + (part + 0.5) * length for part in range(parts))
        chosen += [Excerpt(middle - reach, middle + reach) for middle in middles]
    return chosen


def _sounding(fingerprint: Fingerprint) -> Iterator[tuple[float, float]]:
    """Seconds from and to which a query sounds, without pauses of SILENT and more."""
    if fingerprint.levels is None:
        return
    loudest = fingerprint.levels.max(axis=1, initial=0)
    (heard,) = np.nonzero(loudest > as_bytes(np.array([AUDIBLE], np.float32)))
    if not len(heard):
        return
    pauses = np.diff(heard) > SILENT * FRAME_RATE
    firsts, lasts = heard[np.r_[True, pauses]], heard[np.r_[pauses, True]]
    for first, last in zip(firsts, lasts, strict=True):
        if last - first + 1 >= SHORTEST * FRAME_RATE:
            end = fingerprint.duration if last == len(loudest) - 1 else (last + 1) / FRAME_RATE
            yield first / FRAME_RATE, end


def climb(
    question: Question,
    excerpt: Excerpt,
    rungs: Sequence[Hypothesis],
    certain: Callable[[Found], bool],
) -> list[Found]:
    """Alignments of an excerpt under these rungs, up to the first that is certain.

    Each says how many hypotheses were tried in the end, the unaltered one included.
    """
    found: list[Found] = []
    tried = 1
    waiting: list[tuple[Candidate, Hypothesis]] = []
    for first in range(0, len(rungs), AT_ONCE):
        batch = rungs[first : first + AT_ONCE]
        tried += len(batch)
        waiting += _screen(question, excerpt, batch)
        waiting.sort(key=lambda pair: -pair[0].votes)
        count = EAGER if first + len(batch) < len(rungs) else LAST
        chosen, waiting = waiting[:count], waiting[count:]
        for several in pool().map(functools.partial(_align, question, excerpt, tried), chosen):
            found += several
        if any(map(certain, found)):
            break
    return [replace(item, hypotheses=tried) for item in found]


def _screen(
    question: Question, excerpt: Excerpt, rungs: Sequence[Hypothesis]
) -> list[tuple[Candidate, Hypothesis]]:
    """The candidates of most votes under each rung, with the rung along their slope."""

    def under(rung: Hypothesis) -> Passage:
        view = question.view(rung, *excerpt, every=SCREEN.every)
        return Passage(view.embeddings, view.crowding)

    found = candidates(list(pool().map(under, rungs)), question, SCREEN, SLOPES)
    return [
        (one, Hypothesis(rung.tempo * one.slope, rung.pitch))
        for rung, of_it in zip(rungs, found, strict=True)
        for one in of_it
    ]


def _align(
    question: Question, excerpt: Excerpt, tried: int, pair: tuple[Candidate, Hypothesis]
) -> list[Found]:
    """The best alignment near a candidate."""
    candidate, hypothesis = pair
    view = question.view(hypothesis, *excerpt)
    found = align_near(question, view, candidate.recording, candidate.offset)
    return [replace(best, hypotheses=tried) for best in islice(found, 1)]
