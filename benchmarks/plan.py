"""Which works, which clips: everything that is drawn, drawn from the seed alone.

Report-split works are parted into those in the library and those left out of it. They are parted by
component: works that share a package, an artist or a recording stay together, so that what is absent is
nobody's sibling. Works of the other splits are in the library as distractors; no clip is cut from them.

A cell is a degradation at a length. Works are dealt to clips like cards, so that all are used about as
often; where in its work a clip begins is drawn when the work is decoded (see `clips`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Literal, TypeVar

from numpy.random import Generator

from benchmarks.degrade import DEGRADATIONS, rng_for

Role = Literal["reference", "absent", "distractor"]
LENGTHS = (1, 2, 3, 5, 10)  # s of music in a clip
SEVERITIES = ("chain-easy", "chain-medium", "chain-hard")
CHAIN_LENGTH = 5  # s, where chains have more clips than other cells
# Cells that a figure is stated of alone, which twenty clips are too few for.
FOCUS = (("phone-hard", 5), ("across-9dB", 10), ("across-12dB", 10), ("across-15dB", 10))

T = TypeVar("T")


@dataclass(frozen=True)
class Size:
    """How much a run measures."""

    name: str
    degradations: tuple[str, ...]
    per_cell: int  # clips of each degradation × length
    per_chain: int  # clips of each severity of random chains, at CHAIN_LENGTH
    absent: int  # clips of works that the library does not have
    references: int  # report works in the library, at least, where there are as many
    report_packages: tuple[str, ...] = ()  # only these; () for all
    distractors: bool = True
    minutes: float = 10.0  # of music, for speed
    rounds: int = 5
    per_focus: int = 0  # clips of each cell of FOCUS, if that is more than of others


# fmt: off
SAMPLED = (
    "clean", "mp3-64", "opus-16", "telephone-gsm", "pink+0dB", "babble+0dB", "ambience+0dB",
    "room-synthetic", "room-real", "phone-medium", "compressed", "speed+6%", "nightcore",
    "tempo+10%", "pitch+2", "speech+0dB", "two-works", "leading-silence", "crossed-channel",
    *SEVERITIES,
)
# fmt: on

SIZES = {
    "full": Size(
        "full",
        tuple(DEGRADATIONS),
        per_cell=20,
        per_chain=300,
        per_focus=100,
        absent=6 * len(DEGRADATIONS) * len(LENGTHS),
        references=220,
    ),
    "sample": Size(
        "sample",
        SAMPLED,
        per_cell=3,
        per_chain=20,
        absent=110,
        references=60,
        # Small downloads, about 200 MB together, of different kinds of music; the last five hold noise,
        # speech and impulse responses.
        report_packages=(
            "amoebax-data",
            "drascula-music",
            "madbomber-data",
            "mu-cade-data",
            "neverball-common",
            "noiz2sa-data",
            "pekka-kana-2-data",
            "tecnoballz-data",
            "torus-trooper-data",
            "tumiki-fighters-data",
            "wordwarvi-sound",
            "zaz-data",
            "krank",
            "mazeofgalious-data",
            "asterisk-core-sounds-it-wav",
            "klettres-data",
            "jconvolver-config-files",
        ),
        distractors=False,
        minutes=3.0,
        rounds=3,
    ),
}


@dataclass(frozen=True)
class Work:
    """A piece of music, as far as a plan needs to know it."""

    id: str
    package: str
    duration: float  # s
    artist: str = ""
    group: str = ""  # works that are the same recording share it

    @property
    def ties(self) -> tuple[tuple[str, str], ...]:
        """What it may share with another work that must then be on the same side."""
        artist = "" if self.artist.strip("<>").casefold() == "unknown" else self.artist.casefold()
        pairs = (("package", self.package), ("artist", artist), ("group", self.group))
        return tuple(pair for pair in pairs if pair[1])


@dataclass(frozen=True)
class Clip:
    """A clip to be made."""

    id: str
    work: str
    degradation: str
    seconds: int  # of damaged music; silence that leads comes on top
    absent: bool  # cut from a work that the library does not have


@dataclass(frozen=True)
class Plan:
    """Everything that a run will measure; the same seed and works give the same plan."""

    size: str
    seed: int
    roles: dict[str, Role]  # work id: what it is here
    clips: tuple[Clip, ...]
    inputs: dict[str, str]  # what else decides the clips: package versions, hash of the recipe

    @property
    def digest(self) -> str:
        """Changes with anything that changes a clip or a library."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()

    def works(self, *roles: Role) -> list[str]:
        """Ids of the works of these roles, in order."""
        return [work for work, role in self.roles.items() if role in roles]


