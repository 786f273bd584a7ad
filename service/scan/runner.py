"""A dataset against the library: every member heard once, noted in a journal, in bounded memory.

    members ──hash──▶ known content? ──▶ workers: decode, fingerprint, search ──▶ journal ──▶ report

Members are read a little ahead, in the dataset's order, and told apart by the SHA-256 of their content: a
copy is noted with what was heard in the first and not decoded. Workers are processes that a hostile file
can kill without harm, here or on the nodes of a cluster. What is in the journal is not done again.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from fingerprint.audio import SPARSEST
from fingerprint.errors import AudioError
from index.database import dial
from service.datasets.limits import MOST_IN_MEMORY
from service.datasets.location import Place
from service.datasets.member import Member
from service.datasets.source import Zipped, at_hand, identify
from service.datasets.url import Url
from service.datasets.walk import members
from service.evidence.bundle import SUFFIX
from service.evidence.errors import EvidenceError
from service.query.answer import ClipError
from service.runtime.reading import Reader
from service.runtime.workers import Bounds, WorkerDied, Workers
from service.scan.journal import GO_ON, Journal, JournalUnwritable, Noted
from service.scan.worker import Heard, Task, listen, set_up

if TYPE_CHECKING:
    from service.runtime.ray_nodes import Nodes

# A commit waits for the disk: often enough to lose little work to a kill.
COMMIT_EVERY = 1.0  # s
# Seconds of work that a second of sound may take, with and without hypotheses; and any sound at all.
_SLOWEST, _SLOWEST_ALTERED, _LEAST_TIME = 0.05, 0.25, 120.0

OnDone = Callable[[Member, Heard | None], None]


def scan(
    dataset: Place,
    journal: Journal,
    task: Task,
    *,
    jobs: int,
    stop: Event,
    on_done: OnDone = lambda member, heard: None,
    cluster: bool = False,
    seal: Callable[[Path], None] | None = None,
) -> bool:
    """Hear every member of a dataset that is not in the journal yet; whether all are now.

    When `stop` is set, what is being heard is finished and noted, and no other is begun. `on_done` is told
    of each member with what was heard in it, None where an earlier run or an earlier copy says it.
    seal : signs the bundles of evidence that the workers write
    cluster : whether the workers are on the nodes of the cluster that was joined, and read the files too

    Raises DatasetError, and JournalUnwritable where the journal or evidence cannot be written.
    """
    slowest = _SLOWEST_ALTERED if task.hypotheses else _SLOWEST
    # readers of a catalogue in a file write beside it, too
    evidence = (task.evidence.absolute().parent,) if task.evidence else ()
    writable = (task.library.absolute(), *evidence)
    longest = _LEAST_TIME + slowest * task.limits.max_seconds
    bounds = Bounds(longest, _LEAST_TIME, slowest / SPARSEST, writable=writable)
    before = partial(dial, task.database)
    with (
        _workers(cluster)(jobs, bounds, set_up, task, before=before, at_hand=at_hand) as workers,
        ThreadPoolExecutor(jobs) as here,
        Reader() as reader,
    ):
        work = _Work(journal, workers, on_done, 2 * jobs, _sealing(task, seal))
        try:
            new = _not_done(members(dataset, reader.read), journal, on_done)
            for member, identity in _identified(new, workers, here, cluster, 2 * jobs, task):
                work.begin(member, identity)
                if stop.is_set():
                    break
            else:
                work.wait_for_all()
                return True
            work.wait_for_all()
        finally:
            work.commit()
    return False


def _sealing(task: Task, seal: Callable[[Path], None] | None) -> Callable[[Heard], None]:
    """What signs the evidence of what was found in a sound."""

    def sign(heard: Heard) -> None:
        if seal is None or task.evidence is None:
            return
        for name in sorted({it.evidence for it in heard.matches if it.evidence is not None}):
            seal((task.evidence.parent / name).with_suffix(SUFFIX))

    return sign


def _workers(cluster: bool) -> "type[Workers | Nodes]":
    if not cluster:
        return Workers
    from service.runtime.ray_nodes import Nodes

    return Nodes


def _not_done(found: Iterable[Member], journal: Journal, on_done: OnDone) -> Iterator[Member]:
    for member in found:
        if journal.has(member):
            on_done(member, None)
        else:
            yield member


Identity = tuple[str, int] | AudioError  # SHA-256 and bytes of a member, or why there are none


def _identified(
    found: Iterator[Member],
    workers: "Workers | Nodes",
    here: ThreadPoolExecutor,
    cluster: bool,
    ahead: int,
    task: Task,
) -> Iterator[tuple[Member, Identity | None]]:
    """Members with what their content is, in order; None where it is not read, as in probing."""
    waiting: deque[tuple[Member, Future[tuple[str, int]] | None]] = deque()
    held = 0
    for member in found:
        future = None
        if member.source is not None and not task.probe:
            # what has to be unpacked for it is unpacked where it can do no harm
            apart = isinstance(member.source, Zipped) and not isinstance(member.source.path, Url)
            readers = workers if cluster or apart else here
            future = readers.submit(identify, member.source, member.name, task.limits)
        waiting.append((member, future))
        held += member.held
        while len(waiting) > ahead or held > MOST_IN_MEMORY:
            first, future = waiting.popleft()
            held -= first.held
            yield _identity(first, future)
    for member, future in waiting:
        yield _identity(member, future)


def _identity(
    member: Member, future: "Future[tuple[str, int]] | None"
) -> tuple[Member, Identity | None]:
    try:
        return member, member.problem if future is None else future.result()
    except WorkerDied as error:
        return member, AudioError(error.type, f"{member.name}: {error.detail}")
    except AudioError as error:
        return member, error


class _Work:
    """What is being heard, who waits for it, and what is to be noted."""

    def __init__(
        self,
        journal: Journal,
        workers: "Workers | Nodes",
        on_done: OnDone,
        most: int,
        seal: Callable[[Heard], None],
    ) -> None:
        self._seal = seal
        self._journal = journal
        self._workers = workers
        self._on_done = on_done
        self._most = most
        self._running: dict[Future[Heard], str] = {}
        self._held: dict[str, int] = {}  # bytes, by sound
        self._waiting: dict[str, list[Noted]] = {}
        self._members: list[Noted] = []
        self._heard: dict[str, Heard] = {}
        self._committed = time.monotonic()

    def begin(self, member: Member, identity: Identity | None) -> None:
        """Have a member heard, if nothing with its content has been."""
        alone = f"{member.index} {member.file}"
        if isinstance(identity, AudioError):
            error = ClipError(type=identity.type, detail=identity.detail)
            self._note([Noted(member, alone)], Heard(error=error))
            return
        sha256, size = identity or (None, None)
        source, member = member.source, replace(member, source=None)
        noted = Noted(member, sha256 or alone, sha256, size)
        if noted.sound in self._waiting:
            self._waiting[noted.sound].append(noted)
        elif noted.sound in self._heard or self._journal.knows(noted.sound):
            self._note([noted], None)
        else:
            assert source is not None  # or there is a problem
            self._waiting[noted.sound] = [noted]
            future = self._workers.submit(listen, source, member.name, sha256)
            self._running[future] = noted.sound
            self._held[noted.sound] = source.held
        while len(self._running) >= self._most or sum(self._held.values()) > MOST_IN_MEMORY:
            self._collect()

    def wait_for_all(self) -> None:
        """Until everything that was begun has been heard."""
        while self._running:
            self._collect()

    def _collect(self) -> None:
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        for future in done:
            sound = self._running.pop(future)
            noted = self._waiting.pop(sound)
            del self._held[sound]
            try:
                heard = future.result()
                self._seal(heard)
            except AudioError as died:
                error = AudioError(died.type, f"{noted[0].member.name}: {died.detail}")
                heard = Heard(error=ClipError(type=error.type, detail=error.detail))
            except EvidenceError as unwritable:
                raise JournalUnwritable(f"{unwritable}; {GO_ON}") from unwritable
            self._note(noted, heard)

    def _note(self, noted: list[Noted], heard: Heard | None) -> None:
        """To be committed soon; heard is None if it was noted before."""
        self._members += noted
        if heard is not None:
            self._heard[noted[0].sound] = heard
        for each in noted:
            self._on_done(each.member, heard)
        if time.monotonic() - self._committed > COMMIT_EVERY:
            self.commit()

    def commit(self) -> None:
        """Note what has been heard since the last time."""
        now = time.monotonic()
        heard = {sound: it.model_dump(mode="json") for sound, it in self._heard.items()}
        self._journal.note(self._members, heard, now - self._committed)
        self._members, self._heard, self._committed = [], {}, now
