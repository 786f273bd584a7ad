"""Small music for the tests: made here, the same on every machine, different for every seed."""

from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from benchmarks.demo import instruments

RATE = 16000  # Hz
SONGS = 4  # in the library that the tests start from
CLIP_START = 7.3  # s into song-1


def melody(seed: int, seconds: float = 20.0) -> NDArray[np.float32]:
    """A tune of plucked notes over a second, lower voice and bursts of noise [shape=(n,)]."""
    rng = np.random.default_rng(seed)
    n = round(seconds * RATE)
    samples = np.zeros(n + RATE)
    for lowest, pace in ((45, 0.55), (57, 0.21)):  # MIDI note, seconds a note
        start = 0.0
        while start < seconds:
            length = pace * rng.choice([0.5, 1.0, 1.5])
            note = _note(rng, 440 * 2 ** ((lowest + rng.integers(24) - 69) / 12), 1.5 * length)
            at = round(start * RATE)
            samples[at : at + len(note)] += note[: len(samples) - at]
            start += length
    samples = samples[:n] * (1 + 0.3 * np.interp(*_slow_noise(rng, n)))
    return (0.5 * samples / np.abs(samples).max()).astype(np.float32)


def played(instrument: instruments.Instrument, seconds: int = 30) -> NDArray[np.float32]:
    """Two voices on an instrument [shape=(n,)]: the same notes at the same times, whatever it is."""
    notes, touch = np.random.default_rng(3), np.random.default_rng(1)
    samples = np.zeros((seconds + 8) * instruments.RATE, np.float32)
    start = 0.0
    while start < seconds:
        length = notes.choice([0.25, 0.5, 0.75])
        for lowest in (48, 60):
            note = instrument(lowest + int(notes.integers(20)), length, touch)
            at = round(start * instruments.RATE)
            samples[at : at + len(note)] += note[: len(samples) - at]
        start += length
    samples = soxr.resample(samples[: seconds * instruments.RATE], instruments.RATE, RATE)
    return (0.3 * samples / np.abs(samples).max()).astype(np.float32)


def _note(rng: np.random.Generator, pitch: float, seconds: float) -> NDArray[np.float64]:
    t = np.arange(round(seconds * RATE)) / RATE
    harmonics = np.arange(1, 9)
    loudness = rng.uniform(0.2, 1, 8) / harmonics
    tone = loudness @ np.sin(2 * np.pi * pitch * harmonics[:, None] * t)
    return tone * np.exp(-3 * t) + 0.5 * rng.standard_normal(len(t)) * np.exp(-40 * t)


def _slow_noise(
    rng: np.random.Generator, n: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    knots = n // 2000 + 2
    return np.arange(n) / 2000, np.arange(knots, dtype=float), rng.uniform(-1, 1, knots)


def write(path: Path, samples: NDArray[np.float32], **options: str) -> Path:
    """Write samples as a sound file, of the format that the name says."""
    soundfile.write(path, samples, RATE, **options)
    return path
