"""How closely a scan should look: what several efforts find in a large library, and what they cost.

    python -m benchmarks.experiments.efforts --folder FOLDER [--pieces 40]

FOLDER is one in which `benchmarks.scale` has grown a library. Pieces of a minute are made of the tune
packages' recordings that are in it: under pink noise as loud as they are, sped up and slowed by 5 %, mixed
two and two, and ten seconds of one inside a minute of music that is not in it; and of the latter alone.
Printed for each effort are the shares of works found, with an E-value of a millionth or less, and the CPU
time of the search for a second of each kind.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soxr
from numpy.random import Generator
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks import corpora
from benchmarks.calibration.calibrate import fingerprint_of
from benchmarks.scale import Music, identifier, noisy
from fingerprint.audio import SAMPLE_RATE, read_audio
from fingerprint.cores import work_on
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY, Fingerprint
from index.library import Library
from index.search import QUICK, THOROUGH
from index.significance import MATCH
from index.votes import Effort

EFFORTS = (
    Effort(8, 20, 128, 25_000, 24),
    Effort(8, 20, 128, 50_000, 24),
    Effort(8, 20, 128, 100_000, 24),
    QUICK,
    Effort(8, 20, 128, 50_000, 8),
    Effort(8, 20, 128, 200_000, 24),
    Effort(16, 20, 128, 100_000, 24),
    THOROUGH,
)
PIECE = 60.0  # s
INSIDE = 10.0  # s
FASTER = 1.05
QUIETEST = 1e-3  # level under which a piece says nothing
Signal = NDArray[np.float32]


class Piece(NamedTuple):
    """A fingerprint, and the recordings that are heard in it."""

    kind: str
    recordings: frozenset[str]
    fingerprint: Fingerprint


class Pieces:
    """Makes pieces of recordings that are in a library, by their id, and of others."""

    def __init__(self, folder: Path, encoder: Encoder, real: int) -> None:
        music = Music.of(folder / "real", encoder, real)
        tune = {str(item.audio()) for item in corpora.items("tune")}
        self._encoder = encoder
        self._known = [
            (identifier(number), read_audio(Path(made.source)))
            for number, made in enumerate(music.known)
            if made.source in tune and made.duration > PIECE * FASTER + 1
        ]
        self._absent = [
            ("", read_audio(Path(made.source)))
            for made in music.absent
            if made.duration > PIECE + 1
        ]

    def draw(self, count: int) -> Iterator[Piece]:
        """So many of each kind."""
        makers = {
            "noise": self._noise,
            "sped up": lambda rng: self._speed(rng, FASTER),
            "slowed": lambda rng: self._speed(rng, 1 / FASTER),
            "mixed": self._mixed,
            "inside": self._inside,
            "absent": lambda rng: ((), self._cut(rng, self._absent, PIECE)[1]),
        }
        for kind, make in makers.items():
            for number in tqdm(range(count), kind, disable=None):
                recordings, samples = make(
                    np.random.default_rng([list(makers).index(kind), number])
                )
                try:
                    made = fingerprint_of(samples, self._encoder, QUERY_EVERY)
                except AudioError:  # a pause in the music
                    continue
                yield Piece(kind, frozenset(recordings), made)

    def _cut(
        self, rng: Generator, of: list[tuple[str, Signal]], seconds: float
    ) -> tuple[str, Signal]:
        while True:
            recording, samples = of[rng.integers(len(of))]
            count = int(seconds * SAMPLE_RATE)
            start = int(rng.integers(max(1, len(samples) - count)))
            cut = samples[start : start + count]
            if _level(cut) > QUIETEST:
                return recording, cut.copy()

    def _noise(self, rng: Generator) -> tuple[tuple[str, ...], Signal]:
        recording, samples = self._cut(rng, self._known, PIECE)
        return (recording,), noisy(samples, rng, 0.0)

    def _speed(self, rng: Generator, factor: float) -> tuple[tuple[str, ...], Signal]:
        recording, samples = self._cut(rng, self._known, PIECE * factor)
        return (recording,), soxr.resample(samples, SAMPLE_RATE * factor, SAMPLE_RATE)

    def _mixed(self, rng: Generator) -> tuple[tuple[str, ...], Signal]:
        (first, one), (second, other) = (self._cut(rng, self._known, PIECE) for _ in range(2))
        return (first, second), _at_level(one, 0.1) + _at_level(other, 0.1)

    def _inside(self, rng: Generator) -> tuple[tuple[str, ...], Signal]:
        recording, inside = self._cut(rng, self._known, INSIDE)
        _, samples = self._cut(rng, self._absent, PIECE)
        start = int(rng.integers(len(samples) - len(inside)))
        samples[start : start + len(inside)] = _at_level(inside, _level(samples))
        return (recording,), samples


def _level(samples: Signal) -> float:
    return float(np.sqrt(np.mean(samples**2)))


def _at_level(samples: Signal, level: float) -> Signal:
    return samples * np.float32(level / _level(samples))


def measure(library: Library, pieces: list[Piece], effort: Effort) -> Iterator[str]:
    """For each kind the share found, and milliseconds of CPU for a second of it."""
    for kind in dict.fromkeys(piece.kind for piece in pieces):
        of_kind = [piece for piece in pieces if piece.kind == kind]
        sought = sum(len(piece.recordings) for piece in of_kind)
        found, started = 0, time.process_time()
        for piece in of_kind:
            matches, _ = library.search(piece.fingerprint, hypotheses=0, effort=effort)
            named = {match.recording for match in matches if match.e_value <= MATCH}
            found += len(named & piece.recordings)
        spent = time.process_time() - started
        cost = 1000 * spent / sum(piece.fingerprint.duration for piece in of_kind)
        yield (f"{found / sought:.0%}, " if sought else "") + f"{cost:.1f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True, help="of benchmarks.scale")
    parser.add_argument("--real", type=int, default=400, help="as it was given to that")
    parser.add_argument("--pieces", type=int, default=40, help="of each kind")
    args = parser.parse_args()
    work_on(1)
    encoder = Encoder.load()
    library = Library.open(args.folder / "library", encoder)
    pieces = list(Pieces(args.folder, encoder, args.real).draw(args.pieces))
    library.search(pieces[0].fingerprint, hypotheses=0)  # compiles, or loads from the cache
    kinds = list(dict.fromkeys(piece.kind for piece in pieces))
    print(f"| {', '.join(Effort._fields)} | {' | '.join(kinds)} |\n|---|{'---:|' * len(kinds)}")
    for effort in EFFORTS:
        name = ", ".join(f"{value:,}" for value in effort)
        print(f"| {name} | {' | '.join(measure(library, pieces, effort))} |", flush=True)


if __name__ == "__main__":
    main()
