"""The baseline that the learned encoder has to beat: Earmark with one linear layer (mel-PCA)."""

from pathlib import Path

from benchmarks.corpora import cache_folder
from benchmarks.peers.earmark import ROOT, Earmark

WEIGHTS = "linear.safetensors"


class Linear(Earmark):
    """See `Peer`."""

    name = "linear"

    def weights(self) -> Path | None:
        """The copy in the cache, or else the one that comes with the benchmark."""
        cached = cache_folder() / "weights" / WEIGHTS
        return cached if cached.is_file() else ROOT / "benchmarks" / "data" / WEIGHTS

    def missing(self) -> str | None:
        weights = self.weights()
        if weights is None or not weights.is_file():
            return (
                f"there is no {WEIGHTS} in {cache_folder() / 'weights'}: train it with "
                "python -m fingerprint.training.linear"
            )
        return super().missing()
