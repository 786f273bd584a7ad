"""`earmark reconcile` takes tables as people have them: each row is accounted for, in every spelling."""

import csv
import gzip
import json
import sqlite3
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fingerprint.encoder import Encoder
from fingerprint.fingerprint import REFERENCE_EVERY, Fingerprint
from fingerprint.isrc import isrcs_in, normalised
from index.library import Library
from index.recording import Metadata
from service.datasets import delimited
from service.datasets.durations import durations
from service.datasets.location import DatasetError
from service.scan.naming import connect
from service.scan.reconcile import reconcile
from service.scan.rows import load

LENGTH = 225.0  # seconds of each work
WORKS = 8


def isrc(number: int) -> str:
    return f"GBAYE00000{number:02}"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Works `Title 0` … by Ada Reed, of 225 s, with ISRCs."""
    encoder = Encoder.load()
    library = Library.open(tmp_path_factory.mktemp("tables") / "library", encoder, create=True)
    with library.writer() as writer:
        for number in range(WORKS):
            embeddings = np.random.default_rng(number).standard_normal((2, encoder.dimension))
            made = Fingerprint(
                encoder=encoder.id,
                source=f"{number}.flac",
                sha256=f"{number:064x}",
                duration=LENGTH,
                every=REFERENCE_EVERY,
                start=0.5,
                step=0.5,
                reach=0.5,
                embeddings=(embeddings / np.linalg.norm(embeddings, axis=1)[:, None]).astype("f4"),
            )
            names = {"title": f"Title {number}", "artist": "Ada Reed", "isrc": isrc(number)}
            rights = {"rightsholder": "Blue Label", "rights": "owned"}
            writer.add(made, Metadata(source=made.source, id=f"w{number}", **rights, **names))
    return library


def report(library: Library, metadata: Path, **more: Any) -> tuple[dict[str, Any], list, list]:
    """The summary, the rows and the errors that a report has."""
    folder = metadata.with_name(f"{metadata.name}-report")
    summary = reconcile(library, metadata, folder, **more)
    with (folder / "rows.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (folder / "errors.csv").open(newline="", encoding="utf-8") as file:
        errors = list(csv.DictReader(file))
    assert all(row["row"] and row["line"] for row in rows)
    told = summary["compared_rows"] + summary["unread_rows"] + summary["unnamed_rows"]
    assert told == summary["rows"]
    return summary, rows, errors


def read(
    database: duckdb.DuckDBPyConnection, metadata: Path
) -> tuple[list[tuple[Any, ...]], list[tuple[int, str]]]:
    """What a table's rows say: line, title, artist, ISRC, duration; and what is odd about some."""
    odd: list[tuple[int, str]] = []
    said = load(database, metadata, None, lambda *what: odd.append(what))
    rows = database.execute("SELECT line, title, artist, isrc, duration FROM said").fetchall()
    database.execute("DROP VIEW said")
    assert said.rows() == len(rows)
    return sorted(rows), odd


SPELLED = {
    LENGTH: (
        *("225", "225.0", "225,0", "3:45", "03:45", "0:03:45", "00:03:45", "00:03:45.000"),
        *("PT3M45S", "PT225S", "P0DT0H3M45S", "225 s", "225s", "225 sec", "225 seconds"),
        *("3m45s", "3 min 45 s", "3 minutes and 45 seconds", "225000", "225000 ms", "3'45\""),
        *("3′45″", "0 days 00:03:45", "2.25e2", "225,000", " 3:45 ", "３:４５"),
    ),
    6.02: ("6,02", "6.02", "6.02 s"),
    None: (
        "",
        "-",
        "n/a",
        "N/A",
        "unknown",
        "null",
        "?",
        "0",
        "0:00",
        "-5",
        "nan",
        "inf",
        "3:45 pm",
    ),
}


