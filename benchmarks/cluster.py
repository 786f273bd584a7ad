"""What a Ray cluster costs: queries and scans in it beside the same without it, in turns, on one machine.

    python -m benchmarks.cluster [--clips 3] [--files 8] [--rounds 3] [--out FILE.json]
    python -m benchmarks.cluster --equal [--out ANSWERS.jsonl]

A cluster is started on this machine: a head, and a node of one core. All sound is real. The library holds
the works that `benchmarks.run --size sample` looks for and those of the train split, in eight segments.

Queries: clips of 5 s of that run's, as they are, altered in speed (for which the ladder of hypotheses is
climbed), and of music that is not in the library (all of the ladder), are asked of the library in this
process and in 1, 2, 4 and 8 shards, which all must answer the same. Scans: a folder of whole files, every
other one of a work in the library, with one worker of this machine and with one of the cluster, which must
report the same; from the first file that is done to the last, for starting takes what it takes once. Told
are CPU time, of the processes that work and of Ray's own, which take theirs by the clock, whether anything
happens or not, and time by the clock, which is only worth something where nothing else is at work; of the
rounds the one that took least.

With --equal, all clips of `benchmarks.run --size sample` are asked of that run's library alone, in this
process and in 1 and 3 shards. How many are answered alike, in all figures, is told; exit status 1 unless all.
Answers are kept in a file, so that a run that was stopped goes on; another code's are to be deleted.
"""

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import psutil
import ray
from ray.cluster_utils import Cluster

from benchmarks import corpora
from benchmarks.calibration.calibrate import library_of
from benchmarks.clips import MadeClip, make_clips
from benchmarks.journal import Journal
from benchmarks.plan import Plan
from benchmarks.run import SIZES, Corpus, gather, material_of, plan_of
from fingerprint.audio import Limits
from fingerprint.cores import work_on
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import (
    QUERY_EVERY,
    REFERENCE_EVERY,
    Fingerprint,
    fingerprint,
)
from index.cluster.shards import Sharded, Shards, connect
from index.database import BESIDE
from index.library import Library
from index.recording import Metadata
from index.search import Match
from index.significance import MATCH, REVIEW
from service.query.answer import match_of
from service.scan.journal import Journal as ScanJournal
from service.scan.runner import scan
from service.scan.worker import Task

SHARDS = (1, 2, 4, 8)
EQUAL = (1, 3)  # shards that are to answer alike
CLIP = 5  # s
ALONE = "embedded"
SHARD = "ray::Shard"  # how the titles of these actors' processes begin
ACTORS = (SHARD, "ray::Node")
MEMORY = 8 * 2**30  # bytes for actors, of a node
NODE: dict[str, Any] = {"object_store_memory": 100 * 2**20, "include_dashboard": False}


def join(cluster: Cluster, memory: int = MEMORY) -> None:
    """Have another node of one core join a cluster, with so many bytes for actors."""
    cluster.add_node(num_cpus=1, memory=memory, **NODE)


@contextmanager
def cluster(nodes: int = 1, memory: int = MEMORY) -> Iterator[Cluster]:
    """A cluster of a head, which has only those who ask, and nodes of one core."""
    made = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "memory": 1})
    try:
        for _ in range(nodes):
            join(made, memory)
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def processes(name: str) -> list[psutil.Process]:
    """Those of the cluster whose title begins so."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if " ".join(process.cmdline()).startswith(name):
                found.append(process)
    return found


class Spent(NamedTuple):
    """Seconds of CPU that what works took, and Ray's own processes; seconds by the clock."""

    cpu: float
    ray: float
    clock: float

    @classmethod
    def now(cls) -> "Spent":
        """So far, by this process, its workers, and the cluster's."""
        working = [time.process_time()]
        rays: list[float] = []
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                title = " ".join(process.cmdline())
                times = process.cpu_times()
                works = title.startswith(ACTORS) or "multiprocessing" in title
                (working if works else rays).append(times.user + times.system)
        return cls(sum(working), sum(rays), time.perf_counter())

    def each(self, before: "Spent", count: int) -> "Spent":
        """What each of so many took since then."""
        return Spent(*((now - then) / count for now, then in zip(self, before, strict=True)))


