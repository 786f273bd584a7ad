"""What speaks for one match, weighed again by itself: the query's excerpt, the stored codes, the line.

An answer says where a recording lies in a query. Here that one statement is put to the test without a
search: the excerpt is looked at under the tempo and pitch stated, laid on the codes at the offset stated,
and aligned. What comes out depends on nothing but the excerpt, the codes, the encoder and the sizes named.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fingerprint.encoder import Encoder
from fingerprint.fingerprint import REFERENCE_EVERY, Fingerprint
from fingerprint.hypotheses import LADDER, UNALTERED, Hypothesis
from fingerprint.spectrogram import FRAME_RATE
from fingerprint.view import unaltered, under
from index.align import MOST_BEND, align_near
from index.query_context import Question
from index.segment import Codes
from index.significance import Calibration
from index.snapshot import Snapshot
from index.versions import contrast_under, mean_similarity

MARGIN = 3.0  # s kept at either side of a match


@dataclass(frozen=True)
class Statement:
    """That query seconds start to end are a recording's, in seconds of what the evidence holds of both."""

    query_start: float
    query_end: float
    reference_start: float
    reference_end: float
    tempo: float
    pitch_semitones: float


@dataclass(frozen=True)
class Weighed:
    """What a statement is worth.

    Attributes
    ----------
    score, e_value : of the alignment; 0 and inf if there is none
    likeness, contrast : by which a copy is told from another version (`index.versions`); None if there is no
        alignment, or the excerpt keeps no levels
    similarity : of the excerpt's embeddings with the stored ones [shape=(query steps, reference steps)]
    query_times, reference_times : seconds of these steps' centres
    line : (query seconds, reference seconds) of the aligned line's two ends; None if there is none
    """

    score: float
    e_value: float
    likeness: float | None
    contrast: float | None
    similarity: NDArray[np.float32]
    query_times: NDArray[np.floating]
    reference_times: NDArray[np.floating]
    line: tuple[tuple[float, float], tuple[float, float]] | None


def excerpt(made: Fingerprint, start: float, end: float) -> tuple[Fingerprint, float]:
    """The part of a query's fingerprint around start to end, and the second of the query it begins at."""
    first = max(0, int((start - MARGIN) * FRAME_RATE))
    last = int((end + MARGIN) * FRAME_RATE) + 1
    begins = first / FRAME_RATE
    every = made.step * FRAME_RATE  # frames an embedding
    low = max(0, round(first / every))
    high = round(last / every) + 1
    return (
        replace(
            made,
            duration=max(0.0, min(made.duration, last / FRAME_RATE) - begins),
            start=made.start + low * made.step - begins,
            embeddings=made.embeddings[low:high],
            levels=None if made.levels is None else made.levels[first:last],
        ),
        begins,
    )


def weigh(
    part: Fingerprint,
    codes: Codes,
    said: Statement,
    encoder: Encoder,
    calibration: Calibration,
    *,
    query_embeddings: int,
    library_embeddings: int,
) -> Weighed:
    """Weigh a statement about an excerpt and codes.

    calibration : that of the search
    query_embeddings, library_embeddings : sizes of the whole query and library that were searched

    Raises ValueError for an altered excerpt that keeps no levels.
    """
    question = Question(part, Snapshot.of([codes], encoder.codec), encoder, query_embeddings)
    as_it_is = said.pitch_semitones == 0 and abs(said.tempo - 1) <= MOST_BEND
    hypothesis = UNALTERED if as_it_is else Hypothesis(said.tempo, said.pitch_semitones)
    view = unaltered(part, encoder) if as_it_is else under(hypothesis, part, encoder)
    step = encoder.step * REFERENCE_EVERY
    middle = (said.query_start + said.query_end) / 2
    reference = (said.reference_start + said.reference_end) / 2
    offset = REFERENCE_EVERY * (reference - part.reach) / step - (middle - view.start) / view.step
    best = next(align_near(question, view, 0, round(offset)), None)
    stored = question.snapshot.embeddings(0, 0, len(codes))
    query_times = view.start + view.step * np.arange(len(view.embeddings))
    reference_times = part.reach + step * np.arange(len(codes))
    similarity = view.embeddings @ stored.T
    if best is None:
        return Weighed(0.0, np.inf, None, None, similarity, query_times, reference_times, None)
    hypotheses = 1 if as_it_is else 1 + len(LADDER)
    e_value = calibration.e_value(best.score, query_embeddings, library_embeddings, hypotheses)
    ends = tuple(
        (view.at(best.query_step(at)), part.reach + step * at)
        for at in (best.alignment.first, best.alignment.last)
    )
    keeps_levels = part.levels is not None
    return Weighed(
        best.score,
        e_value,
        mean_similarity(best, question) if keeps_levels else None,
        contrast_under(best, question) if keeps_levels else None,
        similarity,
        query_times,
        reference_times,
        (ends[0], ends[1]),
    )
