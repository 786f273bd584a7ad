"""The one writer of a library: it gathers what is to be done and commits it as one."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sql

from fingerprint.fingerprint import REFERENCE_EVERY, Fingerprint
from index import audit_log as audit
from index import catalogue, segment
from index.audit_log import Event
from index.catalogue import Placement, SegmentRow
from index.database import DatabaseErrors
from index.errors import DatabaseAway, LibraryError, LibraryLocked
from index.recording import RIGHTS_RECORD, Metadata, Recording
from index.segment import Codes, Lists

if TYPE_CHECKING:
    from index.library import Library

CHANGEABLE = frozenset(field.name for field in fields(Metadata)) - {"id", "source", "owner"}


@dataclass(frozen=True)
class _New:
    """A recording that waits to be committed, its codes and their hash."""

    recording: Recording
    codes: Codes
    sound: str


class Writer:
    """Adds, changes and removes recordings; made by `Library.writer`, used by one thread."""

    def __init__(self, library: "Library", by: str | None, connection: sql.Connection) -> None:
        """connection : that under which the lock is held; nothing is written through another"""
        self._library = library
        self._connection = connection
        self._by = by
        self._added: dict[str, _New] = {}
        self._removed: set[str] = set()
        self._changed: dict[str, dict[str, Any]] = {}
        self._calibration: dict[str, Any] | None = None
        self._events: list[Event] = []

    @classmethod
    @contextmanager
    def locked(
        cls,
        library: "Library",
        by: str | None,
        wait: float = 0.0,
        give_up: Callable[[], bool] | None = None,
    ) -> Iterator["Writer"]:
        """A writer with the library's lock, after what a killed one left has been deleted."""
        with ExitStack() as stack:
            try:
                connection = stack.enter_context(library.database.lock("write", wait, give_up))
            except TimeoutError:
                raise LibraryLocked(
                    f"{library.path}: another process is writing this library; "
                    "try again when it is done"
                ) from None
            except (OSError, *DatabaseErrors) as error:
                raise library.unwritable(error) from None
            writer = cls(library, by, connection)
            writer.delete_orphans()
            yield writer

    def add(self, fingerprint: Fingerprint, metadata: Metadata) -> tuple[Recording, bool]:
        """Put a recording into the library, at the latest when the writer is closed.

        Returns it and True; or, if the library has the same audio and its owner may know, the recording
        that is there and False: nothing is changed. By default the id is taken from the file's hash.

        Raises ValueError for metadata that cannot be stored or an id that is taken; LibraryError for a
        fingerprint that is not a reference of this library's encoder.
        """
        library = self._library
        if fingerprint.encoder != library.encoder.id or fingerprint.every != REFERENCE_EVERY:
            raise LibraryError(f"{fingerprint.source}: not a reference fingerprint of this encoder")
        now = catalogue.now()
        recording = Recording(
            **vars(metadata) | {"id": metadata.id or fingerprint.sha256[:16]},
            sha256=fingerprint.sha256,
            duration=fingerprint.duration,
            undecoded_seconds=round(fingerprint.undecoded, 3),
            ingested_at=now,
            supplied_at=now,
            supplied_by=self._by,
        )
        recording.require_sound()
        codes = Codes(*library.encoder.codec.encode(fingerprint.embeddings))
        sound = codes.sha256()
        like = self._like(recording.id, recording.sha256, sound if len(codes) else None)
        for present, same_audio in like:
            if same_audio and _may_know(recording.owner, present):
                return present, False
        named = next((present for present, _ in like if present.id == recording.id), None)
        if named and metadata.id is None and not _may_know(recording.owner, named):
            recording = replace(recording, id=_other_id(recording))
            named = self._get(recording.id)
        if named:
            which = f", {named.source!r}" if _may_know(recording.owner, named) else ""
            raise ValueError(f"id {recording.id!r} is taken by another recording{which}")
        self._added[recording.id] = _New(recording, codes, sound)
        self._events.append(Event("ingest", recording.id, _said(recording, sound)))
        return recording, True

    def change(self, id: str, values: Mapping[str, str | bool | None]) -> tuple[Recording, bool]:
        """Say other things of a recording, at the latest when the writer is closed; codes stay.

        Returns what it is then, and whether that is a change. Who changes the rights record becomes
        who supplied it. Raises KeyError if there is no such recording, ValueError for values that
        cannot be stored.
        """
        before = self._get(id)
        if before is None:
            raise KeyError(id)
        if unknown := values.keys() - CHANGEABLE:
            raise ValueError(f"{', '.join(sorted(unknown))} cannot be changed")
        changed = {name: value for name, value in values.items() if value != getattr(before, name)}
        replaced: dict[str, Any] = dict(changed)
        after = replace(before, **replaced)
        after.require_sound()
        if not changed:
            return before, False
        details = {name: [getattr(before, name), value] for name, value in changed.items()}
        if changed.keys() & set(RIGHTS_RECORD):
            after = replace(after, supplied_at=catalogue.now(), supplied_by=self._by)
            changed |= {"supplied_at": after.supplied_at, "supplied_by": after.supplied_by}
        if id in self._added:
            self._added[id] = replace(self._added[id], recording=after)
        else:
            self._changed.setdefault(id, {}).update(changed)
        self._events.append(Event("change", id, details))
        return after, True

    def remove(self, id: str) -> None:
        """Remove a recording, at the latest when the writer is closed. KeyError if there is none."""
        if self._get(id) is None:
            raise KeyError(id)
        if id in self._added:
            del self._added[id]
        else:
            self._removed.add(id)
            self._changed.pop(id, None)
        self._events.append(Event("remove", id, {}))

    def calibrate(self, calibration: Mapping[str, Any]) -> None:
        """State the chance of scores by a fit to the library itself: see `index.library_calibration`.

        An empty one: by the encoder's.
        """
        self._calibration = dict(calibration)
        self._events.append(Event("calibration", None, self._calibration))

    def announce_signing_key(self, public_key: str) -> None:
        """Name in the audit log the key that evidence is signed with from now on; see `index.signing`."""
        self._events.append(Event("signing-key", None, {"public_key": public_key}))

    def commit(self) -> None:
        """Make everything asked for so far part of the library, or none of it.

        Raises LibraryError if it could not be written: what was asked for is then forgotten.
        """
        if not self._events:
            return
        added, removed = list(self._added.values()), self._removed
        changed, events, calibration = self._changed, self._events, self._calibration
        self._added, self._removed, self._changed, self._events = {}, set(), {}, []
        self._calibration = None
        with self.transaction() as connection:
            now = catalogue.now()
            if removed:
                catalogue.remove_recordings(connection, removed, now)
            for id, values in changed.items():
                catalogue.change_recording(connection, id, values)
            if added:
                self._write_segment(connection, added)
            if calibration is not None:
                kept = json.dumps(calibration) if calibration else None
                catalogue.set_calibration(connection, kept)
            audit.append(connection, events, now, self._by)

    @contextmanager
    def transaction(self) -> Iterator[sql.Connection]:
        """A transaction that counts one revision. Raises LibraryError if it cannot be committed."""
        if self._connection.invalidated:
            raise DatabaseAway(
                f"{self._library.path}: the connection that held the lock was lost; "
                "what was committed before is safe, begin again"
            )
        try:
            with self._library.database.transaction(self._connection):
                yield self._connection
                catalogue.next_revision(self._connection)
        except (OSError, *DatabaseErrors) as error:
            self._library.database.withdraw()
            raise self._library.unwritable(error) from None

    def delete_orphans(self) -> None:
        """Files that no catalogue row names: left by a writer that was killed, or by a merge."""
        folder = self._library.path / "segments"
        with self._library.reading() as connection:
            rows = catalogue.segments(connection)
        named = {name for row in rows for name in segment.names(row.number)}
        try:
            orphans = [file for file in folder.iterdir() if file.name not in named]
            if orphans and self._library.database.is_settled():
                for file in orphans:
                    file.unlink(missing_ok=True)
        except OSError as error:
            raise LibraryError(f"{folder}: cannot be written: {error.strerror}") from None

    def write_segment(self, connection: sql.Connection, codes: Codes) -> int:
        """Write a segment under a number of its own and name it; the number."""
        header, number = self._unused(connection)
        written = segment.write(header, codes, self._library.encoder.codec)
        catalogue.add_segment(connection, SegmentRow(number, *written))
        return number

    def move_segment(self, connection: sql.Connection, path: Path, lists: Lists) -> int:
        """Make a file of lists a segment under a number of its own and name it; the number."""
        header, number = self._unused(connection)
        path.rename(segment.lists_of(header))
        written = segment.write_header(header, lists, self._library.encoder.codec)
        catalogue.add_segment(connection, SegmentRow(number, *written))
        return number

    def _unused(self, connection: sql.Connection) -> tuple[Path, int]:
        """The header, and the number, of a segment that is to be."""
        number = catalogue.next_segment(connection)
        while any(it.exists() for it in self._library.segment_files(number)):
            number += 1  # a file that no row names
        return self._library.segment_path(number), number

    def _write_segment(self, connection: sql.Connection, added: list[_New]) -> None:
        codec = self._library.encoder.codec
        codes = segment.concatenate([new.codes for new in added], codec.code_size)
        number = self.write_segment(connection, codes)
        rows = []
        first = 0
        for new in added:
            rows.append((Placement(new.recording, number, first, len(new.codes)), new.sound))
            first += len(new.codes)
        catalogue.add_recordings(connection, rows)

    def _like(self, id: str, sha256: str, sound: str | None) -> list[tuple[Recording, bool]]:
        """What has that id, file or sound, or is about to; with each, whether its audio is the same."""
        pending = [
            (new.recording, new.recording.sha256 == sha256 or new.sound == sound)
            for new in self._added.values()
        ]
        with self._library.reading() as connection:
            committed = catalogue.like(connection, id, sha256, sound)
        return [pair for pair in pending if pair[1] or pair[0].id == id] + [
            (self._changed_to_be(found), same)
            for found, same in committed
            if found.id not in self._removed
        ]

    def _get(self, id: str) -> Recording | None:
        """The recording of that id as it will be after a commit."""
        if id in self._added:
            return self._added[id].recording
        if id in self._removed:
            return None
        with self._library.reading() as connection:
            found = catalogue.recording(connection, id)
        return found and self._changed_to_be(found)

    def _changed_to_be(self, recording: Recording) -> Recording:
        """A committed recording as it will be."""
        return replace(recording, **self._changed.get(recording.id, {}))


def _may_know(owner: str | None, recording: Recording) -> bool:
    """Whether who adds recordings for this owner may learn that this one is there."""
    return not recording.private or recording.owner == owner


def _other_id(recording: Recording) -> str:
    """An id by default where another owner's private recording has that of the file's hash."""
    return hashlib.sha256(f"{recording.owner}\n{recording.sha256}".encode()).hexdigest()[:16]


def _said(recording: Recording, sound: str) -> dict[str, Any]:
    """What the log tells of an ingest: all that is known of the recording, and its codes' hash."""
    known = {name: value for name, value in vars(recording).items() if value not in (None, False)}
    del known["id"]
    return known | {"codes_sha256": sound}
