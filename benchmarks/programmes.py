"""Long programmes of which it is known what is heard when: broadcast, DJ mixes, inserts in unrelated sound.

    broadcast   60 s of speech; works enter and leave at random, 6 to 12 dB below it. One programme in six has
                no music, one has music of works that the library does not have.
    mix         30 minutes of works one after the other, each at a tempo of its own within 8 %, by Rubber
                Band (its pitch is kept) or by a change of speed; they go over into each other in 8 to 20 s at
                equal power.
    inserts     3 s of a work in every 30 s of 10 minutes of speech, noises and music of works that the
                library does not have, at the same level.

Works of every fourth package are those that the library does not have. The same split and seed give the same
programmes. They are mono, so that thirty minutes fit into memory.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.random import Generator
from tqdm import tqdm

from benchmarks import corpora
from benchmarks.clips import WHOLE, audible_start
from benchmarks.codecs import cut, write
from benchmarks.corpora import Item
from benchmarks.degrade import (
    RATE,
    Chain,
    Sources,
    Speed,
    Stretch,
    band_power,
    degrade,
    draw,
    rng_for,
    to_rate,
)
from benchmarks.journal import Journal

Signal = npt.NDArray[np.float32]

LEFT_OUT = 4  # every so many-th package is not in the library
LOUDNESS = 0.1  # root mean square of every sound before it is mixed, of full scale

BROADCAST = 60.0  # s
WITHOUT_MUSIC, OTHER_MUSIC, OF = 0, 1, 6  # which of so many broadcasts have none, or unknown music
BELOW_SPEECH = (6.0, 12.0)  # dB
GAP, MUSIC = (2.0, 15.0), (6.0, 30.0)  # s, between the music of a broadcast, and of it
FADE = 0.3  # s, of music that enters or leaves a broadcast

MIX = 1800.0  # s
TEMPO = 0.08  # most that a mix changes a work's
TRACK = (90.0, 240.0)  # s that a work is played, if it is as long
SHORTEST_TRACK = 60.0  # s; of shorter works fades would leave nothing
CROSS_FADE = (8.0, 20.0)  # s

INSERTS = 600.0  # s
INSERT = 3.0  # s
EVERY = 30.0  # s of the programme that hold one insert
PIECE = (8.0, 30.0)  # s of one sound between which inserts lie
CUT = 0.005  # s, of the fades at a cut


@dataclass(frozen=True)
class Heard:
    """That a programme's seconds start to end are a work, from its second `offset` on."""

    work: str
    start: float
    end: float
    offset: float
    tempo: float = 1.0  # work's seconds that pass per second of the programme
    pitch_semitones: float = 0.0  # above the work's


@dataclass(frozen=True)
class Programme:
    """A programme as a file, and what is heard in it in order of time."""

    id: str
    kind: str  # one of KINDS
    seconds: float
    heard: tuple[Heard, ...]


@dataclass(frozen=True)
class Material:
    """What programmes are made of."""

    known: Sequence[Item]  # works that the library has
    unknown: Sequence[Item]
    sources: Sources


def material_of(split: str) -> Material:
    """That of a split, as far as it was fetched."""
    works = corpora.items(split)
    packages = sorted({work.package for work in works})
    absent = set(packages[LEFT_OUT - 1 :: LEFT_OUT])
    return Material(
        [work for work in works if work.package not in absent],
        [work for work in works if work.package in absent],
        Sources.from_corpora(split),
    )


