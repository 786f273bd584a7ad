"""Kill a library's writer, again and again, and see that nothing acknowledged is lost.

    python -m benchmarks.crashes [--kills 300] [--seed 1]

A child process does random work on one library: it ingests, changes, removes and compacts, and tells its
parent before and after each commit. It is killed (SIGKILL) at a random instant, or its disk is full after
so many bytes, or a synchronisation fails. Then the library must hold what was acknowledged, with or without
the one commit that was in hand, must pass `verify`, and the next child must be able to write.
"""

import argparse
import errno
import functools
import json
import os
import resource
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sql
from numpy.typing import NDArray
from tqdm import tqdm

from fingerprint.encoder import Encoder
from fingerprint.fingerprint import REFERENCE_EVERY, Fingerprint
from index import compaction, segment
from index.compaction import compact
from index.errors import LibraryError
from index.library import Library
from index.recording import Metadata
from index.verify import verify

LONGEST_WAIT = 0.25  # seconds from a child's first commit to its death, at most
WAYS = ("kill", "full disk", "failing fsync")

State = dict[str, tuple[int, str]]  # by id: seed of the sound, title
Operation = tuple[str, Any]  # what is done, and to what


@dataclass
class Told:
    """What a child said before it died: the state acknowledged, and what was in hand, if anything."""

    acknowledged: State
    in_hand: Operation | None = None
    failed: int = 0
    commits: int = 0