def make_plan(
    size: Size,
    seed: int,
    works: Sequence[Work],
    distractors: Sequence[Work],
    inputs: dict[str, str],
) -> Plan:
    """Part the report split's `works`, and draw the clips.

    Raises `ValueError` if the works cannot be parted: there are fewer than two components.
    """
    absent = hold_out(works, size.references, rng_for(seed, "hold out"))
    references = [work.id for work in works if work.id not in absent]
    left_out = [work.id for work in works if work.id in absent]
    if not references or not left_out:
        raise ValueError(
            f"{len(works)} works cannot be parted into a library and works that it lacks: "
            "fetch more packages of the report split"
        )
    roles: dict[str, Role] = {work.id: "distractor" for work in distractors}
    roles |= dict.fromkeys(references, "reference")
    roles |= dict.fromkeys(left_out, "absent")
    return Plan(
        size.name,
        seed,
        dict(sorted(roles.items())),
        (
            *_present(size, deal(references, rng_for(seed, "present works"))),
            *_absent(size, seed, deal(left_out, rng_for(seed, "absent works"))),
        ),
        inputs,
    )


def _present(size: Size, works: Iterator[str]) -> Iterator[Clip]:
    number = 0
    for degradation in size.degradations:
        for seconds in LENGTHS:
            count = size.per_cell
            if degradation in SEVERITIES and seconds == CHAIN_LENGTH:
                count = size.per_chain
            elif (degradation, seconds) in FOCUS:
                count = max(size.per_cell, size.per_focus)
            for _ in range(count):
                yield Clip(f"p{number:05d}", next(works), degradation, seconds, False)
                number += 1


def _absent(size: Size, seed: int, works: Iterator[str]) -> Iterator[Clip]:
    cells = [(degradation, length) for degradation in size.degradations for length in LENGTHS]
    dealt = islice(deal(cells, rng_for(seed, "absent cells")), size.absent)
    for number, (degradation, seconds) in enumerate(dealt):
        yield Clip(f"a{number:05d}", next(works), degradation, seconds, True)


def deal(cards: Sequence[T], rng: Generator) -> Iterator[T]:
    """The cards in random order, shuffled anew each time all have been dealt; without end."""
    while True:
        for index in rng.permutation(len(cards)):
            yield cards[int(index)]


def hold_out(works: Sequence[Work], keep: int, rng: Generator) -> set[str]:
    """Ids of works to leave out: whole components, as many as leave at least `keep` works.

    Where there are fewer than 1.5 times as many works, two thirds are kept instead.
    """
    keep = min(keep, -(-2 * len(works) // 3))
    parts = sorted(components(works), key=min)
    out: set[str] = set()
    for index in rng.permutation(len(parts)):
        part = parts[int(index)]
        if len(works) - len(out) - len(part) >= keep:
            out |= part
    return out


def components(works: Iterable[Work]) -> list[set[str]]:
    """Ids of works, parted so that no two parts share a package, an artist or a recording."""
    parts: list[tuple[set[str], set[tuple[str, str]]]] = []
    for work in works:
        ids, ties = {work.id}, set(work.ties)
        apart = []
        for part in parts:
            if part[1] & ties:
                ids |= part[0]
                ties |= part[1]
            else:
                apart.append(part)
        parts = [*apart, (ids, ties)]
    return [ids for ids, _ in parts]
