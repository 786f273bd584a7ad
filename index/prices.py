"""What evidence costs: a pair of embeddings, and a border of an alignment.

A short query has few pairs, each of which must be strong; of a long one weak but steady evidence adds up.
"""

import math
from typing import NamedTuple

import numpy as np

# Query embeddings of 2 and 10 s, between which prices follow the logarithm of the length. Chosen on the tune
# packages, across hard rooms (`python -m benchmarks.calibration.prices`).
LENGTHS = (15.0, 95.0)
PRICES = (
    3.0,
    1.0,
)  # units of `index.significance.UNIT` that a pair's similarity must exceed the crowding by
# What an alignment loses, at most, at either end where query and recording both go on and are not alike: a
# copy goes on to an end of one of them, or to a border that it is worth this much to assume.
BORDERS = (2.0, 4.0)


class Prices(NamedTuple):
    """What evidence costs in a query of some length, in units of `index.significance.UNIT`."""

    pair: float
    border: float

    @classmethod
    def of(cls, query_embeddings: int) -> "Prices":
        """Those of a query of so many embeddings."""
        n = math.log(max(query_embeddings, 1))
        pair, border = (float(np.interp(n, np.log(LENGTHS), of)) for of in (PRICES, BORDERS))
        return cls(pair, border)
