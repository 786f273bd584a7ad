"""Processes that do the dangerous work: decoding what strangers made, and searching for it.

A file can hang a decoder, make it swallow all memory, or crash it. Each worker is a process of its own with
limits that the system enforces, so that such a file costs itself and nothing else: the worker dies, its
file's error says so, and another takes its place. Where the system lets it (Linux), it has no network, writes
no files and starts no programs (`service.runtime.sandbox`); what it could not give up is logged, once.
"""

import contextlib
import ctypes
import logging
import math
import multiprocessing
import multiprocessing.connection
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar

from fingerprint.errors import AudioError, EarmarkError
from service.datasets.source import InMemory, OnDisk, Slice, Zipped
from service.runtime.sandbox import confine

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger(__name__)
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000  # CLONE_NEWUSER, CLONE_NEWNET of <linux/sched.h>


class WorkerError(EarmarkError):
    """Worker processes that cannot be started."""


class WorkerDied(AudioError):
    """What a worker died of, or would have without its limits."""


@dataclass(frozen=True)
class Bounds:
    """What one piece of work may take (seconds by the clock, bytes of memory, open files) and touch.

    The seconds are for the longest sound that is taken; a short file, which cannot be one, gets fewer:
    `least` and, for each of its bytes, what the sparsest sound would take.
    """

    seconds: float
    least: float = 60.0
    seconds_a_byte: float = math.inf
    memory: int = 4 * 2**30
    files: int = 256
    writable: tuple[Path, ...] = ()  # folders in which files may be written
    network: bool = False

    def seconds_for(self, given: Iterable[object], most: float) -> float:
        """Seconds that work on these may take, of which one may be a sound; `most` at the longest."""
        size = math.inf
        for source in given:
            if isinstance(source, OnDisk | Slice | Zipped | InMemory):
                with contextlib.suppress(Exception):  # whoever opens it will say what is wrong
                    size = source.size
        return min(most, self.least + size * self.seconds_a_byte)


class Workers:
    """That many processes, each at one piece of work at a time; a context manager."""

    def __init__(
        self,
        count: int,
        bounds: Bounds,
        setup: Callable[..., None],
        *given: Any,
        before: Callable[[], None] | None = None,
        at_hand: Callable[[object], object] = lambda given: given,
    ) -> None:
        """setup(*given) : what every process does first

        before : what it does while it has a network, and no thread beside its own
        at_hand : makes of what work is given, here, where there is a network, what it can use without
        """
        self._bounds = bounds
        self._at_hand = at_hand
        self._setup = (setup, given)
        self._before = before
        self._threads = ThreadPoolExecutor(count, "worker")
        self._mine = threading.local()
        self._all: dict[ProcessPoolExecutor, int] = {}  # processes' ids

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait for what is being worked on; what has not begun is not."""
        self._threads.shutdown(cancel_futures=True)
        for process in list(self._all):
            process.shutdown()

    def kill(self) -> None:
        """End the processes at once: what is being worked on ends with WorkerDied."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for pid in list(self._all.values()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def submit(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Have work(*args) done; its future raises AudioError if the worker died of it."""
        return self.submit_within(self._bounds.seconds, work, *args, **kwargs)

    def submit_within(
        self, seconds: float, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> Future[R]:
        """As `submit`, for work that may take so many seconds by the clock."""
        return self._threads.submit(self._have_done, seconds, partial(work, *args, **kwargs))

    def _have_done(self, seconds: float, work: partial[R]) -> R:
        given = [self._at_hand(it) for it in work.args]
        seconds = self._bounds.seconds_for(given, seconds)
        bounded = partial(_bounded, seconds, partial(work.func, *given, **work.keywords))
        try:
            future = self._process().submit(bounded)
        except BrokenProcessPool:  # it was ended while it had nothing to do
            self._forget_process()
            future = self._process().submit(bounded)
        began = time.monotonic()
        try:
            return future.result()
        except BrokenProcessPool:
            self._forget_process()
            spent = time.monotonic() - began
            if spent >= seconds:
                limit = f"not done after {seconds:g} s"
                detail = f"{limit}; it is damaged or made to be slow"
                raise WorkerDied("timeout", detail, spent) from None
            detail = "decoding it ended the decoder; it is damaged or made to do harm"
            raise WorkerDied("undecodable", detail, spent) from None

    def _process(self) -> ProcessPoolExecutor:
        """This thread's process. Raises WorkerError if none can be had."""
        process: ProcessPoolExecutor | None = getattr(self._mine, "process", None)
        if process is None:
            spawn = multiprocessing.get_context("spawn")
            given = self._before, self._bounds.network
            process = self._mine.process = ProcessPoolExecutor(1, spawn, _begin, given)
            try:  # or every file would be blamed for it
                pid, left = process.submit(_set_up, self._bounds, *self._setup).result()
                self._all[process] = pid
                for each in left:
                    _warn_once(each)
            except Exception as error:
                self._forget_process()
                raise WorkerError(f"a worker process cannot begin: {error}") from error
        return process

    def _forget_process(self) -> None:
        """Let go of this thread's process: the next work gets another."""
        self._all.pop(self._mine.process, None)
        self._mine.process.shutdown()
        self._mine.process = None


def _begin(before: Callable[[], None] | None, network: bool) -> None:
    """What a worker does before anything else of ours is imported, and threads with it.

    Interrupts are for the process that waits for it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    global _networked
    if before is not None:
        before()
    _networked = network or not _leave_network()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _set_up(
    bounds: Bounds, setup: Callable[..., None], given: tuple[Any, ...]
) -> tuple[int, list[str]]:
    """What a worker does next: what it is for, then its limits; its id, and what it is not kept from."""
    setup(*given)
    _limit(resource.RLIMIT_DATA, bounds.memory)
    _limit(resource.RLIMIT_NOFILE, bounds.files)
    _limit(resource.RLIMIT_CORE, 0)
    left = confine(bounds.writable, bounds.network)
    if _networked and not bounds.network:
        left.append("the system refuses `unshare`: workers are not cut off from the network")
    return os.getpid(), left


@cache
def _warn_once(what: str) -> None:
    _log.warning("hostile files are less confined here than they should be: %s", what)


_networked = False  # whether this worker could not leave the network


def _leave_network() -> bool:
    """Go where there is no network, not even this machine's own; whether the system allows it."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    user = os.getuid()
    # where it takes an administrator, one may still do so as the only user of a world of one's own
    if not libc.unshare(_NEW_NETWORK):
        return True
    if libc.unshare(_NEW_USER | _NEW_NETWORK):
        return False
    with contextlib.suppress(OSError):  # its name in there
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    return True


def _end_with_parent() -> None:
    """Nobody waits for an orphan's work, and it would wait for more of it for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(what, (most, hard))


def _bounded(seconds: float, work: Callable[[], R]) -> R:
    """Work that the system ends, and the process with it, when its time is over."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return work()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
