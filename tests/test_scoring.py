"""What an answer is worth, how sure a share is, and where a gate has to be put."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.peers.base import Answer
from benchmarks.scoring import AbsentTally, Tally, Verdict, gate_for, judge, share, strength
from benchmarks.truth import Place

PLACES = [Place("a", 10.0), Place("a", 42.0), Place("b", 3.0)]


def answer(recording: str | None, start: float | None, *, accepted: bool = True) -> Answer:
    return Answer(recording, start, 1.0, accepted, 0.0)


@pytest.mark.parametrize(
    ("given_answer", "expected"),
    [
        (answer("a", 10.2), Verdict(True, True, True, accepted=True)),
        (answer("a", 41.6), Verdict(True, True, near=False, accepted=True)),
        (answer("b", 3.0), Verdict(True, True, True, accepted=True)),
        (answer("b", 10.0), Verdict(identified=True, accepted=True)),
        (answer("a", 10.0, accepted=False), Verdict(True, True, True)),
        (answer("a", None), Verdict(identified=True, accepted=True)),
        (answer("c", 10.0), Verdict(wrong=True)),
        (answer("c", 10.0, accepted=False), Verdict()),
        (answer(None, None, accepted=False), Verdict()),
        (answer(None, None), Verdict()),
    ],
)
def test_an_answer_is_judged_by_the_set_of_places(given_answer: Answer, expected: Verdict) -> None:
    assert judge(given_answer, PLACES) == expected


def test_silence_before_the_music_is_allowed_for() -> None:
    # Music at 10.0 s of the work, heard 20 % faster after 1 s of silence: the clip begins at 8.8 s.
    assert judge(answer("a", 8.8), [Place("a", 10.0)], shift=1.2).near
    assert not judge(answer("a", 10.0), [Place("a", 10.0)], shift=1.2).localised


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        # Wilson's interval from its closed form with z = 1.959964; the first is in Newcombe (1998), table 1
        (81, 263, 0.2553, 0.3662),
        (0, 10, 0.0, 0.2775),
        (10, 20, 0.2993, 0.7007),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_intervals_are_wilsons(k: int, n: int, low: float, high: float) -> None:
    result = share(k, n)
    assert result is not None
    assert (result.value, result.low, result.high) == pytest.approx((k / n, low, high), abs=5e-5)


def test_nothing_has_no_share() -> None:
    assert share(0, 0) is None


@given(
    st.lists(st.floats(-10, 10), min_size=1, max_size=60),
    st.floats(0, 1),
)
def test_a_gate_lets_no_more_pass_than_it_may(scores: list[float], rate: float) -> None:
    gate = gate_for(scores, rate)
    passing = sum(score > gate for score in scores)
    assert passing <= rate * len(scores)
    tied = sum(score == gate for score in scores)
    assert rate * len(scores) < passing + tied or passing + tied == len(scores)


def test_answers_without_a_recording_are_weaker_than_any() -> None:
    assert strength(Answer(None, None, 99.0, True, 0.0)) == -math.inf
    assert strength(Answer("a", 0.0, math.nan, True, 0.0)) == -math.inf
    assert gate_for([], 0.01) == -math.inf


def test_counts_add_up() -> None:
    tally = Tally.of([Verdict(True, True, True, accepted=True), Verdict(wrong=True), Verdict()])
    assert (tally.clips, tally.identified, tally.near, tally.accepted, tally.wrong) == (
        3,
        1,
        1,
        1,
        1,
    )
    absent = AbsentTally()
    absent.add(answer("a", 0.0), 5.0)
    absent.add(answer("a", 0.0, accepted=False), 2.5)
    absent.add(answer(None, None), 2.5)
    assert (absent.clips, absent.accepted, absent.seconds) == (3, 1, 10.0)
