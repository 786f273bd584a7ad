"""Earmark's own code, as `earmark ingest` and `query` run it, with the shipped encoder or another."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY, Fingerprint, fingerprint
from index.library import Library
from index.recording import Metadata

SOFTEST = math.inf  # E-value: what the gate refuses is asked for as well, to rank it


class Engine:
    """See `serve`."""

    def __init__(self, folder: Path, weights: str = "") -> None:
        self._encoder = Encoder.load(Path(weights) if weights else None)
        self._library = Library.open(folder / "library", self._encoder, create=True)
        self._waiting: list[tuple[Fingerprint, Metadata]] = []

    def add(self, recording: str, path: str) -> None:
        made = fingerprint(Path(path), self._encoder, REFERENCE_EVERY)
        about = Metadata(
            source=made.source, rightsholder="benchmark", rights="open-licence", id=recording
        )
        self._waiting.append((made, about))

    def save(self) -> int:
        with self._library.writer() as writer:
            for made, about in self._waiting:
                writer.add(made, about)
        self._waiting = []
        self._library.refresh()
        size: int = self._library.info()["bytes_on_disk"]
        return size

    def best(self, path: str) -> dict[str, Any]:
        try:
            made = fingerprint(Path(path), self._encoder, QUERY_EVERY)
        except AudioError as error:
            if error.type in ("silent", "too-short"):
                return {}
            raise
        matches, _ = self._library.search(made, max_e_value=SOFTEST)
        if not matches:
            return {}
        match = matches[0]
        return {
            "recording": match.recording,
            "reference_start": match.reference_start - match.query_start * match.tempo,
            "score": match.score,
            "accepted": match.tier == "match",
        }
