"""audfprint: Dan Ellis's spectral peak pairs (Wang 2003) in Python, a table of hashes in memory.

Its repository holds a script, `audfprint.py`; what is looked for is a command `audfprint` that runs it.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.peers.command import Call, CommandPeer, Found

# Times are stored modulo this many frames of 23 ms. The default wraps after 380 s; this one after
# 25 minutes, and leaves room for 65,536 recordings.
MAX_TIME = 65536

_MATCHED = re.compile(
    r" as .*/(?P<work>\d+)[^/ ]* at +(?P<start>-?[\d.]+) s with +(?P<hashes>\d+) of "
)


class Audfprint(CommandPeer):
    """See `Peer`. The score is the number of hashes that agree on an offset."""

    name = "audfprint"
    licence = "MIT"
    gate = "its default: more than 5 hashes at one offset"
    version_arguments = ("--version",)
    version_pattern = r"(\d+)"

    def storing(self, works: Sequence[Path], names: Path, folder: Path) -> Call:
        index = _index(folder)
        how = "add" if index.exists() else "new"
        options = ["--maxtime", str(MAX_TIME), "--list"]
        return Call([self.name, how, "--dbase", index, *options, names])

    def matching(self, clips: Sequence[Path], folder: Path, *, open_gate: bool) -> Call:
        options = ["--min-count", "1"] if open_gate else []
        return Call([self.name, "match", "--dbase", _index(folder), *options, *clips])

    def understood(self, output: str) -> Iterator[tuple[int, Found | None]]:
        """One line of a clip, in their order."""
        lines = [line for line in output.splitlines() if line.startswith(("Matched ", "NOMATCH "))]
        for clip, line in enumerate(lines):
            match = _MATCHED.search(line) if line.startswith("Matched ") else None
            yield (
                clip,
                match and Found(int(match["work"]), float(match["start"]), float(match["hashes"])),
            )


def _index(folder: Path) -> Path:
    return folder / "index" / "hashes.pklz"
