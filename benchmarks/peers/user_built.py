"""Systems that their users build themselves: measured where their command is found, and not built here.

audfprint is driven by its command line as its README documents it. Its repository holds a script,
`audfprint.py`; what is looked for is a command `audfprint` that runs it.

Olaf, Panako and dejavu are not among these: no driver of theirs could be checked against the real thing.
"""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.base import Answer, Ingested, PeerError, as_listed

INGEST_LIMIT = 600.0  # s a work, wall time
QUERY_LIMIT = 60.0  # s a clip, and as much again for its start
BATCH = 50  # clips asked at once, because every start reads the whole index
# Times are stored modulo this many frames of 23 ms. The default wraps after 380 s; this one after
# 25 minutes, and leaves room for 65,536 recordings.
MAX_TIME = 65536

_MATCHED = re.compile(
    r" as (?P<file>.+) at +(?P<time>-?[\d.]+) s with +(?P<hashes>\d+) of +\d+ common hashes"
)


class Audfprint:
    """See `Peer`. It names only what it accepts, so what it refused cannot be ranked."""

    name = "audfprint"
    licence = "MIT"
    gate = "its default: 5 hashes"
    version = "as found"

    def __init__(self) -> None:
        self.ingest_seconds = 0.0
        self.refused: dict[str, str] = {}
        self._recordings: dict[str, str] = {}  # by file
        self._index: Path | None = None

    def missing(self) -> str | None:
        """Why it cannot run here."""
        if not shutil.which("audfprint"):
            return "no command audfprint was found; its users build it themselves"
        return None

    def ingest(self, works: Sequence[tuple[str, Path]], folder: Path) -> None:
        """See `Peer`."""
        reason = self.missing()
        if reason:
            raise PeerError(f"{self.name} cannot be measured: {reason}")
        index = folder / "index.pklz"
        files = {str(path.absolute()): recording for recording, path in works}
        done = Ingested.load(folder, self.version, works)
        if done is None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            names = folder / "works.txt"
            names.write_text("".join(f"{file}\n" for file in files))
            command = ["audfprint", "new", "--dbase", str(index), "--maxtime", str(MAX_TIME)]
            _, seconds = _run([*command, "--list", str(names)], INGEST_LIMIT * max(1, len(works)))
            if not index.is_file():
                raise PeerError("audfprint wrote no index")
            done = Ingested(self.version, as_listed(works), seconds, index.stat().st_size, {})
            done.save(folder)
        self.ingest_seconds = done.seconds
        self._recordings, self._index = files, index

    def query(self, clips: Sequence[Path]) -> list[Answer]:
        """See `Peer`. A batch that fails is asked again clip by clip, to find the culprit."""
        answers: list[Answer] = []
        for first in range(0, len(clips), BATCH):
            batch = [clip.absolute() for clip in clips[first : first + BATCH]]
            try:
                answers += self._ask(batch)
            except PeerError:
                answers += [self._ask_one(clip) for clip in batch]
        return answers

    def _ask_one(self, clip: Path) -> Answer:
        try:
            return self._ask([clip])[0]
        except PeerError as error:
            return Answer(error=str(error))

    def _ask(self, clips: Sequence[Path]) -> list[Answer]:
        if self._index is None:
            raise PeerError(f"{self.name} has not taken in any works yet")
        output, seconds = _run(
            ["audfprint", "match", "--dbase", str(self._index), *map(str, clips)],
            QUERY_LIMIT * (len(clips) + 1),
        )
        return [
            self._answer(str(clip), output.splitlines(), seconds / len(clips)) for clip in clips
        ]

    def _answer(self, clip: str, lines: Sequence[str], seconds: float) -> Answer:
        for line in lines:
            if line.startswith(f"NOMATCH {clip} "):
                return Answer(seconds=seconds)
            if line.startswith(f"Matched {clip} "):
                match = _MATCHED.search(line, len(f"Matched {clip}"))
                if match and match["file"] in self._recordings:
                    return Answer(
                        recording=self._recordings[match["file"]],
                        reference_start=float(match["time"]),
                        score=float(match["hashes"]),
                        accepted=True,
                        seconds=seconds,
                    )
        return Answer(seconds=seconds, error="audfprint said nothing of this clip")

    def index_bytes(self) -> int:
        """See `Peer`."""
        return self._index.stat().st_size if self._index else 0

    def close(self) -> None:
        """Nothing keeps running."""


def _run(command: Sequence[str], limit: float) -> tuple[str, float]:
    """Standard output and CPU time of a command. Raises PeerError if it fails or takes too long."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PeerError(f"{command[0]}: no answer within {limit:g} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise PeerError(f"{command[0]}: {lines[-1][:200]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, used
