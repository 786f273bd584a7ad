"""What it costs that shared material is for review, and what it takes: docs/decisions/shared.md.

    python -m benchmarks.experiments.shared [--clips 200] [--lengths 2 5 10] [--encoder WEIGHTS]

Clips of the tune packages, half of them damaged, are looked for in a library that holds their works and those
of the train packages. Printed is, by length, how many are matched with their own work, how many of these are
for review because other recordings have what is heard, and how many other recordings are named as matches and
for review; then the pairs that share something.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks import corpora
from benchmarks.calibration.calibrate import (
    background_of,
    fingerprint_of,
    library_of,
    stretch,
    tune_works,
)
from benchmarks.damage import degrade
from fingerprint.audio import SAMPLE_RATE
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY
from index.query_context import Question
from index.search import search
from index.significance import MATCH, REVIEW, Calibration
from index.snapshot import Snapshot


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--encoder", type=Path, help="weights; default: those that ship")
    parser.add_argument("--clips", type=int, default=200, help="of each length")
    parser.add_argument("--lengths", type=float, nargs="+", default=[2.0, 5.0, 10.0])
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    encoder = Encoder.load(args.encoder)
    calibration = Calibration.of(encoder.id)
    works = [(item.id, samples) for item, samples in tune_works()]
    background = background_of([samples for _, samples in works])
    tune, train = library_of(encoder, "tune"), library_of(encoder)
    names = tune[0] + train[0]
    snapshot = Snapshot.of(tune[1] + train[1], encoder.codec)
    title = {item.id: f"{item.package} {item.title!r}" for item in corpora.catalogue()}
    rng = np.random.default_rng(args.seed)
    pairs: Counter[tuple[str, str]] = Counter()
    print("length  clips  own: match  review, shared  review   others: match  review")
    for length in args.lengths:
        count: Counter[str] = Counter()
        for number in tqdm(range(args.clips), f"{length:g} s", disable=None):
            work, samples = works[rng.integers(len(works))]
            clip = stretch(rng, samples, int(length * SAMPLE_RATE))
            if number % 2:
                clip = degrade(rng, clip, background)
            try:
                made = fingerprint_of(clip, encoder, QUERY_EVERY)
            except AudioError:  # a pause in the music
                continue
            count["clips"] += 1
            told = set()
            # recordings of such a snapshot are called by their numbers
            for match in search(Question(made, snapshot, encoder), calibration, REVIEW, ()):
                name = names[int(match.recording)]
                if name in told:
                    continue
                told.add(name)
                whose = "own" if name == work else "other"
                shared = match.e_value <= MATCH and match.tier == "review"
                count[f"{whose} {'shared' if shared else match.tier}"] += 1
                if name != work and match.e_value <= MATCH:
                    pairs[work, name] += 1
        others = count["other review"] + count["other shared"]
        print(
            f"{length:4g} s {count['clips']:6} {count['own match']:11} {count['own shared']:15} "
            f"{count['own review']:7} {count['other match']:15} {others:7}",
            flush=True,
        )
    print("other recordings with an E-value of a match, and in how many clips:")
    for (work, name), times in pairs.most_common():
        print(f"{times:4}  {title[work]} and {title[name]}")


if __name__ == "__main__":
    main()