@pytest.mark.parametrize(
    ("text", "seconds"), [(text, value) for value, texts in SPELLED.items() for text in texts]
)
def test_durations_are_read_in_any_spelling(text: str, seconds: float | None) -> None:
    found = durations(text)
    assert (found[0] if found else None) == (seconds and pytest.approx(seconds))


def test_a_fraction_without_a_unit_may_be_minutes() -> None:
    assert durations("3.45") == [3.45, 225.0, pytest.approx(207.0)]
    assert durations("3.45", 60.0) == [pytest.approx(207.0)]
    assert durations("225000", 0.001) == [225.0]


ISRCS = (
    *("GBAYE0000001", "gbaye0000001", "GB-AYE-00-00001", "gb aye 00 00001", "GB–AYE–00–00001"),
    *("ISRC GB-AYE-00-00001", "ISRC: GBAYE0000001", "ISRCGBAYE0000001", "urn:isrc:GBAYE0000001"),
    *(
        " GBAYE0000001 ",
        "'GBAYE0000001",
        "\ufeffGBAYE0000001",
        "ＧＢＡＹＥ0000001",
        "GB.AYE.00.00001",
    ),
)


@pytest.mark.parametrize("text", ISRCS)
def test_an_isrc_is_stored_alike_in_any_spelling(text: str) -> None:
    assert normalised(text) == "GBAYE0000001"
    assert isrcs_in(f"x; {text}") == ["GBAYE0000001"]


@pytest.mark.parametrize("text", ["", "x", "GBAYE000001", "GBAYE00000012", "1BAYE0000001", "a; b"])
def test_what_is_no_isrc_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="GBAYE0000001"):
        normalised(text)


CODES = st.from_regex(r"[A-Z]{2}[A-Z0-9]{3}[0-9]{7}", fullmatch=True)


@settings(max_examples=5, deadline=None)
@given(st.lists(st.tuples(CODES, st.sampled_from(["-", " ", ".", "–", ""])), min_size=30))
def test_the_database_reads_isrcs_as_the_module_does(codes: list[tuple[str, str]]) -> None:
    texts = [
        f"isrc: {between.join((code[:2], code[2:5], code[5:7], code[7:])).lower()}; {code}"
        for code, between in codes
    ]
    with connect() as database:
        database.register("texts", pa.table({"text": texts}))
        found = database.execute("SELECT isrc_all(text) FROM texts").fetchall()
    assert [list(dict.fromkeys(each)) for (each,) in found] == list(map(isrcs_in, texts))


# A hundred and more made-up tables: how they are encoded, separated, quoted, named and ended.
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "utf-32")
SEPARATORS = (",", ";", "\t", "|")
HEADERS = (
    ("isrc", "title", "artist", "duration"),
    ("ISRC", "TITLE", "ARTIST", "DURATION"),
    ("ISRC Code", "Track Name", "Artist(s)", "Length"),
    ("external_ids.isrc", "name", "artists.0.name", "duration_ms"),
)
ENDS = ("\n", "\r\n", "\r")
GRID = list(product(ENCODINGS, SEPARATORS, HEADERS, ENDS))[::2]


def test_a_hundred_tables_of_all_spellings_lose_no_row(tmp_path: Path) -> None:
    assert len(GRID) >= 100
    database = connect()
    spellings = [text for texts in SPELLED.values() for text in texts if text.strip() == text]
    for number, (encoding, separator, header, end) in enumerate(GRID):
        rows = [
            (ISRCS[at % 4], f'Café {at}, "live"; part|{at}', "Ada Reed", text)
            for at, text in enumerate(spellings)
            if encoding != "latin-1" or text.isascii()
        ]
        path = tmp_path / f"{number}.csv"
        with path.open("w", encoding=encoding, newline="", errors="strict") as file:
            quoting = csv.QUOTE_ALL if number % 2 else csv.QUOTE_MINIMAL
            table = csv.writer(file, delimiter=separator, lineterminator=end, quoting=quoting)
            table.writerows([header, *rows])
        found, odd = read(database, path)
        at = f"table {number}: {encoding}, {separator!r}, {header}, {end!r}"
        said = [(isrc, title, artist, length) for _, title, artist, isrc, length in found]
        assert said == rows, at
        assert [row[0] for row in found] == list(range(2, len(rows) + 2)), at
        assert not odd, at


