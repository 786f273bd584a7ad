"""Fit the chance of scores on music that is not in the library, for `index/calibration.json`.

    python -m benchmarks.calibration.calibrate [--clips 600] [--altered 150] [--encoder WEIGHTS] \
        [--scores FILE] [--write]
    python -m benchmarks.calibration.calibrate --among 100 [--clips 240] [--altered 40]

Clips of the tune packages, half of them damaged, are looked for among all music of the train packages, of
which splits share no artist: as they are, and others under the whole ladder of hypotheses; so are stretches
of the tune packages' stored codes, with which `earmark verify --calibration` compares a library's. Every
alignment found is chance, or one of related music, which `index.tail_fit` tells apart and fits without.
Printed are λ with its interval (works drawn with replacement), stated beside observed numbers of chance
matches, and the related pairs. The table also keeps how close the clips came, related or not: what answers
say of chance.

Of 30 s under the ladder nothing is looked for: it looks at each ten seconds by themselves. With --scores what
was found is kept, and a second run fits it again without searching.

With --among nothing is fitted: clips are looked for among so many works of the train packages, drawn at
random, and the table's fit is laid beside what they find, the library counting as of some size at least.
"""

import argparse
import io
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from benchmarks import corpora
from benchmarks.damage import Background, Signal, degrade
from fingerprint.audio import SAMPLE_RATE, read_audio
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY, Fingerprint, fingerprint
from fingerprint.hypotheses import LADDER, Hypothesis
from index.library_calibration import look_at
from index.query_context import Question
from index.segment import Codes
from index.significance import TABLE, Calibration, Tail
from index.snapshot import Snapshot
from index.tail_fit import Fit, Look, fit, peaks, tail_of, without

LENGTHS = (1.0, 2.0, 5.0, 10.0, 30.0)  # seconds
ALTERED_LENGTHS = (1.0, 2.0, 5.0, 10.0)  # seconds, under the ladder
E_VALUES = (1.0, 0.1, 0.01, 0.001)
TESTED = {"unaltered": "tested", "altered": "tested_altered"}
NOTED = 0.1  # largest E-value of a test's best answers that the table keeps
COUNTED_AS = (60_000, 100_000, 150_000, 250_000)  # embeddings


class Asking:
    """Clips of the tune packages, put to a library of the train packages."""

    def __init__(self, encoder: Encoder, seed: int, among: int | None = None) -> None:
        """among : how many works of the train packages are the library; all, if it is None"""
        self.encoder = encoder
        self.works = [(item.id, samples) for item, samples in tune_works()]
        self.background = background_of([samples for _, samples in self.works])
        names, codes = library_of(encoder)
        chosen = sorted(np.random.default_rng([seed, 1]).permutation(len(names))[:among])
        self.names = [names[number] for number in chosen]
        self.snapshot = Snapshot.of([codes[number] for number in chosen], encoder.codec)
        self.rng = np.random.default_rng(seed)

    def looks(
        self, clips: int, lengths: Sequence[float], rungs: Sequence[Hypothesis]
    ) -> Iterator[Look]:
        """What so many clips of each length are like; under the rungs only, if there are any."""
        for length in lengths:
            for number in tqdm(range(clips), f"clips of {length:g} s", disable=None):
                work, samples = self.works[self.rng.integers(len(self.works))]
                count = int(length * SAMPLE_RATE)
                start = int(self.rng.integers(max(1, len(samples) - count)))
                clip = samples[start : start + count]
                if number % 2:
                    clip = degrade(self.rng, clip, self.background)
                try:
                    made = fingerprint_of(clip, self.encoder, QUERY_EVERY)
                except AudioError:  # a pause in the music
                    continue
                question = Question(made, self.snapshot, self.encoder)
                found = peaks(question, rungs)
                place = start / SAMPLE_RATE
                yield Look(
                    work,
                    place,
                    place + length,
                    length,
                    *question.size,
                    self._named(found.altered if rungs else found.unaltered),
                )

    def stored_looks(self, clips: int, lengths: Sequence[int]) -> Iterator[Look]:
        """What stretches of the tune packages' stored codes are like, of so many query embeddings."""
        decode = self.encoder.codec.decode
        stored = {
            name: decode(codes.lists, codes.codes)
            for name, codes in zip(*library_of(self.encoder, "tune"), strict=True)
        }
        names = sorted(stored)
        for length in lengths:
            for _ in tqdm(range(clips), f"stored, {length} embeddings", disable=None):
                work = names[self.rng.integers(len(names))]
                look = look_at(work, stored[work], length, self.snapshot, self.encoder, self.rng)
                found = {int(place): score for place, score in look.peaks.items()}
                yield replace(look, peaks=self._named(found))

    def _named(self, found: dict[int, float]) -> dict[str, float]:
        return {self.names[recording]: score for recording, score in found.items()}


