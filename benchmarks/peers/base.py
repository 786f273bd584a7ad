"""What the benchmark asks of every system: take in some works, then answer clips.

A peer runs outside this process (see `worker`), so that it can crash, hang or leak without taking the
benchmark along. Times are CPU seconds, because the machine may be shared.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fingerprint.errors import EarmarkError


class PeerError(EarmarkError):
    """A peer cannot be installed, takes in nothing, or is asked before it took in anything."""


@dataclass(frozen=True)
class Answer:
    """A system's best answer to one clip, also one that its own gate refuses.

    reference_start: where in the recording the clip's start lies (s), extrapolated if need be.
    score: larger is stronger; of one system only.
    accepted: whether the system itself, at its defaults, would give this answer.
    seconds: CPU time that answering took, decoding included.
    error: why there is no answer (crash, time limit): a missing one. None of a clip that the system
        did look at, even if it found nothing.
    """

    recording: str | None = None
    reference_start: float | None = None
    score: float = 0.0
    accepted: bool = False
    seconds: float = 0.0
    error: str | None = None


class Peer(Protocol):
    """A system under test.

    Attributes
    ----------
    name : as reports write it
    version, licence : of what is run; the version is "" while it is not known
    gate : when the system accepts its answer, in a few words
    ingest_seconds : CPU time that the works in the index took, decoding included
    refused : works that are not in the index, with the reasons
    """

    name: str
    version: str
    licence: str
    gate: str
    ingest_seconds: float
    refused: dict[str, str]

    def missing(self) -> str | None:
        """Why the system cannot run here, or None; a registry's package is installed by this call."""

    def ingest(self, works: Sequence[tuple[str, Path]], folder: Path) -> None:
        """Make an index of (recording, file) in `folder`, or take up the same one that is there.

        Raises PeerError if nothing can be taken in; single works that cannot are in `refused`.
        """

    def query(self, clips: Sequence[Path]) -> list[Answer]:
        """Best answer to each clip, in order."""

    def index_bytes(self) -> int:
        """Bytes of the index on disk."""

    def close(self) -> None:
        """End the system's processes; the index stays."""


@dataclass
class Ingested:
    """The record of a finished ingest: what is in a folder, and what it took."""

    version: str
    works: list[list[str]]
    seconds: float
    index_bytes: int
    refused: dict[str, str]

    def save(self, folder: Path) -> None:
        """Written last: its presence says that the index is whole."""
        (folder / "ingested.json").write_text(json.dumps(self.__dict__))

    @classmethod
    def load(cls, folder: Path, version: str, works: Sequence[tuple[str, Path]]) -> Ingested | None:
        """The record, if the folder holds an index of exactly these works by this version."""
        try:
            values: dict[str, Any] = json.loads((folder / "ingested.json").read_text())
            found = cls(**values)
        except (OSError, ValueError, TypeError):
            return None
        return found if (found.version, found.works) == (version, as_listed(works)) else None


def as_listed(works: Sequence[tuple[str, Path]]) -> list[list[str]]:
    """Works as JSON keeps them."""
    return [[recording, str(path)] for recording, path in works]
