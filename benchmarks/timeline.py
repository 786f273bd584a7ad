"""Long queries as timelines: how many of their seconds are told right, and where matches begin and end.

    python -m benchmarks.timeline [--split report] [--broadcasts 60] [--mixes 4] [--inserts 6] [--seed 1]

The programmes of `benchmarks.programmes` are looked up as `earmark query` does; what counts are its answers
of tier `match`. Whether a recording is heard is asked at every tenth of a second:

    F1 of seconds   of (recording, moment): precision and recall of what is named
    seconds right   a recording is named, and none that is not heard then
    found           a stretch of a work is named over at least half of its length
    borders         of what is found, that whose beginning and end are both told within 0.5 s

A recording that is named for another one is not wrong where both have the same audio there (`truth`).
Intervals are 95 %: Wilson's, and for shares of seconds, which are not independent, a bootstrap over the
programmes. Programmes, the library and the answers of this code are kept: a run that was cut short goes on.

    python -m benchmarks.timeline --likeness --split tune

prints what the borders in `index.boundaries` rest on: similarity above the crowding by where a pair lies,
before the beginning or after the end of a work, or inside.
"""

import argparse
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from benchmarks import corpora
from benchmarks.accuracy import code_digest
from benchmarks.journal import Journal
from benchmarks.programmes import (
    Heard,
    Material,
    Programme,
    make_programmes,
    material_of,
    recipe_digest,
)
from benchmarks.scoring import share
from benchmarks.truth import Cut, Truth
from fingerprint.audio import read_audio
from fingerprint.encoder import Encoder
from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY, fingerprint
from fingerprint.view import unaltered
from index.library import Library
from index.recording import Metadata
from index.search import Match
from index.significance import UNIT

MOMENT = 0.1  # s
BORDER = 0.5  # s
SAME_PITCH = 0.5  # semitones that an encoder bears by itself
SAME = 3.0  # s of a work in which the same audio is looked for

RESAMPLED = 2000


@dataclass(frozen=True)
class Named:
    """That an answer says a recording is heard from start to end."""

    recording: str
    start: float
    end: float
    tempo: float = 1.0
    pitch_semitones: float = 0.0


@dataclass(frozen=True)
class Timeline:
    """A programme, and what was answered to it."""

    programme: Programme
    named: tuple[Named, ...]
    seconds: float = 0.0  # of CPU

    def moments(self) -> int:
        """Tenths of a second that it has."""
        return round(self.programme.seconds / MOMENT)

    def heard(self) -> dict[str, npt.NDArray[np.bool_]]:
        """By work, at which moments it is heard."""
        return self._at([(each.work, each.start, each.end) for each in self.programme.heard])

    def answered(self) -> dict[str, npt.NDArray[np.bool_]]:
        """By recording, at which moments it is named."""
        return self._at([(each.recording, each.start, each.end) for each in self.named])

    def _at(self, spans: Sequence[tuple[str, float, float]]) -> dict[str, npt.NDArray[np.bool_]]:
        found: dict[str, npt.NDArray[np.bool_]] = {}
        middle = (np.arange(self.moments()) + 0.5) * MOMENT
        for name, start, end in spans:
            inside = (middle >= start) & (middle < end)
            found[name] = found.get(name, np.zeros(len(middle), bool)) | inside
        return found


@dataclass(frozen=True)
class Seconds:
    """Seconds of a programme, of (recording, moment) and of moments."""

    hit: float  # heard and named
    missed: float  # heard, not named
    wrong: float  # named, not heard
    right: float  # moments at which a work is named and none that is not heard
    whole: float  # moments at which a work is heard

    @classmethod
    def of(cls, timeline: Timeline) -> "Seconds":
        heard, named = timeline.heard(), timeline.answered()
        nothing = np.zeros(timeline.moments(), bool)
        hit = [heard[name] & named.get(name, nothing) for name in heard]
        wrong = [named[name] & ~heard.get(name, nothing) for name in named]
        missed = [heard[name] & ~named.get(name, nothing) for name in heard]
        some = np.logical_or.reduce([nothing, *hit])
        false = np.logical_or.reduce([nothing, *wrong])
        music = np.logical_or.reduce([nothing, *heard.values()])
        counts = (*(np.sum(each, dtype=int) for each in (hit, missed, wrong)), 0, 0)
        right, whole = int(np.sum(some & ~false)), int(np.sum(music))
        return cls(*(float(n) * MOMENT for n in (*counts[:3], right, whole)))


