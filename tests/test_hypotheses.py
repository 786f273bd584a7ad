"""A hypothesis undoes a change of tempo and pitch on the query's levels, and the ladder covers the plane."""

import math

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from melodies import RATE, melody
from scipy.ndimage import map_coordinates

from fingerprint.hypotheses import LADDER, UNALTERED, Hypothesis, resampled, restore
from fingerprint.spectrogram import BANDS, band_levels, normalise, spectrogram
from index.ladder import SLOPES

SAMPLE_RATE = 8000
SIXTEENTHS = st.integers(-24 * 16, 24 * 16).map(lambda n: n / 16)  # of a band


def at_8_khz(samples: np.ndarray, played_faster: float = 1.0) -> np.ndarray:
    return soxr.resample(samples, RATE * played_faster, SAMPLE_RATE).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.5, 2), SIXTEENTHS, st.integers(2, 60), st.integers(0, 99))
def test_levels_are_interpolated_and_bands_from_outside_are_unknown(tempo, bands, frames, seed):
    levels = np.random.default_rng(seed).normal(-40, 10, (frames, BANDS)).astype(np.float32)
    got, low, high = resampled(levels, tempo, bands)
    assert len(got) == 1 + math.floor((frames - 1) * tempo + 1e-9)
    t, b = np.meshgrid(np.arange(len(got)) / tempo, np.arange(low, high) + bands, indexing="ij")
    expected = map_coordinates(levels.astype(float), [t, b], order=1, mode="nearest")
    assert np.allclose(got[:, low:high], expected, atol=1e-3)
    outside = (np.arange(BANDS) + bands < -1e-6) | (np.arange(BANDS) + bands > BANDS - 1 + 1e-6)
    assert not outside[low:high].any() and outside[:low].all() and outside[high:].all()


def test_no_change_is_the_plain_spectrogram():
    levels = band_levels(at_8_khz(melody(1, 3.0)))
    assert np.array_equal(restore(levels, UNALTERED), normalise(levels))


def test_unknown_bands_are_zero_and_not_looked_at():
    levels = band_levels(at_8_khz(melody(2, 3.0)))
    octave_up = Hypothesis(pitch=12.0)
    picture = restore(levels, octave_up)
    assert not picture[:, -24:].any() and picture[:, :-24].any()
    loud_bass = levels.copy()
    loud_bass[:, :24] = 0.0  # in the query's lowest octave, which is below the recording's picture
    assert np.array_equal(restore(loud_bass, octave_up), picture)


@pytest.mark.parametrize("semitones", [-7.0, -2.0, 3.0, 5.0])
def test_a_change_of_speed_is_undone(semitones):
    tune = melody(3, 8.0)
    speed = 2 ** (semitones / 12)
    original = spectrogram(at_8_khz(tune))
    altered = band_levels(at_8_khz(tune, played_faster=speed))
    restored = restore(altered, Hypothesis(speed, semitones))
    known = slice(max(0, round(-2 * semitones)), BANDS - max(0, round(2 * semitones)))
    frames = slice(60, min(len(original), len(restored), len(altered)) - 60)

    def likeness(picture: np.ndarray) -> float:
        return float(
            np.corrcoef(picture[frames, known].ravel(), original[frames, known].ravel())[0, 1]
        )

    assert likeness(restored) > 0.85
    assert likeness(normalise(altered)) < 0.5


@settings(max_examples=200, deadline=None)
@given(st.floats(0.5, 2.0), st.floats(-12, 12))
def test_every_change_is_near_a_rung(tempo, pitch):
    nearest = min(
        max(abs(math.log(tempo / (rung.tempo * slope))) / 0.06, abs(pitch - rung.pitch) / 0.5)
        for rung in (UNALTERED, *LADDER)
        for slope in SLOPES
    )
    assert nearest <= 1.0001  # within 6 % and half a semitone: what the encoder bears


def test_small_and_plain_changes_come_first():
    assert len(set(LADDER)) == len(LADDER) and UNALTERED not in LADDER
    first = LADDER[:12]
    assert all(rung.tempo == 1 or rung.pitch == 0 or abs(rung.pitch) <= 5 for rung in first)
    assert Hypothesis(1.0, 1.0) in first[:2] and Hypothesis(1.0, -1.0) in first[:2]
