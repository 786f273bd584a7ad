"""How much an alignment is worth: weights of single similarities, and the chance of a score.

Weight of one pair of embeddings. How alike two moments of unrelated music are depends on how crowded music
is around either: held chords and plain drums have many neighbours, a voice over a band has few. So what
counts is how far the similarity q·r exceeds the mean of the two neighbourhoods' crowding
(`fingerprint.codec.Codec.crowding`; as speaker verification takes the scores against a cohort off either
side, Auckenthaler et al. 2000), less a price, so that unrelated pairs lower a sum and related ones raise
it. The price falls with the query's length (`index.prices`).

Chance of an alignment. The largest sum S over a search space of n query embeddings and N reference
embeddings follows, for unrelated music, E(S) = K n N exp(-λ S) (Karlin and Altschul 1990, eq. 2).
λ and K are fitted on real unrelated music, whose neighbouring embeddings are anything but
independent: for short and long queries apart, since a stretch in a common style adds up; see TABLE and
`index.tail_fit`. Beyond what was seen in the fit, the lower end of λ's interval is what chance is stated by.
Under the ladder of hypotheses the best of many looks counts, so that has a fit of its own, whose K is that of
all rungs; of a part of them chance has that part.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fingerprint.hypotheses import LADDER
from fingerprint.kernels import njit
from index.errors import LibraryError
from index.versions import Likeness

UNIT = 0.05  # cosine that is a weight of 1: identical moments in an ordinary place weigh about 10
LOWEST = -2.0  # what one pair can say against a match
MATCH = 1e-6  # E-value up to which an answer is a `match`
REVIEW = 1e-2  # E-value up to which an answer is given at all


# Logarithm of the E-value, in the library of the fit, down to which chance was seen there: some thousands of
# queries were asked.
SEEN = math.log(1e-3)
# Embeddings (eight and fourteen hours) that a library counts as at least, for queries as they are and under
# the ladder: in a small one as many candidates are aligned, so that chance is no smaller in proportion.
# `python -m benchmarks.calibration.calibrate --among 100` lays several such sizes beside what is observed.
SMALLEST_LIBRARY = 60_000
SMALLEST_ALTERED = 100_000

# λ and log K, and the line between copies and versions, by encoder; each with the command that fitted it.
TABLE = Path(__file__).parent / "calibration.json"


@dataclass(frozen=True)
class Tail:
    """How often chance reaches a score, for some lengths of the query.

    Attributes
    ----------
    lengths : query embeddings, ascending [shape=(m,)]
    decay, log_density : λ and log K for each of them [shape=(m,) each]
    least_decay : lower end of λ's 95 % interval [shape=(m,)]
    library : embeddings of the library that it was fitted in
    """

    lengths: tuple[float, ...]
    decay: tuple[float, ...]
    log_density: tuple[float, ...]
    least_decay: tuple[float, ...]
    library: int

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "Tail":
        """From what JSON makes of one. Raises KeyError if something is missing."""
        lengths, decay, log_density, least_decay = (
            tuple(map(float, entry[name]))
            for name in ("lengths", "decay", "log_density", "least_decay")
        )
        return cls(lengths, decay, log_density, least_decay, int(entry["library"]))

    def log_e_value(self, score: float, query_embeddings: int, library_embeddings: int) -> float:
        """Logarithm of the expected number of alignments that score at least so much."""
        here = self.at(query_embeddings, library_embeddings)
        log_e = here.space - here.decay * score
        if log_e > here.seen:
            return log_e
        return here.seen + (log_e - here.seen) * here.least_decay / here.decay

    def score(self, log_e_value: float, query_embeddings: int, library_embeddings: int) -> float:
        """The score that is expected so often: the inverse of `log_e_value`."""
        here = self.at(query_embeddings, library_embeddings)
        beyond = min(0.0, log_e_value - here.seen)
        return (here.space - log_e_value + beyond) / here.decay - beyond / here.least_decay

    def at(self, query_embeddings: float, library_embeddings: int) -> "Space":
        """The tail for one size of the search; between the lengths fitted, λ and log K follow log n."""
        n = math.log(max(query_embeddings, 1))
        library = math.log(max(library_embeddings, SMALLEST_LIBRARY))
        lengths = np.log(self.lengths)
        decay, least_decay, log_density = (
            float(np.interp(n, lengths, values))
            for values in (self.decay, self.least_decay, self.log_density)
        )
        seen = SEEN + library - math.log(self.library)
        return Space(decay, least_decay, log_density + n + library, seen)


class Space(NamedTuple):
    """Chance in a search of one size.

    Attributes
    ----------
    decay, least_decay : λ and its lower end
    space : log(K n N)
    seen : logarithm of the E-value under which the lower end holds
    """

    decay: float
    least_decay: float
    space: float
    seen: float

    @property
    def once(self) -> float:
        """The score that is expected once."""
        return self.space / self.decay


@dataclass(frozen=True)
class Tested:
    """What clips of music that is not in a library brought, and that the encoder was not trained on.

    Attributes
    ----------
    clips : that were looked up
    closest : E-values of the best answers to them, the smallest first; those that are larger are left out
    """

    clips: int
    closest: tuple[float, ...]

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "Tested":
        """From what JSON makes of one. Raises KeyError if something is missing."""
        return cls(int(entry["clips"]), tuple(sorted(map(float, entry["closest"]))))

    def closer(self, e_value: float) -> int | None:
        """How many of the clips came this close or closer; None where more than were noted did."""
        if not self.closest and self.clips:
            return 0
        if self.closest and e_value > self.closest[-1] and len(self.closest) < self.clips:
            return None
        return int(np.searchsorted(self.closest, e_value, side="right"))


@dataclass(frozen=True)
class LikelihoodRatio:
    """How many times as likely an answer is of a copy as of unrelated music: 10^(offset - slope log10 E).

    ceiling, floor : logarithms beyond which the validation supports no figure
    """

    offset: float
    slope: float
    floor: float
    ceiling: float

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "LikelihoodRatio":
        """From what JSON makes of one. Raises KeyError if something is missing."""
        return cls(*(float(entry[name]) for name in ("offset", "slope", "floor", "ceiling")))

    def at(self, e_value: float) -> float:
        """That of an answer of this E-value."""
        log_ratio = self.offset - self.slope * math.log10(max(e_value, 1e-300))
        return float(10 ** min(max(log_ratio, self.floor), self.ceiling))


@dataclass(frozen=True)
class Calibration:
    """How one encoder's scores are distributed on unrelated music.

    Attributes
    ----------
    unaltered : of queries as they are
    altered : of queries under the whole ladder of hypotheses; None if that was never fitted
    stored : of queries made from stored codes, with which a library's own music is compared (see
        `index.library_calibration`); None if that was never fitted
    likeness : what tells a copy from another version, of which chance says nothing; None if that was never
        fitted: then all are copies
    likelihood_ratio : of queries as they are; None if that was never validated
    tested, tested_altered : what unrelated queries brought, as they are and under the ladder; None of no test
    """

    unaltered: Tail
    altered: Tail | None
    stored: Tail | None = None
    likeness: Likeness | None = None
    likelihood_ratio: LikelihoodRatio | None = None
    tested: Tested | None = None
    tested_altered: Tested | None = None

    @classmethod
    def of(cls, encoder: str) -> "Calibration":
        """That of an encoder, by its id. Raises LibraryError if it was never fitted."""
        entry = json.loads(TABLE.read_text()).get(encoder) if TABLE.is_file() else None
        if entry is None:
            raise LibraryError(
                f"encoder {encoder} has no calibration; fit one: "
                "python -m benchmarks.calibration.calibrate --write"
            )
        return cls.from_entry(entry)

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> "Calibration":
        """From what JSON makes of one. Raises KeyError if something is missing."""
        altered, stored, likeness = entry["altered"], entry["stored"], entry.get("likeness")
        ratio, tested = entry.get("likelihood_ratio"), entry.get("tested")
        tested_altered = entry.get("tested_altered")
        return cls(
            Tail.of(entry["unaltered"]),
            Tail.of(altered) if altered else None,
            Tail.of(stored) if stored else None,
            Likeness.of(likeness) if likeness else None,
            LikelihoodRatio.of(ratio) if ratio else None,
            Tested.of(tested) if tested else None,
            Tested.of(tested_altered) if tested_altered else None,
        )

    def e_value(
        self, score: float, query_embeddings: int, library_embeddings: int, hypotheses: int = 1
    ) -> float:
        """Expected number of alignments this strong of an unrelated query with the library.

        hypotheses : how many were tried on the query; 1 is the query as it is

        Raises ValueError for more than one if the ladder was never fitted.
        """
        if hypotheses == 1:
            log_e = self.unaltered.log_e_value(score, query_embeddings, library_embeddings)
        elif self.altered is None:
            raise ValueError("this encoder's scores under the ladder were never fitted")
        else:
            counted = max(library_embeddings, SMALLEST_ALTERED)
            log_e = self.altered.log_e_value(score, query_embeddings, counted)
            log_e += math.log((hypotheses - 1) / len(LADDER))
        return math.exp(min(log_e, 50.0))

    def score(self, e_value: float, query_embeddings: int, library_embeddings: int) -> float:
        """The score of that E-value of a query as it is: the inverse of `e_value`."""
        return self.unaltered.score(math.log(e_value), query_embeddings, library_embeddings)


def weights(
    query: NDArray[np.float32],
    query_crowding: NDArray[np.float32],
    reference: NDArray[np.float32],
    reference_crowding: NDArray[np.float32],
    low: int,
    width: int,
    every: int,
    price: float,
    lowest: float = LOWEST,
) -> NDArray[np.float32]:
    """Weights of pairs by offset [shape=(reference steps, width)].

    Column b is offset low + b: reference step j with query step every * j - (low + b); NaN where the
    query [shape=(query steps, d)] has no such step.
    """
    out = np.empty((len(reference), width), np.float32)
    _weights(
        query,
        query_crowding,
        reference,
        reference_crowding,
        low,
        every,
        np.float32(price),
        np.float32(lowest),
        out,
    )
    return out


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _weights(query, query_crowding, reference, reference_crowding, low, every, price, lowest, out):
    """out[j, b] = max((q·r - (crowding of q + crowding of r) / 2) / UNIT - price, lowest)."""
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
            out[j, b] = max(above / np.float32(UNIT) - price, lowest)
