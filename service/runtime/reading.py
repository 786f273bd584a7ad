"""Archives and tables, read in a process with limits: what it dies of costs that container alone."""

import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Self

from fingerprint.errors import EarmarkError, reason_of
from service.datasets.location import Place
from service.datasets.member import Member
from service.datasets.url import Url
from service.datasets.walk import read_container
from service.runtime.workers import Bounds, WorkerDied, Workers

# For a batch of members; reading a container as a whole may take longer.
SECONDS, MEMORY = 120.0, 2 * 2**30
_BATCH, _BATCH_BYTES = 64, 32 * 2**20  # members that come over together, and bytes of them


class Reader:
    """Reads containers, one after the other; a context manager. Its `read` is given to `members`."""

    def __init__(self, seconds: float = SECONDS, memory: int = MEMORY) -> None:
        self._bounds = seconds, memory
        self._workers: dict[bool, Workers] = {}  # without and with a network
        # clients of remote stores keep what they fetch in files
        self._folder = tempfile.TemporaryDirectory(prefix="earmark-", ignore_cleanup_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for workers in self._workers.values():
            workers.kill()
        self._folder.cleanup()

    def read(self, path: Place, name: str) -> Iterator[Member]:
        """As `read_container`. Raises ValueError, too, where reading takes too much."""
        seconds, memory = self._bounds
        network = isinstance(path, Url)
        if network not in self._workers:
            folder = Path(self._folder.name)
            bounds = Bounds(seconds, memory=memory, network=network, writable=(folder,))
            self._workers[network] = Workers(1, bounds, _set_up, folder)
        workers = self._workers[network]
        try:
            batch = workers.submit(_begin, path, name).result()
            while batch:
                coming = workers.submit(_more)  # while these are heard
                yield from batch
                batch = coming.result()
        except WorkerDied:
            most = f"{seconds:g} s or {memory / 2**30:g} GiB of memory"
            raise ValueError(f"reading on would take more than {most}") from None


_members: Iterator[Member] = iter(())


def _set_up(folder: Path) -> None:
    """Import what reads containers before the limits are there; temporary files go into a folder."""
    tempfile.tempdir = str(folder)
    import pyarrow.parquet
    import zstandard  # noqa: F401

    assert pyarrow.parquet


def _begin(path: Place, name: str) -> list[Member]:
    global _members
    _members = read_container(path, name)
    return _more()


def _more() -> list[Member]:
    """The next members; none at the end. Raises EarmarkError and ValueError, which other processes know."""
    batch: list[Member] = []
    held = 0
    try:
        for member in islice(_members, _BATCH):
            batch.append(member)
            held += member.held
            if held > _BATCH_BYTES:
                break
    except Exception as error:
        failure = _known(error)
        if not batch:
            raise failure from None
        _end_with(failure)  # what was read before comes first
    return batch


def _known(error: Exception) -> Exception:
    """An error that another process can be told."""
    if isinstance(error, EarmarkError):
        return error
    too_much = isinstance(error, MemoryError)
    return ValueError("reading on takes too much memory" if too_much else reason_of(error))


def _end_with(failure: Exception) -> None:
    """Have the next look at the members fail."""
    global _members

    def failing() -> Iterator[Member]:
        raise failure
        yield

    _members = failing()
