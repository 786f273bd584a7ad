"""Are unchanged clips said to be unchanged, and do the intervals of tempo and pitch hold the truth?

    python -m benchmarks.changes --folder FOLDER [--split report] [--unchanged 480] [--changed 480] [--seed 1]

Clips of 2, 3, 5 and 8 s at random places of a split's works, as they are or changed in speed, tempo, pitch or
both (by up to 20 % and 3 semitones, resampled or by Rubber Band), then damaged by ambience at 10 dB, MP3 at
64 kbit/s, a telephone or a synthetic room, are looked up among all works of the split, with the whole ladder of
hypotheses. Counted are, for answers that name the clip's work as a match: unchanged clips of which a change is
said; changed clips of whose tempo and pitch the interval holds the truth, and how wide the intervals are.

Clips and answers are kept in FOLDER, so that a run that was stopped goes on from there.
"""

import argparse
import io
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator
from tqdm import tqdm

from benchmarks import corpora
from benchmarks.codecs import Samples, cut
from benchmarks.degrade import (
    BandPass,
    Chain,
    Coded,
    Noise,
    Sources,
    Speed,
    Step,
    Stretch,
    SyntheticRoom,
    degrade,
    rng_for,
)
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY, Fingerprint, fingerprint

LENGTHS = (2.0, 3.0, 5.0, 8.0)  # s
DAMAGES = ("noise", "mp3", "telephone", "room")
MOST_TEMPO = 1.2  # ratio
MOST_PITCH = 3.0  # semitones
DRAWS = 5  # places looked at, up to the first that is…
AUDIBLE = 1e-4  # …of this mean power (-40 dB re full scale)


@dataclass(frozen=True)
class Clip:
    """A clip that was made, and what was done to it; `made` is None of a pause in the music."""

    work: str
    seconds: float
    damage: str
    start: float  # s, of the work
    tempo: float
    pitch: float  # semitones
    made: Fingerprint | None

    @property
    def changed(self) -> bool:
        return (self.tempo, self.pitch) != (1.0, 0.0)


def change(rng: Generator) -> Step:
    """Speed, tempo, pitch, or tempo and pitch apart; equally often up and down."""
    tempo = MOST_TEMPO ** rng.uniform(-1, 1)
    pitch = rng.uniform(-MOST_PITCH, MOST_PITCH)
    kind = rng.integers(4)
    if kind == 0:
        return Speed(tempo)
    if kind == 1:
        return Stretch(tempo=tempo)
    if kind == 2:
        return Stretch(pitch_semitones=pitch)
    return Stretch(tempo=tempo, pitch_semitones=pitch)


def damage(name: str, rng: Generator) -> tuple[Step, ...]:
    """The steps of one of DAMAGES."""
    if name == "noise":
        return (Noise("ambience", 10.0),)
    if name == "mp3":
        return (Coded("mp3-64"),)
    if name == "telephone":
        return (BandPass(300.0, 3_400.0), Coded("gsm"))
    room = SyntheticRoom(float(rng.uniform(0.2, 0.7)), float(rng.uniform(-3.0, 6.0)))
    return (room,)


def clips(split: str, count: int, changed: bool, seed: int, folder: Path) -> Iterator[Clip]:
    """So many clips of a split's works, of all lengths and damages alike; those kept are not made again."""
    encoder = Encoder.load()
    works = corpora.items(split)
    sources = Sources.from_corpora(split)
    folder.mkdir(parents=True, exist_ok=True)
    for number in tqdm(range(count), "changed" if changed else "unchanged", disable=None):
        kept = folder / f"{split}-{encoder.id}-{seed}-{int(changed)}-{number}.pickle"
        if not kept.is_file():
            rng = rng_for(seed, split, int(changed), number)
            item = works[int(rng.integers(len(works)))]
            seconds = LENGTHS[number % len(LENGTHS)]
            what = DAMAGES[number // len(LENGTHS) % len(DAMAGES)]
            chain = Chain(((change(rng),) if changed else ()) + damage(what, rng))
            start, samples, rate = audible(item, seconds * chain.tempo, rng)
            damaged = degrade(samples, rate, chain, rng, sources)
            file = io.BytesIO()
            soundfile.write(file, damaged.samples, damaged.rate, format="FLAC")
            file.seek(0)
            made: Fingerprint | None = None
            try:
                made = fingerprint(file, encoder, QUERY_EVERY, name="clip.flac")
            except AudioError:
                pass
            one = Clip(
                item.id, seconds, what, start, chain.tempo, chain.pitch_semitones, made
            )
            kept.write_bytes(pickle.dumps(one))
        yield pickle.loads(kept.read_bytes())


def audible(item: corpora.Item, seconds: float, rng: Generator) -> tuple[float, Samples, int]:
    """Where a stretch of a work begins, in seconds; its samples and their rate: of a few draws the loudest."""
    drawn = []
    for _ in range(DRAWS):
        start = float(rng.uniform(0, max(0.0, item.duration - seconds - 1)))
        samples, rate = cut(item.audio(), start, seconds)
        drawn.append((float(np.mean(np.square(samples, dtype=np.float64))), start, samples, rate))
        if drawn[-1][0] > AUDIBLE:
            break
    _, start, samples, rate = max(drawn, key=lambda it: it[0])
    return start, samples, rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--split", default="report")
    parser.add_argument("--unchanged", type=int, default=480)
    parser.add_argument("--changed", type=int, default=480)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    list(clips(args.split, args.unchanged, False, args.seed, args.folder))
    list(clips(args.split, args.changed, True, args.seed, args.folder))


if __name__ == "__main__":
    main()
