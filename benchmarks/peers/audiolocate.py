"""audiolocate (PyPI): finds a clip in a long recording by spectral peak pairs (Wang 2003), in NumPy."""

from pathlib import Path

from benchmarks.peers.base import PeerError
from benchmarks.peers.environments import environment
from benchmarks.peers.worker import WorkerPeer

VERSION = "0.1.1"
REQUIREMENTS = (f"audiolocate=={VERSION}",)


class Audiolocate(WorkerPeer):
    """See `Peer`."""

    name = "audiolocate"
    licence = "MIT"
    gate = "its defaults: 5 hashes, 3 deviations above the mean and twice the next best offset"
    engine = "audiolocate"

    def missing(self) -> str | None:
        """Installs it if need be."""
        try:
            self.python()
        except PeerError as error:
            return str(error)
        self.version = VERSION
        return None

    def python(self) -> Path:
        return environment(self.name, REQUIREMENTS)
