"""Twelve short works that the project composes itself: music for the demo and the tests, free of rights.

    python -m benchmarks.demo.works FOLDER        write them as FLAC files with title and artist

Each work has its own key, tempo, metre, harmony and instruments. Its chords are written down; its
melody is a random walk over the scale that comes to rest on tones of the chord, and touch, timing and
noise are drawn, all from the work's own seed. So a work is the same bits every time on one machine, and
no bar of it is quite like another: where a clip was taken from is always one place.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator

from benchmarks.demo.instruments import (
    RATE,
    Instrument,
    Sound,
    Stage,
    bell,
    brass,
    brush,
    chip,
    cymbal,
    flute,
    growl,
    hat,
    kick,
    lead,
    marimba,
    organ,
    pad,
    piano,
    pluck,
    ride,
    sequencer,
    snare,
    strings,
    tom,
    triangle,
    tuba,
    upright,
    vibraphone,
)

ARTIST = "Earmark Demo Ensemble"
LICENCE = "CC0 1.0"
ENDING = 3.0  # s kept for the last chord

# --- harmony ---------------------------------------------------------------------------------------------

NATURALS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
ACCIDENTALS = {"b": -1, "#": 1}
QUALITIES = {
    "": (0, 4, 7),
    "m": (0, 3, 7),
    "7": (0, 4, 7, 10),
    "6": (0, 4, 7, 9),
    "9": (0, 4, 10, 14),
    "maj7": (0, 4, 7, 11),
    "maj9": (0, 4, 11, 14),
    "m7": (0, 3, 7, 10),
    "m9": (0, 3, 10, 14),
    "m7b5": (0, 3, 6, 10),
    "dim": (0, 3, 6),
    "sus4": (0, 5, 7),
    "add9": (0, 4, 7, 14),
}
MODES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "pentatonic": (0, 2, 4, 7, 9),
}


def _pitch_class(name: str) -> tuple[int, str]:
    """The pitch class (C is 0) that `name` begins with, and the rest of it."""
    natural, rest = NATURALS[name[0]], name[1:]
    if rest and rest[0] in ACCIDENTALS:
        return (natural + ACCIDENTALS[rest[0]]) % 12, rest[1:]
    return natural, rest


@dataclass(frozen=True)
class Chord:
    """A root (pitch class) and its intervals in semitones."""

    root: int
    intervals: tuple[int, ...]

    @classmethod
    def named(cls, name: str) -> Chord:
        """From its symbol, such as `Ebmaj7`."""
        root, quality = _pitch_class(name)
        return cls(root, QUALITIES[quality])

    @property
    def tones(self) -> frozenset[int]:
        """Pitch classes."""
        return frozenset((self.root + interval) % 12 for interval in self.intervals)

    def bass(self, lowest: int) -> int:
        """The root at or next above a pitch."""
        return lowest + (self.root - lowest) % 12

    def voicing(self, lowest: int, count: int) -> list[int]:
        """`count` tones of the chord, closely one above the other from a pitch on."""
        return [p for p in range(lowest, lowest + 60) if p % 12 in self.tones][:count]


def scale(key: str, lowest: int, highest: int) -> list[int]:
    """Pitches of a key such as `F# minor` between two pitches."""
    tonic, mode = key.split()
    first, _ = _pitch_class(tonic)
    tones = {(first + interval) % 12 for interval in MODES[mode]}
    return [pitch for pitch in range(lowest, highest + 1) if pitch % 12 in tones]


class Melody:
    """A random walk over a scale, mostly by step, that rests on tones of the chord."""

    STEPS = (-4, -3, -2, -1, 0, 1, 2, 3, 4)
    ODDS = (0.04, 0.07, 0.13, 0.23, 0.06, 0.23, 0.13, 0.07, 0.04)

    def __init__(self, rng: Generator, pitches: Sequence[int]) -> None:
        self._rng = rng
        self._pitches = pitches
        self._at = len(pitches) // 2

    def next(self, chord: Chord, rest: bool) -> int:
        """The next pitch; with `rest`, the nearest one that is in the chord."""
        last = len(self._pitches) - 1
        at = self._at + int(self._rng.choice(self.STEPS, p=self.ODDS))
        self._at = min(max(-at if at < 0 else at, 0), last) if at <= last else 2 * last - at
        if rest:
            near = sorted(range(last + 1), key=lambda i: abs(i - self._at))
            self._at = next((i for i in near if self._pitches[i] % 12 in chord.tones), self._at)
        return self._pitches[self._at]


# --- works -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """What is written down of a work; `play` is its arrangement."""

    title: str
    style: str
    seconds: float
    key: str
    tempo: float  # beats a minute
    metre: int  # beats a bar
    chords: str  # symbols, in turn
    play: Callable[[Score], None]
    chord_beats: int = 0  # beats a chord; 0: a bar
    swing: float = 0.0  # beats that every second half-beat is late by
    loose: float = 0.006  # s, how far the players are apart (standard deviation)
    reverberation: float = 1.2  # s, RT60 of the hall
    wet: float = 0.35

    @property
    def file_name(self) -> str:
        """The title as a file name."""
        words = "".join(c if c.isalnum() else " " for c in self.title.replace("'", "")).split()
        return "-".join(words).lower() + ".flac"


class Score:
    """A work while it is played: its bars and chords, and notes that land on the stage."""

    def __init__(self, work: Work, stage: Stage, rng: Generator) -> None:
        self.work = work
        self.stage = stage
        self.rng = rng
        self._chords = [Chord.named(name) for name in work.chords.split()]
        self._beat = 60.0 / work.tempo
        self.bars_in_all = int((work.seconds - ENDING) / (self._beat * work.metre))
        self.end = self.bars_in_all * work.metre  # beats

    def chord(self, beat: float) -> Chord:
        """What is heard at a beat."""
        if beat >= self.end:
            return self._chords[0]
        return self._chords[
            int(beat / (self.work.chord_beats or self.work.metre)) % len(self._chords)
        ]

    def bars(self) -> Iterator[tuple[int, float, Chord]]:
        """Number, first beat and first chord of each bar."""
        for bar in range(self.bars_in_all):
            beat = float(bar * self.work.metre)
            yield bar, beat, self.chord(beat)

    def time(self, beat: float) -> float:
        """Seconds from the start, swing included."""
        half = beat * 2 % 2
        late = self.work.swing * max(0.0, 1 - abs(half - 1)) if self.work.swing else 0.0
        return 0.15 + (beat + late) * self._beat

    def note(
        self,
        instrument: Instrument,
        beat: float,
        beats: float,
        pitch: float,
        level: float,
        pan: float = 0.0,
    ) -> None:
        """One note, as people play: not quite together, not quite as loud as the last."""
        at = self.time(beat) + self.work.loose * float(self.rng.standard_normal())
        touch = level * float(self.rng.uniform(0.8, 1.15))
        self.stage.play(instrument, at, pitch, beats * self._beat, touch, pan)

    def melody(self, lowest: int, highest: int, key: str | None = None) -> Melody:
        """A walk in the work's key, or in another."""
        return Melody(self.rng, scale(key or self.work.key, lowest, highest))

    def rhythm(self, patterns: Sequence[tuple[float, ...]]) -> Iterator[tuple[float, float]]:
        """(beat in the bar, length in beats) of the notes of one of the patterns; rests are negative."""
        at = 0.0
        for length in patterns[int(self.rng.integers(len(patterns)))]:
            if length > 0:
                yield at, length
            at += abs(length)

    def maybe(self, odds: float) -> bool:
        """True so often."""
        return bool(self.rng.random() < odds)

    def phrase(self, beat: float, bars: int = 4) -> float:
        """A swell over so many bars, 0.5 to 1."""
        return 0.5 + 0.5 * float(np.sin(np.pi * (beat / self.work.metre % bars) / bars))


