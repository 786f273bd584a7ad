"""A library folder: catalogue, segments, one writer, any number of readers.

    library/catalogue.sqlite    the one source of truth (see `index.catalogue`, `index.audit_log`)
    library/segments/           codes, immutable FAISS indexes (see `index.segment`)
    library/write.lock          held by the process that writes
    library/merging/            a segment that is being merged (see `index.merging`)

The catalogue can also be in a PostgreSQL database, which then has the lock too (see `index.database`), so
that processes on several machines share a library whose folder they share:

    library/database                  the id of the library that the database must have

Why a crash loses nothing. A commit writes its segment under a new name, synchronises file and folder, and
then, in one transaction, names the segment and its recordings, logs what was done and counts the
revision. Before that transaction the segment is a file nobody knows, which the next writer deletes; after
it everything is there. Removal is a tombstone and a change of metadata an update in the same kind of
transaction; neither touches a segment. A merge commits a new segment in place of old ones in one
transaction and deletes their files after it; a crash in between leaves files that the next writer
deletes. A transaction whose synchronisation failed may still lie in SQLite's log: an empty one is put over
it, and nothing is deleted before that log has been emptied, so what it names is there should it be found
after a crash all the same. No file is ever written over: a writer that lost its lock without knowing it can
leave one that nobody knows, no more.

Why readers agree with some commit. A search is one read transaction: the revision, the placements and
the names in its answer are of one state. The codes are in files that never change; a file that was
deleted since the transaction began is either mapped already, and stays so, or its absence together with
a newer revision says to begin again.
"""

import json
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import sqlalchemy as sql

from fingerprint.encoder import Encoder
from fingerprint.fingerprint import REFERENCE_EVERY, Fingerprint
from fingerprint.hypotheses import LADDER
from index import audit_log as audit
from index import catalogue, keys, segment
from index.database import BESIDE, Database, DatabaseErrors, Postgresql, database, private
from index.errors import LibraryError, LibraryLocked, ShardLost
from index.key import Key
from index.placements import Places
from index.query_context import Question
from index.recording import Recording
from index.search import THOROUGH, Match, search
from index.segment import Codes, Segment
from index.segment_set import Mapped, Segments
from index.significance import MATCH, REVIEW, Calibration
from index.snapshot import Snapshot
from index.votes import Effort

if TYPE_CHECKING:
    from index.cluster.shards import Shards
    from index.writer import Writer


# Resident bytes for each recording of an open library (an estimate from above: some twenty numbers), and of
# a process that searches, its codes not counted (`python -m benchmarks.scale`: 265 MB at 10,000).
MEMORY_PER_RECORDING = 200
MEMORY_OF_A_PROCESS = 265_000_000
# Bytes on the disk for each recording, beside its codes: catalogue rows, their indexes, the audit log
# (`python -m benchmarks.scale`: 1.3 to 2.1 kB at 10,000).
DISK_PER_RECORDING = 2_000
CATALOGUE = "catalogue.sqlite"
BOUND = "database"
OLDEST = 6  # format that is brought up to date; segments of those before had another shape
PATIENCE = 30.0  # s to wait for who makes a library or brings it up to date
# Owners' views of a library and parts that answer, kept in memory: some 100 bytes for each recording.
PARTS_KEPT = 16


class Cost(NamedTuple):
    """Bytes more of the disk, and of memory in all once every part of the library has been used."""

    disk: int
    memory: int


