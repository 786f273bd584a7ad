"""Stated E-values against observed counts, on music that neither encoder nor fit has seen.

    python -m benchmarks.reliability --folder FOLDER [--libraries 100 1000 100000] [--clips 2000 20000 1000]
        [--ladder-libraries 100 1000] [--ladder-clips 500 2000] [--plot FILE.svg]

Clips of the report packages, half of them damaged, are looked for in libraries in which they are not: each
half of the packages in libraries of the other half's works, filled up with the train packages' works and,
after these, with simulated recordings (see `benchmarks.simulation`). Every recording found is chance, or
related music, which is counted apart by the rule of `index.tail_fit`. Printed, and drawn, is how many
recordings were found with an E-value of at most 1, 0.1, 0.01 and 0.001, over the number stated, with its
95 % interval (works drawn with replacement); and how many absent clips had a match.

What was found is noted in FOLDER as it goes, and a run that was stopped goes on from there. --clips says how
many are put to each of the libraries, of all lengths together; the first of them are the same.
"""

import argparse
import json
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks import corpora
from benchmarks.calibration.calibrate import (
    LENGTHS,
    background_of,
    fingerprint_of,
    library_of,
    tune_works,
)
from benchmarks.damage import degrade
from benchmarks.journal import Journal
from benchmarks.simulation import Simulation
from benchmarks.simulation import fit as fit_simulation
from fingerprint.audio import SAMPLE_RATE, read_audio
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY
from fingerprint.hypotheses import LADDER
from index.query_context import Question
from index.segment import Codes
from index.significance import MATCH, REVIEW, Calibration
from index.snapshot import Snapshot
from index.tail_fit import Look, meetings, peaks, without

E_VALUES = (1.0, 0.1, 0.01, 0.001)
CURVE = tuple(np.logspace(0.5, -3.5, 41).tolist())  # E-values of the plot
AT_ONCE = 50  # clips noted together
HALVES = 2


@dataclass(frozen=True)
class Clip:
    """A clip to be made: `number` seeds all that is drawn for it."""

    number: int
    half: int
    work: str
    length: float
    start: float  # share of where it may begin


@dataclass(frozen=True)
class Setting:
    """A library of so many recordings, with or without the ladder."""

    recordings: int
    ladder: bool

    def __str__(self) -> str:
        return f"{self.recordings:,} recordings" + (", ladder" if self.ladder else "")


def clips_of(count: int, seed: int) -> list[Clip]:
    """So many clips of the report packages, of all lengths alike, work by work."""
    items = corpora.items("report")
    if not items:
        sys.exit(
            "no music of the report packages: python -m benchmarks.corpora fetch --split report"
        )
    rng = np.random.default_rng(seed)
    half = halves(items)
    clips = []
    for number in range(count):
        item = items[rng.integers(len(items))]
        length = LENGTHS[number % len(LENGTHS)]
        clips.append(Clip(number, half[item.package], item.id, length, float(rng.random())))
    return sorted(clips, key=lambda clip: (clip.half, clip.work, clip.number))


def halves(items: Sequence[corpora.Item]) -> dict[str, int]:
    """Which half each package belongs to."""
    packages = sorted({item.package for item in items})
    return {package: number % HALVES for number, package in enumerate(packages)}


