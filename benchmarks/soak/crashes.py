"""Kill a library's writer, again and again, and see that nothing acknowledged is lost.

    python -m benchmarks.soak.crashes [--kills 300] [--seed 1]

A child process does random work on one library: it ingests, changes, removes and compacts, and tells its
parent before and after each commit. It is killed (SIGKILL) at a random instant or in a system call, or its
disk is full after so many bytes, or system calls of its own, of SQLite and on the folder fail, once or from
then on, which strace injects (Debian: strace). Then the library must hold what was acknowledged, with or
without the one commit that a kill met in hand, without those that were refused, must pass `verify`, and the
next writer must be able to begin.

What a power cut leaves of that which no synchronisation had put on the disk is not tried.
"""

import argparse
import ctypes
import functools
import json
import os
import resource
import signal
import subprocess
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sql
from numpy.typing import NDArray
from tqdm import tqdm

from fingerprint.encoder import Encoder
from fingerprint.fingerprint import REFERENCE_EVERY, Fingerprint
from index import compaction, merging, segment
from index.compaction import compact
from index.database import BESIDE
from index.errors import LibraryError
from index.library import PATIENCE, Library
from index.recording import Metadata
from index.verify import orphans, verify

LONGEST_WAIT = 0.25  # seconds from a child's first commit to its death, at most
# System calls by which a library changes, and what strace has become of them. It passes over names marked
# by ? that a machine does not have.
_WRITES = "write,pwrite64"
_SYNCHRONISATIONS = "fsync,fdatasync"
_NAMES = "?rename,?renameat,?renameat2,?unlink,?unlinkat"
FAULTS = {
    "failing fsync": (_SYNCHRONISATIONS, "error=EIO"),
    "failing write": (_WRITES, "error=EIO"),
    "no space left": (f"{_WRITES},ftruncate", "error=ENOSPC"),
    "failing rename": (_NAMES, "error=EIO"),
    "kill in a call": (f"{_SYNCHRONISATIONS},{_WRITES},ftruncate,{_NAMES}", "signal=SIGKILL"),
}
FAILING = ("full disk", *FAULTS)  # ways in which a writer is hurt, beside a kill at any instant
LATEST_CALL = 40  # of its kind that is the first to fail
_PR_SET_PTRACER = 0x59616D61  # prctl(2)

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


def check(path: Path, encoder: Encoder, allowed: list[State], url: sql.URL = BESIDE) -> State:
    """The state that a library is in: an allowed one, whole, searchable, and open to the next writer."""
    library = Library.open(path, encoder, url=url)
    # a server has still to learn that who was killed is gone, and what it may have confirmed
    with library.writer(wait=0.0 if url == BESIDE else PATIENCE):
        pass
    assert not orphans(library)
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
    url: sql.URL = BESIDE,
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
        library = Library.open(path, encoder, url=url)
        fault()
        while (what := work(state)) is not None:
            _tell(writing, "begin", what)
            try:
                perform(library, encoder, what)
            except LibraryError:
                _tell(writing, "failed")
            else:
                state = after(state, what)
                _tell(writing, "done")
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(status)


def _tell(writing: int, *what: Any) -> None:
    """Not by write(2), which may be made to fail."""
    os.writev(writing, [json.dumps(what).encode() + b"\n"])


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
    """Die at the n-th system call or SQL statement that making or writing a library makes, from now on."""
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

    for name in ("fsync", "replace", "unlink", "open", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))
    for event in ("before_cursor_execute", "after_cursor_execute", "commit"):
        sql.event.listen(sql.Engine, event, lambda *_: step())


def inject(fault: str, first: int, lasting: bool) -> None:
    """From now on the `first` system call of its kind, or with `lasting` every one from there, meets a fault.

    Raises PermissionError where strace may not look at this process.
    """
    calls, what = FAULTS[fault]
    # where Yama guards processes, a tracer that did not start this one needs its leave
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)
    when = f"{first}{'+' * lasting}"
    tracing = ("-e", f"trace={calls}", "-e", f"inject={calls}:{what}:when={when}")
    strace = subprocess.Popen(
        ["strace", "-f", "-p", str(os.getpid()), "-o", os.devnull, *tracing], stderr=subprocess.PIPE
    )
    assert strace.stderr is not None
    said = strace.stderr.readline().decode()
    if "attached" not in said:
        raise PermissionError(said)


def limit_files(path: Path, more: int) -> None:
    """From now on no file can grow beyond a size and `more` bytes: the disk is full.

    The size is the catalogue's, or, where `more` is even, that of the largest file, which is a segment's: so
    a segment meets the limit, or SQLite's log. SQLite meets it as Python does: a write fails.
    """
    of = "catalogue.sqlite" if more % 2 else "**/*"
    size = max(file.stat().st_size for file in path.glob(of))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + more, resource.RLIM_INFINITY))


def rounds(
    path: Path,
    kills: int,
    seed: int,
    tell: Callable[[str], Any],
    failing: Sequence[str] = FAILING,
) -> Counter[str]:
    """Children on one library, every other one killed at an instant, the rest hurt in each way in turn."""
    encoder = Encoder.load()
    # small segments, so that every compaction has several commits
    compaction.LARGEST = merging.LARGEST = 300
    Library.open(path, encoder, create=True).close()
    state: State = {}
    counts: Counter[str] = Counter()
    check(path, encoder, [state])  # compiles the kernels before anything forks,
    _hash(encoder, 0)  # and is hurt
    for number in range(kills):
        rng = np.random.default_rng([seed, number])
        way = "kill" if number % 2 else failing[number // 2 % len(failing)]
        some = [int(rng.integers(5, 20))]

        def work(state: State, rng: Any = rng, way: str = way, some: Any = some) -> Any:
            some[0] -= 1
            return operation(rng, state) if way == "kill" or some[0] >= 0 else None

        def fault(rng: Any = rng, way: str = way) -> None:
            if way == "full disk":
                limit_files(path, int(rng.integers(0, 60_000)))
            elif way in FAULTS:
                inject(way, int(rng.integers(1, LATEST_CALL)), bool(rng.random() < 0.5))

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
        try:
            state = check(path, encoder, allowed)
        except AssertionError as error:
            raise AssertionError(f"after child {number} ({way})") from error
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
