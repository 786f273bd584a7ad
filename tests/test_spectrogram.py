"""The spectrogram is the one that its description says, whole or in pieces."""

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerprint.fingerprint import _Heard, _levels, _normalised
from fingerprint.spectrogram import BANDS, FFT, HOP, band_levels, normalise, spectrogram

RATE = 8000


def music(seconds: float, seed: int = 0) -> np.ndarray:
    """Decaying notes and some hiss, with a silent stretch."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    x = 0.003 * rng.standard_normal(len(t))
    for start in np.arange(0, seconds, 0.2):
        pitch = 220 * 2 ** (rng.integers(0, 40) / 12)
        heard = slice(int(np.ceil(start * RATE)), int((start + 5) * RATE))
        x[heard] += np.exp(-4 * (t[heard] - start)) * np.sin(2 * np.pi * pitch * t[heard]) * 0.2
    x[len(x) // 2 : len(x) // 2 + 4000] = 0
    return x.astype(np.float32)


def plain_levels(x: np.ndarray) -> np.ndarray:
    """The same in ten lines of SciPy and double precision."""
    window = scipy.signal.get_window("hann", FFT, fftbins=True)
    stft = scipy.signal.ShortTimeFFT(window, HOP, RATE)
    frames = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), FFT)[::HOP]
    power = np.abs(np.fft.rfft(frames * stft.win)) ** 2 / (FFT / 4) ** 2
    bins = np.arange(FFT // 2 + 1) * RATE / FFT
    centres = 240 * 2 ** (np.arange(BANDS) / 24)
    reach = np.maximum(centres * (2 ** (1 / 24) - 1), RATE / FFT)
    weights = np.maximum(0, 1 - np.abs(bins - centres[:, None]) / reach[:, None])
    weights /= weights.sum(axis=1, keepdims=True)
    return 10 * np.log10(power @ weights.T + 1e-9)


def plain_spectrogram(x: np.ndarray) -> np.ndarray:
    levels = plain_levels(x)
    out = np.empty_like(levels)
    near = [slice(max(0, t - 20), t + 21) for t in range(len(levels))]
    floored = np.array([np.maximum(levels[t], levels[near[t]].max() - 50) for t in range(len(out))])
    for t in range(len(out)):
        out[t] = (floored[t] - floored[near[t]].mean()) / 10
    return out


@pytest.mark.parametrize("seconds", [0.128, 0.3, 3.0, 7.77])
def test_levels_and_spectrogram_are_the_oracles(seconds):
    x = music(seconds)
    assert np.abs(band_levels(x) - plain_levels(x)).max() < 1e-3  # dB
    assert np.abs(spectrogram(x) - plain_spectrogram(x)).max() < 1e-4  # bels


def test_librosa_sees_the_same_power():
    librosa = pytest.importorskip("librosa")
    x = music(2.0)
    power = np.abs(librosa.stft(x, n_fft=FFT, hop_length=HOP, center=False)).T ** 2
    at = np.arange(BANDS // 2, BANDS)  # above 480 Hz bands are wider than bins: compare the loudest
    loudest_bin = power.argmax(axis=1) * RATE / FFT
    loudest_band = 240 * 2 ** ((band_levels(x).argmax(axis=1)) / 24)
    clear = (loudest_bin > 480) & (loudest_bin < 3600) & (power.max(axis=1) > 1)
    assert len(at) and clear.sum() > 10
    assert np.median(np.abs(np.log2(loudest_band[clear] / loudest_bin[clear]))) < 1 / 24


@pytest.mark.parametrize("amplitude", [1.0, 0.1])
def test_a_sine_shows_in_its_band_at_its_level(amplitude):
    x = amplitude * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    levels = band_levels(x)
    assert np.all(levels.argmax(axis=1) == round(24 * np.log2(1000 / 240)))
    # the band averages over the window's main lobe, which costs 6 dB
    assert np.allclose(levels.max(axis=1), 20 * np.log10(amplitude) - 6.2, atol=0.1)


@pytest.mark.parametrize("samples, frames", [(0, 0), (1023, 0), (1024, 1), (1223, 1), (1224, 2)])
def test_number_of_frames(samples, frames):
    assert spectrogram(np.ones(samples, np.float32)).shape == (frames, BANDS)


def test_gain_does_not_show():
    x = music(3.0)
    x[12000:16000] = music(0.5, seed=1)  # nothing digital-silent: that stays silent at any gain
    assert np.abs(spectrogram(x) - spectrogram(0.25 * x)).max() < 0.05


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_silence_and_constant_are_a_flat_finite_picture(value):
    picture = spectrogram(np.full(RATE, value, np.float32))
    assert np.isfinite(picture).all()
    assert np.abs(picture).max() < (0.01 if value == 0 else 5)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 9000), min_size=1, max_size=12), st.integers(0, 3))
def test_pieces_leave_no_trace(lengths, seed):
    x = music(sum(lengths) / RATE + 1.5, seed)  # enough to be recognised
    cuts = np.cumsum(lengths)
    whole = normalise(band_levels(x))
    heard = _Heard()
    pieces = list(_normalised(_levels(np.split(x, cuts), heard, "sound")))
    assert heard.samples == len(x)
    got = np.concatenate([np.empty((0, BANDS), np.float32), *pieces])
    assert np.array_equal(got, whole)


def test_pieces_of_a_long_sound_leave_no_trace():
    x = np.concatenate([music(50, seed) for seed in range(4)])
    pieces = list(_normalised(_levels(np.array_split(x, 77), _Heard(), "sound")))
    assert len(pieces) > 2
    assert np.array_equal(np.concatenate(pieces), spectrogram(x))
