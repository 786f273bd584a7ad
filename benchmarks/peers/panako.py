"""Panako: Joren Six's triplets of spectral peaks in Java, which bear changes of tempo and pitch (2014, 2021).

Of the algorithms that its command offers, the one that it is named after is measured.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.peers.command import Call, CommandPeer, Found

OPEN_GATE = (
    "PANAKO_MIN_HITS_UNFILTERED=1",
    "PANAKO_MIN_HITS_FILTERED=1",
    "PANAKO_MIN_MATCH_DURATION=0",
    "PANAKO_MIN_SEC_WITH_MATCH=0",
)

_LINE = re.compile(
    r"(?P<clip>\d+) ; \d+ ; .* ; (?P<query_start>[\d.]+) ; [\d.]+ ; .* ; (?P<work>\d+|null) ; "
    r"(?P<start>-?[\d.]+) ; -?[\d.]+ ; (?P<score>-?\d+) ; (?P<tempo>-?[\d.]+) % ; -?[\d.]+ %; [\d.]+"
)


class Panako(CommandPeer):
    """See `Peer`. The score is the number of fingerprints that lie along one alignment."""

    name = "panako"
    licence = "AGPL-3.0"
    gate = "its defaults: 5 aligned fingerprints, over 3 s and in a fifth of the seconds"
    version_arguments = ("-v",)
    version_pattern = r"Version: (\S+)"

    def storing(self, works: Sequence[Path], names: Path, folder: Path) -> Call:
        return Call([self.name, "store", names, *_settings(folder)])

    def matching(self, clips: Sequence[Path], folder: Path, *, open_gate: bool) -> Call:
        gate = OPEN_GATE if open_gate else ()
        return Call([self.name, "query", *clips, *_settings(folder), *gate])

    def understood(self, output: str) -> Iterator[tuple[int, Found | None]]:
        """A line of each answer, and one without a match of a clip that has none."""
        for match in filter(None, map(_LINE.fullmatch, output.splitlines())):
            clip = int(match["clip"]) - 1
            if match["work"] == "null":
                yield clip, None
            else:
                # The tempo is the clip's: 1.04 where it is 4 % faster than the recording.
                before = float(match["query_start"]) * float(match["tempo"])
                start = float(match["start"]) - before
                yield clip, Found(int(match["work"]), start, float(match["score"]))


def _settings(folder: Path) -> list[str]:
    """The index, and no copies of fingerprints in its user's home."""
    return [
        "STRATEGY=panako",
        f"PANAKO_LMDB_FOLDER={folder / 'index'}",
        "PANAKO_CACHE_TO_FILE=FALSE",
        "PANAKO_USE_CACHED_PRINTS=FALSE",
        "AVAILABLE_PROCESSORS=1",
    ]
