"""Instruments for the works that the project composes: from a pitch and a length to sound.

A note is float32 [shape=(n,)] at `RATE`, loudest about 1, and may ring on after it is released. Pitches
are MIDI note numbers (69 is A at 440 Hz), times are seconds. What is left to chance (a bow, a finger, a
brush) is drawn from the generator that the player is given, so that no two notes are quite the same.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, sosfilt

RATE = 44_100  # Hz
HIGHEST = 16_000.0  # Hz; no partial above it
TABLE = 8_192  # samples of one period of a wave table
BLOCK = 256  # samples

Sound = NDArray[np.float32]


class Instrument(Protocol):
    """Plays one note."""

    def __call__(self, pitch: float, seconds: float, rng: Generator) -> Sound:
        """The sound of a note held for `seconds`."""


def hertz(pitch: float) -> float:
    """Frequency of a MIDI note number."""
    return float(440.0 * 2.0 ** ((pitch - 69.0) / 12.0))


def _times(seconds: float) -> Sound:
    return np.arange(round(seconds * RATE), dtype=np.float32) / np.float32(RATE)


def _shape(length: int, held: float, attack: float, release: float) -> Sound:
    """Rises within `attack`, is 1 until `held`, then dies away with the time constant `release`."""
    t = np.arange(length, dtype=np.float32) / np.float32(RATE)
    return np.minimum(t / attack, 1.0) * np.exp(-np.maximum(t - held, 0.0) / release)


# --- what is struck or plucked ---------------------------------------------------------------------------


def _spiral(frequency: float, decay: float, length: int) -> NDArray[np.complex64]:
    """exp((2 pi i f - d) t) for `length` samples: the outer product of two short rows of it."""
    step = (2j * np.pi * frequency - decay) / RATE
    coarse = np.exp(step * BLOCK * np.arange(-(-length // BLOCK)))
    fine = np.exp(step * np.arange(BLOCK))
    rows = np.outer(coarse.astype(np.complex64), fine.astype(np.complex64))
    return rows.ravel()[:length]


def _string(frequency: float, decay: float, levels: Sequence[float], length: int) -> Sound:
    """Partials k = 1, 2, … of `levels`, each dying k times as fast as the first: Horner's rule in exp."""
    turn = _spiral(frequency, decay, length)
    wave = np.full(length, levels[-1], np.complex64)
    for level in reversed(levels[:-1]):
        wave *= turn
        wave += np.float32(level)
    wave *= turn
    return np.ascontiguousarray(wave.imag)


