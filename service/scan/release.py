"""Metadata in SQLite: a table of tracks, or tables that ids join, as the release of 2025 has them.

Of the release, `tracks` (name, external_id_isrc, duration_ms) is read once; its artists are looked up for
the rows that may be hits, through `track_artists` and `artists` (without these through `artist_albums`),
and files for the hits, through `track_files`. The tables may be in several files of one folder. Albums,
labels, UPCs, popularity, playlists and audio features are not used.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from service.datasets.delimited import decoded
from service.datasets.labels import columns, plain
from service.datasets.location import DatasetError

SUFFIXES = (".sqlite", ".sqlite3", ".db")
_ROWS = 20_000  # of a batch
_MOST_FILES = 10  # that SQLite attaches


@dataclass(frozen=True)
class _Table:
    """A table or view: the schema it is in, its columns, the file."""

    schema: str
    name: str
    columns: Sequence[str]
    has_rowid: bool
    file: Path

    def __str__(self) -> str:
        return f"{_name(self.schema)}.{_name(self.name)}"

    def column(self, *names: str) -> str | None:
        """The first of these columns that it has."""
        known = {plain(column): column for column in self.columns}
        return next((known[name] for name in names if name in known), None)

    def refers(self, to: str) -> tuple[str, bool] | None:
        """Its column that refers to a table of that kind, and whether it does so by rowid."""
        if column := self.column(f"{to}rowid"):
            return column, True
        column = self.column(f"{to}id")
        return (column, False) if column else None


class Release:
    """The rows of tracks in SQLite files, and what is looked up for some of them.

    columns : the names of the columns in use, by ours
    rows : how many rows have been read
    reader : the rows, as Arrow record batches; they can be read once
    """

    def __init__(self, metadata: Path) -> None:
        """Open a file or the files of a folder. Raises DatasetError where no table names works."""
        self._connection, tables = _open(metadata)
        named = [each for each in tables if {"isrc", "title"} & columns(list(each.columns)).keys()]
        tracks = [each for each in named if plain(each.name) in ("tracks", "track", "recordings")]
        if not named:
            raise DatasetError(f"{metadata}: no table has a column of ISRCs or titles")
        self._tracks = max(tracks or named, key=lambda each: len(columns(list(each.columns))))
        self._tables = {plain(each.name): each for each in reversed(tables)}
        self.columns: dict[str, str] = columns(list(self._tracks.columns))
        self.columns.pop("path", None)
        self.rows = 0
        names = list(self.columns)
        self._schema = pa.schema([("line", pa.int64()), *((name, pa.string()) for name in names)])
        self.reader = pa.RecordBatchReader.from_batches(self._schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        import adbc_driver_sqlite.dbapi as adbc

        # no cell is NULL: the driver takes a column's type from its first rows
        cells = [f"coalesce(CAST({_name(it)} AS TEXT), '')" for it in self.columns.values()]
        row = "rowid" if self._tracks.has_rowid else "0"
        query = f"SELECT {', '.join([row, *cells])} FROM {_name(self._tracks.name)}"
        with adbc.connect(_uri(self._tracks.file)) as connection, connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(_ROWS)})
            cursor.execute(query)
            for batch in cursor.fetch_record_batch():
                arrays = [_sound(column) for column in batch.columns[1:]]
                lines = batch.column(0)
                if not self._tracks.has_rowid:
                    lines = pa.array(range(self.rows + 1, self.rows + batch.num_rows + 1))
                self.rows += batch.num_rows
                yield pa.record_batch([lines, *arrays], schema=self._schema)

    @property
    def lacks_artists(self) -> bool:
        """Whether the tracks' artists are in other tables."""
        return "artist" not in self.columns and self._artists_query() is not None

    def artists(self, lines: Sequence[int], ids: Sequence[str]) -> pa.Table:
        """Artists of rows, by `line` or `id`: a table of these and of `artist`, with "; " between several."""
        query = self._artists_query()
        assert query is not None
        return self._looked_up(*query, lines, ids, "artist")

    def files(self, lines: Sequence[int], ids: Sequence[str]) -> pa.Table | None:
        """Files of rows, likewise; None where no table names files."""
        files = self._tables.get("trackfiles")
        reference = files.refers("track") if files else None
        path = columns(list(files.columns)).get("path") if files else None
        if files is None or reference is None or path is None:
            return None
        joined = _Join(
            str(files), _name(reference[0]), _indexed(self._connection, files, reference[0])
        )
        return self._looked_up(joined, "", f"l.{_name(path)}", reference[1], lines, ids, "file")

    def _artists_query(self) -> "tuple[_Join, str, str, bool] | None":
        """How artists are joined: with what, with what behind it, the name, and whether by rowid."""
        artists = self._tables.get("artists") or self._tables.get("artist")
        name = artists.column("name", "artistname", "artist", "title") if artists else None
        if artists is None or name is None:
            return None
        for link in (self._tables.get("trackartists"), self._tables.get("artisttracks")):
            to_track = link.refers("track") if link else None
            to_artist = link.refers("artist") if link else None
            if link is None or to_track is None or to_artist is None:
                continue
            indexed = _indexed(self._connection, link, to_track[0])
            joined = _Join(str(link), _name(to_track[0]), indexed)
            return joined, _joined_artist(artists, to_artist), f"a.{_name(name)}", to_track[1]
        by_rowid = self._tracks.has_rowid
        own = _name("rowid" if by_rowid else self.columns.get("id", "id"))
        tracks = _Join(str(self._tracks), own, True)
        if to_artist := self._tracks.refers("artist"):
            return tracks, _joined_artist(artists, to_artist), f"a.{_name(name)}", by_rowid
        albums = self._tables.get("artistalbums")
        to_album, from_album = self._tracks.refers("album"), albums and albums.refers("album")
        to_artist = albums.refers("artist") if albums else None
        if albums is None or to_album is None or not from_album or to_artist is None:
            return None
        guest = albums.column("isappearson")
        own_only = f" AND NOT b.{_name(guest)}" if guest else ""
        via = f"JOIN {albums} b ON b.{_name(from_album[0])} = l.{_name(to_album[0])}{own_only} "
        return (
            tracks,
            via + _joined_artist(artists, to_artist, "b"),
            f"a.{_name(name)}",
            by_rowid,
        )

    def _looked_up(
        self,
        joined: "_Join",
        behind: str,
        value: str,
        by_rowid: bool,
        lines: Sequence[int],
        ids: Sequence[str],
        ours: str,
    ) -> pa.Table:
        by_rowid = by_rowid or "id" not in self.columns
        cursor = self._connection.cursor()
        kind = "INTEGER PRIMARY KEY" if by_rowid else "TEXT PRIMARY KEY"
        cursor.execute("DROP TABLE IF EXISTS temp.wanted")
        cursor.execute(f"CREATE TEMP TABLE wanted (key {kind})")
        keys = ((key,) for key in (lines if by_rowid else ids))
        cursor.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", keys)
        on = f"l.{joined.column} = w.key"
        # without an index on the table it is read once, not once for each row
        pair = (
            f"temp.wanted w CROSS JOIN {joined.table} l ON {on}",
            f"{joined.table} l CROSS JOIN temp.wanted w ON {on}",
        )
        query = f"SELECT w.key, {value} FROM {pair[0] if joined.indexed else pair[1]} {behind}"
        found: dict[Any, list[str]] = {}
        for key, text in cursor.execute(query):
            if text is not None:
                found.setdefault(key, []).append(str(text))
        key_of = "line" if by_rowid else "id"
        return pa.table(
            {
                key_of: pa.array(list(found), pa.int64() if by_rowid else pa.string()),
                ours: pa.array(["; ".join(texts) for texts in found.values()], pa.string()),
            }
        )


