"""Copies told from other versions: another recording of the same notes.

Whoever has a sequencer play a score again, with other instruments, is in time with its recording to a
hundredth of a second: chance does not explain how alike the two are, and their E-value, which speaks of
chance alone, is that of a copy. But a copy is as like what is stored as the damage to it has left it, and
damage shows in the clip: noise fills the gaps between partials, rooms and low bit rates blur them, and levels
differ less from band to band. So a match that is less alike than a copy in a clip of such contrast is most
likely another version.

Other music over it makes a copy less alike, too, and does not show in contrast. Where two recordings that
have nothing in common are both heard over the same seconds, each is part of a mixture, and no version.

The line between the two is fitted on copies and versions of the train and tune packages' music
(`python -m benchmarks.calibration.likeness`), so that few copies are taken for versions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fingerprint.fingerprint import decibels
from fingerprint.spectrogram import FRAME_RATE
from index.votes import Passage

if TYPE_CHECKING:
    from index.align import Found
    from index.query_context import Question

RANGE = 50.0  # dB under a frame's loudest band, below which nothing is looked at


@dataclass(frozen=True)
class Likeness:
    """How alike a copy is at least: `least + slope * contrast`, and never more than `most`.

    Attributes
    ----------
    least, most : similarity, the cosine of embeddings along an alignment, on average
    slope : by which that grows with each dB of contrast
    """

    least: float
    slope: float
    most: float

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "Likeness":
        """From what JSON makes of one. Raises KeyError if something is missing."""
        return cls(float(entry["least"]), float(entry["slope"]), float(entry["most"]))

    def at_least(self, contrast: float) -> float:
        """The similarity of a copy, at least, in a clip of that contrast."""
        return min(self.most, self.least + self.slope * contrast)


def mean_similarity(found: "Found", question: "Question") -> float:
    """Mean cosine of the query's embeddings with the stored ones under them, along an alignment."""
    first, last = found.alignment.first, found.alignment.last
    stored = question.snapshot.embeddings(found.recording, first, last + 1)
    steps = np.round([found.query_step(step) for step in range(first, last + 1)]).astype(int)
    beneath = found.view.embeddings[steps.clip(0, len(found.view.embeddings) - 1)]
    return float(np.mean(np.sum(beneath * stored, axis=1)))


def contrast(levels: NDArray[np.uint8]) -> float:
    """How much band levels [shape=(frames, BANDS)], as bytes, differ from band to band, in dB.

    The mean absolute difference of neighbours, nothing of a frame being quieter than RANGE under its loudest
    band; 0 of no frames.
    """
    if not len(levels):
        return 0.0
    heard = decibels(levels)
    heard = np.maximum(heard, heard.max(axis=1, keepdims=True) - RANGE)
    return float(np.mean(np.abs(np.diff(heard, axis=1))))


def contrast_under(found: "Found", question: "Question") -> float:
    """Contrast of what an alignment explains of a query that keeps its levels."""
    levels = question.fingerprint.levels
    assert levels is not None
    start, end = found.query_seconds()
    return contrast(levels[max(0, int(start * FRAME_RATE)) : int(end * FRAME_RATE) + 1])


def is_version(found: "Found", question: "Question", likeness: Likeness | None) -> bool:
    """Whether a match is less alike than a copy is. Of a query without levels that cannot be told."""
    if likeness is None or question.fingerprint.levels is None:
        return False
    at_least = likeness.at_least(contrast_under(found, question))
    return mean_similarity(found, question) < at_least


def are_unlike(one: "Found", other: "Found", question: "Question") -> bool:
    """Whether two recordings of which a query is at the same time are not alike there.

    They are not if their embeddings, on average, are no more similar than music around them is to each.
    An embedding lies up to a quarter of a second off the other recording's, so the nearer of two counts.
    """
    ours = _stored(one, question)
    theirs = _stored(other, question)
    first, last = other.alignment.first, other.alignment.last
    start, end = other.second(first), other.second(last)
    seconds = np.array(
        [one.second(step) for step in range(one.alignment.first, one.alignment.last + 1)]
    )
    both = (seconds >= start) & (seconds <= end)
    if not both.any():
        return False
    at = np.interp(seconds[both], [start, end], [0, last - first])
    above = [
        np.sum(ours.embeddings[both] * theirs.embeddings[steps], axis=1)
        - 0.5 * (ours.crowding[both] + theirs.crowding[steps])
        for steps in (np.floor(at).astype(int), np.ceil(at).astype(int))
    ]
    return float(np.mean(np.maximum(*above))) <= 0


def _stored(found: "Found", question: "Question") -> Passage:
    """What is stored of a recording under an alignment."""
    codec = question.encoder.codec
    codes = question.snapshot.codes(
        found.recording, found.alignment.first, found.alignment.last + 1
    )
    embeddings = codec.decode(codes.lists, codes.codes)
    return Passage(embeddings, codec.crowding(embeddings, codes.lists))
