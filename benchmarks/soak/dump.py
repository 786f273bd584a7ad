"""A test dump in every container, scanned: precision and recall per kind, kills, speed beside decoding.

    python -m benchmarks.soak.dump --folder FOLDER [--files 1000] [--kills 10] [--library LIBRARY] \
        [--out FILE]

The dump is kept in FOLDER, and made anew only for another seed or number of files.

Half of the report split is a rightsholder's catalogue, the other half is what else there is in a dump.
Files are originals, copies re-encoded by Opus at 75 kbit/s, sped up, cut to 30 s, with 30 s of a work inside
90 s of other music, two works mixed, unrelated, copies of other files, and broken in twenty ways; they are
dealt out to a folder, zip, tar, tar.gz, tar.zst, WebDataset and Parquet files. A scan is right about a file
if it names the works that are in it, or recordings that are the same (the corpora's groups), and no other. Of
every other recording that it names is told whether a work of the file has audio in common with it (`truth`).

Then: the scan killed at random instants and resumed, whose tables have to be those of the undisturbed one;
probed; and the CPU time of scanning and of probing 160 kbit/s Ogg Vorbis files beside that of decoding them.
LIBRARY, if given, is one that `benchmarks.scale` has grown; the catalogue is added to a copy of it.
"""

import gzip
import io
import json
import resource
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import zstandard
from numpy.random import Generator
from tqdm import tqdm

from benchmarks import codecs
from benchmarks.codecs import Samples
from benchmarks.degrade import RATE, Sources, Speed, Trace, rng_for, to_rate
from benchmarks.plan import Size
from benchmarks.run import Corpus, gather, plan_of
from benchmarks.truth import SHORTEST, Cut, Truth
from fingerprint.audio import open_audio, read_audio
from service.jobs.scan_jobs import files_heard
from service.scan.journal import FILE as JOURNAL

PIECE = 60.0  # s of a work in most kinds of file
INSIDE = 30.0  # s of a work inside other music, and of a cut
KINDS = (
    "original",
    "opus-75",
    "sped up 5 %",
    "cut to 30 s",
    "30 s inside 120 s",
    "two works mixed",
    "unrelated",
    "copy",
    "broken",
)
ROOT = Path(__file__).parents[2]
# s, at most, of a wrongly named recording that are looked for at a time; shorter than most of what is shared.
COMPARED = 3.0
_SHARD = 40  # files in each container
TABLES = ("files.csv", "segments.csv", "errors.csv")


@dataclass
class Made:
    """A file of the dump: its name, its kind, the works that are in it, its bytes until it is packed."""

    name: str
    kind: str
    works: tuple[str, ...] = ()
    data: bytes = b""


@dataclass
class Tally:
    """How a scan did on files of one kind."""

    files: int = 0
    present: int = 0  # works in them
    found: int = 0
    right: int = 0  # recordings named that are in the file
    named: int = 0
    failed: int = 0
    missed: list[tuple[str, str]] = field(default_factory=list)  # file and work
    # file, recording named, and whether a work of the file has some of the same audio
    wrong: list[tuple[str, str, bool]] = field(default_factory=list)


