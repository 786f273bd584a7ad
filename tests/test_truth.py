"""The set of places with the same audio, on signals whose repetitions are known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import soxr

from benchmarks.codecs import through
from benchmarks.truth import SAMPLE_RATE, Cut, Place, Truth, correlate, is_right

Signal = npt.NDArray[np.float32]


def music(seconds: float, seed: int) -> Signal:
    """Random notes of several partials, a new chord every quarter of a second; never the same twice."""
    rng = np.random.default_rng(seed)
    note = SAMPLE_RATE // 4
    time = np.arange(note) / SAMPLE_RATE
    notes = []
    for _ in range(round(4 * seconds)):
        pitches = rng.uniform(200, 2_500, 6)[:, None]
        chord = (np.sin(2 * np.pi * pitches * time) * rng.uniform(0.2, 1.0, (6, 1))).sum(axis=0)
        notes.append(chord * np.exp(-rng.uniform(2, 12) * time) * rng.uniform(0.3, 1.0))
    return (0.1 * np.concatenate(notes)).astype(np.float32)


def truth_of(**signals: Signal) -> Truth:
    truth = Truth()
    for name, signal in signals.items():
        truth.add(name, signal)
    return truth


def offsets(places: list[Place], recording: str) -> list[float]:
    return sorted(round(p.offset, 2) for p in places if p.recording == recording)


@pytest.mark.parametrize("seconds", [1.0, 2.0, 5.0])
def test_every_turn_of_a_loop_is_a_place(seconds: float) -> None:
    loop = music(7.3, seed=1)
    truth = truth_of(loop=np.tile(loop, 4), other=music(30, seed=2))
    [places] = truth.places([Cut("loop", 8.0, seconds)])
    assert places[0] == Place("loop", 8.0)
    period = len(loop) / SAMPLE_RATE
    expected = [round(8.0 + turn * period, 2) for turn in (-1, 0, 1, 2)]
    assert offsets(places, "loop") == pytest.approx(expected, abs=0.011)
    assert offsets(places, "other") == []


def test_music_that_does_not_repeat_has_one_place() -> None:
    truth = truth_of(a=music(60, seed=3), b=music(60, seed=4))
    cuts = [Cut("a", offset, 2.0) for offset in (0.0, 11.37, 58.0)] + [Cut("b", 30.1, 10.0)]
    assert [len(places) for places in truth.places(cuts)] == [1, 1, 1, 1]


@pytest.mark.parametrize("codec", ["mp3-64", "vorbis-160"])
def test_another_edition_is_found_at_its_own_offset(codec: str) -> None:
    original = music(40, seed=5)
    fine = soxr.resample(original, SAMPLE_RATE, 44_100)[:, None]
    coded = soxr.resample(through(fine, 44_100, codec)[:, 0], 44_100, SAMPLE_RATE)
    edition = np.concatenate([np.zeros(12_345, np.float32), -0.4 * coded])  # late, quiet, inverted
    [places] = truth_of(a=original, b=edition).places([Cut("a", 20.03, 5.0)])
    assert offsets(places, "a") == [20.03]
    assert offsets(places, "b") == pytest.approx([20.03 + 12_345 / SAMPLE_RATE], abs=0.011)


def test_the_same_accompaniment_under_another_voice_is_not_the_same_audio() -> None:
    bass = music(10, seed=6)
    verses = np.concatenate([bass + music(10, seed=7), bass + music(10, seed=8)])
    [places] = truth_of(a=verses).places([Cut("a", 2.0, 5.0)])
    assert offsets(places, "a") == [2.0]


def test_a_copy_that_is_cut_off_by_the_recordings_end_is_no_place() -> None:
    song = music(20, seed=9)
    truth = truth_of(a=song, b=song[: 12 * SAMPLE_RATE])
    [short, long] = truth.places([Cut("a", 5.0, 5.0), Cut("a", 10.0, 5.0)])
    assert offsets(short, "b") == [5.0]
    assert offsets(long, "b") == []


def test_silence_and_nothing_are_not_matched() -> None:
    truth = truth_of(
        a=np.zeros(80_000, np.float32), b=music(10, seed=10), c=np.zeros(10, np.float32)
    )
    assert truth.places([]) == []
    [silent, sounding] = truth.places([Cut("a", 1.0, 2.0), Cut("b", 1.0, 2.0)])
    assert silent == [Place("a", 1.0)]
    assert sounding == [Place("b", 1.0)]


def test_wrong_questions_are_refused() -> None:
    truth = truth_of(a=music(10, seed=11))
    with pytest.raises(ValueError, match="shorter than"):
        truth.places([Cut("a", 0.0, 0.5)])
    with pytest.raises(KeyError):
        truth.places([Cut("b", 0.0, 2.0)])
    with pytest.raises(ValueError, match="already"):
        truth.add("a", music(1, seed=11))


def test_correlation_against_its_definition() -> None:
    rng = np.random.default_rng(12)
    longer = rng.standard_normal(900).astype(np.float32)
    clip = longer[200:600] + 0.5 * rng.standard_normal(400).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(longer, 400)
    expected = np.abs(windows @ clip) / np.linalg.norm(windows, axis=1) / np.linalg.norm(clip)
    likeness, lag = correlate(clip, longer)
    assert lag == int(np.argmax(expected)) == 200
    assert likeness == pytest.approx(float(expected.max()), rel=0.02)


def test_an_answer_is_right_near_any_of_the_places() -> None:
    places = [Place("a", 10.0), Place("a", 20.0), Place("b", 5.0)]
    assert is_right(places, "a", 20.2, tolerance=0.25)
    assert is_right(places, "b", 4.9, tolerance=0.25)
    assert not is_right(places, "a", 15.0, tolerance=0.25)
    assert not is_right(places, "c", 10.0, tolerance=0.25)
