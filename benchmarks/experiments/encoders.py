"""Encoders side by side, before any index: which finds the clip's recording by its embeddings alone.

    python -m benchmarks.experiments.encoders WEIGHTS|CHECKPOINT... [--clips 60] [--cells across-9dB ...]
        [--seed 1] [--split train --works 128]

Clips of the tune split, damaged as in the benchmark (`benchmarks.degrade`), the same for every encoder, are
compared with all works of the split at every offset: similarities are summed along the clip, and the largest
sum names the work. With --split train it is music that the encoder has seen, which shows what it knows by
heart. That is done with exact embeddings and, of a weights file, with what its codes leave of them; a
checkpoint of training (.pt, needs torch) has no codes yet. The margin is how far the right work's sum lies
above the best wrong one, in standard deviations of the wrong works' sums.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from numba import njit
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.calibration.calibrate import fingerprint_of, stretch, works_of
from benchmarks.damage import Signal
from benchmarks.degrade import DEGRADATIONS, Sources, degrade, rng_for
from fingerprint.audio import SAMPLE_RATE
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY

CELLS = (
    "clean",
    "mp3-32",
    "pink+0dB",
    "pink-5dB",
    "babble-5dB",
    "room+babble+5dB",
    "phone-hard",
    "speech+6dB",
)
LENGTHS = (1.0, 2.0, 5.0)  # s

Matrix = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Clip:
    """Damaged samples at 8 kHz of work number `work`."""

    work: int
    cell: str
    length: float
    samples: Signal


@dataclass(frozen=True)
class Outcome:
    """Whether the right work came first, and by how much."""

    first: bool
    margin: float


def made_clips(
    works: Sequence[tuple[str, Signal]],
    clips: int,
    seed: int,
    cells: Sequence[str] = CELLS,
    lengths: Sequence[float] = LENGTHS,
) -> list[Clip]:
    """`clips` clips of each cell and length."""
    sources = Sources.from_corpora("tune")
    made = []
    for cell in cells:
        for length in lengths:
            for number in tqdm(range(clips), f"{cell} {length:g} s", disable=None, leave=False):
                rng = rng_for(seed, cell, f"{length:g} s", number)
                work = int(rng.integers(len(works)))
                samples = stretch(rng, works[work][1], int(length * SAMPLE_RATE))
                chain = DEGRADATIONS[cell].draw(rng)
                damaged = degrade(samples, SAMPLE_RATE, chain, rng, sources)
                lowered = soxr.resample(damaged.mono, damaged.rate, SAMPLE_RATE)
                made.append(Clip(work, cell, length, lowered))
    return made


def outcomes(encoder: Encoder, library: Sequence[Matrix], clips: Sequence[Clip]) -> list[Outcome]:
    """What becomes of each clip; library: embeddings of the works at the reference's step."""
    stored = np.concatenate(library)
    bounds = np.cumsum([0, *map(len, library)])
    found = []
    for clip in clips:
        try:
            query = fingerprint_of(clip.samples, encoder, QUERY_EVERY).embeddings
        except AudioError:  # a pause in the music
            found.append(Outcome(False, 0.0))
            continue
        best = np.empty(len(library), np.float32)
        best_sums(query @ stored.T, bounds, REFERENCE_EVERY, best)
        wrong = np.delete(best, clip.work)
        margin = (best[clip.work] - wrong.max()) / wrong.std()
        found.append(Outcome(bool(margin > 0), float(margin)))
    return found


@njit(cache=True, nogil=True)
def best_sums(similarity, bounds, every, best):
    """best[w] = the largest sum of similarities along an offset of work w."""
    steps = len(similarity)
    for work in range(len(best)):
        first, end = bounds[work], bounds[work + 1]
        best[work] = -np.inf
        for offset in range(-steps, every * (end - first)):
            total = np.float32(0.0)
            # reference step j lies under query step every * j - offset
            for j in range(max(0, -(-offset // every)), end - first):
                i = every * j - offset
                if i >= steps:
                    break
                total += similarity[i, first + j]
            best[work] = max(best[work], total)


def load(path: Path) -> Encoder:
    """The encoder of a weights file, or of a checkpoint, without codes."""
    if path.suffix != ".pt":
        return Encoder.load(path)
    from fingerprint.training.export import encoder_of

    return encoder_of(path)


def _shares(found: dict[Clip, Outcome], cell: str) -> str:
    """Share of the clips found and mean margin, length by length."""
    shares = []
    for length in LENGTHS:
        same = [o for c, o in found.items() if c.length == length and cell in (c.cell, "all")]
        first, margin = np.mean([o.first for o in same]), np.mean([o.margin for o in same])
        shares.append(f"{length:g} s {100 * first:5.1f} ({margin:5.2f})")
    return "  ".join(shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("encoders", type=Path, nargs="+", metavar="WEIGHTS|CHECKPOINT")
    parser.add_argument("--clips", type=int, default=60, help="of each damage and length")
    parser.add_argument(
        "--cells", nargs="+", choices=DEGRADATIONS, default=CELLS, metavar="NAME", help="damages"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--split", choices=("tune", "train"), default="tune")
    parser.add_argument(
        "--works", type=int, help="so many of the split, drawn at random; default: all"
    )
    args = parser.parse_args()
    works = [(item.package, samples) for item, samples in works_of(args.split, args.works)]
    clips = made_clips(works, args.clips, args.seed, args.cells)
    print(f"{len(works)} works ({args.split}), {args.clips} clips a cell; found first, % (margin)")
    for path in args.encoders:
        encoder = load(path)
        exact = [fingerprint_of(x, encoder, REFERENCE_EVERY).embeddings for _, x in works]
        libraries = {"exact": exact}
        if encoder.codec is not None:
            codec = encoder.codec
            libraries["codes"] = [codec.decode(*codec.encode(work)) for work in exact]
        for name, library in libraries.items():
            print(f"{path.name}, {name}")
            found = dict(zip(clips, outcomes(encoder, library, clips), strict=True))
            for cell in (*args.cells, "all"):
                print(f"  {cell:16} {_shares(found, cell)}", flush=True)


if __name__ == "__main__":
    main()