def library_of(encoder: Encoder, split: str = "train") -> tuple[list[str], list[Codes]]:
    """Ids and codes of the works of a split; kept in the cache, since making them takes minutes."""
    items = corpora.items(split)
    if not items:
        sys.exit(f"no music of the {split} packages: python -m benchmarks.corpora fetch")
    kept = corpora.cache_folder() / "codes" / f"{encoder.id}-{split}.npz"
    if kept.is_file():
        with np.load(kept) as stored:
            if stored["names"].tolist() == [item.id for item in items]:
                ends = stored["ends"][:-1]
                lists, codes = (np.split(stored[name], ends) for name in ("lists", "codes"))
                return stored["names"].tolist(), list(map(Codes, lists, codes))
    made = []
    for item in tqdm(items, f"{split} music", disable=None):
        try:
            made.append(codes_of(read_audio(item.audio()), encoder))
        except AudioError:
            made.append(Codes(*encoder.codec.encode(np.empty((0, encoder.dimension), np.float32))))
    kept.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        kept,
        names=[item.id for item in items],
        ends=np.cumsum([len(codes) for codes in made]),
        lists=np.concatenate([codes.lists for codes in made]),
        codes=np.concatenate([codes.codes for codes in made]),
    )
    return [item.id for item in items], made


def tune_works() -> list[tuple[corpora.Item, Signal]]:
    """The works of the tune packages and their samples."""
    return works_of("tune")


def works_of(split: str, most: int | None = None) -> list[tuple[corpora.Item, Signal]]:
    """Works of a split, at most so many of them, drawn at random, and their samples."""
    items = corpora.items(split)
    if not items:
        sys.exit(
            f"no music of the {split} packages: python -m benchmarks.corpora fetch --split {split}"
        )
    chosen = sorted(np.random.default_rng(1).permutation(len(items))[:most])
    return [
        (items[number], read_audio(items[number].audio()))
        for number in tqdm(chosen, "works", disable=None)
    ]


def background_of(music: list[Signal]) -> Background:
    """What damages clips: this music, and the tune packages' noise and speech."""
    return Background(
        music=partial(_any, music),
        ambience=partial(_any, _sounds("noise")),
        speech=partial(_any, _sounds("speech")),
        rooms=[],
    )


@cache
def _sounds(kind: str) -> list[Signal]:
    return [read_audio(item.audio()) for item in corpora.items("tune", (kind,))]


def _any(sounds: list[Signal], rng: np.random.Generator, n: int) -> Signal:
    return stretch(rng, sounds[rng.integers(len(sounds))], n)


