"""How fast, beside decoding: every stage over the same real files, in turns, on one core.

    python -m benchmarks.throughput [--minutes 10] [--rounds 5] [--out FILE.json]
    python -m benchmarks.throughput --decoders [--out FILE.json]
    python -m benchmarks.throughput --library LIBRARY [--minutes 20] [--rounds 5] [--out FILE.json]

The stages of the way from a file to an answer are each run over the same Ogg Vorbis files of the report
split. Rounds go through all stages in turn, so that whatever else the machine does meets all alike; CPU
time is counted, medians are given. A stage that begins with a file includes its decoding; spectrogram
and encoder alone are given what precedes them. `--decoders` compares the two decoders instead
(libsndfile and FFmpeg), alone and with the same down-mix and resampling behind, by codec. `--library`
compares what a worker of a scan does with a file, against that library, with decoding it to 8 kHz, and
probing with both; files are then two to seven minutes long.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from fingerprint.errors import EarmarkError

LONGEST_FILE = 150.0  # s; so that ten minutes are several pieces of music
CLIP_SECONDS = 5.0
CLIPS = 20
DECODE = "decode (FFmpeg)"  # what ratios are to
TO_8_KHZ = "decode, mix down, resample"  # and those of scans
SCAN, PROBE = "scan", "probe"
SCANNED = (120.0, 420.0)  # s, of files that are scanned
# Vorbis is what the files are; the others are made of them.
DECODED_CODECS = {"Vorbis": "", "Opus": "opus-75", "MP3": "mp3-128", "FLAC": "flac"}
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Speed:
    """A stage over several rounds: times real time per core (median, slowest, fastest round)."""

    stage: str
    seconds: float  # of audio that went in
    cpu_seconds: float  # median
    times_real_time: float
    slowest: float
    fastest: float
    share_of_decoding: float | None  # CPU time for the same audio, as a share of decoding's


class ThroughputError(EarmarkError):
    """Nothing to measure with."""


def measure(
    stages: dict[str, tuple[float, Callable[[], object]]], rounds: int, basis: str
) -> list[Speed]:
    """CPU time of each stage: (seconds of audio it takes in, function). All take turns, `rounds` times.

    A round that does not count goes first: it compiles, and fills caches.
    """
    spent: dict[str, list[float]] = {name: [] for name in stages}
    for _ in range(rounds + 1):
        for name, (_, run) in stages.items():
            started = time.process_time()
            run()
            spent[name].append(max(time.process_time() - started, 1e-9))
    speeds = []
    for name, (seconds, _) in stages.items():
        counted = spent[name][1:]
        # per round, so that a ratio compares what ran next to each other
        share = None
        if basis in stages:
            of_basis = spent[basis][1:]
            share = statistics.median(
                (mine / seconds) / (its / stages[basis][0])
                for mine, its in zip(counted, of_basis, strict=True)
            )
        middle = statistics.median(counted)
        speeds.append(
            Speed(
                stage=name,
                seconds=round(seconds, 1),
                cpu_seconds=round(middle, 4),
                times_real_time=round(seconds / middle, 1),
                slowest=round(seconds / max(counted), 1),
                fastest=round(seconds / min(counted), 1),
                share_of_decoding=None if share is None else round(share, 3),
            )
        )
    return speeds


def stages_of_earmark(
    files: Sequence[Path], folder: Path
) -> dict[str, tuple[float, Callable[[], object]]]:
    """The stages over these files; clips and libraries are put in `folder`."""
    import numpy as np

    from benchmarks.codecs import write_clip
    from fingerprint.audio import SAMPLE_RATE, read_audio
    from fingerprint.encoder import Encoder
    from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY, fingerprint
    from fingerprint.spectrogram import spectrogram
    from index.library import Library
    from index.recording import Metadata

    encoder = Encoder.load()
    samples = [read_audio(file) for file in files]
    pictures = [spectrogram(signal) for signal in samples]
    durations = [len(signal) / SAMPLE_RATE for signal in samples]
    seconds = sum(durations)
    rng = np.random.default_rng(1)
    clips = []
    for number in range(CLIPS):
        source = number % len(files)
        offset = rng.uniform(0, durations[source] - CLIP_SECONDS)
        clip = folder / f"{number}.wav"
        clips.append(write_clip(files[source], offset, CLIP_SECONDS, clip, "wav"))
    count = 0

    def ingest() -> Library:
        nonlocal count
        count += 1
        library = Library.open(folder / f"library-{count}", encoder, create=True)
        with library.writer() as writer:
            for number, file in enumerate(files):
                made = fingerprint(file, encoder, REFERENCE_EVERY)
                about = Metadata(
                    source=file.name, rightsholder="-", rights="open-licence", id=str(number)
                )
                writer.add(made, about)
        return library

    library = ingest()

    def query() -> None:
        for clip in clips:
            library.search(fingerprint(clip, encoder, QUERY_EVERY))

    def embed(every: int) -> None:
        for picture in pictures:
            encoder.embed(picture, every)

    return {
        DECODE: (seconds, lambda: _each(decode_ffmpeg, files)),
        "decode (libsndfile)": (seconds, lambda: _each(decode_libsndfile, files)),
        TO_8_KHZ: (seconds, lambda: _each(_read_all, files)),
        "spectrogram": (seconds, lambda: _each(spectrogram, samples)),
        "encoder, reference step": (seconds, lambda: embed(REFERENCE_EVERY)),
        "encoder, query step": (seconds, lambda: embed(QUERY_EVERY)),
        "ingest": (seconds, ingest),
        "scan (file to query fingerprint)": (
            seconds,
            lambda: _each(lambda file: fingerprint(file, encoder, QUERY_EVERY), files),
        ),
        f"query ({CLIP_SECONDS:g}-s WAV clip)": (CLIPS * CLIP_SECONDS, query),
    }


def stages_of_scan(
    files: Sequence[Path], library: Path
) -> dict[str, tuple[float, Callable[[], object]]]:
    """What a scan does with these files against a library, beside decoding them."""
    from fingerprint.audio import SAMPLE_RATE, Limits, read_audio
    from fingerprint.fingerprint import QUERY_EVERY, fingerprint
    from index.database import BESIDE
    from index.significance import MATCH, REVIEW
    from service.datasets.source import OnDisk, identify
    from service.scan.worker import Ears, Task, listen

    def ears(probe: bool) -> Ears:
        limits = Limits()
        return Ears(Task(library, BESIDE, limits, REVIEW, MATCH, 0, probe, False, None))

    def hear(by: Ears) -> Callable[[Path], object]:
        return lambda file: listen(OnDisk(file), file.name, None, by)

    scanning, probing = ears(False), ears(True)
    seconds = sum(len(read_audio(file)) / SAMPLE_RATE for file in files)
    stages: dict[str, Callable[[Path], object]] = {
        DECODE: decode_ffmpeg,
        TO_8_KHZ: _read_all,
        "hash": lambda file: identify(OnDisk(file), file.name, Limits()),
        "fingerprint": lambda file: fingerprint(file, scanning.encoder, QUERY_EVERY),
        SCAN: hear(scanning),
        PROBE: hear(probing),
    }
    return {name: (seconds, _over(stage, files)) for name, stage in stages.items()}


def stages_of_decoders(
    files: Sequence[Path], folder: Path
) -> dict[str, tuple[float, Callable[[], object]]]:
    """Both decoders, alone and with what follows, over the same music in several codecs."""
    from benchmarks.codecs import cut, write
    from fingerprint.audio import SAMPLE_RATE, read_audio

    stages: dict[str, tuple[float, Callable[[], object]]] = {}
    for label, codec in DECODED_CODECS.items():
        copies = list(files)
        if codec:
            copies = [
                write(folder / f"{codec}-{number}", *cut(file, 0.0, LONGEST_FILE), codec)
                for number, file in enumerate(files)
            ]
        seconds = sum(len(read_audio(copy)) / SAMPLE_RATE for copy in copies)
        for what, function in {
            "FFmpeg": decode_ffmpeg,
            "libsndfile": decode_libsndfile,
            "FFmpeg to 8 kHz": _read_all,
            "libsndfile to 8 kHz": read_with_libsndfile,
        }.items():
            stages[f"{label}: {what}"] = (seconds, _over(function, copies))
    return stages


def decode_ffmpeg(file: Path) -> None:
    """Decode and let go, with FFmpeg's libraries."""
    import av

    with av.open(str(file), metadata_errors="ignore") as container:
        for _ in container.decode(audio=0):
            pass