def _waltz(s: Score) -> None:
    tune = s.melody(67, 88)
    rhythms = ((2, 1), (1, 1, 1), (1.5, 0.5, 1), (3,), (0.5,) * 6, (-1, 1, 1), (1, 0.5, 0.5, 1))
    for bar, beat, chord in s.bars():
        swell = s.phrase(beat, 8)
        s.note(piano, beat, 1.4, chord.bass(36 if bar % 2 else 31), 0.6 * swell, -0.25)
        for later in (1, 2):
            for pitch in chord.voicing(53 + (bar % 3), 3):
                s.note(piano, beat + later, 0.6, pitch, 0.2 * swell, -0.15)
        for at, length in s.rhythm(rhythms):
            pitch = tune.next(chord, at == 0)
            s.note(piano, beat + at, length, pitch, 0.55 * swell, 0.2)
            if bar % 16 >= 8 and at == 0:
                s.note(piano, beat + at, length, pitch - 12, 0.3 * swell, 0.1)
    for pitch in (*s.chord(s.end).voicing(41, 3), *s.chord(s.end).voicing(65, 4)):
        s.note(piano, s.end, 6, pitch, 0.4)


def _chiptune(s: Score) -> None:
    tune = s.melody(69, 91, "A minor")
    rhythms = (
        (0.5,) * 8,
        (1, 0.5, 0.5, 1, 1),
        (0.75, 0.75, 0.5, 1, 1),
        (0.25,) * 4 + (1, 0.5, 0.5, 1),
        (1.5, 0.5, -0.5, 0.5, 1),
    )
    for bar, beat, chord in s.bars():
        tones = chord.voicing(60, 4)
        for step in range(16):
            pitch = tones[int(s.rng.integers(4))] if bar % 2 else tones[step * 3 % 4]
            s.note(chip, beat + step / 4, 0.16, pitch, 0.16, 0.5 if step % 2 else -0.5)
        for half in range(8):
            octave = 12 if half % 2 else 0
            s.note(triangle, beat + half / 2, 0.4, chord.bass(33) + octave, 0.75)
        for quarter in range(4):
            s.note(snare if quarter % 2 else kick, beat + quarter, 0.1, 66, 0.45)
            if s.maybe(0.7):
                s.note(hat, beat + quarter + 0.5, 0.05, 60, 0.2)
        if bar >= 2:
            for at, length in s.rhythm(rhythms):
                pitch = tune.next(chord, at in (0, 2))
                s.note(lead, beat + at, 0.9 * length, pitch, 0.42)
                s.note(lead, beat + at + 0.75, 0.6 * length, pitch, 0.1, 0.8)
    for pitch in s.chord(s.end).voicing(57, 6):
        s.note(chip, s.end, 5, pitch, 0.2)