class Library:
    """An open library. Threads may share one; searches see what is committed when they begin."""

    def __init__(
        self,
        path: Path,
        encoder: Encoder,
        database: Database,
        gate: float,
        shards: "Shards | None" = None,
    ) -> None:
        self.path = path
        self.gate = gate
        self.encoder = encoder
        self.database = database
        self._shards = shards
        self._calibration: tuple[int, Calibration] | None = None  # as of a revision
        self._refreshing = Lock()
        self._segments: dict[int, Segment] = {}
        self._snapshot: Snapshot | None = None
        self._parts: dict[Hashable, Snapshot] = {}
        self._places = Places()
        self._views: dict[Hashable, Places] = {}  # by owner

    @classmethod
    def open(
        cls,
        path: Path,
        encoder: Encoder,
        *,
        url: sql.URL = BESIDE,
        create: bool = False,
        searchable: bool = True,
        gate: float = MATCH,
        shards: "Shards | None" = None,
    ) -> "Library":
        """Open a library folder, or with `create` make one where there is none.

        url : of the database that has the catalogue, by default a file in the folder
        shards : those of a cluster, which are to hold the segments instead of this process

        Without `searchable` the segments are not
        looked at until they are needed, so that a library with a damaged one can be listed, checked and
        mended. gate : E-value up to which an answer is a `match`

        Raises LibraryError if there is none, if it is damaged, or if it was made by another encoder or
        another version of Earmark; DatabaseAway if the database does not answer.
        """
        catalogued = database(path / CATALOGUE, url)
        if create and not catalogued.has("properties"):
            _create(path, encoder, catalogued)
        _require_usable(path, encoder, catalogued)
        library = cls(path, encoder, catalogued, gate, shards)
        if searchable:
            try:
                library.refresh()
            except LibraryError:
                library.close()
                raise
        return library

    def close(self) -> None:
        """Let go of the catalogue, and of shards."""
        if self._shards is not None:
            self._shards.close()
        self.database.engine.dispose()

    @staticmethod
    def is_there(path: Path, url: sql.URL) -> bool:
        """Whether there is a library. Raises DatabaseAway."""
        catalogued = database(path / CATALOGUE, url)
        try:
            return catalogued.has("properties")
        finally:
            catalogued.engine.dispose()

    def refresh(self, owner: str | None = None) -> Snapshot:
        """The newest committed state, or what `owner` sees of it; read only if there is a newer one."""
        with self._current() as (connection, snapshot):
            return snapshot if owner is None else self._seen_by(owner, snapshot, connection)

    def search(
        self,
        fingerprint: Fingerprint,
        *,
        max_e_value: float = REVIEW,
        hypotheses: int = len(LADDER),
        effort: Effort = THOROUGH,
        owner: str | None = None,
    ) -> tuple[list[Match], Snapshot]:
        """Matches of a query, best first, and the state of the library that gave them.

        hypotheses : how many rungs of the ladder are tried on what is not recognised as it is
        effort : how closely the query as it is is looked at
        owner : whose private recordings answer, beside those that are not private; None: all

        Where shards hold the library and one of them is lost, the others answer: the state is the part
        that they hold.

        Raises LibraryError if the fingerprint was made by another encoder, or if the calibration kept here
        is not this library's.
        """
        if fingerprint.encoder != self.encoder.id:
            raise LibraryError(
                f"{fingerprint.source}: this fingerprint was made by encoder "
                f"{fingerprint.encoder}, the library by {self.encoder.id}; make it anew"
            )
        with self._current() as (connection, snapshot):
            if owner is not None:
                snapshot = self._seen_by(owner, snapshot, connection)
            calibration = self._calibrated(connection, snapshot.revision)
            rungs = LADDER[:hypotheses]
            while True:
                part = self._answering(snapshot)
                named = part.naming(partial(catalogue.numbered, connection))
                question = Question(fingerprint, named, self.encoder)
                try:
                    matches = search(question, calibration, max_e_value, rungs, effort, self.gate)
                    return matches, part
                except ShardLost:  # once more, without it: an answer is of one part of the library
                    continue

    @property
    def calibration(self) -> Calibration:
        """How chance is stated: by a fit to this library, or by the encoder's. Raises as `search` does."""
        with self.reading() as connection:
            return self._calibrated(connection, catalogue.revision(connection))

    def own_calibration(self) -> Calibration | None:
        """The fit to this library that is kept in it, if there is one.

        Raises LibraryError if it was fitted to another library, or is damaged.
        """
        with self.reading() as connection:
            return self._own(connection)

    def id(self) -> str:
        """What tells this library from others, of which its copies are some."""
        with self.reading() as connection:
            return catalogue.properties(connection)["id"]

    def recordings(
        self,
        text: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
        *,
        rightsholder: str | None = None,
        expired: bool = False,
        owner: str | None = None,
    ) -> tuple[list[Recording], str | None]:
        """A page of recordings in order of ingest, and the cursor of the next one (None: no more).

        text is looked for in ids, titles, artists, works, ISRCs, file names and rightsholders;
        `rightsholder` is one's whole name; `expired` asks for those whose licence has ended; `owner` sees
        its own and those that are not private, None sees all.
        Raises ValueError for a cursor that is none.
        """
        after = int(cursor) if cursor else 0
        if not 0 <= after < 2**63:
            raise ValueError(f"cursor {cursor!r} is out of range")
        day = catalogue.today() if expired else None
        with self.reading() as connection:
            found, more = catalogue.page(
                connection,
                text,
                after,
                limit,
                rightsholder=rightsholder,
                expired_on=day,
                owner=owner,
            )
        return found, None if more is None else str(more)

    def every_recording(self, **only: Any) -> Iterator[Recording]:
        """All recordings in order of ingest, read page by page; `only` are options of `recordings`."""
        cursor: str | None = None
        while True:
            page, cursor = self.recordings(cursor=cursor, limit=1000, **only)
            yield from page
            if cursor is None:
                return

    def recording(self, id: str, owner: str | None = None) -> Recording:
        """One recording. Raises KeyError if there is none of that id, or none that `owner` sees."""
        with self.reading() as connection:
            found = catalogue.recording(connection, id, owner)
        if found is None:
            raise KeyError(id)
        return found

    def codes(self, id: str, start: float, end: float) -> tuple[Codes, int]:
        """The codes of a recording from about start to end, in seconds, and the number of the first.

        Raises KeyError if there is no recording of that id, or if it does not answer queries.
        """
        step = self.encoder.step * REFERENCE_EVERY
        with self._current() as (connection, snapshot):
            place = snapshot.place(catalogue.number_of(connection, id))
            first = max(0, int(start / step))
            return snapshot.codes(place, first, max(first, int(end / step) + 1)), first

    def find(self, sha256: str, owner: str | None = None) -> Recording | None:
        """The recording ingested from a file of that SHA-256, if there is one that `owner` sees."""
        with self.reading() as connection:
            return next(iter(catalogue.find(connection, sha256=sha256, owner=owner)), None)

    def named(self, source: str) -> list[Recording]:
        """The recordings ingested from files of that name."""
        with self.reading() as connection:
            return catalogue.find(connection, source=source)

    def info(self) -> dict[str, Any]:
        """What the library holds and what it takes; `audit` is the newest hash of the audit log."""
        with self.reading() as connection:
            count, seconds, embeddings = catalogue.totals(connection)
            revision = catalogue.revision(connection)
            _, audited = audit.newest(connection)
            rows = catalogue.segments(connection)
            elsewhere = self.database.size(connection)
        size = elsewhere + _bytes(self.path.rglob("*"))
        of_segments = _bytes(file for row in rows for file in self.segment_files(row.number))
        stored = sum(row.embeddings for row in rows)
        return {
            "path": str(self.path),
            "database": self.database.name,
            "snapshot": str(revision),
            "recordings": count,
            "seconds": seconds,
            "embeddings": embeddings,
            "removed_embeddings": stored - embeddings,
            "segments": len(rows),
            "encoder": self.encoder.id,
            "bytes_on_disk": size,
            "bytes_of_memory": _memory(count, of_segments),
            "bytes_per_second": round(of_segments / seconds, 2) if seconds else 0.0,
            "audit": audited,
        }

    def cost(self, recordings: int, seconds: float) -> Cost:
        """What that many more recordings, of that many seconds in all, will take."""
        embeddings = seconds / (self.encoder.step * REFERENCE_EVERY)
        with self.reading() as connection:
            count, _, _ = catalogue.totals(connection)
            stored = sum(row.embeddings for row in catalogue.segments(connection))
        codec = self.encoder.codec
        more = segment.size(round(stored + embeddings), codec) - segment.size(stored, codec)
        held = segment.size(round(stored + embeddings), codec)
        return Cost(
            max(0, more) + recordings * DISK_PER_RECORDING,
            _memory(count + recordings, held),
        )

    @contextmanager
    def writer(
        self,
        by: str | None = None,
        wait: float = 0.0,
        give_up: Callable[[], bool] | None = None,
        merge: bool = True,
    ) -> Iterator["Writer"]:
        """The one writer. What it was given is committed when the block ends, also by an error.

        merge : whether small segments are merged then, if there are many: this takes up to minutes, and
            others may write meanwhile
        by : id of the key that writes, None for who sits at the machine
        wait : seconds to wait for another process that is writing; -1: for as long as it takes, or
            until `give_up` says so

        Raises LibraryLocked if another process is still writing then.
        """
        from index.merging import merge_after
        from index.writer import Writer

        with Writer.locked(self, by, wait, give_up) as writer:
            try:
                yield writer
            finally:
                writer.commit()
        if merge:
            merge_after(self)

    def has_keys(self) -> bool:
        """Whether a key was ever made."""
        with self.reading() as connection:
            return keys.are_there(connection)

    def key(self, text: str) -> Key | None:
        """The key that a text is, if it is one that is neither expired nor revoked."""
        with self.reading() as connection:
            return keys.recognise(connection, text)

    def add_key(
        self, owner: str, scope: str, expires_at: str | None, *, by: str | None = None
    ) -> tuple[Key, str]:
        """Make a key; with the text that is shown once. It does not wait for the writer.

        by : id of the key that makes it, None for who sits at the machine

        Raises ValueError for an owner or a scope that cannot be one.
        """
        with self._changing_keys() as connection:
            now = catalogue.now()
            key, text = keys.add(connection, owner, scope, expires_at, now)
            details = {"key": key.id, "owner": key.owner, "scope": scope, "expires_at": expires_at}
            audit.append(connection, [audit.Event("key", None, details)], now, by)
        return key, text

    def revoke_key(self, id: str, *, by: str | None = None) -> bool:
        """Revoke a key; whether it was good until now. It does not wait for the writer.

        Raises KeyError if there is no key of that id.
        """
        with self._changing_keys() as connection:
            now = catalogue.now()
            revoked = keys.revoke(connection, id, now)
            if revoked:
                audit.append(connection, [audit.Event("revoke", None, {"key": id})], now, by)
        return revoked

    @contextmanager
    def _changing_keys(self) -> Iterator[sql.Connection]:
        """A transaction for keys, which needs no writer: it touches neither recordings nor segments."""
        try:
            with (
                self.database.engine.connect() as connection,
                self.database.transaction(connection),
            ):
                yield connection
                catalogue.next_revision(connection)
        except (OSError, *DatabaseErrors) as error:
            self.database.withdraw()
            raise self.unwritable(error) from None

    def all_keys(self) -> list[Key]:
        """All keys that were ever made, the oldest first."""
        with self.reading() as connection:
            return keys.every(connection)

    @contextmanager
    def reading(self) -> Iterator[sql.Connection]:
        """One read transaction.

        Raises LibraryError where the catalogue cannot be read, DatabaseAway where that may pass.
        """
        try:
            with self.database.engine.connect() as connection:
                yield connection
        except DatabaseErrors as error:
            raise _unreadable(self.path, self.database, error) from None

    def unwritable(self, error: Exception) -> LibraryError:
        """What is raised for an error of the disk's or the database's while something was written."""
        return self.database.error(
            f"{self.path}: the library cannot be written",
            error,
            "what was committed before is safe",
        )

    def segment_path(self, number: int) -> Path:
        """Where a segment's header is."""
        return self.path / "segments" / segment.header_name(number)

    def segment_files(self, number: int) -> list[Path]:
        """Where a segment's header and lists are."""
        return [self.path / "segments" / name for name in segment.names(number)]

    def segment(self, row: catalogue.SegmentRow) -> Segment:
        """A segment, mapped. Raises LibraryError if it is missing or damaged."""
        return segment.read(self.segment_path(row.number), row.written, self.encoder.codec)

    @contextmanager
    def _current(self) -> Iterator[tuple[sql.Connection, Snapshot]]:
        """A read transaction and the state that it sees."""
        while True:
            with self.reading() as connection:
                try:
                    snapshot = self._load(connection)
                except LibraryError:
                    seen = catalogue.revision(connection)
                    with self.reading() as newer:
                        if catalogue.revision(newer) == seen:
                            raise
                else:
                    yield connection, snapshot
                    return

    def _load(self, connection: sql.Connection) -> Snapshot:
        """The state that a transaction sees; read only if it is not that in memory."""
        revision, day = catalogue.revision(connection), catalogue.today()
        snapshot = self._snapshot
        if snapshot is not None and (snapshot.revision, snapshot.day) == (revision, day):
            return snapshot
        with self._refreshing:
            snapshot = self._snapshot  # another thread may have read it meanwhile
            if snapshot is not None and (snapshot.revision, snapshot.day) == (revision, day):
                return snapshot
            placements = self._places.at(connection, day)
            needed = set(np.unique(placements.segment).tolist())
            rows = [row for row in catalogue.segments(connection) if row.number in needed]
            snapshot = Snapshot(
                revision, day, placements, self._hold(rows), self.encoder.codec, self._look_up
            )
            self._snapshot = snapshot
            self._parts.clear()  # of states that are over, whose segments may be deleted
        return snapshot

    def _calibrated(self, connection: sql.Connection, revision: int) -> Calibration:
        kept = self._calibration
        if kept is not None and kept[0] == revision:
            return kept[1]
        calibration = self._own(connection) or Calibration.of(self.encoder.id)
        self._calibration = revision, calibration
        return calibration

    def _own(self, connection: sql.Connection) -> Calibration | None:
        properties = catalogue.properties(connection)
        text = properties.get("calibration")
        if text is None:
            return None
        again = "`earmark verify --calibration` fits one to this library"
        try:
            entry = json.loads(text)
            for what, ours in (("encoder", self.encoder.id), ("library", properties["id"])):
                if entry[what] != ours:
                    raise LibraryError(
                        f"{self.path}: the calibration kept here belongs to another {what} "
                        f"({entry[what]}, not {ours}); {again}"
                    )
            return Calibration.from_entry(entry)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise LibraryError(
                f"{self.path}: the calibration kept here is damaged ({error!r}); {again}"
            ) from None

    def _hold(self, rows: list[catalogue.SegmentRow]) -> Segments:
        """These segments, where they are held from now on."""
        if self._shards is not None:
            return self._shards.hold(rows)
        before = self._segments
        self._segments = {
            row.number: before[row.number] if row.number in before else self.segment(row)
            for row in rows
        }
        return Mapped(self._segments, self.encoder.codec)

    def _answering(self, snapshot: Snapshot) -> Snapshot:
        """The part of a state that answers now. The last few are kept."""
        missing = self._shards.missing() if self._shards is not None else None
        if not missing:
            return snapshot
        return self._kept(snapshot, missing, lambda: snapshot.without(missing))

    def _seen_by(self, owner: str, all_of_it: Snapshot, connection: sql.Connection) -> Snapshot:
        """What an owner sees of a state."""

        def made() -> Snapshot:
            places = _among_the_last(self._views, owner, lambda: Places(owner))
            return all_of_it.only(places.at(connection, all_of_it.day))

        return self._kept(all_of_it, owner, made)

    def _kept(self, of: Snapshot, which: Hashable, make: Callable[[], Snapshot]) -> Snapshot:
        """A part of a state; the last few of the newest state, and of its parts, are kept."""
        with self._refreshing:
            if of.whole is not self._snapshot and of not in self._parts.values():
                return make()
            return _among_the_last(self._parts, (of, which), make)

    def _look_up(self, number: int) -> Recording:
        with self.reading() as connection:
            return catalogue.numbered(connection, number)


