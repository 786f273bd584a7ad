"""How a library behaves as it grows: rate of adding, disk, memory, opening, query times, hits.

    python -m benchmarks.scale --sizes 10000 100000 1000000 --folder FOLDER [--minutes 60] [--plot FILE.svg]

The library holds real recordings of the fetched tune and train packages and, up to each size in turn,
simulated ones of 210 s, which are mixed of other recordings of these packages (see `benchmarks.simulation`,
which also says how it is seen that they are as crowded as real ones).

Clips of 5 s of the real recordings in it (`unaltered`, half of them under pink noise of 5 dB; `altered`,
played faster or slower by up to a quarter), and of a further part of the packages that is not in it
(`absent`), are looked up at each size, with the whole ladder, in a process that has nothing else to do.

FOLDER keeps everything, and a further run of the same command goes on from what is there; with --minutes
one stops building after so long.
"""

import argparse
import io
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks import corpora
from benchmarks.degrade import pink_noise
from benchmarks.simulation import SECONDS, Simulation, fit, identifier, metadata
from fingerprint.audio import SAMPLE_RATE, read_audio
from fingerprint.encoder import Encoder
from fingerprint.errors import EarmarkError
from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY, Fingerprint, fingerprint
from index.compaction import compact
from index.library import Library

CLIP = 5.0  # seconds
NOISE = 5.0  # dB, music above noise
FASTEST = 1.25  # the most that an altered clip is sped up, or slowed down
KINDS = ("unaltered", "altered", "absent")
LEFT_OUT = 8  # every eighth package is absent
BATCH = 200  # recordings in a commit, as `earmark ingest` has it
Signal = NDArray[np.float32]