CELLS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0\r", exclude_categories=["Cs"]), max_size=12
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=30),
    part=st.integers(20, 400),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_what_csv_writes_is_read_wherever_blocks_end(
    rows: list[tuple[str, str]], part: int, quoting: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(delimited, "_PART", part)
    path = tmp_path / "table.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n", quoting=quoting).writerows([("title", "isrc"), *rows])
    layout = delimited.layout_of("title,isrc\n", "utf-8", len)
    table = delimited.Delimited(path, layout, [0, 1], 1, lambda *odd: None)
    found = [(row["c0"], row["c1"]) for batch in table.batches() for row in batch.to_pylist()]
    assert found == rows


def lines(path: Path, *rows: str, encoding: str = "utf-8") -> Path:
    path.write_bytes("\n".join(rows).encode(encoding) + b"\n")
    return path


@pytest.mark.parametrize("spelled", ["3:45", "00:03:45", "PT3M45S", "225 s", "n/a", "", "6,02"])
def test_rows_of_any_duration_are_compared_by_isrc(
    library: Library, tmp_path: Path, spelled: str
) -> None:
    said = f'"{spelled}"'
    rows = [f"{isrc(number)},Some title,{said}" for number in range(WORKS)]
    summary, found, errors = report(
        library, lines(tmp_path / "t.csv", "isrc,title,duration", *rows)
    )
    assert (summary["rows"], summary["matched_rows"], errors) == (WORKS, WORKS, [])
    assert {row["grade"] for row in found} == {"isrc"}


def test_ragged_rows_are_compared_and_named_by_line(library: Library, tmp_path: Path) -> None:
    path = lines(
        tmp_path / "ragged.csv",
        "isrc,title,duration",
        f"{isrc(0)},A,225",
        f"{isrc(1)},B,225,extra",
        f"{isrc(2)},C",
        f"Hello, Goodbye,{isrc(3)},225",
        f'{isrc(4)},"Heroes,225',
        f"{isrc(5)},D,225,,",
        "",
        f"{isrc(6)},E,225",
    )
    summary, found, errors = report(library, path)
    assert (summary["rows"], summary["matched_rows"], summary["odd_rows"]) == (7, 7, 3)
    assert [(it["line"], it["compared"], it["problem"]) for it in errors] == [
        ("3", "yes", "4 cells where the header has 3"),
        ("4", "yes", "2 cells where the header has 3"),
        ("5", "yes", "4 cells where the header has 3"),
    ]
    assert {row["recording"]: row["line"] for row in found}["w6"] == "9"


def test_rows_with_bytes_of_windows_are_read_and_counted(library: Library, tmp_path: Path) -> None:
    path = lines(tmp_path / "t.csv", "isrc,title", f"{isrc(0)},Café", "x,B", encoding="latin-1")
    path.write_bytes(path.read_bytes() + f"{isrc(1)},Été\n".encode())
    summary, found, _ = report(library, path)
    assert (summary["rows"], summary["rows_of_assumed_encoding"]) == (3, 1)
    assert [row["title"] for row in found] == ["Café", "Été"]
    cyrillic = lines(tmp_path / "k.csv", "isrc,title", f"{isrc(0)},Кино", encoding="cp1251")
    _, (row,), _ = report(library, cyrillic, encoding="cp1251")
    assert row["title"] == "Кино"
    with pytest.raises(DatasetError, match="no encoding of that name"):
        reconcile(library, cyrillic, tmp_path / "other", encoding="klingon")