def stretch(rng: np.random.Generator, samples: Signal, n: int) -> Signal:
    """n samples from a random place, repeated if there are fewer."""
    if len(samples) < n:
        samples = np.tile(samples, -(-n // len(samples)))
    start = int(rng.integers(len(samples) - n + 1))
    return samples[start : start + n]


def fingerprint_of(samples: Signal, encoder: Encoder, every: int) -> Fingerprint:
    """The fingerprint of samples at 8 kHz. Raises AudioError if they are silent."""
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="WAV", subtype="FLOAT")
    file.seek(0)
    return fingerprint(file, encoder, every, name="clip")


def codes_of(samples: Signal, encoder: Encoder) -> Codes:
    """What a library keeps of samples at 8 kHz."""
    return Codes(
        *encoder.codec.encode(fingerprint_of(samples, encoder, REFERENCE_EVERY).embeddings)
    )


def observed(looks: Sequence[Look], tail: Tail, e_values: Sequence[float]) -> list[int]:
    """Peaks of these looks whose E-value is as small, for each of e_values."""
    stated = np.array(
        [
            tail.log_e_value(score, look.query_embeddings, look.library_embeddings)
            for look in looks
            for score in look.peaks.values()
        ]
    )
    return [int(np.sum(stated <= math.log(e_value))) for e_value in e_values]


def tested(looks: Sequence[Look], tail: Tail) -> dict[str, Any]:
    """How many clips were looked for, and the E-values of the best answers to them, up to NOTED."""
    best = sorted(
        math.exp(
            tail.log_e_value(
                max(look.peaks.values()), look.query_embeddings, look.library_embeddings
            )
        )
        for look in looks
        if look.peaks
    )
    return {
        "clips": len(looks),
        "closest": [float(f"{e_value:.3g}") for e_value in best if e_value <= NOTED],
    }


def counted_as(looks: Sequence[Look], tail: Tail) -> Iterator[str]:
    """Observed over stated numbers of chance matches, by the size that the library counts as at least."""
    for least in COUNTED_AS:
        larger = [
            replace(look, library_embeddings=max(least, look.library_embeddings)) for look in looks
        ]
        seen = observed(larger, tail, E_VALUES)
        ratios = "  ".join(
            f"{count / (e * len(looks)):5.2f}" for count, e in zip(seen, E_VALUES, strict=True)
        )
        yield f"{least:8,}  {ratios}"


def report(looks: Sequence[Look], fitted: Fit) -> str:
    """λ with its interval, and stated beside observed numbers of chance matches, length by length."""
    lines = [
        "length   clips  decay (95 %)         log density"
        "   observed (stated) with E <= 1, 0.1, 0.01, 0.001",
    ]
    tail = fitted.tail
    kept = without(looks, fitted.related)
    rows = zip(tail.decay, tail.least_decay, fitted.most_decay, tail.log_density, strict=True)
    for length, (decay, least, most, density) in zip(
        sorted({look.length for look in looks}), rows, strict=True
    ):
        same = [look for look in kept if look.length == length]
        counts = ", ".join(
            f"{seen} ({len(same) * e_value:.3g})"
            for seen, e_value in zip(observed(same, tail, E_VALUES), E_VALUES, strict=True)
        )
        lines.append(
            f"{length:6g} {len(same):7}  {decay:6.3f} ({least:.3f}-{most:.3f})  {density:11.2f}"
            f"   {counts}"
        )
    works = len({look.work for look in looks})
    lines.append(
        f"of {works} works, {len(fitted.related)} pairs with a recording are related, and left out:"
    )
    names = {item.id: f"{item.package} {item.title!r}" for item in corpora.catalogue()}
    for work, recording in sorted(fitted.related):
        best = max(
            look.peaks[recording] for look in looks if look.work == work and recording in look.peaks
        )
        lines.append(f"  {names.get(work)} and {names.get(recording)}: up to {best:.1f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--encoder", type=Path, help="weights; default: those that ship")
    parser.add_argument(
        "--clips", type=int, default=600, help="of each length, as they are; 0: their fits stay"
    )
    parser.add_argument(
        "--altered", type=int, default=150, help="under the ladder; 0: its fit stays"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scores", type=Path, metavar="FILE.json", help="keep what was found")
    parser.add_argument("--write", action="store_true", help="enter the fit into the table")
    parser.add_argument("--among", type=int, help="works of the train packages; nothing is fitted")
    args = parser.parse_args()
    encoder = Encoder.load(args.encoder)
    if args.among:
        _print_small(encoder, args)
        return
    looks = _looks(encoder, args)
    entry = {}
    command = (
        f"python -m benchmarks.calibration.calibrate --clips {args.clips} --altered {args.altered}"
    )
    command += f" --seed {args.seed}" + (f" --encoder {args.encoder}" if args.encoder else "")
    for name, some in looks.items():
        fitted = fit(some)
        print(f"{name}\n{report(some, fitted)}")
        entry[name] = asdict(fitted.tail) | {
            "clips": len(some),
            "works": len({look.work for look in some}),
            "related": len(fitted.related),
            "command": command,
        }
        if name in TESTED:
            entry[TESTED[name]] = tested(some, fitted.tail) | {"command": command}
    if args.write:
        enter(encoder, entry)


def _print_small(encoder: Encoder, args: argparse.Namespace) -> None:
    """What is observed in a small library, beside what is stated of it."""
    asking = Asking(encoder, args.seed, args.among)
    calibration = Calibration.of(encoder.id)
    print(
        f"{args.among} works, {len(asking.snapshot):,} embeddings; counted as at least: observed over"
    )
    print("stated with E <= 1, 0.1, 0.01, 0.001")
    looks = list(asking.looks(args.clips, LENGTHS, ()))
    print(
        "\n".join([f"as they are, {len(looks)} clips", *counted_as(looks, calibration.unaltered)])
    )
    if args.altered and calibration.altered is not None:
        looks = list(asking.looks(args.altered, ALTERED_LENGTHS, LADDER))
        lines = counted_as(looks, calibration.altered)
        print("\n".join([f"ladder, {len(looks)} clips", *lines]))


def enter(encoder: Encoder, parts: Mapping[str, Any]) -> None:
    """Enter what was fitted for an encoder into the table; its other parts stay as they are."""
    table = json.loads(TABLE.read_text()) if TABLE.is_file() else {}
    nothing = dict.fromkeys(("unaltered", "altered", "stored", "likeness"))
    table[encoder.id] = nothing | table.get(encoder.id, {}) | dict(parts)
    rows = (f'  "{id}": {json.dumps(row)}' for id, row in table.items())
    TABLE.write_text("{\n" + ",\n".join(rows) + "\n}\n")


def _looks(encoder: Encoder, args: argparse.Namespace) -> dict[str, list[Look]]:
    """Looks as they are, from stored codes and under the ladder: those kept, or new ones."""
    if args.scores and args.scores.is_file():
        kept = json.loads(args.scores.read_text())
        if (of := kept.pop("encoder")) != encoder.id:
            sys.exit(f"{args.scores}: of encoder {of}, not {encoder.id}; name another")
        return {name: [Look(**look) for look in some] for name, some in kept.items()}
    asking = Asking(encoder, args.seed)
    looks = {}
    if args.clips:
        looks["unaltered"] = list(asking.looks(args.clips, LENGTHS, ()))
        lengths = [round(length) for length in tail_of(looks["unaltered"]).lengths]
        looks["stored"] = list(asking.stored_looks(args.clips, lengths))
    if args.altered:
        asking.rng = np.random.default_rng([args.seed, 2])  # the same whatever was asked before
        looks["altered"] = list(asking.looks(args.altered, ALTERED_LENGTHS, LADDER))
    if args.scores:
        found = {name: [asdict(look) for look in some] for name, some in looks.items()}
        args.scores.write_text(json.dumps({"encoder": encoder.id} | found))
    return looks


if __name__ == "__main__":
    main()
