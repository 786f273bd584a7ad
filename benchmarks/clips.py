"""The clips of a plan as files, and the truth of each; both survive being interrupted.

    <work folder>/clips/<id>.flac   what every system is given: 44.1 kHz, 16 bit
    <work folder>/clips.jsonl       a `MadeClip` a line, written when all clips of its work are there
    <work folder>/truth.jsonl       where else in the library a clip's audio is heard

Damage from a codec is done by that codec and then kept in FLAC, so that all systems decode the same bytes
equally fast. Each work is decoded once and all its clips are cut from it.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from tqdm import tqdm

from benchmarks.codecs import Samples, cut, write
from benchmarks.degrade import DEGRADATIONS, Sources, degrade, rng_for
from benchmarks.journal import Journal
from benchmarks.plan import Clip, Plan
from benchmarks.truth import SHORTEST, Cut, Place, Truth
from fingerprint.audio import read_audio
from fingerprint.errors import EarmarkError

AUDIBLE = -50.0  # dB re full scale, of 0.1 s of the clean signal…
AUDIBLE_SHARE = 0.5  # …that this share of a clip must reach
DRAWS = 20  # beginnings tried in search of an audible clip
TRUTH_BATCH = 500  # clips looked up together, and lost by a kill
WHOLE = 24 * 3600.0  # s; longer than any work


@dataclass(frozen=True)
class MadeClip:
    """What is known of a clip; times in seconds."""

    id: str
    work: str
    degradation: str
    seconds: int
    absent: bool
    offset: float = 0.0  # of its music in the work
    tempo: float = 1.0  # reference seconds that pass per clip second
    pitch_semitones: float = 0.0
    lead: float = 0.0  # before its music
    duration: float = 0.0  # of the file
    mixed: tuple[tuple[str, float], ...] = ()  # (work, offset) of other works in it
    sha256: str = ""  # of the file
    problem: str | None = None  # why there is no file

    @property
    def cuts(self) -> list[Cut]:
        """The stretches of clean music that can be heard in it, its own first."""
        # Truth looks at no less than SHORTEST; that much of the music is there but for the last
        # tenths of a second of 1-s clips that were slowed down.
        seconds = max(self.seconds * self.tempo, SHORTEST)
        other = max(float(self.seconds), SHORTEST)
        return [
            Cut(self.work, self.offset, seconds),
            *(Cut(work, offset, other) for work, offset in self.mixed),
        ]


@dataclass(frozen=True)
class Material:
    """What clips are made of."""

    plan: Plan
    audio: Mapping[str, Path]  # of every work in the plan
    present: Sources  # mixed into clips whose work is in the library
    absent: Sources  # mixed into the others


def make_clips(
    material: Material, folder: Path, *, workers: int = 1, quiet: bool = False
) -> list[MadeClip]:
    """Make the files that are not there yet; all clips of the plan, in its order."""
    journal = Journal(folder / "clips.jsonl")
    (folder / "clips").mkdir(exist_ok=True)
    done = {entry["id"] for entry in journal.entries}
    waiting: dict[str, list[Clip]] = {}
    for clip in material.plan.clips:
        if clip.id not in done:
            waiting.setdefault(clip.work, []).append(clip)
    for made_of_work in _progress(
        _made_works(material, waiting, folder / "clips", workers), len(waiting), "work", quiet
    ):
        journal.append(asdict(made) for made in made_of_work)
    made = {entry["id"]: _made_clip(entry) for entry in journal.entries}
    return [made[clip.id] for clip in material.plan.clips]


def _made_works(
    material: Material, waiting: Mapping[str, Sequence[Clip]], folder: Path, workers: int
) -> Iterator[list[MadeClip]]:
    """The clips of each work, as they get ready."""
    if workers == 1:
        for work, clips in waiting.items():
            yield _make_of_work(material, work, clips, folder)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _end_with_parent) as pool:
        jobs = [
            pool.submit(_make_of_work, material, work, clips, folder)
            for work, clips in waiting.items()
        ]
        for job in as_completed(jobs):
            yield job.result()


def _end_with_parent() -> None:
    """Keep a worker from outliving a parent that was killed: it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _made_clip(entry: dict[str, Any]) -> MadeClip:
    return MadeClip(**entry | {"mixed": tuple((work, at) for work, at in entry["mixed"])})


def _make_of_work(
    material: Material, work: str, clips: Sequence[Clip], folder: Path
) -> list[MadeClip]:
    """All clips of one work; a clip that cannot be made says why."""
    try:
        samples, rate = cut(material.audio[work], 0.0, WHOLE)
    except (EarmarkError, OSError, ValueError) as error:
        return [_failed(clip, f"{work} cannot be decoded: {error}") for clip in clips]
    names = {path: id for id, path in material.audio.items()}
    made = []
    for clip in clips:
        try:
            made.append(_make(material, clip, samples, rate, names, folder))
        except EarmarkError as error:
            made.append(_failed(clip, str(error)))
    return made


