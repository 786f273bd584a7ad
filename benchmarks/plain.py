"""The plainest question, asked of the real command: are MP3 clips of real works found at their place?

    python -m benchmarks.plain [--works 60] [--clips 200] [--absent 50]

Works of the report packages are ingested from their original files by `earmark ingest`; clips of 5 s at
random places, decoded from those files and encoded as MP3 at 64 kbit/s, are looked up by `earmark query`.
Absent clips are of packages that have no work in the library. An answer is at its place if the recording
is right and `reference_start` less `query_start` lies within 0.25 s of a place with the same audio, as
`benchmarks.truth` decides it (game music loops).
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import corpora
from benchmarks.codecs import write_clip
from benchmarks.corpora import Item
from benchmarks.truth import Cut, Truth, is_right
from fingerprint.audio import read_audio

SECONDS = 5.0
TOLERANCE = 0.25  # s
CODEC = "mp3-64"


@dataclass(frozen=True)
class Outcome:
    """Counts: clips of works in the library, of those found and found at their place; false alarms."""

    works: int
    clips: int
    recording_right: int
    place_right: int
    absent_clips: int
    absent_matches: int
    absent_reviews: int

    def __str__(self) -> str:
        return (
            f"{self.works} works, {self.clips} clips of {SECONDS:g} s as MP3 at 64 kbit/s:\n"
            f"  right recording first       {self.recording_right / self.clips:7.1%}\n"
            f"  and within {TOLERANCE:g} s of its place {self.place_right / self.clips:7.1%}\n"
            f"{self.absent_clips} clips of works that are not in the library:\n"
            f"  in tier match {self.absent_matches}, in tier review {self.absent_reviews}"
        )


def measure(
    works: Sequence[Item], others: Sequence[Item], clips: int, absent: int, seed: int, folder: Path
) -> Outcome:
    """Ingest `works`, look up clips of them and of `others`, count what is right."""
    rng = np.random.default_rng(seed)
    table = folder / "metadata.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "id", "title", "artist"])
        writer.writerows([str(w.audio()), w.id, w.title, w.artist] for w in works)
    ingested = _earmark(
        folder,
        *("ingest", *(str(work.audio()) for work in works), "--metadata", str(table)),
        *("--rightsholder", "Their composers", "--rights", "open-licence"),
    )
    truth = Truth()
    lengths = {}
    for work in works:
        samples = read_audio(work.audio())
        lengths[work.id] = len(samples) / 8000
        truth.add(work.id, samples)
    present = {line["recording"] for line in ingested}
    drawn = []
    for k in range(clips):
        work = works[int(rng.integers(len(works)))]
        offset = float(rng.uniform(0, lengths[work.id] - SECONDS))
        path = folder / f"clip-{k:04d}.mp3"
        write_clip(work.audio(), offset, SECONDS, path, CODEC)
        drawn.append((path, Cut(work.id, offset, SECONDS)))
    absent_paths = []
    for k in range(absent):
        other = others[int(rng.integers(len(others)))]
        offset = float(rng.uniform(0, other.duration - SECONDS - 1))
        path = folder / f"absent-{k:04d}.mp3"
        write_clip(other.audio(), offset, SECONDS, path, CODEC)
        absent_paths.append(path)
    answers = _earmark(folder, "query", *(str(path) for path, _ in drawn))
    places = truth.places([cut for _, cut in drawn])
    recording_right = place_right = 0
    for answer, places_of_clip in zip(answers, places, strict=True):
        if not answer["matches"]:
            continue
        best = answer["matches"][0]
        offset = best["reference_start"] - best["query_start"]
        recording_right += any(place.recording == best["recording"] for place in places_of_clip)
        place_right += is_right(places_of_clip, best["recording"], offset, TOLERANCE)
    tiers = [
        {match["tier"] for match in answer["matches"]}
        for answer in (_earmark(folder, "query", *map(str, absent_paths)) if absent else [])
    ]
    return Outcome(
        works=len(present),
        clips=clips,
        recording_right=recording_right,
        place_right=place_right,
        absent_clips=len(tiers),
        absent_matches=sum("match" in found for found in tiers),
        absent_reviews=sum("review" in found and "match" not in found for found in tiers),
    )


def _earmark(folder: Path, command: str, *arguments: str) -> list[dict[str, Any]]:
    """Run the real command with --json; its lines."""
    earmark = Path(sys.executable).with_name("earmark")
    done = subprocess.run(
        [earmark, "--library", folder / "library", command, *arguments, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise RuntimeError(f"earmark {command} ended with {done.returncode}: {done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--works", type=int, default=60)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--absent", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    items = corpora.items("report", ("music",))
    rng = np.random.default_rng(args.seed)
    packages = sorted({item.package for item in items})
    rng.shuffle(packages)
    # whole packages, the first third of them left out
    left_out = set(packages[: len(packages) // 3])
    inside = [item for item in items if item.package not in left_out]
    others = [item for item in items if item.package in left_out]
    if not inside or not others:
        sys.exit("no music: python -m benchmarks.corpora fetch --split report")
    works = [inside[i] for i in rng.permutation(len(inside))[: args.works]]
    with tempfile.TemporaryDirectory() as folder:
        print(measure(works, others, args.clips, args.absent, args.seed, Path(folder)))


if __name__ == "__main__":
    main()
