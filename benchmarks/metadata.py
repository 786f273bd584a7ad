"""How fast `earmark reconcile` goes through a dump's metadata, and whether it finds what is planted there.

    python -m benchmarks.metadata --folder FOLDER [--rows 256000000] [--recordings 10000] [--out FILE]

Rows are made by DuckDB from their numbers: ISRCs, titles of three words, artists, durations in
milliseconds, written as Parquet. One row in 100,000 is of a recording of the library, in turn: by its ISRC,
by its name in another spelling, and nearly (by another artist), which has to be left out. The time is told
beside that of a plain count of distinct ISRCs over the same file, which has to read one column.
"""

import json
import resource
import shutil
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
START = "from service.cli import main; main(prog_name='earmark')"
PLANTED_EVERY = 100_000
# Words of titles and artists: syllables in all combinations, so that names are many and seldom the same.
_SYLLABLES = (
    "['ba','re','mi','lo','su','ka','ne','ti','vo','da','shi','gra','pel','ton','rin','mar']"
)
_MACROS = f"""
CREATE MACRO word(h) AS {_SYLLABLES}[1 + (h % 16)::INT] || {_SYLLABLES}[1 + ((h // 16) % 16)::INT]
    || {_SYLLABLES}[1 + ((h // 256) % 16)::INT];
CREATE MACRO title(n) AS word(hash(n)) || ' ' || word(hash(n + 1000000007)) || ' ' || word(hash(n + 7));
CREATE MACRO artist(n) AS 'The ' || word(hash(n // 37 + 5)) || ' ' || word(hash(n // 37 + 99));
CREATE MACRO isrc(n) AS 'QZ' || 'AB' || (n // 10000000 % 10)::VARCHAR
    || lpad((n % 10000000)::VARCHAR, 7, '0');
"""
ISRC_OF_LIBRARY = "DEXX1{:07d}"


def make_rows(path: Path, rows: int, recordings: int) -> None:
    """Write the metadata, which is the same whenever it is made."""
    with duckdb.connect() as database:
        database.execute(_MACROS)
        database.execute(
            f"""
            COPY (
                SELECT n AS id,
                    CASE kind WHEN 1 THEN 'Tïtle No ' || work || ' (Remastered 2011)'
                        WHEN 2 THEN 'Title no ' || work ELSE title(n) END AS title,
                    CASE kind WHEN 1 THEN 'Ärtist ' || work || ' feat. Somebody'
                        WHEN 2 THEN 'Another ' || work ELSE artist(n) END AS artist,
                    CASE WHEN kind = 0 THEN 'DEXX1' || lpad(work::VARCHAR, 7, '0')
                        ELSE isrc(n) END AS isrc,
                    CASE WHEN kind BETWEEN 0 AND 2 THEN 211000
                        ELSE (60000 + hash(n + 3) % 300000)::BIGINT END AS duration_ms
                FROM (
                    SELECT range AS n, (range // {PLANTED_EVERY} // 3) % {recordings} AS work,
                        CASE WHEN range % {PLANTED_EVERY} = 77
                            THEN (range // {PLANTED_EVERY}) % 3 ELSE -1 END AS kind
                    FROM range({rows})
                )
            ) TO '{path}' (FORMAT parquet, COMPRESSION zstd)
            """
        )


def make_library(path: Path, recordings: int) -> None:
    """A library of recordings that have names and hardly any sound."""
    encoder = Encoder.load()
    rng = np.random.default_rng(1)
    library = Library.open(path, encoder, create=True)
    with library.writer() as writer:
        for number in range(recordings):
            embeddings = rng.standard_normal((2, encoder.dimension)).astype(np.float32)
            made = Fingerprint(
                encoder=encoder.id,
                source=f"{number}.flac",
                sha256=f"{number:064x}",
                duration=210.0,
                every=REFERENCE_EVERY,
                start=0.5,
                step=0.5,
                reach=0.5,
                embeddings=embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True),
            )
            metadata = Metadata(
                source=made.source,
                rightsholder="Blue Label",
                rights="owned",
                id=f"{number}",
                title=f"Title no {number}",
                artist=f"Artist {number}",
                isrc=ISRC_OF_LIBRARY.format(number),
            )
            writer.add(made, metadata)
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
@click.option("--out", type=click.Path(path_type=Path))
def main(folder: Path, rows: int, recordings: int, out: Path | None) -> None:
    """Exit status 1 if what was planted is not what was found."""
    folder.mkdir(parents=True, exist_ok=True)
    metadata, library, report = folder / f"{rows}.parquet", folder / "library", folder / "report"
    if not metadata.is_file():
        partial = folder / "partial.parquet"
        make_rows(partial, rows, recordings)
        partial.rename(metadata)
    if not library.is_dir():
        make_library(library, recordings)
    shutil.rmtree(report, ignore_errors=True)
    count = (
        f"import duckdb; duckdb.sql(\"SELECT count(DISTINCT isrc) FROM '{metadata}'\").fetchall()"
    )
    plain, plain_cpu, _ = timed([sys.executable, "-c", count])
    arguments = ["--library", str(library), "reconcile", str(metadata), "--report", str(report)]
    ours, ours_cpu, memory = timed([sys.executable, "-c", START, *arguments])
    summary = json.loads((report / "summary.json").read_text())
    planted = len(range(77, rows, PLANTED_EVERY))
    by_isrc, by_name = len(range(0, planted, 3)), len(range(1, planted, 3))
    found = {name: count for name, count in summary["grades"].items() if count}
    right = found == {name: n for name, n in (("isrc", by_isrc), ("name-and-length", by_name)) if n}
    result: dict[str, Any] = {
        "rows": rows,
        "recordings": recordings,
        "planted": {"by ISRC": by_isrc, "by name": by_name, "nearly": planted - by_isrc - by_name},
        "found": found,
        "as_planted": right,
        "rows_per_second": round(rows / ours),
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
