"""The segments of a library in a Ray cluster: shards, each a few of the segments in an actor's memory.

    Library ── placements, votes, alignment, chance: where the query is
       │
    Shards ──"nearest?"──▶ every shard ──▶ their nearest, merged
           ──"codes?"────▶ the one that holds them

What is cut off is what a search asks of the stored codes (`index.segment_set`); what is decided on the whole
library is decided in one place. The nearest embeddings of all shards, merged, are those of one machine
(`index.neighbours`), so candidates, scores, E-values and their order are, too.

Ray starts an actor again whose process or node has died, on whichever node has the memory, and it loads its
segments anew. Until then its replicas answer, where replicas were asked for, or else the other shards do: a
search that loses a shard begins again without it, and says which part of the library has answered.
"""

import importlib.metadata
import logging
import os
import random
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import ActorDiedError, RayError, RayTaskError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from fingerprint.encoder import Encoder
from index import segment
from index.catalogue import SegmentRow
from index.errors import ClusterError, LibraryError, ShardLost
from index.neighbours import Kept, Nearest, kept_of, merged
from index.segment import Codes, Segment, concatenate
from index.segment_set import Searched, nearest_to_each, numbered_through

# Bytes that a shard's process takes beside its segments (`python -m benchmarks.cluster`: 288 to 302 MB).
MEMORY_OF_A_SHARD = 300_000_000
AT_ONCE = 16  # questions that a shard looks at side by side
FOUND_WITHIN = 5.0  # s for a cluster to be there
STARTED_WITHIN = 120.0  # s for shards to be placed, started and loaded…
ANSWERED_WITHIN = 60.0  # …and to answer; one that takes longer is lost
# Codes are fetched so many embeddings (512 s) at a time, and as many runs of them kept (18 MB): an alignment
# is looked at again and again while it is refined.
RUN = 1024
RUNS_KEPT = 1024
PLANS_KEPT = (
    16  # views of a state of which a shard keeps what may be found: a bit for each embedding
)
INLINE = 100 * 2**10  # bytes that Ray sends along with a call; more, every node fetches once

_log = logging.getLogger(__name__)


def connect(address: str) -> None:
    """Join the Ray cluster at an address (host:port), or the one that runs here (auto).

    Raises ClusterError if there is none, or if it runs another version of Ray or Python.
    """
    if ray.is_initialized():
        return
    host, _, port = address.rpartition(":")
    if address != "auto":  # Ray itself would try for ten minutes
        if not host or not port.isdecimal():
            raise ClusterError(
                f"{address}: is no address of a Ray cluster; give host:port, or auto"
            )
        try:
            _greet(host, int(port))
        except (OSError, OverflowError) as error:
            raise ClusterError(
                f"{address}: no Ray cluster answers there ({error}); start one: ray start --head"
            ) from None
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # RuntimeError of another version, ConnectionError, ValueError…
        reason = " ".join(str(error).split())
        raise ClusterError(f"{address}: the Ray cluster cannot be joined: {reason}") from error


def _greet(host: str, port: int) -> None:
    """Raises OSError where nothing listens, or what does not speak HTTP/2, as Ray does (RFC 9113, 3.4)."""
    with socket.create_connection((host, port), FOUND_WITHIN) as connection:
        if os.environ.get("RAY_USE_TLS", "0") != "0":
            return
        settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
        if connection.recv(len(settings), socket.MSG_WAITALL)[3:4] != settings[3:4]:
            raise OSError("something else does")


class Version(NamedTuple):
    """What has to be the same on all nodes."""

    earmark: str
    encoder: str

    @classmethod
    def of(cls, encoder: Encoder) -> "Version":
        """This process's."""
        return cls(importlib.metadata.version("earmark"), encoder.id)

    def require(self, there: "Version", where: str) -> None:
        """Raises ClusterError if a node has another."""
        if self != there:
            raise ClusterError(
                f"{where} has Earmark {there.earmark} with encoder {there.encoder}, here is "
                f"{self.earmark} with {self.encoder}; install the same on all nodes"
            )


def here() -> str:
    """What messages call the node that this runs on."""
    return f"node {ray.util.get_node_ip_address()} of the cluster"


def told(reference: "ray.ObjectRef", within: float | None = None) -> Any:
    """What a call to an actor returned or raised. Raises RayError if the actor is lost."""
    try:
        return ray.get(reference, timeout=within)
    except RayTaskError as error:
        raise error.cause from error


class Plan(NamedTuple):
    """What is searched: segments by their first embeddings' numbers, without the runs that are gone."""

    segments: dict[int, SegmentRow]
    gone: NDArray[np.int64]
    id: str


