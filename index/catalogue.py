"""The catalogue: which recordings a library holds, whose they are, and where their codes lie.

One SQLite database in write-ahead mode, the only source of truth of a library: a segment file that no
row names does not exist. Statements are SQLAlchemy Core, so that another database can take its place.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import Connection, Engine

FORMAT = 1  # of the library folder; another number is another Earmark's
RIGHTS = ("owned", "licensed", "open-licence", "public-domain")


@dataclass(frozen=True)
class Metadata:
    """What is said of a recording by who supplied it. `rights` is one of RIGHTS."""

    source: str
    rightsholder: str
    rights: str
    id: str | None = None
    title: str | None = None
    artist: str | None = None
    isrc: str | None = None
    iswc: str | None = None
    work: str | None = None
    label: str | None = None
    release_date: str | None = None


@dataclass(frozen=True)
class Recording(Metadata):
    """A recording in the library. `duration` in seconds, `ingested_at` in ISO 8601 (UTC)."""

    id: str = ""  # never None once it is here

    sha256: str = ""
    duration: float = 0.0
    ingested_at: str = ""


@dataclass(frozen=True)
class Placement:
    """Where a recording's embeddings lie: `count` of them from `first` on in segment `segment`."""

    recording: Recording
    segment: str
    first: int
    count: int


_tables = sql.MetaData()
_properties = sql.Table(
    "properties",
    _tables,
    sql.Column("name", sql.Text, primary_key=True),
    sql.Column("value", sql.Text, nullable=False),
)
_segments = sql.Table(
    "segments",
    _tables,
    sql.Column("name", sql.Text, primary_key=True),
    sql.Column("embeddings", sql.Integer, nullable=False),
    sql.Column("sha256", sql.Text, nullable=False),
)
_recordings = sql.Table(
    "recordings",
    _tables,
    sql.Column("number", sql.Integer, primary_key=True),  # order of ingest
    *(
        sql.Column(field.name, sql.Text, nullable=field.default is None and field.name != "id")
        for field in fields(Metadata)
    ),
    sql.Column("sha256", sql.Text, nullable=False, index=True),
    sql.Column("codes_sha256", sql.Text, nullable=False, index=True),
    sql.Column("duration", sql.Float, nullable=False),
    sql.Column("ingested_at", sql.Text, nullable=False),
    sql.Column("segment", sql.ForeignKey("segments.name"), nullable=False),
    sql.Column("first", sql.Integer, nullable=False),
    sql.Column("count", sql.Integer, nullable=False),
    # a tombstone: the codes stay in their segment, the recording is gone
    sql.Column("removed_at", sql.Text),
)
sql.Index(
    "one_recording_per_id",
    _recordings.c.id,
    unique=True,
    sqlite_where=_recordings.c.removed_at.is_(None),
    postgresql_where=_recordings.c.removed_at.is_(None),
)
_present = _recordings.c.removed_at.is_(None)
_recording_columns = [_recordings.c[field.name] for field in fields(Recording)]


def connect(path: Path) -> Engine:
    """An engine on the catalogue file; every connection in write-ahead mode, commits synchronised."""
    engine = sql.create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})

    @sql.event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    return engine


def create(engine: Engine, encoder: str) -> None:
    """Tables of a new library, made for one encoder."""
    with engine.begin() as connection:
        _tables.create_all(connection)
        connection.execute(
            sql.insert(_properties),
            [
                {"name": "format", "value": str(FORMAT)},
                {"name": "encoder", "value": encoder},
                {"name": "revision", "value": "0"},
            ],
        )


def properties(connection: Connection) -> dict[str, str]:
    """Of the library: `format`, `encoder` and `revision`, the number of commits so far."""
    rows = connection.execute(sql.select(_properties.c.name, _properties.c.value))
    return {row.name: row.value for row in rows}


def revision(connection: Connection) -> int:
    """Number of commits so far: it names the state that a reader sees."""
    query = sql.select(_properties.c.value).where(_properties.c.name == "revision")
    return int(connection.execute(query).scalar_one())


def next_revision(connection: Connection) -> None:
    """Count one more commit."""
    connection.execute(
        sql.update(_properties)
        .where(_properties.c.name == "revision")
        .values(value=str(revision(connection) + 1))
    )


def segments(connection: Connection) -> dict[str, tuple[int, str]]:
    """Number of embeddings and SHA-256 of each segment file, by name, in order of making."""
    rows = connection.execute(sql.select(_segments).order_by(_segments.c.name))
    return {row.name: (row.embeddings, row.sha256) for row in rows}


def add_segment(connection: Connection, name: str, embeddings: int, sha256: str) -> None:
    """Name a segment file; from the commit on it is part of the library."""
    connection.execute(
        sql.insert(_segments).values(name=name, embeddings=embeddings, sha256=sha256)
    )


def add_recordings(connection: Connection, rows: Iterable[tuple[Placement, str]]) -> None:
    """Placements of new recordings, each with the SHA-256 of its codes."""
    values = [
        {
            **{field.name: getattr(placement.recording, field.name) for field in fields(Recording)},
            "codes_sha256": codes,
            "segment": placement.segment,
            "first": placement.first,
            "count": placement.count,
        }
        for placement, codes in rows
    ]
    if values:
        connection.execute(sql.insert(_recordings), values)


def remove_recordings(connection: Connection, ids: Iterable[str], when: str) -> None:
    """Tombstones for recordings that are present."""
    connection.execute(
        sql.update(_recordings)
        .where(_recordings.c.id.in_(list(ids)), _present)
        .values(removed_at=when)
    )


def placements(connection: Connection) -> list[Placement]:
    """All recordings present, in order of ingest."""
    query = sql.select(
        *_recording_columns, _recordings.c.segment, _recordings.c.first, _recordings.c.count
    )
    rows = connection.execute(query.where(_present).order_by(_recordings.c.number)).mappings()
    return [Placement(_recording(row), row["segment"], row["first"], row["count"]) for row in rows]


def recording(connection: Connection, id: str) -> Recording | None:
    """The recording of that id, if it is present."""
    query = sql.select(*_recording_columns).where(_recordings.c.id == id, _present)
    row = connection.execute(query).mappings().first()
    return _recording(row) if row else None


def find(
    connection: Connection, *, sha256: str | None = None, codes_sha256: str | None = None
) -> Recording | None:
    """A recording present whose file, or whose sound as far as codes tell, has that hash."""
    query = sql.select(*_recording_columns).where(_present)
    if sha256 is not None:
        query = query.where(_recordings.c.sha256 == sha256)
    if codes_sha256 is not None:
        query = query.where(_recordings.c.codes_sha256 == codes_sha256)
    row = connection.execute(query.order_by(_recordings.c.number)).mappings().first()
    return _recording(row) if row else None


def page(
    connection: Connection, text: str | None, after: int, limit: int
) -> tuple[list[Recording], int | None]:
    """Up to `limit` recordings in order of ingest, and where the next page begins (None: no more).

    text is looked for, without regard to case, in id, title, artist, work, ISRC, source and
    rightsholder; `after` is what the page before gave, 0 for the first one.
    """
    columns = _recordings.c
    query = sql.select(columns.number, *_recording_columns).where(_present, columns.number > after)
    if text:
        searched = ("id", "title", "artist", "work", "isrc", "source", "rightsholder")
        query = query.where(
            sql.or_(*(columns[name].icontains(text, autoescape=True) for name in searched))
        )
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


def _recording(row: Any) -> Recording:
    return Recording(**{field.name: row[field.name] for field in fields(Recording)})
