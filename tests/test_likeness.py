"""Copies are matches, also damaged ones; another version of the same notes is for review, and says why."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fingerprint.audio import SAMPLE_RATE
from fingerprint.encoder import Encoder
from fingerprint.fingerprint import (
    QUERY_EVERY,
    REFERENCE_EVERY,
    as_bytes,
    fingerprint_samples,
)
from index.library import Library
from index.likeness import Likeness, contrast
from index.recording import Metadata

ENCODER = Encoder.load()
CLIP = slice(8 * SAMPLE_RATE, 18 * SAMPLE_RATE)
FLUTE = 0.5 ** np.arange(1, 9)  # levels of partials
CLARINET = np.array([1, 0, 0.33, 0, 0.2, 0, 0.14, 0])


def played(partials: NDArray[np.float64], decay: float) -> NDArray[np.float32]:
    """Half a minute of the same two voices on an instrument of these partials."""
    rng = np.random.default_rng(3)
    samples = np.zeros(32 * SAMPLE_RATE)
    start = 0.0
    while start < 30:
        length = rng.choice([0.25, 0.5, 0.75])
        for lowest in (48, 60):
            pitch = 440 * 2 ** ((lowest + rng.integers(20) - 69) / 12)
            t = np.arange(round(1.2 * length * SAMPLE_RATE)) / SAMPLE_RATE
            order = np.arange(1, 9)
            heard = partials * (pitch * order < SAMPLE_RATE / 2)
            note = heard @ np.sin(2 * np.pi * pitch * order[:, None] * t)
            at = round(start * SAMPLE_RATE)
            samples[at : at + len(note)] += note * np.exp(-decay * t) * np.minimum(t / 0.01, 1)
        start += length
    return (0.3 * samples / np.abs(samples).max()).astype(np.float32)


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Library:
    library = Library.open(tmp_path_factory.mktemp("likeness") / "library", ENCODER, create=True)
    made = fingerprint_samples(played(FLUTE, 3.0), ENCODER, REFERENCE_EVERY, "flute.flac")
    with library.writer() as writer:
        writer.add(made, Metadata("flute.flac", "Me", "owned"))
    return library


def found(library: Library, samples: NDArray[np.float32]):
    made = fingerprint_samples(samples[CLIP], ENCODER, QUERY_EVERY, "clip.wav")
    (match,) = library.search(made)[0]
    return match


@pytest.mark.parametrize("noise", [None, 10.0, 0.0])
def test_a_copy_is_a_match_however_noisy(library, noise):
    samples = played(FLUTE, 3.0)
    if noise is not None:
        level = np.sqrt(np.mean(samples**2)) * 10 ** (-noise / 20)
        samples += level * np.random.default_rng(0).standard_normal(len(samples)).astype(np.float32)
    match = found(library, samples)
    assert (match.tier, match.other_version) == ("match", False)


def test_another_instrument_playing_the_same_notes_at_the_same_times_is_for_review(library):
    match = found(library, played(CLARINET, 1.5))
    assert match.e_value < 1e-12  # it is no accident, and no copy
    assert (match.tier, match.other_version) == ("review", True)


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
    likeness = Likeness(0.1, 0.08)
    assert likeness.at_least(0) == 0.1
    assert likeness.at_least(5) == pytest.approx(0.5)