def test_two_isrcs_in_a_cell_are_both_compared(library: Library, tmp_path: Path) -> None:
    many = " / ".join(map(isrc, range(3, 8)))
    cells = [f"{isrc(0)}; {isrc(1)}", f"US-RC1-76-07839 ISRC {isrc(2)}", many, "US-RC1-76-07839"]
    path = lines(tmp_path / "t.csv", "isrc", *cells)
    summary, found, _ = report(library, path)
    assert (summary["rows"], summary["matched_rows"]) == (4, 3)
    assert sorted(row["recording"] for row in found) == [f"w{number}" for number in range(WORKS)]


NEAR = {
    "turned round": ("", "Title 1", "Reed, Ada", "225", "near"),
    "one digit": ("GBAYE0000091", "Title 1", "", "225", "near"),
    "two digits swapped": ("GBAYE0000010", "Title 1", "", "225", "near"),
    "among others": ("", "Title 1", "Ada Reed & Bo Wind", "225", "near"),
    "first of several": ("", "Title 1", "Ada Reed; Bo Wind", "225", "name-and-length"),
    "second of several": ("", "Title 1", "Bo Wind; Ada Reed", "225", "name-and-length"),
    "another length": ("", "Title 1", "Reed, Ada", "300", None),
    "two digits off": ("GBAYE0000981", "Title 1", "", "225", None),
    "another artist": ("", "Title 1", "Bo Wind", "225", None),
    "another title": ("GBAYE0000091", "Title 9", "Ada Reed", "225", None),
    "minutes with a fraction": ("", "Title 1", "Ada Reed", "3.45", "name-and-length"),
}


def test_near_misses_are_a_grade_of_their_own(library: Library, tmp_path: Path) -> None:
    path = tmp_path / "near.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [("id", "isrc", "title", "artist", "duration")]
            + [(name, *cells[:4]) for name, cells in NEAR.items()]
        )
    summary, found, _ = report(library, path)
    assert {row["row"]: row["grade"] for row in found} == {
        name: cells[4] for name, cells in NEAR.items() if cells[4]
    }
    assert (summary["matched_rows"], summary["near_rows"]) == (3, 4)
    assert summary["rightsholders"] == {"Blue Label": {"recordings": 1, "rows": 3}}


def test_rows_that_name_nothing_or_are_no_json_are_told_by_line(
    library: Library, tmp_path: Path
) -> None:
    rows = [
        {"name": "x", "external_ids": {"isrc": isrc(1)}, "artists": [{"name": "Ada Reed"}]},
        {"name": "Title 2", "artists": [{"name": "Bo"}, {"name": "Ada Reed"}], "duration_ms": 2},
        {"name": "Title 3", "artists": ["Ada Reed"], "duration_ms": 225_000},
        {"name": "", "external_ids": {"isrc": "none"}},
    ]
    texts = [*map(json.dumps, rows), "{broken", "", "17"]
    path = lines(tmp_path / "t.jsonl", *texts)
    summary, found, errors = report(library, path)
    assert {row["recording"]: (row["line"], row["grade"]) for row in found} == {
        "w1": ("1", "isrc"),
        "w3": ("3", "name-and-length"),
    }
    assert [(it["line"], it["problem"]) for it in errors] == [
        ("4", "nothing to compare: it has no title, and 'none' is no ISRC"),
        ("5", "is no JSON"),
        ("7", "nothing to compare: it has no title and no ISRC"),
    ]
    whole = tmp_path / "t.json"
    whole.write_text(json.dumps({"tracks": rows}, indent=2))
    summary, found, _ = report(library, whole)
    assert (summary["rows"], [row["line"] for row in found]) == (4, ["1", "3"])


