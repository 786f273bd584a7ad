"""Bytes of index for a second of audio against accuracy: codes of several sizes, references of two spacings.

    python -m fingerprint.training.codebooks MANIFEST SAMPLES FOLDER
    python -m benchmarks.experiments.frontier FOLDER [--clips 300] [--plot FILE.svg]

FOLDER holds the shipped encoder with codes of each size, trained on the same embeddings of the train
packages. All music of the tune packages is put into a library of each choice, and the same clips of it, half
of them under pink noise of 0 dB, are looked up as they are, without ladder and without gate: a clip is found
if the alignment of highest score is with its recording. Beside it stands what embeddings in float32 find,
all of which are compared. Differences are in points, with the standard error of paired clips.
"""

import argparse
import copy
import itertools
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks import corpora
from benchmarks.calibration.calibrate import fingerprint_of, stretch
from benchmarks.scale import noisy
from fingerprint.audio import SAMPLE_RATE, read_audio
from fingerprint.codec import Codec
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY, Fingerprint
from index import align, search, votes
from index.query_context import Question
from index.search import everything
from index.segment import ID_BYTES, LIST_BYTES, Codes
from index.snapshot import Snapshot

LENGTHS = (1.0, 2.0, 5.0)  # seconds
SPACINGS = (1, 2)  # reference steps (0.5 s) from one stored embedding to the next
NOISE = 0.0  # dB, music above noise
Embeddings = NDArray[np.float32]


class Clip(NamedTuple):
    """Samples cut from the work of that number."""

    work: int
    length: float
    noisy: bool
    samples: NDArray[np.float32]


class Choice(NamedTuple):
    """How references are kept: bytes of a code (None: float32), and their spacing."""

    code_size: int | None
    spacing: int

    def bytes_per_second(self, encoder: Encoder) -> float:
        """Of codes, ids and numbers of lists; what else a segment has is little in a large one."""
        each = (self.code_size or 4 * encoder.dimension) + ID_BYTES + LIST_BYTES
        return each / (encoder.step * REFERENCE_EVERY * self.spacing)


class Exact(Codec):
    """A codec whose codes are the embeddings."""

    def decode(self, lists: NDArray[np.uint16], codes: NDArray[Any]) -> Embeddings:
        return codes


class Unquantised:
    """A snapshot whose embeddings are in float32; all of them are compared."""

    def __init__(self, snapshot: Snapshot, embeddings: Embeddings) -> None:
        self._snapshot = snapshot
        self._embeddings = embeddings

    def __getattr__(self, name: str) -> Any:
        return getattr(self._snapshot, name)

    def __len__(self) -> int:
        return len(self._embeddings)

    def nearest(
        self, embeddings: Embeddings, count: int, probes: int, compared: int
    ) -> tuple[Embeddings, NDArray[np.int64]]:
        """As `Snapshot.nearest`."""
        similarity = embeddings @ self._embeddings.T
        numbers = np.argpartition(-similarity, count, axis=1)[:, :count]
        similarity = np.take_along_axis(similarity, numbers, axis=1)
        order = np.argsort(-similarity, axis=1)
        return np.take_along_axis(similarity, order, 1), np.take_along_axis(numbers, order, 1)

    def codes(self, recording: int, first: int, end: int) -> Codes:
        """As `Snapshot.codes`, with embeddings for codes."""
        lists = self._snapshot.codes(recording, first, end).lists
        start = int(self._snapshot.starts[recording]) + first
        return Codes(lists, self._embeddings[start : start + len(lists)])  # type: ignore[arg-type]


def cut_clips(works: Sequence[NDArray[np.float32]], count: int, seed: int) -> Iterator[Clip]:
    """So many clips of each length, every other one noisy."""
    for length in LENGTHS:
        for number in range(count):
            rng = np.random.default_rng([seed, int(length), number])
            work = int(rng.integers(len(works)))
            samples = stretch(rng, works[work], int(length * SAMPLE_RATE))
            if number % 2:
                samples = noisy(samples, rng, NOISE)
            yield Clip(work, length, bool(number % 2), samples)


def hits(
    encoder: Encoder,
    references: Sequence[Embeddings],
    asked: Sequence[tuple[int, Fingerprint | None]],
    choice: Choice,
) -> NDArray[np.bool_]:
    """Of which clips (their work, their fingerprint) the best alignment is with the right work."""
    kept = [embeddings[:: choice.spacing] for embeddings in references]
    snapshot: Any = Snapshot.of([Codes(*encoder.codec.encode(x)) for x in kept], encoder.codec)
    if choice.code_size is None:
        snapshot = Unquantised(snapshot, np.concatenate(kept))
        encoder = copy.copy(encoder)
        encoder.codec = Exact(encoder.codec.coarse, encoder.codec.books)
    for module in (align, search, votes):
        vars(module)["REFERENCE_EVERY"] = choice.spacing * REFERENCE_EVERY
    found = []
    for work, made in tqdm(asked, "clips", disable=None):
        told = (
            everything(
                Question(made, snapshot, encoder), (), lambda it: 1 / (1 + it.score), math.inf
            )
            if made
            else []
        )
        found.append(bool(told) and told[0].recording == work)
    return np.array(found)