def piano(pitch: float, seconds: float, rng: Generator) -> Sound:
    """Two strings a little apart, a felt hammer."""
    frequency = hertz(pitch)
    count = int(np.clip(HIGHEST / 2 / frequency, 2, 14))
    order = np.arange(1, count + 1)
    # The hammer hits an eighth of the string, where the eighth partial has a node.
    levels = np.abs(np.sin(np.pi * order / 8)) * np.exp(-order * frequency / 5_000.0) / order
    decay = 0.45 * 2.0 ** ((pitch - 60.0) / 14.0)
    length = round(min(seconds + 0.25, 6.0) * RATE)
    wave = _string(frequency * 1.0003, decay, (levels / levels.sum()).tolist(), length)
    wave += _string(frequency * 0.9997, decay, (levels / levels.sum()).tolist(), length)
    wave *= 0.8 * _shape(length, seconds, 0.003, 0.06)
    thump = rng.standard_normal(RATE // 50, np.float32) * np.linspace(0.03, 0.0, RATE // 50)
    wave[: len(thump)] += thump[:length]
    return wave


def _bars(
    pitch: float, seconds: float, partials: Sequence[tuple[float, float, float]], damped: float
) -> Sound:
    """A struck bar: partials of (ratio to the pitch, level, decay in 1/s)."""
    length = round((seconds + 3 * damped) * RATE)
    frequency = hertz(pitch)
    wave = np.zeros(length, np.float32)
    for ratio, level, decay in partials:
        if ratio * frequency < HIGHEST:
            wave += np.float32(level) * _spiral(ratio * frequency, decay, length).imag
    return wave * _shape(length, seconds, 0.002, damped)


def marimba(pitch: float, seconds: float, rng: Generator) -> Sound:
    """A wooden bar over its resonator: fourth and tenth partials, soon gone."""
    warm = 2.0 ** ((pitch - 60.0) / 16.0)
    hard = rng.uniform(0.7, 1.3)
    partials = ((1.0, 0.8, 5.0 * warm), (3.93, 0.25 * hard, 16.0), (9.8, 0.1 * hard, 45.0))
    return _bars(pitch, max(seconds, 0.5), partials, 0.1)


def vibraphone(pitch: float, seconds: float, rng: Generator) -> Sound:
    """A metal bar with its motor running."""
    wave = _bars(pitch, seconds, ((1.0, 0.75, 1.2), (4.0, 0.2, 3.0), (9.9, 0.06, 9.0)), 0.15)
    sway = np.sin(2 * np.pi * (5.2 * _times(len(wave) / RATE) + rng.uniform()))
    return wave * (1.0 + 0.3 * sway).astype(np.float32)


def bell(pitch: float, seconds: float, rng: Generator) -> Sound:
    """A small bell: hum, prime, tierce, quint and nominal."""
    partials = [
        (ratio, level * rng.uniform(0.8, 1.2), decay)
        for ratio, level, decay in (
            (0.5, 0.2, 0.5),
            (1.0, 0.45, 0.9),
            (1.19, 0.2, 1.4),
            (1.5, 0.15, 1.8),
            (2.0, 0.3, 1.6),
            (2.75, 0.12, 3.0),
        )
    ]
    return _bars(pitch, seconds + 2.0, partials, 0.3)


def pluck(pitch: float, seconds: float, rng: Generator) -> Sound:
    """A plucked string: noise through a delay of one period and a mean of two samples (Karplus and
    Strong 1983), period by period, then tuned by interpolation."""
    period = max(round(RATE / hertz(pitch) - 0.5), 8)
    count = int(min(seconds + 0.3, 4.0) * RATE / period) + 2
    first = np.convolve(rng.uniform(-1.0, 1.0, period), np.ones(5) / 5, "same")
    place = period // 6  # plucked at a sixth of the string
    first -= np.roll(first, place)
    loss = 0.5 * 0.5 ** (period / RATE / 0.9)  # loses half in 0.9 s beside what the mean takes
    periods = np.empty((count, period), np.float32)
    periods[0] = first / np.abs(first).max()
    for now, before in zip(periods[1:], periods[:-1], strict=True):
        now[1:] = before[1:] + before[:-1]
        now[0] = before[0] + before[-1]
        now *= loss
    wave = periods.ravel()
    ratio = hertz(pitch) * (period + 0.5) / RATE
    at = np.arange(0.0, len(wave) - 1, ratio)
    tuned = np.interp(at, np.arange(len(wave)), wave).astype(np.float32)
    return 0.9 * tuned * _shape(len(tuned), seconds, 0.001, 0.05)


# --- what is blown, bowed or switched on -----------------------------------------------------------------


def saw(softness: float = 1.0, partials: int = 60) -> tuple[float, ...]:
    """Levels of partials that fall as 1 / k ** softness."""
    return tuple((1.0 / np.arange(1, partials + 1) ** softness).tolist())


def square(duty: float = 0.5, partials: int = 60) -> tuple[float, ...]:
    """Levels of a pulse wave's partials."""
    order = np.arange(1, partials + 1)
    return tuple((np.sin(np.pi * order * duty) / order).tolist())


@functools.lru_cache(maxsize=512)
def _table(levels: tuple[float, ...], count: int) -> Sound:
    """One period of the first `count` partials of `levels`, its largest value 1."""
    spectrum = np.zeros(TABLE // 2 + 1, np.complex128)
    kept = levels[:count]
    spectrum[1 : len(kept) + 1] = -1j * np.asarray(kept)
    wave = np.fft.irfft(spectrum, TABLE)
    return (wave / np.abs(wave).max()).astype(np.float32)


def tone(
    pitch: float,
    seconds: float,
    rng: Generator,
    *,
    dark: tuple[float, ...],
    bright: tuple[float, ...] | None = None,
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0),
    attack: float = 0.01,
    release: float = 0.05,
    vibrato: float = 0.0,
    spread: float = 0.0,
) -> Sound:
    """A sustained note from wave tables.

    dark, bright : levels of the partials of two tables; the sound moves from dark to bright and back
    colour : share of bright at the attack, seconds in which it changes, share that stays
    vibrato : semitones, setting in after the attack
    spread : semitones, standard deviation of the tuning
    """
    length = round((seconds + 4 * release) * RATE)
    t = np.arange(length, dtype=np.float32) / np.float32(RATE)
    frequency = hertz(pitch + spread * rng.standard_normal())
    cycles = frequency * np.arange(length) / RATE + rng.uniform()
    if vibrato:
        rate = rng.uniform(4.8, 5.8)  # Hz
        depth = vibrato * np.log(2) / 12 * frequency / (2 * np.pi * rate)
        swing = np.sin(2 * np.pi * (rate * t + rng.uniform())) * np.minimum(t / 0.6, 1.0)
        cycles += np.float32(depth) * swing
    index = (cycles * TABLE).astype(np.int64) & (TABLE - 1)
    count = max(int(HIGHEST / frequency), 1)
    wave = _table(dark, count)[index]
    if bright is not None:
        start, pace, stays = colour
        share = (start - stays) * np.exp(-t / pace) + stays
        wave += share * (_table(bright, count)[index] - wave)
    return wave * _shape(length, seconds, attack, release)


def strings(pitch: float, seconds: float, rng: Generator) -> Sound:
    """Three players of a section."""
    play = functools.partial(
        tone,
        dark=saw(2.2),
        bright=saw(1.3),
        colour=(0.1, 0.5, 0.6),
        attack=0.22,
        release=0.18,
        vibrato=0.18,
        spread=0.07,
    )
    first, second, third = (play(pitch, seconds, rng) for _ in range(3))
    return 0.45 * (first + second + third)


def brass(pitch: float, seconds: float, rng: Generator) -> Sound:
    """Opens as it gets loud."""
    return tone(
        pitch,
        seconds,
        rng,
        dark=saw(2.0),
        bright=saw(0.8, 24),
        colour=(0.95, 0.12, 0.45),
        attack=0.035,
        release=0.05,
        vibrato=0.08,
        spread=0.03,
    )


def tuba(pitch: float, seconds: float, rng: Generator) -> Sound:
    """The march's bass."""
    return tone(pitch, seconds, rng, dark=saw(1.6, 12), attack=0.03, release=0.06, spread=0.02)


def flute(pitch: float, seconds: float, rng: Generator) -> Sound:
    """Few partials and some breath."""
    wave = tone(pitch, seconds, rng, dark=saw(2.6, 8), attack=0.07, release=0.1, vibrato=0.15)
    breath = sosfilt(_band(1_500.0, 6_000.0), rng.standard_normal(len(wave), np.float32))
    return wave + 0.05 * breath.astype(np.float32) * _shape(len(wave), seconds, 0.04, 0.08)


def organ(pitch: float, seconds: float, rng: Generator) -> Sound:
    """Principal stops of 8, 4 and 2 feet with a mixture."""
    levels = (1.0, 0.8, 0.35, 0.6, 0.1, 0.3, 0.05, 0.4, 0.0, 0.1, 0.0, 0.2)
    return tone(pitch, seconds, rng, dark=levels, attack=0.02, release=0.06, spread=0.015)


def pad(pitch: float, seconds: float, rng: Generator) -> Sound:
    """A slow synthesiser chord note that opens and closes."""
    return tone(
        pitch,
        seconds,
        rng,
        dark=saw(2.4, 10),
        bright=saw(1.2, 40),
        colour=(0.0, max(seconds, 0.5), 0.9),
        attack=min(0.9, seconds / 2),
        release=0.5,
        spread=0.06,
    )


def lead(pitch: float, seconds: float, rng: Generator) -> Sound:
    """A chip's pulse wave with late vibrato."""
    return tone(pitch, seconds, rng, dark=square(0.25), attack=0.002, release=0.02, vibrato=0.25)


def chip(pitch: float, seconds: float, rng: Generator) -> Sound:
    """A chip's square wave, short."""
    return tone(pitch, seconds, rng, dark=square(0.5), attack=0.001, release=0.008)


def triangle(pitch: float, seconds: float, rng: Generator) -> Sound:
    """A chip's bass."""
    levels = tuple(0.0 if k % 2 == 0 else (-1.0) ** (k // 2) / k**2 for k in range(1, 24))
    return tone(pitch, seconds, rng, dark=levels, attack=0.002, release=0.01)


def sequencer(pitch: float, seconds: float, rng: Generator) -> Sound:
    """A synthesiser's short note, its filter closing at once."""
    return tone(
        pitch,
        seconds,
        rng,
        dark=saw(2.4),
        bright=saw(0.9),
        colour=(rng.uniform(0.6, 1.0), 0.09, 0.05),
        attack=0.003,
        release=0.09,
        spread=0.05,
    )


def growl(pitch: float, seconds: float, rng: Generator) -> Sound:
    """Two saws that beat: the bass of drum and bass."""
    one, two = (
        tone(
            pitch + detune,
            seconds,
            rng,
            dark=saw(1.9, 14),
            bright=saw(1.0, 30),
            colour=(rng.uniform(0.2, 0.9), 0.2, rng.uniform(0.1, 0.6)),
            attack=0.008,
            release=0.03,
        )
        for detune in (-0.12, 0.12)
    )
    return 0.6 * (one + two)


def upright(pitch: float, seconds: float, rng: Generator) -> Sound:
    """A double bass, plucked with a finger."""
    frequency = hertz(pitch)
    levels = (np.exp(-np.arange(12) / 2.5) * rng.uniform(0.8, 1.2, 12)).tolist()
    length = round((seconds + 0.15) * RATE)
    wave = 0.55 * _string(frequency, 0.9, levels, length) * _shape(length, seconds, 0.01, 0.04)
    click = rng.standard_normal(RATE // 60, np.float32) * np.linspace(0.06, 0.0, RATE // 60)
    wave[: len(click)] += click[:length]
    return wave.astype(np.float32)


# --- drums: `pitch` tunes them a little, 60 is how they are ----------------------------------------------


@functools.cache
def _band(low: float, high: float) -> NDArray[np.float64]:
    return butter(2, (low, high), "bandpass", fs=RATE, output="sos")


def _hiss(seconds: float, decay: float, low: float, high: float, rng: Generator) -> Sound:
    """Noise between two frequencies (Hz), dying with the time constant `decay` (s)."""
    t = _times(seconds)
    noise = rng.standard_normal(len(t), np.float32) * np.exp(-t / np.float32(decay))
    return sosfilt(_band(low, high), noise).astype(np.float32)


def kick(pitch: float, seconds: float, rng: Generator) -> Sound:
    """A bass drum whose pitch falls."""
    t = _times(0.35)
    base = 48.0 * 2.0 ** ((pitch - 60.0) / 12.0)
    cycles = base * t + 5.0 * (1.0 - np.exp(-t / 0.03))
    beater = np.zeros_like(t)
    knock = _hiss(0.02, 0.004, 800.0, 6_000.0, rng)
    beater[: len(knock)] = 0.7 * knock
    return (np.sin(2 * np.pi * cycles) * np.exp(-t / 0.13)).astype(np.float32) + beater


def snare(pitch: float, seconds: float, rng: Generator) -> Sound:
    """A drum head and its wires."""
    t = _times(0.25)
    shift = 2.0 ** ((pitch - 60.0) / 12.0) * rng.uniform(0.98, 1.02)
    head = np.sin(2 * np.pi * 190.0 * shift * t) + 0.6 * np.sin(2 * np.pi * 330.0 * shift * t)
    wires = _hiss(0.25, 0.07, 1_000.0 * shift, 9_000.0, rng)
    return (0.4 * head * np.exp(-t / 0.05)).astype(np.float32) + 1.1 * wires


def tom(pitch: float, seconds: float, rng: Generator) -> Sound:
    """For fills; here the pitch is the pitch."""
    t = _times(0.4)
    cycles = hertz(pitch) * t + 1.2 * (1.0 - np.exp(-t / 0.05))
    return (np.sin(2 * np.pi * cycles) * np.exp(-t / 0.14)).astype(np.float32)


def hat(pitch: float, seconds: float, rng: Generator) -> Sound:
    """A closed hi-hat; longer than 0.1 s, an open one."""
    decay = 0.025 if seconds <= 0.1 else 0.12
    return 0.8 * _hiss(6 * decay, decay * rng.uniform(0.8, 1.2), 5_000.0, 15_000.0, rng)


def cymbal(pitch: float, seconds: float, rng: Generator) -> Sound:
    """A crash."""
    return 0.9 * _hiss(2.5, 0.7, 2_500.0, 14_000.0, rng)


def brush(pitch: float, seconds: float, rng: Generator) -> Sound:
    """A brush drawn over a snare drum."""
    t = _times(seconds)
    swell = np.sin(np.pi * np.minimum(t / seconds, 1.0)) ** 1.5
    return 0.6 * sosfilt(_band(1_800.0, 8_000.0), swell * rng.standard_normal(len(t))).astype(
        np.float32
    )


def ride(pitch: float, seconds: float, rng: Generator) -> Sound:
    """A ride cymbal: a ping in a wash."""
    wash = 0.35 * _hiss(0.7, 0.22, 4_000.0, 13_000.0, rng)
    length = len(wash)
    for frequency in (3_170.0, 4_710.0, 6_230.0):
        ping = _spiral(frequency * rng.uniform(0.995, 1.005), 9.0, length).imag
        wash += np.float32(0.07) * ping
    return wash


# --- the stage -------------------------------------------------------------------------------------------


class Stage:
    """Where notes are put together: a stereo recording [shape=(n, 2)] of a given length."""

    def __init__(self, seconds: float, rng: Generator) -> None:
        self.length = round(seconds * RATE)
        self.rng = rng
        self._mix = np.zeros((2, self.length), np.float32)

    def play(
        self,
        instrument: Instrument,
        at: float,
        pitch: float,
        seconds: float,
        level: float = 1.0,
        pan: float = 0.0,
    ) -> None:
        """One note. `pan` is -1 (left) to 1 (right) at constant power."""
        start = round(max(at, 0.0) * RATE)
        note = instrument(pitch, max(seconds, 0.03), self.rng)[: max(self.length - start, 0)]
        angle = (pan + 1) * np.pi / 4
        for channel, gain in enumerate((np.cos(angle), np.sin(angle))):
            self._mix[channel, start : start + len(note)] += np.float32(gain * level) * note

    def echo(self, delay: float, feedback: float) -> None:
        """Repeats everything so far every `delay` seconds, from side to side."""
        shift = round(delay * RATE)
        for start in range(shift, self.length, shift):
            stop = min(start + shift, self.length)
            before = self._mix[::-1, start - shift : stop - shift]
            self._mix[:, start:stop] += np.float32(feedback) * before

    def recording(self, reverberation: float, wet: float, peak: float = 0.89) -> Sound:
        """The finished sound [shape=(n, 2)]: in a hall of that RT60 (s), faded out within 30 ms."""
        t = _times(reverberation)
        fade = np.exp(-np.float32(3 * np.log(10) / reverberation) * t)
        sound = self._mix.copy()
        for channel, dry in enumerate(self._mix):
            tail = self.rng.standard_normal(len(t), np.float32) * fade
            tail = sosfilt(_band(200.0, 5_000.0), tail)
            tail *= wet / np.sqrt(np.sum(np.square(tail)))
            sound[channel] += fftconvolve(dry, tail.astype(np.float32))[: self.length]
        sound = np.tanh(0.25 * sound / np.sqrt(np.mean(np.square(sound))))  # a gentle limiter
        sound[:, -RATE * 30 // 1000 :] *= np.linspace(1.0, 0.0, RATE * 30 // 1000)
        return np.ascontiguousarray((sound * (peak / np.abs(sound).max())).T, np.float32)