class Libraries:
    """Recordings among which clips of one half of the report packages are looked for, and their damage."""

    def __init__(self, encoder: Encoder, largest: int) -> None:
        self.encoder = encoder
        self.background = background_of([samples for _, samples in tune_works()])
        self.train = library_of(encoder)
        self.report = library_of(encoder, "report")
        items = {item.id: item for item in corpora.items("report")}
        self.half = {id: halves(list(items.values()))[item.package] for id, item in items.items()}
        self.simulated: list[Codes] = []
        self.simulation: Simulation | None = None
        if largest > len(self.train[0]) + min(Counter(self.half.values()).values()):
            mixed, others = (
                [encoder.codec.decode(codes.lists, codes.codes) for codes in works]
                for works in (self.train[1], self.report[1])
            )
            self.simulation, _ = fit_simulation(mixed, others, encoder)

    def library(self, recordings: int, half: int) -> tuple[list[str], Snapshot]:
        """Names and codes of so many recordings that the half of this number is not among."""
        real = [
            (name, codes)
            for name, codes in zip(*self.report, strict=True)
            if self.half[name] != half
        ]
        real += zip(*self.train, strict=True)
        real = real[:recordings]
        missing = range(len(self.simulated), recordings - len(real))
        for number in tqdm(missing, "simulated recordings", disable=None, leave=False):
            assert self.simulation is not None
            made = self.simulation.embeddings(number)
            self.simulated.append(Codes(*self.encoder.codec.encode(made)))
        filling = self.simulated[: recordings - len(real)]
        names = [name for name, _ in real] + [f"simulated {i}" for i in range(len(filling))]
        return names, Snapshot.of([codes for _, codes in real] + filling, self.encoder.codec)


def look_for(
    clips: Sequence[Clip], setting: Setting, libraries: Libraries, journal: Journal
) -> None:
    """Put clips to a setting's libraries, and note what they find."""
    items = {item.id: item for item in corpora.items("report")}
    for half in range(HALVES):
        left = [clip for clip in clips if clip.half == half]
        if not left:
            continue
        names, snapshot = libraries.library(setting.recordings, half)
        waiting: list[dict[str, Any]] = []
        work, samples = "", np.empty(0, np.float32)
        for clip in tqdm(left, f"{setting}, half {half + 1}", disable=None):
            if clip.work != work:
                work, samples = clip.work, read_audio(items[clip.work].audio())
            found = _found(clip, samples, setting, names, snapshot, libraries)
            waiting.append(asdict(setting) | {"number": clip.number} | found)
            if len(waiting) == AT_ONCE:
                journal.append(waiting)
                waiting = []
        journal.append(waiting)


def _found(
    clip: Clip,
    samples: NDArray[np.float32],
    setting: Setting,
    names: Sequence[str],
    snapshot: Snapshot,
    libraries: Libraries,
) -> dict[str, Any]:
    """What one clip finds, by recording, and the sizes of both sides; nothing for a pause in the music."""
    rng = np.random.default_rng([1, clip.number])
    count = int(clip.length * SAMPLE_RATE)
    first = int(clip.start * max(0, len(samples) - count))
    sound = samples[first : first + count]
    if clip.number // len(LENGTHS) % 2:
        sound = degrade(rng, sound, libraries.background)
    try:
        made = fingerprint_of(sound, libraries.encoder, QUERY_EVERY)
    except AudioError:
        return {"start": first / SAMPLE_RATE, "size": [0, len(snapshot)], "found": [{}, {}]}
    question = Question(made, snapshot, libraries.encoder)
    found = peaks(question, LADDER if setting.ladder else ())
    return {
        "start": first / SAMPLE_RATE,
        "size": list(question.size),
        "found": [{names[place]: round(s, 3) for place, s in some.items()} for some in found],
    }


def looks_of(
    setting: Setting, clips: dict[int, Clip], entries: Sequence[Any], calibration: Calibration
) -> list[Look]:
    """Looks whose peaks are minus the logarithms of E-values, as they are or under the ladder."""
    looks = []
    for it in entries:
        clip = clips.get(it["number"])
        same = (it["recordings"], it["ladder"]) == (setting.recordings, setting.ladder)
        if clip is None or not same or not it["size"][0]:
            continue
        query_embeddings, library_embeddings = it["size"]
        strength: dict[str, float] = {}
        for hypotheses, some in zip((1, 1 + len(LADDER)), it["found"], strict=True):
            for name, score in some.items():
                e_value = calibration.e_value(
                    score, query_embeddings, library_embeddings, hypotheses
                )
                strength[name] = max(strength.get(name, -math.inf), -math.log(max(e_value, 1e-300)))
        start = it["start"]
        looks.append(
            Look(
                clip.work,
                start,
                start + clip.length,
                clip.length,
                query_embeddings,
                library_embeddings,
                strength,
            )
        )
    return looks


