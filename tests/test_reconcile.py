"""`earmark reconcile`: which rows of metadata name works of the library, and how surely."""

import csv
import gzip
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from command import Earmark

from service.scan.naming import connect

# title, artist, ISRC, duration: what the row is, and the grade it must get
ROWS: list[tuple[str | None, str | None, str | None, float | None, str | None]] = [
    ("Señor Sol", "The Días", "USRC17607839", 20.0, "isrc-and-name"),
    ("something else", "nobody", "us-rc1-76-07839", 20.0, "isrc"),
    ("SENOR SOL (Remastered 2011)", "Dias", None, 21.5, "name-and-length"),
    ("Señor Sol - 2011 Remaster", "Días feat. Ana", None, None, "name"),
    ("Señor Sol", "The Días", None, 29.0, None),  # another length: another recording
    ("Señor Sol", "Other People", None, 20.0, None),
    ("Señor Solo", "The Días", None, 20.0, None),
    ("unrelated", "nobody", "GBAYE0000001", 20.0, None),
    (None, None, None, None, None),
    ('(Señor) Sol\'s "quoted", line\nbreak', "x", "bad", 1.0, None),
]
KEYS = ("title", "artist", "isrc", "duration")


@pytest.fixture
def named(earmark: Earmark, tmp_path: Path) -> Earmark:
    """A library in which song-0 is Señor Sol by The Días."""
    (id,) = [row["id"] for row in earmark.lines("list") if row["source"] == "song-0.flac"]
    with (tmp_path / "names.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "title", "artist", "isrc"])
        table.writerow([id, "Señor Sol", "The Días", "USRC17607839"])
    earmark("change", tmp_path / "names.csv")
    return earmark


def dictionaries() -> list[dict[str, Any]]:
    return [dict(zip(KEYS, row[:4], strict=True)) | {"id": str(n)} for n, row in enumerate(ROWS)]


def as_parquet(folder: Path) -> Path:
    rows = [
        {
            "track_id": row["id"],
            "Track Name": row["title"],
            "artists": row["artist"] and [row["artist"], "Second"],
            "isrc": row["isrc"],
            "duration_ms": row["duration"] and int(1000 * row["duration"]),
        }
        for row in dictionaries()
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    return folder / "rows.parquet"


def as_csv(folder: Path) -> Path:
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, ["id", *KEYS])
        table.writeheader()
        table.writerows(dictionaries())
    return folder / "rows.csv"


def as_csv_gz(folder: Path) -> Path:
    path = folder / "rows.csv.gz"
    path.write_bytes(gzip.compress(as_csv(folder).read_bytes()))
    return path


def as_jsonl_zst(folder: Path) -> Path:
    lines = "".join(json.dumps(row) + "\n" for row in dictionaries())
    path = folder / "rows.jsonl.zst"
    path.write_bytes(zstandard.compress((lines + "{broken\n").encode()))
    return path


def as_sqlite(folder: Path) -> Path:
    with sqlite3.connect(folder / "rows.sqlite") as connection:
        connection.execute("CREATE TABLE other (x)")
        connection.execute("CREATE TABLE tracks (id, title, artist, isrc, duration REAL)")
        connection.executemany(
            "INSERT INTO tracks VALUES (:id, :title, :artist, :isrc, :duration)", dictionaries()
        )
    connection.close()
    return folder / "rows.sqlite"


@pytest.mark.parametrize(
    "form",
    [as_parquet, as_csv, as_csv_gz, as_jsonl_zst, as_sqlite],
    ids=lambda it: it.__name__,
)
def test_rows_are_graded_whatever_they_come_in(
    form: Callable[[Path], Path], named: Earmark, tmp_path: Path
) -> None:
    broken = form is as_jsonl_zst
    path, report = form(tmp_path), tmp_path / "report"
    (summary,) = named.lines("reconcile", path, "--report", report, status=int(broken))
    with (tmp_path / "report" / "rows.csv").open(newline="") as file:
        graded = {row["row"]: row["grade"] for row in csv.DictReader(file)}
    assert graded == {str(n): row[4] for n, row in enumerate(ROWS) if row[4]}
    assert summary["matched_rows"] == 4 and summary["recordings"] == 1
    assert summary["rows"] == len(ROWS) + broken
    assert (summary["unread_rows"], summary["unnamed_rows"]) == (broken, 1)
    assert summary["compared_rows"] == len(ROWS) - 1
    grades = dict.fromkeys(["isrc-and-name", "isrc", "name-and-length", "name"], 1)
    assert summary["grades"] == grades | {"near": 0}
    assert summary == json.loads((tmp_path / "report" / "summary.json").read_text())
    table = pq.read_table(tmp_path / "report" / "rows.parquet").to_pylist()
    assert {row["row"]: row["grade"] for row in table} == graded
    assert "Señor Sol" in (tmp_path / "report" / "report.html").read_text()


@pytest.mark.parametrize(
    ("name", "data", "complaint"),
    [
        ("rows.txt", b"title\nx\n", "is none of"),
        ("rows.parquet", b"PAR1", "cannot be read"),
        ("rows.sqlite", b"no database at all, but longer than a header is" * 10, "SQLite"),
        ("rows.csv", b"colour,size\nred,1\n", "no column of ISRCs or titles"),
        ("rows.jsonl.zst", b"not zstandard", "cannot be read"),
    ],
)
def test_what_is_no_metadata_is_one_line(
    name: str, data: bytes, complaint: str, named: Earmark, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    done = named("reconcile", tmp_path / name, "--report", tmp_path / "report", status=2)
    assert complaint in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "report").exists()


def test_a_report_is_not_written_over(named: Earmark, tmp_path: Path) -> None:
    rows = as_csv(tmp_path)
    named("reconcile", rows, "--report", tmp_path / "report")
    done = named("reconcile", rows, "--report", tmp_path / "report", status=2)
    assert "not empty" in done.stderr
    done = named("reconcile", tmp_path / "gone.csv", "--report", tmp_path / "other", status=2)
    assert "no such file" in done.stderr


NAMES = [
    *("The Días feat. x", "don't stop", "Señor Sol", "abc(def)ghi x", " x", "Æon flux", "The"),
    *("the the", "The (feat. X)", "The ft X", "abc (x)def", "(I Can) fly", "???", "The, Beatles"),
    *("The - Remastered 2011", "abc, feat. z", "ft X", "İstanbul x", "e\u0301a b", "ß b", "нет"),
    *("abc\u0301d", "２０ songs", "theory", "[x]", "", "abc/def", "The  sun", "\ttab"),
]


def test_plain_names_have_the_keys_that_all_the_rules_would_give_them() -> None:
    with connect() as database:
        names = pa.table({"name": NAMES})
        database.register("names", names)
        keys = database.execute(
            """
            SELECT title_key(name), title_in_full(name), artist_key(name), artist_in_full(name),
                is_plain(strip_accents(lower(name)))
            FROM names
            """
        ).fetchall()
    assert all((row[0], row[2]) == (row[1], row[3]) for row in keys)
    assert 5 < sum(row[4] for row in keys) < len(keys) - 5


def test_a_name_that_looks_like_a_pattern_is_one_file(named: Earmark, tmp_path: Path) -> None:
    rows = "title,isrc\nsomething,USRC17607839\n"
    pattern = tmp_path / "tracks[1]*.csv"
    pattern.write_text(rows)
    (tmp_path / "tracks1.csv").write_text(rows + "another,\n")
    (summary,) = named.lines("reconcile", pattern, "--report", tmp_path / "report")
    assert (summary["rows"], summary["matched_rows"]) == (1, 1)


def test_names_too_long_for_a_file_are_one_line(named: Earmark, tmp_path: Path) -> None:
    good = tmp_path / "good.csv"
    good.write_text("title\nsomething\n")
    for metadata, report in (("x" * 300 + ".csv", "report"), (good, "y" * 300)):
        done = named("reconcile", metadata, "--report", report, status=2)
        assert "name too long" in done.stderr.lower() and done.stderr.count("\n") == 1
