"""Scores are sums of weights, and what chance they have follows from the fit."""

import math
from dataclasses import replace

import numpy as np
import pytest
from embeddings import track
from hypothesis import given
from hypothesis import strategies as st

from fingerprint.encoder import Encoder
from fingerprint.hypotheses import LADDER
from index.errors import LibraryError
from index.prices import Prices
from index.significance import (
    LOWEST,
    SEEN,
    SMALLEST_ALTERED,
    SMALLEST_LIBRARY,
    UNIT,
    Calibration,
    Tail,
    weights,
)

ENCODER = Encoder.load()
TAIL = Tail((10.0, 100.0), (0.5, 0.5), (-3.0, -3.0), (0.4, 0.4), 10**5)
CALIBRATION = Calibration(TAIL, None)


def test_weights_are_similarities_above_the_crowding_less_their_price():
    x, y = track(ENCODER, 1, 10), track(ENCODER, 2, 10)
    y[9] = x[5]
    coarse = ENCODER.codec.coarse

    def crowding(z):
        return z @ coarse[np.argmin(np.sum((coarse - z) ** 2, axis=1))]

    crowded = [ENCODER.codec.crowding(z) for z in (x, y)]
    assert crowded[0] == pytest.approx([crowding(z) for z in x], abs=1e-5)
    banded = weights(x, crowded[0], y, crowded[1], low=-200, width=401, every=5, price=2.5)
    for i, j in ((5, 9), (2, 7)):
        above = x[i] @ y[j] - (crowding(x[i]) + crowding(y[j])) / 2
        expected = max(above / UNIT - 2.5, LOWEST)
        assert banded[j, 5 * j - i + 200] == pytest.approx(expected, abs=1e-3)
    assert np.isnan(banded[0, 201:]).all()  # query steps before the first


def test_a_pair_costs_less_and_a_border_more_in_a_longer_query():
    assert Prices.of(1) == Prices.of(15) == Prices(3.0, 2.0)
    assert Prices.of(95) == Prices.of(10_000) == Prices(1.0, 4.0)
    assert 1 < Prices.of(45).pair < 3 and 2 < Prices.of(45).border < 4


def test_e_value_grows_with_library_and_query_and_falls_with_the_score():
    e_value = CALIBRATION.e_value
    assert e_value(25, 50, 10**5) == pytest.approx(math.exp(-3) * 50 * 10**5 * math.exp(-0.5 * 25))
    assert e_value(25, 50, 10**5) > e_value(26, 50, 10**5)
    assert e_value(25, 50, 2 * 10**5) == pytest.approx(2 * e_value(25, 50, 10**5))


def test_beyond_what_the_fit_has_seen_chance_falls_as_slowly_as_it_may():
    edge = TAIL.score(SEEN, 50, 10**5)
    seen = CALIBRATION.e_value(edge, 50, 10**5)
    assert seen == pytest.approx(math.exp(SEEN))
    assert CALIBRATION.e_value(edge + 10, 50, 10**5) == pytest.approx(seen * math.exp(-0.4 * 10))
    # in a library ten times as large the same scores have been seen, which chance reaches ten times as often
    assert CALIBRATION.e_value(edge + 10, 50, 10**6) == pytest.approx(
        10 * CALIBRATION.e_value(edge + 10, 50, 10**5)
    )


@given(st.floats(-40, 3), st.integers(1, 500), st.integers(0, 10**9))
def test_a_score_has_the_e_value_that_it_was_asked_for(log_e, query_embeddings, library_embeddings):
    score = TAIL.score(log_e, query_embeddings, library_embeddings)
    found = TAIL.log_e_value(score, query_embeddings, library_embeddings)
    assert found == pytest.approx(log_e, abs=1e-9)


def test_a_part_of_the_ladder_has_a_part_of_its_chance():
    calibration = replace(CALIBRATION, altered=TAIL)
    whole = calibration.e_value(25, 50, 10**5, hypotheses=1 + len(LADDER))
    assert whole == pytest.approx(CALIBRATION.e_value(25, 50, 10**5))
    half = calibration.e_value(25, 50, 10**5, hypotheses=1 + len(LADDER) // 2)
    assert half == pytest.approx(whole / 2)
    with pytest.raises(ValueError, match="never fitted"):
        CALIBRATION.e_value(25, 50, 10**5, hypotheses=2)


def test_a_handful_of_works_is_no_licence_for_small_e_values():
    assert CALIBRATION.e_value(20, 50, 100) == CALIBRATION.e_value(20, 50, 10_000)


def test_under_the_ladder_a_small_library_counts_as_larger_still():
    both = Calibration(TAIL, TAIL)

    def stated(embeddings: int, hypotheses: int) -> float:
        return both.e_value(20.0, 45, embeddings, hypotheses)

    whole = 1 + len(LADDER)
    assert stated(50, whole) == stated(SMALLEST_ALTERED, whole) > stated(50, 1)
    assert stated(50, 1) == stated(SMALLEST_LIBRARY, 1)
    assert stated(2 * SMALLEST_ALTERED, whole) > stated(50, whole)


def test_an_encoder_without_calibration_is_refused():
    with pytest.raises(LibraryError, match="no calibration"):
        Calibration.of("unknown")
