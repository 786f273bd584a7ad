"""A query and the state of the library that it is put to: what every step of a search looks at."""

from dataclasses import dataclass
from functools import cached_property

from fingerprint.encoder import Encoder
from fingerprint.fingerprint import QUERY_EVERY, Fingerprint
from fingerprint.hypotheses import Hypothesis
from fingerprint.spectrogram import FRAME_RATE
from fingerprint.view import View, under
from index.prices import Prices
from index.snapshot import Snapshot


@dataclass(frozen=True)
class Question:
    """One query's fingerprint, one snapshot, and the encoder of both.

    whole : embeddings of the whole query, if the fingerprint is an excerpt of one; prices are those of the
        whole
    """

    fingerprint: Fingerprint
    snapshot: Snapshot
    encoder: Encoder
    whole: int | None = None

    @cached_property
    def prices(self) -> Prices:
        """What evidence costs in a query of this length."""
        return Prices.of(self.whole or len(self.fingerprint.embeddings))

    @property
    def size(self) -> tuple[int, int]:
        """Embeddings of the query and of the library: the space in which chance may find a match."""
        return len(self.fingerprint.embeddings), len(self.snapshot)

    def view(
        self, hypothesis: Hypothesis, start: float, end: float, every: int = QUERY_EVERY
    ) -> View:
        """The query from start to end, in seconds, under a hypothesis."""
        return under(
            hypothesis,
            self.fingerprint,
            self.encoder,
            first=max(0, int(start * FRAME_RATE)),
            end=max(0, int(end * FRAME_RATE) + 1),
            every=every,
        )
