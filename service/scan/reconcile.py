"""Metadata alone against the catalogue: which rows of a dump name works of the library, and how surely.

    by ISRC, else by title and artist with a duration within 3 s

DuckDB reads the rows as a stream and joins them with the catalogue, which is in memory: memory does not
grow with the rows. Names are compared as `service.scan.naming` has it.
"""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import duckdb
import pyarrow as pa

from index.library import Library
from service.datasets.durations import durations
from service.datasets.location import DatasetError
from service.presentation.templating import templates
from service.scan.journal import JournalError, JournalUnwritable
from service.scan.naming import SAME_LENGTH, add_catalogue, connect
from service.scan.report_tables import SUMMARY, TableWriter, report_in
from service.scan.rows import Said, load

# What a row's name is worth as evidence, strongest first.
GRADES = {
    "isrc-and-name": "the same ISRC, title and artist",
    "isrc": "the same ISRC under another name",
    "name-and-length": f"the same title and artist, durations within {SAME_LENGTH:g} s",
    "name": "the same title and artist, without a duration in the row",
    "near": (
        "nearly the same, to be looked at: the same title, and one character of the ISRC differs, or the "
        f"artist's words are in another order or among others, durations within {SAME_LENGTH:g} s"
    ),
}
NEAR = "near"  # the grade that does not count as a match
ROWS = {
    "row": pa.string(),
    "line": pa.int64(),
    "title": pa.string(),
    "artist": pa.string(),
    "isrc": pa.string(),
    "duration": pa.float64(),
    "file": pa.string(),
    "grade": pa.string(),
    "recording": pa.string(),
    "recording_title": pa.string(),
    "recording_artist": pa.string(),
    "recording_isrc": pa.string(),
    "recording_duration": pa.float64(),
    "rightsholder": pa.string(),
}
ERRORS = "errors.csv"
SHOWN = 500  # rows on the page
_CHUNK = 10_000  # rows fetched at once


class _Errors:
    """Writes errors.csv: the rows that are odd or could not be read or compared, by their line."""

    def __init__(self, file: TextIO, metadata: Path) -> None:
        self._csv = csv.writer(file)
        self._csv.writerow(["file", "line", "compared", "problem"])
        self._metadata = metadata.name
        self.odd = 0

    def write(self, line: int | None, problem: str, *, compared: bool = False) -> None:
        """One row; `compared` if it counts all the same."""
        self._csv.writerow([self._metadata, line, "yes" if compared else "no", problem])

    def is_odd(self, line: int, problem: str) -> None:
        """A row that is odd and compared all the same."""
        self.odd += 1
        self.write(line, problem, compared=True)


def reconcile(
    library: Library, metadata: Path, folder: Path, *, encoding: str | None = None
) -> dict[str, Any]:
    """Compare a file of metadata with a library's catalogue; writes the report, returns its summary.

    encoding : the codec of a text file, where it is neither UTF-8 nor UTF-16

    Raises DatasetError for metadata that cannot be read or names nothing, JournalError for a folder
    that is not empty, JournalUnwritable where the report cannot be written.
    """
    try:
        if folder.is_dir() and any(folder.iterdir()):
            raise JournalError(f"{folder}: is not empty; name another folder for the report")
    except OSError as error:
        raise JournalError(f"{folder}: cannot be read ({error.strerror})") from error
    try:
        if not metadata.exists():
            raise DatasetError(f"{metadata}: no such file; name a file of metadata")
    except OSError as error:
        raise DatasetError(f"{metadata}: cannot be read ({error.strerror})") from error
    try:
        with connect() as database:
            add_catalogue(database, library.every_recording())
            late: list[_Errors] = []
            said = load(database, metadata, encoding, lambda *odd: late[0].is_odd(*odd))
            try:
                with report_in(folder) as partial, _errors(partial, metadata) as errors:
                    late.append(errors)
                    return _write(database, said, metadata, partial, library, errors)
            except OSError as error:
                raise JournalUnwritable(
                    f"{folder}: cannot be written ({error.strerror})"
                ) from error
    except duckdb.Error as error:
        reason = str(error).strip().splitlines()[0]
        raise DatasetError(f"{metadata}: cannot be read as metadata ({reason})") from error


