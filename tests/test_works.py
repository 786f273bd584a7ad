"""The composed works: the same every time, as long as stated, sound music, and not alike."""

from functools import cache
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from benchmarks.demo import instruments
from benchmarks.demo.instruments import RATE, Instrument
from benchmarks.demo.works import ARTIST, WORKS, Chord, Melody, Work, compose, scale, write
from fingerprint.audio import SAMPLE_RATE, open_audio
from fingerprint.spectrogram import FRAME_RATE, spectrogram

PATCH = round(5 * FRAME_RATE)  # frames of a clip
ENDING = 5  # s left out where works are compared


def each_work(function):
    return pytest.mark.parametrize("work", WORKS, ids=lambda work: work.title)(function)


@each_work
def test_a_work_is_as_long_as_stated_and_stereo(work: Work) -> None:
    assert compose(work).shape == (round(work.seconds * RATE), 2)
    assert 30 <= work.seconds <= 60


@each_work
def test_a_work_is_loud_enough_and_never_clipped(work: Work) -> None:
    sound = compose(work)
    assert 0.5 < np.abs(sound).max() < 0.95
    seconds = sound[: int(work.seconds - ENDING) * RATE].reshape(-1, RATE * 2)
    assert np.sqrt(np.mean(seconds**2, axis=1)).min() > 0.01  # no second is silent
    assert not np.array_equal(sound[:, 0], sound[:, 1])


@pytest.mark.parametrize("work", WORKS[:4], ids=lambda work: work.title)
def test_a_work_is_the_same_bits_every_time(work: Work) -> None:
    assert np.array_equal(compose.__wrapped__(work), compose(work))


def test_titles_and_files_are_distinct() -> None:
    assert len({work.title for work in WORKS}) == len({w.file_name for w in WORKS}) == len(WORKS)
    assert len(WORKS) >= 10


@cache
def seen(work: Work) -> NDArray[np.float32]:
    mono = soxr.resample(compose(work).mean(axis=1), RATE, SAMPLE_RATE)
    return spectrogram(mono[: -ENDING * SAMPLE_RATE])


def likeness(patch: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """Correlation of a patch with each place of another spectrogram, every fourth frame."""
    other = other.astype(np.float64)
    centred = (patch - patch.mean()).astype(np.float64)
    together = fftconvolve(other, centred[::-1], mode="valid", axes=0).sum(axis=1)
    total, squares = (
        np.convolve(it.sum(axis=1), np.ones(len(patch)), "valid") for it in (other, other**2)
    )
    norm = np.sqrt(squares - total**2 / patch.size)
    return (together / (np.linalg.norm(centred) * norm))[::4]


def test_works_are_not_alike() -> None:
    for one, other in permutations(WORKS, 2):
        assert likeness(seen(one)[400 : 400 + PATCH], seen(other)).max() < 0.8, (one, other)


@each_work
def test_no_five_seconds_of_a_work_come_again(work: Work) -> None:
    frames = seen(work)
    for start in range(200, len(frames) - PATCH, 240):
        alike = likeness(frames[start : start + PATCH], frames)
        elsewhere = np.abs(4 * np.arange(len(alike)) - start) > FRAME_RATE
        assert alike.max() == pytest.approx(1.0, abs=1e-3)
        assert alike[elsewhere].max() < 0.95


def test_a_file_carries_title_artist_and_the_whole_work(tmp_path: Path) -> None:
    work = WORKS[1]
    path = write(work, tmp_path / "new" / "folder")
    with open_audio(path) as stream:
        samples = sum(len(block) for block in stream.blocks())
        assert stream.tags["title"] == work.title
        assert stream.tags["artist"] == ARTIST
    assert samples / SAMPLE_RATE == pytest.approx(work.seconds, abs=0.01)


@pytest.mark.parametrize(
    ("name", "tones"),
    [
        ("C", {0, 4, 7}),
        ("F#m", {6, 9, 1}),
        ("Ebmaj7", {3, 7, 10, 2}),
        ("Bbm7", {10, 1, 5, 8}),
        ("G#7", {8, 0, 3, 6}),
        ("Dm7b5", {2, 5, 8, 0}),
        ("A9", {9, 1, 7, 11}),
    ],
)
def test_a_chord_symbol_means_its_tones(name: str, tones: set[int]) -> None:
    chord = Chord.named(name)
    assert chord.tones == tones
    voicing = chord.voicing(50, 5)
    assert voicing == sorted(voicing)
    assert voicing[0] >= 50
    assert {pitch % 12 for pitch in voicing} <= tones
    assert chord.bass(36) % 12 == chord.root
    assert 36 <= chord.bass(36) < 48


def test_a_scale_is_that_of_its_key() -> None:
    assert scale("F major", 60, 72) == [60, 62, 64, 65, 67, 69, 70, 72]
    assert scale("C# minor", 61, 73) == [61, 63, 64, 66, 68, 69, 71, 73]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), key=st.sampled_from([work.key for work in WORKS]))
def test_a_melody_keeps_to_its_scale_and_rests_on_the_chord(seed: int, key: str) -> None:
    pitches = scale(key, 60, 81)
    tune = Melody(np.random.default_rng(seed), pitches)
    chord = Chord.named(key.split()[0] + ("m" if key.endswith(("minor", "dorian")) else ""))
    for step in range(64):
        pitch = tune.next(chord, rest=step % 4 == 0)
        assert pitch in pitches
        assert step % 4 or pitch % 12 in chord.tones


PITCHED = [
    *(instruments.piano, instruments.marimba, instruments.vibraphone, instruments.bell),
    *(instruments.pluck, instruments.upright, instruments.strings, instruments.brass),
    *(instruments.tuba, instruments.flute, instruments.organ, instruments.pad, instruments.lead),
    *(instruments.chip, instruments.triangle, instruments.sequencer),
]


@pytest.mark.parametrize("pitch", [40, 57, 69, 76.5])
@pytest.mark.parametrize("instrument", PITCHED, ids=lambda instrument: instrument.__name__)
def test_an_instrument_is_in_tune(instrument: Instrument, pitch: float) -> None:
    note = instrument(pitch, 1.5, np.random.default_rng(1))
    spectrum = np.abs(np.fft.rfft(note * np.hanning(len(note)), 2**19))
    frequencies = np.fft.rfftfreq(2**19, 1 / RATE)
    near = np.abs(np.log2(np.maximum(frequencies, 1) / instruments.hertz(pitch))) < 1 / 12
    heard = frequencies[near][np.argmax(spectrum[near])]
    assert abs(1200 * np.log2(heard / instruments.hertz(pitch))) < 35  # cents
    assert spectrum[near].max() > 10 * np.median(spectrum)