@dataclass(frozen=True)
class _Join:
    """A table that is joined with the rows wanted, by which column, and whether that has an index."""

    table: str
    column: str
    indexed: bool


def _joined_artist(artists: _Table, reference: tuple[str, bool], through: str = "l") -> str:
    column, by_rowid = reference
    own = None if by_rowid else artists.column("id", "artistid")
    return f"JOIN {artists} a ON a.{_name(own or 'rowid')} = {through}.{_name(column)}"


def _open(metadata: Path) -> tuple[sqlite3.Connection, list[_Table]]:
    """A connection to all the files, and their tables. Raises DatasetError for what is no SQLite."""
    files = [metadata]
    if metadata.is_dir():
        files = sorted(it for it in metadata.iterdir() if it.suffix.lower() in SUFFIXES)
        if not files:
            raise DatasetError(f"{metadata}: has no SQLite file ({', '.join(SUFFIXES)})")
        if len(files) > _MOST_FILES:
            raise DatasetError(f"{metadata}: has more than {_MOST_FILES} SQLite files; name one")
    connection = sqlite3.connect(":memory:", uri=True, check_same_thread=False)
    connection.text_factory = lambda data: decoded(data)[0]
    connection.execute("PRAGMA temp_store = MEMORY")
    tables: list[_Table] = []
    for number, file in enumerate(files):
        schema = f"file{number}"
        try:
            connection.execute(f"ATTACH ? AS {schema}", (_uri(file),))
            tables += _tables(connection, schema, file)
        except sqlite3.DatabaseError as error:
            raise DatasetError(f"{file}: is no SQLite database ({error})") from error
    return connection, tables


def _tables(connection: sqlite3.Connection, schema: str, file: Path) -> Iterator[_Table]:
    made = connection.execute(
        f"SELECT name, type, sql FROM {schema}.sqlite_master WHERE type IN ('table', 'view')"
    ).fetchall()
    for name, kind, statement in made:
        rows = connection.execute(f"PRAGMA {schema}.table_info({_name(name)})")
        has_rowid = kind == "table" and "WITHOUTROWID" not in "".join(
            str(statement).upper().split()
        )
        yield _Table(schema, name, [row[1] for row in rows], has_rowid, file)


def _indexed(connection: sqlite3.Connection, table: _Table, column: str) -> bool:
    """Whether a table can be looked up by a column: the first of an index or of its primary key."""
    own = connection.execute(f"PRAGMA {table.schema}.table_info({_name(table.name)})")
    if any(row[1] == column and row[5] == 1 for row in own):
        return True
    for index in connection.execute(f"PRAGMA {table.schema}.index_list({_name(table.name)})"):
        first = connection.execute(
            f"PRAGMA {table.schema}.index_info({_name(index[1])})"
        ).fetchone()
        if first and first[2] == column:
            return True
    return False


def _sound(column: pa.Array) -> pa.Array:
    """A column of texts; those that are no UTF-8 are taken for Windows-1252."""
    try:
        column.validate(full=True)
        return column
    except pa.ArrowInvalid:
        texts: list[bytes] = column.view(pa.binary()).to_pylist()
        return pa.array([decoded(text)[0] for text in texts], pa.string())


def _uri(file: Path) -> str:
    return f"{file.resolve().as_uri()}?mode=ro"


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'
