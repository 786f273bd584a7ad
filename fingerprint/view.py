"""A query as it looks under one hypothesis: embeddings on the recording's time scale, and when they are.

Embedding i of a view looks at `window` frames of the restored spectrogram. Frame t of that is the query's
frame t / tempo, so the view's embeddings lie 0.1 / tempo seconds of the query apart.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fingerprint.audio import SAMPLE_RATE
from fingerprint.codec import Codec
from fingerprint.encoder import Encoder
from fingerprint.fingerprint import (
    PADDING,
    QUERY_EVERY,
    REFERENCE_EVERY,
    Fingerprint,
    decibels,
    padded,
)
from fingerprint.hypotheses import UNALTERED, Hypothesis, restore
from fingerprint.spectrogram import BANDS, CONTEXT, FFT, FRAME_RATE


@dataclass(frozen=True)
class View:
    """A query, or a part of it, under a hypothesis; times in seconds of the query.

    Attributes
    ----------
    hypothesis : Hypothesis
    embeddings : [shape=(n, dimension)]
    start : centre of the first embedding's window
    step : from one embedding to the next
    reach : from the centre of a window to its ends
    codec : that of the encoder
    """

    hypothesis: Hypothesis
    embeddings: NDArray[np.float32]
    start: float
    step: float
    reach: float
    codec: Codec

    @cached_property
    def crowding(self) -> NDArray[np.float32]:
        """How crowded music at large is around each embedding [shape=(n,)], see `Codec.crowding`."""
        return self.codec.crowding(self.embeddings)

    def at(self, step: float) -> float:
        """Centre of the window of an embedding, also between two."""
        return self.start + step * self.step


def unaltered(fingerprint: Fingerprint, encoder: Encoder) -> View:
    """The query as it is."""
    return View(
        UNALTERED,
        fingerprint.embeddings,
        fingerprint.start,
        fingerprint.step,
        fingerprint.reach,
        encoder.codec,
    )


def under(
    hypothesis: Hypothesis,
    fingerprint: Fingerprint,
    encoder: Encoder,
    *,
    first: int = 0,
    end: int | None = None,
    every: int = QUERY_EVERY,
) -> View:
    """Frames first to end of a query's levels under a hypothesis, embedded every `every` steps.

    Raises ValueError if the fingerprint keeps no levels.
    """
    if fingerprint.levels is None:
        raise ValueError(f"{fingerprint.source}: this fingerprint keeps no levels")
    restored = restore(decibels(fingerprint.levels[first:end]), hypothesis)
    least = encoder.window + (REFERENCE_EVERY - 1) * encoder.hop
    embeddings = encoder.embed(np.concatenate(list(padded([restored], least))), every)
    middle = (encoder.window - 1) / 2 - PADDING
    return View(
        hypothesis,
        embeddings,
        (first + middle / hypothesis.tempo) / FRAME_RATE + FFT / 2 / SAMPLE_RATE,
        encoder.step * every / hypothesis.tempo,
        (encoder.window - 1) / 2 / FRAME_RATE / hypothesis.tempo + FFT / 2 / SAMPLE_RATE,
        encoder.codec,
    )


def laid(
    hypothesis: Hypothesis, fingerprint: Fingerprint, encoder: Encoder, first: float, count: int
) -> NDArray[np.float32]:
    """Embeddings [shape=(count, dimension)] of a query under a hypothesis, at a reference's step.

    first : second of the query at the centre of the first one's window; windows lie exactly there, also
        between two frames. What is beyond the query's ends is unknown.

    Raises ValueError if the fingerprint keeps no levels.
    """
    if fingerprint.levels is None:
        raise ValueError(f"{fingerprint.source}: this fingerprint keeps no levels")
    tempo = hypothesis.tempo
    picture = np.zeros(
        (REFERENCE_EVERY * encoder.hop * (count - 1) + encoder.window, BANDS), np.float32
    )
    # frame of the query that the picture's first one shows
    begin = (first - FFT / 2 / SAMPLE_RATE) * FRAME_RATE - (encoder.window - 1) / 2 / tempo
    low = max(-CONTEXT, math.ceil(-begin * tempo - 1e-9))
    end = len(picture) + CONTEXT
    start = begin + low / tempo
    whole = max(0, int(start))
    last = max(whole, int(begin + end / tempo) + 2)
    restored = restore(decibels(fingerprint.levels[whole:last]), hypothesis, start - whole)
    inside = restored[max(0, -low) :][: len(picture) - max(0, low)]
    picture[max(0, low) :][: len(inside)] = inside
    return encoder.embed(picture, REFERENCE_EVERY)
