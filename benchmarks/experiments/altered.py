"""Altered copies: are clips found whose speed, tempo or pitch was changed, and how exactly is it told?

    python -m benchmarks.experiments.altered [--clips 40] [--absent 200] [--seed 1]

Works of the report packages, less every fourth package, are the library. Clips of 5 s of them, at random
places, are changed by resampling or Rubber Band, with ambience mixed in at 10 dB, and looked up as
`earmark query` does; so are clips of the packages left out, altered by nothing but the ambience, which go
through the whole ladder of hypotheses. An answer that names another recording with the same audio counts
as wrong, so the shares are lower bounds. CPU time is told as a multiple of that of a clip as it is.
"""

import argparse
import io
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator
from tqdm import tqdm

from benchmarks import corpora
from benchmarks.clips import audible_start
from benchmarks.codecs import cut
from benchmarks.corpora import Item
from benchmarks.degrade import Chain, Noise, Sources, Speed, Step, Stretch, degrade, rng_for
from benchmarks.scoring import share
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY, Fingerprint, fingerprint
from index.library import Library
from index.recording import Metadata
from index.search import Match

SECONDS = 5
AMBIENCE = 10.0  # dB, music above ambience
WHOLE = 24 * 3600.0  # s; longer than any work
LEFT_OUT = 4  # every so many-th package is not in the library
# Largest change: of the tempo as a ratio, of the pitch in semitones.
REACHES = {"to ±20 %, ±3": (1.2, 3.0), "to 1.5, ±6": (1.5, 6.0), "to 2, ±12": (2.0, 12.0)}
FINE_TEMPO, FINE_PITCH = 0.005, 0.1


def _speed(rng: Generator, tempo: float, pitch: float) -> Step:
    reach = min(12 * math.log2(tempo), pitch)
    return Speed(2 ** (rng.uniform(-reach, reach) / 12))


def _tempo(rng: Generator, tempo: float, pitch: float) -> Step:
    return Stretch(tempo=tempo ** rng.uniform(-1, 1))


def _pitch(rng: Generator, tempo: float, pitch: float) -> Step:
    return Stretch(pitch_semitones=rng.uniform(-pitch, pitch))


def _both(rng: Generator, tempo: float, pitch: float) -> Step:
    return Stretch(tempo=tempo ** rng.uniform(-1, 1), pitch_semitones=rng.uniform(-pitch, pitch))


ALTERATIONS: dict[str, Callable[[Generator, float, float], Step]] = {
    "speed": _speed,
    "tempo": _tempo,
    "pitch": _pitch,
    "tempo and pitch": _both,
}


@dataclass(frozen=True)
class Asked:
    """A clip, what was answered, and the CPU seconds that took."""

    recording: str
    tempo: float
    pitch: float
    matches: list[Match]
    seconds: float

    @property
    def identified(self) -> bool:
        return bool(self.matches) and self.matches[0].recording == self.recording

    @property
    def accepted(self) -> bool:
        return (
            self.identified and self.matches[0].tier == "match" and self.matches[0].e_value <= 1e-6
        )

    @property
    def wrong(self) -> bool:
        """Whether it names another recording as a match."""
        return any(m.e_value <= 1e-6 and m.recording != self.recording for m in self.matches)