def counts(looks: Sequence[Look], e_values: Sequence[float]) -> NDArray[np.float64]:
    """Recordings found with an E-value of at most each of these."""
    strengths = np.array([s for look in looks for s in look.peaks.values()])
    return np.array([np.sum(strengths >= -math.log(e)) for e in e_values], float)


def ratios(
    looks: Sequence[Look], e_values: Sequence[float], draws: int = 500
) -> NDArray[np.float64]:
    """Observed over stated numbers, and their 95 % interval by works [shape=(3, E-values)]."""
    by_work: dict[str, list[Look]] = defaultdict(list)
    for look in looks:
        by_work[look.work].append(look)
    seen = np.array([counts(some, e_values) for some in by_work.values()])
    clips = np.array([len(some) for some in by_work.values()], float)
    drawn = np.random.default_rng(0).integers(len(clips), size=(draws, len(clips)))
    stated = np.array(e_values)
    resampled_ratios = seen[drawn].sum(axis=1) / clips[drawn].sum(axis=1)[:, None] / stated
    low, high = np.quantile(resampled_ratios, [0.025, 0.975], axis=0)
    return np.array([seen.sum(axis=0) / clips.sum() / stated, low, high])


def summary(settings: Sequence[Setting], looks: dict[Setting, list[Look]]) -> list[dict[str, Any]]:
    """By setting and length: clips, works, ratios without related music and with it, false matches."""
    rows = []
    for setting in settings:
        some = looks[setting]
        related = meetings(some, lambda look: -math.log(REVIEW))
        unrelated = without(some, related)
        for length in (*LENGTHS, None):
            of_length, all_of_it = (
                [look for look in which if length in (look.length, None)]
                for which in (unrelated, some)
            )
            if not of_length:
                continue
            matches = counts(all_of_it, [MATCH])[0]
            matched = Counter(
                (look.work, name)
                for look in all_of_it
                for name, strength in look.peaks.items()
                if strength >= -math.log(MATCH)
            )
            rows.append(
                {
                    "recordings": setting.recordings,
                    "ladder": setting.ladder,
                    "seconds": length,
                    "clips": len(of_length),
                    "works": len({look.work for look in of_length}),
                    "hours": round(sum(look.end - look.start for look in of_length) / 3600, 2),
                    "related_pairs": len(related),
                    "ratios": ratios(of_length, E_VALUES).round(3).tolist(),
                    "ratios_with_related": ratios(all_of_it, E_VALUES)[0].round(3).tolist(),
                    "curve": ratios(of_length, CURVE).round(4).tolist(),
                    "matches": int(matches),
                    "matched": [(*pair, times) for pair, times in matched.most_common()],
                    "matches_of_unrelated": int(counts(of_length, [MATCH])[0]),
                }
            )
    return rows


def report(rows: Sequence[dict[str, Any]]) -> str:
    """The summary as text, with the pairs of a clip's work and a recording that were a match."""
    title = {item.id: f"{item.package} {item.title!r}" for item in corpora.catalogue()}
    lines = [
        "observed / stated (95 %) with E <= 1, 0.1, 0.01, 0.001; in brackets with related music; matches"
    ]
    for row in rows:
        setting = Setting(row["recordings"], row["ladder"])
        length = "all" if row["seconds"] is None else f"{row['seconds']:g} s"
        cells = [
            f"{at:.2f} ({low:.2f}-{high:.2f}) [{related:.2f}]"
            for at, low, high, related in zip(
                *row["ratios"], row["ratios_with_related"], strict=True
            )
        ]
        lines.append(
            f"{setting!s:28} {length:5} {row['clips']:6} clips  {'  '.join(cells)}  "
            f"{row['matches_of_unrelated']} [{row['matches']}]"
        )
        if row["seconds"] is None:
            lines.append(
                f"{'':28} {row['works']} works, {row['hours']} h, {row['related_pairs']} related pairs; "
                f"false matches at most {_at_most(row['matches'], row['clips']):.2g} of the clips (95 %)"
            )
            lines += [
                f"{'':28} matched {times}: {title.get(work, work)} with {title.get(name, name)}"
                for work, name, times in row["matched"]
            ]
    return "\n".join(lines)


