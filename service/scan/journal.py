"""What a scan has found so far, in its report's folder: a scan that is killed goes on from here.

A member is noted together with what was heard in it, in one transaction: after a crash it is either done or
as if it had never been begun. What is heard is kept by the sound's content, so that copies share it; of an
error without the name that it begins with, which is each copy's own.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sql

from fingerprint.errors import AudioError, EarmarkError
from service.datasets.member import Member, name_of

FILE = "scan.sqlite"
SUMMARY = "summary.json"  # the last file of a report to be written: if it is there, the others are
LOCK = "scan.lock"  # held by the process that scans
GO_ON = "what was noted before is safe: make room and go on with --resume"
_FORMAT = "1"
_LIBRARY = "library"  # was not noted at first

_metadata = sql.MetaData()
_scan = sql.Table(
    "scan",
    _metadata,
    sql.Column("name", sql.Text, primary_key=True),
    sql.Column("value", sql.Text, nullable=False),
)
_members = sql.Table(
    "members",
    _metadata,
    sql.Column("file", sql.Text, primary_key=True),
    sql.Column("index", sql.Integer, primary_key=True),
    sql.Column("member", sql.Text),
    sql.Column("sound", sql.Text, nullable=False),
    sql.Column("sha256", sql.Text),
    sql.Column("bytes", sql.Integer),
    sql.Column("title", sql.Text),
    sql.Column("artist", sql.Text),
    sql.Column("isrc", sql.Text),
    sqlite_with_rowid=False,
)
_sounds = sql.Table(
    "sounds",
    _metadata,
    sql.Column("sound", sql.Text, primary_key=True),
    sql.Column("heard", sql.JSON, nullable=False),
    sqlite_with_rowid=False,
)
_DONE = sql.select(_members.c.sound).where(
    _members.c.file == sql.bindparam("file"), _members.c.index == sql.bindparam("index")
)
_HEARD = sql.select(_sounds.c.sound).where(_sounds.c.sound == sql.bindparam("sound"))


class JournalError(EarmarkError):
    """A report's folder that this scan cannot use."""


class JournalUnwritable(EarmarkError):
    """A report that nothing more can be written to: a full disk, say."""


@dataclass(frozen=True)
class Noted:
    """A member that is done: its content, and the key of what was heard in it."""

    member: Member
    sound: str
    sha256: str | None = None
    size: int | None = None


class Row(NamedTuple):
    """A member and what was heard in it, as a report tells of them."""

    file: str
    member: str | None
    sha256: str | None
    bytes: int | None
    title: str | None
    artist: str | None
    isrc: str | None
    heard: dict[str, Any]


