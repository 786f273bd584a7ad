"""Nodes of a Ray cluster are killed at work: what is answered and reported then, on real recordings.

    python -m benchmarks.soak.deaths queries [--kills 3] [--seed 1]
    python -m benchmarks.soak.deaths scan [--kills 3] [--files 120] [--seed 1]

A cluster of a head and two nodes is started on this machine.

queries: a server that holds the library of `benchmarks.cluster` in four shards is asked over HTTP about the
clips of 5 s of `benchmarks.run --size sample`. While a query is in hand, a node is killed, whose shards have
no room on the other; some answers later another node joins. Every answer must be that of one machine, in all
its figures; one that tells of "answered" that of one machine without the segments which that leaves out. Then
the same with two replicas of each shard.

scan: files made as those of `benchmarks.soak.dump`, of that run's works, are scanned by one machine and by
the cluster, of which nodes are killed at instants drawn at random, each to be followed by another. The
reports must be the same.

Exit status 1 if an answer or a report is another.
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.random import Generator
from ray.cluster_utils import Cluster

from benchmarks.cluster import CLIP, SHARD, Sample, cluster, join, large_sample, processes
from benchmarks.soak.dump import TABLES, Made, Maker, earmark, pack, started, wait_for
from benchmarks.soak.load import server
from fingerprint.cores import work_on
from fingerprint.encoder import Encoder
from fingerprint.fingerprint import QUERY_EVERY, fingerprint
from fingerprint.hypotheses import LADDER
from index.cluster.shards import MEMORY_OF_A_SHARD
from index.library import Library
from index.query_context import Question
from index.search import THOROUGH, search
from index.significance import REVIEW
from service.jobs.scan_jobs import files_heard
from service.query.answer import match_of
from service.scan.journal import FILE as JOURNAL

SHARDS = 4
REPLICAS = (1, 2)
SOME = 5  # answers before a node is killed, and before another joins
LONGEST = 1.0  # s from a query to the death of a node, at most
PATIENCE = 300.0  # s for an answer
PLACES = 4  # decimal, of the share that answered


class Alone:
    """What one machine answers, with all of a library or without some of its segments."""

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        self._encoder = encoder
        self._library = Library.open(folder, encoder)
        self._snapshot = self._library.refresh()
        segments = self._snapshot.segments
        ends = [*list(segments.firsts.values())[1:], segments.total]
        self._sizes = {
            number: end - first
            for (number, first), end in zip(segments.firsts.items(), ends, strict=True)
        }

    def agrees(self, reply: "Reply") -> bool:
        """Whether it answers the same, without segments that are as large as those that were missing."""
        return any(self._answer(reply.clip, it) == reply.matches for it in self._left_out(reply))

    def _left_out(self, reply: "Reply") -> Iterator[tuple[int, ...]]:
        total = sum(self._sizes.values())
        for count in range(len(self._sizes) + 1):
            for segments in itertools.combinations(self._sizes, count):
                rest = total - sum(self._sizes[it] for it in segments)
                if round(rest / total, PLACES) == reply.answered:
                    yield segments

    def _answer(self, clip: Path, without: tuple[int, ...]) -> list[dict[str, Any]]:
        part = self._snapshot.without(without) if without else self._snapshot
        question = Question(fingerprint(clip, self._encoder, QUERY_EVERY), part, self._encoder)
        given = self._library.calibration, REVIEW, LADDER, THOROUGH, self._library.gate
        return [match_of(it).model_dump(mode="json") for it in search(question, *given)]


@dataclass(frozen=True)
class Reply:
    """A server's, to a clip; when it was asked for and came, by the clock."""

    clip: Path
    status: int
    body: dict[str, Any]
    asked: float
    came: float

    @property
    def matches(self) -> Any:
        """What it found."""
        return self.body.get("matches", [])

    @property
    def answered(self) -> Any:
        """The share of the library that it is from."""
        return self.body["library"].get("answered", 1.0) if self.status == 200 else 0.0


def ask(address: str, clip: Path) -> Reply:
    """What a server says to a clip."""
    began = time.monotonic()
    got = httpx.post(
        f"{address}/v1/query", files={"clip": (clip.name, clip.read_bytes())}, timeout=PATIENCE
    )
    return Reply(clip, got.status_code, got.json(), began, time.monotonic())


def kill(nodes: Cluster, rng: Generator) -> None:
    """Kill a node and all that runs on it, but not the head."""
    among = sorted(nodes.worker_nodes, key=lambda it: str(it.unique_id))
    nodes.remove_node(among[rng.integers(len(among))], allow_graceful=False)


@dataclass
class Death:
    """A node's: what was answered around it, when it died, when another joined."""

    replies: list[Reply]
    died: float
    joined: float

    def __str__(self) -> str:
        parts = [it for it in self.replies if it.answered < 1]
        shares = ", ".join(dict.fromkeys(str(it.answered) for it in parts))
        first = next(it for it in self.replies if it.came > self.died)
        said = (
            f"{len(self.replies)} answers, {len(parts)} of them of a part of the library ({shares}); "
            f"that in hand came {first.came - self.died:.1f} s after the death"
        )
        if parts:
            whole = next(it for it in self.replies if it.asked > parts[-1].asked)
            said += f"; whole again {whole.came - self.joined:.1f} s after another node joined"
        return said


