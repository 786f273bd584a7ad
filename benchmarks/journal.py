"""Lines of JSON that outlive a kill: what was appended whole is there when the run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class Journal:
    """A JSONL file that only grows. One process writes it; each line is on disk before `append` returns.

    A last line that a kill cut short is dropped when the file is opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.entries: list[Any] = []
        whole = 0
        data = path.read_bytes() if path.exists() else b""
        for line in data.splitlines(keepends=True):
            try:
                entry = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                entry = None
            if entry is None:
                break
            self.entries.append(entry)
            whole += len(line)
        if whole < len(data):
            os.truncate(path, whole)

    def append(self, entries: Iterable[Any]) -> None:
        """Add entries; those of one call may be cut by a kill, each by itself is whole or not there."""
        added = list(entries)
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in added)
            file.flush()
            os.fsync(file.fileno())
        self.entries += added