def test_nested_columns_of_parquet_are_read(library: Library, tmp_path: Path) -> None:
    rows = [
        {
            "Name": "Title 4",
            "external_ids": {"isrc": "ISRC gb-aye-00-00004", "upc": "1"},
            "artists": [{"name": "Bo Wind"}, {"name": "Ada Reed"}],
            "duration": "PT3M45S",
        }
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    _, (row,), _ = report(library, tmp_path / "t.parquet")
    assert (row["grade"], row["artist"], row["row"]) == ("isrc-and-name", "Bo Wind; Ada Reed", "1")
    assert row["duration"] == "225.0"


def test_a_list_of_isrcs_needs_no_header_and_titles_may_stand_above_one(
    library: Library, tmp_path: Path
) -> None:
    bare = lines(tmp_path / "bare.csv", *(isrc(number) for number in range(3)))
    assert report(library, bare)[0]["matched_rows"] == 3
    titled = lines(tmp_path / "titled.csv", "My report;;", "", "ISRC;Title;", f"{isrc(0)};A;")
    summary, (row,), _ = report(library, titled)
    assert (summary["rows"], row["line"]) == (1, "4")
    excel = lines(tmp_path / "excel.csv", "sep=;", "ISRC;Title", f"{isrc(0)};A")
    assert report(library, excel)[0]["matched_rows"] == 1


def test_what_comes_before_damage_is_read_and_the_damage_is_told(
    library: Library, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    rows = [f"{isrc(0)},{rng.bytes(200).hex()}" for _ in range(5000)]
    path = lines(tmp_path / "t.csv", "isrc,title", *rows)
    whole = gzip.compress(path.read_bytes())
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(whole[: len(whole) // 2])
    monkey = pytest.MonkeyPatch()
    monkey.setattr(delimited.blocks, "__defaults__", (2**16,))
    summary, _, errors = report(library, cut)
    monkey.undo()
    assert 1000 < summary["rows"] == summary["matched_rows"] < 5000
    assert "damaged" in summary["damage"] and "damaged" in errors[-1]["problem"]


# The release of 2025: its tables, made up.
SCHEMA = """
CREATE TABLE artists (rowid INTEGER PRIMARY KEY NOT NULL, id TEXT NOT NULL, fetched_at INTEGER NOT NULL,
    name TEXT NOT NULL, followers_total INTEGER NOT NULL, popularity INTEGER NOT NULL);
CREATE TABLE albums (rowid INTEGER PRIMARY KEY NOT NULL, id TEXT NOT NULL, fetched_at INTEGER NOT NULL,
    name TEXT NOT NULL, album_type TEXT NOT NULL, external_id_upc TEXT, label TEXT NOT NULL,
    release_date TEXT NOT NULL, total_tracks INTEGER NOT NULL);
CREATE TABLE artist_albums (artist_rowid INTEGER NOT NULL, album_rowid INTEGER NOT NULL,
    is_appears_on INTEGER NOT NULL, is_implicit_appears_on INTEGER NOT NULL, index_in_album INTEGER);
CREATE TABLE tracks (rowid INTEGER PRIMARY KEY NOT NULL, id TEXT NOT NULL, fetched_at INTEGER NOT NULL,
    name TEXT NOT NULL, preview_url TEXT, album_rowid INTEGER NOT NULL, track_number INTEGER NOT NULL,
    external_id_isrc TEXT, popularity INTEGER NOT NULL, disc_number INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL, explicit INTEGER NOT NULL);
"""
LINKS = "CREATE TABLE track_artists (track_rowid INTEGER NOT NULL, artist_rowid INTEGER NOT NULL);"
INDEX = "CREATE INDEX by_track ON track_artists (track_rowid);"
FILES = "CREATE TABLE track_files (track_id TEXT NOT NULL, filename TEXT, status TEXT NOT NULL);"
TRACKS = [
    # name, ISRC, ms, artists; the grade it gets
    ("Something else", isrc(0), 1000, ["Bo Wind"], "isrc"),
    ("Title 1", None, 224_000, ["Bo Wind", "Ada Reed"], "name-and-length"),
    ("Title 2", "GBAYE0000092", 224_000, ["Bo Wind"], "near"),
    ("Title 3", isrc(3), 225_000, ["Ada Reed"], "isrc-and-name"),
    ("Title 4", None, 225_000, ["Bo Wind"], None),
    ("Unknown", "USRC17607839", 225_000, ["Ada Reed"], None),
]


def make_release(folder: Path, tables: str, files: Path | None = None) -> Path:
    path = folder / "spotify_clean.sqlite3"
    with sqlite3.connect(path) as database:
        database.executescript(SCHEMA + tables)
        names = {"Ada Reed": 7, "Bo Wind": 9}
        for name, key in names.items():
            database.execute(
                "INSERT INTO artists VALUES (?, ?, 0, ?, 0, 0)", (key, f"a{key}", name)
            )
        for at, (name, code, length, artists, _) in enumerate(TRACKS):
            row = (100 + at, f"id{at}", name, at, code, length)
            database.execute("INSERT INTO tracks VALUES (?,?,0,?,NULL,?,1,?,0,1,?,0)", row)
            for artist in artists:
                if "track_artists" in tables:
                    link = (100 + at, names[artist])
                    database.execute("INSERT INTO track_artists VALUES (?, ?)", link)
                else:
                    link = (names[artist], at)
                    database.execute("INSERT INTO artist_albums VALUES (?, ?, 0, 0, 0)", link)
    database.close()
    if files is not None:
        with sqlite3.connect(files) as database:
            database.execute(FILES)
            database.execute("INSERT INTO track_files VALUES ('id3', 'a/3.ogg', 'ok')")
        database.close()
    return path


@pytest.mark.parametrize(
    "tables", [LINKS, LINKS + INDEX, ""], ids=["track_artists", "indexed", "artist_albums"]
)
def test_the_release_of_2025_is_read_as_it_is(
    library: Library, tmp_path: Path, tables: str
) -> None:
    summary, found, _ = report(library, make_release(tmp_path, tables))
    assert summary["rows"] == len(TRACKS)
    assert {row["row"]: row["grade"] for row in found} == {
        f"id{at}": track[4] for at, track in enumerate(TRACKS) if track[4]
    }
    assert {row["row"]: row["line"] for row in found}["id3"] == "103"


def test_files_of_a_release_may_be_in_another_database(library: Library, tmp_path: Path) -> None:
    folder = tmp_path / "release"
    folder.mkdir()
    make_release(folder, LINKS, folder / "spotify_clean_track_files.sqlite3")
    _, found, _ = report(library, folder)
    assert {row["row"]: row["file"] for row in found if row["file"]} == {"id3": "a/3.ogg"}


def test_texts_of_sqlite_that_are_no_utf_8_are_read(library: Library, tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE tracks (title TEXT, isrc TEXT, length TEXT)")
        database.execute(
            "INSERT INTO tracks VALUES (CAST(x'436166e9' AS TEXT), ?, '3:45')", (isrc(1),)
        )
        database.execute("INSERT INTO tracks VALUES (NULL, NULL, NULL)")
    database.close()
    summary, (row,), _ = report(library, path)
    assert (summary["rows"], row["title"], row["row"]) == (2, "Café", "1")


def as_is(path: Path) -> Path:
    return path


@pytest.mark.parametrize("name", ["empty.csv", "only.csv", "t.txt", "t.xlsx", "empty.jsonl"])
def test_what_has_no_names_is_refused_and_leaves_nothing(
    library: Library, tmp_path: Path, name: str, form: Callable[[Path], Path] = as_is
) -> None:
    path = form(tmp_path / name)
    path.write_text("colour,size\n1,2\n" if name == "only.csv" else "")
    with pytest.raises(DatasetError) as caught:
        reconcile(library, path, tmp_path / "report")
    assert "\n" not in str(caught.value) and not (tmp_path / "report").exists()