def _chorale(s: Score) -> None:
    soprano, tenor = s.melody(67, 82), s.melody(51, 63)
    for _, beat, _ in s.bars():
        for half in (0, 2):
            chord = s.chord(beat + half)
            swell = s.phrase(beat + half, 3)
            s.note(strings, beat + half, 2.1, chord.bass(36), 0.5 * swell, 0.5)
            alto = chord.voicing(58 + int(s.rng.integers(5)), 1)[0]
            s.note(strings, beat + half, 2.1, alto, 0.32 * swell, -0.2)
            for part, level, pan in ((soprano, 0.42, -0.6), (tenor, 0.36, 0.25)):
                first = part.next(chord, True)
                if s.maybe(0.55):
                    s.note(strings, beat + half, 1.05, first, level * swell, pan)
                    second = part.next(chord, False)
                    s.note(strings, beat + half + 1, 1.05, second, level * swell, pan)
                else:
                    s.note(strings, beat + half, 2.1, first, level * swell, pan)
    for pitch, pan in zip(s.chord(s.end).voicing(39, 6), np.linspace(0.5, -0.5, 6), strict=True):
        s.note(strings, s.end, 3, pitch, 0.3, float(pan))


def _drum_and_bass(s: Score) -> None:
    tune = s.melody(66, 85)
    snares, kicks = (1.0, 3.0), ((0.0, 2.5), (0.0, 1.75, 2.5), (0.0, 2.25), (0.0, 0.5, 2.75))
    for bar, beat, chord in s.bars():
        fill = bar % 8 == 7 or s.maybe(0.12)
        for at in kicks[int(s.rng.integers(len(kicks)))]:
            s.note(kick, beat + at, 0.2, 62, 0.95)
        for at in snares if not fill else (1.0,):
            s.note(snare, beat + at, 0.2, 63, 0.8, 0.05)
        for step in range(16):
            if s.maybe(0.18):
                s.note(snare, beat + step / 4, 0.1, 65, 0.16, 0.2)
            if step % 2 == 0 or s.maybe(0.35):
                opened = 0.5 if s.maybe(0.08) else 0.1
                s.note(hat, beat + step / 4, opened, 60, 0.3 if step % 4 else 0.22, -0.35)
        if fill:
            for step in range(8):
                drum, pitch = (tom, 52 - step) if s.maybe(0.5) else (snare, 60 + step % 3)
                s.note(drum, beat + 2 + step / 4, 0.2, pitch, 0.5 + 0.05 * step, 0.1 * step - 0.4)
        if bar % 8 == 0:
            s.note(cymbal, beat, 2, 60, 0.35, 0.3)
        for at, length in s.rhythm(((1.5, 1, 1.5), (0.75, 0.75, 2.5), (-1, 1, 0.5, 1.5), (4,))):
            s.note(growl, beat + at, 0.9 * length, chord.bass(29) + 12 * s.maybe(0.2), 0.55)
        if bar % 4 == 0:
            for pitch in chord.voicing(57, 4):
                s.note(pad, beat, 4 * s.work.metre, pitch, 0.1, float(s.rng.uniform(-0.8, 0.8)))
        if bar >= 4:
            for at, length in s.rhythm(((-1.5, 0.5, 1, 1), (-2, 0.75, 1.25), (3, 1), (-4,))):
                s.note(sequencer, beat + at, length, tune.next(chord, True), 0.4, 0.4)
    s.note(kick, s.end, 1, 60, 0.9)
    s.note(growl, s.end, 3, s.chord(s.end).bass(29), 0.6)


