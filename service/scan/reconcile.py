"""Metadata alone against the catalogue: which rows of a dump name works of the library, and how surely.

    by ISRC, else by title and artist with a duration within 3 s

DuckDB reads the rows as a stream and joins them with the catalogue, which is in memory: memory does not
grow with the rows. Names are compared as `service.scan.naming` has it.
"""

import glob
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from index.library import Library
from service.datasets.labels import MILLISECONDS, columns, plain
from service.datasets.location import DatasetError
from service.presentation.templating import templates
from service.scan.journal import JournalError, JournalUnwritable
from service.scan.naming import SAME_LENGTH, add_catalogue, connect
from service.scan.report_tables import SUMMARY, TableWriter, report_in

# What a row's name is worth as evidence, strongest first.
GRADES = {
    "isrc-and-name": "the same ISRC, title and artist",
    "isrc": "the same ISRC under another name",
    "name-and-length": f"the same title and artist, durations within {SAME_LENGTH:g} s",
    "name": "the same title and artist, of a duration that is not told",
}
ROWS = {
    "row": pa.string(),
    "title": pa.string(),
    "artist": pa.string(),
    "isrc": pa.string(),
    "duration": pa.float64(),
    "grade": pa.string(),
    "recording": pa.string(),
    "recording_title": pa.string(),
    "recording_artist": pa.string(),
    "recording_isrc": pa.string(),
    "recording_duration": pa.float64(),
    "rightsholder": pa.string(),
}
SHOWN = 500  # rows on the page
_CHUNK = 10_000  # rows fetched at once
_TABULAR = {
    ".parquet": "read_parquet($path)",
    ".csv": "read_csv($path, all_varchar = true, store_rejects = true)",
    ".tsv": "read_csv($path, all_varchar = true, store_rejects = true, delim = '\t')",
    ".jsonl": "read_json($path, format = 'newline_delimited', ignore_errors = true)",
    ".ndjson": "read_json($path, format = 'newline_delimited', ignore_errors = true)",
}
_SQLITE = (".sqlite", ".sqlite3", ".db")


def reconcile(library: Library, metadata: Path, folder: Path) -> dict[str, Any]:
    """Compare a file of metadata with a library's catalogue; writes the report, returns its summary.

    Raises DatasetError for metadata that cannot be read or names nothing, JournalError for a folder
    that is not empty, JournalUnwritable where the report cannot be written.
    """
    try:
        if folder.is_dir() and any(folder.iterdir()):
            raise JournalError(f"{folder}: is not empty; name another folder for the report")
    except OSError as error:
        raise JournalError(f"{folder}: cannot be read ({error.strerror})") from error
    try:
        if not metadata.is_file():
            raise DatasetError(f"{metadata}: no such file; name a file of metadata")
    except OSError as error:
        raise DatasetError(f"{metadata}: cannot be read ({error.strerror})") from error
    try:
        with connect() as database:
            add_catalogue(database, library.every_recording())
            rows = _load(database, metadata)
            try:
                return _write(database, rows, metadata, folder, library)
            except OSError as error:
                raise JournalUnwritable(
                    f"{folder}: cannot be written ({error.strerror})"
                ) from error
    except duckdb.Error as error:
        reason = str(error).strip().splitlines()[0]
        raise DatasetError(f"{metadata}: cannot be read as metadata ({reason})") from error


def _load(database: duckdb.DuckDBPyConnection, metadata: Path) -> int:
    """Make the view `said` of a file's rows; how many there are."""
    kind = metadata.name.lower().removesuffix(".gz").removesuffix(".zst")
    suffix = Path(kind).suffix
    if suffix in _SQLITE:
        names, types, count = _attach_sqlite(database, metadata)
        relation = "rows_of_sqlite"
    elif suffix in _TABULAR:
        # the name is this file's, not a pattern of several
        relation = _TABULAR[suffix].replace("$path", _quoted(glob.escape(str(metadata))))
        described = database.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
        names, types = [row[0] for row in described], {row[0]: row[1] for row in described}
        count = _one(database, f"SELECT count(*) FROM {relation}")
    else:
        known = ", ".join((*_TABULAR, *_SQLITE))
        raise DatasetError(f"{metadata}: is none of {known} (also .gz and .zst)")
    found = columns(names)
    if "isrc" not in found and "title" not in found:
        raise DatasetError(
            f"{metadata}: has no column of ISRCs or titles, only {', '.join(names[:20])}"
        )
    database.execute(
        f"""
        CREATE VIEW said AS SELECT
            {_text(found, types, "id")} AS row,
            {_text(found, types, "title")} AS title,
            {_text(found, types, "artist")} AS artist,
            {_text(found, types, "isrc")} AS isrc,
            {_seconds(found)} AS duration
        FROM {relation}
        """
    )
    return count


def _text(found: dict[str, str], types: dict[str, str], ours: str) -> str:
    """A column as text; of several artists, the first is the one that names agree on."""
    if ours not in found:
        return "NULL::VARCHAR"
    column = _name(found[ours])
    if types.get(found[ours], "").endswith("[]"):
        column = f"{column}[1]"
    return f"{column}::VARCHAR"


