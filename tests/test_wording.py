"""Figures put into words that a newcomer understands."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.presentation.formatting import (
    as_text,
    change,
    changed,
    clock,
    percent,
    printable,
    seen,
    table,
    weight,
)


@pytest.mark.parametrize(
    ("e_value", "words"),
    [
        (0.0, "at most 1 in 500"),  # no smaller chance was tested
        (1e-6, "at most 1 in 500"),
        (2e-6, "at most 1 in 90"),
        (1e-3, "at most 1 in 90"),
        (0.01, "at most 1 in 30"),
        (0.1, "at most 1 in 5"),
        (3.0, "more than 1 in 5"),
    ],
)
def test_no_smaller_chance_is_told_than_was_seen(e_value: float, words: str) -> None:
    assert seen(e_value) == words


@given(st.floats(0, 1e3), st.floats(0, 1e3))
def test_the_weaker_is_never_told_as_the_rarer(one: float, other: float) -> None:
    clips = [int(seen(it).rsplit(" ", 1)[1]) for it in sorted((one, other))]
    assert clips == sorted(clips, reverse=True)


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (None, ""),
        (0.2, "less probable than if it is not"),
        (3.0, "hardly more probable than if it is not"),
        (10.0, "at least 10 times"),
        (99_999.0, "at least 10,000 times"),
        (1e5, "at least 100,000 times"),
    ],
)
def test_a_likelihood_ratio_is_rounded_down(ratio: float | None, words: str) -> None:
    assert weight(ratio) == words


MEASURED = {"tempo_low": 1.055, "tempo_high": 1.066, "pitch_low": -0.1, "pitch_high": 0.1}
UNCHANGED = (0.999, 1.001), (-0.05, 0.05)


@pytest.mark.parametrize(
    ("tempo", "pitch", "tempo_ends", "pitch_ends", "words"),
    [
        (1.0, 0.0, *UNCHANGED, "none"),
        (1.0004, -0.02, *UNCHANGED, "none"),
        (
            1.06,
            1.01,
            (1.055, 1.066),
            (0.9, 1.1),
            "6 % faster (5.5 to 6.6), 1.0 semitones up (0.9 to 1.1)",
        ),
        (0.9, 0.0, (0.893, 0.907), (-0.1, 0.1), "10 % slower (9.3 to 10.7)"),
        (1.0, -2.0, (0.99, 1.01), (-2.2, -1.8), "2.0 semitones down (1.8 to 2.2)"),
        (1.03, 0.2, (0.98, 1.08), (0.0, 0.4), "none"),
    ],
)
def test_a_change_is_told_where_its_interval_excludes_none(
    tempo: float,
    pitch: float,
    tempo_ends: tuple[float, float],
    pitch_ends: tuple[float, float],
    words: str,
) -> None:
    assert change(tempo, pitch, *tempo_ends, *pitch_ends) == words


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "not measured"),
        ({"tempo": 1.002, "pitch_semitones": -0.2}, "not measured"),
        ({"tempo": 1.06}, "about 6 % faster"),
        ({"tempo": 1.06, **MEASURED, "changed": False}, "none"),
        ({"tempo": 1.06, **MEASURED, "changed": True}, "6 % faster (5.5 to 6.6)"),
        ({"tempo": 1.06, **MEASURED, "changed": True, "same_file": True}, "none: the same file"),
    ],
)
def test_a_change_of_a_match_is_told_as_far_as_it_was_measured(
    fields: dict[str, Any], words: str
) -> None:
    match = SimpleNamespace(**{"tempo": 1.0, "pitch_semitones": 0.0} | fields)
    assert changed(match) == words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00.0"), (59.96, "1:00.0"), (61.23, "1:01.2"), (3725, "1:02:05.0")],
)
def test_times_are_told_as_on_a_player(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_columns_are_aligned_whatever_the_script() -> None:
    lines = table(("A", "B"), [("中文", "x"), ("e\N{COMBINING ACUTE ACCENT}t", "y")]).splitlines()
    assert lines == ["A     B", "中文  x", "e\N{COMBINING ACUTE ACCENT}t    y"]


def test_a_name_cannot_drive_the_terminal() -> None:
    assert printable("a\x1b[2Jb\nc") == "a [2Jb c"


def test_a_name_that_is_no_utf8_is_still_text() -> None:
    assert as_text("caf\udce9").encode() == "caf\N{REPLACEMENT CHARACTER}".encode()


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.0, "less than 0.01 %"), (3.5e-8, "less than 0.01 %"), (0.0123, "1.2 %"), (1.0, "100 %")],
)
def test_a_share_is_told_in_per_cent(share: float, words: str) -> None:
    assert percent(share) == words