def f1(seconds: Sequence[Seconds]) -> float:
    """2 · hit / (2 · hit + missed + wrong) of all together; 1 where there is nothing to be said or missed."""
    hit, missed, wrong = (sum(getattr(s, n) for s in seconds) for n in ("hit", "missed", "wrong"))
    return 2 * hit / (2 * hit + missed + wrong) if hit + missed + wrong else 1.0


def right(seconds: Sequence[Seconds]) -> float:
    """Share of the moments with music that are told right."""
    return sum(s.right for s in seconds) / max(sum(s.whole for s in seconds), MOMENT)


def bootstrap(
    seconds: Sequence[Seconds], value: Callable[[Sequence[Seconds]], float]
) -> tuple[float, float]:
    """95 % interval of a figure of all programmes, over programmes drawn with replacement."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(seconds), (RESAMPLED, len(seconds)))
    values = [value([seconds[i] for i in row]) for row in drawn.tolist()]
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def wrong_works(timeline: Timeline) -> set[str]:
    """Recordings that are named and nowhere heard."""
    return set(timeline.answered()) - set(timeline.heard())


def told(heard: Heard, named: Sequence[Named]) -> Named | None:
    """The one that names a stretch, over half of it or more; of several that which covers most."""

    def shared(each: Named) -> float:
        return min(each.end, heard.end) - max(each.start, heard.start)

    of_it = [each for each in named if each.recording == heard.work]
    best = max(of_it, key=shared, default=None)
    enough = best is not None and shared(best) >= 0.5 * (heard.end - heard.start)
    return best if enough else None


class Bench:
    """A library of a split's works, and programmes to ask it about."""

    def __init__(self, split: str, seed: int) -> None:
        self.encoder = Encoder.load()
        self.material: Material = material_of(split)
        self.folder = corpora.cache_folder() / "runs" / f"timeline-{split}-{seed}-{recipe_digest()}"
        self.seed = seed
        self._audio = {work.id: work for work in (*self.material.known, *self.material.unknown)}
        digest = hashlib.sha256(f"{code_digest()} {self.encoder.id}".encode()).hexdigest()[:8]
        self._answers = self.folder / f"answers-{digest}.jsonl"

    def ingest(self) -> Library:
        """The library; works that it has already are not taken in again."""
        folder = self.folder / f"library-{self.encoder.id}"
        library = Library.open(folder, self.encoder, create=True)
        present = {recording.id for recording in library.refresh().recordings}
        missing = [work for work in self.material.known if work.id not in present]
        if missing:
            with library.writer() as writer:
                for work in tqdm(missing, "library", disable=None):
                    made = fingerprint(work.audio(), self.encoder, REFERENCE_EVERY)
                    writer.add(made, Metadata(made.source, "benchmark", "open-licence", id=work.id))
        return library

    def ask(self, numbers: dict[str, int]) -> list[Timeline]:
        """Programmes of each kind, with the answers to them."""
        programmes = make_programmes(self.material, numbers, self.seed, self.folder)
        library = self.ingest()
        journal = Journal(self._answers)
        answers = {entry["id"]: entry for entry in journal.entries}
        for programme in tqdm(programmes, "answers", disable=None):
            if programme.id in answers:
                continue
            path = self.folder / f"{programme.id}.flac"
            began = time.process_time()
            made = fingerprint(path, self.encoder, QUERY_EVERY)
            matches = library.search(made)[0]
            spent = time.process_time() - began
            answers[programme.id] = {
                "id": programme.id,
                "named": [_named(match) for match in matches if match.tier == "match"],
                "seconds": spent,
            }
            journal.append([answers[programme.id]])
        return [
            self._justified(
                Timeline(
                    programme,
                    tuple(Named(*each) for each in answers[programme.id]["named"]),
                    answers[programme.id]["seconds"],
                )
            )
            for programme in tqdm(programmes, "truth", disable=None)
        ]

    def _justified(self, timeline: Timeline) -> Timeline:
        """The same, where a recording named for another with the same audio goes by the other's name."""
        named = []
        for each in timeline.named:
            heard = [
                it for it in timeline.programme.heard if it.start < each.end and it.end > each.start
            ]
            if all(it.work != each.recording for it in heard):
                for it in heard:
                    if self._same(each, it):
                        each = Named(it.work, *_fields(each)[1:])
                        break
            named.append(each)
        return Timeline(timeline.programme, tuple(named), timeline.seconds)

    def _same(self, named: Named, heard: Heard) -> bool:
        """Whether, in most of what they share, a work has the same audio as the recording named."""
        truth = Truth()
        for id in (heard.work, named.recording):
            truth.add(id, read_audio(self._audio[id].audio()))
        start, end = max(named.start, heard.start), min(named.end, heard.end)
        first, last = (heard.offset + (at - heard.start) * heard.tempo for at in (start, end))
        pieces = max(1, int((last - first) / SAME))
        length = max((last - first) / pieces, 1.0)
        cuts = [Cut(heard.work, first + piece * length, length) for piece in range(pieces)]
        places = truth.places(cuts)
        same = sum(any(p.recording == named.recording for p in some) for some in places)
        return same > pieces / 2


