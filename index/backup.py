"""A copy of a library in use, as of one commit.

The catalogue is copied by SQLite, the segments, which never change, by hard links where the file system
can and byte by byte where it cannot. All of it is made in a folder of another name, synchronised, and
renamed at the end: what has the backup's name is whole, and is a library like any other.
"""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import sqlalchemy as sql

from index import catalogue
from index.errors import LibraryError
from index.library import Library
from index.segment import synchronise


def backup(library: Library, target: Path) -> int:
    """Copy a library, which may be written meanwhile, into a new folder; the revision it is of.

    Raises LibraryError if the folder exists, cannot be written, or the library is damaged.
    """
    if target.exists():
        raise LibraryError(f"{target}: exists already; name a new folder for the snapshot")
    beside = target.with_name(f"{target.name}.partial")
    try:
        shutil.rmtree(beside, ignore_errors=True)  # of one that was interrupted
        (beside / "segments").mkdir(parents=True)
        revision = _copy(library, beside)
        for file in beside.rglob("*"):
            synchronise(file)
        synchronise(beside)
        beside.rename(target)
        synchronise(target.absolute().parent)
    except (OSError, sqlite3.Error, sql.exc.DBAPIError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise LibraryError(f"{target}: cannot be written: {reason}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)  # it is gone if it became the target
    return revision


def _copy(library: Library, folder: Path) -> int:
    """A catalogue, and every segment that it names; again if one was compacted away meanwhile."""
    copied = folder / "catalogue.sqlite"
    while True:
        copied.unlink(missing_ok=True)
        with (
            closing(sqlite3.connect(library.path / "catalogue.sqlite")) as source,
            closing(sqlite3.connect(copied)) as target,
        ):
            source.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")  # one file, whole in itself
        engine = catalogue.connect(copied, journal="DELETE")
        with engine.connect() as connection:
            rows = catalogue.segments(connection)
            revision = catalogue.revision(connection)
        engine.dispose()
        named = {library.segment_path(row.number).name for row in rows}
        for file in (folder / "segments").iterdir():
            if file.name not in named:
                file.unlink()
        missing = None
        for name in sorted(named):
            try:
                _link(library.path / "segments" / name, folder / "segments" / name)
            except FileNotFoundError:
                missing = name
        if missing is None:
            return revision
        with library.reading() as connection:
            if catalogue.revision(connection) == revision:
                raise LibraryError(
                    f"{library.path}: segment {missing} is missing; `earmark verify`"
                )


def _link(source: Path, target: Path) -> None:
    if target.exists():
        return
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
