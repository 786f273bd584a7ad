"""Compare prices of a pair, of a bend and of a border, on music of the tune packages:
docs/decisions/significance.md.

    python -m benchmarks.calibration.prices --folder FOLDER [--clips 1500] [--seed 8]

Clips of 2, 5 and 10 s of the tune packages' works, half of them damaged as in calibration, half as across a
hard room (late reverberation up to 12 dB over the direct sound, then ambience or babble of -5 to 8 dB, then
a small microphone), are put to a library of tune and train packages. What the candidates' pairs say is kept
in FOLDER as it is, without any price, and scored anew under each. Chance is what recordings of the train
packages score. Told are the share of clips whose recording is first, that lies above all but 0.4 % of the
clips' best chance score, and above the score whose E-value is a millionth, by an exponential tail of one
peak a clip.
"""

import argparse
import math
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks import damage
from benchmarks.calibration.calibrate import background_of, fingerprint_of, library_of, works_of
from benchmarks.damage import Background, Signal
from fingerprint.audio import SAMPLE_RATE
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY
from fingerprint.view import View, unaltered
from index import align
from index.query_context import Question
from index.search import FIRST, THOROUGH
from index.significance import LOWEST, weights
from index.snapshot import Snapshot
from index.votes import Passage, candidates

LENGTHS = (2.0, 5.0, 10.0)  # s
PAIRS, BENDS, BORDERS = (3.0, 2.0, 1.0, 0.5), (1.0, 3.0), (0.0, 2.0, 4.0)
FALSE = 0.004  # share of the clips whose best chance score may lie above a gate
UNPRICED = -1e9  # a pair may say as much against as it does


@dataclass(frozen=True)
class Laid:
    """A clip's candidates: which recording each is of, and what its pairs say without a price, in a band."""

    work: str
    seconds: float
    hard: bool
    bands: list[tuple[str, NDArray[np.float16]]]


def hard_room(rng: Generator, x: Signal, background: Background) -> Signal:
    """Late reverberation over the direct sound, noise in the room, then a small microphone."""
    n = len(x)
    decay = 10 ** rng.uniform(math.log10(0.25), math.log10(1.2))
    count = int(min(decay, 1.0) * SAMPLE_RATE)
    tail = rng.standard_normal(count) * 10 ** (-3 * np.arange(count) / SAMPLE_RATE / decay)
    tail[: int(rng.uniform(0.002, 0.02) * SAMPLE_RATE)] = 0
    response = tail / np.sqrt(np.sum(tail**2))
    response[0] = 10 ** (rng.uniform(-12, 0) / 20)
    size = 1 << (n + count - 1).bit_length()
    x = np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(response, size), size)[:n].astype(
        np.float32
    )
    kind = background.ambience if rng.random() < 0.5 else background.speech
    noise = kind(rng, n)
    mixed = x / damage._level(x) + noise * 10 ** (-rng.uniform(-5, 8) / 20) / damage._level(noise)
    x = mixed.astype(np.float32)
    spectrum = np.fft.rfft(x, 1 << (n - 1).bit_length())
    x = np.fft.irfft(spectrum * damage._equaliser(rng, len(spectrum)))[:n].astype(np.float32)
    return np.ascontiguousarray(x * np.float32(0.1 / damage._level(x)))


def lay(clips: int, seed: int, encoder: Encoder) -> Iterator[Laid]:
    """Clips and their candidates."""
    works = works_of("tune")
    background = background_of([samples for _, samples in works])
    (names, codes), (others, more) = library_of(encoder, "tune"), library_of(encoder)
    snapshot = Snapshot.of([*codes, *more], encoder.codec)
    names = [*names, *(f"train {name}" for name in others)]
    rng = np.random.default_rng(seed)
    for number in tqdm(range(clips), "clips", disable=None):
        item, samples = works[rng.integers(len(works))]
        seconds, hard = LENGTHS[number % len(LENGTHS)], number // len(LENGTHS) % 2 == 1
        count = int(seconds * SAMPLE_RATE)
        start = int(rng.integers(max(1, len(samples) - count)))
        clip = samples[start : start + count]
        clip = hard_room(rng, clip, background) if hard else damage.degrade(rng, clip, background)
        try:
            made = fingerprint_of(clip, encoder, QUERY_EVERY)
        except AudioError:  # a pause in the music
            continue
        question = Question(made, snapshot, encoder)
        bands = [(names[place], band) for place, band in _bands(question)]
        yield Laid(item.id, seconds, hard, bands)