def decode_libsndfile(file: Path) -> None:
    """Decode and let go, with libsndfile, a second at a time."""
    for _ in _blocks_of_libsndfile(file):
        pass


def read_with_libsndfile(file: Path) -> None:
    """What `open_audio` does, on libsndfile."""
    import numpy as np
    import soundfile as sf
    import soxr

    from fingerprint.audio import RESAMPLING_QUALITY, SAMPLE_RATE
    from fingerprint.downmix import Downmix

    info = sf.info(file)
    downmix = Downmix(info.samplerate, info.channels)
    resampler = soxr.ResampleStream(info.samplerate, SAMPLE_RATE, 1, quality=RESAMPLING_QUALITY)
    for block in _blocks_of_libsndfile(file):
        resampler.resample_chunk(downmix.mix(np.ascontiguousarray(block.T)))
    resampler.resample_chunk(np.empty(0, np.float32), last=True)


def _blocks_of_libsndfile(file: Path) -> Iterator[Any]:
    import numpy as np
    import soundfile as sf

    from fingerprint.downmix import block_length

    with sf.SoundFile(file) as sound:
        length = 4 * block_length(sound.samplerate, sound.channels)
        buffer = np.empty((length, sound.channels), np.float32)
        yield from sound.blocks(out=buffer)


