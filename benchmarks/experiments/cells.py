"""How lists of a large index are divided into cells, and what that finds for so many comparisons.

    python -m benchmarks.experiments.cells

Of embeddings of the tune packages' music, as it is, under pink noise as loud as it, sped up by 5 % and mixed
two and two: how often that of the same moment is among so many of 42 million stored ones (100,000 recordings
of 210 s), in the lists whose product with it is largest, in the nearest lists, and in the nearest cells
(`fingerprint.training.codebooks` trains them). The 42 million are taken to be spread over lists and cells as
the train packages' music is.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import soxr
from numpy.random import Generator
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.calibration.calibrate import fingerprint_of, library_of, tune_works
from benchmarks.scale import noisy
from fingerprint.audio import SAMPLE_RATE
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY
from index.segment import Codes, concatenate

STORED = 42_000_000
BUDGETS = (12_500, 25_000, 50_000, 100_000, 200_000, 400_000)
WORKS = 70
PIECE = 20  # s
FASTER = 1.05
# Similarity under which a query's embedding has nothing of the moment left to be found by.
ALIKE = 0.3
ROWS = 256  # embeddings ranked at once: bounds memory
Signal = NDArray[np.float32]
Ranks = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Pairs(NamedTuple):
    """Embeddings that ask [shape=(n, dimension)], and the codes of the stored ones of the same moments."""

    asking: NDArray[np.float32]
    stored: Codes


def pieces(kind: str, sounds: list[Signal], rng: Generator) -> Iterator[tuple[int, float, Signal]]:
    """One of each sound: its number, the second at which it begins, and the piece."""
    for number, sound in enumerate(sounds):
        start = int(rng.integers(0, len(sound) - int(PIECE * FASTER * SAMPLE_RATE)))
        cut = sound[start : start + PIECE * SAMPLE_RATE]
        if kind == "noise":
            cut = noisy(cut, rng, 0.0)
        elif kind == "sped up":
            longer = sound[start : start + int(PIECE * FASTER * SAMPLE_RATE)]
            cut = soxr.resample(longer, SAMPLE_RATE * FASTER, SAMPLE_RATE)
        elif kind == "mixed":
            other = sounds[(number + 7) % len(sounds)][: len(cut)]
            cut = cut + other * (_level(cut) / max(1e-6, _level(other)))
        yield number, start / SAMPLE_RATE, cut


def _level(sound: Signal) -> float:
    return float(np.sqrt(np.mean(sound**2)))


def pairs(
    kind: str, sounds: list[Signal], library: list[Codes], encoder: Encoder, rng: Generator
) -> Pairs:
    """Of one kind."""
    asking, stored = [], []
    for number, start, piece in pieces(kind, sounds, rng):
        try:
            made = fingerprint_of(piece, encoder, QUERY_EVERY)
        except AudioError:  # a pause in the music
            continue
        known = encoder.codec.decode(library[number].lists, library[number].codes)
        tempo = FASTER if kind == "sped up" else 1.0
        for i, embedding in enumerate(made.embeddings):
            second = start + tempo * (made.start + i * made.step) - made.start
            nearest = round(second / (REFERENCE_EVERY * made.step))
            around = slice(max(0, nearest - 1), nearest + 2)
            likeness = known[around] @ embedding
            if len(likeness) and likeness.max() >= ALIKE:
                best = around.start + int(np.argmax(likeness))
                asking.append(embedding)
                stored.append(library[number][best : best + 1])
    return Pairs(np.array(asking), concatenate(stored, encoder.codec.code_size))


def found(
    asking: NDArray[np.float32],
    sought: NDArray[np.int64],
    ranks: Ranks,
    shares: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Share of what is sought that is within each of the budgets [shape=(budgets,)].

    sought : numbers of the lists or cells that hold it [shape=(n,)]; shares : of the library in each
    """
    hits = np.zeros(len(BUDGETS))
    for first in range(0, len(asking), ROWS):
        near = ranks(asking[first : first + ROWS])
        at = sought[first : first + ROWS]
        own = np.take_along_axis(near, at[:, None], axis=1)
        before = STORED * np.sum((near > own) * shares, axis=1)
        # a list at the edge of the budget is looked into or not: taken as half
        hits += [np.sum(before + 0.5 * STORED * shares[at] <= budget) for budget in BUDGETS]
    return hits / len(asking)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.parse_args()
    encoder = Encoder.load()
    codec = encoder.codec
    _, trained_on = library_of(encoder, "train")
    music = concatenate(trained_on, codec.code_size)

    def by_distance(asking: NDArray[np.float32]) -> NDArray[np.float32]:
        return asking @ codec.coarse.T - codec.half_coarse

    def by_cell(asking: NDArray[np.float32]) -> NDArray[np.float32]:
        to_lists, to_cells = asking @ codec.coarse.T, asking @ codec.cells.T
        near = to_lists[:, :, None] + to_cells[:, None, :] - codec.half_cells
        return near.reshape(len(asking), -1)

    def of_lists(codes: Codes) -> NDArray[np.int64]:
        return codes.lists.astype(np.int64)

    def of_cells(codes: Codes) -> NDArray[np.int64]:
        return codec.cells_of(codes.lists, codes.codes).astype(np.int64)

    lists = len(codec.coarse)
    ways = {
        "lists, by product": (lambda asking: asking @ codec.coarse.T, of_lists, lists),
        "lists, by distance": (by_distance, of_lists, lists),
        f"{len(codec.cells)} cells each, by distance": (by_cell, of_cells, codec.half_cells.size),
    }
    names, codes = library_of(encoder, "tune")
    coded = dict(zip(names, codes, strict=True))
    rng = np.random.default_rng(0)
    works = tune_works()
    order = rng.permutation(len(works))
    least = (PIECE * FASTER + 1) * SAMPLE_RATE
    chosen = [works[at] for at in order if len(works[at][1]) > least][:WORKS]
    sounds = [sound for _, sound in chosen]
    library = [coded[item.id] for item, _ in chosen]
    print(f"|  | {' | '.join(f'{budget:,}' for budget in BUDGETS)} |")
    print(f"|---|{'---:|' * len(BUDGETS)}")
    spread = {
        name: np.bincount(of(music), minlength=size) / len(music)
        for name, (_, of, size) in ways.items()
    }
    for kind in tqdm(("as it is", "noise", "sped up", "mixed"), disable=None):
        asking, stored = pairs(kind, sounds, library, encoder, rng)
        for name, (ranks, of, _) in ways.items():
            hits = found(asking, of(stored), ranks, spread[name])
            cut = " | ".join(f"{100 * hit:.0f}" for hit in hits)
            print(f"| {kind}: {name} | {cut} |", flush=True)


if __name__ == "__main__":
    main()
