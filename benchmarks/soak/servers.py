"""Two servers of one library ingest and remove at once: what is lost or doubled, how soon it is seen.

    python -m benchmarks.soak.servers [--works 12] [--seed 1]

Both are processes on one PostgreSQL database and one folder of segments, with a client each. The clients
ingest real recordings of the report split: in each turn one that both send, at the same time, and one that
only one does, which they remove again in every other turn; and each changes its own field of the same
recording. As soon as one server has confirmed a change, the other is asked for the recording, and about a
clip of it. Told is how many answers did not have the change; how long after the confirmation the first one
that did was asked for, and came: of a clip that is not found any more, only when all of the ladder of
hypotheses has been tried.

In the end both servers must list the same recordings, each sound once; whatever was confirmed must be there
and logged, in as many commits; the library must pass `verify`; and every change must be in what was asked
for a second after its confirmation. Exit status 1 otherwise.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier
from typing import Any

import httpx
import numpy as np

from benchmarks.clips import WHOLE, audible_start
from benchmarks.codecs import cut, encode
from benchmarks.run import SIZES, gather
from benchmarks.soak import postgresql
from benchmarks.soak.load import server
from fingerprint.cores import work_on
from fingerprint.encoder import Encoder
from index import audit_log as audit
from index import catalogue
from index.library import Library
from index.verify import orphans, verify

CLIP = 5.0  # s
WITHIN = 1.0  # s in which the other server is to know of a change
PATIENCE = 120.0  # s
JOBS = 2  # sounds that a server works on at once: one that is ingested, and a clip
LEAST, MOST = 30.0, 150.0  # s, of a recording
FORM = {"rightsholder": "Blue Label", "rights": "open-licence"}
FIELDS = ("title", "artist")  # one a client


@dataclass
class Seen:
    """How soon after it was confirmed a change was there in another server's answers."""

    asked: list[float] = field(default_factory=list)  # s, until what was answered with it was asked
    came: list[float] = field(default_factory=list)  # s, until that answer had come
    stale: int = 0  # answers without it

    def until(self, look: Callable[[], bool], confirmed: float) -> None:
        """Ask until a change is there."""
        asked = time.monotonic()
        while not look():
            self.stale += 1
            if asked > confirmed + PATIENCE:
                sys.exit(f"a change is not there after {PATIENCE:g} s")
            asked = time.monotonic()
        self.asked.append(asked - confirmed)
        self.came.append(time.monotonic() - confirmed)

    def __str__(self) -> str:
        asked, came = (
            f"{1000 * statistics.median(it):.0f} ms (most: {1000 * max(it):.0f})"
            for it in (self.asked, self.came)
        )
        return f"{len(self.came)} changes, {self.stale} answers without; asked {asked}, came {came}"


class Client:
    """One of two: changes the library at its server, and looks for that at the other."""

    def __init__(self, address: str, other: str, name: str, clips: Mapping[Path, bytes]) -> None:
        """name : of the field that it changes"""
        self._here = httpx.Client(base_url=address, timeout=PATIENCE)
        self._there = httpx.Client(base_url=other, timeout=PATIENCE)
        self.field = name
        self._clips = clips
        self.statuses: Counter[str] = Counter()
        self.there: dict[Path, str] = {}  # by sound: the id that was given or told
        self.confirmed: Counter[str] = Counter()  # of changes that were confirmed
        self.said = ""  # in its field, as confirmed last
        self.read, self.found, self.gone = Seen(), Seen(), Seen()

    def ingest(self, sound: Path) -> None:
        """Send a recording, and look for it."""
        files = {"audio": (sound.name, sound.read_bytes())}
        got = self._here.post("/v1/recordings", files=files, data=FORM)
        confirmed = time.monotonic()
        self.statuses[f"ingest {got.status_code}"] += 1
        if got.status_code not in (201, 409):
            sys.exit(f"{sound.name}: {got.text}")
        if got.status_code == 409:
            self.there[sound] = got.json()["recording"]
            return
        id = self.there[sound] = got.json()["id"]
        self.confirmed["ingest"] += 1
        self.read.until(lambda: self._get(id).status_code == 200, confirmed)
        self.found.until(lambda: id in self.named(sound), confirmed)

    def remove(self, sound: Path) -> None:
        """Remove a recording, and look for it."""
        id = self.there.pop(sound)
        got = self._here.delete(f"/v1/recordings/{id}")
        confirmed = time.monotonic()
        self.statuses[f"remove {got.status_code}"] += 1
        self.confirmed["remove"] += got.status_code == 204
        self.read.until(lambda: self._get(id).status_code == 404, confirmed)
        self.gone.until(lambda: id not in self.named(sound), confirmed)

    def change(self, id: str, number: int) -> None:
        """Say something else in its field of a recording, of which the other client changes another."""
        value = f"{self.field} {number}"
        got = self._here.patch(f"/v1/recordings/{id}", json={self.field: value})
        confirmed = time.monotonic()
        self.statuses[f"change {got.status_code}"] += 1
        self.confirmed["change"] += got.status_code == 200
        self.said = value
        self.read.until(lambda: self._get(id).json()[self.field] == value, confirmed)

    def listed(self) -> list[dict[str, Any]]:
        """All recordings that its server lists."""
        entries: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            page = self._here.get("/v1/recordings", params=cursor).json()
            entries += page["recordings"]
            if page["next_cursor"] is None:
                return entries
            cursor = {"cursor": page["next_cursor"]}

    def _get(self, id: str) -> httpx.Response:
        return self._there.get(f"/v1/recordings/{id}")

    def named(self, sound: Path) -> set[str]:
        """The recordings that the other server finds in a clip."""
        files = {"clip": ("clip.flac", self._clips[sound])}
        answer = self._there.post("/v1/query", files=files).json()
        return {match["recording"] for match in answer["matches"]}