def queries(given: Sample, encoder: Encoder, kills: int, rng: Generator) -> bool:
    """Ask while nodes die; whether all was answered as it has to be."""
    alone = Alone(given.library, encoder)
    clips = [path for path, it in given.clips.items() if it.seconds == CLIP]
    order = itertools.cycle(rng.permutation(len(clips)))
    most = -(-len(list((given.library / "segments").iterdir())) // SHARDS) * given.largest
    right: list[bool] = []
    matches = 0
    for replicas in REPLICAS:
        actors = SHARDS * replicas
        memory = round((actors / 2 + 0.5) * (MEMORY_OF_A_SHARD + most))  # there is room for half
        settings = {"EARMARK_SHARD_SIZE": str(most), "EARMARK_REPLICAS": str(replicas)}
        with (
            tempfile.TemporaryDirectory() as at,
            cluster(2, memory) as nodes,
            server(given.library, Path(at), 1, EARMARK_RAY=nodes.address, **settings) as (
                address,
                _,
            ),
        ):
            for number in range(1, kills + 1):
                asked = (ask(address, clips[it]) for it in order)
                death = around_a_death(asked, nodes, memory, actors, rng)
                good = [it.status == 200 and alone.agrees(it) for it in death.replies]
                print(
                    f"{replicas} replicas, node {number} killed: {death}; {good.count(True)} right",
                    flush=True,
                )
                right += good
                matches += sum(len(it.matches) for it in death.replies)
    print(f"{len(right)} answers with {matches} matches, {right.count(True)} of them right")
    return all(right)


def around_a_death(
    asked: Iterator[Reply], nodes: Cluster, memory: int, actors: int, rng: Generator
) -> Death:
    """Ask before and while a node dies, without it, until another has taken its place, and after that."""

    def some() -> list[Reply]:
        return list(itertools.islice(asked, SOME))

    replies = some()
    with ThreadPoolExecutor(1) as pool:
        in_hand = pool.submit(next, asked)
        time.sleep(rng.uniform(0, LONGEST))
        died = time.monotonic()
        kill(nodes, rng)
        replies.append(in_hand.result())
    replies += some()
    join(nodes, memory)
    joined = time.monotonic()
    while replies[-1].answered < 1 or len(processes(SHARD)) < actors:
        if time.monotonic() > joined + PATIENCE:
            sys.exit(f"not all of the library is there again after {PATIENCE:g} s")
        replies.append(next(asked))
    return Death(replies + some(), died, joined)


def scan(given: Sample, kills: int, files: int, seed: int) -> bool:
    """Scan while nodes die; whether the report is that of one machine."""
    rng = np.random.default_rng(seed)
    maker = Maker(given.corpus, given.plan.works("reference"), given.plan.works("absent"), seed)
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        made: list[Made] = []
        for number in range(files):
            made.append(maker.file(number, made))
        (at / "dump").mkdir()
        pack(made, at / "dump")
        began = time.monotonic()
        scanned = "scan", at / "dump"
        statuses = [earmark(given.library, *scanned, "--report", at / "alone", "--jobs", 1)]
        print(f"one machine, one worker: {time.monotonic() - began:.0f} s", flush=True)
        with cluster(2) as nodes:
            began = time.monotonic()
            where = "--report", at / "killed", "--ray", nodes.address, "--jobs", 2
            process = started(given.library, *scanned, *where)
            journal = at / "killed" / JOURNAL
            for after in sorted(rng.integers(2, files * 9 // 10, kills)):
                wait_for(process, journal, int(after), rng.uniform(0, 2))
                if process.poll() is not None:
                    sys.exit(f"the scan ended before a node could be killed after {after} files")
                print(f"a node is killed after {files_heard(journal)} files", flush=True)
                kill(nodes, rng)
                join(nodes)
            statuses.append(process.wait())
            print(f"two nodes, {kills} killed: {time.monotonic() - began:.0f} s", flush=True)
        if statuses != [1, 1]:  # there are files that cannot be read
            sys.exit(f"the scans left with {statuses}")
        same = [
            (at / "alone" / name).read_bytes() == (at / "killed" / name).read_bytes()
            for name in TABLES
        ]
        alone, killed = (summary(at / name) for name in ("alone", "killed"))
    print(f"the summary: {json.dumps(alone)}")
    print(f"the same: {dict(zip(TABLES, same, strict=True))}, the summary {alone == killed}")
    return all(same) and alone == killed


def summary(report: Path) -> dict[str, Any]:
    """A scan's, without what the clock says."""
    said: dict[str, Any] = json.loads((report / "summary.json").read_text())
    return {
        name: value
        for name, value in said.items()
        if name not in ("elapsed_seconds", "real_time_factor", "begun_at", "made_at")
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.soak.deaths", description=__doc__.split("\n")[0] if __doc__ else None
    )
    parser.add_argument("what", choices=("queries", "scan"))
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--files", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    work_on(1)
    encoder = Encoder.load()
    given = large_sample(encoder)
    if args.what == "queries":
        sys.exit(not queries(given, encoder, args.kills, np.random.default_rng(args.seed)))
    sys.exit(not scan(given, args.kills, args.files, args.seed))


if __name__ == "__main__":
    main()