def _at_most(count: int, clips: int) -> float:
    """Upper end of Clopper and Pearson's one-sided 95 % interval (1934); clips of a work count as several."""
    from scipy.stats import beta

    return float(beta.ppf(0.95, count + 1, clips - count)) if count < clips else 1.0


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Stated against observed: one panel for each setting, one line for each length."""
    import matplotlib

    from benchmarks.plots import STYLE

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    stated = np.array(CURVE)
    settings = list(dict.fromkeys(Setting(row["recordings"], row["ladder"]) for row in rows))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1,
            len(settings),
            figsize=(3.4 * len(settings), 3.6),
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        colours = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(LENGTHS)))
        for panel, setting in zip(axes[0], settings, strict=True):
            panel.loglog(stated, stated, color="#39474a", linewidth=0.8)
            panel.fill_between(stated, stated / 2, stated * 2, color="#e2e8e9")
            for row in rows:
                if Setting(row["recordings"], row["ladder"]) != setting or row["seconds"] is None:
                    continue
                at, low, high = (np.array(line) * stated for line in row["curve"])
                seen = at > 0
                colour = colours[LENGTHS.index(row["seconds"])]
                panel.loglog(stated[seen], at[seen], color=colour, label=f"{row['seconds']:g} s")
                floor = np.maximum(low, 1e-4)
                panel.fill_between(stated[seen], floor[seen], high[seen], color=colour, alpha=0.12)
            panel.set_title(str(setting))
            panel.set_xlabel("stated, per clip")
            panel.set_ylim(1e-4, 5)
        axes[0][0].set_ylabel("observed, per clip")
        axes[0][0].legend()
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True, help="where what was found is noted")
    parser.add_argument("--encoder", type=Path, help="weights; default: those that ship")
    parser.add_argument("--libraries", type=int, nargs="+", default=[100, 1000, 100_000])
    parser.add_argument("--clips", type=int, nargs="+", default=[2000, 20_000, 1000])
    parser.add_argument("--ladder-libraries", type=int, nargs="*", default=[100, 1000])
    parser.add_argument("--ladder-clips", type=int, nargs="*", default=[500, 2000])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    args = parser.parse_args()
    for sizes, counts in (
        (args.libraries, args.clips),
        (args.ladder_libraries, args.ladder_clips),
    ):
        if len(sizes) != len(counts):
            parser.error(f"{len(sizes)} libraries and {len(counts)} numbers of clips: one for each")
    encoder = Encoder.load(args.encoder)
    asking = {
        Setting(recordings, ladder): count
        for ladder, sizes, counts in (
            (False, args.libraries, args.clips),
            (True, args.ladder_libraries, args.ladder_clips),
        )
        for recordings, count in sorted(zip(sizes, counts, strict=True))
    }
    clips = clips_of(max(asking.values()), args.seed)
    journal = Journal(args.folder / f"found-{encoder.id}-{args.seed}.jsonl")
    asked = {
        setting: [it for it in clips if it.number < count] for setting, count in asking.items()
    }
    noted = {(it["recordings"], it["ladder"], it["number"]) for it in journal.entries}
    left = {
        it: [clip for clip in some if (it.recordings, it.ladder, clip.number) not in noted]
        for it, some in asked.items()
    }
    if any(left.values()):
        libraries = Libraries(encoder, max(setting.recordings for setting in asked))
        for setting, some in left.items():
            look_for(some, setting, libraries, journal)
    calibration = Calibration.of(encoder.id)
    looks = {
        setting: looks_of(setting, {it.number: it for it in some}, journal.entries, calibration)
        for setting, some in asked.items()
    }
    rows = summary([setting for setting in asked if looks[setting]], looks)
    (args.folder / "reliability.json").write_text(json.dumps(rows) + "\n")
    print(report(rows))
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