def _failed(clip: Clip, problem: str) -> MadeClip:
    return MadeClip(**asdict(clip), problem=problem)


def _make(
    material: Material,
    clip: Clip,
    samples: Samples,
    rate: int,
    names: Mapping[Path, str],
    folder: Path,
) -> MadeClip:
    rng = rng_for(material.plan.seed, clip.id)
    chain = DEGRADATIONS[clip.degradation].draw(rng)
    length = round(clip.seconds * chain.tempo * rate)
    start = audible_start(samples, rate, length, rng)
    sources = material.absent if clip.absent else material.present
    damaged = degrade(samples[start : start + length], rate, chain, rng, sources)
    path = write(folder / f"{clip.id}.flac", damaged.samples, damaged.rate, "flac")
    return MadeClip(
        **asdict(clip),
        offset=start / rate,
        tempo=damaged.tempo,
        pitch_semitones=damaged.pitch_semitones,
        lead=damaged.lead,
        duration=len(damaged.samples) / damaged.rate,
        mixed=tuple((names[other.source], other.offset) for other in damaged.mixed),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def audible_start(samples: Samples, rate: int, length: int, rng: Generator) -> int:
    """Where a clip of `length` frames begins: at random, but where there is something to be heard.

    The loudest of `DRAWS` places if none is audible.
    """
    block = max(rate // 10, 1)
    blocks = samples[: len(samples) // block * block].reshape(-1, block, samples.shape[1])
    level = 10 * np.log10(np.mean(np.square(blocks), axis=(1, 2), dtype=np.float64) + 1e-12)
    best, best_share = 0, -1.0
    for start in rng.integers(0, max(len(samples) - length, 0) + 1, DRAWS):
        first = int(start) // block
        share = float(
            np.mean(level[first : max((int(start) + length) // block, first + 1)] > AUDIBLE)
        )
        if share >= AUDIBLE_SHARE:
            return int(start)
        if share > best_share:
            best, best_share = int(start), share
    return best


def find_truth(
    plan: Plan,
    clips: Sequence[MadeClip],
    audio: Mapping[str, Path],
    folder: Path,
    *,
    quiet: bool = False,
) -> dict[str, list[Place]]:
    """For every clip id the places in the library with the same audio.

    Absent clips are looked up as well: one with a place in the library is not absent after all.
    """
    journal = Journal(folder / "truth.jsonl")
    done = {entry["id"] for entry in journal.entries}
    waiting = [clip for clip in clips if clip.problem is None and clip.id not in done]
    if waiting:
        truth = Truth()
        for work in _progress(plan.roles, len(plan.roles), "work", quiet):
            truth.add(work, read_audio(audio[work]))
        with _bar(len(waiting), "clip", quiet) as bar:
            for first in range(0, len(waiting), TRUTH_BATCH):
                batch = waiting[first : first + TRUTH_BATCH]
                journal.append(_places(plan, batch, truth))
                bar.update(len(batch))
    return {e["id"]: [Place(work, at) for work, at in e["places"]] for e in journal.entries}


def _places(plan: Plan, clips: Sequence[MadeClip], truth: Truth) -> list[dict[str, Any]]:
    """Truth of several clips. What lies in works that the library does not have is left out."""
    owners = [clip.id for clip in clips for _ in clip.cuts]
    found = truth.places([stretch for clip in clips for stretch in clip.cuts])
    places: dict[str, list[tuple[str, float]]] = {clip.id: [] for clip in clips}
    for owner, several in zip(owners, found, strict=True):
        places[owner] += [
            (place.recording, round(place.offset, 4))
            for place in several
            if plan.roles[place.recording] != "absent"
        ]
    return [{"id": id, "places": several} for id, several in places.items()]


def _progress(things: Any, total: int, unit: str, quiet: bool) -> Any:
    return tqdm(things, total=total, unit=unit, disable=True if quiet else None)


def _bar(total: int, unit: str, quiet: bool) -> Any:
    return tqdm(total=total, unit=unit, disable=True if quiet else None)


def clips_digest(clips: Sequence[MadeClip]) -> str:
    """One hash of all the clips' files."""
    text = "".join(f"{clip.id} {clip.sha256}\n" for clip in clips)
    return hashlib.sha256(text.encode()).hexdigest()


def recipe_digest() -> str:
    """A hash of the code that makes clips: another recipe gives other clips for the same seed."""
    here = Path(__file__).parent
    sources = ("clips.py", "codecs.py", "degrade.py", "plan.py", "truth.py")
    text = b"".join((here / name).read_bytes() for name in sources)
    return hashlib.sha256(text).hexdigest()[:16]