def _read_all(file: Path) -> None:
    from fingerprint.audio import open_audio

    with open_audio(file) as stream:
        for _ in stream.blocks():
            pass


def _each(function: Callable[[Any], object], values: Sequence[Any]) -> None:
    for value in values:
        function(value)


def _over(function: Callable[[Path], object], files: Sequence[Path]) -> Callable[[], object]:
    return lambda: _each(function, files)


def choose_files(
    minutes: float, shortest: float = 0.0, longest: float = LONGEST_FILE
) -> list[Path]:
    """Ogg Vorbis files of the report split, one of each package in turn, `minutes` in all or a little more.

    They last from `shortest` to `longest` seconds. Raises ThroughputError if none has been fetched.
    """
    from benchmarks import corpora

    by_package: dict[str, list[corpora.Item]] = {}
    for item in corpora.items("report", ("music",)):
        if item.path.suffix.lower() == ".ogg" and shortest <= item.duration <= longest:
            by_package.setdefault(item.package, []).append(item)
    chosen: list[Path] = []
    seconds = 0.0
    while seconds < 60 * minutes and any(by_package.values()):
        for items in by_package.values():
            if items and seconds < 60 * minutes:
                item = items.pop(0)
                chosen.append(item.path)
                seconds += item.duration
    if not chosen:
        raise ThroughputError(
            "no Ogg Vorbis file of the report split is there: "
            "run python -m benchmarks.corpora fetch --split report"
        )
    return chosen


def run_stages(
    decoders: bool, library: Path | None, files: Sequence[Path], rounds: int
) -> list[Speed]:
    """In a process of its own: pin it to one core and measure."""
    _pin()
    if library is not None:
        return measure(stages_of_scan(files, library), rounds, TO_8_KHZ)
    with tempfile.TemporaryDirectory() as folder:
        make = stages_of_decoders if decoders else stages_of_earmark
        return measure(make(files, Path(folder)), rounds, "" if decoders else DECODE)


