"""What an answer is worth as evidence is never stated above what its validation supports."""

import math

import numpy as np
import pytest

import index.significance
from benchmarks.calibration.likelihood_ratio import Asked, asked_of, cllr, fit, strengths, table
from index.significance import Calibration, LikelihoodRatio, Tail

NOTHING_SAID = LikelihoodRatio(0.0, 0.0, -3.0, 3.0)
TAIL = Tail((10.0, 100.0), (0.5, 0.5), (-3.0, -3.0), (0.4, 0.4), 10**5)


def test_ratios_of_one_cost_a_bit() -> None:
    assert cllr(NOTHING_SAID, [1e-9, 1.0], [1.0, 1e-9]) == pytest.approx(1)


def test_a_line_through_two_normal_distributions_is_their_ratio() -> None:
    # of two normal distributions of one variance v, at m and -m, the log ratio of densities is 2 m x / v
    rng = np.random.default_rng(0)
    copies, others = rng.normal(2, 1.5, 20_000), rng.normal(-2, 1.5, 20_000)
    ratio = fit(copies, others, 30_000)
    assert ratio.slope == pytest.approx(2 * 2 / 1.5**2 / math.log(10), rel=0.05)
    assert ratio.offset == pytest.approx(0, abs=0.05)


def test_no_ratio_is_stated_above_a_third_of_the_clips_that_validate_it() -> None:
    ratio = fit(np.full(50, 20.0), np.full(50, -1.0), 900)
    assert ratio.at(1e-300) == pytest.approx(300, rel=0.01)
    assert ratio.at(1e3) == pytest.approx(1 / 300, rel=0.01)
    assert ratio.at(1e-10) >= ratio.at(1e-2) >= ratio.at(1.0)


def test_what_was_noted_is_judged_by_the_calibration_at_hand() -> None:
    entry = {
        "split": "report",
        "number": 3,
        "seconds": 5.0,
        "damage": "none",
        "size": [45, 100_000],
        "scores": {"own": 60.0, "unrelated": 22.0, "kin": 0.0},
    }
    one = asked_of(entry, Calibration(TAIL, None))
    assert one.own < 1e-6 < one.unrelated < one.kin == 100.0
    assert strengths([one], "own")[0] == pytest.approx(-math.log10(one.own))


def test_the_table_tells_lengths_and_damages_apart() -> None:
    asked = [Asked("report", n, 5.0, "none", 1e-9, 1.0, 1e-9) for n in range(4)]
    ratio = LikelihoodRatio(-1.0, 0.5, -2.0, 2.0)
    lines = list(table(asked, ratio))
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["all", "5 s", "5 s, none"]
    cells = [cell.strip() for cell in lines[2].split("|")]
    # kin is as close as copies: there the ratios mislead
    assert float(cells[3]) < 0.2 < 1 < float(cells[4])


def test_closer_clips_are_counted_and_none_is_claimed_that_was_not_noted() -> None:
    tested = index.significance.Tested.of({"clips": 1_498, "closest": [0.05, 3.2e-6, 1e-3]})
    assert [tested.closer(e) for e in (1e-9, 3.2e-6, 1e-2, 0.05)] == [0, 1, 2, 3]
    assert tested.closer(0.5) is None
    assert index.significance.Tested(10, ()).closer(1.0) == 0
