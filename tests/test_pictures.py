"""Pictures that are compared before training: what each keeps of a sound, and which work is named."""

import numpy as np
import pytest

from benchmarks import pictures
from benchmarks.experiments.encoders import Clip
from fingerprint import spectrogram
from fingerprint.audio import SAMPLE_RATE

SECONDS = np.arange(SAMPLE_RATE) / SAMPLE_RATE


def band_of(frequency: float) -> int:
    return round(24 * np.log2(frequency / spectrogram.LOWEST))


def tones(*frequencies: float) -> np.ndarray:
    return sum(0.1 * np.sin(2 * np.pi * f * SECONDS) for f in frequencies).astype(np.float32)


def test_peaks_are_where_the_tones_are_whatever_their_level():
    frequencies = (500.0, 1000.0, 2500.0)
    noise = np.random.default_rng(4).standard_normal(SAMPLE_RATE).astype(np.float32)
    sound = tones(*frequencies) + 0.01 * noise
    found = pictures.peaks(sound)[5:-5]
    heights = found.mean(axis=0)
    near = {band_of(f) + beside for f in frequencies for beside in (-1, 0, 1)}
    assert all(heights[band_of(f)] > 2 for f in frequencies)  # bels
    assert all(heights[band] < 1.2 for band in range(spectrogram.BANDS) if band not in near)
    assert pictures.peaks(0.5 * sound)[5:-5] == pytest.approx(found, abs=0.1)


@pytest.mark.parametrize("name", sorted(pictures.PICTURES))
@pytest.mark.parametrize("sound", ["silence", "click", "noise"])
def test_sounds_without_a_peak_have_a_picture(name, sound):
    samples = np.zeros(SAMPLE_RATE, np.float32)
    if sound == "click":
        samples[4000] = 0.9
    if sound == "noise":
        samples = 0.1 * np.random.default_rng(2).standard_normal(SAMPLE_RATE).astype(np.float32)
    picture = pictures.PICTURES[name](samples)
    assert np.isfinite(picture).all()
    assert np.isfinite(pictures.patches(np.tile(picture, (3, 1)), 1)).all()
    if sound == "silence":
        assert not picture.any()


def test_the_work_that_a_clip_was_cut_from_comes_first():
    rng = np.random.default_rng(3)

    def melody():
        notes = 300 * 2 ** (rng.integers(0, 36, 32) / 12)
        phase = 2 * np.pi * np.cumsum(np.repeat(notes, SAMPLE_RATE // 4)) / SAMPLE_RATE
        return (0.2 * np.sin(phase)).astype(np.float32)

    works = [melody() for _ in range(4)]
    noise = rng.standard_normal(3 * SAMPLE_RATE).astype(np.float32)
    clips = [
        Clip(work, "clean", 3.0, works[work][3 * SAMPLE_RATE :][: 3 * SAMPLE_RATE] + 0.1 * noise)
        for work in range(4)
    ]
    methods = [
        pictures.Method(name, lambda x, every, p=picture: pictures.patches(p(x), every))
        for name, picture in pictures.PICTURES.items()
    ]
    for several in (*([method] for method in methods), methods[:2]):
        for off in (False, True):
            found = pictures.compare(several, works, clips, off)
            assert all(first and z > 2 for first, z in found.values())