def _seconds(found: dict[str, str]) -> str:
    """The duration in seconds: milliseconds by the column's name, or for want of other sense."""
    if "duration" not in found:
        return "NULL::DOUBLE"
    value = f"try_cast({_name(found['duration'])} AS DOUBLE)"
    if plain(found["duration"]) == MILLISECONDS:
        return f"{value} / 1000"
    return f"CASE WHEN {value} > 36000 THEN {value} / 1000 ELSE {value} END"


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _attach_sqlite(
    database: duckdb.DuckDBPyConnection, metadata: Path
) -> tuple[list[str], dict[str, str], int]:
    """Register the rows of the table that names works; DuckDB's own reader is not part of its wheel."""
    connection = sqlite3.connect(
        f"{metadata.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False
    )
    try:
        tables = [
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        named = {
            table: [row[1] for row in connection.execute(f"PRAGMA table_info({_name(table)})")]
            for table in tables
        }
    except sqlite3.DatabaseError as error:
        connection.close()
        raise DatasetError(f"{metadata}: is no SQLite database ({error})") from error
    fit = [table for table, names in named.items() if {"isrc", "title"} & columns(names).keys()]
    if not fit:
        connection.close()
        raise DatasetError(f"{metadata}: no table has a column of ISRCs or titles")
    table = max(fit, key=lambda each: len(columns(named[each])))
    found = columns(named[table])
    (count,) = connection.execute(f"SELECT count(*) FROM {_name(table)}").fetchone()
    schema = pa.schema([(name, pa.string()) for name in found.values()])

    def batches() -> Iterator[pa.RecordBatch]:
        with closing(connection):
            wanted = ", ".join(map(_name, found.values()))
            cursor = connection.execute(f"SELECT {wanted} FROM {_name(table)}")
            while rows := cursor.fetchmany(_CHUNK):
                yield pa.record_batch(
                    [
                        pa.array([None if cell is None else str(cell) for cell in column]).cast(
                            pa.string()
                        )
                        for column in zip(*rows, strict=True)
                    ],
                    schema=schema,
                )

    database.register("rows_of_sqlite", pa.RecordBatchReader.from_batches(schema, batches()))
    return list(found.values()), {}, count


# One pass over all rows, which leaves few.
_CANDIDATES = """
CREATE TEMP TABLE candidates AS
SELECT *, isrc_key(isrc) AS code, title_key(title) AS name, artist_key(artist) AS by
FROM said
WHERE isrc_plain(isrc) IN (SELECT code FROM works WHERE code IS NOT NULL)
    OR title_key(title) IN (SELECT name FROM works WHERE name IS NOT NULL)
"""
_HITS = f"""
CREATE TEMP TABLE hits AS
SELECT row, said.title, said.artist, said.isrc, said.duration,
    CASE
        WHEN said.code = works.code AND said.name = works.name
            AND coalesce(said.by = works.by, true) THEN 'isrc-and-name'
        WHEN said.code = works.code THEN 'isrc'
        WHEN said.duration IS NULL THEN 'name'
        ELSE 'name-and-length'
    END AS grade,
    id AS recording, works.title AS recording_title, works.artist AS recording_artist,
    works.isrc AS recording_isrc, works.duration AS recording_duration, rightsholder
FROM candidates AS said JOIN works ON said.code = works.code
    OR (said.name = works.name AND said.by = works.by
        AND coalesce(abs(said.duration - works.duration) <= {SAME_LENGTH}, true))
"""


def _write(
    database: duckdb.DuckDBPyConnection,
    rows_said: int,
    metadata: Path,
    folder: Path,
    library: Library,
) -> dict[str, Any]:
    """Find the hits and write the report into a folder; returns the summary."""
    database.execute(_CANDIDATES)
    database.execute(_HITS)
    shown: list[dict[str, Any]] = []
    counts = dict.fromkeys(GRADES, 0)
    with report_in(folder) as partial:
        with TableWriter(partial, "rows", ROWS) as table:
            rows = database.execute(
                "SELECT * FROM hits ORDER BY list_position($order, grade), recording, row, title",
                {"order": list(GRADES)},
            )
            while some := rows.fetchmany(_CHUNK):
                for cells in some:
                    row = dict(zip(ROWS, cells, strict=True))
                    table.write(row)
                    counts[row["grade"]] += 1
                    if len(shown) < SHOWN:
                        shown.append(row)
        holders = database.execute(
            "SELECT rightsholder, count(DISTINCT recording), count(*) FROM hits GROUP BY 1 ORDER BY 1"
        ).fetchall()
        summary = {
            "rows": rows_said,
            "matched_rows": _one(
                database,
                "SELECT count(*) FROM (SELECT DISTINCT row, title, artist, isrc FROM hits)",
            ),
            "recordings": _one(database, "SELECT count(DISTINCT recording) FROM hits"),
            "grades": counts,
            "rightsholders": {
                name: {"recordings": works, "rows": rows} for name, works, rows in holders
            },
            "metadata": metadata.name,
            "snapshot": library.info()["snapshot"],
        }
        (partial / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n")
        page = templates().get_template("reconcile.html")
        text = page.render(summary=summary, shown=shown, grades=GRADES, limit=SHOWN)
        (partial / "report.html").write_text(text, encoding="utf-8")
    return summary


def _one(database: duckdb.DuckDBPyConnection, query: str) -> int:
    row = database.execute(query).fetchone()
    assert row is not None
    return int(row[0])
