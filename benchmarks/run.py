"""One command: how good Earmark is, beside its peers.

    python -m benchmarks.run --size sample|full [--seed 1] [--peer NAME ...] [--out FOLDER] [--workdir FOLDER]

Fetches what it needs, draws the clips, finds their truth, asks every peer and writes a folder of results
(results.json, summary.json, report.html). Stopped at any time, it goes on where it was when it is called
again. What cannot be had (a package, a program, a peer) is left out and named in the report.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import av
import click
import filelock
from tqdm import tqdm

from benchmarks import corpora, report
from benchmarks.accuracy import Task, ask, score
from benchmarks.clips import (
    MadeClip,
    Material,
    clips_digest,
    find_truth,
    make_clips,
    recipe_digest,
)
from benchmarks.corpora import MUSIC, CorpusError, Item
from benchmarks.degrade import DEGRADATIONS, Sources
from benchmarks.peers import PEERS
from benchmarks.plan import SIZES, Plan, Size, Work, make_plan
from benchmarks.truth import Place
from fingerprint.encoder import Encoder
from fingerprint.errors import EarmarkError

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SPEED_TIMEOUT = 3600  # s
# Of each kind of sound that is mixed into clips, in seconds.
SHORTEST_SOURCE = {"noise": 4.0, "speech": 1.5, "impulse-response": 0.0}
# Asked in every run, so that no figure of Earmark's stands beside a peer's of another day.
ALWAYS = ("chromaprint", "zvukodel")
PACKAGES = ("numpy", "faiss-cpu", "numba", "av", "soundfile", "soxr", "scipy")


@dataclass
class Corpus:
    """What is there to measure with."""

    works: list[Item] = field(default_factory=list)  # of the report split
    distractors: list[Item] = field(default_factory=list)
    sources: dict[str, list[Item]] = field(default_factory=dict)  # by kind
    audio: dict[str, Path] = field(default_factory=dict)  # of works and distractors, by id
    versions: dict[str, str] = field(default_factory=dict)  # of packages
    problems: list[str] = field(default_factory=list)


def gather(size: Size, *, fetch: bool, workers: int) -> Corpus:
    """Fetch and render what a run of this size needs; what cannot be had is a problem, not an error."""
    corpus = Corpus()
    report_packages = size.report_packages or corpora.packages("report")
    splits = ("train", "tune") if size.distractors else ()
    wanted = [*report_packages, *(name for split in splits for name in corpora.packages(split))]
    if fetch:
        try:
            fetched = corpora.fetch(wanted)
            corpus.problems += [f"{name}: {why}" for name, why in sorted(fetched.failed.items())]
        except CorpusError as error:
            corpus.problems.append(f"packages could not be fetched: {error}")
    home = corpora.packages_folder()
    for name in wanted:
        version = home / name / "_version"
        if version.is_file():
            corpus.versions[name] = version.read_text().strip()
        else:
            corpus.problems.append(f"{name} is not there: its recordings are left out")

    def of(split: str, kinds: Sequence[str], seconds: float | None = None) -> list[Item]:
        found = corpora.items(split, kinds, min_seconds=seconds)
        return [item for item in found if item.package in corpus.versions]

    corpus.works = _playable(of("report", MUSIC), corpus, workers)
    for split in splits:
        corpus.distractors += _playable(of(split, MUSIC), corpus, workers)
    for kind, seconds in SHORTEST_SOURCE.items():
        corpus.sources[kind] = of("report", (kind,), seconds)
    return corpus


def _playable(items: Sequence[Item], corpus: Corpus, workers: int) -> list[Item]:
    """The items that are files by now; modules and MIDI files are rendered."""

    def audio(item: Item) -> Path | EarmarkError:
        try:
            return item.audio()
        except EarmarkError as error:
            return error

    playable = []
    with ThreadPoolExecutor(workers) as pool:
        files = tqdm(pool.map(audio, items), total=len(items), unit="file", disable=None)
        for item, file in zip(items, files, strict=True):
            if isinstance(file, EarmarkError):
                corpus.problems.append(f"{item.package}, {item.title}: {file}")
            else:
                corpus.audio[item.id] = file
                playable.append(item)
    return playable


def plan_of(size: Size, seed: int, corpus: Corpus) -> Plan:
    """What to measure."""
    return make_plan(
        size,
        seed,
        [_work(item) for item in corpus.works],
        [_work(item) for item in corpus.distractors],
        {**corpus.versions, "recipe": recipe_digest()},
    )


def _work(item: Item) -> Work:
    return Work(item.id, item.package, item.duration, item.artist, item.group)


def material_of(plan: Plan, corpus: Corpus) -> Material:
    """What the clips are made of: what is mixed into a clip comes from its own side of the plan."""
    paths = {kind: tuple(i.path for i in items) for kind, items in corpus.sources.items()}

    def sources(role: Any) -> Sources:
        return Sources(
            noise=paths["noise"],
            speech=paths["speech"],
            impulse_responses=paths["impulse-response"],
            music=tuple(corpus.audio[work] for work in plan.works(role)),
        )

    audio = {work: corpus.audio[work] for work in plan.roles}
    return Material(plan, audio, sources("reference"), sources("absent"))


def measure(
    plan: Plan, corpus: Corpus, folder: Path, out: Path, peers: Iterable[str], workers: int
) -> dict[str, Any]:
    """Everything from clips to results.json; written anew after each peer."""
    material = material_of(plan, corpus)
    _say(f"{len(plan.clips)} clips in {folder}")
    clips = make_clips(material, folder, workers=workers)
    _say("truth: where else in the library the same audio is heard")
    truth = find_truth(plan, clips, material.audio, folder)
    library = plan.works("reference", "distractor")
    duration = {item.id: item.duration for item in (*corpus.works, *corpus.distractors)}
    seconds = sum(duration[work] for work in library)
    task = Task(
        [(work, corpus.audio[work]) for work in library],
        [(clip.id, folder / "clips" / f"{clip.id}.flac") for clip in clips if not clip.problem],
    )
    results = _facts(plan, corpus, clips, truth, duration)
    results["peers"] = {}
    for name in peers:
        _say(f"{name}: {len(task.works)} works, {len(task.clips)} clips")
        run = ask(PEERS[name](), task, folder / "answers")
        results["peers"][name] = score(run, clips, truth, seconds)
        _write(out, results)
        if run.problem:
            _say(f"{name}: {run.problem}")
    return results


def chosen(peers: Sequence[str]) -> list[str]:
    """These peers and those of `ALWAYS`, in the order of reports; all if none is named."""
    return [name for name in PEERS if not peers or name in peers or name in ALWAYS]


def measure_speed(size: Size, out: Path, results: dict[str, Any]) -> None:
    """Write throughput.json beside the results, in a process of its own."""
    file = (out / "throughput.json").resolve()
    file.unlink(missing_ok=True)
    amount = ("--minutes", str(size.minutes), "--rounds", str(size.rounds))
    command = [sys.executable, "-m", "benchmarks.throughput", *amount, "--out", str(file)]
    try:
        subprocess.run(
            command, cwd=ROOT, check=True, timeout=SPEED_TIMEOUT, capture_output=True, text=True
        )
    except subprocess.CalledProcessError as error:
        complaint = error.stderr.strip().splitlines() or [f"exit status {error.returncode}"]
        results["problems"].append(f"speed was not measured: {complaint[-1]}")
    except subprocess.TimeoutExpired:
        results["problems"].append(f"speed was not measured: not done in {SPEED_TIMEOUT} s")


def _facts(
    plan: Plan,
    corpus: Corpus,
    clips: Sequence[MadeClip],
    truth: dict[str, list[Place]],
    duration: dict[str, float],
) -> dict[str, Any]:
    """What was measured, with what, on what; and what could not be."""
    made = [clip for clip in clips if not clip.problem]
    known = [clip for clip in made if clip.absent and truth[clip.id]]
    problems = Counter(
        (clip.degradation, clip.seconds, clip.problem) for clip in clips if clip.problem
    )
    absent = [clip for clip in made if clip.absent]
    return {
        "format": 1,
        "size": plan.size,
        "seed": plan.seed,
        "encoder": Encoder.load().id,
        "plan": plan.digest,
        "clips_sha256": clips_digest(clips),
        "machine": _machine(),
        "versions": _versions(),
        "works": {
            role: _count(plan.works(role), duration)
            for role in ("reference", "distractor", "absent")
        },
        "packages": {
            "report": len({item.package for item in corpus.works}),
            "distractors": len({item.package for item in corpus.distractors}),
        },
        "sources": {kind: len(items) for kind, items in corpus.sources.items()},
        "clips": {
            "present": sum(not clip.absent for clip in made),
            "absent": len(absent),
            "absent_hours": round(sum(clip.duration for clip in absent) / 3600, 3),
            "hours": round(sum(clip.duration for clip in made) / 3600, 3),
            "with_several_places": sum(
                len(truth[clip.id]) > len(clip.cuts) for clip in made if not clip.absent
            ),
            "absent_but_in_library": len(known),
        },
        "degradations": {
            name: {
                "family": DEGRADATIONS[name].family,
                "description": DEGRADATIONS[name].description,
            }
            for name in dict.fromkeys(clip.degradation for clip in plan.clips)
        },
        "problems": corpus.problems,
        "missing_clips": [
            {"degradation": degradation, "seconds": seconds, "clips": n, "reason": reason}
            for (degradation, seconds, reason), n in problems.items()
        ],
    }


def _count(works: Sequence[str], duration: dict[str, float]) -> dict[str, float]:
    return {"works": len(works), "hours": round(sum(duration[w] for w in works) / 3600, 3)}


def _machine() -> dict[str, Any]:
    """The computer, without its name."""
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": model or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        versions[name] = importlib.metadata.version(name)
    for name in ("libavcodec", "libswresample"):
        versions[name] = ".".join(map(str, av.library_versions[name]))
    return versions


def _write(out: Path, results: dict[str, Any]) -> None:
    """results.json, in one piece."""
    out.mkdir(parents=True, exist_ok=True)
    partial = out / "results.json.partial"
    text = json.dumps(results, separators=(",", ":"))
    for folder, name in ((corpora.cache_folder(), "<cache>"), (ROOT, "."), (Path.home(), "~")):
        text = text.replace(
            str(folder), name
        )  # where this machine keeps things is nobody's business
    partial.write_text(text + "\n")
    os.replace(partial, out / "results.json")


def _say(line: str) -> None:
    click.echo(line, err=True)


def _day(folder: Path) -> str:
    """The day on which the run began; a run that goes on tomorrow keeps it."""
    file = folder / "started"
    if not file.is_file():
        file.write_text(datetime.now(UTC).date().isoformat())
    return date.fromisoformat(file.read_text()).isoformat()


@click.command(help="Measure Earmark beside its peers, and report.")
@click.option("--size", type=click.Choice(sorted(SIZES)), default="sample", show_default=True)
@click.option("--seed", default=1, show_default=True, help="Of works, clips and damage.")
@click.option(
    "--peer",
    "peers",
    multiple=True,
    type=click.Choice(list(PEERS)),
    help=f"Default: all; {' and '.join(ALWAYS)} are always asked.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Default: results/<date>-<encoder>.")
@click.option("--workdir", type=click.Path(path_type=Path), help="Default: in the cache.")
@click.option("--workers", default=min(2, os.cpu_count() or 1), show_default=True)
@click.option("--fetch/--no-fetch", default=True, help="Whether to fetch missing packages.")
def main(
    size: str,
    seed: int,
    peers: tuple[str, ...],
    out: Path | None,
    workdir: Path | None,
    workers: int,
    fetch: bool,
) -> None:
    """Exit status 1 if nothing could be measured."""
    try:
        corpus = gather(SIZES[size], fetch=fetch, workers=workers)
        for problem in corpus.problems:
            _say(problem)
        plan = plan_of(SIZES[size], seed, corpus)
        folder = workdir or corpora.cache_folder() / "runs" / f"{size}-seed{seed}-{plan.digest}"
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / "lock", blocking=False):
            target = out or RESULTS / f"{_day(folder)}-{Encoder.load().id}"
            results = measure(plan, corpus, folder, target, chosen(peers), workers)
            results["date"] = _day(folder)
            _say("speed of Earmark's stages beside decoding alone")
            measure_speed(SIZES[size], target, results)
            _write(target, results)
        report.write(target)
    except (EarmarkError, ValueError) as error:
        _say(f"error: {error}")
        sys.exit(1)
    except filelock.Timeout:
        _say(f"error: another run is at work in {folder}; let it finish, or name another --workdir")
        sys.exit(1)
    click.echo(target / "report.html")


if __name__ == "__main__":
    main()
