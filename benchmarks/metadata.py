"""How fast `earmark reconcile` goes through a dump's metadata, and whether it finds what is planted there.

    python -m benchmarks.metadata --folder FOLDER [--rows 256000000] [--recordings 10000] [--form csv]

Rows are made by DuckDB from their numbers: ISRCs, titles of three words of which the first are as unequally
frequent as in real titles, artists, durations in milliseconds, written as Parquet, CSV or SQLite (tables of
the release of 2025); the library's names are of the same words. One row in 100,000 is of a recording of the
library, in turn: by its ISRC, with hyphens and in lower case; by its name in another spelling, 2 s longer; by
another artist or 5 s longer, which has to be left out; under an ISRC of one other digit, which is a near
miss. The time is given beside that of a plain count of the rows that have a title, an artist, an ISRC and a
duration, which reads the same columns: DuckDB's, or SQLite's own.
"""

import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import duckdb
import numpy as np

from fingerprint.encoder import Encoder
from fingerprint.fingerprint import REFERENCE_EVERY, Fingerprint
from index.library import Library
from index.recording import Metadata

ROOT = Path(__file__).parents[1]
PLANTED_EVERY = 100_000
KINDS = 5  # of planted rows: two that are to be found, two that are not, a near miss
FORMS = ("parquet", "csv", "sqlite")
# Words of titles and artists: three syllables. The first word of a name is the most frequent one in one of
# eight, as "the" or "love" are.
_SYLLABLES = (
    "['ba','re','mi','lo','su','ka','ne','ti','vo','da','shi','gra','pel','ton','rin','mar']"
)
_MACROS = f"""
CREATE MACRO word(n) AS {_SYLLABLES}[1 + (n % 16)::INT] || {_SYLLABLES}[1 + (n // 16 % 16)::INT]
    || {_SYLLABLES}[1 + (n // 256 % 16)::INT];
CREATE MACRO first_word(h) AS word(floor(4096 * pow((h % 1000003) / 1000003.0, 4))::INT);
CREATE MACRO title(n) AS
    first_word(hash(n)) || ' ' || word(hash(n + 1000000007)) || ' ' || word(hash(n + 7));
CREATE MACRO artist(n) AS 'The ' || first_word(hash(n // 37 + 5)) || ' ' || word(hash(n // 37 + 99));
CREATE MACRO isrc(n) AS 'QZAB' || (n // 10000000 % 10)::VARCHAR
    || lpad((n % 10000000)::VARCHAR, 7, '0');
CREATE MACRO work_title(work) AS title(work + 1000000000000);
CREATE MACRO work_artist(work) AS artist(37 * work + 1000000000000);
CREATE MACRO written(code) AS
    lower(code[:2] || '-' || code[3:5] || '-' || code[6:7] || '-' || code[8:]);
CREATE MACRO work_isrc(work) AS 'DEXX1' || lpad(work::VARCHAR, 7, '0');
"""
SECONDS = 210  # of every recording


def make_rows(path: Path, rows: int, recordings: int) -> None:
    """Write the metadata, which is the same whenever it is made."""
    with duckdb.connect() as database:
        database.execute(_MACROS)
        database.execute(
            f"""
            COPY (
                SELECT n AS id,
                    CASE kind WHEN -1 THEN title(n) WHEN 0 THEN title(n)
                        WHEN 1 THEN upper(work_title(work)) || ' (Remastered 2011)'
                        ELSE work_title(work) END AS title,
                    CASE kind WHEN -1 THEN artist(n) WHEN 0 THEN artist(n) WHEN 2 THEN artist(n)
                        WHEN 1 THEN replace(work_artist(work), 'a', 'á') || ' feat. Somebody'
                        ELSE work_artist(work) END AS artist,
                    CASE kind WHEN 0 THEN written(work_isrc(work))
                        WHEN 4 THEN work_isrc(work + 1000000)
                        ELSE isrc(n) END AS isrc,
                    1000 * CASE kind WHEN -1 THEN 60 + hash(n + 3) % 300
                        WHEN 0 THEN 60 + hash(n + 3) % 300
                        WHEN 1 THEN {SECONDS + 2} WHEN 2 THEN {SECONDS} ELSE {SECONDS + 5}
                        END::INTEGER AS duration_ms
                FROM (
                    SELECT range AS n, (range // {PLANTED_EVERY} // {KINDS}) % {recordings} AS work,
                        CASE WHEN range % {PLANTED_EVERY} = 77
                            THEN (range // {PLANTED_EVERY}) % {KINDS} ELSE -1 END AS kind
                    FROM range({rows})
                )
            ) TO '{path}' (FORMAT parquet, COMPRESSION zstd)
            """
        )