def prepared(
    encoder: Encoder, works: Sequence[NDArray[np.float32]], clips: Sequence[Clip]
) -> tuple[list[Embeddings], list[tuple[int, Fingerprint | None]]]:
    """References' embeddings, and the clips' works and fingerprints (None: nothing to be heard)."""
    references = [
        fingerprint_of(samples, encoder, REFERENCE_EVERY).embeddings
        for samples in tqdm(works, "references", disable=None)
    ]
    asked: list[tuple[int, Fingerprint | None]] = []
    for clip in clips:
        try:
            made = replace(fingerprint_of(clip.samples, encoder, QUERY_EVERY), levels=None)
        except AudioError:
            asked.append((clip.work, None))
        else:
            asked.append((clip.work, made))
    return references, asked


def table(
    found: dict[Choice, NDArray[np.bool_]], clips: Sequence[Clip], encoder: Encoder
) -> list[dict[str, Any]]:
    """A row for each choice: bytes a second, share of clips found, points lost against float32."""
    base = found[Choice(None, 1)]
    rows = []
    for choice, hit in found.items():
        row: dict[str, Any] = {
            "code_size": choice.code_size,
            "seconds_between": encoder.step * REFERENCE_EVERY * choice.spacing,
            "bytes_per_second": round(choice.bytes_per_second(encoder), 1),
        }
        for length in LENGTHS:
            for noise in (False, True):
                of = np.array([clip.length == length and clip.noisy == noise for clip in clips])
                lost = base[of].astype(float) - hit[of]
                row[f"{length:g} s{' in noise' * noise}"] = {
                    "found": round(100 * float(hit[of].mean()), 1),
                    "lost": round(100 * float(lost.mean()), 1),
                    "standard_error": round(100 * float(lost.std() / np.sqrt(of.sum())), 1),
                }
        rows.append(row)
    return rows


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Share found over bytes a second, a line for each length and spacing; without noise on the left."""
    import matplotlib

    from benchmarks.plots import STYLE

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    coded = sorted(
        (row for row in rows if row["code_size"]), key=lambda row: row["bytes_per_second"]
    )
    base = next(row for row in rows if not row["code_size"] and row["seconds_between"] < 1)
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            1, 2, figsize=(9, 4.2), sharex=True, sharey=True, layout="constrained"
        )
        for axes, noise in zip(panels, ("", " in noise"), strict=True):
            for number, length in enumerate(LENGTHS):
                name = f"{length:g} s{noise}"
                axes.axhline(base[name]["found"], color=f"C{number}", lw=0.5)
                for between, style in ((0.5, "o-"), (1.0, "s--")):
                    of_it = [row for row in coded if row["seconds_between"] == between]
                    axes.semilogx(
                        [row["bytes_per_second"] for row in of_it],
                        [row[name]["found"] for row in of_it],
                        style,
                        color=f"C{number}",
                        label=f"{length:g} s, an embedding every {between:g} s",
                    )
            axes.set_xticks([10, 20, 40, 80], ["10", "20", "40", "80"])
            axes.minorticks_off()
            axes.set_xlabel("bytes of index for a second of audio")
            axes.set_title(f"Clips found{noise}, % (thin: float32)")
        panels[0].legend(loc="lower right")
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="weights by size of their codes: 16.safetensors")
    parser.add_argument("--clips", type=int, default=300, help="of each length")
    parser.add_argument("--works", type=int, help="of the tune packages; default: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    args = parser.parse_args()
    items = corpora.items("tune")[: args.works]
    works = [read_audio(item.audio()) for item in tqdm(items, "works", disable=None)]
    if not works:
        sys.exit("no music of the tune packages: python -m benchmarks.corpora fetch --split tune")
    clips = list(cut_clips(works, args.clips, args.seed))
    found: dict[Choice, NDArray[np.bool_]] = {}
    encoders = [Encoder.load(path) for path in args.folder.glob("*.safetensors")]
    if not encoders:
        sys.exit(f"{args.folder} holds no weights: python -m fingerprint.training.codebooks …")
    for encoder in sorted(encoders, key=lambda encoder: -encoder.codec.code_size):
        references, asked = prepared(encoder, works, clips)
        kinds = (encoder.codec.code_size,) if found else (None, encoder.codec.code_size)
        for code_size, spacing in itertools.product(kinds, SPACINGS):
            choice = Choice(code_size, spacing)
            found[choice] = hits(encoder, references, asked, choice)
    rows = table(found, clips, encoder)
    for row in rows:
        print(json.dumps(row))
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
