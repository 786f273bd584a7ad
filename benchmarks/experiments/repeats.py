"""Are the other places of a recording with the same audio named, and no others?

    python -m benchmarks.experiments.repeats --folder FOLDER [--split report] [--clips 320] [--seed 1]

The unchanged clips of `python -m benchmarks.experiments.changes` (noise, MP3, telephone, room; 2 to 8 s),
kept in FOLDER, are looked up among all works of the split. Of those whose recording is named as a match, the
place stated and its `repeats` are laid beside all places of the recording with the same audio, as the clean
waveforms tell (`benchmarks.truth`: a correlation of 0.9), for several shares that a place must have of the
likeness at the best.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks import corpora
from benchmarks.calibration.calibrate import library_of, works_of
from benchmarks.experiments.changes import Clip, clips
from benchmarks.truth import Cut, Truth
from fingerprint.encoder import Encoder
from index import repeats
from index.query_context import Question
from index.search import search
from index.significance import REVIEW, Calibration
from index.snapshot import Snapshot

SHARES = (0.8, 0.85, 0.9, 0.95)
NEAR = 0.3  # s within which two places are one


def hits(some: Sequence[float], others: Sequence[float]) -> int:
    """How many of some places are among others."""
    return sum(any(abs(place - other) <= NEAR for other in others) for place in some)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--split", default="report")
    parser.add_argument("--clips", type=int, default=320)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if not corpora.items(args.split):
        parser.error(f"no music: python -m benchmarks.corpora fetch --split {args.split}")
    encoder = Encoder.load()
    names, codes = library_of(encoder, args.split)
    snapshot, calibration = Snapshot.of(codes, encoder.codec), Calibration.of(encoder.id)
    asked: list[tuple[Clip, Question]] = [
        (clip, Question(clip.made, snapshot, encoder))
        for clip in clips(args.split, args.clips, False, args.seed, args.folder)
        if clip.made is not None
    ]
    truth = Truth()
    wanted = {clip.work for clip, _ in asked}
    for item, samples in works_of(args.split):
        if item.id in wanted:
            truth.add(item.id, samples)
    cuts = [Cut(clip.work, clip.start, clip.seconds) for clip, _ in asked]
    places = [
        [place.offset for place in of_it if place.recording == clip.work]
        for (clip, _), of_it in zip(asked, truth.places(cuts), strict=True)
    ]
    print(
        "| share | answered | place or a repeat of it right | other places found | places named, right |"
    )
    print("|---:|---:|---:|---:|---:|")
    for share in SHARES:
        repeats.ALIKE = share
        answered = covered = found = there = right = named = 0
        for (clip, question), of_it in zip(asked, places, strict=True):
            matches = search(question, calibration, REVIEW, ())
            if not matches or names[int(matches[0].recording)] != clip.work:
                continue
            best = matches[0]
            at = best.reference_start - best.query_start
            told = [at, *(start - best.query_start for start, _ in best.repeats)]
            answered += 1
            covered += hits([clip.start], told)
            others = [place for place in of_it if abs(place - at) > NEAR]
            found, there = found + hits(others, told), there + len(others)
            right, named = right + hits(told[1:], of_it), named + len(told) - 1
        print(f"| {share} | {answered} | {covered} | {found} of {there} | {right} of {named} |")


if __name__ == "__main__":
    main()
