"""Tempo and pitch of a match, finer than the rungs of the ladder.

The aligned embeddings are most like the reference's under the true hypothesis. A parabola through their
likeness at the tempo assumed and at one on either side finds the tempo, another one the pitch; the query is
aligned anew under these, so that the score too is that of the undone alteration, and the next round starts
from there. Of a long alignment the slope of its line tells the tempo more exactly still.
"""

from dataclasses import replace

import numpy as np

from fingerprint.cores import pool
from fingerprint.fingerprint import REFERENCE_EVERY
from fingerprint.hypotheses import UNALTERED, Hypothesis
from index.align import Found, align_near
from index.query_context import Question

# Semitones, and share of the tempo, at each side of what is assumed, round by round. Nearer values differ by
# less than the noise of their likeness, farther ones are no parabola.
ROUNDS = ((0.35, 0.06), (0.3, 0.06), (0.3, 0.06))
LOOKS = 1 + 5 * len(ROUNDS)  # hypotheses that an alignment is the best of, once refined
FINE_PITCH = 0.05  # semitones, and…
FINE_TEMPO = 0.005  # …share of the tempo, that a short alignment does not tell apart
NEARLY = 0.8  # share of its score that an alignment may lose by being refined
SHORT = 8.0  # s of an alignment the slope of whose line is noise
LONGEST = 20.0  # s of the query that are looked at for it…
MARGIN = 2.0  # …and at each side of them, for the surroundings of the spectrogram
AROUND = 120.0  # s at each side of an alignment to which a refined one may grow


def refined(found: Found, question: Question) -> Found:
    """The same match under the hypothesis that explains it best, extended to its surroundings.

    It is the one given if under no other it scores nearly as much.
    """
    best = found
    for pitch_reach, tempo_reach in ROUNDS:
        before = Hypothesis(best.tempo, best.view.hypothesis.pitch)
        final = _peak(best, pitch_reach, tempo_reach, question)
        again = None if _alike(before, final) else _realigned(best, final, LONGEST, question)
        if again is None or again.alignment.score < NEARLY * found.alignment.score:
            break
        best = _straight(again)
    if _alike(final, UNALTERED):
        final = UNALTERED
    if best is found and final == found.view.hypothesis:
        return _straight(found)
    grown = _realigned(best, final, AROUND, question)
    if grown is None or grown.alignment.score < NEARLY * found.alignment.score:
        return found
    return _straight(grown)


def _alike(one: Hypothesis, other: Hypothesis) -> bool:
    """Whether a short alignment does not tell two hypotheses apart."""
    return (
        abs(one.pitch - other.pitch) < FINE_PITCH and abs(one.tempo / other.tempo - 1) < FINE_TEMPO
    )


def _straight(found: Found) -> Found:
    """A short alignment without the slope of its line, which noise makes rather than the tempo."""
    start, end = found.query_seconds()
    if end - start >= SHORT:
        return found
    return replace(found, alignment=found.alignment._replace(creep=0.0))


def _peak(found: Found, pitch_reach: float, tempo_reach: float, question: Question) -> Hypothesis:
    """The hypothesis near that of an alignment under which it is most like the reference."""
    tempo, pitch = found.tempo, found.view.hypothesis.pitch
    here, lower, higher, slower, faster = pool().map(
        lambda hypothesis: _likeness(found, hypothesis, question),
        (
            Hypothesis(tempo, pitch),
            Hypothesis(tempo, pitch - pitch_reach),
            Hypothesis(tempo, pitch + pitch_reach),
            Hypothesis(tempo * (1 - tempo_reach), pitch),
            Hypothesis(tempo * (1 + tempo_reach), pitch),
        ),
    )
    return Hypothesis(
        tempo * (1 + tempo_reach * _vertex(slower, here, faster)),
        pitch + pitch_reach * _vertex(lower, here, higher),
    )


def _vertex(left: float, here: float, right: float) -> float:
    """Where a parabola through values at -1, 0 and 1 is highest, at most 1 away."""
    curvature = left - 2 * here + right
    if curvature >= 0:
        return float(np.sign(right - left))
    return float(np.clip(0.5 * (left - right) / curvature, -1, 1))


def _likeness(found: Found, hypothesis: Hypothesis, question: Question) -> float:
    """Mean similarity of the aligned embeddings to the reference, under a hypothesis.

    Another tempo than the alignment's turns its line about its middle.
    """
    steps = np.arange(found.alignment.first, found.alignment.last + 1)
    times = np.array([found.view.at(found.query_step(float(step))) for step in steps])
    near = np.abs(times - times.mean()) <= LONGEST / 2
    steps, times = steps[near], times[near]
    times = times.mean() + (times - times.mean()) * found.tempo / hypothesis.tempo
    view = question.view(hypothesis, times[0] - MARGIN, times[-1] + MARGIN)
    at = np.round((times - view.start) / view.step).astype(int)
    inside = (at >= 0) & (at < len(view.embeddings))
    steps, at = steps[inside], at[inside]
    if not len(steps):
        return -1.0
    reference = question.snapshot.embeddings(found.recording, int(steps[0]), int(steps[-1]) + 1)
    return float(np.mean(np.sum(view.embeddings[at] * reference[steps - steps[0]], axis=1)))


def _realigned(
    found: Found, hypothesis: Hypothesis, more: float, question: Question
) -> Found | None:
    """The alignment near a known one, under another hypothesis, of the query around it."""
    start, end = found.query_seconds()
    view = question.view(hypothesis, start - more, end + more)
    middle = (found.alignment.first + found.alignment.last) / 2
    step = (found.view.at(found.query_step(middle)) - view.start) / view.step
    offset = round(REFERENCE_EVERY * middle - step)
    again = next(align_near(question, view, found.recording, offset), None)
    return None if again is None else replace(again, hypotheses=found.hypotheses)
