"""Compare ways to fit the chance of scores: docs/decisions/significance.md.

    python -m benchmarks.calibration.calibrate --scores FILE.json
    python -m benchmarks.calibration.tails FILE.json [--halves 100]

The works are cut into two halves again and again; each way is fitted on one half, and says how often chance
reaches what the other half's clips reached. Printed is, for each way and E-value, observed over stated: the
mean of all halves and lengths, and the share of them that is off by a factor of two or more. Related pairs
are left out, those that `index.tail_fit` finds in all works; of the E-value 0.001, so few are expected that
only the mean says something.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import genpareto
from tqdm import tqdm

from index.tail_fit import Look, fit, tail_of, without

E_VALUES = (1.0, 0.1, 0.01, 0.001)
Scores = NDArray[np.float64]
# From looks of one half: the expected number of peaks a clip that reach given scores, by clip length.
Expected = Mapping[float, Callable[[Scores], Scores]]
Way = Callable[[Sequence[Look]], Expected]


def by_length(looks: Sequence[Look]) -> dict[float, list[Look]]:
    return {
        length: [look for look in looks if look.length == length]
        for length in sorted({look.length for look in looks})
    }


def scores_of(looks: Sequence[Look]) -> Scores:
    return np.sort([score for look in looks for score in look.peaks.values()])[::-1]


def smooth(rate: float) -> Way:
    """As `index.tail_fit` does it."""

    def way(looks: Sequence[Look]) -> Expected:
        tail = tail_of(looks, rate)

        def expected(look: Look, scores: Scores) -> Scores:
            sizes = look.query_embeddings, look.library_embeddings
            return np.exp([tail.log_e_value(score, *sizes) for score in scores])

        return {length: partial(expected, same[0]) for length, same in by_length(looks).items()}

    return way


def apart(rate: float, largest_only: bool) -> Way:
    """An exponential for each length by itself, of all peaks or of each clip's largest one."""

    def one(looks: Sequence[Look]) -> Callable[[Scores], Scores]:
        scores = scores_of(looks)
        if largest_only:
            scores = np.sort([max(look.peaks.values(), default=0.0) for look in looks])[::-1]
        count = max(1, round(rate * len(looks)))
        threshold = scores[count]
        mean = np.mean(scores[:count] - threshold)
        return lambda x: rate * np.exp(-(x - threshold) / mean)

    return each(one)


def pareto(rate: float) -> Way:
    """A generalised Pareto distribution for each length by itself, of no bounded tail."""

    def one(looks: Sequence[Look]) -> Callable[[Scores], Scores]:
        scores = scores_of(looks)
        count = max(1, round(rate * len(looks)))
        threshold, excesses = scores[count], scores[:count] - scores[count]
        shape, _, scale = genpareto.fit(excesses, floc=0)
        if shape < 0:
            shape, scale = 0.0, excesses.mean()
        # below the threshold the density of the tail goes on
        return lambda x: np.where(
            x > threshold,
            rate * genpareto.sf(x - threshold, shape, 0, scale),
            rate * np.exp(-(x - threshold) / scale),
        )

    return each(one)


def mixture(rate: float) -> Way:
    """Two exponentials for each length by itself, by expectation-maximisation."""

    def one(looks: Sequence[Look]) -> Callable[[Scores], Scores]:
        scores = scores_of(looks)
        count = max(2, round(rate * len(looks)))
        threshold, excesses = scores[count], scores[:count] - scores[count]
        share, fast, slow = 0.8, 0.7 * excesses.mean(), 1.6 * excesses.mean()
        for _ in range(200):
            first = share * np.exp(-excesses / fast) / fast
            second = (1 - share) * np.exp(-excesses / slow) / slow
            belongs = first / (first + second)
            share = belongs.mean()
            fast = np.average(excesses, weights=belongs + 1e-9)
            slow = np.average(excesses, weights=1 - belongs + 1e-9)
        return lambda x: (
            rate
            * (
                share * np.exp(-(x - threshold) / fast)
                + (1 - share) * np.exp(-(x - threshold) / slow)
            )
        )

    return each(one)


def each(one: Callable[[Sequence[Look]], Callable[[Scores], Scores]]) -> Way:
    """A way that fits every length by itself."""
    return lambda looks: {length: one(same) for length, same in by_length(looks).items()}


WAYS: dict[str, Way] = {
    "largest scores, strongest tenth, lengths apart": apart(0.1, True),
    "peaks, strongest 0.1 a clip, lengths apart": apart(0.1, False),
    "peaks, strongest 1 a clip, lengths apart": apart(1.0, False),
    "peaks, strongest 0.1 a clip, along one line": smooth(0.1),
    "peaks, strongest 0.3 a clip, along one line": smooth(0.3),
    "peaks, strongest 1 a clip, along one line (now)": smooth(1.0),
    "generalised Pareto, strongest 0.3 a clip": pareto(0.3),
    "generalised Pareto, strongest 1 a clip": pareto(1.0),
    "two exponentials, strongest 1 a clip": mixture(1.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("scores", type=Path, metavar="FILE.json")
    parser.add_argument("--halves", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--altered", action="store_true", help="what was found under the ladder")
    args = parser.parse_args()
    kept = json.loads(args.scores.read_text())
    looks = [Look(**look) for look in kept["altered" if args.altered else "unaltered"]]
    looks = without(looks, fit(looks).related)
    works = np.array(sorted({look.work for look in looks}))
    rng = np.random.default_rng(args.seed)
    ratios: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for _ in tqdm(range(args.halves), "halves", disable=None):
        chosen = set(rng.permutation(works)[: len(works) // 2].tolist())
        fitted = [look for look in looks if look.work in chosen]
        asked = by_length([look for look in looks if look.work not in chosen])
        for name, way in WAYS.items():
            expected = way(fitted)
            for length, same in asked.items():
                stated = expected[length](scores_of(same))
                ratios[name].append([np.sum(stated <= e) / (e * len(same)) for e in E_VALUES])
    head = "".join(f"  E = {e:<14g}" for e in E_VALUES)
    print(f"{'observed / stated, and off by 2 or more':50}{head}")
    for name, rows in ratios.items():
        table = np.array(rows)
        off = np.mean((table <= 0.5) | (table >= 2), axis=0)
        cells = zip(table.mean(axis=0), off, strict=True)
        print(
            f"{name:50}"
            + "".join(f"  {mean:5.2f} {100 * share:5.0f} %    " for mean, share in cells)
        )


if __name__ == "__main__":
    main()
