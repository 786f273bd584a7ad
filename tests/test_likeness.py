"""Copies are matches, also damaged ones; another version of the same notes is for review, and says why."""

from dataclasses import replace

import numpy as np
import pytest
import soxr
from melodies import RATE, melody, played
from numpy.typing import NDArray

from benchmarks.calibration.likeness import DRAWN, NONE, ONE_CHANNEL, Row, fit
from benchmarks.demo.instruments import Instrument, chip, piano
from fingerprint.audio import SAMPLE_RATE
from fingerprint.encoder import Encoder
from fingerprint.fingerprint import (
    QUERY_EVERY,
    REFERENCE_EVERY,
    as_bytes,
    fingerprint_samples,
)
from index.library import Library
from index.recording import Metadata
from index.significance import Calibration
from index.versions import Likeness, contrast

ENCODER = Encoder.load()
CLIP = slice(8 * SAMPLE_RATE, 18 * SAMPLE_RATE)


def heard(instrument: Instrument) -> NDArray[np.float32]:
    """The tune on an instrument, at the rate of fingerprints."""
    return soxr.resample(played(instrument), RATE, SAMPLE_RATE)


def clipped(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Distorted, as another encoding that is still alike."""
    return np.clip(samples, -0.3 * np.abs(samples).max(), 0.3 * np.abs(samples).max())


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Library:
    library = Library.open(tmp_path_factory.mktemp("likeness") / "library", ENCODER, create=True)
    made = fingerprint_samples(heard(piano), ENCODER, REFERENCE_EVERY, "piano.flac")
    with library.writer() as writer:
        writer.add(made, Metadata("piano.flac", "Me", "owned"))
    return library


def found(library: Library, samples: NDArray[np.float32]):
    made = fingerprint_samples(samples[CLIP], ENCODER, QUERY_EVERY, "clip.wav")
    (match,) = library.search(made)[0]
    return match


@pytest.mark.parametrize("noise", [None, 10.0, 0.0])
def test_a_copy_is_a_match_however_noisy(library, noise):
    samples = heard(piano)
    if noise is not None:
        level = np.sqrt(np.mean(samples**2)) * 10 ** (-noise / 20)
        samples += level * np.random.default_rng(0).standard_normal(len(samples)).astype(np.float32)
    match = found(library, samples)
    assert (match.tier, match.other_version) == ("match", False)


def test_another_instrument_playing_the_same_notes_at_the_same_times_is_for_review(library):
    match = found(library, heard(chip))
    assert match.e_value < 1e-12  # it is no accident, and no copy
    assert (match.tier, match.other_version) == ("review", True)


def test_two_recordings_heard_at_once_are_copies_however_little_alike_each_is(
    tmp_path, monkeypatch
):
    strict = replace(Calibration.of(ENCODER.id), likeness=Likeness(0.99, 0.0, 0.99))
    monkeypatch.setattr(Calibration, "of", lambda encoder: strict)
    library = Library.open(tmp_path / "library", ENCODER, create=True)
    songs = [soxr.resample(melody(seed), RATE, SAMPLE_RATE)[: 20 * SAMPLE_RATE] for seed in (3, 4)]
    with library.writer() as writer:
        for name, samples in (("3", songs[0]), ("4", songs[1]), ("3 again", clipped(songs[0]))):
            made = fingerprint_samples(samples, ENCODER, REFERENCE_EVERY, name)
            made = replace(made, sha256=name)
            writer.add(made, Metadata(name, "Me", "owned", id=name))

    def told(samples: NDArray[np.float32]) -> dict[str, str]:
        made = fingerprint_samples(samples[CLIP], ENCODER, QUERY_EVERY, "clip.wav")
        return {match.recording: match.tier for match in library.search(made)[0]}

    # of the two that are alike, the one that says less is a version of the other
    mixed = told(songs[0] + songs[1])
    assert mixed["4"] == "match"
    assert sorted([mixed["3"], mixed["3 again"]]) == ["match", "review"]
    # by itself it is less alike than is asked for, and what is like it says nothing else
    assert told(clipped(songs[0])) == {"3": "review", "3 again": "review"}


def test_contrast_is_how_much_neighbouring_bands_differ():
    flat = np.full((3, 96), -30.0, np.float32)
    comb = flat.copy()
    comb[:, ::2] = -20
    assert contrast(as_bytes(flat)) == 0
    assert contrast(as_bytes(comb)) == pytest.approx(10)
    assert contrast(as_bytes(comb)[:0]) == 0


def test_what_lies_fifty_decibels_under_the_loudest_band_has_no_contrast():
    levels = np.full((1, 96), -85.0, np.float32)
    levels[0, 1::2] = -61
    levels[0, 0] = -10
    assert contrast(as_bytes(levels)) == pytest.approx(50 / 95)


def test_the_more_contrast_in_the_clip_the_more_alike_a_copy_must_be():
    likeness = Likeness(0.1, 0.08, 0.7)
    assert likeness.at_least(0) == 0.1
    assert likeness.at_least(5) == pytest.approx(0.5)
    assert likeness.at_least(20) == 0.7


def test_the_line_gives_up_no_more_copies_than_it_may_and_as_few_versions_pass_as_can_be():
    def rows(is_copy: bool, damage: str, likeness: list[float], contrast: float) -> list[Row]:
        return [Row("tune", "w", is_copy, 5.0, damage, it, contrast) for it in likeness]

    noisy = [0.3 + 0.002 * number for number in range(100)]  # copies, of little contrast
    line = fit(
        [
            *rows(True, NONE, [0.85] * 100, 7.0),
            *rows(True, DRAWN, noisy, 3.0),
            *rows(True, ONE_CHANNEL, [0.7] * 99 + [0.6], 6.0),
            *rows(False, NONE, [0.55] * 20, 7.0),
        ],
        0.02,
    )
    assert line.at_least(7.0) > 0.55  # a version of such contrast is told apart
    assert sum(it < line.at_least(3.0) for it in noisy) <= 4  # of 200 copies
    assert 0.6 < line.most <= 0.7
