"""The systems that Earmark is measured beside, and Earmark itself, all asked in the same way (see `base`)."""

from collections.abc import Callable

from benchmarks.peers.audfprint import Audfprint
from benchmarks.peers.audiolocate import Audiolocate
from benchmarks.peers.base import Peer
from benchmarks.peers.chromaprint import Chromaprint
from benchmarks.peers.earmark import Earmark
from benchmarks.peers.linear import Linear
from benchmarks.peers.olaf import Olaf
from benchmarks.peers.panako import Panako
from benchmarks.peers.zvukodel import Zvukodel

# In the order of reports; each is made by calling its entry.
PEERS: dict[str, Callable[[], Peer]] = {
    "earmark": Earmark,
    "linear": Linear,
    "chromaprint": Chromaprint,
    "zvukodel": Zvukodel,
    "audiolocate": Audiolocate,
    "audfprint": Audfprint,
    "panako": Panako,
    "olaf": Olaf,
}
