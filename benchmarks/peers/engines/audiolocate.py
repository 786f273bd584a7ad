"""audiolocate: fingerprint_audio for every recording once, then match with each, as `find_match` does.

It compares two recordings and has no index of many. Its hashes of all recordings are kept here in one
sorted table, and each recording's share that occurs in the clip is handed to its own `match`: the same
result as with all of its hashes, in a fraction of the time and memory. Of the recordings that it finds the
clip in, the one with most matching hashes is the answer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from audiolocate import AudioFingerprint  # type: ignore[import-not-found]


class Engine:
    """See `serve`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._system = AudioFingerprint()
        self._recordings: list[str] = []
        self._parts: list[Any] = []  # of each recording: (hash, recording, offset) rows
        self._table: Any = np.empty((0, 3), np.uint32)
        if (folder / "index.npy").is_file():
            self._table = np.load(folder / "index.npy")
            self._recordings = json.loads((folder / "recordings.json").read_text())

    def add(self, recording: str, path: str) -> None:
        hashes, _ = self._system.fingerprint_audio(self._system.load_audio(path))
        count = [len(offsets) for offsets in hashes.values()]
        part = np.empty((sum(count), 3), np.uint32)
        part[:, 0] = np.repeat(np.fromiter(hashes, np.uint32, len(hashes)), count)
        part[:, 1] = len(self._recordings)
        part[:, 2] = [offset for offsets in hashes.values() for offset in offsets]
        self._parts.append(part)
        self._recordings.append(recording)

    def save(self) -> int:
        table = np.concatenate([self._table, *self._parts])
        # stable: `match` looks at the first 500 offsets of a hash only
        order = np.argsort(table[:, 0].astype(np.uint64) << 32 | table[:, 1], kind="stable")
        self._table, self._parts = table[order], []
        np.save(self._folder / "index.npy", self._table)
        (self._folder / "recordings.json").write_text(json.dumps(self._recordings))
        return (self._folder / "index.npy").stat().st_size

    def best(self, path: str) -> dict[str, Any]:
        hashes, _ = self._system.fingerprint_audio(self._system.load_audio(path))
        keys = np.fromiter(hashes, np.uint32, len(hashes))
        low = np.searchsorted(self._table[:, 0], keys, "left")
        high = np.searchsorted(self._table[:, 0], keys, "right")
        shared: dict[int, dict[int, list[int]]] = {}
        for key, first, end in zip(keys.tolist(), low, high, strict=True):
            for recording, offset in self._table[first:end, 1:].tolist():
                shared.setdefault(recording, {}).setdefault(key, []).append(offset)
        found = []
        for recording, of_recording in shared.items():
            result = self._system.match(of_recording, hashes)
            found.append((result.is_match, result.match_count, recording, result.offset_frames))
        if not found:
            return {}
        is_match, count, recording, offset = max(found)
        return {
            "recording": self._recordings[recording],
            "reference_start": offset * self._system.hop_length / self._system.sr,
            "score": float(count),
            "accepted": bool(is_match),
        }