def _named(match: Match) -> tuple[str, float, float, float, float]:
    return (
        match.recording,
        match.query_start,
        match.query_end,
        match.tempo,
        match.pitch_semitones,
    )


def _fields(named: Named) -> tuple[str, float, float, float, float]:
    return named.recording, named.start, named.end, named.tempo, named.pitch_semitones


def _rows(kind: str, timelines: Sequence[Timeline]) -> list[tuple[str, ...]]:
    """What, counts, figure, interval and target of each row of the table."""
    seconds = [Seconds.of(timeline) for timeline in timelines]
    of = f"{len(timelines)} programmes, {sum(s.whole for s in seconds):.0f} s of music"
    wrong = sum(len(wrong_works(timeline)) for timeline in timelines)
    rows: list[tuple[str, ...]] = []
    if kind == "broadcast":
        low, high = bootstrap(seconds, f1)
        target = "0.80 (0.47)"
        rows.append(("F1 of seconds", of, f"{f1(seconds):.2f}", f"{low:.2f} to {high:.2f}", target))
    if kind == "mix":
        low, high = bootstrap(seconds, right)
        interval = f"{low:.1%} to {high:.1%}"
        rows.append(("seconds right", of, f"{right(seconds):.1%}", interval, "90 % (25 to 74 %)"))
    rows += _stretches(kind, timelines)
    named = sum(len({each.recording for each in timeline.named}) for timeline in timelines)
    rows.append(("wrong works", f"of {named} named", str(wrong), "", "0" if kind == "mix" else ""))
    cost = sum(t.seconds for t in timelines) / sum(t.programme.seconds for t in timelines)
    rows.append(("CPU", "", f"{60 * cost:.1f} s a minute", "", ""))
    return rows


def _stretches(kind: str, timelines: Sequence[Timeline]) -> list[tuple[str, ...]]:
    """Rows about whole stretches of works: how many are found, and their borders."""
    pairs = [(heard, told(heard, t.named)) for t in timelines for heard in t.programme.heard]
    found = [(heard, named) for heard, named in pairs if named is not None]
    starts = np.array([named.start - heard.start for heard, named in found])
    ends = np.array([named.end - heard.end for heard, named in found])
    near = int(np.sum((np.abs(starts) <= BORDER) & (np.abs(ends) <= BORDER)))
    short = kind == "inserts"
    rows = [_counted("found", len(found), len(pairs), "90 %" if short else "")]
    if found and kind != "mix":
        rows.append(_counted("borders within 0.5 s", near, len(found), "all" if short else ""))
        rows.append(
            (
                "beginnings, ends told late by",
                "10th, 50th, 90th percentile",
                "; ".join(
                    ", ".join(f"{value:+.2f}" for value in np.percentile(each, (10, 50, 90)))
                    for each in (starts, ends)
                )
                + " s",
                "",
                "",
            )
        )
    return rows