def least(ways: dict[str, Callable[[], Spent]], rounds: int) -> dict[str, Spent]:
    """What each way takes, the least of so many rounds through all of them."""
    spent: dict[str, list[Spent]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            spent[name].append(way())
    return {name: min(it) for name, it in spent.items()}


@contextmanager
def opened(folder: Path, encoder: Encoder, counts: Sequence[int]) -> Iterator[dict[str, Library]]:
    """A library in this process, and in so many shards each."""
    segments = list((folder / "segments").iterdir())
    largest = max(file.stat().st_size for file in segments)
    with ExitStack() as stack:
        libraries = {ALONE: stack.enter_context(closing(Library.open(folder, encoder)))}
        for count in counts:
            most = largest * -(-len(segments) // count)
            shards = Shards(str(folder / "segments"), encoder, most=most)
            library = Library.open(folder, encoder, shards=shards)
            libraries[f"{count} shards"] = stack.enter_context(closing(library))
        yield libraries


def queries(
    folder: Path, encoder: Encoder, kinds: dict[str, list[Fingerprint]], rounds: int
) -> dict[str, dict[str, Spent]]:
    """What a query takes, by kind of clip, of the library in this process and in shards."""
    answers: dict[str, list[list[Match]]] = {}

    def way(kind: str, name: str) -> Spent:
        segments = libraries[name].refresh().segments
        if isinstance(segments, Sharded):
            segments.forget()  # or what is asked again would have its codes here
        before = Spent.now()
        found = [libraries[name].search(clip)[0] for clip in kinds[kind]]
        spent = Spent.now().each(before, len(found))
        assert answers.setdefault(kind, found) == found, "another answer than before"
        return spent

    with opened(folder, encoder, SHARDS) as libraries:
        figures = {
            kind: least(
                {name: partial(way, kind, name) for name in libraries},
                rounds + 1,  # one of them compiles and loads
            )
            for kind in kinds
        }
        resident = max(it.memory_info().rss for it in processes(SHARD))
        print(f"memory of a shard: {resident / 1e6:.0f} MB", flush=True)
        return figures


def scans(folder: Path, sounds: Sequence[Path], at: Path, rounds: int) -> dict[str, Spent]:
    """What a file takes, of a scan with one worker here and with one in the cluster."""
    dataset = at / "dataset"
    dataset.mkdir()
    for number, sound in enumerate(sounds):
        shutil.copy(sound, dataset / f"{number:03d}{sound.suffix}")
    task = Task(folder, BESIDE, Limits(), REVIEW, MATCH, 0, False, False, None)
    reports: list[list[Any]] = []

    def way(cluster: bool) -> Spent:
        done: list[Spent] = []
        with (
            tempfile.TemporaryDirectory(dir=at) as report,
            closing(ScanJournal.open(Path(report) / "r", {}, {}, resume=False)) as journal,
        ):
            scan(
                dataset,
                journal,
                task,
                jobs=1,
                stop=Event(),
                on_done=lambda member, heard: done.append(Spent.now()),
                cluster=cluster,
            )
            reports.append(list(journal.rows()))
        assert reports[-1] == reports[0], "another report than before"
        return done[-1].each(done[0], len(done) - 1)

    return least({ALONE: lambda: way(False), "cluster": lambda: way(True)}, rounds)


class Sample(NamedTuple):
    """What `benchmarks.run --size sample` is about, its clips, and a library of its works."""

    corpus: Corpus
    plan: Plan
    clips: dict[Path, MadeClip]
    library: Path

    def of(self, *degradations: str, absent: bool) -> list[Path]:
        """Its clips of CLIP seconds, by how they are damaged and whether the library lacks their work."""
        return [
            path
            for path, it in self.clips.items()
            if it.degradation in degradations and (it.absent, it.seconds) == (absent, CLIP)
        ]

    @property
    def largest(self) -> int:
        """Bytes of the library's largest segment."""
        return max(file.stat().st_size for file in (self.library / "segments").iterdir())


def sample(encoder: Encoder, segments: int, beside: Sequence[Fingerprint] = ()) -> Sample:
    """The sample; its library is kept, in so many segments, with other works beside its own or without."""
    corpus = gather(SIZES["sample"], fetch=True, workers=1)
    plan = plan_of(SIZES["sample"], 1, corpus)
    at = corpora.cache_folder() / "runs" / f"sample-seed1-{plan.digest}"
    at.mkdir(parents=True, exist_ok=True)
    clips = make_clips(material_of(plan, corpus), at)
    works = plan.works("reference", "distractor")
    folder = at / f"library-{encoder.id}-{segments}-{len(beside)}"
    with closing(Library.open(folder, encoder, create=True)) as library:
        there = {recording.id for recording in library.every_recording()}
        for first in range(segments):
            with library.writer() as writer:
                for work in sorted({*works[first::segments]} - there):
                    made = fingerprint(corpus.audio[work], encoder, REFERENCE_EVERY)
                    writer.add(made, Metadata(made.source, "benchmark", "open-licence", id=work))
                for made in beside[first::segments]:
                    if made.source not in there:
                        metadata = Metadata(
                            made.source, "benchmark", "open-licence", id=made.source
                        )
                        writer.add(made, metadata)
    named = {at / "clips" / f"{it.id}.flac": it for it in clips if not it.problem}
    return Sample(corpus, plan, named, folder)


def large_sample(encoder: Encoder) -> Sample:
    """The sample, with the train split beside its works, in as many segments as there are shards at most."""
    return sample(encoder, max(SHARDS), train_works(encoder))


def train_works(encoder: Encoder) -> list[Fingerprint]:
    """The works of the train split, of their codes (`benchmarks.calibration.calibrate` keeps them)."""
    step = encoder.step * REFERENCE_EVERY
    return [
        Fingerprint(
            encoder=encoder.id,
            source=name,
            sha256=hashlib.sha256(name.encode()).hexdigest(),
            duration=len(codes) * step,
            every=REFERENCE_EVERY,
            start=step,
            step=step,
            reach=step,
            embeddings=encoder.codec.decode(codes.lists, codes.codes),
        )
        for name, codes in zip(*library_of(encoder), strict=True)
        if len(codes)
    ]


def answered(folder: Path, encoder: Encoder, clips: Iterable[Path], journal: Journal) -> None:
    """Note what this process and shards answer to each clip that was not noted before."""
    done = {entry["clip"] for entry in journal.entries}
    with opened(folder, encoder, EQUAL) as libraries:
        for path in clips:
            if path.stem not in done:
                with suppress(AudioError):  # a silent one
                    made = fingerprint(path, encoder, QUERY_EVERY)
                    answers = {
                        name: list(map(asdict, library.search(made)[0]))
                        for name, library in libraries.items()
                    }
                    journal.append([{"clip": path.stem, "answers": answers}])


def all_alike(entries: Sequence[dict[str, Any]]) -> bool:
    """Whether shards answered every clip as this process did; how many they did is printed."""
    bits: Counter[str] = Counter()  # clips answered alike to the last bit…
    figures: Counter[str] = Counter()  # …and in all the figures that an answer has
    expected = [entry["answers"].pop(ALONE) for entry in entries]
    for entry, alone in zip(entries, expected, strict=True):
        for name, them in entry["answers"].items():
            bits[name] += them == alone
            if [match_of(Match(**it)) for it in them] == [match_of(Match(**it)) for it in alone]:
                figures[name] += 1
            else:
                print(f"{entry['clip']}, {name}: {them} and not {alone}", flush=True)
    known = [alone for alone in expected if alone]
    print(f"{len(entries)} clips, {len(known)} of them answered, {sum(map(len, known))} matches")
    for name, count in figures.items():
        print(f"in {name}: {count} answered alike, {bits[name]} of them to the last bit")
    return all(figures[f"{count} shards"] == len(entries) for count in EQUAL)


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.cluster", description=__doc__.split("\n")[0] if __doc__ else None
    )
    parser.add_argument("--clips", type=int, default=3, help="of each kind")
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--equal", action="store_true", help="whether all answers are alike")
    args = parser.parse_args()
    work_on(1)
    encoder = Encoder.load()
    if args.equal:
        given = sample(encoder, max(EQUAL))
        journal = Journal(args.out or given.library.with_suffix(".answers.jsonl"))
        with cluster() as nodes:
            connect(nodes.address)
            answered(given.library, encoder, given.clips, journal)
        sys.exit(not all_alike(journal.entries))
    given = large_sample(encoder)
    kinds = {
        kind: [fingerprint(path, encoder, QUERY_EVERY) for path in paths[: args.clips]]
        for kind, paths in {
            "as it is": given.of("clean", absent=False),
            "altered": given.of("speed+6%", absent=False),
            "unknown": given.of("clean", "mp3-64", "opus-16", absent=True),
        }.items()
    }
    works = zip(given.plan.works("reference"), given.plan.works("absent"), strict=False)
    sounds = [given.corpus.audio[work] for pair in works for work in pair][: args.files]
    with tempfile.TemporaryDirectory() as at, cluster() as nodes:
        connect(nodes.address)
        figures = {
            "scan": scans(given.library, sounds, Path(at), args.rounds),
            **queries(given.library, encoder, kinds, args.rounds),
        }
    for what, spent in figures.items():
        alone = spent[ALONE]
        for way, it in spent.items():
            print(
                f"{what}, {way}: {1000 * it.cpu:.0f} ms of CPU, {it.cpu / alone.cpu:.2f} times; "
                f"Ray's own {1000 * it.ray:.0f} ms, {1000 * it.ray / it.clock:.0f} ms a second "
                f"(clock: {1000 * it.clock:.0f} ms, {it.clock / alone.clock:.2f} times)",
                flush=True,
            )
    if args.out:
        args.out.write_text(
            json.dumps({"figures": figures, "options": vars(args)}, default=str, indent=1)
        )


if __name__ == "__main__":
    main()
