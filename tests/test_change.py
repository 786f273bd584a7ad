"""A change of tempo or pitch is said with an interval that holds the truth, and not of an unchanged clip."""

from dataclasses import replace

import numpy as np
import pytest
import soxr
from melodies import RATE, melody

from fingerprint.audio import SAMPLE_RATE
from fingerprint.encoder import Encoder
from fingerprint.fingerprint import (
    QUERY_EVERY,
    REFERENCE_EVERY,
    Fingerprint,
    fingerprint_samples,
)
from fingerprint.hypotheses import UNALTERED, Hypothesis
from fingerprint.view import laid, unaltered
from index.change import Estimate
from index.library import Library
from index.recording import Metadata
from index.search import Match

ENCODER = Encoder.load()
FILE = "ab" * 32  # SHA-256 of the recording's file


def heard(samples: np.ndarray) -> np.ndarray:
    return soxr.resample(samples, RATE, SAMPLE_RATE).astype(np.float32)


SONG = heard(melody(3, 30.0))
LOOP = heard(melody(5, 7.3))


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Library:
    library = Library.open(tmp_path_factory.mktemp("change") / "library", ENCODER, create=True)
    with library.writer() as writer:
        for name, samples in (("song", SONG), ("loop", np.tile(LOOP, 4))):
            made = fingerprint_samples(samples, ENCODER, REFERENCE_EVERY, name)
            made = replace(made, sha256=FILE if name == "song" else "cd" * 32)
            writer.add(made, Metadata(name, "Me", "owned", id=name))
    return library


def clip(
    start: float, seconds: float, speed: float = 1.0, noise: float | None = None
) -> np.ndarray:
    """A stretch of the song, played faster, with white noise at so many dB."""
    cut = SONG[round(start * SAMPLE_RATE) :][: round(seconds * speed * SAMPLE_RATE)]
    if speed != 1:
        cut = soxr.resample(cut, SAMPLE_RATE * speed, SAMPLE_RATE)
    if noise is not None:
        level = np.sqrt(np.mean(cut**2)) * 10 ** (-noise / 20)
        cut = cut + level * np.random.default_rng(0).standard_normal(len(cut))
    return cut.astype(np.float32)


def found(library: Library, samples: np.ndarray, sha256: str = "") -> Match:
    made = replace(fingerprint_samples(samples, ENCODER, QUERY_EVERY, "clip"), sha256=sha256)
    return library.search(made)[0][0]


@pytest.mark.parametrize("seconds", [2.0, 5.0, 12.0])
@pytest.mark.parametrize("noise", [None, 10.0])
def test_of_an_unchanged_clip_no_change_is_said(library, seconds, noise):
    match = found(library, clip(7.13, seconds, noise=noise))
    assert not match.changed
    assert (match.tempo, match.pitch_semitones) == (1.0, 0.0)
    assert match.tempo_low <= 1 <= match.tempo_high
    assert match.pitch_low <= 0 <= match.pitch_high


@pytest.mark.parametrize("speed", [1.03, 0.96])
def test_the_interval_of_a_changed_clip_holds_the_change(library, speed):
    match = found(library, clip(7.13, 6.0, speed, noise=15.0))
    assert match.changed
    assert match.tempo_low <= speed <= match.tempo_high
    assert match.tempo_high - match.tempo_low < 0.02
    # one clip in twenty lies outside: of a few, near is enough
    assert match.pitch_low - 0.1 <= 12 * np.log2(speed) <= match.pitch_high + 0.1
    assert match.pitch_semitones == pytest.approx(12 * np.log2(speed), abs=0.25)


def test_the_longer_the_clip_the_narrower_the_interval(library):
    short, long = (found(library, clip(7.13, seconds, noise=10.0)) for seconds in (2.0, 8.0))
    assert short.tempo_high - short.tempo_low > 2 * (long.tempo_high - long.tempo_low)


def test_the_same_file_is_said_to_be_that_and_unchanged(library):
    same, other = (found(library, SONG, sha256) for sha256 in (FILE, "ef" * 32))
    assert same.same_file and not other.same_file
    assert (same.tempo_low, same.tempo_high, same.pitch_low, same.pitch_high) == (1, 1, 0, 0)
    assert same.repeats == () and not same.changed


def test_a_fingerprint_without_levels_has_no_interval(library):
    made = replace(fingerprint_samples(clip(7.13, 5.0), ENCODER, QUERY_EVERY, "clip"), levels=None)
    match = library.search(made)[0][0]
    assert (match.tempo_low, match.pitch_high, match.changed) == (None, None, False)


def test_the_other_turns_of_a_loop_are_named(library):
    period = len(LOOP) / SAMPLE_RATE
    whole = np.tile(LOOP, 4)
    match = found(library, whole[round(9.0 * SAMPLE_RATE) :][: 4 * SAMPLE_RATE])
    starts = sorted([match.reference_start, *(start for start, _ in match.repeats)])
    expected = [9.0 + turn * period for turn in (-1, 0, 1, 2)]
    assert starts == pytest.approx(expected, abs=0.15)
    assert all(end - start == pytest.approx(4.0, abs=0.2) for start, end in match.repeats)


def test_music_that_does_not_repeat_has_no_other_place(library):
    assert found(library, clip(7.13, 5.0)).repeats == ()


def test_no_change_is_given_up_only_where_its_exclusion_is_beyond_doubt():
    nearly, beyond = (
        Estimate(1.02, 0.0, 0.015, 0.1).change(),
        Estimate(1.02, 0.0, 0.008, 0.1).change(),
    )
    assert (nearly.tempo, nearly.tempo_low, nearly.changed) == (1.0, 1.0, False)
    assert (beyond.tempo, beyond.changed) == (1.02, True)
    assert beyond.tempo_low > 1


def test_embeddings_are_laid_where_a_query_has_them(library):
    made: Fingerprint = fingerprint_samples(clip(5.0, 5.0), ENCODER, QUERY_EVERY, "clip")
    view = unaltered(made, ENCODER)
    exact = laid(UNALTERED, made, ENCODER, view.at(12), 5)
    assert np.sum(exact * view.embeddings[12:37:5], axis=1) == pytest.approx(np.ones(5), abs=0.02)
    # half-way between two of them, and beyond the clip's ends
    between = laid(Hypothesis(1.0, 0.0), made, ENCODER, view.at(12.5), 1)
    assert np.sum(between * view.embeddings[12:14], axis=1).min() > 0.85
    assert not laid(UNALTERED, made, ENCODER, -20.0, 3).any()