def _bands(question: Question) -> Iterator[tuple[int, NDArray[np.float16]]]:
    """What the pairs around each candidate of a query say, without a price."""
    view = unaltered(question.fingerprint, question.encoder)
    seen: set[tuple[int, int]] = set()
    for look in (FIRST, THOROUGH):
        passage = Passage(view.embeddings[:: look.every], view.crowding[:: look.every])
        for one in candidates([passage], question, look)[0]:
            key = one.recording, one.offset // align.SLACK
            if key not in seen:
                seen.add(key)
                yield one.recording, _band(question, view, one.recording, one.offset)


def _band(question: Question, view: View, recording: int, offset: int) -> NDArray[np.float16]:
    first = max(0, -(-offset // REFERENCE_EVERY) - 1)
    end = (offset + len(view.embeddings)) // REFERENCE_EVERY + 2
    codes = question.snapshot.codes(
        recording, first, max(first, min(question.snapshot.length(recording), end))
    )
    reference = view.codec.decode(codes.lists, codes.codes)
    crowding = view.codec.crowding(reference, codes.lists)
    low = offset - align.SLACK - REFERENCE_EVERY * first
    width = 2 * align.SLACK + 1
    said = weights(
        view.embeddings,
        view.crowding,
        reference,
        crowding,
        low,
        width,
        REFERENCE_EVERY,
        0.0,
        UNPRICED,
    )
    return said.astype(np.float16)


def best(laid: Laid, pair: float, border: float) -> dict[str, float]:
    """The best score of each recording under these prices."""
    found: dict[str, float] = {}
    for name, band in laid.bands:
        priced = np.maximum(band.astype(np.float32) - np.float32(pair), np.float32(LOWEST))
        aligned = align.align(priced, 0, border) if len(band) else None
        if aligned is not None:
            found[name] = max(found.get(name, 0.0), aligned.score)
    return found


def row(some: Sequence[Laid], pair: float, border: float) -> str:
    """λ; and shares of clips first, above the gate, and of E-value 1e-6."""
    own, chance = [], []
    for laid in some:
        found = best(laid, pair, border)
        own.append(found.get(laid.work, 0.0))
        chance.append([score for name, score in found.items() if name.startswith("train ")])
    top = np.array([max(scores, default=0.0) for scores in chance])
    peaks = np.sort(np.concatenate(chance))[::-1]
    count = min(len(some), len(peaks) - 1)
    decay = 1 / max(float(np.mean(peaks[:count] - peaks[count])), 1e-9)
    millionth = peaks[count] + math.log(1e6) / decay
    gate = np.sort(top)[::-1][round(FALSE * len(some))]
    right = np.array(own)
    return " | ".join(
        [f"{decay:.2f}", *(f"{np.mean(right > at):.1%}" for at in (top, gate, millionth))]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=8)
    args = parser.parse_args()
    encoder = Encoder.load()
    kept = args.folder / f"laid-{encoder.id}-{args.seed}-{args.clips}.pickle"
    if not kept.is_file():
        args.folder.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(pickle.dumps(list(lay(args.clips, args.seed, encoder))))
    laid: list[Laid] = pickle.loads(kept.read_bytes())
    print("| s | pair | bend | border | λ | first | above the gate | E <= 1e-6 |\n|" + 8 * "---:|")
    for seconds in LENGTHS:
        some = [it for it in laid if it.seconds == seconds]
        for pair in PAIRS:
            for bend in BENDS:
                align.CREEP_PRICE = bend
                for border in BORDERS:
                    print(
                        f"| {seconds:g} | {pair:g} | {bend:g} | {border:g} | {row(some, pair, border)} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
