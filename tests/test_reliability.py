"""What the reliability of E-values is said to be: observed over stated, related music apart."""

import math

import pytest

from benchmarks.reliability import Clip, Setting, counts, looks_of, ratios, report, summary
from fingerprint.encoder import Encoder
from fingerprint.hypotheses import LADDER
from index.significance import Calibration
from index.tail_fit import Look

CALIBRATION = Calibration.of(Encoder.load().id)


def look(work: str, start: float, **e_values: float) -> Look:
    strengths = {name: -math.log(e_value) for name, e_value in e_values.items()}
    return Look(work, start, start + 5.0, 5.0, 45, 10**5, strengths)


def test_what_was_found_so_often_as_stated_has_ratio_1():
    # of a hundred clips, a hundred find something with E <= 1, ten with E <= 0.1, one with E <= 0.01
    looks = [
        look(
            f"work {k % 20}",
            5.0 * k,
            **{f"recording {k}": 0.009 if k == 0 else 0.09 if k < 10 else 0.9},
        )
        for k in range(100)
    ]
    assert counts(looks, [1, 0.1, 0.01, 0.001]).tolist() == [100, 10, 1, 0]
    at, low, high = ratios(looks, [1, 0.1, 0.01, 0.001])
    assert at.tolist() == pytest.approx([1, 1, 1, 0])
    assert (low <= at).all() and (at <= high).all()
    assert low[0] == high[0] == 1  # in every work each clip found one


def test_a_pair_that_meets_in_two_places_is_counted_apart_but_a_false_match_is_told():
    looks = [look("a", 0.0, loop=1e-9), look("a", 60.0, loop=1e-3), look("b", 0.0, once=1e-3)]
    (row, total) = summary([Setting(100, ladder=False)], {Setting(100, ladder=False): looks})
    assert row["related_pairs"] == 1
    assert (row["matches"], row["matches_of_unrelated"]) == (1, 0)
    assert row["ratios"][0][2] == pytest.approx(1 / 3 / 0.01, rel=0.01)
    assert row["ratios_with_related"][2] == pytest.approx(3 / 3 / 0.01, rel=0.01)
    assert total["seconds"] is None and total["clips"] == 3
    assert "100 recordings" in report([row, total])


def test_under_the_ladder_the_likelier_of_both_ways_counts():
    entry = {
        "recordings": 100,
        "ladder": True,
        "number": 7,
        "start": 3.0,
        "size": [45, 10**5],
        "found": [{"a": 8.0, "b": 3.0}, {"a": 2.0, "b": 30.0}],
    }
    clip = Clip(7, 0, "work", 5.0, 0.5)
    (found,) = looks_of(Setting(100, ladder=True), {7: clip}, [entry], CALIBRATION)
    e_value = CALIBRATION.e_value
    assert found.peaks["a"] == pytest.approx(-math.log(e_value(8.0, 45, 10**5)))
    assert found.peaks["b"] == pytest.approx(-math.log(e_value(30.0, 45, 10**5, 1 + len(LADDER))))
    assert looks_of(Setting(1000, ladder=True), {7: clip}, [entry], CALIBRATION) == []


def test_a_pause_in_the_music_is_no_clip():
    entry = {
        "recordings": 1,
        "ladder": False,
        "number": 7,
        "start": 0,
        "size": [0, 9],
        "found": [{}, {}],
    }
    clip = Clip(7, 0, "work", 5.0, 0.5)
    assert looks_of(Setting(1, ladder=False), {7: clip}, [entry], CALIBRATION) == []