@dataclass(frozen=True)
class Music:
    """Real recordings: in the library, absent from it, and those that simulated ones are mixed of."""

    known: list[Fingerprint]
    absent: list[Fingerprint]
    mixed: list[Fingerprint]

    @classmethod
    def of(cls, folder: Path, encoder: Encoder, count: int) -> "Music":
        """Up to so many; their fingerprints are kept in a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        items = [item for split in ("tune", "train") for item in corpora.items(split)]
        packages = sorted({item.package for item in items})
        absent = set(packages[::LEFT_OUT])
        order = np.random.default_rng(1).permutation(len(items))
        found = cls([], [], [])
        with tqdm(total=count, desc="real recordings", disable=None) as bar:
            for item in (items[i] for i in order):
                if len(found.known) + len(found.absent) + len(found.mixed) == count:
                    break
                try:
                    made = _kept(folder / f"{item.id}.emk", item.audio(), encoder)
                except EarmarkError:
                    continue
                there = found.known if len(found.known) < len(found.mixed) else found.mixed
                (found.absent if item.package in absent else there).append(made)
                bar.update()
        if min(len(found.known), len(found.absent)) < 5:
            sys.exit("too little real music: python -m benchmarks.corpora fetch --split tune")
        return found


def _kept(path: Path, audio: Path, encoder: Encoder) -> Fingerprint:
    """A reference fingerprint, made if it is not in its file."""
    if not path.is_file():
        beside = path.with_suffix(".partial")
        fingerprint(audio, encoder, REFERENCE_EVERY, name=str(audio)).save(beside)
        beside.rename(path)
    return Fingerprint.load(path.read_bytes(), path.name)


def make_clips(music: Music, encoder: Encoder, count: int, folder: Path) -> None:
    """Fingerprints of so many clips of each kind, KIND-RECORDING-NUMBER.emk, where there are none yet."""
    if folder.is_dir():
        return
    beside = folder.with_suffix(".partial")
    beside.mkdir(parents=True, exist_ok=True)
    for kind in tqdm(KINDS, "clips", disable=None):
        works = music.absent if kind == "absent" else music.known
        for number in range(count):
            rng = np.random.default_rng([KINDS.index(kind), number])
            of = int(rng.integers(len(works)))
            samples = read_audio(Path(works[of].source))
            try:
                made = _clip(samples, rng, kind, bool(number % 2), encoder)
            except EarmarkError:  # a pause in the music
                continue
            made.save(beside / f"{kind}-{of:07}-{number}.emk")
    beside.rename(folder)


def _clip(
    samples: Signal, rng: np.random.Generator, kind: str, in_noise: bool, encoder: Encoder
) -> Fingerprint:
    factor = FASTEST ** rng.uniform(-1, 1) if kind == "altered" else 1.0
    length = int(CLIP * SAMPLE_RATE * factor)
    start = int(rng.integers(max(1, len(samples) - length)))
    clip = samples[start : start + length]
    if factor != 1:
        clip = soxr.resample(clip, SAMPLE_RATE * factor, SAMPLE_RATE)
    if in_noise and kind == "unaltered":
        clip = noisy(clip, rng, NOISE)
    file = io.BytesIO()
    soundfile.write(file, clip, SAMPLE_RATE, format="WAV", subtype="FLOAT")
    file.seek(0)
    return fingerprint(file, encoder, QUERY_EVERY, name="clip")


def noisy(samples: Signal, rng: np.random.Generator, ratio: float) -> Signal:
    """Under pink noise, so many dB below it."""
    noise = pink_noise(len(samples), rng).reshape(-1)
    scale = np.sqrt(np.mean(samples**2) / np.mean(noise**2) * 10 ** (-ratio / 10))
    return (samples + scale * noise).astype(np.float32)


@dataclass
class Spent:
    """Seconds of CPU that adding so many recordings took, over all runs."""

    added: int = 0
    adding: float = 0.0
    compacting: float = 0.0

    def figures(self) -> dict[str, float]:
        rate = self.added / max(self.adding, 1e-9)
        return {
            "recordings_added_per_cpu_second": round(rate, 1),
            "times_real_time": round(rate * SECONDS),
            "compacting_cpu_seconds": round(self.compacting, 1),
        }


def grow(
    library: Library, known: Sequence[Fingerprint], simulation: Simulation, size: int, until: float
) -> Iterator[Spent]:
    """Add recordings until there are so many or it is late, then compact; yields after each commit."""
    number = have = library.info()["recordings"]
    with tqdm(total=size, initial=have, desc="recordings", disable=None) as bar:
        while have < size:
            if time.monotonic() > until:
                return
            # two that are mixed alike are one recording: it takes a few more
            numbers = range(number, number + min(BATCH, size - have))
            batch = [known[i] if i < len(known) else simulation.recording(i) for i in numbers]
            started = time.process_time()
            with library.writer() as writer:
                new = sum(
                    writer.add(made, metadata(i))[1] for i, made in zip(numbers, batch, strict=True)
                )
            yield Spent(new, adding=time.process_time() - started)
            number, have = numbers.stop, have + new
            bar.update(new)
    started = time.process_time()
    for _ in compact(library):
        pass
    yield Spent(compacting=time.process_time() - started)


def measure(path: Path, clips: Path, absent: int) -> dict[str, Any]:
    """What opening and asking a library takes, in this process, which has done nothing else.

    Of the clips that are not in it, so many are asked about.
    """
    encoder = Encoder.load()
    loaded = [
        ((kind, of), Fingerprint.load(it.read_bytes(), it.name))
        for it in sorted(clips.glob("*.emk"))
        for kind, of, number in [it.stem.split("-")]
        if kind != "absent" or int(number) < absent
    ]
    before = _memory()
    started = time.perf_counter()
    library = Library.open(path, encoder)
    opened = time.perf_counter() - started
    for _, clip in loaded[:2]:  # compiles, or loads from the cache
        library.search(clip)
    asked: dict[str, list[tuple[float, bool, bool, bool]]] = {kind: [] for kind in KINDS}
    for (kind, of), clip in loaded:
        started = time.process_time()
        matches, snapshot = library.search(clip)
        spent = time.process_time() - started
        named = [match.recording for match in matches]
        wanted = identifier(int(of)) if kind != "absent" else None
        wrong = any(it.tier == "match" and it.recording != wanted for it in matches)
        asked[kind].append((spent, wanted in named, named[:1] == [wanted], wrong))
    for number in range(0, len(snapshot.recordings), 97):  # every block is touched
        snapshot.codes(number, 0, 1)
    info = library.info()
    return {
        "recordings": len(snapshot.recordings),
        "embeddings": len(snapshot),
        "open_seconds": round(opened, 3),
        **{kind: _summary(rows) for kind, rows in asked.items()},
        "resident_bytes": _memory(),
        "resident_bytes_before_opening": before,
        "bytes_of_segments": sum(it.stat().st_size for it in (path / "segments").iterdir()),
        "bytes_of_catalogue": sum(it.stat().st_size for it in path.glob("catalogue.sqlite*")),
        "bytes_per_second_of_audio": info["bytes_per_second"],
        "estimated_bytes_of_memory": info["bytes_of_memory"],
    }


def _summary(rows: Sequence[tuple[float, bool, bool, bool]]) -> dict[str, Any]:
    times, found, first, wrong = zip(*rows, strict=True)
    return {
        "clips": len(rows),
        "cpu_ms": {
            "median": round(1000 * statistics.median(times), 1),
            "p95": round(1000 * float(np.quantile(times, 0.95)), 1),
        },
        "found": round(sum(found) / len(rows), 4),
        "found_first": round(sum(first) / len(rows), 4),
        "others_named_as_match": round(sum(wrong) / len(rows), 4),
    }


def _memory() -> int:
    """Most memory that this process has had resident, in bytes; mapped files count. Linux only.

    Not getrusage's ru_maxrss, which a process inherits from the one that started it.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Sizes beside one another, in Markdown."""
    lines = [
        "| recordings | opening | resident | segments | a second of audio | adding | "
        + " | ".join(f"{kind}: found, CPU median, 95 %" for kind in KINDS)
        + " |",
        "|" + "---:|" * (6 + len(KINDS)),
    ]
    for row in rows:
        cells = [
            f"{row['recordings']:,}",
            f"{row['open_seconds']:.2f} s",
            f"{row['resident_bytes'] / 1e9:.2f} GB",
            f"{row['bytes_of_segments'] / 1e9:.2f} GB",
            f"{row['bytes_per_second_of_audio']:.1f} B",
            f"{row['times_real_time']:,} x",
        ]
        for kind in KINDS:
            of = row[kind]
            cpu = of["cpu_ms"]
            cells.append(f"{of['found']:.1%}, {cpu['median']:.0f} ms, {cpu['p95']:.0f} ms")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Growth with size, on logarithmic axes: times on the left, bytes on the right."""
    import matplotlib

    from benchmarks.plots import STYLE

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    sizes = [row["recordings"] for row in rows]
    with plt.rc_context(STYLE):
        figure, (times, bytes_) = plt.subplots(1, 2, figsize=(9, 4.5), layout="constrained")
        for number, kind in enumerate(KINDS):
            for which, style in (("median", "o-"), ("p95", "s--")):
                values = [row[kind]["cpu_ms"][which] for row in rows]
                label = f"{kind} clip, {which.replace('p95', '95th percentile')}"
                times.loglog(sizes, values, style, color=f"C{number}", label=label)
        times.loglog(sizes, [1000 * row["open_seconds"] for row in rows], "^:k", label="opening")
        times.set_title("Milliseconds (clips: of CPU)")
        for name, values in {
            "resident memory": [row["resident_bytes"] for row in rows],
            "segments": [row["bytes_of_segments"] for row in rows],
            "catalogue": [row["bytes_of_catalogue"] for row in rows],
        }.items():
            bytes_.loglog(sizes, [value / 1e6 for value in values], "o-", label=name)
        bytes_.set_title("Megabytes")
        for axes in (times, bytes_):
            axes.set_xlabel(f"recordings of {SECONDS:g} s")
            axes.legend(fontsize=7)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


class Progress:
    """What was fitted, measured and spent so far, in FOLDER/scale.json."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "scale.json"
        said = json.loads(self._path.read_text()) if self._path.is_file() else {}
        self.crowding: dict[str, Any] = said.get("crowding", {})
        self.rows: list[dict[str, Any]] = said.get("rows", [])
        self.spent = Spent(**said.get("spent", {}))

    def fitted(self, figures: dict[str, Any]) -> None:
        self.crowding = figures
        self._save()

    def add(self, spent: Spent) -> None:
        self.spent.added += spent.added
        self.spent.adding += spent.adding
        self.spent.compacting += spent.compacting
        self._save()

    def measured(self, row: dict[str, Any]) -> None:
        self.rows.append(row | self.spent.figures())
        self.spent = Spent()
        self._save()

    def _save(self) -> None:
        beside = self._path.with_suffix(".partial")
        said = {"crowding": self.crowding, "rows": self.rows, "spent": vars(self.spent)}
        beside.write_text(json.dumps(said, indent=1))
        beside.rename(self._path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000])
    parser.add_argument("--folder", type=Path, required=True, help="some 20 GB for a million")
    parser.add_argument("--real", type=int, default=400, help="real recordings")
    parser.add_argument("--clips", type=int, default=100, help="of each kind")
    parser.add_argument("--absent", type=int, help="clips of that kind; default: as many")
    parser.add_argument("--minutes", type=float, default=np.inf, help="of building in this run")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    path, clips = args.folder / "library", args.folder / "clips"
    absent = args.clips if args.absent is None else args.absent
    if args.measure:
        print(json.dumps(measure(path, clips, absent)))
        return
    encoder = Encoder.load()
    music = Music.of(args.folder / "real", encoder, args.real)
    if min(args.sizes) < len(music.known):
        parser.error(f"{len(music.known)} real recordings are in the smallest library")
    make_clips(music, encoder, args.clips, clips)
    progress = Progress(args.folder)
    mixed = [made.embeddings for made in music.mixed]
    if not progress.crowding:
        _, figures = fit(mixed, [made.embeddings for made in music.absent], encoder)
        progress.fitted(figures)
    print(json.dumps(progress.crowding), flush=True)
    simulation = Simulation(mixed, progress.crowding["angle"], encoder)
    library = Library.open(path, encoder, create=True)
    until = time.monotonic() + 60 * args.minutes
    largest = max((row["recordings"] for row in progress.rows), default=0)
    for size in sorted(size for size in args.sizes if size > largest):
        for spent in grow(library, music.known, simulation, size, until):
            progress.add(spent)
        if (have := library.info()["recordings"]) < size:
            sys.exit(f"{have} of {size} recordings are there: the same command goes on")
        command = [sys.executable, "-m", "benchmarks.scale", "--folder", str(args.folder)]
        command += ["--absent", str(absent), "--measure"]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        progress.measured(json.loads(done.stdout))
        print(json.dumps(progress.rows[-1]), flush=True)
    print(table(progress.rows))
    if args.plot:
        plot(progress.rows, args.plot)


if __name__ == "__main__":
    main()
