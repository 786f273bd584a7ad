"""Figures put into words that a newcomer understands."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.presentation.formatting import (
    as_text,
    chance,
    change,
    clock,
    percent,
    printable,
    table,
)


@pytest.mark.parametrize(
    ("e_value", "words"),
    [
        (0.0, "less than 1 in 1000 trillion"),
        (1e-300, "less than 1 in 1000 trillion"),
        (2e-14, "1 in 50 trillion"),
        (3.2e-7, "1 in 3.1 million"),
        (1e-6, "1 in 1 million"),
        (0.01, "1 in 100"),
        (math.log(2), "1 in 2"),  # the chance of one or more is a half
        (100.0, "1 in 1"),
    ],
)
def test_an_e_value_is_told_as_odds(e_value: float, words: str) -> None:
    assert chance(e_value) == words


@given(st.floats(1e-300, 1e3))
def test_odds_are_never_in_exponents(e_value: float) -> None:
    assert "e+" not in chance(e_value)
    assert "e-" not in chance(e_value)


@pytest.mark.parametrize(
    ("tempo", "pitch", "words"),
    [
        (1.0, 0.0, "none"),
        (1.004, -0.05, "none"),
        (1.06, 1.01, "6 % faster, 1.0 semitones up"),
        (0.9, 0.0, "10 % slower"),
        (1.0, -2.0, "2.0 semitones down"),
    ],
)
def test_what_was_changed(tempo: float, pitch: float, words: str) -> None:
    assert change(tempo, pitch) == words


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