@contextmanager
def _errors(folder: Path, metadata: Path) -> Iterator[_Errors]:
    with (folder / ERRORS).open("w", encoding="utf-8", newline="") as file:
        yield _Errors(file, metadata)


# One pass over all rows, which leaves few. A row without a name is left too, to be told of.
_CANDIDATES = """
CREATE TEMP TABLE candidates AS
SELECT * FROM said
WHERE isrc_first(isrc) IN (SELECT code FROM works WHERE code IS NOT NULL)
    OR title_key(title) IN (SELECT name FROM works WHERE name IS NOT NULL)
    OR isrc_second(isrc) IN (SELECT code FROM works WHERE code IS NOT NULL)
    OR isrc_many(isrc)
    OR (is_nameless(title) AND isrc_key(isrc) IS NULL)
"""
_NAMED = """
CREATE TEMP TABLE named AS
SELECT line, coalesce(nullif(id, ''), line::VARCHAR) AS row, title, artist, isrc, readings,
    isrc_all(isrc) AS codes, title_key(title) AS name,
    nullif(list_filter(
        list_transform(
            list_prepend(artist, string_split(artist, '; ')), lambda each: artist_key(each)
        ),
        lambda each: each IS NOT NULL
    ), []) AS artists,
    words(artist_key(artist)) AS words
FROM (SELECT * REPLACE (nullif(artist, '') AS artist) FROM candidates)
    LEFT JOIN lengths USING (duration)
WHERE NOT broken AND NOT (is_nameless(title) AND isrc_key(isrc) IS NULL)
"""
_HITS = f"""
CREATE TEMP TABLE hits AS
WITH pairs AS (
    SELECT said.line, works.id FROM (SELECT line, unnest(codes) AS code FROM named) AS said
        JOIN works USING (code)
    UNION
    SELECT said.line, works.id FROM named AS said JOIN works USING (name)
),
compared AS (
    SELECT said.*, works.id AS recording, works.title AS recording_title,
        works.artist AS recording_artist, works.isrc AS recording_isrc,
        works.duration AS recording_duration, rightsholder,
        list_contains(codes, code) AS same_code,
        len(list_filter(codes, lambda each: isrc_nearly(each, code))) > 0 AS near_code,
        said.name = works.name AS same_title,
        CASE WHEN works.by IS NOT NULL THEN list_contains(artists, works.by) END AS same_artist,
        list_has_all(said.words, works.words) OR list_has_all(works.words, said.words)
            AS near_artist,
        list_min(list_transform(readings, lambda each: abs(each - works.duration))) AS gap
    FROM pairs JOIN named AS said USING (line) JOIN works ON works.id = pairs.id
)
SELECT row, line, title, artist, isrc,
    list_filter(readings, lambda each: abs(each - recording_duration) = gap)[1] AS duration,
    NULL::VARCHAR AS file,
    CASE
        WHEN same_code AND same_title AND coalesce(same_artist, true) THEN 'isrc-and-name'
        WHEN same_code THEN 'isrc'
        WHEN same_title AND same_artist AND gap IS NULL THEN 'name'
        WHEN same_title AND same_artist AND gap <= {SAME_LENGTH} THEN 'name-and-length'
        WHEN same_title AND near_code THEN 'near'
        WHEN same_title AND near_artist AND coalesce(gap <= {SAME_LENGTH}, true) THEN 'near'
    END AS grade,
    recording, recording_title, recording_artist, recording_isrc, recording_duration, rightsholder
FROM compared WHERE grade IS NOT NULL
"""


def _find(database: duckdb.DuckDBPyConnection, said: Said) -> None:
    """Make the tables `candidates` and `hits`."""
    database.execute(_CANDIDATES)
    release = said.release
    if release is not None and release.lacks_artists:
        found = release.artists(*_keys(database, "SELECT line, id FROM candidates", said))
        _fill(database, "candidates", "artist", found)
    texts = [
        text
        for (text,) in database.execute(
            "SELECT DISTINCT duration FROM candidates WHERE duration IS NOT NULL"
        ).fetchall()
    ]
    readings = [durations(text, said.unit) or None for text in texts]
    lengths = pa.table(
        {
            "duration": pa.array(texts, pa.string()),
            "readings": pa.array(readings, pa.list_(pa.float64())),
        }
    )
    database.register("lengths", lengths)
    database.execute(_NAMED)
    database.execute(_HITS)
    if release is not None:
        files = release.files(*_keys(database, "SELECT line, row FROM hits", said))
        if files is not None:
            _fill(database, "hits", "file", files)


