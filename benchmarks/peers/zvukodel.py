"""zvukodel (PyPI): spectral peak pairs in the manner of Wang 2003, in NumPy."""

from pathlib import Path

from benchmarks.peers.base import PeerError
from benchmarks.peers.environments import environment
from benchmarks.peers.worker import WorkerPeer

VERSION = "0.1.0"
# Its extra "mp3" is PyAV, which it opens everything but WAV with.
REQUIREMENTS = (f"zvukodel[mp3]=={VERSION}",)


class Zvukodel(WorkerPeer):
    """See `Peer`."""

    name = "zvukodel"
    licence = "MIT"
    gate = "its defaults: 10 hashes, twice the second best plus 3, half of the clip covered"
    engine = "zvukodel"

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
