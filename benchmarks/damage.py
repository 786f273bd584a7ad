"""What happens to copies of music, drawn at random, on single 8 kHz clips, without torch.

The damage that is calibrated on: the kinds and ranges are those of the milder copies of training
(`fingerprint.training.augment`).
Everything is a function of a `numpy.random.Generator`, so that a batch can be made again. Levels are in
dB, times in seconds. Rooms are those of the corpus or exponentially decaying noise; background is the
corpus's ambience, speech and other music, or shaped noise.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fingerprint.audio import SAMPLE_RATE

Signal = NDArray[np.float32]


@dataclass(frozen=True)
class Background:
    """Where other sound comes from: each draws n samples (float32) of its kind."""

    music: Callable[[Generator, int], Signal]
    ambience: Callable[[Generator, int], Signal]
    speech: Callable[[Generator, int], Signal]
    rooms: list[Signal]  # impulse responses at 8 kHz, each starting at its direct sound


def _shaped_noise(rng: Generator, n: int) -> Signal:
    """Noise whose power falls by 0 to 6 dB an octave: white, pink (3) to brown (6)."""
    spectrum = np.fft.rfft(rng.standard_normal(n).astype(np.float32))
    frequency = np.maximum(np.arange(len(spectrum)), 1.0)
    spectrum *= frequency ** (-rng.uniform(0, 1))
    return np.fft.irfft(spectrum, n).astype(np.float32)


def _babble(rng: Generator, n: int, speech: Callable[[Generator, int], Signal]) -> Signal:
    """One to eight voices at once."""
    return np.sum([speech(rng, n) for _ in range(rng.integers(1, 9))], axis=0, dtype=np.float32)


def _room(rng: Generator, rooms: list[Signal]) -> Signal:
    """An impulse response: a real one, or early reflections and a decaying tail of noise."""
    if rooms and rng.random() < 0.25:
        return rooms[rng.integers(len(rooms))]
    decay = 10 ** rng.uniform(np.log10(0.08), np.log10(1.2))  # reverberation time
    n = int(min(decay, 1.0) * SAMPLE_RATE)
    t = np.arange(n) / SAMPLE_RATE
    tail = rng.standard_normal(n) * 10 ** (-3 * t / decay)
    tail[: int(rng.uniform(0.002, 0.02) * SAMPLE_RATE)] = 0
    response = tail / (np.sqrt(np.sum(tail**2)) + 1e-9)
    response[0] = 10 ** (rng.uniform(-10, 10) / 20)  # direct to reverberant
    for _ in range(rng.integers(0, 6)):
        response[rng.integers(1, max(2, min(n, 400)))] += rng.uniform(-0.5, 0.5) * response[0]
    return response.astype(np.float32)


def _equaliser(rng: Generator, bins: int) -> NDArray[np.float32]:
    """A tilt and a few bumps, then with luck the pass band of a small loudspeaker or a telephone."""
    frequency = np.linspace(0, SAMPLE_RATE / 2, bins)
    octave = np.log2(np.maximum(frequency, 30.0) / 1000)
    gain = rng.uniform(-4, 4) * octave
    for _ in range(rng.integers(0, 4)):
        gain += rng.uniform(-9, 9) * np.exp(
            -0.5 * ((octave - rng.uniform(-3, 2)) / rng.uniform(0.2, 1)) ** 2
        )
    if rng.random() < 0.35:
        gain += np.minimum(0, rng.uniform(6, 24) * (octave - np.log2(rng.uniform(0.1, 0.6))))
    if rng.random() < 0.35:
        gain -= np.maximum(0, rng.uniform(6, 48) * (octave - np.log2(rng.uniform(1.5, 3.6))))
    return (10 ** (np.maximum(gain, -60) / 20)).astype(np.float32)


def _level(x: Signal) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) + 1e-6


def _automatic_gain(rng: Generator, x: Signal) -> Signal:
    """Slow levelling or fast compression: gain follows the smoothed envelope with a ratio."""
    step = 80  # samples of 10 ms
    frames = len(x) // step
    envelope = np.sqrt(np.mean(x[: frames * step].reshape(frames, step) ** 2, axis=1)) + 1e-4
    width = int(rng.integers(1, 60))
    kernel = np.exp(-np.arange(4 * width) / width)
    smooth = np.convolve(envelope, kernel / kernel.sum())[:frames]
    gain = (smooth / smooth.mean()) ** (-rng.uniform(0.3, 0.9))
    at = np.arange(len(x)) / step
    return (x * np.interp(at, np.arange(frames) + 0.5, gain)).astype(np.float32)


def _fft_length(n: int) -> int:
    return 1 << (n - 1).bit_length()


def degrade(rng: Generator, x: Signal, background: Background) -> Signal:
    """A copy of segment x [shape=(n,)] as a microphone, a codec or an editor may have left it."""
    n = len(x)
    x = x / _level(x)
    room = _room(rng, background.rooms) if rng.random() < 0.5 else None
    size = _fft_length(n + (len(room) if room is not None else 0))
    spectrum = np.fft.rfft(x, size)
    if room is not None:
        spectrum = spectrum * np.fft.rfft(room, size)
    if rng.random() < 0.6:
        spectrum = spectrum * _equaliser(rng, len(spectrum))
    x = np.fft.irfft(spectrum, size)[:n].astype(np.float32)
    x /= _level(x)
    if rng.random() < 0.85:
        kind = rng.choice(5, p=[0.3, 0.2, 0.2, 0.15, 0.15])
        if kind == 0:
            other = _shaped_noise(rng, n)
        elif kind == 1:
            other = background.ambience(rng, n)
        elif kind == 2:
            other = _babble(rng, n, background.speech)
        elif kind == 3:
            other = background.speech(rng, n)
        else:
            other = background.music(rng, n)
        ratio = rng.uniform(-8, 15) if kind != 4 else rng.uniform(-3, 15)
        x = x + other * np.float32(10 ** (-ratio / 20) / _level(other))
        if rng.random() < 0.2:
            hiss = _shaped_noise(rng, n)
            x = x + hiss * np.float32(10 ** (-rng.uniform(0, 25) / 20) / _level(hiss))
    if rng.random() < 0.25:
        x = _automatic_gain(rng, x)
    if rng.random() < 0.15:
        ceiling = np.float32(np.quantile(np.abs(x[::7]), rng.uniform(0.7, 0.99)) + 1e-6)
        x = np.clip(x, -ceiling, ceiling)
    if rng.random() < 0.25:  # the microphone's or telephone's own response, noise included
        spectrum = np.fft.rfft(x, _fft_length(n))
        x = np.fft.irfft(spectrum * _equaliser(rng, len(spectrum)))[:n].astype(np.float32)
    return np.ascontiguousarray(x * np.float32(0.1 / _level(x)))