def make_form(rows: Path, form: str) -> Path:
    """The same rows as CSV, or in the SQLite tables of the release, beside the Parquet file."""
    path = rows.with_suffix(f".{form}")
    if path.is_file():
        return path
    partial = path.with_name(f"partial.{form}")
    partial.unlink(missing_ok=True)
    with duckdb.connect() as database:
        if form == "csv":
            database.execute(f"COPY (FROM '{rows}') TO '{partial}' (HEADER)")
        else:
            with sqlite3.connect(partial) as made:
                made.executescript(
                    """
                    CREATE TABLE tracks (rowid INTEGER PRIMARY KEY, id TEXT, name TEXT,
                        external_id_isrc TEXT, duration_ms INTEGER);
                    CREATE TABLE artists (rowid INTEGER PRIMARY KEY, name TEXT);
                    CREATE TABLE track_artists (track_rowid INTEGER, artist_rowid INTEGER);
                    """
                )
                result = database.execute(
                    f"SELECT id, title, isrc, duration_ms, artist FROM '{rows}'"
                )
                artists: dict[str, int] = {}
                while some := result.fetchmany(100_000):
                    made.executemany(
                        "INSERT INTO tracks VALUES (?1, 'id' || ?1, ?2, ?3, ?4)",
                        (it[:4] for it in some),
                    )
                    links = [(it[0], artists.setdefault(it[4], len(artists))) for it in some]
                    made.executemany("INSERT INTO track_artists VALUES (?, ?)", links)
                named = ((key, name) for name, key in artists.items())
                made.executemany("INSERT INTO artists VALUES (?, ?)", named)
    return partial.rename(path)


def make_library(path: Path, recordings: int) -> None:
    """A library of recordings that have names and hardly any sound."""
    with duckdb.connect() as database:
        database.execute(_MACROS)
        names = database.execute(
            "SELECT work_title(range), work_artist(range), work_isrc(range) "
            f"FROM range({recordings}) ORDER BY range"
        ).fetchall()
    encoder = Encoder.load()
    rng = np.random.default_rng(1)
    library = Library.open(path, encoder, create=True)
    with library.writer() as writer:
        for number, (title, artist, isrc) in enumerate(names):
            embeddings = rng.standard_normal((2, encoder.dimension)).astype(np.float32)
            made = Fingerprint(
                encoder=encoder.id,
                source=f"{number}.flac",
                sha256=f"{number:064x}",
                duration=float(SECONDS),
                every=REFERENCE_EVERY,
                start=0.5,
                step=0.5,
                reach=0.5,
                embeddings=embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True),
            )
            about = Metadata(
                source=made.source,
                rightsholder="Blue Label",
                rights="owned",
                id=f"{number}",
                title=title,
                artist=artist,
                isrc=isrc,
            )
            writer.add(made, about)
    library.close()


def timed(command: list[str]) -> tuple[float, float, int]:
    """Seconds by the clock and of CPU that a command takes, and its peak memory in bytes."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - began, cpu, after.ru_maxrss * 1024


@click.command(help="Measure `earmark reconcile` on rows made for it.")
@click.option("--folder", type=click.Path(path_type=Path), required=True)
@click.option("--rows", default=256_000_000, show_default=True)
@click.option("--recordings", default=10_000, show_default=True)
@click.option("--form", type=click.Choice(FORMS), default="parquet", show_default=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(folder: Path, rows: int, recordings: int, form: str, out: Path | None) -> None:
    """Exit status 1 if what was planted is not what was found."""
    folder.mkdir(parents=True, exist_ok=True)
    metadata, library, report = folder / f"{rows}.parquet", folder / "library", folder / "report"
    if not metadata.is_file():
        partial = folder / "partial.parquet"
        make_rows(partial, rows, recordings)
        partial.rename(metadata)
    if not library.is_dir():
        make_library(library, recordings)
    if form != "parquet":
        metadata = make_form(metadata, form)
    shutil.rmtree(report, ignore_errors=True)
    # lengths, because comparisons alone are answered from the file's statistics
    named = "length(title) > 0 AND length(artist) > 0 AND length(isrc) > 0 AND duration_ms > 0"
    query = f"SELECT count(*) FROM '{metadata}' WHERE {named}"
    count = f"import duckdb; duckdb.sql({query!r}).fetchall()"
    if form == "sqlite":
        query = (
            "SELECT count(*) FROM tracks WHERE length(name) > 0 AND length(external_id_isrc) > 0 "
            "AND duration_ms > 0"
        )
        count = f"import sqlite3; sqlite3.connect({str(metadata)!r}).execute({query!r}).fetchall()"
    plain, plain_cpu, _ = timed([sys.executable, "-c", count])
    arguments = ["--library", str(library), "reconcile", str(metadata), "--report", str(report)]
    ours, ours_cpu, memory = timed([sys.executable, "-P", "-m", "earmark", *arguments])
    summary = json.loads((report / "summary.json").read_text())
    planted = len(range(77, rows, PLANTED_EVERY))
    by_isrc, by_name, near = (len(range(kind, planted, KINDS)) for kind in (0, 1, 4))
    found = {name: count for name, count in summary["grades"].items() if count}
    right = found == {
        name: n
        for name, n in (("isrc", by_isrc), ("name-and-length", by_name), ("near", near))
        if n
    }
    result: dict[str, Any] = {
        "rows": rows,
        "recordings": recordings,
        "planted": {
            "by ISRC": by_isrc,
            "by name": by_name,
            "near": near,
            "others": planted - by_isrc - by_name - near,
        },
        "found": found,
        "as_planted": right,
        "cores": len(os.sched_getaffinity(0)),
        "form": form,
        "gb": round(metadata.stat().st_size / 1e9, 2),
        "rows_per_second": round(rows / ours),
        "rows_per_second_of_cpu": round(rows / ours_cpu),
        "rows_per_second_of_cpu_of_plain_count": round(rows / plain_cpu),
        "time_over_plain_count": round(ours / plain, 2),
        "cpu_over_plain_count": round(ours_cpu / plain_cpu, 2),
        "peak_memory_gb": round(memory / 1e9, 2),
    }
    click.echo(json.dumps(result, indent=1))
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(not right)


if __name__ == "__main__":
    main()