def _memory(recordings: int, segments: int) -> int:
    """Bytes of memory of a process that searches so many recordings, in segments of so many bytes."""
    return MEMORY_OF_A_PROCESS + MEMORY_PER_RECORDING * recordings + segments


def _bytes(files: Iterable[Path]) -> int:
    """Bytes of files, without those that are gone by now."""
    total = 0
    for file in files:
        with suppress(FileNotFoundError):
            if file.is_file():
                total += file.stat().st_size
    return total


def _among_the_last(kept: dict[Any, Any], key: Hashable, make: Callable[[], Any]) -> Any:
    """What is kept under a key, or made; what was asked for last stays."""
    kept[key] = kept.pop(key) if key in kept else make()
    while len(kept) > PARTS_KEPT:
        del kept[next(iter(kept))]
    return kept[key]


def _require_usable(path: Path, encoder: Encoder, catalogued: Database) -> None:
    """Bring a library up to date. Raises LibraryError if it is none, or not one for this Earmark."""
    there = "`earmark ingest` makes one"
    try:
        if not catalogued.has("properties"):
            if (path / BOUND).is_file() and not isinstance(catalogued, Postgresql):
                there = "its catalogue is in a PostgreSQL database: say which (EARMARK_DATABASE)"
            else:
                _require_no_segments(path, catalogued)
            raise LibraryError(f"{path}: there is no library here; {there}")
        with catalogued.engine.connect() as connection:
            found = catalogue.format_of(connection)
            properties = catalogue.properties(connection)
    except OSError as error:
        raise _unusable(path, error) from None
    except (ValueError, sql.exc.InvalidRequestError, *DatabaseErrors) as error:
        raise _unreadable(path, catalogued, error) from None
    if found is None or not OLDEST <= found <= catalogue.SCHEMA.format:
        raise LibraryError(
            f"{path}: this library has format {found}, this Earmark reads "
            f"format {catalogue.SCHEMA.format}; use the Earmark that made it or ingest anew"
        )
    if isinstance(catalogued, Postgresql):
        _require_bound(path, properties.get("id"), catalogued)
    if found < catalogue.SCHEMA.format:
        _migrate(path, catalogued)
    try:
        with catalogued.engine.connect() as connection:
            catalogue.require_whole(connection)
    except LibraryError as error:
        raise LibraryError(f"{path}: {error}") from None
    except DatabaseErrors as error:
        raise _unreadable(path, catalogued, error) from None
    if properties["encoder"] != encoder.id:
        raise LibraryError(
            f"{path}: this library was made by encoder {properties['encoder']}, this is "
            f"{encoder.id}; use that encoder or ingest into a new library"
        )