def _keys(
    database: duckdb.DuckDBPyConnection, query: str, said: Said
) -> tuple[list[int], list[str]]:
    """The lines and the ids of rows."""
    rows = database.execute(query).fetchall()
    return [line for line, _ in rows], [id for _, id in rows]


def _fill(database: duckdb.DuckDBPyConnection, table: str, column: str, found: pa.Table) -> None:
    """Put what was looked up, by `line` or `id`, into a column."""
    database.register("found", found)
    key = found.column_names[0]
    own = "row" if key == "id" and table == "hits" else key
    database.execute(
        f"UPDATE {table} SET {column} = found.{column} FROM found WHERE {table}.{own} = found.{key}"
    )
    database.unregister("found")


def _tell_unread(database: duckdb.DuckDBPyConnection, errors: _Errors) -> tuple[int, int]:
    """Write the rows that could not be read and those that name nothing; how many of each."""
    counts = {True: 0, False: 0}
    rows = database.execute(
        """
        SELECT line, broken, isrc FROM candidates
        WHERE broken OR (is_nameless(title) AND isrc_key(isrc) IS NULL) ORDER BY line
        """
    )
    while some := rows.fetchmany(_CHUNK):
        for line, broken, isrc in some:
            counts[broken] += 1
            empty = (
                f"it has no title, and {isrc!r} is no ISRC"
                if isrc
                else "it has no title and no ISRC"
            )
            errors.write(line, "is no JSON" if broken else f"nothing to compare: {empty}")
    return counts[True], counts[False]


def _write(
    database: duckdb.DuckDBPyConnection,
    said: Said,
    metadata: Path,
    folder: Path,
    library: Library,
    errors: _Errors,
) -> dict[str, Any]:
    """Find the hits and write the report into a folder; returns the summary."""
    _find(database, said)
    unread, unnamed = _tell_unread(database, errors)
    if damage := said.damage():
        errors.write(None, f"{metadata.name}: {damage}")
    shown: list[dict[str, Any]] = []
    counts = dict.fromkeys(GRADES, 0)
    with TableWriter(folder, "rows", ROWS) as table:
        rows = database.execute(
            "SELECT * FROM hits ORDER BY list_position($order, grade), recording, line",
            {"order": list(GRADES)},
        )
        while some := rows.fetchmany(_CHUNK):
            for cells in some:
                row = dict(zip(ROWS, cells, strict=True))
                table.write(row)
                counts[row["grade"]] += 1
                if len(shown) < SHOWN:
                    shown.append(row)
    matched = f"SELECT count(DISTINCT line) FROM hits WHERE grade <> '{NEAR}'"
    holders = database.execute(
        "SELECT rightsholder, count(DISTINCT recording), count(DISTINCT line) FROM hits "
        f"WHERE grade <> '{NEAR}' GROUP BY 1 ORDER BY 1"
    ).fetchall()
    summary = {
        "rows": said.rows(),
        "compared_rows": said.rows() - unread - unnamed,
        "matched_rows": _one(database, matched),
        "near_rows": _one(database, "SELECT count(DISTINCT line) FROM hits")
        - _one(database, matched),
        "unread_rows": unread,
        "unnamed_rows": unnamed,
        "odd_rows": errors.odd,
        "rows_of_assumed_encoding": said.assumed(),
        "damage": damage,
        "recordings": _one(
            database, f"SELECT count(DISTINCT recording) FROM hits WHERE grade <> '{NEAR}'"
        ),
        "grades": counts,
        "rightsholders": {
            name: {"recordings": works, "rows": rows} for name, works, rows in holders
        },
        "columns": dict(said.columns),
        "metadata": metadata.name,
        "snapshot": library.info()["snapshot"],
    }
    (folder / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n")
    page = templates().get_template("reconcile.html")
    text = page.render(summary=summary, shown=shown, grades=GRADES, limit=SHOWN)
    (folder / "report.html").write_text(text, encoding="utf-8")
    return summary


def _one(database: duckdb.DuckDBPyConnection, query: str) -> int:
    row = database.execute(query).fetchone()
    assert row is not None
    return int(row[0])
