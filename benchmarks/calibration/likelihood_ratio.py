"""What an answer is worth as evidence: likelihood ratios, their validation, and what unrelated clips brought.

    python -m benchmarks.calibration.likelihood_ratio --folder FOLDER [--clips 900] [--write] \
        [--plot FILE.svg]

Clips of 2, 5 and 10 s of the works of a split, as they are, damaged as in calibration, or under noise at 0
dB, are looked up as they are (without the ladder) among all works of that split and of the train packages.
Three answers are noted: the clip's own recording (a copy), the best of the train packages (unrelated music:
splits share no artist), and the best other recording of its own split (kin: among them are works of one
hand, one sound font or one set of samples).

On the tune packages the logarithm of the likelihood ratio is fitted as a line in log10 E, by logistic
regression with copies and unrelated music weighing alike (Brümmer and du Preez 2006,
"Application-independent evaluation of speaker detection"). It is never stated above a third of the number
of unrelated clips that the report packages validate it with: of an event that none of n clips showed, 3 / n
is the upper end of the 95 % interval. On the report packages Cllr (the cost of the ratios stated; 0 is
perfect, 1 says nothing) is printed by length and damage and among kin, and Tippett and reliability plots
are drawn. --write enters fit and test into the table.

Clips are noted in FOLDER as they are asked, and a run that was stopped goes on from there.
"""

import argparse
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.calibration.calibrate import (
    NOTED,
    background_of,
    enter,
    fingerprint_of,
    library_of,
    works_of,
)
from benchmarks.damage import Background, Signal, degrade
from benchmarks.journal import Journal
from fingerprint.audio import SAMPLE_RATE
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY
from index.query_context import Question
from index.significance import Calibration, LikelihoodRatio
from index.snapshot import Snapshot
from index.tail_fit import peaks

LENGTHS = (2.0, 5.0, 10.0)  # s
DAMAGES = ("none", "drawn", "0 dB")
NOTHING = 100.0  # E-value of a clip that finds nothing
AT_ONCE = 50  # clips noted together
FARTHEST = (-2.0, 30.0)  # of -log10 E, as the fit sees it
COMMAND = "python -m benchmarks.calibration.likelihood_ratio --clips {clips}"


@dataclass(frozen=True)
class Asked:
    """E-values of a clip's answers: its own recording, the best unrelated one and the best of its kin."""

    split: str
    number: int
    seconds: float
    damage: str
    own: float
    unrelated: float
    kin: float


def ask(split: str, clips: int, encoder: Encoder, journal: Journal) -> None:
    """Look up clips of a split's works, and note what they find."""
    done = {entry["number"] for entry in journal.entries if entry["split"] == split}
    if len(done) >= clips:
        return
    works = works_of(split)
    background = background_of([samples for _, samples in works_of("tune", 40)])
    own_names, own_codes = library_of(encoder, split)
    names, codes = library_of(encoder)
    names, codes, own_split = [*own_names, *names], [*own_codes, *codes], len(own_names)
    snapshot = Snapshot.of(codes, encoder.codec)
    waiting = []
    for number in tqdm([n for n in range(clips) if n not in done], split, disable=None):
        rng = np.random.default_rng([3, number])
        item, samples = works[rng.integers(len(works))]
        seconds, damage = LENGTHS[number % 3], DAMAGES[number // 3 % 3]
        count = int(seconds * SAMPLE_RATE)
        start = int(rng.integers(max(1, len(samples) - count)))
        clip = damaged(samples[start : start + count], damage, rng, background)
        scores = {"own": 0.0, "unrelated": 0.0, "kin": 0.0}
        try:
            made = fingerprint_of(clip, encoder, QUERY_EVERY)
        except AudioError:  # a pause in the music
            continue
        question = Question(made, snapshot, encoder)
        for place, score in peaks(question).unaltered.items():
            who = "own" if names[place] == item.id else "kin" if place < own_split else "unrelated"
            scores[who] = max(scores[who], round(score, 3))
        noted = {"split": split, "number": number, "seconds": seconds, "damage": damage}
        waiting.append(noted | {"size": list(question.size), "scores": scores})
        if len(waiting) == AT_ONCE:
            journal.append(waiting)
            waiting = []
    journal.append(waiting)


def asked_of(entry: dict[str, Any], calibration: Calibration) -> Asked:
    """What was noted of a clip, as E-values."""
    e_values = {
        who: calibration.e_value(score, *entry["size"]) if score > 0 else NOTHING
        for who, score in entry["scores"].items()
    }
    return Asked(entry["split"], entry["number"], entry["seconds"], entry["damage"], **e_values)


def damaged(clip: Signal, damage: str, rng: np.random.Generator, background: Background) -> Signal:
    """A clip with one of DAMAGES."""
    if damage == "drawn":
        return degrade(rng, clip, background)
    if damage == "0 dB":
        noise = background.ambience(rng, len(clip))
        level = float(np.sqrt(np.mean(clip**2)) / (np.sqrt(np.mean(noise**2)) + 1e-9))
        return clip + np.float32(level) * noise
    return clip


def strengths(asked: Sequence[Asked], who: str) -> NDArray[np.float64]:
    """-log10 E of one kind of answer [shape=(n,)]."""
    values = np.array([max(getattr(it, who), 1e-300) for it in asked])
    return np.clip(-np.log10(values), *FARTHEST)


def fit(copies: NDArray[np.float64], others: NDArray[np.float64], clips: int) -> LikelihoodRatio:
    """Logistic regression of copies against others, both weighing alike, by Newton's method.

    clips : unrelated ones that the fit will be validated with: its ceiling
    """
    x = np.concatenate([copies, others])
    is_copy = np.concatenate([np.ones(len(copies)), np.zeros(len(others))])
    weight = np.where(is_copy == 1, 0.5 / len(copies), 0.5 / len(others))
    columns = np.stack([np.ones_like(x), x], axis=1)
    line = np.zeros(2)
    ridge = 1e-4 * np.eye(2)  # what separates perfectly has no finite slope
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(columns @ line, -50, 50)))
        gradient = columns.T @ (weight * (is_copy - p)) - ridge @ line
        step = np.linalg.solve((columns.T * (weight * p * (1 - p))) @ columns + ridge, gradient)
        line += np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-9:
            break
    offset, slope = line / math.log(10)
    ceiling = math.log10(max(1.0, clips / 3))
    return LikelihoodRatio(
        round(float(offset), 4), round(float(slope), 4), round(-ceiling, 3), round(ceiling, 3)
    )


