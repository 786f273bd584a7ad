"""Kernels are compiled, or loaded from their cache, before the first question and not by it."""

import io
import wave

import numpy as np

from fingerprint.audio import SAMPLE_RATE
from fingerprint.encoder import Encoder
from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY, fingerprint
from index.library import Library

_RUNGS = 2  # of the ladder: all of them run the same kernels


def warm(encoder: Encoder, library: Library | None = None) -> None:
    """Run every kernel of a fingerprint, and of a search if there is a library, on two seconds of noise."""
    noise = np.random.default_rng(0).normal(0, 3000, 2 * SAMPLE_RATE)
    clip = io.BytesIO()
    with wave.open(clip, "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes(noise.astype("<i2").tobytes())
    for every in (REFERENCE_EVERY, QUERY_EVERY):
        clip.seek(0)
        made = fingerprint(clip, encoder, every, name="noise")
    if library is not None:
        library.search(made, hypotheses=_RUNGS)
