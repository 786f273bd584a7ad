"""Stored recordings as queries: no audio is kept, but codes are much like the embeddings they stand for."""

import numpy as np
from numpy.typing import NDArray

from fingerprint.encoder import Encoder
from fingerprint.fingerprint import PADDING, QUERY_EVERY, REFERENCE_EVERY, Fingerprint
from fingerprint.spectrogram import FRAME_RATE


def as_query(stored: NDArray[np.float32], encoder: Encoder) -> Fingerprint:
    """A fingerprint of stored embeddings [shape=(n, dimension)], filled up to the query's step.

    What is between two of them is interpolated. It keeps no levels, so nothing is tried on it.
    """
    step = QUERY_EVERY * encoder.step
    return Fingerprint(
        encoder=encoder.id,
        source="",
        sha256="",
        duration=len(stored) * REFERENCE_EVERY * step,
        every=QUERY_EVERY,
        start=0.0,
        step=step,
        reach=0.0,
        embeddings=_filled(stored),
    )


def seconds_of(query_embeddings: float, encoder: Encoder) -> float:
    """How long a clip is that has so many embeddings."""
    windows = encoder.window / FRAME_RATE + (query_embeddings - 1) * QUERY_EVERY * encoder.step
    return windows - 2 * PADDING / FRAME_RATE


def _filled(stored: NDArray[np.float32]) -> NDArray[np.float32]:
    """Embeddings at the query's step, by interpolation between those at the reference's; silence stays it."""
    at = np.arange((len(stored) - 1) * REFERENCE_EVERY + 1) / REFERENCE_EVERY
    before = np.minimum(at.astype(int), max(0, len(stored) - 2))
    part = (at - before)[:, None]
    mixed = (1 - part) * stored[before] + part * stored[np.minimum(before + 1, len(stored) - 1)]
    length = np.linalg.norm(mixed, axis=1, keepdims=True)
    return (mixed / np.where(length > 0, length, 1)).astype(np.float32)
