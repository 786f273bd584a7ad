"""Figures put into words that a newcomer understands."""

import pytest

from service.presentation.formatting import (
    as_text,
    chance,
    change,
    clock,
    percent,
    printable,
    repeated,
    table,
    weight,
)
from service.query.answer import Match


def match(**said: object) -> Match:
    """A match of which this is said; the rest is of no concern."""
    usual = {
        "recording": "1",
        "source": "1.flac",
        "title": None,
        "artist": None,
        "isrc": None,
        "work": None,
        "rightsholder": "Blue Label",
        "rights": "owned",
        "tier": "match",
        "e_value": 1e-30,
        "score": 30.0,
        "query_start": 0.0,
        "query_end": 5.0,
        "reference_start": 10.0,
        "reference_end": 15.0,
        "tempo": 1.0,
        "pitch_semitones": 0.0,
    }
    return Match.model_validate(usual | said)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            {"tested_clips": 19_276, "tested_closer": 0},
            "none of 19,276 unrelated clips came this close",
        ),
        (
            {"tested_clips": 1_500, "tested_closer": 12},
            "12 of 1,500 unrelated clips came this close",
        ),
        ({}, "not tested"),
        ({"same_file": True}, "the same file, byte for byte"),
    ],
)
def test_no_more_is_said_of_chance_than_a_test_has_seen(said: dict, words: str) -> None:
    assert chance(match(**said)) == words


@pytest.mark.parametrize(
    ("tempo", "pitch", "words"),
    [
        ((1.0, 0.99, 1.02), (0.0, -0.1, 0.2), "none"),
        ((1.03, 1.026, 1.034), (0.0, -0.1, 0.1), "3.0 % faster (2.6 to 3.4)"),
        ((0.9, 0.86, 0.94), (0.0, -0.1, 0.1), "10 % slower (6 to 14)"),
        ((1.0003, 1.0002, 1.0004), (0.0, -0.1, 0.1), "0.03 % faster (0.02 to 0.04)"),
        ((1.0, 0.99, 1.01), (-2.0, -2.12, -1.88), "2.0 semitones down (1.9 to 2.1)"),
        (
            (1.06, 1.05, 1.07),
            (1.01, 0.9, 1.12),
            "6.0 % faster (5.0 to 7.0), 1.0 semitones up (0.9 to 1.1)",
        ),
    ],
)
def test_a_change_is_told_with_its_interval_and_only_where_that_excludes_none(
    tempo: tuple, pitch: tuple, words: str
) -> None:
    names = ("tempo", "tempo_low", "tempo_high"), ("pitch_semitones", "pitch_low", "pitch_high")
    said = dict(zip(names[0], tempo, strict=True)) | dict(zip(names[1], pitch, strict=True))
    assert change(match(**said, changed=words != "none")) == words


def test_without_an_interval_no_change_and_no_lack_of_one_is_told() -> None:
    assert change(match()) == "not measured"
    assert change(match(same_file=True)) == "none"


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (None, ""),
        (0.2, "less probable"),
        (3.0, "hardly more probable"),
        (10.0, "at least 10 times more probable"),
        (99_999.0, "at least 10,000 times more probable"),
        (1e5, "at least 100,000 times more probable"),
    ],
)
def test_a_likelihood_ratio_is_rounded_down(ratio: float | None, words: str) -> None:
    assert weight(ratio) == words


def test_other_places_of_the_same_audio_are_named_but_not_all_of_many() -> None:
    assert repeated(match()) == ""
    assert repeated(match(repeats=[(61.2, 66.2)])) == "also at 1:01.2"
    many = [(float(start), start + 5.0) for start in range(0, 60, 10)]
    assert repeated(match(repeats=many)).endswith("0:30.0 and 2 more places")


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
