"""Other places of a recording with the audio of a match.

Much music repeats itself exactly. Which turn of a loop a clip was cut from cannot be known, so the others
are named beside the one that happens to score most. The clip itself decides: a place at which it is as like
the recording as where the match is, but for a share that damage and codes make, holds the same audio as far
as the clip can tell. Verses over one accompaniment are farther off (`python -m
benchmarks.experiments.repeats`).
"""

import numpy as np
from numpy.typing import NDArray

from fingerprint.fingerprint import REFERENCE_EVERY
from index.align import Found
from index.query_context import Question

ALIKE = 0.85  # share of the likeness above the crowding at the match's own place that another one must have
APART = 1.0  # s between two places: nearer ones are one
MOST = 50  # places named


def repeats(found: Found, first: float, last: float, question: Question) -> list[float]:
    """By how many seconds of the recording other places lie after a stretch of reference steps, in order."""
    length = question.snapshot.length(found.recording)
    steps = np.arange(max(0, int(np.ceil(first))), min(length - 1, int(last)) + 1)
    if not len(steps):
        return []
    codes = question.snapshot.codes(found.recording, 0, length)
    reference = found.view.codec.decode(codes.lists, codes.codes)
    crowding = found.view.codec.crowding(reference, codes.lists)
    at = np.rint([found.query_step(float(step)) for step in steps]).astype(int)
    # a place may begin between two steps of the recording: then other embeddings of the query lie on them
    shifts = np.arange(-(REFERENCE_EVERY // 2), REFERENCE_EVERY // 2 + 1)
    likeness = np.stack(
        [_along(found, at + shift, reference, crowding) for shift in shifts], axis=1
    )
    own = likeness[steps[0], len(shifts) // 2]
    places = (np.arange(len(likeness))[:, None] - shifts / REFERENCE_EVERY).ravel()
    seconds = question.fingerprint.step * REFERENCE_EVERY * (places - steps[0])
    chosen: list[float] = [0.0]
    flat = likeness.ravel()
    for place in np.argsort(-flat, kind="stable"):
        if own <= 0 or flat[place] < ALIKE * own or len(chosen) > MOST:
            break
        if all(abs(seconds[place] - other) >= APART for other in chosen):
            chosen.append(float(seconds[place]))
    return sorted(chosen[1:])


def _along(
    found: Found,
    at: NDArray[np.int64],
    reference: NDArray[np.float32],
    crowding: NDArray[np.float32],
) -> NDArray[np.float64]:
    """Mean similarity above the crowding of query steps with as many of the reference, by the first of
    these."""
    held = (at >= 0) & (at < len(found.view.embeddings))
    at = at.clip(0, len(found.view.embeddings) - 1)
    pairs = found.view.embeddings[at] @ reference.T
    pairs -= 0.5 * (found.view.crowding[at][:, None] + crowding)
    pairs[~held] = 0.0
    starts = len(reference) - len(at) + 1
    total = np.zeros(max(0, starts))
    for i in range(len(at)):
        total += pairs[i, i : i + starts]
    return total / max(1, int(np.count_nonzero(held)))