class Shard:
    """An actor that holds segments; what it is asked about and has not loaded, it loads."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._encoder = Encoder.load()
        self._loading = Lock()
        self._held: dict[SegmentRow, Segment] = {}
        self._kept: dict[str, dict[int, Kept]] = {}  # by a plan's id; the last few
        self._before: dict[
            SegmentRow, Segment
        ] = {}  # of searches that began before the last `hold`

    def version(self) -> tuple[Version, str]:
        """What is installed here, and where that is."""
        return Version.of(self._encoder), here()

    def hold(self, rows: Sequence[SegmentRow]) -> None:
        """Have these segments, and let others go. Raises LibraryError."""
        held = {row: self._segment(row) for row in rows}
        with self._loading:
            self._before, self._held = self._held, held

    def nearest(
        self, passages: Sequence[NDArray[np.float32]], count: int, share: float, plan: Plan
    ) -> list[Nearest]:
        """The nearest embeddings of some of its segments to each passage."""
        segments = {first: self._segment(row) for first, row in plan.segments.items()}
        with self._loading:
            kept = self._kept.pop(plan.id, None) or kept_of(segments, plan.gone)
            self._kept[plan.id] = kept
            while len(self._kept) > PLANS_KEPT:
                del self._kept[next(iter(self._kept))]
        return nearest_to_each(passages, count, share, segments, kept, self._encoder.codec)

    def run(self, row: SegmentRow, first: int, end: int) -> Codes:
        """Codes of embeddings first to end (excluded) of a segment."""
        return self._segment(row).run(first, end)

    def _segment(self, row: SegmentRow) -> Segment:
        with self._loading:
            known = self._held.get(row) or self._before.get(row)
            if known is None:
                codec = self._encoder.codec
                header, lists = (
                    _at_hand(f"{self._where}/{name}") for name in segment.names(row.number)
                )
                known = segment.read(header, row.written, codec, lists)
                self._held[row] = known
            return known


def _at_hand(url: str) -> Path:
    """A file, or a copy of what is in an object store. Raises LibraryError if it cannot be had."""
    if "://" not in url:
        return Path(url)
    import fsspec

    try:
        return Path(fsspec.open_local(f"simplecache::{url}"))
    except Exception as error:  # whatever the store's client raises
        raise LibraryError(f"{url}: this segment cannot be had ({error}); copy it there") from None


@dataclass
class _Replica:
    """One actor of a shard. `back`, once it is lost, is what it answers when it is there again."""

    start: Callable[[], Any]
    actor: Any
    back: "ray.ObjectRef | None" = None

    def lost(self, error: Exception, rows: Sequence[SegmentRow]) -> None:
        """Have it load its segments when it is there again."""
        if isinstance(error, ActorDiedError):  # Ray does not start it again: somebody ended it
            self.actor = self.start()
        self.back = self.actor.hold.remote(rows)

    def look(self, rows: Sequence[SegmentRow]) -> None:
        """See whether it is there again."""
        assert self.back is not None
        ready, _ = ray.wait([self.back], timeout=0)
        if ready:
            try:
                told(self.back)
                self.back = None
            except (RayError, LibraryError) as error:
                _log.warning("a shard cannot be used yet: %s", error)
                self.lost(error, rows)


@dataclass(eq=False)
class _Shard:
    """A shard as this process knows it."""

    number: int
    replicas: list[_Replica] = field(default_factory=list)
    rows: list[SegmentRow] = field(default_factory=list)
    told: list[SegmentRow] = field(default_factory=list)

    @property
    def up(self) -> list[_Replica]:
        """The replicas that are there."""
        return [replica for replica in self.replicas if replica.back is None]


class Shards:
    """The shards of one library; threads may share them. They end with the process that made them."""

    def __init__(self, where: str, encoder: Encoder, *, most: int, replicas: int = 1) -> None:
        """where : the folder of the segments as the nodes know it, or its URL in an object store
        most : bytes of segments that a shard holds; a larger segment has one for itself
        replicas : actors that hold each shard, on different nodes where there are as many
        """
        self._where = where
        self._version = Version.of(encoder)
        self.code_size = encoder.codec.code_size
        self._codec = encoder.codec
        self._most = most
        self._replicas = replicas
        self._shards: list[_Shard] = []
        self._groups: list[Any] = []
        self._lock = Lock()

    def close(self) -> None:
        """End the actors."""
        with self._lock:
            self._end(self._shards)
            self._shards = []
            for group in self._groups:
                remove_placement_group(group)

    def hold(self, rows: Sequence[SegmentRow]) -> "Sharded":
        """Have the shards hold these segments, and no others.

        Raises ClusterError if the cluster has no room for them, LibraryError if a node cannot read them.
        """
        with self._lock:
            for shard in self._shards:
                shard.rows = [row for row in shard.rows if row in rows]
            held = {row for shard in self._shards for row in shard.rows}
            shards = list(self._shards)
            for row in rows:
                if row not in held:
                    self._with_room(row, shards).rows.append(row)
            self._begin(shards[len(self._shards) :])
            self._shards = shards
            self._load()
            return Sharded(self, {row: shard for shard in shards for row in shard.rows})

    def missing(self) -> frozenset[int]:
        """Numbers of the segments that cannot be searched now."""
        with self._lock:
            for shard in self._shards:
                for replica in shard.replicas:
                    if replica.back is not None:
                        replica.look(shard.rows)
            return frozenset(
                row.number for shard in self._shards if not shard.up for row in shard.rows
            )

    def ask(self, what: str, asked: Mapping[_Shard, tuple[Any, ...]]) -> list[Any]:
        """What these shards answer to `what`, each with its own arguments, side by side.

        Raises ShardLost if one does not answer, and what the search in it raised.
        """
        sent = [(shard, *self._send(shard, what, given)) for shard, given in asked.items()]
        return [
            self._answer(shard, what, asked[shard], replica, reference)
            for shard, replica, reference in sent
        ]

    def _send(self, shard: _Shard, what: str, given: tuple[Any, ...]) -> tuple[_Replica, Any]:
        up = shard.up
        if not up:
            raise ShardLost(
                f"shard {shard.number} of the library does not answer; Ray starts it again where there "
                "is room: try again"
            )
        replica = random.choice(up)
        return replica, getattr(replica.actor, what).remote(*given)

    def _answer(
        self, shard: _Shard, what: str, given: tuple[Any, ...], replica: _Replica, reference: Any
    ) -> Any:
        while True:
            try:
                return told(reference, ANSWERED_WITHIN)
            except RayError as error:
                with self._lock:
                    if replica.back is None:
                        _log.warning("shard %d is lost: %s", shard.number, error)
                        replica.lost(error, shard.rows)
            replica, reference = self._send(shard, what, given)

    def _with_room(self, row: SegmentRow, shards: list[_Shard]) -> _Shard:
        """The shard that is to hold a segment: the fullest that has room, or a new one at the end."""
        size = self._bytes([row])
        room = [shard for shard in shards if self._bytes(shard.rows) + size <= self._most]
        if not room:
            shards.append(_Shard(len(shards)))
            return shards[-1]
        return max(room, key=lambda shard: self._bytes(shard.rows))

    def _bytes(self, rows: Iterable[SegmentRow]) -> int:
        return sum(segment.size(row.embeddings, self._codec) for row in rows)

    def _begin(self, shards: Sequence[_Shard]) -> None:
        """Start new shards. Raises ClusterError; then none of them is left."""
        for shard in shards:
            memory = MEMORY_OF_A_SHARD + max(self._most, self._bytes(shard.rows))
            starts = [partial(self._start, memory, *at) for at in self._places(memory)]
            shard.replicas = [_Replica(start, start()) for start in starts]
        calls = [it.actor.version.remote() for shard in shards for it in shard.replicas]
        try:
            _, late = (
                ray.wait(calls, num_returns=len(calls), timeout=STARTED_WITHIN)
                if calls
                else ([], [])
            )
            if late:
                free = ray.available_resources().get("memory", 0)
                raise ClusterError(
                    f"the cluster has no room for {len(late)} of {len(calls)} shards of "
                    f"{memory / 1e9:,.2f} GB ({free / 1e9:,.2f} GB are free on all nodes together): "
                    "add nodes, or make shards smaller (EARMARK_SHARD_SIZE)"
                )
            for call in calls:
                self._version.require(*told(call))
        except RayError as error:
            self._end(shards)
            raise ClusterError(f"a shard cannot be started: {error}") from error
        except ClusterError:
            self._end(shards)
            raise

    def _places(self, memory: int) -> Iterator[tuple[Any, ...]]:
        """Where the replicas of a shard go."""
        if self._replicas == 1:
            yield ("SPREAD",)
            return
        group = placement_group([{"memory": memory}] * self._replicas, strategy="SPREAD")
        self._groups.append(group)
        for index in range(self._replicas):
            yield (PlacementGroupSchedulingStrategy(group, index),)

    def _start(self, memory: int, where: Any) -> Any:
        options = {
            "num_cpus": 0,
            "memory": memory,
            "max_restarts": -1,
            "max_concurrency": AT_ONCE,
            "scheduling_strategy": where,
        }
        return ray.remote(Shard).options(**options).remote(self._where)

    def _load(self) -> None:
        """Have each shard load what it is to hold now."""
        calls = []
        for shard in self._shards:
            if shard.rows != shard.told:
                shard.told = list(shard.rows)
                for replica in shard.replicas:
                    call = replica.actor.hold.remote(shard.told)
                    if replica.back is None:
                        calls.append((shard, replica, call))
                    else:
                        replica.back = call
        for shard, replica, call in calls:
            try:
                told(call, STARTED_WITHIN)
            except RayError as error:
                replica.lost(error, shard.told)
            except LibraryError:
                shard.told = []
                raise

    @staticmethod
    def _end(shards: Iterable[_Shard]) -> None:
        for shard in shards:
            for replica in shard.replicas:
                ray.kill(replica.actor)


class Sharded:
    """Segments that are in shards, as `index.segment_set.Segments`."""

    def __init__(self, shards: Shards, held: Mapping[SegmentRow, _Shard]) -> None:
        self.firsts, self.total = numbered_through({row.number: row.embeddings for row in held})
        self._shards = shards
        self._held = held
        self._rows = {row.number: row for row in held}
        self._fetched = lru_cache(RUNS_KEPT)(self._fetch)

    def without(self, gone: NDArray[np.int64]) -> Searched:
        """What remains to be found."""
        segments: dict[_Shard, dict[int, SegmentRow]] = {}
        runs: dict[_Shard, list[NDArray[np.int64]]] = {}
        for number, first in self.firsts.items():
            row = self._rows[number]
            inside = _within(gone, first, first + row.embeddings)
            if (inside[:, 1] - inside[:, 0]).sum() < row.embeddings:
                segments.setdefault(self._held[row], {})[first] = row
                runs.setdefault(self._held[row], []).append(inside)
        plans = {
            shard: Plan(of, np.concatenate(runs[shard]), secrets.token_hex(8))
            for shard, of in segments.items()
        }
        return _Remaining(self._shards, plans)

    def run(self, segment: int, first: int, end: int) -> Codes:
        """Codes of a segment's embeddings. Raises ShardLost."""
        runs = range(first // RUN, -(-end // RUN))
        fetched = [self._fetched(segment, run) for run in runs]
        start = first - runs.start * RUN
        whole = fetched[0] if len(fetched) == 1 else concatenate(fetched, self._shards.code_size)
        return whole[start : start + end - first]

    def forget(self) -> None:
        """Let go of the codes that are kept here."""
        self._fetched.cache_clear()

    def _fetch(self, segment: int, run: int) -> Codes:
        row = self._rows[segment]
        asked = (row, run * RUN, min((run + 1) * RUN, row.embeddings))
        return self._shards.ask("run", {self._held[row]: asked})[0]


def _within(runs: NDArray[np.int64], first: int, end: int) -> NDArray[np.int64]:
    """The parts of runs, ascending, that lie between two numbers."""
    low = np.searchsorted(runs[:, 1], first, side="right")
    high = np.searchsorted(runs[:, 0], end, side="left")
    return np.clip(runs[low:high], first, end)


class _Remaining:
    """Segments in shards without some embeddings; shards of which nothing remains are not asked."""

    def __init__(self, shards: Shards, plans: Mapping[_Shard, Plan]) -> None:
        self._shards = shards
        self._plans = plans

    @cached_property
    def _sent(self) -> dict[_Shard, "Plan | ray.ObjectRef"]:
        """The plans as they are sent along with each question."""
        return {shard: _sent(plan, plan.gone.nbytes) for shard, plan in self._plans.items()}

    def nearest(
        self, passages: Sequence[NDArray[np.float32]], count: int, share: float
    ) -> list[Nearest]:
        given = _sent(passages, sum(it.nbytes for it in passages))
        asked = {shard: (given, count, share, plan) for shard, plan in self._sent.items()}
        answers = self._shards.ask("nearest", asked)
        return [
            merged([_nothing(len(passage), count), *of_it], count)
            for passage, *of_it in zip(passages, *answers, strict=True)
        ]


def _sent(value: Any, size: int) -> Any:
    """A value as it is sent along with calls; a large one is put where every node fetches it once."""
    return ray.put(value) if size > INLINE else value


def _nothing(length: int, count: int) -> Nearest:
    """What is nearest to so many embeddings in no shard at all."""
    shape = length, count
    return np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int64)
