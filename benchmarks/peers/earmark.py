"""Earmark itself, asked like any other system."""

import sys
from pathlib import Path

from benchmarks.peers.worker import WorkerPeer
from fingerprint.encoder import Encoder
from fingerprint.errors import EarmarkError
from index.significance import Calibration

ROOT = Path(__file__).parents[2]


class Earmark(WorkerPeer):
    """See `Peer`. The version is the encoder's id."""

    name = "earmark"
    licence = "Apache-2.0"
    gate = "tier `match`"
    engine = "earmark"

    def weights(self) -> Path | None:
        """The weights file; None: the one that ships."""
        return None

    def missing(self) -> str | None:
        """Why it cannot run here."""
        try:
            self.version = Encoder.load(self.weights()).id
            Calibration.of(self.version)
        except EarmarkError as error:
            return str(error)
        return None

    def python(self) -> Path:
        return Path(sys.executable)

    def options(self) -> dict[str, str]:
        weights = self.weights()
        return {"weights": str(weights.resolve())} if weights else {}

    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(ROOT)}