class Journal:
    """The journal of one scan; of one process at a time."""

    def __init__(self, engine: sql.Engine) -> None:
        self._engine = engine

    @classmethod
    def open(
        cls, folder: Path, scan: Mapping[str, str], first: Mapping[str, str], *, resume: bool
    ) -> "Journal":
        """Begin a journal, or go on with one of the same scan.

        scan : what makes it the same scan: dataset, encoder and the like
        first : what else is noted when it begins

        Raises JournalError if the folder holds another scan's report, a finished one's, or if it holds
        an unfinished one's and `resume` was not asked for.
        """
        file = folder / FILE
        try:
            begun = file.is_file()
            if not begun and folder.is_dir() and any(folder.iterdir()):
                raise JournalError(f"{folder}: is not empty and holds no scan; name another folder")
            if begun and not resume:
                raise JournalError(
                    f"{folder}: holds a scan already; go on with it (--resume) or name another folder"
                )
            folder.mkdir(parents=True, exist_ok=True)
            engine = sql.create_engine(sql.URL.create("sqlite", database=str(file)))
            _metadata.create_all(engine)
            journal = cls(engine)
            said = {"format": _FORMAT, **scan}
            with engine.begin() as connection:
                before = {row.name: row.value for row in connection.execute(sql.select(_scan))}
                if not before:
                    both = {**said, **first}
                    rows = [{"name": name, "value": value} for name, value in both.items()]
                    connection.execute(sql.insert(_scan), rows)
        except OSError as error:
            raise JournalError(f"{folder}: cannot be used ({error.strerror})") from error
        except sql.exc.DBAPIError as error:
            raise JournalError(f"{file}: cannot be used ({error.orig})") from error
        if before and _LIBRARY in said:
            before.setdefault(_LIBRARY, said[_LIBRARY])
        for name, value in said.items():
            if before and before.get(name) != value:
                raise JournalError(
                    f"{folder}: holds a scan of another {name} ({before.get(name)}, not {value}); "
                    "name another folder"
                )
        return journal

    def close(self) -> None:
        """Let go of the file."""
        if "_asking" in self.__dict__:
            self._asking.close()
        self._engine.dispose()

    def has(self, member: Member) -> bool:
        """Whether a member is done."""
        return self._is_there(_DONE, file=member.file, index=member.index)

    def knows(self, sound: str) -> bool:
        """Whether a sound of that content has been heard."""
        return self._is_there(_HEARD, sound=sound)

    def _is_there(self, query: sql.Select[tuple[str]], **of: str | int) -> bool:
        return self._asking.execute(query, of).first() is not None

    @cached_property
    def _asking(self) -> sql.Connection:
        """What each member is asked for on: taking one from the pool takes longer than an answer."""
        return self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")

    def found(self) -> int:
        """Members in which something was found."""
        matches = sql.func.json_array_length(_sounds.c.heard, "$.matches")
        both = sql.join(_members, _sounds, _members.c.sound == _sounds.c.sound)
        query = sql.select(sql.func.count()).select_from(both).where(matches > 0)
        with self._engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    def note(
        self, members: Iterable[Noted], heard: Mapping[str, dict[str, Any]], elapsed: float
    ) -> None:
        """Note members, and what was heard in sounds; `elapsed` more seconds have gone into it.

        Raises JournalUnwritable.
        """
        members = list(members)
        firsts = {it.sha256: it.member.name for it in reversed(members)}
        rows = [
            {
                "file": it.member.file,
                "index": it.member.index,
                "member": it.member.member,
                "sound": it.sound,
                "sha256": it.sha256,
                "bytes": it.size,
                **{name: it.member.labels.get(name) for name in ("title", "artist", "isrc")},
            }
            for it in members
        ]
        heard = {sound: _nameless(found, firsts.get(sound)) for sound, found in heard.items()}
        try:
            self._insert(rows, heard, elapsed)
        except sql.exc.OperationalError as error:
            where = self._engine.url.database
            raise JournalUnwritable(
                f"{where}: cannot be written ({error.orig}); {GO_ON}"
            ) from error

    def _insert(
        self, rows: list[dict[str, Any]], heard: Mapping[str, dict[str, Any]], elapsed: float
    ) -> None:
        with self._engine.begin() as connection:
            if heard:
                sounds = [{"sound": sound, "heard": found} for sound, found in heard.items()]
                connection.execute(sql.insert(_sounds), sounds)
            if rows:
                connection.execute(sql.insert(_members), rows)
            spent = float(self._said(connection, "elapsed") or 0) + elapsed
            _say(connection, "elapsed", repr(spent))

    def said(self, name: str) -> str | None:
        """What was noted of the scan itself."""
        with self._engine.connect() as connection:
            return self._said(connection, name)

    @staticmethod
    def _said(connection: sql.Connection, name: str) -> str | None:
        return connection.execute(
            sql.select(_scan.c.value).where(_scan.c.name == name)
        ).scalar_one_or_none()

    def rows(self) -> Iterator[Row]:
        """All members, in order of file and index."""
        both = sql.join(_members, _sounds, _members.c.sound == _sounds.c.sound)
        named = [_members.c[name] for name in Row._fields[:-1]]
        query = (
            sql.select(*named, _sounds.c.heard)
            .select_from(both)
            .order_by(_members.c.file, _members.c.index)
        )
        with self._engine.connect().execution_options(yield_per=1000) as connection:
            for row in connection.execute(query):
                yield _named(Row._make(row))

    def sounds(self) -> Iterator[dict[str, Any]]:
        """What was heard in each different sound."""
        with self._engine.connect().execution_options(yield_per=1000) as connection:
            for row in connection.execute(sql.select(_sounds.c.heard)):
                yield row.heard


def _nameless(heard: dict[str, Any], name: str | None) -> dict[str, Any]:
    """What was heard in a sound that may have copies, its error without the name of the first."""
    error = heard.get("error")
    if not error or name is None:
        return heard
    detail = error["detail"].removeprefix(AudioError(error["type"], name).detail)
    return heard | {"error": error | {"detail": detail}}


def _named(row: Row) -> Row:
    """A row whose error has its name."""
    error = row.heard.get("error")
    if not error or not error["detail"].startswith(": "):
        return row
    detail = AudioError(error["type"], name_of(row.file, row.member) + error["detail"]).detail
    return row._replace(heard=row.heard | {"error": error | {"detail": detail}})


def _say(connection: sql.Connection, name: str, value: str) -> None:
    connection.execute(sql.delete(_scan).where(_scan.c.name == name))
    connection.execute(sql.insert(_scan).values(name=name, value=value))
