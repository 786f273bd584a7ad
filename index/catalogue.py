"""The catalogue: which recordings a library holds, whose they are, and where their codes lie.

The only source of truth of a library: a segment file that no row names does not exist. Rows of removed
recordings stay, as tombstones; what `compact` drops is their codes. The tables are made by the revisions
in `index/migrations`; the same statements work on SQLite and PostgreSQL (see `index.database`).
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sql
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from index.database import Text
from index.errors import LibraryError
from index.recording import Metadata, Recording
from index.schema import Schema
from index.segment import Written

# Of the catalogue with the audit log and the keys: another format is another Earmark's.
SCHEMA = Schema(Path(__file__).parent / "migrations" / "versions", "catalogue_version", 6)


@dataclass(frozen=True)
class Placement:
    """Where a recording's embeddings lie: `count` of them from `first` on in segment `segment`."""

    recording: Recording
    segment: int
    first: int
    count: int


TABLES = sql.MetaData()
PROPERTIES = sql.Table(
    "properties",
    TABLES,
    sql.Column("name", Text, primary_key=True),
    sql.Column("value", Text, nullable=False),
)
_segments = sql.Table(
    "segments",
    TABLES,
    sql.Column("number", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("embeddings", sql.Integer, nullable=False),
    sql.Column("sha256", Text, nullable=False),
    sql.Column("header_sha256", Text, nullable=False),
    # the last revision that changed which of its recordings are found, and by whom; 0: none did
    sql.Column("changed", sql.Integer, nullable=False, server_default="0"),
)
AT_ONCE = 500  # segments named in one query: databases bound its parameters
_NEEDED = {"id", "encoder", "revision"}  # properties that every library has
_REVISION = re.compile("[0-9]{1,18}")
_FINDABLE = {"licence_until", "owner", "private"}  # what says whether a recording is found
_recordings = sql.Table(
    "recordings",
    TABLES,
    # order of ingest
    sql.Column("number", sql.Integer, primary_key=True, autoincrement=False),
    *(
        sql.Column(field.name, Text, nullable=field.default is None and field.name != "id")
        for field in fields(Metadata)
        if field.name != "private"
    ),
    sql.Column("private", sql.Boolean, nullable=False, server_default=sql.false()),
    sql.Column("sha256", Text, nullable=False),
    sql.Column("codes_sha256", Text, nullable=False),
    sql.Column("duration", sql.Float, nullable=False),
    sql.Column("undecoded_seconds", sql.Float, nullable=False, server_default="0"),
    sql.Column("ingested_at", Text, nullable=False),
    sql.Column("supplied_at", Text, nullable=False),
    sql.Column("supplied_by", Text),
    sql.Column("removed_at", Text),  # a tombstone: the recording is gone
    # none once the codes of a removed recording have been dropped
    sql.Column("segment", sql.ForeignKey("segments.number")),
    sql.Column("first", sql.Integer, nullable=False),
    sql.Column("count", sql.Integer, nullable=False),
)
_present = _recordings.c.removed_at.is_(None)


def _visible(owner: str | None) -> sql.ColumnElement[bool]:
    """Whether a recording is present and seen by an owner; None sees all."""
    if owner is None:
        return _present
    columns = _recordings.c
    return sql.and_(_present, sql.or_(sql.not_(columns.private), columns.owner == owner))


_recording_columns = [_recordings.c[field.name] for field in fields(Recording)]
_place_columns = [_recordings.c[name] for name in ("segment", "first", "count")]


def now() -> str:
    """This second, ISO 8601 (UTC)."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def today() -> str:
    """The day on which licences are looked at, ISO 8601 (UTC)."""
    return datetime.now(UTC).date().isoformat()


def create(connection: Connection, encoder: str) -> None:
    """Tables of a new library, made for one encoder."""
    SCHEMA.upgrade(connection)
    values = {"encoder": encoder, "revision": "0"}
    connection.execute(
        sql.insert(PROPERTIES), [{"name": name, "value": value} for name, value in values.items()]
    )


def format_of(connection: Connection) -> int | None:
    """The format of the library; None if it is not said."""
    said = SCHEMA.format_of(connection)
    if said is not None:
        return said
    before = properties(connection).get("format", "")  # of formats 1 to 3
    return int(before) if before.isdecimal() else None


def migrate(connection: Connection) -> None:
    """Make a library of an earlier format one of this."""
    SCHEMA.upgrade(connection)


def properties(connection: Connection) -> dict[str, str]:
    """Of the library: `id`, `encoder`, `revision`, the number of commits so far, and `calibration`.

    The last one, JSON, is there once the chance of scores was fitted to the library itself, whose id it
    says.
    """
    rows = connection.execute(sql.select(PROPERTIES.c.name, PROPERTIES.c.value))
    return {row.name: row.value for row in rows}


def require_whole(connection: Connection) -> None:
    """Raises LibraryError unless the library has the properties that one has, and no others."""
    held = properties(connection).keys()
    for name in sorted(_NEEDED - held):
        raise _damaged(f"property {name!r} is missing")
    for name in sorted(held - _NEEDED - {"calibration"}, key=str):
        raise _damaged(f"property {name!r} is not known")
    revision(connection)


def set_calibration(connection: Connection, value: str | None) -> None:
    """Keep the library's own calibration, in place of an earlier one; None: keep none."""
    connection.execute(sql.delete(PROPERTIES).where(PROPERTIES.c.name == "calibration"))
    if value is not None:
        connection.execute(sql.insert(PROPERTIES), [{"name": "calibration", "value": value}])


def revision(connection: Connection) -> int:
    """Number of commits so far: it names the state that a reader sees.

    Raises LibraryError if it is damaged.
    """
    query = sql.select(PROPERTIES.c.value).where(PROPERTIES.c.name == "revision")
    said = connection.execute(query).scalar_one_or_none()
    if said is None or not _REVISION.fullmatch(str(said)):
        raise _damaged(f"revision is {said!r}")
    return int(said)


def _damaged(how: str) -> LibraryError:
    return LibraryError(f"the library's catalogue is damaged: its {how}; restore it from a backup")


def next_revision(connection: Connection) -> None:
    """Count one more commit."""
    connection.execute(
        sql.update(PROPERTIES)
        .where(PROPERTIES.c.name == "revision")
        .values(value=str(revision(connection) + 1))
    )


class SegmentRow(NamedTuple):
    """What the catalogue knows of a segment: its embeddings, and the SHA-256 of its lists and its header."""

    number: int
    embeddings: int
    sha256: str
    header_sha256: str

    @property
    def written(self) -> Written:
        """Its files as they were written."""
        return Written(self.embeddings, self.sha256, self.header_sha256)


def segments(connection: Connection) -> list[SegmentRow]:
    """All segments, in order of making."""
    columns = [_segments.c[name] for name in SegmentRow._fields]
    rows = connection.execute(sql.select(*columns).order_by(_segments.c.number))
    return [SegmentRow(*row) for row in rows]


def changes(connection: Connection) -> dict[int, int]:
    """The revision at which each segment's placements last changed, by its number, ascending.

    Where that is the same in two states, `placements` of that segment are.
    """
    query = sql.select(_segments.c.number, _segments.c.changed).order_by(_segments.c.number)
    return {row.number: row.changed for row in connection.execute(query)}


def _note_changes(connection: Connection, ids: Iterable[str]) -> None:
    """That the placements of segments change with this commit: those of recordings present."""
    segment = sql.select(_recordings.c.segment).where(
        _recordings.c.id == sql.bindparam("of"), _present
    )
    query = sql.update(_segments).where(_segments.c.number == segment.scalar_subquery())
    query = query.values(changed=revision(connection) + 1)
    connection.execute(query, [{"of": id} for id in ids])


def next_segment(connection: Connection) -> int:
    """A number that no segment had before."""
    newest = connection.execute(sql.select(sql.func.max(_segments.c.number))).scalar_one()
    return max(newest or 0, revision(connection)) + 1


def add_segment(connection: Connection, row: SegmentRow) -> None:
    """Name a segment file; from the commit on it is part of the library."""
    connection.execute(sql.insert(_segments).values(row._asdict()))


def remove_segments(connection: Connection, numbers: Iterable[int]) -> None:
    """Forget segments, and where in them removed recordings' codes were."""
    gone = [{"gone": number} for number in numbers]
    here = _recordings.c.segment == sql.bindparam("gone")
    connection.execute(sql.update(_recordings).where(here).values(segment=None), gone)
    here = _segments.c.number == sql.bindparam("gone")
    connection.execute(sql.delete(_segments).where(here), gone)


def add_recordings(connection: Connection, rows: Iterable[tuple[Placement, str]]) -> None:
    """Placements of new recordings, each with the SHA-256 of its codes."""
    newest = connection.execute(sql.select(sql.func.max(_recordings.c.number))).scalar_one()
    values = [
        {
            "number": number,
            **{field.name: getattr(placement.recording, field.name) for field in fields(Recording)},
            "codes_sha256": codes,
            "segment": placement.segment,
            "first": placement.first,
            "count": placement.count,
        }
        for number, (placement, codes) in enumerate(rows, start=(newest or 0) + 1)
    ]
    if values:
        connection.execute(sql.insert(_recordings), values)


def change_recording(connection: Connection, id: str, values: Mapping[str, str | None]) -> None:
    """Other values in columns of a recording that is present."""
    if values.keys() & _FINDABLE:
        _note_changes(connection, [id])
    connection.execute(
        sql.update(_recordings).where(_recordings.c.id == id, _present).values(dict(values))
    )


def remove_recordings(connection: Connection, ids: Collection[str], when: str) -> None:
    """Tombstones for recordings that are present."""
    _note_changes(connection, ids)
    query = sql.update(_recordings).where(_recordings.c.id == sql.bindparam("gone"), _present)
    connection.execute(query.values(removed_at=when), [{"gone": id} for id in ids])


@dataclass(frozen=True)
class Placements:
    """Recordings, column by column [shape=(recordings,) each]: their numbers and where codes lie."""

    number: NDArray[np.int64]
    segment: NDArray[np.int64]
    first: NDArray[np.int64]
    count: NDArray[np.int64]
    duration: NDArray[np.float64]  # seconds

    def where(self, segments: list[int]) -> "Placements":
        """Those in some segments only."""
        return self.take(np.flatnonzero(np.isin(self.segment, segments)))

    def take(self, places: NDArray[np.int64] | slice) -> "Placements":
        """Those at some places only."""
        return Placements(*(getattr(self, field.name)[places] for field in fields(self)))

    @classmethod
    def joined(cls, parts: Sequence["Placements"]) -> "Placements":
        """Those of several parts, of which there is at least one, one after the other."""
        return cls(
            *(
                np.concatenate([getattr(part, field.name) for part in parts])
                for field in fields(cls)
            )
        )


def placements(
    connection: Connection,
    day: str | None = None,
    owner: str | None = None,
    segments: Collection[int] | None = None,
) -> Placements:
    """Recordings present, in order of their codes.

    With `day`, those whose licence had not ended; with `owner`, those that this owner sees; with
    `segments`, those whose codes are in them.
    """
    columns = _recordings.c
    query = sql.select(columns.number, *_place_columns, columns.duration)
    query = query.where(_visible(owner))
    query = query.order_by(columns.segment, columns.first, columns.number)
    if day is not None:
        query = query.where(sql.or_(columns.licence_until.is_(None), columns.licence_until >= day))
    if segments is not None and len(segments) > AT_ONCE:
        some = sorted(segments)
        runs = (some[at : at + AT_ONCE] for at in range(0, len(some), AT_ONCE))
        return Placements.joined([placements(connection, day, owner, run) for run in runs])
    if segments is not None:
        query = query.where(columns.segment.in_(segments))
    # straight from the driver's rows: of a million, this takes a second
    kinds = [
        (field.name, "f8" if field.name == "duration" else "i8") for field in fields(Placements)
    ]
    cursor: Any = connection.execute(query).cursor
    rows = np.fromiter(cursor, kinds)
    return Placements(*(np.ascontiguousarray(rows[name]) for name, _ in kinds))


def move_recordings(
    connection: Connection, moved: Placements, segment: int, firsts: NDArray[np.int64]
) -> None:
    """Other places for recordings' codes: from `firsts` on in another segment."""
    query = sql.update(_recordings).where(_recordings.c.number == sql.bindparam("moved"))
    values = [
        {"moved": number, "segment": segment, "first": first}
        for number, first in zip(moved.number.tolist(), firsts.tolist(), strict=True)
    ]
    if values:
        connection.execute(query, values)


def sounds(connection: Connection) -> dict[str, str]:
    """Hash of the codes of every recording present, by id."""
    query = sql.select(_recordings.c.id, _recordings.c.codes_sha256).where(_present)
    return {row.id: row.codes_sha256 for row in connection.execute(query)}


def codes_hashes(connection: Connection, segment: int) -> Iterator[tuple[str, str, int, int]]:
    """Id, hash of the codes, first embedding and count of the recordings present in a segment."""
    columns = _recordings.c
    query = sql.select(columns.id, columns.codes_sha256, columns.first, columns.count)
    for row in connection.execute(query.where(_present, columns.segment == segment)):
        yield tuple(row)  # type: ignore[misc]


def recording(connection: Connection, id: str, owner: str | None = None) -> Recording | None:
    """The recording of that id, if it is present and `owner` sees it."""
    return _one(connection, _recordings.c.id == id, _visible(owner))


def numbered(connection: Connection, number: int) -> Recording:
    """The recording of that number, whether present or removed. Raises KeyError if there is none."""
    found = _one(connection, _recordings.c.number == number)
    if found is None:
        raise KeyError(number)
    return found


def number_of(connection: Connection, id: str) -> int:
    """The number of the recording present under that id. Raises KeyError if there is none."""
    query = sql.select(_recordings.c.number).where(_present, _recordings.c.id == id)
    number = connection.execute(query).scalar_one_or_none()
    if number is None:
        raise KeyError(id)
    return int(number)


def find(
    connection: Connection,
    *,
    sha256: str | None = None,
    source: str | None = None,
    owner: str | None = None,
) -> list[Recording]:
    """Recordings present whose file or whose file's name it is; those that `owner` sees, None sees all."""
    wanted = {"sha256": sha256, "source": source}
    query = sql.select(*_recording_columns).where(
        _visible(owner), *(_recordings.c[name] == value for name, value in wanted.items() if value)
    )
    rows = connection.execute(query.order_by(_recordings.c.number)).mappings()
    return [_recording(row) for row in rows]


# made once: to make it takes as long as to run it
_of_that_audio = sql.or_(
    _recordings.c.sha256 == sql.bindparam("file"),
    _recordings.c.codes_sha256 == sql.bindparam("codes"),
)
_like = (
    sql.select(*_recording_columns, _of_that_audio.label("same_audio"))
    .where(
        _present,
        # said again for the ids' index, which is of those present only
        sql.or_(sql.and_(_recordings.c.id == sql.bindparam("name"), _present), _of_that_audio),
    )
    .order_by(_recordings.c.number)
)


def like(
    connection: Connection, id: str, sha256: str, codes_sha256: str | None
) -> list[tuple[Recording, bool]]:
    """Recordings present of that id, that file or that sound as far as codes tell.

    With each, whether its audio is the same.
    """
    wanted = {"name": id, "file": sha256, "codes": codes_sha256}
    rows = connection.execute(_like, wanted).mappings()
    return [(_recording(row), bool(row["same_audio"])) for row in rows]


def page(
    connection: Connection,
    text: str | None,
    after: int,
    limit: int,
    *,
    rightsholder: str | None = None,
    expired_on: str | None = None,
    owner: str | None = None,
) -> tuple[list[Recording], int | None]:
    """Up to `limit` recordings in order of ingest, and where the next page begins (None: no more).

    text is looked for, without regard to case, in id, title, artist, work, ISRC, source and
    rightsholder; `after` is what the page before gave, 0 for the first one; `rightsholder` is the whole
    name; `expired_on` a day before which the licence had ended; `owner` who is asking, None sees all.
    """
    columns = _recordings.c
    query = sql.select(columns.number, *_recording_columns)
    query = query.where(_visible(owner), columns.number > after)
    if text:
        searched = ("id", "title", "artist", "work", "isrc", "source", "rightsholder")
        query = query.where(
            sql.or_(*(columns[name].icontains(text, autoescape=True) for name in searched))
        )
    if rightsholder is not None:
        query = query.where(columns.rightsholder == rightsholder)
    if expired_on is not None:
        query = query.where(columns.licence_until < expired_on)
    rows = connection.execute(query.order_by(columns.number).limit(limit + 1)).mappings().all()
    more = rows[limit - 1]["number"] if len(rows) > limit else None
    return [_recording(row) for row in rows[:limit]], more


def totals(connection: Connection) -> tuple[int, float, int]:
    """Recordings present, their seconds of audio and their embeddings."""
    columns = _recordings.c
    query = sql.select(
        sql.func.count(),
        sql.func.coalesce(sql.func.sum(columns.duration), 0.0),
        sql.func.coalesce(sql.func.sum(columns.count), 0),
    ).where(_present)
    count, seconds, embeddings = connection.execute(query).one()
    return count, seconds, embeddings


def _one(connection: Connection, *conditions: Any) -> Recording | None:
    row = connection.execute(sql.select(*_recording_columns).where(*conditions)).mappings().first()
    return _recording(row) if row else None


def _recording(row: Any) -> Recording:
    return Recording(**{field.name: row[field.name] for field in fields(Recording)})