def make_programmes(
    material: Material, numbers: dict[str, int], seed: int, folder: Path
) -> list[Programme]:
    """So many programmes of each kind, as FLAC in `folder`; those that are there already are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder / "programmes.jsonl")
    made = {entry["id"]: _programme(entry) for entry in journal.entries}
    wanted = [(kind, n) for kind, number in numbers.items() for n in range(number)]
    for kind, n in tqdm(wanted, "programmes", disable=None):
        id = f"{kind}-{n}"
        if id in made:
            continue
        sound, heard = KINDS[kind](material, rng_for(seed, kind, n), n)
        write(folder / f"{id}.flac", sound[:, None], RATE, "flac")
        made[id] = Programme(id, kind, len(sound) / RATE, tuple(heard))
        journal.append([asdict(made[id])])
    return [made[f"{kind}-{n}"] for kind, n in wanted]


def _programme(entry: dict[str, Any]) -> Programme:
    return Programme(**entry | {"heard": tuple(Heard(**each) for each in entry["heard"])})


def recipe_digest() -> str:
    """A hash of the code that makes programmes: another recipe gives others for the same seed."""
    here = Path(__file__).parent
    sources = ("programmes.py", "codecs.py", "degrade.py")
    return hashlib.sha256(b"".join((here / name).read_bytes() for name in sources)).hexdigest()[:8]


def broadcast(material: Material, rng: Generator, number: int) -> tuple[Signal, list[Heard]]:
    """Speech with music under it."""
    length = round(BROADCAST * RATE)
    speech = LOUDNESS * draw(material.sources.speech, "speech", length, rng)[:, 0]
    programme, heard = speech.copy(), []
    works = material.unknown if number % OF == OTHER_MUSIC else material.known
    start = BROADCAST if number % OF == WITHOUT_MUSIC else rng.uniform(*GAP)
    while start < BROADCAST - MUSIC[0]:
        seconds = min(rng.uniform(*MUSIC), BROADCAST - start)
        work = works[int(rng.integers(len(works)))]
        music, offset = _excerpt(work, seconds, rng)
        first = round(start * RATE)
        talk = speech[first : first + len(music)]
        music *= np.sqrt(band_power(talk[:, None]) / max(band_power(music[:, None]), 1e-12))
        music *= 10 ** (-rng.uniform(*BELOW_SPEECH) / 20)
        programme[first : first + len(music)] += _faded(music, FADE)
        if work in material.known:
            heard.append(Heard(work.id, start, start + len(music) / RATE, offset))
        start += seconds + rng.uniform(*GAP)
    return programme, heard


def mix(material: Material, rng: Generator, number: int) -> tuple[Signal, list[Heard]]:
    """Works that go over into each other, each at a tempo of its own."""
    programme = np.zeros(round(MIX * RATE), np.float32)
    heard: list[Heard] = []
    start, fade_in = 0.0, 0.0
    works = [work for work in material.known if work.duration >= SHORTEST_TRACK]
    for n in rng.permutation(len(works)):
        work = works[int(n)]
        tempo = rng.uniform(1 - TEMPO, 1 + TEMPO)
        chain = Chain((Speed(tempo) if rng.random() < 0.5 else Stretch(tempo),))
        music, offset = _excerpt(work, rng.uniform(*TRACK) * tempo, rng)
        damaged = degrade(music, RATE, chain, rng, material.sources)
        music = _levelled(damaged.mono[: len(programme) - round(start * RATE)])
        first = round(start * RATE)
        end = start + len(music) / RATE
        heard.append(Heard(work.id, start, end, offset, tempo, chain.pitch_semitones))
        _fade(music[: round(fade_in * RATE)], rising=True)
        last = first + len(music) == len(programme)
        fade_out = rng.uniform(*CROSS_FADE)
        if not last:
            _fade(music[-round(fade_out * RATE) :], rising=False)
        programme[first : first + len(music)] += music
        if last:
            break
        start, fade_in = end - fade_out, fade_out
    return programme, heard


def inserts(material: Material, rng: Generator, number: int) -> tuple[Signal, list[Heard]]:
    """Unrelated sound, cut short now and then by a work."""
    programme = np.concatenate(list(_unrelated(material, rng)))[: round(INSERTS * RATE)]
    heard = []
    for n in range(int(INSERTS / EVERY)):
        work = material.known[int(rng.integers(len(material.known)))]
        music, offset = _excerpt(work, INSERT, rng)
        start = n * EVERY + rng.uniform(1.0, EVERY - INSERT - 1.0)
        first = round(start * RATE)
        _faded(programme[:first], CUT)
        _faded(programme[first + len(music) :], CUT)
        programme[first : first + len(music)] = _faded(_levelled(music), CUT)
        heard.append(Heard(work.id, start, start + len(music) / RATE, offset))
    return programme, heard


KINDS: dict[str, Callable[[Material, Generator, int], tuple[Signal, list[Heard]]]] = {
    "broadcast": broadcast,
    "mix": mix,
    "inserts": inserts,
}


def _unrelated(material: Material, rng: Generator) -> Iterator[Signal]:
    """Sounds one after the other, of INSERTS or more in all, that are in no library."""
    missing = round(INSERTS * RATE)
    while missing > 0:
        seconds = rng.uniform(*PIECE)
        match int(rng.integers(3)):
            case 0:
                sound = draw(material.sources.speech, "speech", round(seconds * RATE), rng)[:, 0]
            case 1:
                sound = draw(material.sources.noise, "noise", round(seconds * RATE), rng)[:, 0]
            case _:
                work = material.unknown[int(rng.integers(len(material.unknown)))]
                sound, _ = _excerpt(work, seconds, rng)
        missing -= len(sound)
        yield _faded(_levelled(sound), CUT)


def _excerpt(work: Item, seconds: float, rng: Generator) -> tuple[Signal, float]:
    """Mono samples of so much of a work, or of all of it, at RATE; and the work's second they begin at."""
    samples, rate = cut(work.audio(), 0.0, WHOLE)
    length = min(round(seconds * rate), len(samples))
    start = audible_start(samples, rate, length, rng)
    part = to_rate(samples[start : start + length], rate)
    return np.ascontiguousarray(part.mean(axis=1), np.float32), start / rate


def _levelled(samples: Signal) -> Signal:
    """At LOUDNESS."""
    loud = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    return samples * np.float32(LOUDNESS / max(loud, 1e-6))


def _faded(samples: Signal, seconds: float) -> Signal:
    """The same samples, faded in and out in place."""
    n = min(round(seconds * RATE), len(samples) // 2)
    if n:
        _fade(samples[:n], rising=True)
        _fade(samples[-n:], rising=False)
    return samples


def _fade(samples: Signal, *, rising: bool) -> None:
    """Let samples rise or fall at equal power, in place."""
    along = np.linspace(0, np.pi / 2, len(samples), dtype=np.float32)
    samples *= np.sin(along) if rising else np.cos(along)
