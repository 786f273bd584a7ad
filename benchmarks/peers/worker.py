"""A system in a process of its own, which answers JSON lines; it may crash or hang at any time.

The process runs `serve.py` with an engine (see `engines`) in the interpreter of the system's own
environment. Every request has a time limit. A process that dies or exceeds one is replaced; its index is
read again from its folder. A work that a system cannot open, over tags that are not UTF-8 for instance,
is handed to it again as a WAV file, as its user would in the end.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from benchmarks.codecs import cut, write
from benchmarks.peers.base import Answer, Ingested, PeerError, as_listed

SERVE = Path(__file__).with_name("serve.py")
ENGINES = Path(__file__).with_name("engines")
START_LIMIT = 300.0  # s, wall time: reads an index of a thousand works on a busy machine
INGEST_LIMIT = 600.0  # s for one work
QUERY_LIMIT = 60.0  # s for one clip
LONGEST_WORK = 4 * 3600.0  # s; Earmark's own limit
DEATHS = 5  # of a process within one batch of requests, after which the rest is not asked

# One thread: figures are per core.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}


class Died(Exception):
    """The process ended or did not answer in time; str() says which."""


class Process:
    """A running `serve.py`."""

    def __init__(
        self,
        python: Path,
        engine: Path,
        folder: Path,
        options: Mapping[str, str],
        environment: Mapping[str, str],
        limit: float,
    ) -> None:
        self._log_path = folder / "log.txt"
        self._log = self._log_path.open("ab")
        self._logged = self._log_path.stat().st_size  # before the present request
        self._process = subprocess.Popen(
            # -P: the engine named after a package must not be taken for it
            [str(python), "-P", str(SERVE), str(engine), str(folder), json.dumps(dict(options))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **ONE_THREAD, **environment},
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        assert self._process.stdout is not None
        threading.Thread(
            target=_drain, args=(self._process.stdout, self._lines), daemon=True
        ).start()
        try:
            self._answer(limit)
        except Died:
            self.end()
            raise

    def ask(self, request: Mapping[str, str], limit: float) -> dict[str, Any]:
        """The answer to a request. Raises Died if there is none within `limit` seconds."""
        assert self._process.stdin is not None
        self._logged = self._log_path.stat().st_size
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise Died(self._reason()) from None
        return self._answer(limit)

    def end(self) -> None:
        """Stop the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        self._log.close()
        if self._process.stdin is not None:
            with suppress(OSError):  # what was written can no longer be delivered
                self._process.stdin.close()

    def _answer(self, limit: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=limit)
        except queue.Empty:
            raise Died(f"no answer within {limit:g} s") from None
        if not line:
            raise Died(self._reason())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _reason(self) -> str:
        status = self._process.wait()
        how = f"killed by signal {-status}" if status < 0 else f"ended with status {status}"
        said = self._log_path.read_bytes()[self._logged :].decode(errors="replace")
        lines = said.strip().splitlines()
        return f"crashed: {how}" + (f" ({lines[-1][:200]})" if status > 0 and lines else "")


def _drain(pipe: IO[str], lines: queue.SimpleQueue[str]) -> None:
    """Lines of a pipe into a queue; an empty one says that it ended."""
    for line in pipe:
        lines.put(line)
    lines.put("")


def _add(process: Process, recording: str, path: Path) -> dict[str, Any]:
    return process.ask({"do": "add", "recording": recording, "path": str(path)}, INGEST_LIMIT)


def _plain_copy(path: Path, folder: Path) -> Path:
    """The same sound as a WAV file without tags; the file itself if it cannot be decoded here either."""
    try:
        return write(folder / "plain.wav", *cut(path, 0.0, LONGEST_WORK))
    except Exception:  # whatever a file can make a decoder raise
        return path


