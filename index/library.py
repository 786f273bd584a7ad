"""A library folder: catalogue, segments, one writer, any number of readers.

    library/catalogue.sqlite     the one source of truth (see `index.catalogue`)
    library/segments/*.safetensors    codes, immutable (see `index.segment`)
    library/write.lock           held by the process that writes

Why a crash loses nothing: a commit writes its segment under a new name, synchronises file and folder,
and then, in one SQLite transaction, names the segment and its recordings and counts the revision. Before
that transaction the segment is a file nobody knows (the next writer deletes it); after it everything is
there. Removal is a tombstone in the same kind of transaction. Readers keep the `Snapshot` they have and
look at the revision before each search.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock
import sqlalchemy as sql

from fingerprint.encoder import Encoder
from fingerprint.fingerprint import REFERENCE_EVERY, Fingerprint
from index import catalogue, segment
from index.catalogue import RIGHTS, Metadata, Placement, Recording
from index.errors import LibraryError, LibraryLocked
from index.question import Question
from index.search import Match, search
from index.segment import Codes
from index.significance import REVIEW, Calibration, Weigher
from index.snapshot import Snapshot

_LONGEST_ID = 200  # characters


class Library:
    """An open library. Threads may share one; searches see what is committed when they begin."""

    def __init__(self, path: Path, encoder: Encoder, engine: sql.Engine) -> None:
        self.path = path
        self.encoder = encoder
        self._engine = engine
        self._weigher = Weigher(encoder)
        self._calibration = Calibration.of(encoder.id)
        self._refreshing = threading.Lock()
        self._segments: dict[str, Codes] = {}
        self._snapshot = Snapshot(-1, [], {}, encoder.codec)

    @classmethod
    def open(cls, path: Path, encoder: Encoder, *, create: bool = False) -> "Library":
        """Open a library folder, or with `create` make one where there is none.

        Raises LibraryError if there is none, if it is damaged, or if it was made by another encoder or
        another version of Earmark.
        """
        database = path / "catalogue.sqlite"
        try:
            if not database.is_file():
                if not create:
                    raise LibraryError(
                        f"{path}: there is no library here; `earmark ingest` makes one"
                    )
                _create(path, database, encoder)
            engine = catalogue.connect(database)
            with engine.connect() as connection:
                properties = catalogue.properties(connection)
        except OSError as error:
            raise LibraryError(f"{path}: cannot be used as a library: {error.strerror}") from None
        except sql.exc.DBAPIError as error:
            raise LibraryError(
                f"{database}: the library's catalogue cannot be read ({error.orig}); "
                "restore it from a backup"
            ) from None
        if properties.get("format") != str(catalogue.FORMAT):
            raise LibraryError(
                f"{path}: this library has format {properties.get('format')}, this Earmark reads "
                f"format {catalogue.FORMAT}; use the Earmark that made it or ingest anew"
            )
        if properties["encoder"] != encoder.id:
            raise LibraryError(
                f"{path}: this library was made by encoder {properties['encoder']}, this is "
                f"{encoder.id}; use that encoder or ingest into a new library"
            )
        library = cls(path, encoder, engine)
        library.refresh()
        return library

    def close(self) -> None:
        """Let go of the catalogue."""
        self._engine.dispose()

    def refresh(self) -> Snapshot:
        """The newest committed state, read only if there is a newer one than that in memory."""
        with self._reading() as connection:
            if catalogue.revision(connection) == self._snapshot.revision:
                return self._snapshot
        with self._refreshing, self._reading() as connection:
            revision = catalogue.revision(connection)
            if revision != self._snapshot.revision:
                placements = catalogue.placements(connection)
                rows = catalogue.segments(connection)
                for name in {p.segment for p in placements} - self._segments.keys():
                    path = self._segment_path(name)
                    self._segments[name] = segment.read(path, rows[name][0])
                self._snapshot = Snapshot(revision, placements, self._segments, self.encoder.codec)
            return self._snapshot

    def search(
        self, fingerprint: Fingerprint, *, max_e_value: float = REVIEW
    ) -> tuple[list[Match], Snapshot]:
        """Matches of a query, best first, and the state of the library that gave them.

        Raises LibraryError if the fingerprint was made by another encoder.
        """
        if fingerprint.encoder != self.encoder.id:
            raise LibraryError(
                f"{fingerprint.source}: this fingerprint was made by encoder "
                f"{fingerprint.encoder}, the library by {self.encoder.id}; make it anew"
            )
        snapshot = self.refresh()
        question = Question(fingerprint, snapshot, self.encoder, self._weigher)
        matches = search(question, self._calibration, max_e_value)
        return matches, snapshot

    def recordings(
        self, text: str | None = None, cursor: str | None = None, limit: int = 100
    ) -> tuple[list[Recording], str | None]:
        """A page of recordings in order of ingest, and the cursor of the next one (None: no more).

        text is looked for in ids, titles, artists, works, ISRCs, file names and rightsholders.
        Raises ValueError for a cursor that is none.
        """
        after = int(cursor) if cursor else 0
        if not 0 <= after < 2**63:
            raise ValueError(f"cursor {cursor!r} is out of range")
        with self._reading() as connection:
            found, more = catalogue.page(connection, text, after, limit)
        return found, None if more is None else str(more)

    def recording(self, id: str) -> Recording:
        """One recording. Raises KeyError if there is none of that id."""
        with self._reading() as connection:
            found = catalogue.recording(connection, id)
        if found is None:
            raise KeyError(id)
        return found

    def find(self, sha256: str) -> Recording | None:
        """The recording ingested from a file of that SHA-256, if any."""
        with self._reading() as connection:
            return catalogue.find(connection, sha256=sha256)

    def info(self) -> dict[str, Any]:
        """What the library holds and what it takes."""
        with self._reading() as connection:
            count, seconds, embeddings = catalogue.totals(connection)
            revision = catalogue.revision(connection)
        size = sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())
        codes = embeddings * (self.encoder.codec.code_size + 2)
        return {
            "path": str(self.path),
            "snapshot": str(revision),
            "recordings": count,
            "seconds": seconds,
            "embeddings": embeddings,
            "encoder": self.encoder.id,
            "bytes_on_disk": size,
            "bytes_per_second": round(codes / seconds, 2) if seconds else 0.0,
        }

    @contextmanager
    def writer(self) -> Iterator["Writer"]:
        """The one writer. What it was given is committed when the block ends, also by an error.

        Raises LibraryLocked if another process is writing.
        """
        lock = filelock.FileLock(self.path / "write.lock")
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            raise LibraryLocked(
                f"{self.path}: another process is writing this library; try again when it is done"
            ) from None
        except OSError as error:
            raise LibraryError(f"{self.path}: cannot be written: {error.strerror}") from None
        try:
            writer = Writer(self)
            writer._delete_orphans()
            try:
                yield writer
            finally:
                writer.commit()
        finally:
            lock.release()

    @contextmanager
    def _reading(self) -> Iterator[sql.Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except sql.exc.DBAPIError as error:
            raise LibraryError(
                f"{self.path}: the library's catalogue cannot be read ({error.orig})"
            ) from None

    def _segment_path(self, name: str) -> Path:
        return self.path / "segments" / f"{name}.safetensors"


class Writer:
    """Adds and removes recordings; made by `Library.writer`, used by one thread."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._added: list[tuple[Recording, Codes, str]] = []
        self._removed: set[str] = set()

    def add(self, fingerprint: Fingerprint, metadata: Metadata) -> tuple[Recording, bool]:
        """Put a recording into the library, at the latest when the writer is closed.

        Returns it and True; or, if the library has the same audio, the recording that is there and
        False: nothing is changed. By default the id is taken from the file's hash.

        Raises ValueError for rights that are none, no rightsholder, or an id that is taken or unfit;
        LibraryError for a fingerprint that is not a reference of this library's encoder.
        """
        if metadata.rights not in RIGHTS:
            raise ValueError(f"rights {metadata.rights!r} are none of {', '.join(RIGHTS)}")
        if not metadata.rightsholder.strip():
            raise ValueError("a rightsholder is needed: no rights, no ingest")
        if fingerprint.encoder != self._library.encoder.id or fingerprint.every != REFERENCE_EVERY:
            raise LibraryError(f"{fingerprint.source}: not a reference fingerprint of this encoder")
        codes = Codes(*self._library.encoder.codec.encode(fingerprint.embeddings))
        sound = codes.sha256()
        present = self._find(fingerprint.sha256, sound if len(codes) else None)
        if present is not None:
            return present, False
        id = metadata.id or fingerprint.sha256[:16]
        if not id.isprintable() or id != id.strip() or len(id) > _LONGEST_ID or id in (".", ".."):
            raise ValueError(
                f"id {id!r} cannot be one: printable, up to {_LONGEST_ID} characters, no space at "
                "its ends, neither . nor .."
            )
        if self._has(id):
            raise ValueError(f"id {id!r} is taken by another recording")
        recording = Recording(
            **{field.name: getattr(metadata, field.name) for field in fields(Metadata)}
            | {"id": id},
            sha256=fingerprint.sha256,
            duration=fingerprint.duration,
            ingested_at=_now(),
        )
        self._added.append((recording, codes, sound))
        return recording, True

    def remove(self, id: str) -> None:
        """Remove a recording, at the latest when the writer is closed. KeyError if there is none."""
        if not self._has(id):
            raise KeyError(id)
        waiting = [item for item in self._added if item[0].id != id]
        if len(waiting) < len(self._added):
            self._added = waiting
        else:
            self._removed.add(id)

    def commit(self) -> None:
        """Make everything added and removed so far part of the library, or none of it."""
        if not self._added and not self._removed:
            return
        library = self._library
        try:
            with library._engine.begin() as connection:
                if self._removed:
                    catalogue.remove_recordings(connection, self._removed, _now())
                if self._added:
                    self._write_segment(connection)
                catalogue.next_revision(connection)
        except (OSError, sql.exc.DBAPIError) as error:
            raise LibraryError(
                f"{library.path}: the library cannot be written ({error}); "
                "what was committed before is safe"
            ) from None
        self._added, self._removed = [], set()

    def _write_segment(self, connection: sql.Connection) -> None:
        name = f"{catalogue.revision(connection) + 1:08d}"
        parts = [codes for _, codes, _ in self._added]
        codes = segment.concatenate(parts, self._library.encoder.codec.code_size)
        sha256 = segment.write(self._library._segment_path(name), codes)
        catalogue.add_segment(connection, name, len(codes), sha256)
        rows = []
        first = 0
        for recording, part, sound in self._added:
            rows.append((Placement(recording, name, first, len(part)), sound))
            first += len(part)
        catalogue.add_recordings(connection, rows)

    def _find(self, sha256: str, sound: str | None) -> Recording | None:
        """The recording present, or about to be, of that file or that sound."""
        for recording, _, codes_sha256 in self._added:
            if recording.sha256 == sha256 or codes_sha256 == sound:
                return recording
        with self._library._reading() as connection:
            for wanted in ({"sha256": sha256}, {"codes_sha256": sound}):
                found = catalogue.find(connection, **wanted) if all(wanted.values()) else None
                if found is not None and found.id not in self._removed:
                    return found
        return None

    def _has(self, id: str) -> bool:
        if any(recording.id == id for recording, _, _ in self._added):
            return True
        if id in self._removed:
            return False
        with self._library._reading() as connection:
            return catalogue.recording(connection, id) is not None

    def _delete_orphans(self) -> None:
        """Files that a writer left when it was killed before its commit."""
        with self._library._reading() as connection:
            named = catalogue.segments(connection).keys()
        for file in (self._library.path / "segments").iterdir():
            if file.suffix == ".partial" or file.stem not in named:
                file.unlink(missing_ok=True)


def _create(path: Path, database: Path, encoder: Encoder) -> None:
    if path.exists() and any(path.iterdir()):
        raise LibraryError(
            f"{path}: this folder holds other things and no library; name an empty or a new one"
        )
    (path / "segments").mkdir(parents=True)
    engine = catalogue.connect(database)
    catalogue.create(engine, encoder.id)
    engine.dispose()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