def _require_bound(path: Path, id: str | None, catalogued: Database) -> None:
    """Raises LibraryError if a database's library is not the one whose segments are in this folder."""
    try:
        bound = (path / BOUND).read_text().strip()
    except (OSError, UnicodeDecodeError):
        bound = ""
    if bound != id:
        raise LibraryError(
            f"{path}: the library in {catalogued.name} is not that of this folder; "
            "each library has a folder and a database of its own: say which (EARMARK_LIBRARY, "
            "EARMARK_DATABASE; sqlite:// for a catalogue in the folder)"
        )


def bind(path: Path, id: str) -> None:
    """Note in a folder which library its database must have."""
    with open(path / BOUND, "w", opener=private) as file:
        file.write(f"{id}\n")
    segment.synchronise(path / BOUND)


def _unreadable(path: Path, catalogued: Database, error: Exception) -> LibraryError:
    return catalogued.error(
        f"{path}: the library's catalogue, {catalogued.name}, cannot be read",
        error,
        catalogued.unreadable,
    )


def _migrate(path: Path, catalogued: Database) -> None:
    """Bring a library up to date, once. Raises LibraryError where it cannot be written."""
    try:
        with catalogued.lock("write", PATIENCE) as connection, connection.begin():
            if catalogue.format_of(connection) != catalogue.SCHEMA.format:
                catalogue.migrate(connection)
    except (OSError, *DatabaseErrors) as error:
        reason = "another process is writing it" if isinstance(error, TimeoutError) else error
        raise LibraryError(
            f"{path}: this library is of an earlier format and cannot be brought up to date ({reason})"
        ) from None


