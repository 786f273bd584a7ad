"""Are unchanged clips said to be unchanged, and do the intervals of tempo and pitch hold the truth?

    python -m benchmarks.changes --folder FOLDER [--split report] [--unchanged 480] [--changed 480] [--seed 1]

Clips of 2, 3, 5 and 8 s at random places of a split's works, as they are or changed in speed, tempo, pitch
or both (by up to 20 % and 3 semitones, resampled or by Rubber Band), then damaged by ambience at 10 dB, MP3
at 64 kbit/s, a telephone or a synthetic room, are looked up among all works of the split, with the whole
ladder of hypotheses. Counted are, for answers that name the clip's work as a match: unchanged clips of
which a change is said; changed clips of whose tempo and pitch the interval holds the truth, and how wide
the intervals are.

Clips and answers are kept in FOLDER, so that a run that was stopped goes on from there.
"""

import argparse
import contextlib
import io
import pickle
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator
from tqdm import tqdm

from benchmarks import corpora
from benchmarks.calibrate import library_of
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
from benchmarks.scoring import share
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY, Fingerprint, fingerprint
from index.query_context import Question
from index.search import Match, search
from index.significance import REVIEW, Calibration
from index.snapshot import Snapshot

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
            with contextlib.suppress(AudioError):
                made = fingerprint(file, encoder, QUERY_EVERY, name="clip.flac")
            one = Clip(item.id, seconds, what, start, chain.tempo, chain.pitch_semitones, made)
            kept.write_bytes(pickle.dumps(one))
        yield pickle.loads(kept.read_bytes())


def audible(item: corpora.Item, seconds: float, rng: Generator) -> tuple[float, Samples, int]:
    """Where a stretch of a work begins, in seconds; its samples and their rate: of a few draws the
    loudest."""
    drawn = []
    for _ in range(DRAWS):
        start = float(rng.uniform(0, max(0.0, item.duration - seconds - 1)))
        samples, rate = cut(item.audio(), start, seconds)
        drawn.append((float(np.mean(np.square(samples, dtype=np.float64))), start, samples, rate))
        if drawn[-1][0] > AUDIBLE:
            break
    _, start, samples, rate = max(drawn, key=lambda it: it[0])
    return start, samples, rate


@dataclass(frozen=True)
class Told:
    """What was said of a clip: the best match, if it names the clip's work."""

    clip: Clip
    match: Match


def ask(asked: Iterable[Clip], split: str) -> Iterator[Told]:
    """Look clips up among all works of the split; told of are those whose work is named as a match."""
    encoder = Encoder.load()
    names, codes = library_of(encoder, split)
    snapshot = Snapshot.of(codes, encoder.codec)
    calibration = Calibration.of(encoder.id)
    for clip in asked:
        if clip.made is None:
            continue
        matches = search(Question(clip.made, snapshot, encoder), calibration, REVIEW)
        best = matches[0] if matches else None
        if best and names[int(best.recording)] == clip.work and best.tier == "match":
            yield Told(clip, best)


def report(told: Sequence[Told]) -> Iterator[str]:
    """Unchanged clips of which a change is said; how often intervals hold the truth, and their widths."""
    yield "| clips | s | answered | a change is said | tempo held | pitch held | width of tempo | of pitch |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for changed in (False, True):
        for seconds in (*LENGTHS, None):
            some = [
                it
                for it in told
                if it.clip.changed == changed and seconds in (it.clip.seconds, None)
            ]
            if not some:
                continue
            n = len(some)
            said = sum(it.match.changed for it in some)
            tempo = sum(
                _held(it.clip.tempo, it.match.tempo_low, it.match.tempo_high) for it in some
            )
            pitch = sum(
                _held(it.clip.pitch, it.match.pitch_low, it.match.pitch_high) for it in some
            )
            wide = [
                (
                    it.match.tempo_high / it.match.tempo_low - 1,
                    it.match.pitch_high - it.match.pitch_low,
                )
                for it in some
                if None not in (it.match.tempo_high, it.match.tempo_low)
                and it.match.pitch_high is not None
                and it.match.pitch_low is not None
                and it.match.tempo_low
                and it.match.tempo_high
            ]
            widths = np.median(np.array(wide), axis=0)
            of = "changed" if changed else "unchanged"
            yield (
                f"| {of} | {seconds or 'all'} | {n} | {_share(said, n)} | {_share(tempo, n)} | "
                f"{_share(pitch, n)} | {widths[0]:.2%} | {widths[1]:.2f} semitones |"
            )


def _held(truth: float, low: float | None, high: float | None) -> bool:
    return low is not None and high is not None and low <= truth <= high


def _share(count: int, n: int) -> str:
    interval = share(count, n)
    assert interval is not None
    return f"{interval.value:.1%} ({interval.low:.1%} to {interval.high:.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--split", default="report")
    parser.add_argument("--unchanged", type=int, default=480)
    parser.add_argument("--changed", type=int, default=480)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if not corpora.items(args.split):
        parser.error(f"no music: python -m benchmarks.corpora fetch --split {args.split}")
    told = [
        it
        for count, changed in ((args.unchanged, False), (args.changed, True))
        for it in ask(clips(args.split, count, changed, args.seed, args.folder), args.split)
    ]
    print("\n".join(report(told)))


if __name__ == "__main__":
    main()
