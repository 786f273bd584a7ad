"""Pictures of sound side by side in minutes, before a network is trained on any of them.

    python -m benchmarks.experiments.pictures [--clips 12] [--seed 1] [--training MANIFEST SAMPLES] \
        [--encoder FILE]

Clips of the tune split, damaged as in the benchmark, are laid along straight lines on a minute of each of
its works; similarities of patches of the picture, or of what is made of them, are summed along the line, and
the largest sum names the work. Patches are compared as they are (mean off, cosine), and with --training
after a linear discriminant to 128 dimensions, fitted on pairs that training damages (needs torch). Whatever
is to be trained at length has to win here, and what was trained has to beat the linear one.

Of each: the share of clips whose work comes first, and of those whose work's sum lies more than 6 and 14
standard deviations above the mean of the others'; 14 is about what a gate of a millionth lets pass.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.ndimage import maximum_filter, uniform_filter1d
from tqdm import tqdm

from benchmarks.calibration.calibrate import works_of
from benchmarks.damage import Signal
from benchmarks.experiments.encoders import Clip, best_sums, load, made_clips
from fingerprint import spectrogram as front_end
from fingerprint.audio import SAMPLE_RATE
from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY

CELLS = (
    "clean",
    "across+0dB",
    "across-6dB",
    "across-9dB",
    "across-12dB",
    "across-15dB",
    "babble+0dB",
    "babble-5dB",
    "phone-hard",
)
LENGTH = 5.0  # s of a clip
EXCERPT = 60  # s of each work
WINDOW = 43  # frames of a patch: those of the encoder that ships
STEP = 4  # frames from one patch to the next: 0.1 s
REACH = 24  # bins at each side among which a peak is the largest
DIMENSION = 128
Z = (6.0, 14.0)

Matrix = NDArray[np.float32]
Picture = Callable[[Signal], Matrix]


def bins(samples: Signal) -> Matrix:
    """Levels of the bins of a transform in dB [shape=(frames, FFT // 2 + 1)]."""
    window = np.hanning(front_end.FFT + 1)[:-1].astype(np.float32) / (front_end.FFT / 4)
    frames = np.lib.stride_tricks.sliding_window_view(samples, front_end.FFT)[:: front_end.HOP]
    levels = 20 * np.log10(np.abs(np.fft.rfft(frames * window, axis=1)) + 1e-6)
    return np.maximum(levels, front_end.SILENCE).astype(np.float32)


_BANDS = [np.flatnonzero(row) for row in front_end.band_matrix()]


def _largest(levels: Matrix) -> Matrix:
    """The largest bin of each band."""
    return np.stack([levels[:, band].max(axis=1) for band in _BANDS], axis=1)


def power(samples: Signal) -> Matrix:
    """What ships: mean power of each band, normalised."""
    return front_end.spectrogram(samples)


def largest(samples: Signal) -> Matrix:
    """The largest bin instead of the mean power."""
    return front_end.normalise(_largest(bins(samples)))


def peaks(samples: Signal) -> Matrix:
    """Bins that are the largest of ±REACH, in bels above the mean dB of ±REACH; the largest of each band."""
    levels = bins(samples)
    width = 2 * REACH + 1
    above = np.maximum(levels - uniform_filter1d(levels, width, axis=1), 0)
    peak = levels == maximum_filter(levels, (1, width))
    return _largest(np.where(peak, above, 0)) / np.float32(front_end.DB_PER_UNIT)


PICTURES: dict[str, Picture] = {
    "power": power,
    "largest": largest,
    "peaks": peaks,
    "both": lambda samples: np.concatenate([power(samples), peaks(samples)], axis=1),
}


def patches(picture: Matrix, every: int) -> Matrix:
    """Patches of length 1, their mean off, one each `every` steps [shape=(n, WINDOW * bands)]."""
    view = np.lib.stride_tricks.sliding_window_view(picture, WINDOW, axis=0)[:: STEP * every]
    x = view.reshape(len(view), -1).astype(np.float32)
    x -= x.mean(axis=1, keepdims=True)
    return x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-9)


@dataclass(frozen=True)
class Method:
    """Something that makes rows, to be compared by their inner products, of samples."""

    name: str
    rows: Callable[[Signal, int], Matrix]  # (samples, every) → [shape=(n, d)]


def discriminant(
    picture: Picture, pairs: list[tuple[Signal, Signal]]
) -> Callable[[Matrix], Matrix]:
    """Fisher's: variance of clean patches against that of what damage changes, to DIMENSION directions."""
    clean = np.concatenate([patches(picture(x), 8) for x, _ in pairs])
    damaged = np.concatenate([patches(picture(y), 8) for _, y in pairs])
    mean = clean.mean(axis=0)
    change = (damaged - damaged.mean(axis=0)) - (clean - mean)
    total = np.cov((clean - mean).T).astype(np.float64)
    size = len(total)
    floor = 1e-6 * np.trace(total) / size * np.eye(size)
    within = (change.T @ change / len(change)).astype(np.float64) + 0.05 * total + floor
    _, vectors = eigh(total, within, subset_by_index=[size - DIMENSION, size - 1])
    directions = vectors.astype(np.float32)

    def project(x: Matrix) -> Matrix:
        y = (x - mean) @ directions
        return y / (np.linalg.norm(y, axis=1, keepdims=True) + 1e-9)

    return project


def training_pairs(manifest: Path, samples: Path, hours: float) -> list[tuple[Signal, Signal]]:
    """Segments of 10 s of the training music and what training makes of them."""
    from fingerprint.training.augment import Chance, degrade, level
    from fingerprint.training.batches import Corpus

    background = Corpus(manifest, samples).background
    pairs: list[tuple[Signal, Signal]] = []
    rows = 16
    for batch in tqdm(range(round(hours * 360 / rows)), "pairs", disable=None):
        chance = Chance("cpu", 7, batch)
        x = background.music(chance, rows, 10 * SAMPLE_RATE)
        x = 0.1 * x / level(x)
        y = degrade(chance, x.clone(), background)
        pairs += zip(x.numpy(), y.numpy(), strict=True)
    return pairs


def rows_of(
    picture: Picture, project: Callable[[Matrix], Matrix], samples: Signal, every: int
) -> Matrix:
    """Projected patches of the picture of samples."""
    return project(patches(picture(samples), every))


def _as_they_are(x: Matrix) -> Matrix:
    return x


def network(path: Path) -> Method:
    """The encoder of a weights file or checkpoint."""
    encoder = load(path)
    return Method(
        path.name, lambda samples, every: encoder.embed(front_end.spectrogram(samples), every)
    )


def compare(
    methods: list[Method], works: list[Signal], clips: list[Clip], off: bool
) -> dict[Clip, tuple[bool, float]]:
    """Whether the right work comes first, and its z, for each clip.

    Several methods' similarities are added, each in its own standard deviations. off : the mean of the
    clip's rows is taken off them, that of all works off theirs.
    """
    stored, bounds = [], np.zeros(1, np.int64)
    for method in methods:
        made = [method.rows(work, REFERENCE_EVERY) for work in works]
        bounds = np.cumsum([0, *map(len, made)])
        rows = np.concatenate(made)
        stored.append(rows - rows.mean(axis=0) if off else rows)
    found = {}
    for clip in clips:
        total: Matrix = np.zeros((), np.float32)
        for method, rows in zip(methods, stored, strict=True):
            query = method.rows(clip.samples, QUERY_EVERY)
            similarity = (query - query.mean(axis=0) if off else query) @ rows.T
            total = total + similarity / similarity.std()
        best = np.empty(len(works), np.float32)
        best_sums(np.ascontiguousarray(total, np.float32), bounds, REFERENCE_EVERY, best)
        wrong = np.delete(best, clip.work)
        z = (best[clip.work] - wrong.mean()) / wrong.std()
        found[clip] = bool(best[clip.work] > wrong.max()), float(z)
    return found


def line(name: str, found: dict[Clip, tuple[bool, float]]) -> str:
    """First and z of each cell and over all."""
    shares = []
    for cell in (*CELLS, "all"):
        same = [f for clip, f in found.items() if cell in (clip.cell, "all")]
        first = 100 * np.mean([f for f, _ in same])
        above = " ".join(f"{100 * np.mean([z > least for _, z in same]):3.0f}" for least in Z)
        shares.append(f"{first:4.0f} ({above})")
    return f"{name:28} " + " ".join(shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clips", type=int, default=12, help="of each damage")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pictures", nargs="*", choices=PICTURES, default=list(PICTURES))
    parser.add_argument("--training", type=Path, nargs=2, metavar=("MANIFEST", "SAMPLES"))
    parser.add_argument(
        "--hours", type=float, default=4.0, help="of music the discriminant is fitted on"
    )
    parser.add_argument(
        "--encoder", type=Path, nargs="*", default=[], help="weights or checkpoints to set beside"
    )
    args = parser.parse_args()
    middles = []
    for item, samples in works_of("tune"):
        first = max(0, (len(samples) - EXCERPT * SAMPLE_RATE) // 2)
        middles.append((item.package, samples[first : first + EXCERPT * SAMPLE_RATE]))
    works = [samples for _, samples in middles]
    clips = made_clips(middles, args.clips, args.seed, CELLS, (LENGTH,))
    pairs = []
    if args.training:
        manifest, samples = args.training
        pairs = training_pairs(manifest, samples, args.hours)
    print(f"{len(works)} works, {args.clips} clips a cell; first % (z > 6, z > 14, %)")
    print(" " * 28, *(f"{cell:>13}" for cell in (*CELLS, "all")))
    networks = [network(path) for path in args.encoder]
    untrained = [
        Method(name, partial(rows_of, PICTURES[name], _as_they_are)) for name in args.pictures
    ]
    linear = [
        Method(
            f"{name}, linear", partial(rows_of, PICTURES[name], discriminant(PICTURES[name], pairs))
        )
        for name in args.pictures
        if pairs
    ]
    together = [[a, b] for a in networks for b in (*untrained, *linear)]
    for methods in (*([m] for m in (*networks, *linear, *untrained)), *together):
        name = " + ".join(method.name for method in methods)
        for off in (False, True):
            found = compare(methods, works, clips, off)
            print(line(f"{name}{', mean off' if off else ''}", found), flush=True)


if __name__ == "__main__":
    main()