def _counted(what: str, k: int, n: int, target: str) -> tuple[str, ...]:
    value = share(k, n)
    if value is None:
        return (what, "0 of 0", "", "", target)
    return (
        what,
        f"{k} of {n}",
        f"{value.value:.1%}",
        f"{value.low:.1%} to {value.high:.1%}",
        target,
    )


DISTANCES = (-60.0, -4.0, -1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0, 60.0)  # s inside a stretch


def likeness(bench: Bench, numbers: dict[str, int]) -> list[str]:
    """Rows of a table: similarity above the crowding, by how far inside a work's stretch a pair lies.

    Of pairs on the work's own line, of works whose pitch is their own.
    """
    library = bench.ingest()
    snapshot = library.refresh()
    number = {recording.id: n for n, recording in enumerate(snapshot.recordings)}
    found: dict[str, list[tuple[float, float]]] = {}
    for programme in make_programmes(bench.material, numbers, bench.seed, bench.folder):
        path = bench.folder / f"{programme.id}.flac"
        view = unaltered(fingerprint(path, bench.encoder, QUERY_EVERY), bench.encoder)
        for it in programme.heard:
            if abs(it.pitch_semitones) > SAME_PITCH:
                continue
            recording = number[it.work]
            codes = snapshot.codes(recording, 0, snapshot.length(recording))
            stored = view.codec.decode(codes.lists, codes.codes)
            crowding = view.codec.crowding(stored, codes.lists)
            seconds = view.reach + bench.encoder.step * REFERENCE_EVERY * np.arange(len(codes))
            heard_at = it.start + (seconds - it.offset) / it.tempo
            at = np.rint((heard_at - view.start) / view.step).astype(int)
            (held,) = np.nonzero((at >= 0) & (at < len(view.embeddings)))
            at = at[held]
            alike = np.sum(view.embeddings[at] * stored[held], axis=1)
            above = (alike - (view.crowding[at] + crowding[held]) / 2) / UNIT
            inside = np.minimum(heard_at[held] - it.start, it.end - heard_at[held])
            found.setdefault(programme.kind, []).extend(zip(inside, above, strict=True))
    rows = []
    for kind, pairs in found.items():
        inside, above = np.array(pairs).T
        for low, high in pairwise(DISTANCES):
            some = above[(inside >= low) & (inside < high)]
            if len(some):
                deciles = ", ".join(f"{value:.1f}" for value in np.percentile(some, (10, 50, 90)))
                rows.append(
                    f"| {kind} | {low:g} to {high:g} s | {len(some)} | {some.mean():.1f} "
                    f"| {some.std():.1f} | {deciles} |"
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--split", choices=("tune", "report"), default="report")
    parser.add_argument("--broadcasts", type=int, default=60)
    parser.add_argument("--mixes", type=int, default=4)
    parser.add_argument("--inserts", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--likeness", action="store_true", help="what borders rest on, instead of answers"
    )
    args = parser.parse_args()
    bench = Bench(args.split, args.seed)
    numbers = {"broadcast": args.broadcasts, "mix": args.mixes, "inserts": args.inserts}
    if args.likeness:
        print(f"{args.split} split; encoder {bench.encoder.id}; seed {args.seed}\n")
        print("| programme | inside by | pairs | mean | deviation | 10th, 50th, 90th percentile |")
        print("|---|---|---|---|---|---|")
        print("\n".join(likeness(bench, numbers)))
        return
    timelines = bench.ask(numbers)
    known = bench.material.known
    print(
        f"{args.split} split, {len(known)} works ({sum(w.duration for w in known) / 3600:.1f} h) in the "
        f"library; encoder {bench.encoder.id}; seed {args.seed}\n"
    )
    print(
        "| programme | what | of | figure | 95 % | target (best published) |\n|---|---|---|---|---|---|"
    )
    for kind in numbers:
        of_kind = [timeline for timeline in timelines if timeline.programme.kind == kind]
        for row in _rows(kind, of_kind) if of_kind else []:
            print(f"| {' | '.join((kind, *row))} |")


if __name__ == "__main__":
    main()
