"""How fast readers are answered while a library is written, and whether each answer is that of some commit.

    python -m benchmarks.scale --sizes 10000 --folder FOLDER
    python -m benchmarks.soak.readers FOLDER [--readers 8] [--seconds 120]

On a copy of that library, processes look up clips one after the other, by turns while nobody writes and
beside a writer that without a pause adds recordings, changes and removes those that the clips are of, puts
them back and compacts. An answer is right if what it names was there, under that title, at the revision that
it states, if its clip's recording is named where it was there, and if all readers at one revision are told
the same.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.simulation import ANGLE, Simulation, identifier, metadata, stored
from fingerprint.encoder import Encoder
from fingerprint.fingerprint import Fingerprint
from index import catalogue
from index.backup import backup
from index.compaction import compact
from index.library import Library
from index.recording import Metadata

ADDED = 50  # recordings that the writer adds, and takes away again, in a turn
MIXED = 50  # recordings of the library that these are mixed of
FIRST_NEW = 5_000_000  # their numbers
PERIODS = 4  # in which nobody writes, and as many in which somebody does
SURE = 1e-12  # E-value of clips that are asked about, in the library at rest


class Asked(NamedTuple):
    """One answer: of which state, to which clip, the ids and titles that it names, when, CPU seconds."""

    revision: int
    clip: int
    named: frozenset[tuple[str, str | None]]
    began: float  # on the clock of all processes
    ended: float
    cpu: float


def read(
    path: Path, clips: Sequence[Fingerprint], seed: int, ready: Any, over: Any, out: Any
) -> None:
    """Look up clips, at random, until it is over."""
    rng = np.random.default_rng(seed)
    library = Library.open(path, Encoder.load())
    library.search(clips[0])
    ready.wait()
    told = []
    while not over.is_set():
        clip = int(rng.integers(len(clips)))
        began, cpu = time.monotonic(), time.process_time()
        matches, snapshot = library.search(clips[clip])
        ended, cpu = time.monotonic(), time.process_time() - cpu
        named = frozenset((match.recording, match.title) for match in matches)
        told.append(Asked(snapshot.revision, clip, named, began, ended, cpu))
    out.put(told)


class Readers:
    """Processes that look up clips in a library until they are told to end."""

    def __init__(self, path: Path, clips: Sequence[Fingerprint], count: int) -> None:
        context = multiprocessing.get_context("spawn")
        ready = context.Barrier(count + 1)
        self._over, self._out = context.Event(), context.Queue()
        self._processes = [
            context.Process(target=read, args=(path, clips, seed, ready, self._over, self._out))
            for seed in range(count)
        ]
        for process in self._processes:
            process.start()
        ready.wait()

    def end(self) -> list[Asked]:
        """All that they were told."""
        self._over.set()
        told = [asked for _ in self._processes for asked in self._out.get()]
        for process in self._processes:
            process.join()
        return told


class History:
    """What the recordings that a writer touches were called at each revision; None where they were gone."""

    def __init__(self) -> None:
        self._changes: dict[str, list[tuple[int, str | None]]] = {}

    def note(self, revision: int, id: str, title: str | None) -> None:
        self._changes.setdefault(id, []).append((revision, title))

    def title(self, revision: int, id: str) -> str | None:
        """The title at a revision; that which `benchmarks.scale` gave until it was touched."""
        changes = self._changes.get(id, [])
        at = bisect_right(changes, revision, key=lambda change: change[0])
        number = int(id.rpartition("-")[2])
        return changes[at - 1][1] if at else metadata(number).title


def turn(
    library: Library,
    number: int,
    held: dict[str, Fingerprint],
    new: dict[int, Fingerprint],
    told: History,
) -> None:
    """What a writer does in a turn: four commits and a compaction."""

    def note(titles: dict[str, str | None]) -> None:
        with library.reading() as connection:
            revision = catalogue.revision(connection)
        for id, title in titles.items():
            told.note(revision, id, title)

    gone = sorted(held)[number % 3 :: 3]
    with library.writer() as writer:
        for i, made in new.items():
            writer.add(made, metadata(i))
    note({identifier(i): metadata(i).title for i in new})
    with library.writer() as writer:
        for id in held:
            writer.change(id, {"title": f"turn {number}"})
        for id in gone:
            writer.remove(id)
    note({id: None if id in gone else f"turn {number}" for id in held})
    with library.writer() as writer:
        for id in gone:
            writer.add(held[id], Metadata("again.flac", "Me", "owned", id=id, title="again"))
    note(dict.fromkeys(gone, "again"))
    with library.writer() as writer:
        for i in new:
            writer.remove(identifier(i))
    note(dict.fromkeys(map(identifier, new)))
    for _ in compact(library):
        pass


def wrong(asked: Sequence[Asked], wanted: Sequence[str], told: History) -> list[str]:
    """What is not as some commit has it; `wanted` are the ids that the clips are of."""
    said: dict[tuple[int, int], frozenset] = {}
    problems = []
    for it in asked:
        where = f"revision {it.revision}, clip {it.clip} of {wanted[it.clip]}"
        problems += [
            f"{where}: {id} was not {title!r} then"
            for id, title in it.named
            if told.title(it.revision, id) != title
        ]
        there = told.title(it.revision, wanted[it.clip]) is not None
        if there != (wanted[it.clip] in {id for id, _ in it.named}):
            problems.append(f"{where}: it is {'not named' if there else 'named'}")
        if said.setdefault((it.revision, it.clip), it.named) != it.named:
            problems.append(f"{where}: two readers were told different things")
    return problems


def figures(asked: Sequence[Asked]) -> dict[str, float]:
    """How many were answered, and the median and 95th percentile of the time that took, in ms."""
    wall = [1000 * (it.ended - it.began) for it in asked]
    cpu = [1000 * it.cpu for it in asked]
    return {
        "queries": len(asked),
        "median": round(statistics.median(wall), 1),
        "p95": round(float(np.quantile(wall, 0.95)), 1),
        "cpu_median": round(statistics.median(cpu), 1),
        "cpu_p95": round(float(np.quantile(cpu, 0.95)), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="of benchmarks.scale")
    parser.add_argument("--readers", type=int, default=8)
    parser.add_argument(
        "--seconds", type=float, default=120, help="with a writer, and as many without"
    )
    args = parser.parse_args()
    encoder = Encoder.load()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder, "library")
        backup(Library.open(args.folder / "library", encoder), path)
        library = Library.open(path, encoder)
        clips, wanted = [], []
        for file in sorted((args.folder / "clips").glob("unaltered-*.emk")):
            clip = Fingerprint.load(file.read_bytes(), file.name)
            id = identifier(int(file.stem.split("-")[1]))
            matches, _ = library.search(clip)
            if any(match.recording == id and match.e_value < SURE for match in matches):
                clips.append(clip)
                wanted.append(id)
        held = taken(library, set(wanted))
        new = mixed(library)
        told = History()
        readers = Readers(path, clips, args.readers)
        periods: dict[str, list[tuple[float, float]]] = {"alone": [], "beside a writer": []}
        turns = 0
        for _ in range(PERIODS):
            for name, spans in periods.items():
                began = time.monotonic()
                ends = began + args.seconds / PERIODS
                while time.monotonic() < ends:
                    if name == "alone":
                        time.sleep(0.1)
                    else:
                        turn(library, turns, held, new, told)
                        turns += 1
                spans.append((began, time.monotonic()))
        asked = readers.end()
        problems = wrong(asked, wanted, told)
        said: dict[str, Any] = {
            "recordings": len(library.refresh().recordings),
            "readers": args.readers,
            "turns": turns,
            "revisions_seen": len({it.revision for it in asked}),
            "wrong_answers": len(problems),
        }
        for name, spans in periods.items():
            during = [it for it in asked if any(a <= it.began and it.ended <= b for a, b in spans)]
            said[name] = figures(during)
        for name in ("p95", "cpu_p95"):
            said[f"{name}_ratio"] = round(said["beside a writer"][name] / said["alone"][name], 2)
    print(json.dumps(said))
    if problems:
        sys.exit("\n".join(problems[:20]))


def taken(library: Library, ids: set[str]) -> dict[str, Fingerprint]:
    """References of these recordings, made of their codes."""
    snapshot = library.refresh()
    found: dict[str, Fingerprint] = {}
    for place, recording in enumerate(snapshot.recordings):
        if len(found) == len(ids):
            break
        if recording.id in ids:
            embeddings = snapshot.embeddings(place, 0, snapshot.length(place))
            found[recording.id] = stored(embeddings, library.encoder, place)
    return found


def mixed(library: Library) -> dict[int, Fingerprint]:
    """New recordings by their numbers, mixed of those that came last."""
    snapshot = library.refresh()
    count = len(snapshot.recordings)
    of = [
        snapshot.embeddings(place, 0, snapshot.length(place))
        for place in range(max(0, count - MIXED), count)
    ]
    simulation = Simulation(of, ANGLE, library.encoder)
    return {i: simulation.recording(i) for i in range(FIRST_NEW, FIRST_NEW + ADDED)}


if __name__ == "__main__":
    main()