def _synthwave(s: Score) -> None:
    tune = s.melody(64, 83)
    for bar, beat, chord in s.bars():
        tones = chord.voicing(49 + 12 * (bar // 8 % 2), 6)
        at_tone = int(s.rng.integers(6))
        for step in range(16):
            at_tone = (at_tone + int(s.rng.choice((1, 1, 1, 2, -1)))) % 6
            accent = 0.36 if step % 4 == 0 else 0.24
            s.note(sequencer, beat + step / 4, 0.3, tones[at_tone], accent, 0.6 - 1.2 * (step % 2))
        for half in range(8):
            s.note(sequencer, beat + half / 2, 0.4, chord.bass(37), 0.65)
        for pitch in chord.voicing(56, 4):
            s.note(pad, beat, 4, pitch, 0.13, float(s.rng.uniform(-0.7, 0.7)))
        if bar >= 2:
            for quarter in range(4):
                s.note(kick, beat + quarter, 0.2, 58, 0.8)
                s.note(hat, beat + quarter + 0.5, 0.15, 60, 0.2, 0.3)
            s.note(snare, beat + 1, 0.2, 58, 0.55)
            s.note(snare, beat + 3, 0.2, 58, 0.55)
        if bar >= 4:
            for at, length in s.rhythm(((1.5, 1.5, 1), (3, 0.5, 0.5), (-1, 1, 2), (2, 2))):
                s.note(lead, beat + at, length, tune.next(chord, True), 0.26, -0.1)
    for pitch in s.chord(s.end).voicing(49, 6):
        s.note(pad, s.end, 4, pitch, 0.25)


def _guitar(s: Score) -> None:
    tune = s.melody(67, 84)
    for _, beat, chord in s.bars():
        swell = s.phrase(beat)
        bass, tones = chord.bass(40), chord.voicing(55, 3)
        for half in range(8):
            if half % 2 == 0:
                low = bass if half % 4 == 0 else bass + (7 if s.maybe(0.6) else 12)
                s.note(pluck, beat + half / 2, 1.2, low, 0.5 * swell, -0.2)
            else:
                pitch = tones[int(s.rng.integers(3))]
                s.note(pluck, beat + half / 2, 1.5, pitch, 0.36 * swell, 0.1)
        for at, length in s.rhythm(((1, 1, 2), (0.5, 0.5, 1, 2), (-0.5, 1, 0.5, 1, 1), (1.5, 2.5))):
            s.note(pluck, beat + at, 1.3 * length, tune.next(chord, at in (0, 2)), 0.6 * swell, 0.3)
    for i, pitch in enumerate((*s.chord(s.end).voicing(43, 6), 79)):
        s.note(pluck, s.end + 0.09 * i, 5, pitch, 0.5, 0.08 * i - 0.2)


def _march(s: Score) -> None:
    tune, answer = s.melody(65, 79), s.melody(70, 86)
    rhythms = ((0.75, 0.25, 0.5, 0.5), (1, 1), (0.5, 0.5, 1), (0.75, 0.25, 1), (0.5,) * 4)
    for bar, beat, chord in s.bars():
        loud = 0.85 if bar % 16 < 8 else 1.0
        s.note(tuba, beat, 0.6, chord.bass(34), 0.75, 0.3)
        s.note(tuba, beat + 1, 0.6, chord.bass(34) - 5, 0.7, 0.3)
        s.note(kick, beat, 0.2, 64, 0.5)
        if bar % 4 == 0:
            s.note(cymbal, beat, 1, 66, 0.3, 0.4)
        for after in (0.5, 1.5):
            for pitch in chord.voicing(53, 3):
                s.note(brass, beat + after, 0.25, pitch, 0.22, -0.4)
        for step in range(8):
            if step in (0, 2, 4, 6) or s.maybe(0.35) or bar % 8 == 7:
                s.note(snare, beat + step / 4, 0.1, 67, 0.3 if step % 4 else 0.42, 0.15)
        for at, length in s.rhythm(rhythms):
            pitch = tune.next(chord, at == 0)
            s.note(brass, beat + at, 0.85 * length, pitch, 0.5 * loud, -0.1)
            if bar % 16 >= 8:
                s.note(brass, beat + at, 0.85 * length, pitch - 5, 0.28, -0.3)
        if bar % 8 >= 4:
            for at, length in s.rhythm(((-1, 0.25, 0.25, 0.5), (-0.5, 0.5, 1), (2,))):
                s.note(flute, beat + at, length, answer.next(chord, at == 0) + 12, 0.3, 0.5)
    for pitch in (34, *s.chord(s.end).voicing(53, 6)):
        s.note(brass, s.end, 1.5, pitch, 0.35)
    s.note(cymbal, s.end, 1, 60, 0.5)


def _ambient(s: Score) -> None:
    tune = s.melody(69, 86)
    for bar, beat, chord in s.bars():
        for pitch in (chord.bass(38), *chord.voicing(54 + bar % 4, 4)):
            s.note(pad, beat + s.rng.uniform(0, 0.4), 4.4, pitch, 0.3, s.rng.uniform(-0.9, 0.9))
        for at, length in s.rhythm(((1.5, 2.5), (-1, 3), (2, 1, 1), (-0.5, 1.5, 2))):
            s.note(flute, beat + at, length, tune.next(chord, True), 0.4, -0.2)
        for _ in range(3):
            at, pitch = s.rng.uniform(0, 4), chord.voicing(74, 5)[int(s.rng.integers(5))]
            s.note(bell, beat + at, 0.5, pitch, s.rng.uniform(0.08, 0.22), s.rng.uniform(-1, 1))
    for pitch in s.chord(s.end).voicing(50, 5):
        s.note(pad, s.end, 2, pitch, 0.25)


def _minimal(s: Score) -> None:
    """Two players, one pattern; the second is a little faster. Every other bar a note changes."""
    pitches = scale("E dorian", 59, 80)
    pattern = [int(i) for i in s.rng.integers(0, len(pitches), 12)]
    drift = 0.0
    for bar, beat, chord in s.bars():
        for step in range(12):
            at = beat + step / 2
            s.note(marimba, at, 0.5, pitches[pattern[step]], 0.45 + 0.15 * (step % 3 == 0), -0.6)
            if bar >= 2:
                s.note(marimba, at + drift, 0.5, pitches[pattern[step]], 0.45, 0.6)
            drift += 0.004 if bar >= 2 else 0.0
        pattern[int(s.rng.integers(12))] = int(s.rng.integers(len(pitches)))
        if bar >= 4:
            for at, length in s.rhythm(((3, 3), (2, 2, 2), (-1, 5), (4.5, 1.5))):
                s.note(vibraphone, beat + at, length, chord.voicing(76, 4)[bar % 4], 0.25, 0.1)
                s.note(marimba, beat + at, length, chord.bass(40), 0.6)
    for pitch in s.chord(s.end).voicing(52, 6):
        s.note(marimba, s.end, 6, pitch, 0.4)


def _jazz(s: Score) -> None:
    tune = s.melody(62, 84)
    rhythms = (
        (-0.5, 0.5, 1, 0.5, 0.5, 1),
        (1, 0.5, 0.5, -1, 1),
        (0.5, 0.5, 0.5, 1.5, 1),
        (-1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5),
        (2, -1.5, 0.5),
    )
    for bar, beat, chord in s.bars():
        goal = s.chord(beat + 4).bass(32)
        third, fifth = chord.bass(32) + chord.intervals[1], chord.bass(32) + chord.intervals[2]
        walk = [chord.bass(32), third, fifth, goal + (1 if s.maybe(0.5) else -1)]
        if s.maybe(0.4):
            walk[1], walk[2] = walk[2], walk[1]
        for step, pitch in enumerate(walk):
            s.note(upright, beat + step, 0.95, pitch, 0.75, 0.1)
            s.note(brush, beat + step, 0.9, 60, 0.35 if step % 2 else 0.25, -0.4)
            s.note(ride, beat + step, 0.5, 60, 0.3, -0.5)
            if step % 2:
                s.note(hat, beat + step, 0.05, 60, 0.3, -0.4)
                s.note(ride, beat + step + 0.5, 0.3, 60, 0.2, -0.5)
        for at, length in s.rhythm(
            ((-0.5, 0.5, -1.5, 1.5), (-1.5, 1, 1.5), (1.5, 2.5), (-2.5, 1.5))
        ):
            for pitch in chord.voicing(53 + int(s.rng.integers(4)), 4):
                s.note(piano, beat + at, 0.6 * length, pitch, 0.2, 0.45)
        if bar >= 2:
            for at, length in s.rhythm(rhythms):
                pitch = tune.next(chord, at in (0, 2))
                s.note(vibraphone, beat + at, 1.1 * length, pitch, 0.42, -0.1)
    for pitch in (32, *s.chord(s.end).voicing(56, 5)):
        s.note(piano, s.end, 4, pitch, 0.4)


def _dub(s: Score) -> None:
    tune = s.melody(71, 86)
    for bar, beat, chord in s.bars():
        for at, _ in s.rhythm(((-1, 0.5, -1.5, 1), (-1, 1, -1, 0.5, 0.5), (-3, 1))):
            for pitch in chord.voicing(59, 3):
                s.note(organ, beat + at, 0.16, pitch, 0.3, 0.4)
        if bar % 4 == 3:
            for pitch in chord.voicing(63, 3):
                s.note(brass, beat + 2.5, 0.3, pitch, 0.25, -0.5)
        if bar % 2:
            for at, length in s.rhythm(((-1, 1, 1, 1), (0.5, 0.5, 1.5, 1.5), (-2, 0.5, 1.5))):
                s.note(flute, beat + at, 0.9 * length, tune.next(chord, True), 0.36, -0.2)
    s.stage.echo(0.75 * 60 / s.work.tempo, 0.42)  # what follows stays dry
    for _, beat, chord in s.bars():
        root = chord.bass(35)
        for at, length in s.rhythm(((1, 0.5, 0.5, -1, 1), (1.5, 0.5, 1, -1), (-1, 1, 0.5, 0.5, 1))):
            low = root + int(s.rng.choice((0, 0, 7, 12, -5)))
            s.note(triangle, beat + at, 0.9 * length, low - 12 if low > 42 else low, 0.95)
        s.note(kick, beat + 2, 0.2, 58, 0.9)
        s.note(snare, beat + 2, 0.2, 68, 0.4)
        for half in range(8):
            if s.maybe(0.8):
                s.note(hat, beat + half / 2, 0.05, 60, 0.3 if half % 2 else 0.16, 0.3)
        if s.maybe(0.3):
            for step in range(3):
                s.note(tom, beat + 3 + step / 3, 0.2, 57 - 3 * step, 0.5, 0.3 * step - 0.3)
    for pitch in s.chord(s.end).voicing(47, 5):
        s.note(organ, s.end, 1, pitch, 0.3)


def _toccata(s: Score) -> None:
    run = s.melody(62, 86)
    for bar, beat, chord in s.bars():
        s.note(organ, beat, 3.9, chord.bass(38), 0.42)
        s.note(organ, beat, 3.9, chord.bass(38) - 12, 0.32)
        if bar % 4 == 3:
            for at in (0.0, 1.5, 2.0, 3.0):
                for pitch in chord.voicing(57 + int(at), 4):
                    s.note(organ, beat + at, 0.8, pitch, 0.2, 0.3)
            continue
        for pitch in chord.voicing(53, 3):
            s.note(organ, beat + (0 if bar % 2 else 2), 1.9, pitch, 0.17, -0.4)
        pedal = chord.voicing(69, 1)[0]
        for step in range(16):
            moving = run.next(chord, step % 4 == 0)
            pitch = pedal if step % 2 and bar % 4 == 1 else moving
            s.note(organ, beat + step / 4, 0.24, pitch, 0.36, 0.25)
    for pitch in (38, *s.chord(s.end).voicing(50, 6)):
        s.note(organ, s.end, 2.5, pitch, 0.25)


# fmt: off
WORKS = (
    Work("Waltz for a Rainy Tuesday", "piano waltz", 42, "F major", 150, 3,
         "F F Dm Dm Gm Gm C7 C7 F A7 Dm Bb Gm C7 F C7 Bb Bb F F G7 G7 C7 C7 F D7 Gm Bbm F C7 F F", _waltz,
         loose=0.012, reverberation=1.0, wet=0.3),
    Work("Eight Lives Left", "chiptune", 36, "A minor", 152, 4,
         "Am F C G Am F Dm E7 Am G F E7 Dm F E7 E7", _chiptune,
         loose=0.0, reverberation=0.3, wet=0.1),
    Work("Chorale at Dusk", "string chorale", 46, "Eb major", 69, 4,
         "Eb Bb Cm Gm Ab Eb Fm Bb7 Eb Ab Fm G7 Cm Ab Bb7 Eb Gm Cm Fm Dm7b5 G7 Cm Bb7 Eb", _chorale,
         chord_beats=2, loose=0.02, reverberation=2.4, wet=0.6),
    Work("Concrete Gardens", "drum and bass", 40, "F# minor", 172, 4,
         "F#m9 F#m9 Dmaj7 Dmaj7 Bm7 Bm7 C#m7 E", _drum_and_bass, loose=0.003, wet=0.2),
    Work("Night Bus Home", "synthwave", 44, "C# minor", 112, 4,
         "C#m A E B C#m A F#m G#7 A B C#m E A B G#m G#7", _synthwave,
         loose=0.002, reverberation=1.6),
    Work("Fingers and Wire", "fingerpicked guitar", 40, "G major", 94, 4,
         "G Em C D G Bm C Cm G E7 Am D7 G C D7 G", _guitar, swing=0.06, loose=0.01, wet=0.25),
    Work("The Mayor Arrives Late", "brass march", 38, "Bb major", 118, 2,
         "Bb Bb F7 Bb Eb Bb C7 F7 Bb Bb Gm D7 Eb Bb F7 Bb", _march, loose=0.01, wet=0.3),
    Work("Glass Tide", "ambient", 50, "D lydian", 58, 4,
         "Dmaj9 E Bm7 Amaj7 F#m7 Dadd9 E F#m9", _ambient, loose=0.03, reverberation=3.5, wet=0.8),
    Work("Wooden Clocks", "minimal music for marimbas", 44, "E dorian", 196, 6,
         "Em7 Em7 A9 A9 Gmaj7 Gmaj7 Bm7 Bm7", _minimal, loose=0.004, wet=0.3),
    Work("Blue Umbrella", "jazz quartet", 42, "Ab major", 138, 4,
         "Abmaj7 F7 Bbm7 Eb7 Cm7 F7 Bbm7 Eb7 Ebm7 Ab7 Dbmaj7 Db6 Bbm7 Eb7 Ab6 Eb7", _jazz,
         swing=0.17, loose=0.009, reverberation=0.9, wet=0.25),
    Work("Harbour Dub", "dub", 45, "B minor", 76, 4,
         "Bm Bm Em Em Bm A G F#m", _dub, swing=0.05, loose=0.006, reverberation=1.8, wet=0.3),
    Work("Little Toccata", "organ toccata", 41, "D minor", 104, 4,
         "Dm Gm A7 Dm Bb Gm Edim A7 Dm D7 Gm C7 F Bb A7 Dm", _toccata,
         loose=0.004, reverberation=3.0, wet=0.5),
)
# fmt: on


@functools.lru_cache(maxsize=len(WORKS))
def compose(work: Work) -> Sound:
    """The sound of a work [shape=(n, 2)] at `RATE`; keep it as it is, the next caller gets the same."""
    rng = np.random.default_rng(list(work.title.encode()))
    stage = Stage(work.seconds, rng)
    work.play(Score(work, stage, rng))
    sound = stage.recording(work.reverberation, work.wet)
    sound.flags.writeable = False
    return sound


def write(work: Work, folder: Path) -> Path:
    """The work as a FLAC file with its title, artist and licence in `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / work.file_name
    sound = compose(work)
    with soundfile.SoundFile(path, "w", RATE, sound.shape[1], "PCM_16", format="FLAC") as file:
        file.title, file.artist, file.genre = work.title, ARTIST, work.style
        file.license = LICENCE
        file.write(sound)
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    """Write all works to a folder."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.demo.works", description=__doc__.split("\n")[0]
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder = parser.parse_args(arguments).folder
    for work in WORKS:
        path = write(work, folder)
        print(f"{path}  {work.title} ({work.style}, {work.key}, {work.seconds:.0f} s)")


if __name__ == "__main__":
    main()
