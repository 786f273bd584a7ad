"""What a run of the benchmark says to the figures aimed at: met, missed, or not told apart.

    python -m benchmarks.targets [FOLDER] [--peer earmark]     by default the newest in benchmarks/results/

Rows pool cells of the run. A figure is met if the share reaches it; "open" says that it does not, but that
the 95 % interval (Wilson) contains it.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import corpora, report
from benchmarks.scoring import share
from fingerprint.errors import EarmarkError

CODECS = ("mp3-32", "mp3-64", "mp3-128", "aac-48", "opus-16", "opus-75", "vorbis-160")
TELEPHONES = ("telephone-gsm", "telephone-mulaw", "telephone-amr-12")
NOISES = ("white", "pink", "babble", "ambience")
EDITS = (
    *("tilt-up", "tilt-down", "compressed", "clipped-5%", "leading-silence", "polarity"),
    "crossed-channel",
)
ROOMS = ("room-synthetic", "room-real", "room+babble+5dB")
PHONES = ("phone-easy", "phone-medium", "phone-hard")
SPEECH = ("speech+0dB", "speech+6dB")
ALTERED = (
    *("speed+3%", "speed-3%", "speed+6%", "speed-6%", "speed+10%", "speed-10%", "speed+20%"),
    *("speed-20%", "nightcore", "slowed+reverb", "tempo+10%", "tempo-10%", "tempo+20%"),
    *("tempo-20%", "tempo+10%-wsola", "pitch+1", "pitch-1", "pitch+2", "pitch-2", "pitch+3"),
    "pitch-3",
)


def under(decibel: str) -> tuple[str, ...]:
    """Noises of one ratio."""
    return tuple(f"{noise}{decibel}dB" for noise in NOISES)


MILD = ("clean", *CODECS, *TELEPHONES, *under("+10"), *under("+5"), *ROOMS, *EDITS)
UNALTERED = (
    *MILD,
    *(*under("+0"), *under("-5"), *PHONES, *SPEECH, "clipped-30%", "two-works"),
)


@dataclass(frozen=True)
class Target:
    """A share of the clips of some cells: `what` is identified, accepted, or accepted of identified."""

    of: str
    cells: Sequence[str]
    seconds: int
    aim: float  # %
    what: str = "identified"


TARGETS = (
    Target("milder damage at unaltered speed", MILD, 5, 99),
    Target("noise, babble, ambience at 0 dB", under("+0"), 5, 98),
    Target("noise, babble, ambience at -5 dB", under("-5"), 5, 90),
    Target("phone in a room, hard", ("phone-hard",), 5, 95),
    *(
        Target(f"across a measured room, coherent {ratio} dB", (f"across{ratio}dB",), 10, aim)
        for ratio, aim in ((-9, 99.0), (-12, 95.0), (-15, 85.0))
    ),
    Target("speech as loud as the music", ("speech+0dB",), 5, 99),
    Target("speech 6 dB louder", ("speech+6dB",), 5, 92),
    Target("noise, babble, ambience at 0 dB", under("+0"), 2, 92),
    Target("noise, babble, ambience at 0 dB", under("+0"), 1, 78),
    Target("as it is, or MP3", ("clean", "mp3-64", "mp3-128"), 1, 95, "accepted"),
    Target("altered speed, tempo or pitch", ALTERED, 5, 99),
    Target("hard chains", ("chain-hard",), 5, 96),
    Target("hard chains", ("chain-hard",), 5, 92, "accepted"),
    Target("all damage at unaltered speed", UNALTERED, 5, 97, "accepted of identified"),
    Target("all damage at unaltered speed", UNALTERED, 2, 90, "accepted of identified"),
    Target("altered speed, tempo or pitch", ALTERED, 5, 95, "accepted of identified"),
)


def table(peer: dict[str, Any]) -> str:
    """Markdown: aims beside what a peer's answers come to."""
    cells = peer["groups"]["cell"]
    lines = [
        "| clips | s | n | what | aimed at | measured (95 %) | |",
        "|---|---:|---:|---|---:|---|---|",
    ]
    for target in TARGETS:
        found = [
            cells[f"{cell}|{target.seconds}"]
            for cell in target.cells
            if f"{cell}|{target.seconds}" in cells
        ]
        what, _, base = target.what.partition(" of ")
        counted = sum(cell[what] for cell in found)
        of = share(counted, sum(cell[base or "clips"] for cell in found))
        if of is None:
            continue
        value, low, high = (100 * part for part in (of.value, of.low, of.high))
        verdict = "met" if value >= target.aim else "open" if high >= target.aim else "missed"
        lines.append(
            f"| {target.of} | {target.seconds} | {sum(cell['clips'] for cell in found)} | {target.what} |"
            f" {target.aim:g} % | {value:.1f} % ({low:.1f} to {high:.1f}) | {verdict} |"
        )
    absent = peer["absent"]["all"]
    none = share(absent["accepted"], absent["clips"])
    assert none is not None
    lines.append(
        f"| not in the library | all | {absent['clips']} | accepted | 0 % |"
        f" {100 * none.value:.2f} % ({100 * none.low:.2f} to {100 * none.high:.2f}) |"
        f" {'met' if not absent['accepted'] else 'missed'} |"
    )
    return "\n".join(lines)


def mistaken(peer: dict[str, Any]) -> str:
    """Between which works the accepted wrong answers, and those to absent clips, are."""
    title = {item.id: f"{item.package} {item.title!r}" for item in corpora.catalogue()}
    pairs = Counter((work, recording) for _, work, recording in peer["mistaken"])
    return "\n".join(
        f"{count} x {title[work]} ({work}) for {title[recording]} ({recording})"
        for (work, recording), count in pairs.most_common()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--peer", default="earmark")
    args = parser.parse_args()
    folder = args.folder or report.newest()
    if folder is None:
        sys.exit("no results yet: make benchmark-full")
    try:
        results = report.load(folder)
    except EarmarkError as error:
        sys.exit(str(error))
    peer = results["peers"][args.peer]
    print(f"{table(peer)}\n\nAccepted, and not right:\n{mistaken(peer)}")


if __name__ == "__main__":
    main()