class Maker:
    """Draws files of every kind from the two halves of a corpus."""

    def __init__(
        self, corpus: Corpus, known: Sequence[str], other: Sequence[str], seed: int
    ) -> None:
        self._audio = corpus.audio
        self._known = known
        self._other = other
        self._seed = seed
        self._seconds = {item.id: item.duration for item in corpus.works}

    def file(self, number: int, earlier: Sequence[Made]) -> Made:
        """File of that number; always the same."""
        kind = KINDS[number % len(KINDS)]
        rng = rng_for(self._seed, "dump", number)
        makers: dict[str, Callable[[Generator], tuple[str, bytes, tuple[str, ...]]]] = {
            "original": self._original,
            "opus-75": self._opus,
            "sped up 5 %": self._faster,
            "cut to 30 s": self._cut,
            "30 s inside 120 s": self._inside,
            "two works mixed": self._mixed,
            "unrelated": self._unrelated,
            "broken": lambda rng: self._broken(rng, number // len(KINDS)),
        }
        if kind == "copy":
            of = earlier[int(rng.integers(len(earlier)))]
            suffix = of.name.partition(".")[2]
            return Made(f"{number:05d}.{suffix}", kind, of.works, of.data)
        suffix, data, works = makers[kind](rng)
        return Made(f"{number:05d}.{suffix}", kind, works, data)

    def _draw(self, rng: Generator, works: Sequence[str], seconds: float) -> tuple[str, Samples]:
        """A work, and that much of it from a random place on, at RATE in stereo."""
        while True:
            work = works[int(rng.integers(len(works)))]
            if self._seconds[work] >= seconds + 1:
                start = float(rng.uniform(0, self._seconds[work] - seconds - 0.5))
                samples = to_rate(*codecs.cut(self._audio[work], start, seconds))
                if np.sqrt(np.mean(samples**2)) > 1e-3:
                    return work, np.repeat(samples[:, :1], 2, axis=1)

    def _original(self, rng: Generator) -> tuple[str, bytes, tuple[str, ...]]:
        work = self._known[int(rng.integers(len(self._known)))]
        path = self._audio[work]
        return path.suffix[1:], path.read_bytes(), (work,)

    def _opus(self, rng: Generator) -> tuple[str, bytes, tuple[str, ...]]:
        work, samples = self._draw(rng, self._known, PIECE)
        return "opus", codecs.encode(samples, RATE, "opus-75"), (work,)

    def _faster(self, rng: Generator) -> tuple[str, bytes, tuple[str, ...]]:
        work, samples = self._draw(rng, self._known, PIECE)
        factor = 1.05 if rng.random() < 0.5 else 1 / 1.05
        changed = Speed(factor).apply(samples, rng, Sources(), Trace())
        return "mp3", codecs.encode(changed, RATE, "mp3-128"), (work,)

    def _cut(self, rng: Generator) -> tuple[str, bytes, tuple[str, ...]]:
        work, samples = self._draw(rng, self._known, INSIDE)
        return "m4a", codecs.encode(samples, RATE, "aac-96"), (work,)

    def _inside(self, rng: Generator) -> tuple[str, bytes, tuple[str, ...]]:
        work, inside = self._draw(rng, self._known, INSIDE)
        (_, before), (_, after) = (self._draw(rng, self._other, 45.0) for _ in range(2))
        whole = np.concatenate([before, inside, after])
        return "ogg", _vorbis(whole), (work,)

    def _mixed(self, rng: Generator) -> tuple[str, bytes, tuple[str, ...]]:
        (first, a), (second, b) = (self._draw(rng, self._known, PIECE) for _ in range(2))
        n = min(len(a), len(b))
        a, b = (x[:n] / np.sqrt(np.mean(x[:n] ** 2)) for x in (a, b))
        return "ogg", _vorbis(0.1 * (a + b)), (first, second)

    def _unrelated(self, rng: Generator) -> tuple[str, bytes, tuple[str, ...]]:
        _, samples = self._draw(rng, self._other, PIECE)
        return "opus", codecs.encode(samples, RATE, "opus-75"), ()

    def _broken(self, rng: Generator, way: int) -> tuple[str, bytes, tuple[str, ...]]:
        _, samples = self._draw(rng, self._other, 10.0)
        return broken(rng, way, samples)


def _vorbis(samples: Samples) -> bytes:
    """Ogg Vorbis of about 160 kbit/s; in blocks, as libsndfile crashes on minutes at once."""
    file, samples = io.BytesIO(), codecs.limit_peak(samples)
    how: dict[str, Any] = {"format": "OGG", "subtype": "VORBIS", "compression_level": 0.5}
    with soundfile.SoundFile(file, "w", RATE, samples.shape[1], **how) as sound:
        for first in range(0, len(samples), RATE):
            sound.write(samples[first : first + RATE])
    return file.getvalue()


def broken(rng: Generator, way: int, samples: Samples) -> tuple[str, bytes, tuple[str, ...]]:
    """A file broken in one of twenty ways; what sound is left in it is unrelated."""
    noise = rng.bytes(20_000)

    def of(codec: str, sound: Samples = samples) -> bytes:
        return codecs.encode(sound, RATE, codec)

    def with_bytes(data: bytes, at: float, new: bytes) -> bytes:
        """At a byte, or a share of all."""
        first = int(at * len(data)) if at < 1 else int(at)
        return data[:first] + new + data[first + len(new) :]

    def start(data: bytes, share: float) -> bytes:
        return data[: int(share * len(data))]

    ways: list[tuple[str, Callable[[], bytes]]] = [
        ("wav", lambda: b""),
        ("mp3", lambda: b"\xff"),
        ("mp3", lambda: b"This is a letter, not music.\n" * 40),
        ("html.mp3", lambda: b"<!doctype html><title>404</title>" * 30),
        ("ogg", lambda: noise),
        ("ogg", lambda: of("vorbis-160")[:200]),
        ("ogg", lambda: start(of("vorbis-160"), 0.5)),
        ("ogg", lambda: with_bytes(of("vorbis-160"), 0.5, bytes(4000))),
        ("flac", lambda: of("flac")[:60]),
        ("flac", lambda: with_bytes(of("flac"), 0.3, noise[:2000])),
        ("m4a", lambda: start(of("aac-96"), 0.67)),
        ("m4a", lambda: with_bytes(of("aac-96"), 4, b"xxxx")),
        ("mp3", lambda: noise[:5000] + of("mp3-64")),
        ("mp3", lambda: with_bytes(of("mp3-64"), 0.5, noise)),
        ("wav", lambda: with_bytes(of("wav"), 40, b"\xff\xff\xff\xff")),
        ("wav", lambda: with_bytes(of("wav"), 22, b"\x00\x00")),
        ("wav", lambda: with_bytes(of("wav"), 24, b"\x00\x00\x00\x00")),
        ("wav", lambda: of("wav", np.zeros((5 * RATE, 1), np.float32))),
        ("wav", lambda: of("wav", samples[: RATE // 5])),
        ("opus", lambda: b"OggS" + noise),
    ]
    suffix, make = ways[way % len(ways)]
    return suffix, make(), ()


def pack(files: Sequence[Made], folder: Path) -> dict[tuple[str, str | None], Made]:
    """Deal files out to containers in a folder; what is where, as a scan names it: (file, member)."""
    where: dict[tuple[str, str | None], Made] = {}
    shards = [files[first : first + _SHARD] for first in range(0, len(files), _SHARD)]
    for number, shard in enumerate(shards):
        kind = ("folder", "zip", "tar", "tar.gz", "tar.zst", "webdataset", "parquet")[number % 7]
        name = f"{number:03d}"
        if kind == "folder":
            (folder / name).mkdir()
            for made in shard:
                (folder / name / made.name).write_bytes(made.data)
                where[f"{name}/{made.name}", None] = made
        elif kind == "parquet":
            rows = [{"audio": {"bytes": made.data, "path": made.name}} for made in shard]
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
            for row, made in enumerate(shard):
                where[f"{name}.parquet", f"row {row}: {made.name}"] = made
        else:
            suffix = "tar" if kind == "webdataset" else kind
            (folder / f"{name}.{suffix}").write_bytes(_archive(shard, kind))
            for made in shard:
                where[f"{name}.{suffix}", made.name] = made
    return where


def kept(note: Path, dataset: Path, maker: Maker, files: int) -> dict[tuple[str, str | None], Made]:
    """What is where in a dump, which is made unless the note says that it is there."""
    if note.is_file():
        rows = json.loads(note.read_text())
        return {
            (file, member): Made(name, kind, tuple(works))
            for file, member, name, kind, works in rows
        }
    made: list[Made] = []
    for number in tqdm(range(files), "files", disable=None):
        made.append(maker.file(number, made))
    shutil.rmtree(dataset, ignore_errors=True)
    for other in note.parent.glob("dump-*.json"):
        other.unlink()
    dataset.mkdir(parents=True)
    where = pack(made, dataset)
    rows = [[*place, it.name, it.kind, it.works] for place, it in where.items()]
    note.write_text(json.dumps(rows))
    return where


def _archive(shard: Sequence[Made], kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
            for made in shard:
                zipped.writestr(made.name, made.data)
        return file.getvalue()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for made in shard:
            parts = [(made.name, made.data)]
            if kind == "webdataset":
                parts.append((made.name.partition(".")[0] + ".json", b'{"title": "a title"}'))
            for name, data in parts:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    data = file.getvalue()
    if kind == "tar.gz":
        return gzip.compress(data, 1)
    return zstandard.compress(data) if kind == "tar.zst" else data


def started(library: Path, *arguments: object) -> "subprocess.Popen[bytes]":
    """The command, running."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "earmark",
        "--library",
        str(library),
        *map(str, arguments),
    ]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)


def earmark(
    library: Path, *arguments: object, kill_after: tuple[Path, int, float] | None = None
) -> int:
    """Run the command; its exit status.

    kill_after : a scan's journal, the files after which it is killed, and how many seconds after these
    """
    process = started(library, *arguments)
    if kill_after is not None:
        wait_for(process, *kill_after)
        process.kill()
    return process.wait()


def wait_for(process: "subprocess.Popen[bytes]", journal: Path, files: int, delay: float) -> None:
    """Until a scan has heard so many files, and so many seconds longer; or is over."""
    while process.poll() is None and files_heard(journal) < files:
        time.sleep(0.2)
    time.sleep(delay)


def score(
    report: Path,
    where: dict[tuple[str, str | None], Made],
    group: dict[str, str],
    audio: Mapping[str, Path],
) -> dict[str, Tally]:
    """How a scan did, by kind of file. `group` names works that are the same recording alike."""
    named: dict[tuple[str, str | None], dict[str, list[Cut]]] = defaultdict(dict)
    for row in pq.read_table(report / "segments.parquet").to_pylist():
        if row["tier"] == "match":
            work = group.get(row["recording"], row["recording"])
            named[row["file"], row["member"]].setdefault(work, []).extend(_cuts(row))
    tallies = {kind: Tally() for kind in KINDS}
    for row in pq.read_table(report / "files.parquet").to_pylist():
        place = row["file"], row["member"]
        made = where.pop(place)
        there = {group[work] for work in made.works}
        told = named[place]
        tally = tallies[made.kind]
        tally.files += 1
        tally.failed += row["status"] == "failed"
        tally.present += len(there)
        tally.found += len(there & told.keys())
        tally.right += len(there & told.keys())
        tally.named += len(told)
        tally.missed += [(made.name, work) for work in sorted(there - told.keys())]
        tally.wrong += [
            (made.name, work, _is_heard_in(told[work], made.works, audio))
            for work in sorted(told.keys() - there)
        ]
    if where:
        raise SystemExit(f"{len(where)} files were not counted: {sorted(map(str, where))[:5]}")
    return tallies


def _cuts(segment: Mapping[str, Any]) -> list[Cut]:
    """What a segment says is heard of a recording, in pieces."""
    start, end = segment["reference_start"], segment["reference_end"]
    seconds = min(end - start, COMPARED)
    starts = np.arange(start, end - seconds + 0.01, seconds)
    return [Cut(segment["recording"], float(at), seconds) for at in starts]


def _is_heard_in(cuts: Sequence[Cut], works: Sequence[str], audio: Mapping[str, Path]) -> bool:
    """Whether one of these works has the audio of a cut of other recordings, by the waveform.

    Simulated recordings (`benchmarks.scale`) have no audio, and a moment says nothing.
    """
    cuts = [cut for cut in cuts if cut.recording in audio and cut.seconds >= SHORTEST]
    truth = Truth()
    for work in {*works, *(cut.recording for cut in cuts)}:
        truth.add(work, read_audio(audio[work]))
    return any(place.recording in works for places in truth.places(cuts) for place in places)


def cpu_of_children(work: Callable[[], object]) -> float:
    """Seconds of CPU that the processes which `work` starts and waits for take."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def decode_all(folder: Path) -> None:
    """Decode every file of a folder, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.soak.dump", "--decode", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True)


def speed(maker: Maker, library: Path, folder: Path, files: int, rounds: int) -> dict[str, Any]:
    """CPU time of scanning and probing long Ogg Vorbis files, as shares of decoding them alone.

    What every process spends before its first file, measured on a folder of one short file, is taken off.
    """
    dataset, tiny = folder / "ogg", folder / "tiny"
    if not dataset.is_dir():
        tiny.mkdir(parents=True)
        part = dataset.with_suffix(".partial")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        for number in tqdm(range(files), "ogg", disable=None):
            rng = rng_for("dump", "ogg", number)
            pieces = [maker._draw(rng, maker._other, 50.0)[1] for _ in range(4)]
            data = _vorbis(np.concatenate(pieces))
            (part / f"{number:03d}.ogg").write_bytes(data)
        (tiny / "a.ogg").write_bytes(codecs.encode(pieces[0][: 2 * RATE], RATE, "vorbis-160"))
        part.rename(dataset)

    def scan(of: Path, *options: str) -> float:
        report = folder / "speed"
        shutil.rmtree(report, ignore_errors=True)
        return cpu_of_children(
            lambda: earmark(library, "scan", of, "--report", report, "--jobs", 1, *options)
        )

    rows: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        rows["decode"].append(
            cpu_of_children(lambda: decode_all(dataset)) - cpu_of_children(lambda: decode_all(tiny))
        )
        rows["scan"].append(scan(dataset) - scan(tiny))
        rows["probe"].append(scan(dataset, "--probe") - scan(tiny, "--probe"))
    best = {name: float(np.median(values)) for name, values in rows.items()}
    return {
        "files": files,
        "hours": round(files * 200 / 3600, 2),
        "scan_share_of_decode_speed": round(best["decode"] / best["scan"], 3),
        "probe_times_scan_speed": round(best["scan"] / best["probe"], 2),
        "rounds": {name: [round(value, 2) for value in values] for name, values in rows.items()},
    }


def kill_and_resume(
    library: Path, dataset: Path, folder: Path, kills: int, files: int, rng: Generator
) -> dict[str, Any]:
    """Kill a scan so many times, after a random number of files each, resume it, and compare its tables."""
    report = folder / "killed"
    shutil.rmtree(report, ignore_errors=True)
    scan = "scan", dataset, "--report", report, "--resume"
    for after in sorted(rng.integers(0, files * 9 // 10, kills)):
        delay = float(rng.uniform(0, 2))
        if earmark(library, *scan, kill_after=(report / JOURNAL, int(after), delay)) >= 0:
            raise SystemExit(f"the scan was over before it could be killed after {after} files")
    earmark(library, *scan)
    whole = folder / "report"
    same = [(report / name).read_bytes() == (whole / name).read_bytes() for name in TABLES]
    return {"killed": kills, "same_tables": all(same)}


def _percent(part: int, of: int) -> str:
    return f"{100 * part / of:.1f}" if of else ""


def table(tallies: dict[str, Tally], probed: dict[str, Tally]) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| kind of file | files | recall | precision | recall, probed | not readable |"
    yield "|---|---:|---:|---:|---:|---:|"
    for kind, it in tallies.items():
        cells = (
            str(it.files),
            _percent(it.found, it.present),
            _percent(it.right, it.named),
            _percent(probed[kind].found, probed[kind].present),
            str(it.failed),
        )
        yield f"| {kind} | {' | '.join(cells)} |"


@click.command(help="Scan a test dump, and say how well and how fast.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where dump and reports are kept.")
@click.option("--files", default=1000, show_default=True)
@click.option("--kills", default=10, show_default=True)
@click.option("--ogg", default=20, show_default=True, help="Long files for speed.")
@click.option("--rounds", default=3, show_default=True, help="Of speed.")
@click.option("--seed", default=1, show_default=True)
@click.option("--library", "grown", type=click.Path(path_type=Path), help="One to add to.")
@click.option("--out", type=click.Path(path_type=Path))
@click.option("--decode", type=click.Path(path_type=Path), hidden=True)
def main(
    folder: Path | None,
    files: int,
    kills: int,
    ogg: int,
    rounds: int,
    seed: int,
    grown: Path | None,
    out: Path | None,
    decode: Path | None,
) -> None:
    """Exit status 1 if a killed scan reports something else than an undisturbed one."""
    if decode is not None:
        for path in sorted(decode.iterdir()):
            with open_audio(path) as stream:
                for _ in stream.blocks():
                    pass
        return
    if folder is None:
        raise click.UsageError("--folder is needed")
    size = Size("dump", (), 0, 0, 0, references=120, distractors=False)
    corpus = gather(size, fetch=False, workers=2)
    plan = plan_of(size, seed, corpus)
    known, other = plan.works("reference"), plan.works("absent")
    maker = Maker(corpus, known, other, seed)
    group = {item.id: item.group or item.id for item in corpus.works}
    library, dataset = folder / "library", folder / "dump"
    where = kept(folder / f"dump-{seed}-{files}.json", dataset, maker, files)
    if not library.is_dir():
        if grown is not None:
            shutil.copytree(grown, library)
        _ingest(library, corpus, known, folder)
    result: dict[str, Any] = {"works": len(known), "other_works": len(other), "files": files}
    reports = folder / "report", folder / "probed"
    for report, options in zip(reports, ((), ("--probe",)), strict=True):
        shutil.rmtree(report, ignore_errors=True)
        earmark(library, "scan", dataset, "--report", report, *options)
    tallies, probed = (score(report, dict(where), group, corpus.audio) for report in reports)
    lines = list(table(tallies, probed))
    result["summary"] = json.loads((folder / "report" / "summary.json").read_text())
    result["summary"].pop("dataset")
    result["kinds"] = {kind: vars(it) for kind, it in tallies.items()}
    result["probed"] = {kind: vars(it) for kind, it in probed.items()}
    if kills:
        rng = np.random.default_rng(seed)
        result["kills"] = kill_and_resume(library, dataset, folder, kills, files, rng)
        lines.append(f"\nkilled and resumed: {result['kills']}")
    if ogg:
        result["speed"] = speed(maker, library, folder, ogg, rounds)
        lines.append(f"speed: {result['speed']}")
    click.echo("\n".join(lines))
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(not result.get("kills", {"same_tables": True})["same_tables"])


def _ingest(library: Path, corpus: Corpus, known: Sequence[str], folder: Path) -> None:
    """Add the catalogue under the works' own ids."""
    names = folder / "names.csv"
    rows = "".join(f'"{corpus.audio[work]}",{work}\n' for work in known)
    names.write_text("file,id\n" + rows)
    rights = ("--rightsholder", "Blue Label", "--rights", "open-licence")
    paths = [corpus.audio[work] for work in known]
    earmark(library, "ingest", *paths, "--metadata", names, *rights)


if __name__ == "__main__":
    main()
