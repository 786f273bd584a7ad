"""Olaf: Joren Six's triplets of spectral peaks in C, in an LMDB store; as its command line does it.

It reads its settings from `~/.olaf/olaf_config.json`, so it gets a home of its own beside its index.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.peers.command import Call, CommandPeer, Found


class Olaf(CommandPeer):
    """See `Peer`. The score is the number of fingerprints that agree on an offset."""

    name = "olaf"
    licence = "AGPL-3.0"
    gate = "its default: 6 fingerprints at one offset"
    version_arguments = ()
    version_pattern = r"Olaf (\S+)"

    def storing(self, works: Sequence[Path], names: Path, folder: Path) -> Call:
        return Call([self.name, "store", names], _home(folder / "home", works, {}))

    def matching(self, clips: Sequence[Path], folder: Path, *, open_gate: bool) -> Call:
        settings = {"min_match_count": 1} if open_gate else {}
        home = _home(folder / "home", clips, settings)
        return Call([self.name, "query", "--format", "json", *clips], home)

    def understood(self, output: str) -> Iterator[tuple[int, Found | None]]:
        """One JSON object of a clip, after another."""
        rest = output.strip()
        while rest:
            answer, end = json.JSONDecoder().raw_decode(rest)
            rest = rest[end:].lstrip()
            clip = answer["query_index"] - 1
            yield clip, None
            for match in answer["matches"]:
                start = match["reference_start"] - match["query_start"]
                work, score = int(Path(match["path"]).stem), float(match["match_count"])
                yield clip, Found(work, start, score)


def _home(home: Path, files: Sequence[Path], settings: dict[str, int]) -> dict[str, str]:
    """Makes a home whose settings name the index and take every one of `files` for audio."""
    config = home / ".olaf" / "olaf_config.json"
    config.parent.mkdir(parents=True, exist_ok=True)
    values = {
        "db_folder": f"{home.parent / 'index'}/",
        "cache_folder": str(home / "cache"),
        "allowed_audio_file_extensions": sorted({file.suffix for file in files}),
    }
    config.write_text(json.dumps(values | settings))
    return {"HOME": str(home)}
