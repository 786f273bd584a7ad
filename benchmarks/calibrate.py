"""Fit the chance of scores on music that is not in the library, for `index/calibration.json`.

    python -m benchmarks.calibrate [--clips 500] [--encoder WEIGHTS] [--plain]

Music of the tune packages only. In turn, each quarter of the packages is left out of a library of the
rest, and clips of it, half of them damaged (with nothing that is in the library), are searched, as they are
and under the whole ladder of hypotheses: every alignment found is chance. Of each length, the strongest tenth
of the best scores S is taken for a tail exp(-λ S), whose maximum-likelihood fit is λ = 1 / mean(S - u)
above the threshold u and K = exceedances / Σ n N exp(-λ u) (Karlin and Altschul's E = K n N exp(-λ S)).
Stated and observed numbers of chance matches are printed beside it.
"""

import argparse
import io
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from operator import attrgetter
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from benchmarks import corpora
from fingerprint.audio import SAMPLE_RATE, read_audio
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY, Fingerprint, fingerprint
from fingerprint.hypotheses import LADDER, Hypothesis
from fingerprint.training.augment import Background, Signal, degrade
from index.question import Question
from index.search import everything
from index.segment import Codes
from index.significance import TABLE, Tail
from index.snapshot import Snapshot

LENGTHS = (1.0, 2.0, 5.0, 10.0, 30.0)  # seconds
FOLDS = 4
TAIL = 0.1  # share of the scores that the fit looks at


@dataclass(frozen=True)
class Null:
    """Best scores of one clip that is not in the library, and the space it was searched in."""

    length: float
    unaltered: float  # as it is
    altered: float  # under the ladder
    query_embeddings: int
    library_embeddings: int

    @property
    def space(self) -> float:
        return float(self.query_embeddings) * self.library_embeddings


def fit(nulls: list[Null], score: Callable[[Null], float]) -> Tail:
    """Maximum-likelihood tails of the strongest of these scores, length by length.

    No length's λ may exceed that of all lengths together (two or three steps' worth of evidence is
    bounded, and the fall of its scores towards the bound says nothing of rarer ones) nor that of a
    shorter one (a longer clip has every chance that a part of it has).
    """
    groups = [
        [null for null in nulls if null.length == length]
        for length in sorted({null.length for null in nulls})
    ]
    thresholds = [float(np.quantile([score(n) for n in group], 1 - TAIL)) for group in groups]
    excesses = [
        np.array([score(n) - threshold for n in group if score(n) > threshold])
        for group, threshold in zip(groups, thresholds, strict=True)
    ]
    together = 1 / np.concatenate(excesses).mean()
    decay = np.minimum.accumulate([min(1 / excess.mean(), together) for excess in excesses])
    density = [
        len(excess) / sum(null.space * np.exp(-d * threshold) for null in group)
        for group, threshold, excess, d in zip(groups, thresholds, excesses, decay, strict=True)
    ]
    return Tail(
        tuple(float(np.median([null.query_embeddings for null in group])) for group in groups),
        tuple(round(float(d), 4) for d in decay),
        tuple(round(float(np.log(k)), 3) for k in density),
    )


