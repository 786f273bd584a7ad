"""A copy of a library in use, as of one commit.

The catalogue is copied row by row in one read transaction, from SQLite or PostgreSQL to either; the
segments, which never change, byte by byte, each file as it was written or not at all. All
of it is made in a folder of another name, synchronised, and renamed at the end: what has the backup's name
is whole, and is a library like any other. It goes its own way from then on, so it has an id of its own.
"""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import sqlalchemy as sql

from index import audit_log as audit
from index import catalogue, keys, segment, signing
from index.database import BESIDE, Database, DatabaseErrors, Postgresql, SqliteFile
from index.errors import LibraryError
from index.library import CATALOGUE, Library, bind
from index.segment import synchronise

_AT_ONCE = 1000  # rows
_BYTES_AT_ONCE = 1 << 20


class TargetInUse(LibraryError):
    """A folder or a database for a copy that holds something."""


def backup(library: Library, target: Path, url: sql.URL = BESIDE) -> int:
    """Copy a library, which may be written meanwhile, into a new folder; the revision it is of.

    url : of an empty database that gets the catalogue, by default a file in the folder

    Raises TargetInUse if the folder or the database is in use; LibraryError if they cannot be written, or
    the library is damaged.
    """
    try:
        if target.exists():
            raise TargetInUse(f"{target}: exists already; name a new folder for the snapshot")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f"{target.name}.partial-", dir=target.parent, ignore_cleanup_errors=True
        ) as beside:
            made = Path(beside, "library")
            for folder in (made, made / "segments"):
                folder.mkdir(mode=0o700)
            revision = _made(library, made, url)
            made.rename(target)
        synchronise(target.absolute().parent)
    except OSError as error:
        raise LibraryError(f"{target}: cannot be written: {error.strerror}") from None
    return revision


def _made(library: Library, folder: Path, url: sql.URL) -> int:
    """Copy a library into an empty folder, where it is on the disk when this returns; the revision."""
    # a catalogue of one file, whole in itself
    copy: Database = (
        SqliteFile(folder / CATALOGUE, journal="DELETE") if url == BESIDE else Postgresql(url)
    )
    try:
        if copy.has("properties"):
            raise TargetInUse(f"{copy.name}: holds a library already; name an empty database")
        revision = _copy(library, folder, copy)
        if (library.path / signing.FILE).is_file():
            shutil.copy2(library.path / signing.FILE, folder / signing.FILE)
        for file in folder.rglob("*"):
            synchronise(file)
        synchronise(folder)
    finally:
        copy.engine.dispose()
    return revision


def _copy(library: Library, folder: Path, copy: Database) -> int:
    """A catalogue, and every segment that it names; again if one was compacted away meanwhile."""
    while True:
        with library.reading() as connection:
            revision = catalogue.revision(connection)
            hashes = {
                name: sha256
                for row in catalogue.segments(connection)
                for name, sha256 in zip(
                    segment.names(row.number), (row.header_sha256, row.sha256), strict=True
                )
            }
            for file in (folder / "segments").iterdir():
                if file.name not in hashes:
                    file.unlink()
            missing = None
            for name, sha256 in sorted(hashes.items()):
                try:
                    _copy_file(library.path / "segments" / name, folder / "segments" / name, sha256)
                except FileNotFoundError:
                    missing = name
            if missing is None:
                _copy_rows(connection, folder, copy)
                return revision
        with library.reading() as connection:
            if catalogue.revision(connection) == revision:
                raise LibraryError(
                    f"{library.path}: segment {missing} is missing; `earmark verify`"
                )


def _copy_rows(source: sql.Connection, folder: Path, copy: Database) -> None:
    """All rows of a catalogue, into one that is made for them. Raises LibraryError."""
    try:
        with copy.engine.begin() as target:
            catalogue.SCHEMA.upgrade(target)
            id = catalogue.properties(target)["id"]
            if isinstance(copy, Postgresql):
                bind(folder, id)
            for tables in (catalogue.TABLES, audit.TABLES, keys.TABLES):
                for table in tables.sorted_tables:
                    query = sql.select(table).execution_options(yield_per=_AT_ONCE)
                    if table is catalogue.PROPERTIES:
                        query = query.where(table.c.name != "id")
                    for rows in source.execute(query).mappings().partitions():
                        target.execute(sql.insert(table), [dict(row) for row in rows])
            properties = catalogue.properties(source)
            calibration = properties.get("calibration")
            if calibration is not None:
                moved = _calibration(calibration, properties["id"], id)
                catalogue.set_calibration(target, moved)
    except DatabaseErrors as error:
        raise copy.error(f"{copy.name} cannot be written", error, "there is no snapshot") from None


def _calibration(text: str, library: str, copy: str) -> str:
    """A fit to the library as its copy keeps it, of the same music; another's, or a damaged one, as it is."""
    try:
        entry = json.loads(text)
        if entry["library"] == library:
            return json.dumps(entry | {"library": copy})
    except (ValueError, KeyError, TypeError):
        pass
    return text


def _copy_file(source: Path, target: Path, sha256: str) -> None:
    """Copy a file, once. Raises LibraryError if it is not what was written."""
    if target.exists():
        return
    digest = hashlib.sha256()
    with source.open("rb") as file, target.open("xb") as copy:
        while data := file.read(_BYTES_AT_ONCE):
            digest.update(data)
            copy.write(data)
    if digest.hexdigest() != sha256:
        raise segment.damaged(source, "its checksum is wrong")
