"""Fit the line between copies and other versions of a recording, for `index/calibration.json`.

    python -m benchmarks.calibration.likeness [--clips 8] [--demoted 0.005] [--encoder WEIGHTS] \
        [--rows FILE] [--write]

Clips of 2 to 30 s, half of them damaged as in calibration, are laid on the recording that they are of: copies
of the tune packages' works and of the train packages' scores, and, as versions, those packages' MIDI scores
that another sound font plays (Debian: timgm6mb-soundfont). Looked at are those that chance does not explain
in a library of 48 h. Of all lines through similarity and contrast (`index/versions.py`) below which a share
of --demoted of the copies lies, that one is taken which leaves the fewest undamaged versions above it; and
no more is asked of any clip than what all but that share reach of copies of one channel of the tune packages'
stereo recordings, undamaged, which differs from the mix of both that is stored.

The report packages' works and scores are laid on the line then, and told apart by it. With --rows what was
looked at is kept, and a second run fits it again.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soxr
from tqdm import tqdm

from benchmarks import corpora
from benchmarks.calibration.calibrate import (
    background_of,
    enter,
    fingerprint_of,
    library_of,
    tune_works,
)
from benchmarks.codecs import cut
from benchmarks.damage import Background, Signal, degrade
from benchmarks.experiments.versions import OTHER_SOUND_FONT
from benchmarks.render import LONGEST, MIDI_SUFFIXES, render
from fingerprint.audio import SAMPLE_RATE, read_audio
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY
from index.query_context import Question
from index.search import THOROUGH, alignments
from index.segment import Codes
from index.significance import MATCH, Calibration
from index.snapshot import Snapshot
from index.versions import Likeness, contrast_under, mean_similarity

LENGTHS = (2.0, 5.0, 10.0, 30.0)  # s
LIBRARY = 345_600  # embeddings of 48 h
FITTED_ON = ("train", "tune")
TRIED_ON = "report"
NONE, DRAWN, ONE_CHANNEL = "none", "drawn", "one channel"
SLOPES = np.linspace(0.0, 0.2, 81)  # a dB


@dataclass(frozen=True)
class Row:
    """A clip laid on the recording that it is of, or of another version of."""

    split: str
    work: str
    is_copy: bool
    seconds: float
    damage: str  # NONE, DRAWN or ONE_CHANNEL
    similarity: float
    contrast: float  # dB


class Laying:
    """Lays clips on recordings."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.calibration = Calibration.of(encoder.id)
        self.background: Background = background_of([samples for _, samples in tune_works()])
        self.rng = np.random.default_rng(1)

    def rows(
        self,
        item: corpora.Item,
        samples: Signal,
        codes: Codes,
        clips: int,
        is_copy: bool,
        damages: Sequence[str] = (NONE, DRAWN),
    ) -> Iterator[Row]:
        """Clips of samples, laid on codes; those that chance explains are left out."""
        snapshot = Snapshot.of([codes], self.encoder.codec)
        for number in range(clips):
            seconds = LENGTHS[number % len(LENGTHS)]
            damage = damages[number // len(LENGTHS) % len(damages)]
            count = int(seconds * SAMPLE_RATE)
            start = int(self.rng.integers(max(1, len(samples) - count)))
            clip = samples[start : start + count]
            if damage == DRAWN:
                clip = degrade(self.rng, clip, self.background)
            try:
                made = fingerprint_of(clip, self.encoder, QUERY_EVERY)
            except AudioError:  # a pause in the music
                continue
            question = Question(made, snapshot, self.encoder)
            found = list(alignments(question, THOROUGH, 0.0, lambda item: False))
            best = max(found, key=lambda item: item.score, default=None)
            size = len(made.embeddings), LIBRARY
            if best is None or self.calibration.e_value(best.score, *size) > MATCH:
                continue
            like, sharp = mean_similarity(best, question), contrast_under(best, question)
            yield Row(item.split, item.id, is_copy, seconds, damage, like, sharp)


def all_rows(encoder: Encoder, clips: int) -> Iterator[Row]:
    """Copies and versions of all packages."""
    laying = Laying(encoder)
    with tempfile.TemporaryDirectory() as folder:
        for split in (*FITTED_ON, TRIED_ON):
            held = dict(zip(*library_of(encoder, split), strict=True))
            for item in tqdm(corpora.items(split), f"{split} music", disable=None):
                is_score = item.path.suffix.lower() in MIDI_SUFFIXES
                if is_score or split != "train":
                    samples = read_audio(item.audio())
                    yield from laying.rows(item, samples, held[item.id], clips, True)
                if is_score:
                    other = render(item.path, Path(folder) / "other.flac", OTHER_SOUND_FONT)
                    samples = read_audio(other)
                    yield from laying.rows(item, samples, held[item.id], clips, False)


def one_channel_rows(encoder: Encoder, clips: int) -> Iterator[Row]:
    """Copies of the first channel of the tune packages' stereo works, drawn whatever was drawn before."""
    laying = Laying(encoder)
    held = dict(zip(*library_of(encoder, "tune"), strict=True))
    for item in tqdm(corpora.items("tune"), "one channel", disable=None):
        samples, rate = cut(item.audio(), 0, LONGEST)
        if samples.shape[1] > 1:
            first = soxr.resample(samples[:, 0], rate, SAMPLE_RATE)
            yield from laying.rows(item, first, held[item.id], clips, True, (ONE_CHANNEL,))


def fit(rows: Iterable[Row], demoted: float) -> Likeness:
    """The line below which that share of the copies lies, and as many undamaged versions as can be.

    So alike that as few of the copies of one channel are less, a clip is a copy whatever its contrast.
    """
    rows = list(rows)
    one_channel = [row.similarity for row in rows if row.damage == ONE_CHANNEL]
    most = float(np.quantile(one_channel, demoted))
    rows = [row for row in rows if row.damage != ONE_CHANNEL]
    similarity, contrast = (
        np.array([getattr(row, name) for row in rows]) for name in ("similarity", "contrast")
    )
    copies = np.array([row.is_copy for row in rows])
    versions = ~copies & np.array([row.damage == NONE for row in rows])
    doubtful = similarity < most
    allowed = int(demoted * np.count_nonzero(copies))  # copies that may lie below

    def line(slope: float) -> tuple[int, float]:
        """Undamaged versions above a line of this slope, and where it begins."""
        above = similarity - slope * contrast
        ascending = np.sort(above[copies & doubtful])
        least = float(ascending[min(allowed, len(ascending) - 1)])
        return int(np.sum((above >= least)[versions & doubtful])), least

    slope = min(map(float, SLOPES), key=lambda slope: line(slope)[0])
    return Likeness(round(line(slope)[1], 4), round(slope, 4), round(most, 4))


def table(rows: Iterable[Row], likeness: Likeness) -> Iterator[str]:
    """Of copies and versions, by split, damage and length: how many are taken for copies."""
    yield "| split | clips of | damage | 2 s | 5 s | 10 s | 30 s |"
    yield "|---|---|---|---:|---:|---:|---:|"
    rows = list(rows)
    for split in (*FITTED_ON, TRIED_ON):
        for is_copy in (True, False):
            for damage in (NONE, ONE_CHANNEL, DRAWN):
                cells = []
                for seconds in LENGTHS:
                    told = [
                        row.similarity >= likeness.at_least(row.contrast)
                        for row in rows
                        if (row.split, row.is_copy, row.damage, row.seconds)
                        == (split, is_copy, damage, seconds)
                    ]
                    cells.append(f"{sum(told)} of {len(told)}")
                what = "the recording" if is_copy else "another version"
                if any(cell != "0 of 0" for cell in cells):
                    yield f"| {split} | {what} | {damage} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--encoder", type=Path, help="weights; default: those that ship")
    parser.add_argument("--clips", type=int, default=8, help="of each recording or version")
    parser.add_argument("--demoted", type=float, default=0.005, help="share of the copies")
    parser.add_argument("--rows", type=Path, metavar="FILE.json", help="keep what was looked at")
    parser.add_argument("--write", action="store_true", help="enter the line into the table")
    args = parser.parse_args()
    if not OTHER_SOUND_FONT.is_file():
        parser.error(f"{OTHER_SOUND_FONT} is missing (Debian: timgm6mb-soundfont)")
    encoder = Encoder.load(args.encoder)
    if args.rows and args.rows.is_file():
        rows = [Row(**row) for row in json.loads(args.rows.read_text())]
    else:
        rows = [*all_rows(encoder, args.clips), *one_channel_rows(encoder, args.clips)]
        if args.rows:
            args.rows.write_text(json.dumps([asdict(row) for row in rows]))
    likeness = fit((row for row in rows if row.split in FITTED_ON), args.demoted)
    print(
        f"a copy's similarity is at least {likeness.least} {likeness.slope:+} x contrast in dB, "
        f"or {likeness.most}"
    )
    print("\n".join(table(rows, likeness)))
    if args.write:
        command = f"python -m benchmarks.calibration.likeness --clips {args.clips} --demoted {args.demoted}"
        enter(encoder, {"likeness": asdict(likeness) | {"command": command}})


if __name__ == "__main__":
    main()
