"""By how much a match's tempo and pitch differ from the recording's, and how exactly that can be said.

The stored embeddings under a match are compared with the query's at the same moments, under a hypothesis of
its tempo, its pitch and its offset. These three are fitted by least squares (Gauss and Newton): the stored
embeddings r are those of the true hypothesis times a likeness s, and noise, so that with D the derivatives
of the query's embeddings e the step is (s D'D)⁻¹ D'(r - s e). Its covariance is that of least squares, σ²
(s² D'D)⁻¹, with σ² = (1 - s²) / d the noise of a component: the shorter, the noisier and the more
monotonous a match, the wider its intervals. Neighbouring embeddings overlap and their noise is not quite
white, so the intervals are widened by factors that hold the truth in 95 of 100 changed clips of the tune
packages (`python -m benchmarks.experiments.changes`).

That nothing was changed is given up only where the evidence is stronger than that, since most copies are
unchanged and a change is a claim: an interval that excludes it by little is drawn out to hold it.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fingerprint.cores import pool
from fingerprint.fingerprint import REFERENCE_EVERY
from fingerprint.hypotheses import Hypothesis
from fingerprint.view import laid

if TYPE_CHECKING:
    from index.align import Found
    from index.query_context import Question

LONGEST = 20.0  # s of a match, around its middle, that are looked at
SIDES = (0.04, 0.03, 0.25)  # offset (s), logarithm of tempo, semitones: where derivatives are taken
FARTHEST = (0.15, 0.05, 0.4)  # what one step may change of each
STEPS = 8
NEAR = 0.3  # standard errors: a step that is shorter is the last
LEAST_ALIKE = 0.2  # likeness below which steps would be too long
# Half-width of a 95 % interval in standard errors of least squares, more of few embeddings (n): WIDTH (1 +
# FEW / n); in quadrature with it, what does not depend on the evidence. `python -m
# benchmarks.experiments.changes --split tune`.
WIDTH, FEW = 2.0, 2.0
TEMPO_FLOOR = 2e-4  # logarithm
PITCH_FLOOR, PITCH_SHARE = 0.08, 0.01  # semitones, and share of the pitch
PITCH_SCALE = 0.98  # semitones for one of the fit, which finds changes of pitch a little too large
# Half-widths by which no change must be excluded before one is said.
CHANGED = 2.0


@dataclass(frozen=True)
class Change:
    """Tempo (reference seconds per query second) and pitch (semitones above the reference) of a match.

    The intervals hold 95 %; `changed` tells whether one of them excludes that nothing was changed.
    """

    tempo: float
    tempo_low: float
    tempo_high: float
    pitch: float
    pitch_low: float
    pitch_high: float

    @property
    def changed(self) -> bool:
        return not (
            self.tempo_low <= 1 <= self.tempo_high and self.pitch_low <= 0 <= self.pitch_high
        )


class Estimate(NamedTuple):
    """The hypothesis under which a match is most like the recording, and half-widths of its intervals."""

    tempo: float
    pitch: float
    tempo_width: float  # of the logarithm
    pitch_width: float  # semitones

    def change(self) -> Change:
        """As it is said: without what may be no change at all."""
        log_tempo = math.log(self.tempo)
        same_tempo = abs(log_tempo) <= CHANGED * self.tempo_width
        same_pitch = abs(self.pitch) <= CHANGED * self.pitch_width
        tempos = [log_tempo - self.tempo_width, log_tempo + self.tempo_width, *([0.0] * same_tempo)]
        pitches = [
            self.pitch - self.pitch_width,
            self.pitch + self.pitch_width,
            *([0.0] * same_pitch),
        ]
        return Change(
            1.0 if same_tempo else self.tempo,
            math.exp(min(tempos)),
            math.exp(max(tempos)),
            0.0 if same_pitch else self.pitch,
            min(pitches),
            max(pitches),
        )


def estimate(found: "Found", question: "Question", steps: int = STEPS) -> Estimate | None:
    """Fit tempo and pitch of a match of a query that keeps its levels; None if nothing can be compared.

    steps : of the fit, at most; 0 leaves tempo and pitch as they are and tells how exact they are
    """
    fit = _Fit.of(found, question)
    pitch = found.view.hypothesis.pitch / PITCH_SCALE
    start = np.array([fit.middle, math.log(found.tempo), pitch])
    fitted, errors = start, np.zeros(3)
    for _ in range(max(1, steps)):
        try:
            step, errors = fit.step(fitted)
        except np.linalg.LinAlgError:  # silence, or one steady tone
            return None
        if steps:
            farthest = float(np.max(np.abs(step) / FARTHEST))
            fitted = fitted + step / max(1.0, farthest)
        if np.all(np.abs(step) <= NEAR * errors):
            break
    pitch = PITCH_SCALE * float(fitted[2])
    wide = WIDTH * (1 + FEW / len(fit.reference))
    return Estimate(
        math.exp(fitted[1]),
        pitch,
        math.hypot(wide * errors[1], TEMPO_FLOOR),
        math.hypot(wide * errors[2], PITCH_FLOOR, PITCH_SHARE * pitch),
    )


@dataclass(frozen=True)
class _Fit:
    """Least squares of offset (s of the query at the middle), logarithm of tempo, and semitones.

    reference : stored embeddings [shape=(n, dimension)]
    middle : second of the query that their middle lies over, as aligned
    length : s of the reference from the first to the last of them
    """

    question: "Question"
    reference: NDArray[np.float32]
    middle: float
    length: float

    @classmethod
    def of(cls, found: "Found", question: "Question") -> "_Fit":
        steps = np.arange(found.alignment.first, found.alignment.last + 1)
        times = np.array([found.second(float(step)) for step in steps])
        near = np.abs(times - times.mean()) <= LONGEST / 2
        steps, times = steps[near], times[near]
        stored = question.snapshot.embeddings(found.recording, int(steps[0]), int(steps[-1]) + 1)
        length = (len(steps) - 1) * REFERENCE_EVERY * question.encoder.step
        return cls(question, stored, float(times.mean()), length)

    def step(self, at: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The step of Gauss and Newton and the standard errors there [shape=(3,) each].

        Raises LinAlgError if the embeddings do not depend on one of the three.
        """
        sides = np.diag(SIDES)
        here, *beside = pool().map(self._laid, [at, *(at + sides), *(at - sides)])
        slopes = np.stack([beside[k] - beside[k + 3] for k in range(3)]).astype(float)
        slopes = slopes.reshape(3, -1) / (2 * np.array(SIDES)[:, None])
        likeness = float(np.mean(np.sum(here * self.reference, axis=1)))
        likeness = min(max(LEAST_ALIKE, likeness), 1.0)
        inverse = np.linalg.inv(slopes @ slopes.T)
        if not np.isfinite(inverse).all() or np.any(np.diag(inverse) <= 0):
            raise np.linalg.LinAlgError("nothing depends on tempo or pitch")
        noise = (1 - likeness**2) / (likeness**2 * self.reference.shape[1])
        step = inverse @ (slopes @ self.reference.ravel()) / likeness
        return step, np.sqrt(noise * np.diag(inverse))

    def _laid(self, at: NDArray[np.float64]) -> NDArray[np.float32]:
        """The query's embeddings over the stored ones."""
        hypothesis = Hypothesis(math.exp(at[1]), float(at[2]))
        first = float(at[0]) - 0.5 * self.length / hypothesis.tempo
        fingerprint, encoder = self.question.fingerprint, self.question.encoder
        return laid(hypothesis, fingerprint, encoder, first, len(self.reference))