def sound(encoder: Encoder, seed: int) -> NDArray[np.float32]:
    """Embeddings of a recording that never was [shape=(n, dimension)]."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((20 + seed % 30, encoder.dimension)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def operation(rng: np.random.Generator, state: State) -> Operation:
    """Something to do to a library in this state."""
    kind = rng.choice(["ingest", "ingest", "change", "remove", "compact"])
    if kind == "ingest" or not state:
        taken = {seed for seed, _ in state.values()}
        seeds = [int(s) for s in rng.choice(400, 3, replace=False) if s not in taken]
        return "ingest", seeds
    if kind == "compact":
        return "compact", None
    count = int(rng.integers(1, 1 + min(3, len(state))))
    ids = [str(id) for id in rng.choice(sorted(state), count, replace=False)]
    return str(kind), {id: f"title {rng.integers(1000)}" for id in ids}


def after(state: State, done: Operation) -> State:
    """The state that an operation leads to."""
    kind, what = done
    if kind == "ingest":
        return state | {f"id-{seed}": (seed, "") for seed in what}
    if kind == "change":
        return state | {id: (state[id][0], title) for id, title in what.items()}
    if kind == "remove":
        return {id: value for id, value in state.items() if id not in what}
    return state


def perform(library: Library, encoder: Encoder, what: Operation) -> None:
    """Do it, in one commit (compaction: one or several)."""
    if what[0] == "compact":
        for _ in compact(library):
            pass
        return
    with library.writer() as writer:
        for item in what[1]:
            if what[0] == "ingest":
                made = fingerprint(encoder, item)
                writer.add(made, Metadata("tune", "Me", "owned", id=f"id-{item}", title=""))
            elif what[0] == "change":
                writer.change(item, {"title": what[1][item]})
            else:
                writer.remove(item)


def fingerprint(encoder: Encoder, seed: int, every: int = REFERENCE_EVERY) -> Fingerprint:
    """What ingest, or with QUERY_EVERY a query, makes of such a recording."""
    embeddings = sound(encoder, seed)
    if every != REFERENCE_EVERY:
        embeddings = np.repeat(embeddings, REFERENCE_EVERY // every, axis=0)
    step = encoder.step * every
    return Fingerprint(
        encoder=encoder.id,
        source="tune",
        sha256=f"{seed:064x}",
        duration=len(embeddings) * step,
        every=every,
        start=step,
        step=step,
        reach=step,
        embeddings=embeddings,
    )


def check(path: Path, encoder: Encoder, allowed: list[State]) -> State:
    """The state that a library is in, which must be an allowed one, whole and searchable."""
    library = Library.open(path, encoder)
    damages = list(verify(library))
    assert not damages, damages
    snapshot = library.refresh()
    found = {it.id: it for it in snapshot.recordings}
    titles = {id: it.title for id, it in found.items()}
    states = [state for state in allowed if titles == {id: t for id, (_, t) in state.items()}]
    assert states, (titles, allowed)
    for number, recording in enumerate(snapshot.recordings):
        seed = states[0][recording.id][0]
        codes = snapshot.codes(number, 0, snapshot.length(number))
        assert codes.sha256() == _hash(encoder, seed)
    library.close()
    return states[0]


@functools.cache
def _hash(encoder: Encoder, seed: int) -> str:
    return segment.Codes(*encoder.codec.encode(sound(encoder, seed))).sha256()


def child(
    path: Path,
    encoder: Encoder,
    state: State,
    work: Callable[[State], Operation | None],
    fault: Callable[[], None],
) -> tuple[int, int]:
    """Fork a process that works on the library until `work` gives nothing more, or it dies.

    `fault` is called in it before its first commit. Returns its id and the pipe on which it tells.
    """
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        return process, reading
    status = 1
    try:
        library = Library.open(path, encoder)
        fault()
        while (what := work(state)) is not None:
            os.write(writing, json.dumps(["begin", what]).encode() + b"\n")
            try:
                perform(library, encoder, what)
                state = after(state, what)
                os.write(writing, b'["done"]\n')
            except LibraryError:
                os.write(writing, b'["failed"]\n')
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(status)


def listen(reading: int) -> bytes:
    """All that a child tells until it ends."""
    with os.fdopen(reading, "rb") as pipe:
        return pipe.read()


def understood(said: bytes, state: State) -> Told:
    """What a child told of its work on a state; a line that it could not finish says nothing."""
    told = Told(state)
    for line in said.split(b"\n")[:-1]:
        kind, *rest = json.loads(line)
        if kind == "begin":
            told.in_hand = (rest[0][0], rest[0][1])
            continue
        if kind == "done" and told.in_hand is not None:
            told.acknowledged = after(told.acknowledged, told.in_hand)
            told.commits += 1
        told.failed += kind == "failed"
        told.in_hand = None
    return told


def die_at(count: int) -> None:
    """Die at the n-th system call or SQL statement that writing a library makes, from now on."""
    left = [count]

    def step() -> None:
        left[0] -= 1
        if left[0] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def before_and_after(*arguments: Any, **options: Any) -> Any:
            step()
            result = function(*arguments, **options)
            step()
            return result

        return before_and_after

    for name in ("fsync", "replace", "unlink", "open"):
        setattr(os, name, counted(getattr(os, name)))
    for event in ("before_cursor_execute", "after_cursor_execute", "commit"):
        sql.event.listen(sql.Engine, event, lambda *_: step())


def fail_fsync(rng: np.random.Generator) -> None:
    """From now on some calls of fsync fail, as on a disk that is dying."""
    real = os.fsync

    def fsync(descriptor: Any) -> None:
        if rng.random() < 0.3:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    os.fsync = fsync  # type: ignore[assignment]


def limit_files(path: Path, more: int) -> None:
    """From now on no file can grow beyond the catalogue's size and `more` bytes: the disk is full.

    SQLite meets the limit as Python does: a write fails.
    """
    size = max(file.stat().st_size for file in path.glob("catalogue.sqlite"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + more, resource.RLIM_INFINITY))


def rounds(path: Path, kills: int, seed: int, tell: Callable[[str], Any]) -> Counter[str]:
    """Children that die or fail in every way, one after the other, on one library."""
    encoder = Encoder.load()
    # small segments, so that every compaction has several commits
    compaction.SEGMENT = 300
    Library.open(path, encoder, create=True).close()
    state: State = {}
    counts: Counter[str] = Counter()
    check(path, encoder, [state])  # compiles the kernels before anything forks
    for number in range(kills):
        rng = np.random.default_rng([seed, number])
        way = WAYS[0] if rng.random() < 0.6 else str(rng.choice(WAYS[1:]))
        some = [int(rng.integers(5, 20))]

        def work(state: State, rng: Any = rng, way: str = way, some: Any = some) -> Any:
            some[0] -= 1
            return operation(rng, state) if way == "kill" or some[0] >= 0 else None

        def fault(rng: Any = rng, way: str = way) -> None:
            if way == "full disk":
                limit_files(path, int(rng.integers(0, 60_000)))
            elif way == "failing fsync":
                fail_fsync(rng)

        process, reading = child(path, encoder, state, work, fault)
        first = os.read(reading, 1)  # it has begun
        if way == "kill":
            time.sleep(rng.random() * LONGEST_WAIT)
            os.kill(process, signal.SIGKILL)
        told = understood(first + listen(reading), state)
        _, status = os.waitpid(process, 0)
        assert status in (0, signal.SIGKILL), f"child {number} ({way}) ended with {status}"
        allowed = [told.acknowledged]
        if told.in_hand is not None:
            allowed.append(after(told.acknowledged, told.in_hand))
        state = check(path, encoder, allowed)
        counts[way] += 1
        counts["commits acknowledged"] += told.commits
        counts["commits refused"] += told.failed
        if told.in_hand is not None:
            counts[f"killed in {told.in_hand[0]}"] += 1
        tell(way)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, tqdm(total=args.kills, disable=None) as bar:
        counts = rounds(Path(folder, "library"), args.kills, args.seed, lambda _: bar.update())
    for name, count in sorted(counts.items()):
        print(f"{count:6} {name}")
    print("nothing acknowledged was lost, nothing else was there, every library passed `verify`")


if __name__ == "__main__":
    main()
