"""Which decoys have the scores of unrelated music: docs/decisions/decoys.md.

    python -m benchmarks.calibration.decoys [--clips 200] [--lengths 2 5 10]

Clips of the tune packages are looked for in a library of the train and tune packages, as they are and made
into decoys in several ways. Of each way is printed how many recordings, those of the clip's own package left
out, are found with an E-value of 1, 0.1 and 0.01 or less, over the number stated (unrelated music has 1
everywhere, as far as its calibration is right), and how many of the decoys find the work they were made from,
as a match and as a review: such a decoy is none.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks import corpora
from benchmarks.calibration.calibrate import Asking, fingerprint_of, library_of, stretch
from fingerprint.audio import SAMPLE_RATE
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY, Fingerprint
from fingerprint.hypotheses import UNALTERED
from fingerprint.spectrogram import BANDS, FRAME_RATE
from fingerprint.view import under
from index.query_context import Question
from index.significance import MATCH, REVIEW, Calibration
from index.snapshot import Snapshot
from index.tail_fit import peaks
from service.scan.decoy import mirrored

E_VALUES = (1.0, 0.1, 0.01)
BLOCK = 1.0  # s
Levels = NDArray[np.uint8]


def looked_at_anew(
    change: Callable[[Levels], Levels],
) -> Callable[[Fingerprint, Encoder], Fingerprint]:
    """A decoy whose levels are changed, and embedded again."""

    def decoy(made: Fingerprint, encoder: Encoder) -> Fingerprint:
        assert made.levels is not None
        changed = replace(made, levels=np.ascontiguousarray(change(made.levels)))
        return replace(changed, embeddings=under(UNALTERED, changed, encoder).embeddings)

    return decoy


def shuffled(levels: Levels) -> Levels:
    """Blocks of a second in another order, none of them followed by the one that follows it."""
    blocks = np.array_split(np.arange(len(levels)), max(1, round(len(levels) / FRAME_RATE / BLOCK)))
    order = [*range(1, len(blocks), 2), *range(0, len(blocks), 2)][::-1]
    return levels[np.concatenate([blocks[i] for i in order])]


DECOYS: dict[str, Callable[[Fingerprint, Encoder], Fingerprint]] = {
    "none: unrelated music": lambda made, encoder: made,
    "embeddings in reverse": lambda made, encoder: replace(
        made, embeddings=np.ascontiguousarray(made.embeddings[::-1])
    ),
    "frames in reverse": looked_at_anew(lambda levels: levels[::-1]),
    "blocks of 1 s shuffled": looked_at_anew(shuffled),
    "bands mirrored": mirrored,
    "bands turned by half": looked_at_anew(lambda levels: np.roll(levels, BANDS // 2, axis=1)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--encoder", type=Path, help="weights; default: those that ship")
    parser.add_argument("--clips", type=int, default=200, help="of each length")
    parser.add_argument("--lengths", type=float, nargs="+", default=[2.0, 5.0, 10.0])
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    encoder = Encoder.load(args.encoder)
    calibration = Calibration.of(encoder.id)
    asking = Asking(encoder, args.seed)
    tune, tune_codes = library_of(encoder, "tune")
    train, train_codes = library_of(encoder)
    names = tune + train
    package = {item.id: item.package for item in corpora.items("tune")}
    snapshot = Snapshot.of(tune_codes + train_codes, encoder.codec)
    print(
        f"{'length':7} {'decoy':24} found over stated with E <= 1, 0.1, 0.01   own: match, review"
    )
    for length in args.lengths:
        others: dict[str, list[float]] = {name: [] for name in DECOYS}
        own: dict[str, list[float]] = {name: [] for name in DECOYS}
        for _ in tqdm(range(args.clips), f"{length:g} s", disable=None):
            work, samples = asking.works[asking.rng.integers(len(asking.works))]
            clip = stretch(asking.rng, samples, int(length * SAMPLE_RATE))
            try:
                made = fingerprint_of(clip, encoder, QUERY_EVERY)
            except AudioError:  # a pause in the music
                continue
            for name, decoy in DECOYS.items():
                question = Question(decoy(made, encoder), snapshot, encoder)
                for place, score in peaks(question).unaltered.items():
                    e_value = calibration.e_value(score, *question.size)
                    if names[place] == work:
                        own[name].append(e_value)
                    elif package.get(names[place]) != package[work]:
                        others[name].append(e_value)
        for name in DECOYS:
            ratios = [np.sum(np.array(others[name]) <= e) / (e * args.clips) for e in E_VALUES]
            found = [sum(e <= gate for e in own[name]) for gate in (MATCH, REVIEW)]
            print(
                f"{length:5g} s {name:24} {ratios[0]:8.2f} {ratios[1]:8.2f} {ratios[2]:8.2f}"
                f"               {found[0]:5} {found[1]:8}",
                flush=True,
            )


if __name__ == "__main__":
    main()
