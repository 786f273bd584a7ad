"""How a library behaves as it grows: rate of adding, disk, memory, opening, query times, hits.

    python -m benchmarks.scale --sizes 10000 100000 1000000 --folder FOLDER [--plot scale.svg]

The library holds the real recordings of the fetched packages and, up to each size in turn, simulated ones
of 210 s. A simulated recording is a mixture of two stretches a, b of real ones around the mean m of all
embeddings, x(t) = m + cos θ (a(t) - m) + sin θ (b(t) - m), scaled to length 1: it moves through time as
music does, and has the mean and covariance of real embeddings whatever θ is. θ is chosen so that, in a
library of the same size, the 10th nearest embedding of another recording is as near as among the real
ones; the quantiles of both are printed, and how they go on as the library grows.

Clips of 5 s of the real recordings, half of them under pink noise of 5 dB, are looked up at each size in
a process that has nothing else to do. FOLDER is kept, and a second run goes on from what is there.
"""

import argparse
import io
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks import corpora
from benchmarks.degrade import add_at_ratio, pink_noise
from fingerprint.audio import SAMPLE_RATE, read_audio
from fingerprint.encoder import Encoder
from fingerprint.errors import EarmarkError
from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY, Fingerprint, fingerprint
from index.compaction import compact
from index.library import Library
from index.neighbours import nearest
from index.recording import Metadata
from index.segment import Codes, arrange, concatenate

SECONDS = 210.0  # of a simulated recording
CLIP = 5.0  # seconds
NOISE = 5.0  # dB, music above noise
BATCH = 200  # recordings in a commit, as `earmark ingest` has it
ANGLES = (15, 25, 35, 45)  # degrees
NEIGHBOUR = 10  # the one whose similarity tells how crowded a place is
Embeddings = NDArray[np.float32]


def real_recordings(encoder: Encoder, count: int) -> list[Fingerprint]:
    """Reference fingerprints of up to so many recordings of the tune and train packages."""
    made: list[Fingerprint] = []
    items = [item for split in ("tune", "train") for item in corpora.items(split) if item.primary]
    with tqdm(total=count, desc="real recordings", disable=None) as bar:
        for item in items:
            if len(made) == count:
                break
            if item.rendered or not item.path.is_file():
                continue
            try:
                made.append(fingerprint(item.path, encoder, REFERENCE_EVERY, name=str(item.path)))
            except EarmarkError:
                continue
            bar.update()
    if len(made) < 20:
        sys.exit("too little real music: python -m benchmarks.corpora fetch --split tune")
    return made


class Simulation:
    """Recordings that never were, mixed from real ones at an angle (degrees)."""

    def __init__(self, real: Sequence[Embeddings], angle: float, steps: int) -> None:
        self.angle = angle
        self._real = [x for x in real if len(x) >= 20]
        self._mean = np.concatenate(self._real).mean(axis=0)
        self._steps = steps

    def recording(self, number: int) -> Embeddings:
        """Recording of that number [shape=(steps, dimension)]; always the same."""
        rng = np.random.default_rng([number, round(self.angle)])
        a, b = (self._stretch(rng) - self._mean for _ in range(2))
        angle = np.radians(self.angle)
        x = self._mean + np.cos(angle) * a + np.sin(angle) * b
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)

    def _stretch(self, rng: np.random.Generator) -> Embeddings:
        x = self._real[rng.integers(len(self._real))]
        return x[(np.arange(self._steps) + rng.integers(len(x))) % len(x)]


