"""A system that its users build themselves, driven by its command line where the command is found.

Nothing here builds one. The command takes in a list of files, then answers clips in batches, because each
start reads the whole index. Works are linked as 1.ogg, 2.flac, … inside the index's folder: Panako knows a
recording by the number that its file is named after, and no title can be mistaken for a part of an answer.

A clip is asked about at the system's defaults. Where those refuse every answer, it is asked about again with
the gate open, to learn what the system would have said first; the time for that is not counted.

A command that fails over several works or clips is run again over each half, down to those that it fails
over alone. Every run has a time limit, and is ended together with the processes that it started.

dejavu is not among these: most of its work is done by a database server, whose time cannot be measured in
this way, and its command takes one clip at a time.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.peers.base import Answer, Ingested, PeerError, as_listed
from benchmarks.peers.worker import ONE_THREAD

START_LIMIT = 120.0  # s, wall time: a start, and reading the index, on a busy machine
WORK_LIMIT = 20.0  # s more for each work; they last 3 minutes on average
CLIP_LIMIT = 5.0  # s more for each clip
BATCH = 50  # clips
MOST_REFUSED = 20  # works, after which the system is given up
MOST_FAILED = 5  # clips of a batch, after which the rest is not asked


@dataclass(frozen=True)
class Call:
    """A command line, and what it needs in its environment."""

    arguments: Sequence[str | Path]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """A place that a system names: the work's number, where the clip's start lies in it (s), the score."""

    work: int
    reference_start: float
    score: float


class CommandPeer:
    """A peer that is a command; subclasses say how it is called and what its output means."""

    name: str  # of the command too
    licence: str
    gate: str
    version_arguments: tuple[str, ...]  # that make it state its version
    version_pattern: str  # regular expression; its first group is the version

    def __init__(self) -> None:
        self.version = ""
        self.ingest_seconds = 0.0
        self.refused: dict[str, str] = {}
        self._recordings: list[str] = []
        self._folder: Path | None = None
        self._index_bytes = 0

    def storing(self, works: Sequence[Path], names: Path, folder: Path) -> Call:
        """Adds works, which the file `names` lists one a line, to the index in `folder / "index"`."""
        raise NotImplementedError

    def matching(self, clips: Sequence[Path], folder: Path, *, open_gate: bool) -> Call:
        """Looks clips up in that index, at the defaults or with every answer let through."""
        raise NotImplementedError

    def understood(self, output: str) -> Iterable[tuple[int, Found | None]]:
        """What the lookup printed: (a clip's place in the batch, an answer or None), in any order.

        A clip that does not occur was not looked up. Raises ValueError where it makes no sense.
        """
        raise NotImplementedError

    def missing(self) -> str | None:
        """See `Peer`."""
        if not shutil.which(self.name):
            return f"no command {self.name} was found; its users build it themselves"
        try:
            stated, _ = run(Call([self.name, *self.version_arguments]), START_LIMIT, Path.cwd())
        except PeerError as error:
            return str(error)
        match = re.search(self.version_pattern, stated)
        self.version = match[1] if match else "unknown"
        return None

    def ingest(self, works: Sequence[tuple[str, Path]], folder: Path) -> None:
        """See `Peer`."""
        reason = self.missing()
        if reason:
            raise PeerError(f"{self.name} cannot be measured: {reason}")
        folder = folder.absolute()
        done = Ingested.load(folder, self.version, works) or self._fill(works, folder)
        if works and len(done.refused) == len(works):
            raise PeerError(
                f"{self.name} took in none of {len(works)} works: {next(iter(done.refused.values()))}"
            )
        self.refused, self.ingest_seconds = done.refused, done.seconds
        self._index_bytes = done.index_bytes
        self._recordings = [recording for recording, _ in works]
        self._folder = folder

    def _fill(self, works: Sequence[tuple[str, Path]], folder: Path) -> Ingested:
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "works").mkdir(parents=True)
        (folder / "index").mkdir()
        links = {}
        for number, (recording, path) in enumerate(works, start=1):
            link = folder / "works" / f"{number}{path.suffix.lower()}"
            link.symlink_to(path.absolute())
            links[link] = recording
        refused: dict[Path, str] = {}
        seconds = self._store(list(links), folder, refused)
        size = sum(file.stat().st_size for file in (folder / "index").iterdir())
        reasons = {links[link]: reason for link, reason in refused.items()}
        done = Ingested(self.version, as_listed(works), seconds, size, reasons)
        done.save(folder)
        return done

    def _store(self, files: Sequence[Path], folder: Path, refused: dict[Path, str]) -> float:
        """Takes in works, or the halves of what fails together; CPU time, of failed runs as well."""
        if not files:
            return 0.0
        names = folder / "works.txt"
        names.write_text("".join(f"{file}\n" for file in files))
        before = children_seconds()
        try:
            run(self.storing(files, names, folder), START_LIMIT + WORK_LIMIT * len(files), folder)
        except PeerError as error:
            seconds = children_seconds() - before
            if len(files) > 1:
                half = len(files) // 2
                seconds += self._store(files[:half], folder, refused)
                return seconds + self._store(files[half:], folder, refused)
            refused[files[0]] = str(error)
            if len(refused) > MOST_REFUSED:
                raise PeerError(f"{self.name} refused {len(refused)} works: {error}") from None
        return children_seconds() - before

    def query(self, clips: Sequence[Path]) -> list[Answer]:
        """See `Peer`."""
        if self._folder is None:
            raise PeerError(f"{self.name} has not taken in any works yet")
        answers: list[Answer] = []
        for first in range(0, len(clips), BATCH):
            batch = [clip.absolute() for clip in clips[first : first + BATCH]]
            answers += self._best(batch, self._folder)
        return answers

    def _best(self, clips: Sequence[Path], folder: Path) -> list[Answer]:
        answers = self._ask(clips, folder, False, [])
        silent = [n for n, a in enumerate(answers) if a.recording is None and a.error is None]
        if silent:
            again = self._ask([clips[n] for n in silent], folder, True, [])
            for n, answer in zip(silent, again, strict=True):
                answers[n] = replace(answer, seconds=answers[n].seconds, error=None)
        return answers

    def _ask(
        self, clips: Sequence[Path], folder: Path, open_gate: bool, failed: list[Path]
    ) -> list[Answer]:
        """Asks about clips together, or about the halves of those over which it fails."""
        if len(failed) == MOST_FAILED:
            return [
                Answer(error=f"not asked: {self.name} failed {MOST_FAILED} times before")
            ] * len(clips)
        try:
            return self._ask_together(clips, folder, open_gate)
        except PeerError as error:
            if len(clips) == 1:
                failed += clips
                return [Answer(error=str(error))]
        half = len(clips) // 2
        answers = self._ask(clips[:half], folder, open_gate, failed)
        return answers + self._ask(clips[half:], folder, open_gate, failed)

    def _ask_together(self, clips: Sequence[Path], folder: Path, open_gate: bool) -> list[Answer]:
        call = self.matching(clips, folder, open_gate=open_gate)
        output, seconds = run(call, START_LIMIT + CLIP_LIMIT * len(clips), folder)
        silent = Answer(seconds=seconds / len(clips))
        best = [replace(silent, error=f"{self.name} said nothing of this clip")] * len(clips)
        try:
            for clip, found in self.understood(output):
                if best[clip].error:
                    best[clip] = silent
                if found and found.work > 0 and found.score > best[clip].score:
                    recording = self._recordings[found.work - 1]
                    start, score = found.reference_start, found.score
                    best[clip] = replace(
                        silent,
                        recording=recording,
                        reference_start=start,
                        score=score,
                        accepted=not open_gate,
                    )
        except (ValueError, LookupError) as error:
            raise PeerError(f"{self.name}: its answer cannot be understood ({error})") from None
        return best

    def index_bytes(self) -> int:
        """See `Peer`."""
        return self._index_bytes

    def close(self) -> None:
        """Nothing keeps running."""


def run(call: Call, limit: float, folder: Path) -> tuple[str, float]:
    """Standard output and CPU time of a command that works in `folder`.

    Raises PeerError if it cannot be started, fails, or takes longer than `limit` (s, wall time).
    """
    command = [str(argument) for argument in call.arguments]
    # LC_ALL: numbers are written with a point.
    environment = {**os.environ, **ONE_THREAD, "LC_ALL": "C.UTF-8", **call.environment}
    before = children_seconds()
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise PeerError(f"{command[0]}: {error}") from None
    with process:
        try:
            output, complaint = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            raise PeerError(f"{command[0]}: no answer within {limit:g} s") from None
        finally:
            if process.returncode is None:
                # With all that it started: a start script's program, its decoders.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise PeerError(f"{command[0]}: {_reason(process.returncode, complaint)}")
    return output, children_seconds() - before


def _reason(status: int, complaint: str) -> str:
    """Why a command failed; the last line of a complaint that is not indented, as stack traces are."""
    if status < 0:
        return f"killed by signal {-status}"
    lines = [line for line in complaint.splitlines() if line.strip() and not line[0].isspace()]
    return lines[-1].strip()[:200] if lines else f"ended with status {status}"


def children_seconds() -> float:
    """CPU time of the processes that this one has waited for, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
