"""Fit the chance of scores on music that is not in the library, for `index/calibration.json`.

    python -m benchmarks.calibrate [--clips 500] [--encoder WEIGHTS]

Music of the tune packages only. In turn, each quarter of the packages is left out of a library of the
rest, and clips of it, half of them damaged, are searched: every alignment found is chance. Of each
length, the strongest third of the best scores S is taken for a tail exp(-λ S), whose maximum-likelihood
fit is λ = 1 / mean(S - u) above the threshold u (Hill's estimator for an exponential tail) and
K = exceedances / Σ n N exp(-λ u) (Karlin and Altschul's E = K n N exp(-λ S)). The table entry is that of
all lengths together; beside it stand stated and observed numbers of chance matches.
"""

import argparse
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from benchmarks import corpora
from fingerprint.audio import SAMPLE_RATE, read_audio
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY, Fingerprint, fingerprint
from fingerprint.training.augment import Background, Signal, degrade
from index.catalogue import Placement, Recording
from index.search import strongest
from index.segment import Codes
from index.significance import TABLE, Calibration, Weigher
from index.snapshot import Snapshot

LENGTHS = (1.0, 2.0, 5.0, 10.0, 30.0)  # seconds
FOLDS = 4
TAIL = 1 / 3  # share of the scores that the fit looks at


@dataclass(frozen=True)
class Null:
    """Best score of one clip that is not in the library, and the space it was searched in."""

    length: float
    score: float
    query_embeddings: int
    library_embeddings: int

    @property
    def space(self) -> float:
        return float(self.query_embeddings) * self.library_embeddings


def fit(nulls: list[Null]) -> Calibration:
    """Maximum-likelihood tail of the strongest scores, thresholds taken length by length."""
    excess, exceedances = 0.0, 0
    thresholds: list[tuple[float, float]] = []
    for length in sorted({null.length for null in nulls}):
        same = [null for null in nulls if null.length == length]
        threshold = float(np.quantile([null.score for null in same], 1 - TAIL))
        above = [null.score - threshold for null in same if null.score > threshold]
        excess += sum(above)
        exceedances += len(above)
        thresholds += [(null.space, threshold) for null in same]
    decay = exceedances / excess
    space, threshold_of = np.array(thresholds).T
    density = exceedances / np.sum(space * np.exp(-decay * threshold_of))
    return Calibration(decay=float(decay), log_density=float(np.log(density)))


def nulls(encoder: Encoder, clips: int, seed: int) -> Iterator[Null]:
    """Scores of `clips` clips of each length, over all folds."""
    works = [
        (item.package, read_audio(item.audio()))
        for item in tqdm(corpora.items("tune"), "works", disable=None)
    ]
    speech, noise = (
        [read_audio(item.audio()) for item in corpora.items("tune", (kind,))]
        for kind in ("speech", "noise")
    )
    background = Background(
        music=lambda rng, n: _stretch(rng, works[rng.integers(len(works))][1], n),
        ambience=lambda rng, n: _stretch(rng, noise[rng.integers(len(noise))], n),
        speech=lambda rng, n: _stretch(rng, speech[rng.integers(len(speech))], n),
        rooms=[],
    )
    codes = [_codes(samples, encoder) for _, samples in tqdm(works, "library", disable=None)]
    packages = sorted({package for package, _ in works})
    weigher = Weigher(encoder)
    rng = np.random.default_rng(seed)
    progress = tqdm(total=clips * len(LENGTHS), desc="clips", disable=None)
    for fold in range(FOLDS):
        out = set(packages[fold::FOLDS])
        inside = [c for (package, _), c in zip(works, codes, strict=True) if package not in out]
        outside = [samples for package, samples in works if package in out]
        snapshot = _snapshot(inside, encoder)
        for length in LENGTHS:
            for k in range(clips // FOLDS):
                clip = _stretch(rng, outside[rng.integers(len(outside))], int(length * SAMPLE_RATE))
                if k % 2:
                    clip = degrade(rng, clip, background)
                progress.update()
                try:
                    query = _fingerprint(clip, encoder, QUERY_EVERY)
                except AudioError:  # a pause in the music
                    continue
                score = strongest(query, snapshot, weigher)
                yield Null(length, score, len(query.embeddings), len(snapshot))


def _stretch(rng: np.random.Generator, samples: Signal, n: int) -> Signal:
    """n samples from a random place, repeated if there are fewer."""
    if len(samples) < n:
        samples = np.tile(samples, -(-n // len(samples)))
    start = int(rng.integers(len(samples) - n + 1))
    return samples[start : start + n]


def _fingerprint(samples: Signal, encoder: Encoder, every: int) -> Fingerprint:
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="WAV", subtype="FLOAT")
    file.seek(0)
    return fingerprint(file, encoder, every, name="clip")


def _codes(samples: Signal, encoder: Encoder) -> Codes:
    return Codes(*encoder.codec.encode(_fingerprint(samples, encoder, REFERENCE_EVERY).embeddings))


def _snapshot(works: list[Codes], encoder: Encoder) -> Snapshot:
    placements = [
        Placement(Recording("", "", "open-licence", str(i)), str(i), 0, len(codes))
        for i, codes in enumerate(works)
    ]
    return Snapshot(0, placements, {str(i): codes for i, codes in enumerate(works)}, encoder.codec)


def report(found: list[Null], calibration: Calibration) -> str:
    """Stated and observed numbers of chance matches, length by length."""
    lines = ["length   clips   decay  log density   observed with E <= 1, 0.1, 0.01 (stated)"]
    for length in (*sorted({null.length for null in found}), None):
        same = [null for null in found if length in (null.length, None)]
        alone = fit(same)
        chances = [
            np.exp(calibration.log_density + np.log(null.space) - calibration.decay * null.score)
            for null in same
        ]
        counts = ", ".join(
            f"{sum(c <= e for c in chances)} ({len(same) * (1 - np.exp(-e)):.0f})"
            for e in (1, 0.1, 0.01)
        )
        label = "all" if length is None else f"{length:g} s"
        lines.append(
            f"{label:6} {len(same):7}  {alone.decay:6.3f}  {alone.log_density:11.2f}   {counts}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--encoder", type=Path, help="weights; default: those that ship")
    parser.add_argument("--clips", type=int, default=500, help="of each length")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="enter the fit into the table")
    args = parser.parse_args()
    encoder = Encoder.load(args.encoder)
    found = list(nulls(encoder, args.clips, args.seed))
    if not found:
        sys.exit("no music of the tune packages: python -m benchmarks.corpora fetch --split tune")
    calibration = fit(found)
    print(report(found, calibration))
    entry = {
        "decay": round(calibration.decay, 4),
        "log_density": round(calibration.log_density, 3),
        "clips": len(found),
        "command": f"python -m benchmarks.calibrate --clips {args.clips} --seed {args.seed}",
    }
    print(json.dumps({encoder.id: entry}))
    if args.write:
        table = json.loads(TABLE.read_text()) if TABLE.is_file() else {}
        TABLE.write_text(json.dumps(table | {encoder.id: entry}, indent=2) + "\n")


if __name__ == "__main__":
    main()
