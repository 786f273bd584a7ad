"""A batch of clips, few of them known: whether the stated false-discovery rate holds the true one.

    python -m benchmarks.experiments.batch --folder FOLDER [--clips 2000] [--known 0.1] [--split report]

Half of the packages of a split are the library. Clips of 5 to 30 s, half of them damaged, are of the
library's works (the known ones) and of the other half's, and are scanned as `earmark scan` does it. A match
is wrong if it names no recording that is the clip's, or the same one in another file. What is in FOLDER
already, library and clips, is used again; the report of the scan is left there.
"""

import argparse
import csv
import json
import shutil
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from benchmarks import corpora
from benchmarks.calibration.calibrate import background_of, stretch
from benchmarks.damage import degrade
from benchmarks.reliability import halves
from fingerprint.audio import SAMPLE_RATE, Limits, read_audio
from fingerprint.cores import available_cores
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import REFERENCE_EVERY, fingerprint
from index.database import BESIDE
from index.library import Library
from index.recording import Metadata
from index.significance import MATCH, REVIEW
from service.scan.journal import Journal
from service.scan.report import write_report
from service.scan.runner import scan
from service.scan.worker import Task

SHORTEST, LONGEST = 5.0, 30.0  # s


def fill(path: Path, items: list[corpora.Item], encoder: Encoder) -> None:
    """A library of these works."""
    library = Library.open(path, encoder, create=True)
    with library.writer() as writer:
        for item in tqdm(items, "library", disable=None):
            try:
                made = fingerprint(item.audio(), encoder, REFERENCE_EVERY, name=item.member)
            except AudioError:
                continue
            writer.add(made, Metadata(item.member, item.package, "open-licence", id=item.id))
    library.close()


def make_clips(
    folder: Path, known: list[corpora.Item], unknown: list[corpora.Item], count: int, share: float
) -> None:
    """So many clips, in files named after their work."""
    rng = np.random.default_rng(1)
    drawn = sorted(
        (items[rng.integers(len(items))].id, number)
        for number in range(count)
        for items in [known if number < share * count else unknown]
    )
    by_id = {item.id: item for item in known + unknown}
    background = background_of([read_audio(item.audio()) for item in corpora.items("tune")[::4]])
    beside = folder.with_suffix(".partial")
    beside.mkdir(parents=True, exist_ok=True)
    work, samples = "", np.empty(0, np.float32)
    for id, number in tqdm(drawn, "clips", disable=None):
        if id != work:
            work, samples = id, read_audio(by_id[id].audio())
        rng = np.random.default_rng([2, number])
        clip = stretch(rng, samples, int(rng.uniform(SHORTEST, LONGEST) * SAMPLE_RATE))
        if number % 2:
            clip = degrade(rng, clip, background)
        clip = clip / max(1.0, float(np.abs(clip).max()))
        soundfile.write(beside / f"{id}-{number}.flac", clip, SAMPLE_RATE)
    beside.rename(folder)


def judge(report: Path, known: list[corpora.Item], unknown: list[corpora.Item]) -> dict[str, Any]:
    """Known and unknown clips that were matched, and those of them whose matches are all wrong."""
    group = {item.id: item.group for item in known + unknown}
    named: dict[str, set[str]] = {}
    with (report / "segments.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["tier"] == "match":
                named.setdefault(row["file"], set()).add(group[row["recording"]])
    wrong = [file for file, groups in named.items() if group[file.partition("-")[0]] not in groups]
    return {"matched": len(named), "wrong": sorted(wrong)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--known", type=float, default=0.1, help="share of them")
    parser.add_argument("--split", choices=("tune", "report"), default="report")
    args = parser.parse_args()
    encoder = Encoder.load()
    items = corpora.items(args.split)
    half = halves(items)
    known = [item for item in items if half[item.package] == 0]
    unknown = [item for item in items if half[item.package] == 1]
    library, clips, report = (args.folder / name for name in ("library", "clips", "report"))
    if not library.is_dir():
        fill(library, known, encoder)
    if not clips.is_dir():
        make_clips(clips, known, unknown, args.clips, args.known)
    shutil.rmtree(report, ignore_errors=True)
    task = Task(
        library=library,
        database=BESIDE,
        limits=Limits(),
        max_e_value=REVIEW,
        gate=MATCH,
        hypotheses=0,
        probe=False,
        thorough=False,
        evidence=None,
    )
    with closing(Journal.open(report, {"dataset": "clips"}, {}, resume=False)) as journal:
        scan(clips, journal, task, jobs=available_cores(), stop=Event())
        with closing(Library.open(library, encoder)) as opened:
            summary = write_report(journal, report, opened)
    judged = judge(report, known, unknown)
    stated = summary["estimated_false_discovery_rate"]
    low, high = summary["false_discovery_rate_interval"]
    true = len(judged["wrong"]) / judged["matched"] if judged["matched"] else 0.0
    print(
        f"{summary['files']} clips, {judged['matched']} matched, {len(judged['wrong'])} of them wrongly: "
        f"a rate of {true:.4f}; stated {stated:.2g} ({low:.4f} to {high:.4f}), by {summary['decoys']} "
        f"decoys, {summary['matched_decoys']} of them matched"
    )
    for file in judged["wrong"]:
        print(f"wrong: {file}")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
