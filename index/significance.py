"""How much an alignment is worth: weights of single similarities, and the chance of a score.

Weight of one pair of embeddings. How alike two moments of unrelated music are depends on how crowded music
is around either: held chords and plain drums have many neighbours, a voice over a band has few. So what
counts is how far the similarity q·r exceeds the mean of the two neighbourhoods' crowding
(`fingerprint.codec.Codec.crowding`; as speaker verification takes the scores against a cohort off either
side, Auckenthaler et al. 2000), less a price, so that unrelated pairs lower a sum and related ones raise it.

Chance of an alignment. The largest sum S over a search space of n query embeddings and N reference
embeddings follows, for unrelated music, E(S) = K n N exp(-λ S) (Karlin and Altschul 1990, eq. 2).
λ and K are fitted on real unrelated music, whose neighbouring embeddings are anything but
independent: for short and long queries apart, since a stretch in a common style adds up; see TABLE.
Under the ladder of hypotheses the best of many looks counts, so that has a fit of its own, whose K is that of
all rungs; of a part of them chance has that part.
"""

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fingerprint.hypotheses import LADDER
from index.errors import LibraryError

UNIT = 0.05  # cosine that is a weight of 1: identical moments in an ordinary place weigh about 10
# What a pair's similarity must exceed the crowding by, in units. Chosen on the tune packages, as the
# crowding was: at less, the tail falls off more slowly the longer the clip is.
PRICE = 3.0
LOWEST = -2.0  # what one pair can say against a match
MATCH = 1e-6  # E-value up to which an answer is a `match`
REVIEW = 1e-2  # E-value up to which an answer is given at all


# Embeddings (about three hours) that a library counts as at least. The fits were made on libraries of
# 26,000; in a handful of works by one hand, chance is no smaller in proportion to their number.
SMALLEST_LIBRARY = 20_000

# λ and log K by encoder, each with the command that fitted them.
TABLE = Path(__file__).parent / "calibration.json"


@dataclass(frozen=True)
class Tail:
    """λ and log K of scores on unrelated music, for some lengths of the query.

    Attributes
    ----------
    lengths : query embeddings, ascending [shape=(m,)]
    decay, log_density : λ and log K for each of them [shape=(m,) each]
    """

    lengths: tuple[float, ...]
    decay: tuple[float, ...]
    log_density: tuple[float, ...]

    def at(self, query_embeddings: int, library_embeddings: int) -> tuple[float, float]:
        """λ and log(K n N); between the lengths fitted, λ and log K follow the logarithm of n."""
        n = math.log(max(query_embeddings, 1))
        at = np.log(self.lengths)
        log_density = float(np.interp(n, at, self.log_density))
        decay = float(np.interp(n, at, self.decay))
        return decay, log_density + n + math.log(max(library_embeddings, SMALLEST_LIBRARY))


@dataclass(frozen=True)
class Calibration:
    """How one encoder's scores are distributed on unrelated music.

    Attributes
    ----------
    unaltered : of queries as they are
    altered : of queries under the whole ladder of hypotheses; None if that was never fitted
    """

    unaltered: Tail
    altered: Tail | None

    @classmethod
    def of(cls, encoder: str) -> "Calibration":
        """That of an encoder, by its id. Raises LibraryError if it was never fitted."""
        entry = json.loads(TABLE.read_text()).get(encoder) if TABLE.is_file() else None
        if entry is None:
            raise LibraryError(
                f"encoder {encoder} has no calibration; fit one: python -m benchmarks.calibrate --write"
            )
        altered = entry["altered"]
        return cls(_tail(entry["unaltered"]), _tail(altered) if altered else None)

    def e_value(
        self, score: float, query_embeddings: int, library_embeddings: int, hypotheses: int = 1
    ) -> float:
        """Expected number of alignments this strong of an unrelated query with the library.

        hypotheses : how many were tried on the query; 1 is the query as it is

        Raises ValueError for more than one if the ladder was never fitted.
        """
        decay, space = self._at(query_embeddings, library_embeddings, hypotheses)
        return math.exp(min(space - decay * score, 50.0))

    def score(self, e_value: float, query_embeddings: int, library_embeddings: int) -> float:
        """The score of that E-value of a query as it is: the inverse of `e_value`."""
        decay, space = self._at(query_embeddings, library_embeddings, 1)
        return (space - math.log(e_value)) / decay

    def _at(
        self, query_embeddings: int, library_embeddings: int, hypotheses: int
    ) -> tuple[float, float]:
        """λ, and the logarithm of the number of alignments of score 0 that chance would bring."""
        if hypotheses == 1:
            return self.unaltered.at(query_embeddings, library_embeddings)
        if self.altered is None:
            raise ValueError("this encoder's scores under the ladder were never fitted")
        decay, space = self.altered.at(query_embeddings, library_embeddings)
        return decay, space + math.log((hypotheses - 1) / len(LADDER))


def _tail(entry: dict[str, list[float]]) -> Tail:
    return Tail(*(tuple(entry[field.name]) for field in fields(Tail)))


def weights(
    query: NDArray[np.float32],
    query_crowding: NDArray[np.float32],
    reference: NDArray[np.float32],
    reference_crowding: NDArray[np.float32],
    low: int,
    width: int,
    every: int,
) -> NDArray[np.float32]:
    """Weights of pairs by offset [shape=(reference steps, width)].

    Column b is offset low + b: reference step j with query step every * j - (low + b); NaN where the
    query [shape=(query steps, d)] has no such step.
    """
    out = np.empty((len(reference), width), np.float32)
    _weights(query, query_crowding, reference, reference_crowding, low, every, out)
    return out


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _weights(query, query_crowding, reference, reference_crowding, low, every, out):
    """out[j, b] = max((q·r - (crowding of q + crowding of r) / 2) / UNIT - PRICE, LOWEST)."""
    for j in range(len(reference)):
        for b in range(out.shape[1]):
            i = every * j - (low + b)
            if i < 0 or i >= len(query):
                out[j, b] = np.nan
                continue
            s = np.float32(0.0)
            for c in range(query.shape[1]):
                s += query[i, c] * reference[j, c]
            above = s - np.float32(0.5) * (query_crowding[i] + reference_crowding[j])
            out[j, b] = max(above / np.float32(UNIT) - np.float32(PRICE), np.float32(LOWEST))
