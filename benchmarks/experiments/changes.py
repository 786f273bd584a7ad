"""Are unchanged clips said to be unchanged, and do the intervals of tempo and pitch hold the truth?

    python -m benchmarks.experiments.changes --folder FOLDER [--split report] [--unchanged 480] \
        [--changed 480] [--seed 1]

Clips of 2, 3, 5 and 8 s at random places of a split's works, as they are or changed in speed, tempo, pitch
or both (by up to 20 % and 3 semitones, resampled or by Rubber Band), then damaged by ambience at 10 dB, MP3
at 64 kbit/s, a telephone or a synthetic room, are looked up among all works of the split, with the whole
ladder of hypotheses. Counted are, for answers that name the clip's work as a match: unchanged clips of
which a change is said; changed clips of whose tempo and pitch the interval holds the truth, and how wide
the intervals are.

With --laid nothing is searched: clips are laid where they were cut from, under the rung and slope of the
ladder that are nearest. Clips are kept in FOLDER, so that a run that was stopped goes on from there.
"""

import argparse
import contextlib
import io
import math
import pickle
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator
from tqdm import tqdm

from benchmarks import corpora
from benchmarks.calibration.calibrate import library_of
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
from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY, Fingerprint, fingerprint
from fingerprint.hypotheses import LADDER, UNALTERED, Hypothesis
from index.align import align_near
from index.ladder import SLOPES
from index.query_context import Question
from index.refine import refined
from index.search import search
from index.significance import MATCH, REVIEW, Calibration
from index.snapshot import Snapshot

LENGTHS = (2.0, 3.0, 5.0, 8.0)  # s
DAMAGES = ("noise", "mp3", "telephone", "room")
MOST_TEMPO = 1.2  # ratio
MOST_PITCH = 3.0  # semitones
LIBRARY = 345_600  # embeddings of 48 h
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
    """What was said of a clip."""

    clip: Clip
    changed: bool
    tempo: tuple[float, float]  # ends of the interval
    pitch: tuple[float, float]


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
        if not best or names[int(best.recording)] != clip.work or best.tier != "match":
            continue
        ends = best.tempo_low, best.tempo_high, best.pitch_low, best.pitch_high
        low, high, below, above = (math.nan if end is None else end for end in ends)
        yield Told(clip, best.changed, (low, high), (below, above))


def lay(asked: Iterable[Clip], split: str) -> Iterator[Told]:
    """Lay clips where they were cut from, under the nearest rung and slope that a search would come from.

    Told are those whose alignment there has the E-value of a match in a library of LIBRARY embeddings.
    """
    encoder = Encoder.load()
    calibration = Calibration.of(encoder.id)
    codes = dict(zip(*library_of(encoder, split), strict=True))
    for clip in asked:
        if clip.made is None or clip.work not in codes:
            continue
        question = Question(clip.made, Snapshot.of([codes[clip.work]], encoder.codec), encoder)
        near = min(
            (Hypothesis(rung.tempo * slope, rung.pitch) for rung in LADDER for slope in SLOPES),
            key=lambda it: abs(math.log(it.tempo / clip.tempo)) + abs(it.pitch - clip.pitch),
        )
        view = question.view(near if clip.changed else UNALTERED, 0.0, clip.made.duration)
        middle = clip.made.duration / 2
        reference = clip.start + middle * clip.tempo - clip.made.reach
        step = encoder.step * REFERENCE_EVERY
        offset = REFERENCE_EVERY * reference / step - (middle - view.start) / view.step
        found = next(align_near(question, view, 0, round(offset)), None)
        hypotheses = 1 + len(LADDER) if clip.changed else 1
        size = len(clip.made.embeddings), LIBRARY
        if found is None or calibration.e_value(found.score, *size, hypotheses) > MATCH:
            continue
        change = refined(found, question).change
        if change is not None:
            tempo, pitch = (
                (change.tempo_low, change.tempo_high),
                (change.pitch_low, change.pitch_high),
            )
            yield Told(clip, change.changed, tempo, pitch)


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
            said = sum(it.changed for it in some)
            tempo = sum(it.tempo[0] <= it.clip.tempo <= it.tempo[1] for it in some)
            pitch = sum(it.pitch[0] <= it.clip.pitch <= it.pitch[1] for it in some)
            widths = (
                np.median([it.tempo[1] / it.tempo[0] - 1 for it in some]),
                np.median([it.pitch[1] - it.pitch[0] for it in some]),
            )
            of = "changed" if changed else "unchanged"
            yield (
                f"| {of} | {seconds or 'all'} | {n} | {_share(said, n)} | {_share(tempo, n)} | "
                f"{_share(pitch, n)} | {widths[0]:.2%} | {widths[1]:.2f} semitones |"
            )


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
    parser.add_argument("--laid", action="store_true", help="lay clips at their place, no search")
    args = parser.parse_args()
    if not corpora.items(args.split):
        parser.error(f"no music: python -m benchmarks.corpora fetch --split {args.split}")
    told = [
        it
        for count, changed in ((args.unchanged, False), (args.changed, True))
        for it in (lay if args.laid else ask)(
            clips(args.split, count, changed, args.seed, args.folder), args.split
        )
    ]
    print("\n".join(report(told)))


if __name__ == "__main__":
    main()