def crowding(
    works: Sequence[Embeddings], encoder: Encoder, shares: Sequence[float], seed: int = 0
) -> list[NDArray[np.float64]]:
    """Similarity to the 10th nearest embedding of other works, in growing shares of them: quartiles.

    [shape=(3,) each] Queries are embeddings of works that are in none of the shares.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(works))
    asking, rest = order[: len(order) // 4], order[len(order) // 4 :]
    queries = np.concatenate([works[i] for i in asking])
    queries = queries[rng.permutation(len(queries))[:1000]]
    codec = encoder.codec
    lists = len(codec.coarse)
    quartiles = []
    for share in shares:
        stored = [Codes(*codec.encode(works[i])) for i in rest[: max(1, int(share * len(rest)))]]
        segment = arrange(concatenate(stored, codec.code_size), lists)
        none = np.empty((0, 2), np.int64)
        similarity, _ = nearest(queries, NEIGHBOUR, lists, [segment], none, codec)
        quartiles.append(np.quantile(similarity[:, -1].astype(float), [0.25, 0.5, 0.75]))
    return quartiles


def fit(real: Sequence[Embeddings], encoder: Encoder, steps: int) -> tuple[Simulation, dict]:
    """The simulation whose neighbours are as near as real ones, and the figures that show it."""
    shares = (0.25, 0.5, 1.0)
    wanted = crowding(real, encoder, shares)
    works = sum(map(len, real)) // steps  # as many embeddings as the real ones are
    best: tuple[float, Simulation, list] | None = None
    for angle in ANGLES:
        simulation = Simulation(real, angle, steps)
        found = crowding([simulation.recording(i) for i in range(works)], encoder, shares)
        error = abs(found[-1][1] - wanted[-1][1])
        if best is None or error < best[0]:
            best = error, simulation, found
    assert best is not None
    _, simulation, found = best
    many = crowding([simulation.recording(i) for i in range(8 * works)], encoder, (1.0,))
    figures = {
        "angle": simulation.angle,
        "real_embeddings": int(0.75 * sum(map(len, real))),
        "shares": shares,
        "real_quartiles": [q.round(4).tolist() for q in wanted],
        "simulated_quartiles": [q.round(4).tolist() for q in found],
        "simulated_quartiles_at_8_times_the_size": many[0].round(4).tolist(),
    }
    return simulation, figures


def grow(
    library: Library, encoder: Encoder, real: list[Fingerprint], simulation: Simulation, size: int
) -> dict[str, float]:
    """Add recordings until there are so many, then compact; what that took."""
    have = library.info()["recordings"]
    spent = {"simulating": 0.0, "adding": 0.0, "compacting": 0.0}
    started = time.process_time()
    with tqdm(total=size, initial=have, desc="recordings", disable=None) as bar:
        for first in range(have, size, BATCH):
            numbers = range(first, min(first + BATCH, size))
            batch = [
                real[i] if i < len(real) else _fingerprint(simulation.recording(i), encoder, i)
                for i in numbers
            ]
            spent["simulating"] += (now := time.process_time()) - started
            with library.writer() as writer:
                for number, made in zip(numbers, batch, strict=True):
                    writer.add(made, _metadata(number))
            spent["adding"] += (started := time.process_time()) - now
            bar.update(len(batch))
    list(compact(library))
    spent["compacting"] = time.process_time() - started
    added = max(1, size - have)
    return {
        "recordings_added_per_cpu_second": round(added / max(spent["adding"], 1e-9), 1),
        "times_real_time": round(added * SECONDS / max(spent["adding"], 1e-9)),
        "compacting_cpu_seconds": round(spent["compacting"], 1),
    }


def _metadata(number: int) -> Metadata:
    return Metadata(
        source=f"catalogue/{number:07}.flac",
        rightsholder=f"Rightsholder {number % 97}",
        rights="owned",
        id=f"recording-{number:07}",
        title=f"A title as long as titles are {number}",
        artist=f"An artist {number % 4999}",
        isrc=f"DEXX1{number:07}",
        label=f"Label {number % 499}",
    )


def _fingerprint(embeddings: Embeddings, encoder: Encoder, number: int) -> Fingerprint:
    step = encoder.step * REFERENCE_EVERY
    return Fingerprint(
        encoder=encoder.id,
        source=f"{number}.flac",
        sha256=f"{number:064x}",
        duration=SECONDS,
        every=REFERENCE_EVERY,
        start=step,
        step=step,
        reach=step,
        embeddings=embeddings,
    )


def make_clips(real: list[Fingerprint], encoder: Encoder, count: int, folder: Path) -> None:
    """Fingerprints of clips, `RECORDING-…emk`, where there are none yet."""
    if folder.is_dir():
        return
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for number in range(count):
        of = int(rng.integers(len(real)))
        samples = read_audio(Path(real[of].source))
        length = int(CLIP * SAMPLE_RATE)
        start = int(rng.integers(max(1, len(samples) - length)))
        clip = samples[start : start + length]
        if number % 2:
            noise = pink_noise(len(clip), rng).reshape(-1)
            clip = add_at_ratio(clip[:, None], noise[:, None], NOISE).reshape(-1)
        file = io.BytesIO()
        soundfile.write(file, clip, SAMPLE_RATE, format="WAV", subtype="FLOAT")
        file.seek(0)
        try:
            made = fingerprint(file, encoder, QUERY_EVERY, name="clip")
        except EarmarkError:  # a pause in the music
            continue
        made.save(folder / f"recording-{of:07}-{number}.emk")


def measure(path: Path, clips: Path) -> dict[str, Any]:
    """What opening and asking a library takes, in this process, which has done nothing else."""
    encoder = Encoder.load()
    files = sorted(clips.glob("*.emk"))
    loaded = [(it.name[:17], Fingerprint.load(it.read_bytes(), it.name)) for it in files]
    before = _memory()
    started = time.perf_counter()
    library = Library.open(path, encoder)
    opened = time.perf_counter() - started
    library.search(loaded[0][1])  # compiles, or loads from the cache
    times, hits, ranked = [], 0, 0
    for wanted, clip in loaded:
        started = time.process_time()
        matches, snapshot = library.search(clip)
        times.append(time.process_time() - started)
        hits += any(match.recording == wanted for match in matches)
        ranked += bool(matches) and matches[0].recording == wanted
    for number in range(0, len(snapshot.recordings), 97):  # every block is touched
        snapshot.codes(number, 0, 1)
    return {
        "recordings": len(snapshot.recordings),
        "embeddings": len(snapshot),
        "open_seconds": round(opened, 3),
        "query_cpu_ms": {
            "median": round(1000 * statistics.median(times), 1),
            "p95": round(1000 * float(np.quantile(times, 0.95)), 1),
        },
        "clips": len(loaded),
        "found": round(hits / len(loaded), 4),
        "found_first": round(ranked / len(loaded), 4),
        "resident_bytes": _memory(),
        "resident_bytes_before_opening": before,
        "bytes_of_segments": sum(it.stat().st_size for it in (path / "segments").iterdir()),
        "bytes_of_catalogue": sum(it.stat().st_size for it in path.glob("catalogue.sqlite*")),
        "bytes_per_second_of_audio": library.info()["bytes_per_second"],
        "estimated_bytes_of_memory": library.info()["bytes_of_memory"],
    }


def _memory() -> int:
    """Most memory that this process has had resident, in bytes; mapped files count. Linux only.

    Not getrusage's ru_maxrss, which a process inherits from the one that started it.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM")


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Growth with size, on logarithmic axes."""
    import matplotlib

    from benchmarks.plots import STYLE

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    sizes = [row["recordings"] for row in rows]
    lines = {
        "query of 5 s, median (ms of CPU)": [row["query_cpu_ms"]["median"] for row in rows],
        "query of 5 s, 95th percentile (ms of CPU)": [row["query_cpu_ms"]["p95"] for row in rows],
        "opening (ms)": [1000 * row["open_seconds"] for row in rows],
        "resident memory (MB)": [row["resident_bytes"] / 1e6 for row in rows],
        "disk (MB)": [(row["bytes_of_segments"] + row["bytes_of_catalogue"]) / 1e6 for row in rows],
    }
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
        for name, values in lines.items():
            axes.loglog(sizes, values, "o-", label=name)
        axes.set_xlabel(f"recordings of {SECONDS:g} s")
        axes.set_title("How cost grows with the library")
        axes.legend()
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000])
    parser.add_argument("--folder", type=Path, required=True, help="some 10 GB for a million")
    parser.add_argument("--real", type=int, default=150, help="real recordings")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    path = args.folder / "library"
    clips = args.folder / "clips"
    if args.measure:
        print(json.dumps(measure(path, clips)))
        return
    encoder = Encoder.load()
    real = real_recordings(encoder, args.real)
    make_clips(real, encoder, args.clips, clips)
    steps = round(SECONDS / (encoder.step * REFERENCE_EVERY))
    simulation, figures = fit([made.embeddings for made in real], encoder, steps)
    print(json.dumps(figures), flush=True)
    library = Library.open(path, encoder, create=True)
    rows = []
    for size in sorted(args.sizes):
        built = grow(library, encoder, real, simulation, size)
        command = [
            sys.executable,
            "-m",
            "benchmarks.scale",
            "--folder",
            str(args.folder),
            "--measure",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout) | built)
        print(json.dumps(rows[-1]), flush=True)
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