class WorkerPeer:
    """A peer whose engine runs in a worker; subclasses say which, and in which environment."""

    name: str
    licence: str
    gate: str
    engine: str  # file among `engines`, without its suffix

    def __init__(self) -> None:
        self.version = ""
        self.ingest_seconds = 0.0
        self.refused: dict[str, str] = {}
        self._index_bytes = 0
        self._folder: Path | None = None
        self._process: Process | None = None

    def missing(self) -> str | None:
        """Why it cannot run here."""
        raise NotImplementedError

    def python(self) -> Path:
        """The interpreter of the system's environment."""
        raise NotImplementedError

    def options(self) -> dict[str, str]:
        """What the engine is told at its start."""
        return {}

    def environment(self) -> dict[str, str]:
        """Variables added to the engine's environment."""
        return {}

    def ingest(self, works: Sequence[tuple[str, Path]], folder: Path) -> None:
        """See `Peer`."""
        self.close()
        reason = self.missing()
        if reason:
            raise PeerError(f"{self.name} cannot be measured: {reason}")
        done = Ingested.load(folder, self.version, works)
        if done is None:
            refused: dict[str, str] = {}
            for _ in range(DEATHS):
                done = self._fill(works, folder, refused)
                if done is not None:
                    break
            else:
                raise PeerError(
                    f"{self.name} died {DEATHS} times while it took in works; the last time: "
                    f"{list(refused.values())[-1]}"
                )
        if works and len(done.refused) == len(works):
            raise PeerError(
                f"{self.name} took in none of {len(works)} works: {next(iter(done.refused.values()))}"
            )
        self._folder = folder
        self.refused = done.refused
        self.ingest_seconds = done.seconds
        self._index_bytes = done.index_bytes

    def _fill(
        self, works: Sequence[tuple[str, Path]], folder: Path, deadly: dict[str, str]
    ) -> Ingested | None:
        """A new index; None, and the culprit in `deadly`, if the process died over a work."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        refused = dict(deadly)
        seconds = 0.0
        culprit = ""
        try:
            process = self._start(folder)
            for recording, path in works:
                if recording in deadly:
                    continue
                culprit = recording
                reply = _add(process, recording, path)
                if reply.get("error"):
                    with tempfile.TemporaryDirectory() as plain:
                        reply = _add(process, recording, _plain_copy(path, Path(plain)))
                if reply.get("error"):
                    refused[recording] = reply["error"]
                else:
                    seconds += reply["seconds"]
            culprit = "(saving the index)"
            reply = process.ask({"do": "save"}, INGEST_LIMIT)
            if reply.get("error"):
                raise PeerError(f"{self.name} cannot save its index: {reply['error']}")
        except Died as death:
            deadly[culprit or "(starting)"] = str(death)
            return None
        finally:
            self.close()
        done = Ingested(
            self.version, as_listed(works), seconds + reply["seconds"], reply["bytes"], refused
        )
        done.save(folder)
        return done

    def query(self, clips: Sequence[Path]) -> list[Answer]:
        """See `Peer`."""
        if self._folder is None:
            raise PeerError(f"{self.name} has not taken in any works yet")
        answers: list[Answer] = []
        deaths = 0
        for clip in clips:
            if deaths == DEATHS:
                answers.append(Answer(error=f"not asked: the system died {DEATHS} times before"))
                continue
            try:
                if self._process is None:
                    self._start(self._folder)
                assert self._process is not None
                reply = self._process.ask({"do": "best", "path": str(clip)}, QUERY_LIMIT)
                answers.append(Answer(**reply))
            except Died as death:
                deaths += 1
                self.close()
                answers.append(Answer(error=str(death)))
        return answers

    def index_bytes(self) -> int:
        """See `Peer`."""
        return self._index_bytes

    def close(self) -> None:
        """See `Peer`."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def _start(self, folder: Path) -> Process:
        engine = ENGINES / f"{self.engine}.py"
        self._process = Process(
            self.python(), engine, folder, self.options(), self.environment(), START_LIMIT
        )
        return self._process
