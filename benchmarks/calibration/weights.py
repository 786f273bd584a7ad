"""Compare ways to weigh a pair of embeddings, on music of the tune packages: docs/decisions/significance.md.

    python -m benchmarks.calibration.weights [--clips 200] [--encoder WEIGHTS]

In turn, each quarter of the packages is left out of a library of the rest. Clips of it, half of them
damaged, are laid over the library at every place: the best run of weights along one offset is chance's. Laid
over the work that they were cut from, it is the score of what should be found. The tail of the former says
which score has an E-value of a millionth in a library of LIBRARY embeddings; how many of the latter lie above
it is what a way to weigh is good for. Prices are in units of 0.1 of similarity, but for the standard score.
"""

import argparse
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.calibration.calibrate import (
    background_of,
    codes_of,
    fingerprint_of,
    stretch,
    tune_works,
)
from benchmarks.damage import degrade
from fingerprint.audio import SAMPLE_RATE
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY

LENGTHS = (1.0, 2.0, 5.0)  # seconds
LIBRARY = 350_000  # embeddings: 48 hours of music
LOWEST = -2.0
FOLDS = 4  # parts of the packages, each of which is left out once
TAIL = 0.1  # share of the scores that a tail is fitted to

Matrix = NDArray[np.float32]


class Sides(NamedTuple):
    """What is known of embeddings by themselves [shape=(n,) each]."""

    mean: Matrix  # of their similarity to music at large,
    deviation: Matrix  # and its standard deviation
    nearest: Matrix  # similarity to the nearest centroid
    largest: Matrix  # largest similarity to any centroid


def sides(embeddings: Matrix, encoder: Encoder) -> Sides:
    mean = embeddings @ encoder.background_mean
    variance = np.einsum("nd,nd->n", embeddings @ encoder.background_covariance, embeddings)
    largest = (embeddings @ encoder.codec.coarse.T).max(axis=1)
    return Sides(
        mean, np.sqrt(np.maximum(variance, 1e-6)), encoder.codec.crowding(embeddings), largest
    )


def standard(similarity: Matrix, q: Sides, r: Sides) -> Matrix:
    """Standard score against music at large, off both sides."""
    of_query = (similarity - q.mean[:, None]) / q.deviation[:, None]
    return np.float32(0.5) * (of_query + (similarity - r.mean) / r.deviation)


def above(side: str, similarity: Matrix, q: Sides, r: Sides) -> Matrix:
    """Similarity above the mean of both sides' crowding, in units of 0.1."""
    crowding = 0.5 * (getattr(q, side)[:, None] + getattr(r, side))
    return (similarity - crowding) / np.float32(0.1)


WAYS: dict[str, tuple[Callable[[Matrix, Sides, Sides], Matrix], float]] = {
    "standard score, less 3": (standard, 3.0),
    "plain similarity, less 4": (lambda similarity, q, r: similarity / np.float32(0.1), 4.0),
    "above largest to a centroid, less 1.5": (partial(above, "largest"), 1.5),
    "above nearest centroid, less 1": (partial(above, "nearest"), 1.0),
    "above nearest centroid, less 1.5": (partial(above, "nearest"), 1.5),
    "above nearest centroid, less 2": (partial(above, "nearest"), 2.0),
}


@njit(cache=True)
def best_run(weights, every):
    """Largest sum of consecutive pairs (i, j), (i + every, j + 1), … of weights [shape=(query, library)]."""
    best = np.float32(0.0)
    for phase in range(every):
        runs = np.zeros(weights.shape[1], np.float32)
        for i in range(phase, len(weights), every):
            before = np.float32(0.0)
            for j in range(weights.shape[1]):
                run = max(before, np.float32(0.0)) + weights[i, j]
                before = runs[j]
                runs[j] = run
                best = max(best, run)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--encoder", type=Path, help="weights; default: those that ship")
    parser.add_argument("--clips", type=int, default=200, help="of each length")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    encoder = Encoder.load(args.encoder)
    works = [(item.package, samples) for item, samples in tune_works()]
    codes = [codes_of(samples, encoder) for _, samples in tqdm(works, "library", disable=None)]
    stored = [encoder.codec.decode(c.lists, c.codes) for c in codes]
    packages = sorted({package for package, _ in works})
    rng = np.random.default_rng(args.seed)
    print(f"{'length':6} {'weight':38}  tail of chance   E = 1e-6   accepted: clean, damaged")
    for length in LENGTHS:
        chance: dict[str, list[float]] = {way: [] for way in WAYS}
        clean: dict[str, list[float]] = {way: [] for way in WAYS}
        damaged: dict[str, list[float]] = {way: [] for way in WAYS}
        steps, space = 0, 0.0
        for fold in range(FOLDS):
            out = set(packages[fold::FOLDS])
            inside = [i for i, (package, _) in enumerate(works) if package not in out]
            outside = [i for i, (package, _) in enumerate(works) if package in out]
            rest = np.concatenate([stored[i] for i in inside])
            rest_sides = sides(rest, encoder)
            background = background_of([works[i][1] for i in outside])
            for k in tqdm(range(args.clips // FOLDS), f"{length:g} s", disable=None):
                work = outside[rng.integers(len(outside))]
                clip = stretch(rng, works[work][1], int(length * SAMPLE_RATE))
                if k % 2:
                    clip = degrade(rng, clip, background)
                try:
                    query = fingerprint_of(clip, encoder, QUERY_EVERY).embeddings
                except AudioError:  # a pause in the music
                    continue
                steps, space = len(query), space + len(query) * len(rest)
                asked, own = sides(query, encoder), stored[work]
                for way, (weigh, price) in WAYS.items():
                    for library, library_sides, scores in (
                        (rest, rest_sides, chance[way]),
                        (own, sides(own, encoder), (damaged if k % 2 else clean)[way]),
                    ):
                        weights = weigh(query @ library.T, asked, library_sides) - np.float32(price)
                        scores.append(float(best_run(np.maximum(weights, LOWEST), REFERENCE_EVERY)))
        for way in WAYS:
            best = np.array(chance[way])
            threshold = np.quantile(best, 1 - TAIL)
            decay = 1 / np.mean(best[best > threshold] - threshold)
            density = np.sum(best > threshold) / space * math.exp(decay * threshold)
            least = math.log(density * steps * LIBRARY / 1e-6) / decay
            shares = [100 * np.mean(np.array(found[way]) > least) for found in (clean, damaged)]
            print(
                f"{length:4g} s {way:38}  exp(-{decay:5.2f} S) {least:9.1f} "
                f"{shares[0]:12.0f} % {shares[1]:5.0f} %"
            )


if __name__ == "__main__":
    main()
