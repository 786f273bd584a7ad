"""The training corpus as 8 kHz samples on disk.

    python -m benchmarks.corpora fetch --split train
    python -m benchmarks.corpora list --split train --playable > MANIFEST
    python -m fingerprint.training.dataset MANIFEST FOLDER

decodes every file named in a CSV manifest (columns `id`, `kind`, `path`; kinds `music`, `rendered-module`,
`rendered-midi`, `speech`, `noise`, `impulse-response`) to FOLDER/<id>.npy, int16, at most ten minutes of
each, and music a second time through a lossy codec to FOLDER/<id>.codec.npy. What is there already is
kept, so it can be stopped and resumed.
"""

import argparse
import csv
import io
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from fingerprint.audio import SAMPLE_RATE, Limits, read_audio
from fingerprint.errors import AudioError

MUSIC = ("music", "rendered-module", "rendered-midi")
LONGEST = 600.0  # seconds kept of a file
# What copies of music have been through: format, encoder, sample rate, bits a second.
LOSSY = (
    ("mp3", "libmp3lame", 22050, 24_000),
    ("mp3", "libmp3lame", 22050, 32_000),
    ("ogg", "libopus", 16000, 12_000),
    ("ogg", "libopus", 24000, 16_000),
    ("adts", "aac", 16000, 24_000),
)


def items(manifest: Path, folder: Path) -> dict[str, list[Path]]:
    """Decoded files of a manifest by kind."""
    kinds: dict[str, list[Path]] = {}
    with manifest.open(newline="") as file:
        for row in csv.DictReader(file):
            path = folder / f"{row['id']}.npy"
            if path.exists():
                kinds.setdefault(row["kind"], []).append(path)
    return kinds


def music(manifest: Path, folder: Path) -> list[Path]:
    """Decoded files of all music in a manifest."""
    kinds = items(manifest, folder)
    return [path for kind in MUSIC for path in kinds.get(kind, [])]


def through_codec(
    samples: NDArray[np.int16], codec: tuple[str, str, int, int]
) -> NDArray[np.float32]:
    """8 kHz samples encoded by one of LOSSY and decoded again, moved to where they were."""
    format, encoder, rate, bits = codec
    file = io.BytesIO()
    with av.open(file, "w", format=format) as container:
        stream: Any = container.add_stream(encoder, rate=rate, layout="mono", bit_rate=bits)
        resampler = av.AudioResampler(stream.format, "mono", rate, frame_size=stream.frame_size)
        for frames in (_frames(samples, resampler), iter([None])):
            for frame in frames:
                container.mux(stream.encode(frame))
    file.seek(0)
    decoded = read_audio(file)
    lag = _lag(samples, decoded)
    decoded = np.pad(decoded, (max(0, -lag), 0))[max(0, lag) :]
    return decoded[: len(samples)]


def _frames(
    samples: NDArray[np.int16], resampler: av.AudioResampler
) -> Iterator[av.AudioFrame | None]:
    frame = av.AudioFrame.from_ndarray(samples[None, :].copy(), format="s16", layout="mono")
    frame.sample_rate = SAMPLE_RATE
    yield from resampler.resample(frame)
    yield from resampler.resample(None)


def _lag(samples: NDArray[np.int16], decoded: NDArray[np.float32]) -> int:
    """Samples by which `decoded` comes late, from ten seconds in the middle of both."""
    n = 10 * SAMPLE_RATE
    first = max(0, (min(len(samples), len(decoded)) - n) // 2)
    a = samples[first : first + n].astype(np.float32)
    b = decoded[first : first + n]
    product = np.fft.irfft(np.fft.rfft(b, 2 * n) * np.conj(np.fft.rfft(a, 2 * n)))
    lag = int(np.argmax(product))
    return lag - 2 * n if lag > n else lag


def decode(row: dict[str, str], folder: Path) -> str | None:
    """Decode one row's file, and for music make its lossy copy; why it could not be done, or None."""
    path = folder / f"{row['id']}.npy"
    copy = path.with_suffix(".codec.npy")
    try:
        if not path.exists():
            _keep(
                path, read_audio(row["path"], Limits(max_seconds=1e5))[: int(LONGEST * SAMPLE_RATE)]
            )
        if row["kind"] in MUSIC and not copy.exists():
            codec = LOSSY[int(row["id"], 16) % len(LOSSY)]
            _keep(copy, through_codec(np.load(path), codec))
    except AudioError as error:
        return error.detail
    return None


def _keep(path: Path, samples: NDArray[np.float32]) -> None:
    """Write int16 samples beside, then rename: a kill leaves no half file."""
    beside = path.with_suffix(".partial.npy")
    np.save(beside, np.round(samples * 32767).clip(-32768, 32767).astype(np.int16))
    beside.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    with args.manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with ThreadPoolExecutor() as pool:
        for problem in pool.map(lambda row: decode(row, args.folder), rows):
            if problem:
                print(problem, file=sys.stderr)


if __name__ == "__main__":
    main()
