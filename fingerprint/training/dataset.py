"""The training corpus as 8 kHz samples on disk, and endless batches of pairs drawn from it.

    python -m benchmarks.corpora fetch --split train
    python -m benchmarks.corpora list --split train --playable > MANIFEST
    python -m fingerprint.training.dataset MANIFEST FOLDER

decodes every file named in a CSV manifest (columns `id`, `kind`, `path`; kinds `music`, `rendered-module`,
`rendered-midi`, `speech`, `noise`, `impulse-response`) to FOLDER/<id>.npy, int16, at most ten minutes of
each, and music a second time through a lossy codec to FOLDER/<id>.codec.npy. What is there already is
kept, so it can be stopped and resumed.
"""

import argparse
import csv
import io
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fingerprint.audio import SAMPLE_RATE, Limits, read_audio
from fingerprint.errors import AudioError
from fingerprint.spectrogram import BANDS, band_levels, spectrogram
from fingerprint.training.augment import Background, Signal, degrade, warp

MUSIC = ("music", "rendered-module", "rendered-midi")
SEGMENT = 6.0  # seconds that share one degradation
WINDOWS = 6  # pairs drawn from one segment: each other's hard negatives
# Correlation of clean pictures above which two moments count as the same music: repeats of rendered
# loops lie above it, neighbouring moments of sustained chords mostly below.
ALIKE = 0.9
LARGEST_SHIFT = 0.05  # s, half a query step: how far a query's frame can lie beside the reference's


LONGEST = 600.0  # seconds kept of a file
# What copies of music have been through: format, encoder, sample rate, bits a second.
LOSSY = (
    ("mp3", "libmp3lame", 22050, 24_000),
    ("mp3", "libmp3lame", 22050, 32_000),
    ("ogg", "libopus", 16000, 12_000),
    ("ogg", "libopus", 24000, 16_000),
    ("adts", "aac", 16000, 24_000),
)


@dataclass(frozen=True)
class Batch:
    """Pairs of windows [shape=(pairs, frames, BANDS)]; pair i of both is the same moment of music.

    `same` [shape=(pairs, pairs)] marks pairs whose clean pictures are alike, themselves included: a
    loop's repeats are not wrong answers.
    """

    clean: NDArray[np.float32]
    degraded: NDArray[np.float32]
    same: NDArray[np.bool_]


def items(manifest: Path, folder: Path) -> dict[str, list[Path]]:
    """Decoded files of a manifest by kind."""
    kinds: dict[str, list[Path]] = {}
    with manifest.open(newline="") as file:
        for row in csv.DictReader(file):
            path = folder / f"{row['id']}.npy"
            if path.exists():
                kinds.setdefault(row["kind"], []).append(path)
    return kinds


def music(manifest: Path, folder: Path) -> list[Path]:
    """Decoded files of all music in a manifest."""
    kinds = items(manifest, folder)
    return [path for kind in MUSIC for path in kinds.get(kind, [])]


def _samples(x: NDArray[np.int16]) -> Signal:
    return x.astype(np.float32) / np.float32(32768)


class Corpus:
    """Samples of a manifest's items by kind, memory-mapped."""

    def __init__(self, manifest: Path, folder: Path) -> None:
        kinds = items(manifest, folder)
        works = music(manifest, folder)
        self._music = [self._load(path) for path in works]
        copies = [path.with_suffix(".codec.npy") for path in works]
        self._copies = [self._load(copy) if copy.exists() else None for copy in copies]
        # Longer works more often, but not in proportion: variety matters more than minutes.
        lengths = np.array([len(x) for x in self._music], float)
        weight = np.where(lengths >= (SEGMENT + 1) * SAMPLE_RATE, np.sqrt(lengths), 0)
        self._weight = weight / weight.sum()
        self._speech = [self._load(path) for path in kinds.get("speech", [])]
        self._ambience = [self._load(path) for path in kinds.get("noise", [])]
        self._ambience = [x for x in self._ambience if len(x) >= SAMPLE_RATE]
        rooms = [self._load(path) for path in kinds.get("impulse-response", [])]
        self.background = Background(
            music=lambda rng, n: self._segment(rng, self._any_music(rng), n),
            ambience=lambda rng, n: self._tiled(rng, self._ambience, n),
            speech=lambda rng, n: self._tiled(rng, self._speech, n),
            rooms=[self._from_direct_sound(room) for room in rooms],
        )

    @staticmethod
    def _load(path: Path) -> NDArray[np.int16]:
        return np.load(path, mmap_mode="r")

    @staticmethod
    def _from_direct_sound(room: NDArray[np.int16]) -> Signal:
        x = np.asarray(room, np.float32)
        x = x[int(np.argmax(np.abs(x))) :][:SAMPLE_RATE]
        return (x / (np.sqrt(np.sum(x**2)) + 1e-9)).astype(np.float32)

    def _any_music(self, rng: Generator) -> NDArray[np.int16]:
        return self._music[rng.choice(len(self._music), p=self._weight)]

    @staticmethod
    def _segment(rng: Generator, x: NDArray[np.int16], n: int) -> Signal:
        start = rng.integers(len(x) - n + 1)
        return _samples(x[start : start + n])

    @staticmethod
    def _tiled(rng: Generator, sounds: list[NDArray[np.int16]], n: int) -> Signal:
        """Sounds one after the other, each brought to one level, until n samples are filled."""
        pieces: list[Signal] = []
        have = 0
        while have < n:
            x = np.asarray(sounds[rng.integers(len(sounds))], np.float32)
            if len(x) > n:
                start = rng.integers(len(x) - n + 1)
                x = x[start : start + n]
            pieces.append(x / (np.sqrt(np.mean(x**2)) + 1.0))
            have += len(x)
        return np.concatenate(pieces)[:n]

    def batch(self, rng: Generator, segments: int, frames: int) -> Batch:
        """segments × WINDOWS pairs of windows of `frames` frames."""
        n = int(SEGMENT * SAMPLE_RATE)
        pairs = segments * WINDOWS
        clean = np.empty((pairs, frames, BANDS), np.float32)
        degraded = np.empty_like(clean)
        # no work twice in a batch
        works = rng.choice(len(self._music), segments, replace=False, p=self._weight)
        for s, work in enumerate(works):
            music = self._music[work]
            copy = self._copies[work]
            margin = int(LARGEST_SHIFT * SAMPLE_RATE)
            for _ in range(10):
                start = int(rng.integers(margin, len(music) - n - margin))
                x = _samples(music[start : start + n])
                if np.sqrt(np.mean(x**2)) > 1e-3:
                    break
            shift = int(rng.integers(-margin, margin + 1))
            source = copy if copy is not None and rng.random() < 0.4 else music
            y = _samples(source[start + shift : start + shift + n])
            if len(y) < n:
                y = _samples(music[start + shift : start + shift + n])
            original = spectrogram(x)
            changed, tempo = warp(rng, band_levels(degrade(rng, y, self.background)))
            # centres in disjoint parts, up to the ends, where the surroundings are cut off
            half = (frames - 1) / 2
            room = (len(original) - 1 - 2 * half) / WINDOWS
            for w in range(WINDOWS):
                centre = round(half + room * (w + rng.random()))
                first = round(centre - half)
                i = s * WINDOWS + w
                clean[i] = original[first : first + frames]
                picture = _window(changed, round((first + half) * tempo - half), frames)
                if rng.random() < 0.1:
                    missing = int(rng.integers(1, 16))
                    picture[slice(0, missing) if rng.random() < 0.5 else slice(-missing, None)] = 0
                degraded[i] = picture
        flat = clean.reshape(pairs, -1)
        flat = flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6)
        return Batch(clean, degraded, flat @ flat.T > ALIKE)