def clip_of(sound: Path) -> bytes:
    """CLIP seconds of a recording, where there is something to be heard."""
    samples, rate = cut(sound, 0.0, WHOLE)
    length = round(CLIP * rate)
    start = audible_start(samples, rate, length, np.random.default_rng(0))
    return encode(samples[start : start + length], rate, "flac")


def work(client: Client, both: Sequence[Path], own: Sequence[Path], id: str, turn: Barrier) -> None:
    """What a client does, side by side with the other."""
    for number, (shared, alone) in enumerate(zip(both, own, strict=True)):
        turn.wait(PATIENCE)
        client.ingest(shared)
        client.ingest(alone)
        client.change(id, number)
        if number % 2:
            client.remove(alone)


def faults(
    clients: Sequence[Client], both: Sequence[Path], id: str, library: Library
) -> Iterator[str]:
    """What is not as it has to be when all is done."""
    one, other = (client.listed() for client in clients)
    if one != other:
        yield "the servers list other recordings"
    expected = {it for client in clients for it in client.there.values()}
    if {it["id"] for it in one} != expected:
        yield f"there are {len(one)} recordings, and not the {len(expected)} that were confirmed"
    if len({it["sha256"] for it in one}) < len(one):
        yield "a sound is there twice"
    if any(clients[0].there[sound] != clients[1].there[sound] for sound in both):
        yield "one sound was given two ids"
    (changed,) = (it for it in one if it["id"] == id)
    if [changed[client.field] for client in clients] != [client.said for client in clients]:
        yield f"a change was lost: {changed}"
    with library.reading() as connection:
        logged = Counter(it.kind for it in audit.entries(connection))
        revision = catalogue.revision(connection)
    confirmed = sum((client.confirmed for client in clients), Counter())
    if logged != confirmed or revision != confirmed.total():
        yield f"{confirmed} were confirmed, {logged} are logged, in {revision} commits"
    yield from (damage.what for damage in verify(library))
    yield from (f"{file}: nobody knows it" for file in orphans(library))
    for client in clients:
        if max(client.read.asked + client.found.asked + client.gone.asked) > WITHIN:
            yield "a change was seen late"


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.soak.servers", description=__doc__.split("\n")[0] if __doc__ else None
    )
    parser.add_argument("--works", type=int, default=12, help="that both send, and that each does")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    work_on(1)
    pg_ctl = postgresql.pg_ctl()
    if pg_ctl is None:
        sys.exit("PostgreSQL is not installed; on Debian: apt-get install postgresql")
    corpus = gather(SIZES["sample"], fetch=True, workers=1)
    sounds = [corpus.audio[it.id] for it in corpus.works if LEAST < it.duration < MOST]
    count = args.works
    drawn = np.random.default_rng(args.seed).choice(len(sounds), 3 * count + 1, replace=False)
    first, *rest = (sounds[it] for it in drawn)
    clips = {sound: clip_of(sound) for sound in (first, *rest)}
    both, *own = rest[:count], rest[count : 2 * count], rest[2 * count :]
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(postgresql.Server(pg_ctl)) as database,
        ExitStack() as stack,
    ):
        at, url = Path(folder), database.new()
        settings = {"EARMARK_DATABASE": url.render_as_string(hide_password=False)}
        addresses = [
            stack.enter_context(server(at / "library", at, JOBS, **settings))[0] for _ in FIELDS
        ]
        clients = [
            Client(here, there, name, clips)
            for here, there, name in zip(addresses, reversed(addresses), FIELDS, strict=True)
        ]
        clients[0].ingest(first)
        id = clients[0].there[first]
        with ThreadPoolExecutor(2 * JOBS) as pool:  # what answers is there, and compiled
            list(pool.map(lambda client: client.named(first), JOBS * clients))
        clients[0].read, clients[0].found = Seen(), Seen()
        turn = Barrier(len(clients))
        began = time.monotonic()
        with ThreadPoolExecutor(len(clients)) as pool:
            working = [
                pool.submit(work, client, both, mine, id, turn)
                for client, mine in zip(clients, own, strict=True)
            ]
            for done in working:
                done.result()
        print(f"{time.monotonic() - began:.0f} s")
        for client in clients:
            print(f"{client.field}'s client: {dict(client.statuses)}")
            print(f"  recordings at the other server: {client.read}")
            print(f"  found there once ingested: {client.found}")
            print(f"  not found there once removed: {client.gone}")
        library = Library.open(at / "library", Encoder.load(), url=url)
        found = list(faults(clients, both, id, library))
        print(f"{library.info()['recordings']} recordings; faults: {found or 'none'}")
        library.close()
        sys.exit(bool(found))


if __name__ == "__main__":
    main()