def _create(path: Path, encoder: Encoder, catalogued: Database) -> None:
    """Make a library, or make one whole that was begun; where another process makes it, wait for that.

    Raises LibraryError if the folder has other things, or cannot be written.
    """
    made = partial(catalogued.has, "properties")
    try:
        _require_own(path, catalogued)
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in (path, path / "segments"):  # nobody else's, also where it was there
            folder.mkdir(exist_ok=True, mode=0o700)
            with suppress(PermissionError):  # another's folder, which we may only write in
                folder.chmod(0o700)
        # who has made it may go on to write, with the same lock
        with catalogued.lock("write", PATIENCE, made) as connection, connection.begin():
            if made():
                return
            _require_no_segments(path, catalogued)
            catalogue.create(connection, encoder.id)
            if isinstance(catalogued, Postgresql):
                bind(path, catalogue.properties(connection)["id"])
            segment.synchronise(path)
    except TimeoutError:
        if not made():
            raise LibraryLocked(f"{path}: another process is making this library") from None
    except OSError as error:
        raise _unusable(path, error) from None
    except DatabaseErrors as error:
        raise catalogued.error(
            f"{path}: no library can be made in {catalogued.name}", error, "nothing was done"
        ) from None


def _require_own(path: Path, catalogued: Database) -> None:
    """Raises LibraryError if a folder has what the making of a library does not put there."""
    if isinstance(catalogued, Postgresql):
        if (path / CATALOGUE).is_file():
            raise LibraryError(
                f"{path}: the catalogue of this library is in {CATALOGUE}; copy it with "
                "`earmark snapshot DIR --into URL`, or say EARMARK_DATABASE=sqlite://"
            )
        own = {"segments", "merging", BOUND}
    else:
        files = (CATALOGUE + end for end in ("", "-journal", "-wal", "-shm"))
        own = {"segments", "merging", "jobs", "write.lock", "merge.lock", *files}
    if path.exists() and not {it.name for it in path.iterdir()} <= own:
        raise LibraryError(
            f"{path}: this folder holds other things and no library; name an empty or a new one"
        )


def _require_no_segments(path: Path, catalogued: Database) -> None:
    """Raises LibraryError if a folder has segments, whose catalogue must have been lost."""
    folder = path / "segments"
    if folder.is_dir() and any(folder.iterdir()):
        raise LibraryError(
            f"{path}: this folder holds segments and {catalogued.name} no catalogue of them; "
            "restore it from a backup, say where it is (EARMARK_DATABASE), or name another folder"
        )


def _unusable(path: Path, error: OSError) -> LibraryError:
    return LibraryError(f"{path}: cannot be used as a library: {error.strerror}")
