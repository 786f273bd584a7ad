"""Workers on the nodes of a Ray cluster, for scans: an actor each, with a process that may die of a file.

Each actor uses `service.runtime.workers.Workers`, so a hostile file costs no more there than here. A worker
whose node dies is started again on another node as soon as one has a free core; its file goes to whichever
worker is free. The journal, and what is done so far, stay on the first machine.
"""

import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, NamedTuple, ParamSpec, Self, TypeVar

import ray
from ray.exceptions import RayError

from fingerprint.encoder import Encoder
from fingerprint.errors import EarmarkError
from index.cluster.shards import STARTED_WITHIN, Version, here, told
from index.errors import ClusterError
from service.runtime.workers import Bounds, WorkerDied, Workers

P = ParamSpec("P")
R = TypeVar("R")

MOST_LOST = 5  # times that a piece of work may lose its actor, until it is to blame for that
_log = logging.getLogger(__name__)
_LOOK = 1.0  # s between two looks at whether it is over, while an actor is waited for


def cores() -> int:
    """Cores of all nodes of the cluster."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


class Node:
    """An actor: one worker process of its node."""

    def __init__(
        self,
        bounds: Bounds,
        setup: Callable[..., None],
        given: tuple[Any, ...],
        before: Callable[[], None] | None,
        at_hand: Callable[[object], object],
    ) -> None:
        self._workers = Workers(1, bounds, setup, *given, before=before, at_hand=at_hand)

    def begin(self, version: Version) -> None:
        """Have the process there. Raises ClusterError if this is another version, and what `setup` raised."""
        version.require(_version(), here())
        self._workers.submit(_version).result()

    def do(self, work: "partial[Any]") -> Any:
        """What work() returns or raises."""
        return self._workers.submit(work.func, *work.args, **work.keywords).result()


def _version() -> Version:
    return Version.of(Encoder.load())


class _Work(NamedTuple):
    """Something to do, for whom, and how often its actor was lost."""

    do: "partial[Any]"
    future: "Future[Any]"
    lost: int = 0


class Nodes:
    """That many workers in the cluster, each at one piece of work at a time; a context manager."""

    def __init__(
        self,
        count: int,
        bounds: Bounds,
        setup: Callable[..., None],
        *given: Any,
        before: Callable[[], None] | None = None,
        at_hand: Callable[[object], object] = lambda given: given,
    ) -> None:
        """setup, before, at_hand : as of `service.runtime.workers.Workers`

        Raises ClusterError if no node has a core for any, or one has another version, and what `setup`
        raised.
        """
        self._version = _version()
        node: Any = ray.remote(Node)
        options = node.options(num_cpus=1, scheduling_strategy="SPREAD")
        self._start = partial(options.remote, bounds, setup, given, before, at_hand)
        self._waiting: SimpleQueue[_Work | None] = SimpleQueue()
        self._closing = Event()
        self._lock = Lock()
        self._serving = count
        self._unusable: ClusterError | None = None  # once no actor is used any more
        actors = [self._start() for _ in range(count)]
        self._threads = [Thread(target=self._serve, args=(it,), daemon=True) for it in actors]
        try:
            calls = [actor.begin.remote(self._version) for actor in actors]
            ready, _ = ray.wait(calls, timeout=STARTED_WITHIN)
            if not ready:
                raise ClusterError("no node of the cluster has a core to spare; add nodes, or wait")
            told(ready[0])
        except BaseException:
            for actor in actors:
                ray.kill(actor)
            raise
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait for what is being worked on; what has not begun is not."""
        self._closing.set()
        with contextlib.suppress(Empty):
            while (work := self._waiting.get_nowait()) is not None:
                work.future.cancel()
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def submit(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> "Future[R]":
        """Have work(*args) done; its future raises AudioError if workers died of it.

        It raises ClusterError where no worker is left that can be used.
        """
        future: Future[R] = Future()
        with self._lock:
            if self._unusable is None:
                self._waiting.put(_Work(partial(work, *args, **kwargs), future))
            else:
                future.set_exception(self._unusable)
        return future

    def _serve(self, actor: Any) -> None:
        """Give an actor one piece of work after the other, and replace it when it is lost."""
        refused: EarmarkError | None = None
        try:
            while self._is_there(actor):
                try:
                    while (work := self._waiting.get()) is not None:
                        self._have_done(work, actor)
                    break
                except RayError:
                    actor = self._start()
        except EarmarkError as error:
            refused = error
            _log.warning("a worker of the cluster is not used: %s", error)
        except Exception as error:  # whatever Ray makes of a cluster that is gone
            refused = ClusterError(f"a worker of the cluster was lost ({error})")
            _log.warning("%s", refused)
        finally:
            with contextlib.suppress(Exception):
                ray.kill(actor)
            self._leave(refused)

    def _leave(self, refused: EarmarkError | None) -> None:
        """One actor is used no more; with the last one, what waits ends with an error."""
        with self._lock:
            self._serving -= 1
            if self._serving or self._closing.is_set():
                return
            self._unusable = ClusterError(f"no worker of the cluster can be used: {refused}")
        with contextlib.suppress(Empty):
            while True:
                if (work := self._waiting.get_nowait()) is not None:
                    work.future.set_exception(self._unusable)

    def _is_there(self, actor: Any) -> bool:
        """Wait for an actor to be there; False if this is closed first. Raises what `begin` does."""
        call = actor.begin.remote(self._version)
        while not ray.wait([call], timeout=_LOOK)[0]:
            if self._closing.is_set():
                return False
        try:
            told(call)
        except RayError:
            return True  # it is lost again, as whoever gives it work will see
        return True

    def _have_done(self, work: _Work, actor: Any) -> None:
        """Have an actor do something. Raises RayError if it is lost; others then do it."""
        try:
            work.future.set_result(told(actor.do.remote(work.do)))
        except RayError:
            if work.lost + 1 == MOST_LOST:
                detail = f"decoding it ended {MOST_LOST} workers; it is made to do harm"
                work.future.set_exception(WorkerDied("undecodable", detail))
            else:
                self._waiting.put(work._replace(lost=work.lost + 1))
            raise
        except Exception as error:
            work.future.set_exception(error)
