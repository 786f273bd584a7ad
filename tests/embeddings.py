"""Fingerprints without sound, for tests of what comes after them."""

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fingerprint.encoder import Encoder
from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY, Fingerprint

REACH = 0.589  # s, half the window of an embedding


@lru_cache(maxsize=64)
def track(encoder: Encoder, seed: int, seconds: float) -> NDArray[np.float32]:
    """Embeddings every 0.1 s of music that never was: like an encoder's, neighbours are alike."""
    rng = np.random.default_rng(seed)
    scale = np.linalg.cholesky(
        encoder.background_covariance.astype(float) + 1e-6 * np.eye(encoder.dimension)
    )
    n = int((seconds - 2 * REACH) / 0.1) + 1
    independent = rng.standard_normal((n + 12, encoder.dimension)) @ scale.T
    kernel = np.hanning(9)
    smooth = np.stack(
        [np.convolve(c, kernel / np.linalg.norm(kernel), "valid") for c in independent.T], 1
    )
    x = smooth[:n] + encoder.background_mean
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def reference(encoder: Encoder, x: NDArray[np.float32], name: str = "tune.flac") -> Fingerprint:
    """What ingest would make of a track."""
    return _made(
        encoder, x[::REFERENCE_EVERY], REFERENCE_EVERY, (len(x) - 1) * 0.1 + 2 * REACH, name
    )


def query(encoder: Encoder, x: NDArray[np.float32], name: str = "clip.wav") -> Fingerprint:
    """What a query makes of consecutive embeddings of a track."""
    return _made(encoder, x, QUERY_EVERY, (len(x) - 1) * 0.1 + 2 * REACH, name)


def noisy(x: NDArray[np.float32], seed: int, amount: float) -> NDArray[np.float32]:
    """Embeddings turned away at random; amount 1 leaves a likeness of about 0.7."""
    rng = np.random.default_rng([seed, 1])  # not those that a track of that seed is made of
    y = x + amount * rng.standard_normal(x.shape) / np.sqrt(x.shape[1])
    return (y / np.linalg.norm(y, axis=1, keepdims=True)).astype(np.float32)


def _made(
    encoder: Encoder, x: NDArray[np.float32], every: int, duration: float, name: str
) -> Fingerprint:
    return Fingerprint(
        encoder=encoder.id,
        source=name,
        sha256=hashlib.sha256(x.tobytes()).hexdigest(),
        duration=duration,
        every=every,
        start=REACH,
        step=0.1 * every,
        reach=REACH,
        embeddings=np.ascontiguousarray(x),
    )
