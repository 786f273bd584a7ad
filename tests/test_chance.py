"""The fit of chance finds the tail that scores were drawn from, and tells related music from it."""

import math

import numpy as np
import pytest

from index.tail_fit import Look, Pair, fit, tail_of, without

LIBRARY = 10_000
RECORDINGS = 400
DECAY, LOG_DENSITY = {5: 0.9, 45: 0.6}, -6.0


def looks(works: int, of_each: int, seed: int = 0) -> list[Look]:
    """Looks whose peaks above 0 are as many and as high as K n N exp(-λ S) says."""
    rng = np.random.default_rng(seed)
    made = []
    for work in range(works):
        for number in range(of_each):
            for length, n in ((1.0, 5), (5.0, 45)):
                # as many above the score that is reached three times as a Poisson number of mean 3
                lowest = (LOG_DENSITY + math.log(n * LIBRARY / 3)) / DECAY[n]
                count = rng.poisson(3)
                scores = lowest + rng.exponential(1 / DECAY[n], count)
                found = rng.choice(RECORDINGS, count, replace=False)
                peaks = dict(zip(map(str, found.tolist()), scores.tolist(), strict=True))
                start = 10.0 * number
                made.append(Look(str(work), start, start + length, length, n, LIBRARY, peaks))
    return made


def test_the_fit_finds_the_tail_that_scores_were_drawn_from():
    fitted = fit(looks(40, 20))
    assert fitted.tail.lengths == (5, 45)
    assert fitted.tail.decay == pytest.approx((0.9, 0.6), rel=0.1)
    assert fitted.tail.log_density == pytest.approx((LOG_DENSITY, LOG_DENSITY), abs=0.7)
    assert fitted.tail.library == LIBRARY
    assert not fitted.related


def test_the_interval_of_the_decay_holds_the_true_one_and_narrows_with_more_works():
    few, many = fit(looks(20, 5)), fit(looks(180, 5))
    widths = []
    for fitted in (few, many):
        for true, least, most in zip(
            (0.9, 0.6), fitted.tail.least_decay, fitted.most_decay, strict=True
        ):
            assert 0.95 * least < true < 1.05 * most
        widths.append(fitted.most_decay[0] - fitted.tail.least_decay[0])
    assert widths[1] < 0.6 * widths[0]


def test_longer_clips_are_never_said_to_have_the_steeper_tail():
    swapped = [
        Look(
            it.work, it.start, it.end, 9.0 - it.length, 50 // it.query_embeddings, LIBRARY, it.peaks
        )
        for it in looks(40, 10, seed=1)
    ]
    decay = tail_of(swapped).decay
    assert decay[0] == decay[1]


def test_a_work_and_a_recording_that_meet_again_and_again_are_related():
    made = looks(40, 20)
    same_loop = Pair("7", "loop")
    for look in made:
        if look.work == "7" and look.start in (0.0, 50.0):
            look.peaks["loop"] = 60.0
        if look.work == "8" and look.start == 0.0:
            look.peaks["once"] = 60.0
    fitted = fit(made)
    assert fitted.related == {same_loop}
    assert not any("loop" in look.peaks for look in without(made, fitted.related))
    assert sum("once" in look.peaks for look in without(made, fitted.related)) == 2
    assert fitted.tail.decay == pytest.approx((0.9, 0.6), rel=0.15)


def test_without_anything_alike_there_is_no_fit():
    with pytest.raises(ValueError, match="no two clips"):
        fit([Look("a", 0.0, 1.0, 1.0, 5, LIBRARY, {})])