def cllr(ratio: LikelihoodRatio, copies: Sequence[float], others: Sequence[float]) -> float:
    """The cost of log-likelihood ratios, in bits, of E-values of copies and of others."""
    of_copies = np.array([ratio.at(e_value) for e_value in copies])
    of_others = np.array([ratio.at(e_value) for e_value in others])
    return float(0.5 * (np.mean(np.log2(1 + 1 / of_copies)) + np.mean(np.log2(1 + of_others))))


def table(asked: Sequence[Asked], ratio: LikelihoodRatio) -> Iterator[str]:
    """Cllr by length and by damage, against unrelated music and against kin, and the largest misleading
    ratios."""
    yield "| clips | n | Cllr | among kin | largest ratio of unrelated music | least of a copy |"
    yield "|---|---:|---:|---:|---:|---:|"
    groups: list[tuple[str, list[Asked]]] = [("all", list(asked))]
    groups += [(f"{s:g} s", [it for it in asked if it.seconds == s]) for s in LENGTHS]
    groups += [
        (f"{s:g} s, {d}", [it for it in asked if (it.seconds, it.damage) == (s, d)])
        for s in LENGTHS
        for d in DAMAGES
    ]
    for name, some in groups:
        if some:
            own, unrelated, kin = (
                [getattr(it, w) for it in some] for w in ("own", "unrelated", "kin")
            )
            yield (
                f"| {name} | {len(some)} | {cllr(ratio, own, unrelated):.3f} | {cllr(ratio, own, kin):.3f} | "
                f"{max(map(ratio.at, unrelated)):.3g} | {min(map(ratio.at, own)):.3g} |"
            )


def plot(asked: Sequence[Asked], ratio: LikelihoodRatio, path: Path) -> None:
    """Tippett plot, and observed against stated log ratios in bins."""
    import matplotlib

    from benchmarks.plots import STYLE

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    logs = {
        who: np.log10([ratio.at(getattr(it, who)) for it in asked])
        for who in ("own", "unrelated", "kin")
    }
    names = {"own": "copies", "unrelated": "unrelated music", "kin": "kin"}
    with plt.rc_context(STYLE):
        figure, (tippett, reliable) = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
        at = np.linspace(ratio.floor, ratio.ceiling, 200)
        for who, values in logs.items():
            tippett.plot(at, [np.mean(values >= x) for x in at], label=names[who])
        tippett.set_xlabel("log10 likelihood ratio")
        tippett.set_ylabel("share at least so large")
        tippett.legend()
        edges = np.linspace(ratio.floor, ratio.ceiling, 9)
        observed = []
        for low, high in itertools.pairwise(edges):
            copies, others = (
                (np.sum((logs[who] >= low) & (logs[who] <= high)) + 0.5) / (len(asked) + 1)
                for who in ("own", "unrelated")
            )
            observed.append(math.log10(copies / others))
        reliable.plot(edges, edges, color="#39474a", linewidth=0.8)
        reliable.plot((edges[1:] + edges[:-1]) / 2, observed, "o")
        reliable.set_xlabel("stated log10 ratio")
        reliable.set_ylabel("observed")
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=900, help="of each split")
    parser.add_argument("--write", action="store_true", help="enter fit and test into the table")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    args = parser.parse_args()
    encoder = Encoder.load()
    journal = Journal(args.folder / f"strengths-{encoder.id}.jsonl")
    for split in ("tune", "report"):
        ask(split, args.clips, encoder, journal)
    calibration = Calibration.of(encoder.id)
    asked = [
        asked_of(entry, calibration) for entry in journal.entries if entry["number"] < args.clips
    ]
    tune, report = ([it for it in asked if it.split == split] for split in ("tune", "report"))
    ratio = fit(strengths(tune, "own"), strengths(tune, "unrelated"), len(report))
    print(f"log10 LR = {ratio.offset} - {ratio.slope} log10 E, at most {ratio.ceiling}")
    print("\n".join(table(report, ratio)))
    closest = sorted(float(f"{it.unrelated:.3g}") for it in report if it.unrelated <= NOTED)
    print(f"closest of {len(report)} unrelated clips: {closest[:8]}")
    if args.plot:
        plot(report, ratio, args.plot)
    if args.write:
        command = COMMAND.format(clips=args.clips)
        enter(
            encoder,
            {
                "likelihood_ratio": asdict(ratio) | {"command": command},
                "tested": {"clips": len(report), "closest": closest, "command": command},
            },
        )


if __name__ == "__main__":
    main()
