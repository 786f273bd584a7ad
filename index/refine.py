"""A match under the tempo and the pitch that explain it best, and with their intervals.

The ladder's rungs are coarse, and the unaltered query may be a little off. Tempo and pitch are fitted
(`index.change`), and the query is aligned anew under these, so that the score too is that of the undone
alteration.
"""

import math
from dataclasses import replace

from fingerprint.fingerprint import REFERENCE_EVERY
from fingerprint.hypotheses import Hypothesis
from index.align import Found, align_near
from index.change import LONGEST, estimate
from index.query_context import Question

LOOKS = 16  # hypotheses that an alignment is the best of, once refined: a fit's few steps, and their sides
NEARLY = 0.8  # share of its score that an alignment may lose by being refined
AROUND = 120.0  # s at each side of an alignment to which a refined one may grow
FAR = (0.25, 1.5)  # logarithm of tempo, semitones: a fit that went farther found something else


def refined(found: Found, question: Question) -> Found:
    """The same match under the hypothesis that explains it best, extended to its surroundings.

    Of a short one the tempo is that which was fitted: the slope of its line is noise. It is the one given if
    under the hypothesis fitted it scores much less.
    """
    fitted = estimate(found, question)
    before = found.view.hypothesis
    if (
        fitted is None
        or abs(math.log(fitted.tempo / found.tempo)) > FAR[0]
        or abs(fitted.pitch - before.pitch) > FAR[1]
    ):
        return told(found, question)
    change = fitted.change()
    final = Hypothesis(change.tempo, change.pitch)
    again = found if final == before else _realigned(found, final, AROUND, question)
    if again is None or again.alignment.score < NEARLY * found.alignment.score:
        return told(found, question)
    return replace(_straight(again), change=change)


def told(found: Found, question: Question) -> Found:
    """The match as it is, with the intervals of its tempo and pitch; without, if the query keeps no
    levels."""
    if found.change is not None or question.fingerprint.levels is None:
        return found
    fitted = estimate(found, question, steps=0)
    return found if fitted is None else replace(found, change=fitted.change())


def _straight(found: Found) -> Found:
    """An alignment without the slope of its line, unless it is longer than what tempo was fitted on."""
    start, end = found.query_seconds()
    if end - start > LONGEST:
        return found
    return replace(found, alignment=found.alignment._replace(creep=0.0))


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
