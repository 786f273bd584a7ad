"""Different recordings of one composition: what is said of one where the library holds the other?

    python -m benchmarks.experiments.versions [--clips 6] [--seconds 10] [--out FILE.json]

Pairs of works of the corpora that are one composition in two versions, named below, and MIDI scores that are
rendered with another sound font than those of the library (Debian: timgm6mb-soundfont). Clips of one version,
spread over it, are looked for, with the whole ladder, among all works of all splits but that version. Told
are, of the clips, how many name the other version as a match and how many for review, and of how many of
these the waveform is heard in the other version where it was aligned, as it is or played at the tempo found.
Music of the train packages is that which the encoder has learned from.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks import corpora
from benchmarks.calibration.calibrate import fingerprint_of, library_of
from benchmarks.render import MIDI_SUFFIXES, render
from benchmarks.truth import SAME, correlate, prepared
from fingerprint.audio import SAMPLE_RATE, read_audio
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY
from index.query_context import Question
from index.search import Match, search
from index.segment import Codes
from index.significance import REVIEW, Calibration
from index.snapshot import Snapshot

# Package, what the versions are, files of two versions each.
COMPOSITIONS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("drascula-music", "one tune at two tempos", (("track2.ogg", "track16.ogg"),)),
    (
        "wordwarvi-sound",
        "a song and its remix",
        (("lucky13-steve-mono-mix.ogg", "lucky-holiday-cornbread-stuffing-mono.ogg"),),
    ),
    ("tecnoballz-data", "two mixes of the same samples", (("area1-game.mod", "area1-game2.mod"),)),
    ("redeclipse-data", "a theme and its chip version", (("theme.ogg", "theme_chip.ogg"),)),
    (
        "supertuxkart-data",
        "faster, for the last lap",
        (
            ("celtic.ogg", "celtic_fast.ogg"),
            ("cocoa_river.ogg", "cocoa_river_fast.ogg"),
            ("farm.ogg", "farm_f.ogg"),
            ("jumping_to_the_stars_remake.ogg", "jumping_to_the_stars_remake_fast.ogg"),
            ("landing_in_gran_paradiso.ogg", "landing_in_gran_paradiso_fast.ogg"),
            ("ravenbridge_mansion.ogg", "ravenbridge_mansion_fast.ogg"),
            ("theGreatFair.ogg", "theGreatFair_fast.ogg"),
        ),
    ),
    (
        "supertuxkart-data",
        "a remix",
        (
            (
                "landing_in_gran_paradiso.ogg",
                "Gran_Paradiso_Unused_-_TuxKart_5a_Gowns_Bow_Remix.ogg",
            ),
        ),
    ),
    ("supertux-data", "an orchestra's version", (("airship_2.ogg", "airship_remix.ogg"),)),
    (
        "supertux-data",
        "an old and a new version",
        (("cave_old.ogg", "cave.ogg"), ("fortress_old.ogg", "fortress.ogg")),
    ),
    ("naev-data", "an orchestra's version", (("pirate1_theme1.ogg", "pirates_orchestra.ogg"),)),
    ("naev-data", "a remix", (("sirius1.ogg", "sirius2.ogg"),)),
    (
        "colobot-common-sounds",
        "a remix",
        (("Humanitarian.ogg", "Hv2.ogg"), ("music008.ogg", "Infinite.ogg")),
    ),
    (
        "holotz-castle-data",
        "slower",
        (
            ("HCMainTitle.wav", "HCMainTitle_Slow.wav"),
            ("HCMainTitle.wav", "HCMainTitle_UltraSlow.wav"),
            ("HCCredits.wav", "HCCredits_Slow.wav"),
        ),
    ),
)
OTHER_SOUND_FONT = Path("/usr/share/sounds/sf2/TimGM6mb.sf2")
SPLITS = ("report", "tune", "train")
SCORES = 20  # that are rendered with it, at most, of each split
PIECE = 1.0  # s whose waveforms are compared
LEEWAY = 0.25  # s by which a place may be off, at either side
# The tempo found is that of the piece within half a percent, which a waveform does not forgive.
TEMPI = 1 + np.arange(-60, 61) / 10_000
Signal = NDArray[np.float32]


@dataclass(frozen=True)
class Version:
    """Music that is asked about, and the recording of its composition that the library holds."""

    kind: str
    split: str
    name: str
    other: str
    audio: Path
    absent: str | None  # its own id, if the library holds it
    sought: corpora.Item


@dataclass
class Told:
    """What was said of the clips of a version."""

    kind: str
    split: str
    version: str
    other: str
    clips: int = 0
    match: int = 0
    review: int = 0
    same_waveform: int = 0


def versions(folder: Path) -> Iterator[Version]:
    """Each composition's versions, asked about in turn; scores are rendered into `folder`."""
    by_name = {
        (item.package, Path(item.member).name): item
        for split in SPLITS
        for item in corpora.items(split)
    }
    for package, kind, pairs in COMPOSITIONS:
        for pair in pairs:
            one, other = (by_name[package, file] for file in pair)
            for asked, sought in ((one, other), (other, one)):
                yield Version(
                    kind, asked.split, asked.title, sought.title, asked.audio(), asked.id, sought
                )
    if not OTHER_SOUND_FONT.is_file():
        print(f"no scores: {OTHER_SOUND_FONT} is missing (Debian: timgm6mb-soundfont)")
        return
    for split in SPLITS:
        scores = [it for it in corpora.items(split) if it.path.suffix.lower() in MIDI_SUFFIXES]
        for score in scores[:: max(1, -(-len(scores) // SCORES))]:
            audio = render(score.path, folder / f"{score.id}.flac", OTHER_SOUND_FONT)
            kind = "a score with other instruments"
            yield Version(kind, split, score.title, score.title, audio, None, score)


def ask(
    version: Version,
    snapshot: Snapshot,
    names: Sequence[str],
    encoder: Encoder,
    args: argparse.Namespace,
) -> Told:
    """Clips of a version, looked for in a library without it."""
    told = Told(version.kind, version.split, version.name, version.other)
    samples = read_audio(version.audio)
    other = read_audio(version.sought.audio())
    length = int(args.seconds * SAMPLE_RATE)
    for start in np.linspace(0, max(0, len(samples) - length), args.clips).astype(int):
        clip = samples[start : start + length]
        try:
            made = fingerprint_of(clip, encoder, QUERY_EVERY)
        except AudioError:  # a pause in the music
            continue
        told.clips += 1
        found = search(Question(made, snapshot, encoder), Calibration.of(encoder.id), REVIEW)
        # recordings of such a snapshot are called by their numbers
        of_it = [match for match in found if names[int(match.recording)] == version.sought.id]
        if of_it:
            tier = "match" if any(match.tier == "match" for match in of_it) else "review"
            setattr(told, tier, getattr(told, tier) + 1)
            told.same_waveform += any(is_same(clip, other, match) for match in of_it)
    return told


def is_same(clip: Signal, other: Signal, match: Match) -> bool:
    """Whether what is in the middle of a match is the reference's waveform, at the tempo found."""
    # the snapshot does not know where a recording ends
    over = max(0.0, match.reference_end - len(other) / SAMPLE_RATE)
    middle = (match.query_start + match.query_end - over / match.tempo) / 2
    place = (match.reference_start + match.reference_end - over) / 2
    first = int((middle - PIECE / 2) * SAMPLE_RATE)
    piece = clip[max(0, first) : first + int(PIECE * SAMPLE_RATE)]
    reach = int((0.5 * PIECE * match.tempo + LEEWAY) * SAMPLE_RATE)
    at = int(place * SAMPLE_RATE)
    there = other[max(0, at - reach) : at + reach]
    if not len(piece) or not len(there):
        return False
    there = prepared(there).astype(np.float32)
    for tempo in match.tempo * TEMPI if match.tempo != 1 else (1.0,):
        played = prepared(soxr.resample(piece, SAMPLE_RATE, SAMPLE_RATE * tempo)).astype(np.float32)
        if len(played) < len(there) and correlate(played, there)[0] >= SAME:
            return True
    return False


def table(rows: Sequence[Told]) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| versions | split | asked about | in the library | clips | match | review | same waveform |"
    yield "|---|---|---|---|---:|---:|---:|---:|"
    for row in rows:
        yield "| " + " | ".join(str(value) for value in vars(row).values()) + " |"


def by_kind(rows: Sequence[Told]) -> Iterator[str]:
    """The same, added up by kind and split."""
    yield "| versions | split | asked about | clips | match | review | same waveform |"
    yield "|---|---|---:|---:|---:|---:|---:|"
    for kind, split in dict.fromkeys((row.kind, row.split) for row in rows):
        same = [row for row in rows if (row.kind, row.split) == (kind, split)]
        counts = (
            sum(getattr(row, name) for row in same)
            for name in ("clips", "match", "review", "same_waveform")
        )
        yield "| " + " | ".join(map(str, (kind, split, len(same), *counts))) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clips", type=int, default=6, help="of each version")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    encoder = Encoder.load()
    held: dict[str, Codes] = {}
    for split in SPLITS:
        held |= zip(*library_of(encoder, split), strict=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for version in tqdm(list(versions(Path(folder))), "versions", disable=None):
            names = [name for name in held if name != version.absent]
            snapshot = Snapshot.of([held[name] for name in names], encoder.codec)
            rows.append(ask(version, snapshot, names, encoder, args))
    print("\n".join([*table(rows), "", *by_kind(rows)]))
    if args.out is not None:
        args.out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
