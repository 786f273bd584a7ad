"""Open-set scoring: what an answer is worth, and how sure a share of answers is.

Of a clip whose work is in the library:

    identified   the best answer names a recording with the same audio (see `truth`)
    localised    and places the clip's beginning within 0.5 s of such a place (`near`: within 0.25 s)
    accepted     identified, and the system accepts the answer at its own default gate
    wrong        accepted, and not identified: it would have blamed the wrong recording

Of a clip whose work the library does not have, any accepted answer is a false accept. Systems set their
gates differently strict, so `at_gate` compares them at one rate of false accepts: the gate is put where
that share of the absent clips passes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from scipy.stats import binomtest

from benchmarks.peers.base import Answer
from benchmarks.truth import Place, is_right

LOCALISED = 0.5  # s
NEAR = 0.25  # s
GATES = (0.01, 0.001)  # false accepts per absent clip


@dataclass(frozen=True)
class Verdict:
    """What one answer to a clip of a known work was worth."""

    identified: bool = False
    localised: bool = False
    near: bool = False
    accepted: bool = False
    wrong: bool = False


def judge(answer: Answer, places: Sequence[Place], shift: float = 0.0) -> Verdict:
    """The worth of an answer to a clip whose music is at `places` of the library.

    shift: reference seconds from the clip's beginning to its music (lead × tempo).
    """
    identified = any(place.recording == answer.recording for place in places)
    accepted = answer.accepted and answer.recording is not None
    localised = near = False
    if identified and answer.recording is not None and answer.reference_start is not None:
        offset = answer.reference_start + shift
        localised = is_right(places, answer.recording, offset, LOCALISED)
        near = is_right(places, answer.recording, offset, NEAR)
    return Verdict(
        identified, localised, near, accepted and identified, accepted and not identified
    )


@dataclass
class Tally:
    """Counts of verdicts."""

    clips: int = 0
    identified: int = 0
    localised: int = 0
    near: int = 0
    accepted: int = 0
    wrong: int = 0

    def add(self, verdict: Verdict) -> None:
        """Count one more."""
        self.clips += 1
        for name, value in asdict(verdict).items():
            setattr(self, name, getattr(self, name) + value)

    @classmethod
    def of(cls, verdicts: Iterable[Verdict]) -> Tally:
        """The counts of several verdicts."""
        tally = cls()
        for verdict in verdicts:
            tally.add(verdict)
        return tally


@dataclass
class AbsentTally:
    """Counts of answers to clips whose work the library does not have."""

    clips: int = 0
    accepted: int = 0
    seconds: float = 0.0

    def add(self, answer: Answer, seconds: float) -> None:
        """Count one more clip, of so many seconds."""
        self.clips += 1
        self.accepted += answer.accepted and answer.recording is not None
        self.seconds += seconds


@dataclass(frozen=True)
class Share:
    """k of n, with its Wilson 95 % interval."""

    value: float
    low: float
    high: float


def share(k: int, n: int) -> Share | None:
    """k of n with the interval of Wilson (1927), without continuity correction; None of nothing."""
    if not n:
        return None
    interval = binomtest(k, n).proportion_ci(0.95, method="wilson")
    return Share(k / n, float(interval.low), float(interval.high))


def strength(answer: Answer) -> float:
    """How strong a system finds its answer; below everything if it has none."""
    weak = answer.recording is None or math.isnan(answer.score)
    return -math.inf if weak else answer.score


def gate_for(absent: Iterable[float], rate: float) -> float:
    """The score that an answer must exceed so that at most `rate` of the absent clips' answers do."""
    strongest = sorted(absent, reverse=True)
    if not strongest:
        return -math.inf
    return strongest[min(math.floor(rate * len(strongest)), len(strongest) - 1)]