def nulls(encoder: Encoder, clips: int, seed: int, rungs: Sequence[Hypothesis]) -> Iterator[Null]:
    """Scores of `clips` clips of each length, over all folds."""
    works = tune_works()
    codes = [codes_of(samples, encoder) for _, samples in tqdm(works, "library", disable=None)]
    packages = sorted({package for package, _ in works})
    rng = np.random.default_rng(seed)
    progress = tqdm(total=clips * len(LENGTHS), desc="clips", disable=None)
    for fold in range(FOLDS):
        out = set(packages[fold::FOLDS])
        inside = [c for (package, _), c in zip(works, codes, strict=True) if package not in out]
        outside = [samples for package, samples in works if package in out]
        snapshot = Snapshot.of(inside, encoder.codec)
        background = background_of(outside)
        for length in LENGTHS:
            for k in range(clips // FOLDS):
                clip = stretch(rng, outside[rng.integers(len(outside))], int(length * SAMPLE_RATE))
                if k % 2:
                    clip = degrade(rng, clip, background)
                progress.update()
                try:
                    query = fingerprint_of(clip, encoder, QUERY_EVERY)
                except AudioError:  # a pause in the music
                    continue
                question = Question(query, snapshot, encoder)
                yield Null(length, *_best(question, rungs), *question.size)


def _best(question: Question, rungs: Sequence[Hypothesis]) -> tuple[float, float]:
    """Scores of the best alignments of a query as it is and under the rungs; 0 where there is none."""
    # nothing is so certain that the ladder would end early
    found = everything(question, rungs, lambda item: 1 / (1 + item.score), math.inf)
    best = [0.0, 0.0]
    for item in found:
        under = int(item.hypotheses > 1)
        best[under] = max(best[under], item.score)
    return best[0], best[1]


def tune_works() -> list[tuple[str, Signal]]:
    """Package and samples of each work of the tune packages."""
    return [
        (item.package, read_audio(item.audio()))
        for item in tqdm(corpora.items("tune"), "works", disable=None)
    ]


def background_of(music: list[Signal]) -> Background:
    """What damages clips: this music, and the tune packages' noise and speech."""
    return Background(
        music=partial(_any, music),
        ambience=partial(_any, _sounds("noise")),
        speech=partial(_any, _sounds("speech")),
        rooms=[],
    )


@cache
def _sounds(kind: str) -> list[Signal]:
    return [read_audio(item.audio()) for item in corpora.items("tune", (kind,))]


def _any(sounds: list[Signal], rng: np.random.Generator, n: int) -> Signal:
    return stretch(rng, sounds[rng.integers(len(sounds))], n)


def stretch(rng: np.random.Generator, samples: Signal, n: int) -> Signal:
    """n samples from a random place, repeated if there are fewer."""
    if len(samples) < n:
        samples = np.tile(samples, -(-n // len(samples)))
    start = int(rng.integers(len(samples) - n + 1))
    return samples[start : start + n]


def fingerprint_of(samples: Signal, encoder: Encoder, every: int) -> Fingerprint:
    """The fingerprint of samples at 8 kHz. Raises AudioError if they are silent."""
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="WAV", subtype="FLOAT")
    file.seek(0)
    return fingerprint(file, encoder, every, name="clip")


def codes_of(samples: Signal, encoder: Encoder) -> Codes:
    """What a library keeps of samples at 8 kHz."""
    return Codes(
        *encoder.codec.encode(fingerprint_of(samples, encoder, REFERENCE_EVERY).embeddings)
    )


def report(found: list[Null], tail: Tail, score: Callable[[Null], float]) -> str:
    """Stated and observed numbers of chance matches, length by length."""
    lines = ["length   clips   decay  log density   observed with E <= 1, 0.1, 0.01 (stated)"]
    rows = zip(sorted({null.length for null in found}), tail.decay, tail.log_density, strict=True)
    for length, decay, log_density in rows:
        same = [null for null in found if null.length == length]
        chances = []
        for null in same:
            steepness, space = tail.at(null.query_embeddings, null.library_embeddings)
            chances.append(math.exp(space - steepness * score(null)))
        counts = ", ".join(
            f"{sum(c <= e for c in chances)} ({len(same) * (1 - np.exp(-e)):.0f})"
            for e in (1, 0.1, 0.01)
        )
        lines.append(f"{length:4g} s {len(same):7}  {decay:6.3f}  {log_density:11.2f}   {counts}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--encoder", type=Path, help="weights; default: those that ship")
    parser.add_argument("--clips", type=int, default=500, help="of each length")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--plain", action="store_true", help="without the ladder of hypotheses: its fit stays"
    )
    parser.add_argument("--write", action="store_true", help="enter the fit into the table")
    args = parser.parse_args()
    encoder = Encoder.load(args.encoder)
    found = list(nulls(encoder, args.clips, args.seed, () if args.plain else LADDER))
    if not found:
        sys.exit("no music of the tune packages: python -m benchmarks.corpora fetch --split tune")
    table = json.loads(TABLE.read_text()) if TABLE.is_file() else {}
    entry = table.setdefault(encoder.id, {"unaltered": None, "altered": None})
    options = (" --plain" if args.plain else "") + (
        f" --encoder {args.encoder}" if args.encoder else ""
    )
    for name in ("unaltered",) if args.plain else ("unaltered", "altered"):
        tail = fit(found, attrgetter(name))
        print(f"{name}\n{report(found, tail, attrgetter(name))}")
        entry[name] = asdict(tail) | {
            "clips": len(found),
            "command": (
                f"python -m benchmarks.calibrate --clips {args.clips} --seed {args.seed}{options}"
            ),
        }
    print(json.dumps({encoder.id: entry}))
    if args.write:
        rows = (f'  "{id}": {json.dumps(row)}' for id, row in table.items())
        TABLE.write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    main()
