"""Endless batches of pairs of windows, drawn from the training corpus on the device that trains.

The samples lie in the device's memory: 58 MB an hour of music, as much again for its lossy copies.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fingerprint.audio import SAMPLE_RATE
from fingerprint.fingerprint import PADDING
from fingerprint.spectrogram import BANDS
from fingerprint.training.augment import (
    ROOM,
    Background,
    Chance,
    at_speed,
    degrade,
    level,
    toned,
    warp,
    with_other_music,
    within,
)
from fingerprint.training.dataset import MUSIC, items
from fingerprint.training.model import TrainingError
from fingerprint.training.picture import band_levels, normalise, spectrogram

SEGMENT = 6.0  # seconds that share one degradation
# Samples of a work that are played in that time: a third of the segments as they are, the others slower or
# faster, as recordings that the corpus lacks. Products of 2, 3 and 5, which transform quickly.
SPANS = (*4 * (48_000,), 36_000, 40_000, 43_200, 45_000, 50_000, 54_000, 60_000, 64_800)
WINDOWS = 10  # pairs drawn from one segment, half a second apart: each other's hard negatives
# Correlation of clean pictures above which two moments count as the same music: repeats of rendered
# loops lie above it, neighbouring moments of sustained chords mostly below.
ALIKE = 0.9
LARGEST_SHIFT = 0.05  # s, half a query step: how far a query's frame can lie beside the reference's
COPIED = 0.4  # share of degraded segments that are taken from the lossy copies
LONGEST_BACKGROUND = 30.0  # s taken of a sound of the background, that none is heard too often
SIMULATED_ROOMS = "rooms.npy"  # of `fingerprint.training.rooms`, in the folder of samples
MIXED = 1 / 3  # share of recordings that have other music in them
CUT = 0.3  # share of windows that lie at an end of the clip, or at both
UNKNOWN_EDGE = 15  # bands at most that are hidden from a window of its own


@dataclass(frozen=True)
class Batch:
    """Pairs of windows [shape=(pairs, frames, BANDS)]; pair i of both is the same moment of music.

    `same` [shape=(pairs, pairs)] marks pairs whose clean pictures are alike, themselves included: a
    loop's repeats are not wrong answers.
    """

    clean: Tensor
    degraded: Tensor
    same: Tensor


class _Sounds:
    """Sounds one after the other in one tensor."""

    def __init__(self, sounds: list[NDArray[np.int16]], device: str) -> None:
        lengths = torch.tensor([len(sound) for sound in sounds], dtype=torch.long)
        self.samples = torch.empty(int(lengths.sum()), dtype=torch.int16, device=device)
        self.lengths = lengths.to(device)
        self.starts = self.lengths.cumsum(0) - self.lengths
        for sound, first in zip(sounds, self.starts.tolist(), strict=True):
            piece = torch.from_numpy(np.array(sound))
            self.samples[first : first + len(piece)] = piece.to(device)

    def at(self, first: Tensor, n: int) -> Tensor:
        """n samples from each of `first` on, float32 [shape=(rows, n)]."""
        moments = first[:, None] + torch.arange(n, device=first.device)
        return self.samples[moments].float() / 32768


class Corpus:
    """Samples of a manifest's items on a device (see `fingerprint.training.dataset`)."""

    def __init__(self, manifest: Path, folder: Path, device: str = "cpu") -> None:
        self.device = device
        kinds = items(manifest, folder)
        longest = max(SPANS) + SAMPLE_RATE
        works, copies = [], []
        for path in (path for kind in MUSIC for path in kinds.get(kind, [])):
            work = np.load(path, mmap_mode="r")
            if len(work) >= longest:
                works.append(work)
                copy = path.with_suffix(".codec.npy")
                copies.append(_as_long_as(work, np.load(copy, "r") if copy.exists() else work))
        if not works:
            raise TrainingError(
                f"{manifest}: none of its music is in {folder}, decoded and {longest / SAMPLE_RATE:.0f} s "
                "long: run python -m fingerprint.training.dataset first"
            )
        self._music, self._copies = _Sounds(works, device), _Sounds(copies, device)
        # Longer works more often, but not in proportion: variety matters more than minutes.
        self._weight = self._music.lengths.float().sqrt()
        self._ambience = self._stream(kinds.get("noise", []))
        self._speech = self._stream(kinds.get("speech", []))
        rooms = [_from_direct_sound(np.load(path)) for path in kinds.get("impulse-response", [])]
        simulated = folder / SIMULATED_ROOMS
        if simulated.exists():
            rooms += list(np.load(simulated).astype(np.float32))
        self.background = Background(
            music=self._any_music,
            ambience=lambda chance, rows, n: self._anywhere(chance, self._ambience, rows, n),
            speech=lambda chance, rows, n: self._anywhere(chance, self._speech, rows, n),
            rooms=torch.from_numpy(np.array(rooms, np.float32).reshape(-1, ROOM)).to(device),
        )

    def _stream(self, paths: list[Path]) -> _Sounds:
        """Sounds in random order, each brought to one level, as one."""
        pieces = []
        for i in np.random.default_rng(1).permutation(len(paths)):
            x = np.load(paths[i])[: int(LONGEST_BACKGROUND * SAMPLE_RATE)].astype(np.float32)
            x *= 3000 / (np.sqrt(np.mean(np.square(x))) + 1)
            pieces.append(np.clip(x, -32768, 32767).astype(np.int16))
        enough = np.zeros(int(2 * SEGMENT * SAMPLE_RATE), np.int16)
        return _Sounds([np.concatenate([*pieces, enough])], self.device)

    def _anywhere(self, chance: Chance, sounds: _Sounds, rows: int, n: int) -> Tensor:
        return sounds.at(chance.below(int(sounds.lengths[0]) - n + 1, rows), n)

    def _any_music(self, chance: Chance, rows: int, n: int) -> Tensor:
        works = chance.pick(self._weight, rows)
        first = chance.below(self._music.lengths[works] - n + 1, rows)
        return self._music.at(self._music.starts[works] + first, n)

    def _moments(self, chance: Chance, segments: int) -> tuple[Tensor, Tensor]:
        """Moments of as many works and copies of them, SEGMENT long [shape=(segments, n) each].

        They are played at the speeds of SPANS, in turn, and half of them have another tone. A copy lies up to
        LARGEST_SHIFT beside its moment.
        """
        n = int(SEGMENT * SAMPLE_RATE)
        if segments > len(self._weight):
            raise TrainingError(
                f"{segments} works in a batch are asked for, and {len(self._weight)} are there: "
                "give fewer --segments"
            )
        works = chance.pick(self._weight, segments, again=False)
        spans = torch.tensor(SPANS, device=self.device)
        spans = spans.repeat(-(-segments // len(spans)))[:segments]
        margin = int(LARGEST_SHIFT * max(SPANS) / SEGMENT) + 1
        free = self._music.lengths[works] - spans - 2 * margin + 1
        first = self._music.starts[works] + margin
        start = first + chance.below(free, segments)
        x = _played(self._music, start, n)
        for _ in range(2):  # not in a pause, if that can be helped
            quiet = level(x)[:, 0] < 1e-3
            start = torch.where(quiet, first + chance.below(free, segments), start)
            x = _played(self._music, start, n)
        shift = chance.uniform(-LARGEST_SHIFT, LARGEST_SHIFT, segments) * spans / SEGMENT
        start = start + shift.round().long()
        copied = chance.uniform(0, 1, segments) < COPIED
        y = torch.where(
            copied[:, None], _played(self._copies, start, n), _played(self._music, start, n)
        )
        return toned(chance, x, y)

    def batch(self, chance: Chance, segments: int, frames: int) -> Batch:
        """segments × WINDOWS pairs of windows of `frames` frames, no work in more than one segment."""
        x, y = self._moments(chance, segments)
        hit = chance.rows(MIXED, segments)
        if len(hit):
            others = self._moments(chance, len(hit))
            x[hit], y[hit] = with_other_music(chance, x[hit], y[hit], *others)
        original = spectrogram(x)
        levels, known, inside, tempo = warp(
            chance, band_levels(degrade(chance, y, self.background))
        )
        # centres in disjoint parts, up to the ends, where the surroundings are cut off
        half = (frames - 1) / 2
        room = (original.shape[1] - 1 - 2 * half) / WINDOWS
        part = torch.arange(WINDOWS, device=self.device) + chance.uniform(0, 1, segments, WINDOWS)
        first = torch.round(room * part)
        clean = _windows(original, first.long(), frames)
        there = torch.round((first + half) * tempo[:, None] - half).long()
        degraded = _windows(normalise(levels, known, inside), there, frames)
        pairs = len(degraded)
        # as the ends of a query: frames past them are unknown, and of no help to the others
        cut = chance.rows(CUT, pairs)
        at = there.flatten()[cut][:, None] + torch.arange(frames, device=self.device)
        heard = (at >= 0) & (at < inside.sum(1).repeat_interleave(WINDOWS)[cut][:, None])
        heard &= _between(chance, len(cut), frames)
        known = known.repeat_interleave(WINDOWS, 0)[cut]
        degraded[cut] = normalise(_windows(levels, there, frames)[cut], known, heard)
        hidden = 1 + chance.below(UNKNOWN_EDGE, pairs)
        hidden = hidden * (chance.uniform(0, 1, pairs) < 0.1)
        degraded = degraded * within(chance, hidden)[:, None, :]
        flat = torch.nn.functional.normalize(clean.flatten(1), dim=1)
        return Batch(clean, degraded, flat @ flat.T > ALIKE)


def _played(sounds: _Sounds, first: Tensor, n: int) -> Tensor:
    """n samples [shape=(rows, n)] from each of `first` on, at the speeds of SPANS in turn."""
    played = torch.empty(len(first), n, device=first.device)
    for turn, span in enumerate(SPANS):
        rows = slice(turn, None, len(SPANS))
        if len(first[rows]):
            played[rows] = at_speed(sounds.at(first[rows], span), n)
    return played


def _between(chance: Chance, rows: int, frames: int) -> Tensor:
    """Frames [shape=(rows, frames), bool] between up to PADDING at one end and as many at the other."""
    before, after = chance.below(PADDING + 1, rows, 1), chance.below(PADDING + 1, rows, 1)
    at = torch.arange(frames, device=before.device)
    return (at >= before) & (at < frames - after)


def _windows(pictures: Tensor, first: Tensor, frames: int) -> Tensor:
    """Frames first [shape=(rows, w)] to first + frames of each [shape=(rows * w, frames, BANDS)].

    What reaches past a clip's ends finds nothing there.
    """
    count = first.shape[1]
    at = first[:, :, None] + torch.arange(frames, device=first.device)
    inside = (at >= 0) & (at < pictures.shape[1])
    at = at.clamp(0, pictures.shape[1] - 1).flatten(1)
    found = pictures.gather(1, at[:, :, None].expand(-1, -1, BANDS))
    return found.unflatten(1, (count, frames)).flatten(0, 1) * inside.flatten(0, 1)[:, :, None]


def _as_long_as(work: NDArray[np.int16], copy: NDArray[np.int16]) -> NDArray[np.int16]:
    """A copy of a work, cut to its length, or with the work's own end."""
    return np.concatenate([copy[: len(work)], work[len(copy) :]])


def _from_direct_sound(room: NDArray[np.int16]) -> NDArray[np.float32]:
    """An impulse response from its loudest sample on, of energy 1 [shape=(ROOM,)]."""
    x = room.astype(np.float32)
    x = x[int(np.argmax(np.abs(x))) :][:ROOM]
    return np.pad(x / (np.sqrt(np.sum(x**2)) + 1e-9), (0, ROOM - len(x)))
