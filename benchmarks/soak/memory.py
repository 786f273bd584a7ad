"""How much memory a scan takes: over many short files, and over long ones.

    python -m benchmarks.soak.memory --folder FOLDER [--files 10000] [--seconds 2] [--hours 1 --hours 10]

The short files are 2 s of noise each, all different, in a .tar.zst, so that they pass through the process
that reads as well; a long one is one WAV file. Under half a second a file is too short to be recognised, and
becomes a line of errors.csv. One worker, against a library of recordings that are noise.
What the scan's processes have resident together, memory that they share counted once (Pss, Linux only),
is looked at every second, or less often where looking takes more than a twentieth of the time.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import soundfile
import zstandard

from benchmarks.metadata import make_library
from fingerprint.audio import SAMPLE_RATE
from service.jobs.scan_jobs import files_heard
from service.scan.journal import FILE as JOURNAL

ROOT = Path(__file__).parents[2]
SOME_FAILED = 1  # status of a scan some of whose files could not be heard
AT = (0.1, 0.5, 1.0)  # shares of the short files at which the peak so far is told


def noise(number: int, seconds: float) -> np.ndarray:
    """Noise whose loudness and colour change, as bursts of 0.1 s; always the same."""
    rng = np.random.default_rng(number)
    bursts = np.repeat(rng.uniform(0.05, 0.3, int(10 * seconds) + 1), SAMPLE_RATE // 10)
    n = round(seconds * SAMPLE_RATE)
    return (bursts[:n] * np.convolve(rng.standard_normal(n), rng.standard_normal(8), "same")) / 3


def make_short(path: Path, files: int, seconds: float) -> None:
    """A .tar.zst of so many short files."""
    with (
        path.open("wb") as file,
        zstandard.ZstdCompressor(level=1).stream_writer(file) as packed,
        tarfile.open(fileobj=packed, mode="w|") as archive,
    ):
        for number in range(files):
            sound = io.BytesIO()
            soundfile.write(sound, noise(number, seconds), SAMPLE_RATE, format="WAV")
            info = tarfile.TarInfo(f"{number:06d}.wav")
            info.size = len(sound.getvalue())
            archive.addfile(info, io.BytesIO(sound.getvalue()))


def make_long(path: Path, hours: float) -> None:
    """A WAV file of so many hours, minutes of noise over and over."""
    minutes = [noise(number, 60.0) for number in range(10)]
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, "PCM_16", format="WAV") as file:
        for number in range(round(60 * hours)):
            file.write(minutes[number % len(minutes)])


def resident(root: int) -> int:
    """Bytes that a process and those it started have resident; what they share counts once."""
    total = 0
    for process in [root, *_started_by(root)]:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return 1024 * total


def _started_by(process: int) -> list[int]:
    try:
        tasks = [it / "children" for it in Path(f"/proc/{process}/task").iterdir()]
        children = [int(child) for task in tasks for child in task.read_text().split()]
    except OSError:
        return []
    return [*children, *(it for child in children for it in _started_by(child))]


def spent(process: int) -> float:
    """Seconds of CPU that a process has taken by itself."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Look(NamedTuple):
    """A scan at one moment: files heard, bytes resident, seconds of CPU of the process that reads."""

    files: int
    resident: int
    cpu: float


def scanned(library: Path, dataset: Path, report: Path) -> list[Look]:
    """Looks at a scan of a dataset."""
    shutil.rmtree(report, ignore_errors=True)
    command = ["--library", library, "scan", dataset, "--report", report, "--jobs", 1]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "earmark", *map(str, command)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "EARMARK_MAX_DURATION": "24h", "EARMARK_MAX_SIZE": "16GiB"},
    )
    looks = []
    while process.poll() is None:
        began = time.monotonic()
        heard = files_heard(report / JOURNAL)
        looks.append(Look(heard, resident(process.pid), spent(process.pid)))
        time.sleep(max(1.0, 20 * (time.monotonic() - began)))
    if process.returncode not in (0, SOME_FAILED):
        raise SystemExit(f"the scan of {dataset} ended with status {process.returncode}")
    return looks


@click.command(help="Measure how much memory a scan takes.")
@click.option("--folder", type=click.Path(path_type=Path), required=True)
@click.option("--files", default=10_000, show_default=True, help="Short ones; 0 for none.")
@click.option("--seconds", default=2.0, show_default=True, help="Of a short file.")
@click.option(
    "--hours", type=float, multiple=True, default=(1.0, 10.0), show_default=True, help="0: none."
)
@click.option("--out", type=click.Path(path_type=Path))
def main(
    folder: Path, files: int, seconds: float, hours: tuple[float, ...], out: Path | None
) -> None:
    """Peak memory in MB, by number of files and by hours."""
    folder.mkdir(parents=True, exist_ok=True)
    library, report = folder / "library", folder / "report"
    if not library.is_dir():
        make_library(library, 1000)
    result: dict[str, Any] = {"files": {}, "hours": {}}
    if files:
        short = folder / f"short-{files}-{seconds:g}s.tar.zst"
        if not short.is_file():
            make_short(short.with_suffix(".partial"), files, seconds)
            short.with_suffix(".partial").rename(short)
        looks = scanned(library, short, report)
        for share in AT:
            peak = max(look.resident for look in looks if look.files <= share * files)
            result["files"][round(share * files)] = round(peak / 1e6)
        result["files"]["with the report"] = round(max(it.resident for it in looks) / 1e6)
        first = next(look for look in looks if look.files > AT[0] * files)
        last = max((look for look in looks if look.files < files), key=lambda it: it.files)
        reading = (last.cpu - first.cpu) / max(1, last.files - first.files)
        result["milliseconds of the process that reads, for a file"] = round(1000 * reading, 2)
        result["bytes of the report, for a file"] = round(
            sum(file.stat().st_size for file in report.iterdir()) / files
        )
    for long in filter(None, hours):
        path = folder / f"{long:g}h" / "long.wav"
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            make_long(path, long)
        looks = scanned(library, path.parent, report)
        result["hours"][f"{long:g}"] = round(max(it.resident for it in looks) / 1e6)
    click.echo(json.dumps(result, indent=1))
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