class Bench:
    """The library, and clips to ask it about."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.encoder = Encoder.load()
        self.library = Library.open(folder, self.encoder, create=True)
        self.seed = seed
        works = corpora.items("report")
        packages = sorted({work.package for work in works})
        absent = set(packages[LEFT_OUT - 1 :: LEFT_OUT])
        self.known = [work for work in works if work.package not in absent]
        self.absent = [work for work in works if work.package in absent]
        self._sources = Sources.from_corpora("report")

    def ingest(self) -> float:
        """Take in the works; hours of them."""
        with self.library.writer() as writer:
            for work in tqdm(self.known, "library", disable=None):
                made = fingerprint(work.audio(), self.encoder, REFERENCE_EVERY)
                writer.add(made, Metadata(made.source, "benchmark", "open-licence", id=work.id))
        return self.library.refresh().seconds / 3600

    def ask(
        self,
        works: Sequence[Item],
        name: str,
        clips: int,
        alter: Callable[[Generator], Step | None],
    ) -> list[Asked]:
        """Clips of the works, altered, and the answers to them."""
        asked = []
        for number in tqdm(range(clips), name, disable=None):
            rng = rng_for(self.seed, name, number)
            work = works[int(rng.integers(len(works)))]
            step = alter(rng)
            chain = Chain((*((step,) if step else ()), Noise("ambience", AMBIENCE)))
            samples, rate = cut(work.audio(), 0.0, WHOLE)
            length = round(SECONDS * chain.tempo * rate)
            start = audible_start(samples, rate, length, rng)
            damaged = degrade(samples[start : start + length], rate, chain, rng, self._sources)
            file = io.BytesIO()
            soundfile.write(file, damaged.samples, damaged.rate, format="FLAC")
            file.seek(0)
            began = time.process_time()
            matches = self._look_up(file)
            spent = time.process_time() - began
            asked.append(Asked(work.id, chain.tempo, chain.pitch_semitones, matches, spent))
        return asked

    def _look_up(self, file: io.BytesIO) -> list[Match]:
        try:
            made: Fingerprint = fingerprint(file, self.encoder, QUERY_EVERY, name="clip.flac")
        except AudioError:
            return []
        return self.library.search(made, max_e_value=math.inf)[0]


def _row(name: str, asked: Sequence[Asked], unit: float) -> str:
    """One line of the table."""
    n = len(asked)

    def shown(count: int) -> str:
        found = share(count, n)
        assert found is not None
        return f"{found.value:.1%} ({found.low:.1%} to {found.high:.1%})"

    right = [a for a in asked if a.accepted]
    tempo = [abs(a.matches[0].tempo / a.tempo - 1) <= FINE_TEMPO for a in right]
    pitch = [abs(a.matches[0].pitch_semitones - a.pitch) <= FINE_PITCH for a in right]
    fine = [f"{np.mean(values):.0%}" if values else "" for values in (tempo, pitch)]
    cost = statistics.median(a.seconds for a in asked) / unit
    cells = (
        name,
        str(n),
        shown(sum(a.identified for a in asked)),
        shown(len(right)),
        str(sum(a.wrong for a in asked)),
        *fine,
        f"{cost:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clips", type=int, default=40, help="of each alteration and reach")
    parser.add_argument("--absent", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder, "library"), args.seed)
        hours = bench.ingest()
        print(
            f"{len(bench.known)} works ({hours:.1f} h) in the library, {len(bench.absent)} left out; "
            f"encoder {bench.encoder.id}\n"
        )
        bench.ask(bench.known, "warm up", 2, lambda rng: Speed(1.1))
        plain = bench.ask(bench.known, "as it is", args.clips, lambda rng: None)
        unit = statistics.median(a.seconds for a in plain)
        print(
            "| 5 s, ambience at 10 dB | clips | identified | accepted | wrong matches "
            "| tempo within 0.5 % | pitch within 0.1 semitone | CPU |\n|---|---|---|---|---|---|---|---|"
        )
        print(_row("as it is", plain, unit), flush=True)
        for reach, limits in REACHES.items():
            for kind, draw in ALTERATIONS.items():
                name = f"{kind}, {reach}"
                asked = bench.ask(
                    bench.known,
                    name,
                    args.clips,
                    lambda rng, draw=draw, limits=limits: draw(rng, *limits),  # type: ignore[misc]
                )
                print(_row(name, asked, unit), flush=True)
        if bench.absent:
            absent = bench.ask(bench.absent, "absent", args.absent, lambda rng: None)
            print(_row("not in the library", absent, unit))


if __name__ == "__main__":
    main()
