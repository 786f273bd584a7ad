"""zvukodel's song recogniser, driven as its manual shows: Recognizer.add, save, recognize."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from zvukodel import slukh  # type: ignore[import-not-found]


class Engine:
    """See `serve`."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "index.npz"
        self._recognizer = slukh.Recognizer(str(self._file))

    def add(self, recording: str, path: str) -> None:
        self._recognizer.add(path, name=recording)

    def save(self) -> int:
        self._recognizer.save()
        return self._file.stat().st_size

    def best(self, path: str) -> dict[str, Any]:
        started = time.process_time()
        match = self._recognizer.recognize(path)
        seconds = time.process_time() - started
        accepted = match is not None
        if match is None:  # the candidate that its gate refused; a user would not ask again
            candidates = self._recognizer.recognize(path, top=True)
            if not candidates:
                return {"seconds": seconds}
            match = candidates[0]
        return {
            "recording": match.name,
            "reference_start": float(match.at),
            "score": float(match.score),
            "accepted": accepted,
            "seconds": seconds,
        }