def peak_memory(what: str, files: Sequence[Path]) -> int:
    """In a process of its own: bytes it had at most, Python and libraries included.

    what: "start" (imports and encoder only), "ingest" (of all files) or "query" (of the longest file whole,
    after that ingest).
    """
    _pin()
    from fingerprint.encoder import Encoder
    from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY, fingerprint
    from index.library import Library
    from index.recording import Metadata

    encoder = Encoder.load()
    with ExitStack() as stack:
        if what != "start":
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            library = Library.open(Path(folder) / "library", encoder, create=True)
            with library.writer() as writer:
                for number, file in enumerate(files):
                    about = Metadata(
                        source=file.name, rightsholder="-", rights="open-licence", id=str(number)
                    )
                    writer.add(fingerprint(file, encoder, REFERENCE_EVERY), about)
            if what == "query":
                longest = max(files, key=lambda file: file.stat().st_size)
                library.search(fingerprint(longest, encoder, QUERY_EVERY))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _pin() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result in a new process, whose libraries start with one thread each."""
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def table(speeds: Sequence[Speed]) -> str:
    """For people."""
    width = max(len(speed.stage) for speed in speeds)
    ratios = any(speed.share_of_decoding is not None for speed in speeds)
    lines = [f"{'stage':{width}}  x real time (slowest to fastest)"]
    lines[0] += "  CPU time / decoding's" if ratios else ""
    for speed in speeds:
        spread = f"({speed.slowest:,.0f} to {speed.fastest:,.0f})"
        share = speed.share_of_decoding
        ratio = "" if share is None else f"{share:.2f}"
        lines.append(
            f"{speed.stage:{width}}  {speed.times_real_time:>8,.0f}  {spread:<22}  {ratio}"
        )
    return "\n".join(lines)


def comparison(speeds: Sequence[Speed]) -> str:
    """How many times as fast as libsndfile FFmpeg is, by codec."""
    speed = {each.stage: each.times_real_time for each in speeds}
    lines = ["FFmpeg / libsndfile        alone  to 8 kHz"]
    for codec in DECODED_CODECS:
        alone, whole = (
            speed[f"{codec}: FFmpeg{end}"] / speed[f"{codec}: libsndfile{end}"]
            for end in ("", " to 8 kHz")
        )
        lines.append(f"{codec:25}  {alone:5.2f}  {whole:8.2f}")
    return "\n".join(lines)


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--decoders", is_flag=True, help="Compare decoders by codec, nothing else.")
@click.option("--library", type=click.Path(path_type=Path), help="Compare scans against it.")
@click.option("--minutes", default=10.0, show_default=True, help="Music per stage and round.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="JSON, as well.")
def main(
    decoders: bool, library: Path | None, minutes: float, rounds: int, out: Path | None
) -> None:
    """Command line of this module."""
    try:
        files = choose_files(minutes, *(SCANNED if library else ()))
    except EarmarkError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    speeds: list[Speed] = apart(run_stages, decoders, library, files, rounds)
    result: dict[str, Any] = {
        "machine": {"processor": _processor(), "python": platform.python_version()},
        "files": len(files),
        "rounds": rounds,
        "stages": [asdict(speed) for speed in speeds],
    }
    click.echo(table(speeds))
    if decoders:
        click.echo(comparison(speeds))
    elif library:
        speed = {each.stage: each.times_real_time for each in speeds}
        click.echo(
            f"scanning runs at {speed[SCAN] / speed[TO_8_KHZ]:.0%} of the speed of decoding to 8 kHz, "
            f"probing at {speed[PROBE] / speed[SCAN]:.1f} times that of scanning"
        )
    else:
        memory = {what: apart(peak_memory, what, files) for what in ("start", "ingest", "query")}
        result["peak_memory_bytes"] = memory
        query = speeds[-1]
        result["query_seconds"] = round(query.cpu_seconds / CLIPS, 4)
        click.echo(f"query: {1000 * result['query_seconds']:.0f} ms of CPU per clip")
        for what, size in memory.items():
            click.echo(f"peak memory, {what}: {size / 2**20:.0f} MiB")
    if out:
        out.write_text(json.dumps(result, indent=1) + "\n")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