def _window(picture: NDArray[np.float32], first: int, frames: int) -> NDArray[np.float32]:
    """Frames first to first + frames; what reaches past a clip's ends finds nothing there."""
    inside = picture[max(first, 0) : max(first + frames, 0)]
    before = min(max(-first, 0), frames - len(inside))
    return np.pad(inside, ((before, frames - before - len(inside)), (0, 0)))


def through_codec(samples: NDArray[np.int16], codec: tuple[str, str, int, int]) -> Signal:
    """8 kHz samples encoded by one of LOSSY and decoded again, moved to where they were."""
    format, encoder, rate, bits = codec
    file = io.BytesIO()
    with av.open(file, "w", format=format) as container:
        stream: Any = container.add_stream(encoder, rate=rate, layout="mono", bit_rate=bits)
        resampler = av.AudioResampler(stream.format, "mono", rate, frame_size=stream.frame_size)
        for frames in (_frames(samples, resampler), iter([None])):
            for frame in frames:
                container.mux(stream.encode(frame))
    file.seek(0)
    decoded = read_audio(file)
    lag = _lag(samples, decoded)
    decoded = np.pad(decoded, (max(0, -lag), 0))[max(0, lag) :]
    return decoded[: len(samples)]


def _frames(
    samples: NDArray[np.int16], resampler: av.AudioResampler
) -> Iterator[av.AudioFrame | None]:
    frame = av.AudioFrame.from_ndarray(samples[None, :].copy(), format="s16", layout="mono")
    frame.sample_rate = SAMPLE_RATE
    yield from resampler.resample(frame)
    yield from resampler.resample(None)


def _lag(samples: NDArray[np.int16], decoded: Signal) -> int:
    """Samples by which `decoded` comes late, from ten seconds in the middle of both."""
    n = 10 * SAMPLE_RATE
    first = max(0, (min(len(samples), len(decoded)) - n) // 2)
    a = samples[first : first + n].astype(np.float32)
    b = decoded[first : first + n]
    product = np.fft.irfft(np.fft.rfft(b, 2 * n) * np.conj(np.fft.rfft(a, 2 * n)))
    lag = int(np.argmax(product))
    return lag - 2 * n if lag > n else lag


def decode(row: dict[str, str], folder: Path) -> str | None:
    """Decode one row's file, and for music make its lossy copy; why it could not be done, or None."""
    path = folder / f"{row['id']}.npy"
    copy = path.with_suffix(".codec.npy")
    try:
        if not path.exists():
            _keep(
                path, read_audio(row["path"], Limits(max_seconds=1e5))[: int(LONGEST * SAMPLE_RATE)]
            )
        if row["kind"] in MUSIC and not copy.exists():
            codec = LOSSY[int(row["id"], 16) % len(LOSSY)]
            _keep(copy, through_codec(np.load(path), codec))
    except AudioError as error:
        return error.detail
    return None


def _keep(path: Path, samples: Signal) -> None:
    """Write int16 samples beside, then rename: a kill leaves no half file."""
    beside = path.with_suffix(".partial.npy")
    np.save(beside, np.round(samples * 32767).clip(-32768, 32767).astype(np.int16))
    beside.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    with args.manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with ThreadPoolExecutor() as pool:
        for problem in pool.map(lambda row: decode(row, args.folder), rows):
            if problem:
                print(problem, file=sys.stderr)


if __name__ == "__main__":
    main()
