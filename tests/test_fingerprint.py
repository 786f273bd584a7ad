"""What a fingerprint of a file holds, its limits, and the `.emk` file it travels in."""

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from melodies import RATE, melody

from fingerprint.audio import Limits
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY, Fingerprint, fingerprint


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load()


def wav(samples: np.ndarray, rate: int = RATE) -> io.BytesIO:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    file.seek(0)
    return file


def test_times_of_embeddings(encoder):
    file = wav(melody(1, 20.0))
    query = fingerprint(file, encoder, QUERY_EVERY, name="tune.wav")
    reference = fingerprint(file, encoder, REFERENCE_EVERY, name="tune.wav")
    assert query.step == pytest.approx(0.1) and reference.step == pytest.approx(0.5)
    assert query.duration == reference.duration == pytest.approx(20.0)
    assert query.sha256 == reference.sha256
    # embedding i of a reference is embedding 5 i + 3 of a query: three steps are padding
    padding = round((reference.start - query.start) / query.step)
    aligned = query.embeddings[padding::5][: len(reference.embeddings)]
    assert np.sum(aligned * reference.embeddings, axis=1).min() > 0.999
    last = reference.start + (len(reference.embeddings) - 1) * reference.step
    assert reference.start - reference.reach == pytest.approx(0)
    assert 20.0 - 0.6 < last + reference.reach <= 20.0


def test_a_clip_of_one_second_has_embeddings_at_every_phase_of_the_references_grid(encoder):
    for seconds in (0.5, 0.7, 1.0):
        query = fingerprint(wav(melody(2, seconds)), encoder, QUERY_EVERY)
        assert len(query.embeddings) >= REFERENCE_EVERY
        assert np.allclose(np.linalg.norm(query.embeddings, axis=1), 1, atol=1e-3)


def test_a_recording_shorter_than_a_window_has_an_embedding_that_a_query_meets(encoder):
    for seconds in (0.5, 0.8, 1.1):
        file = wav(melody(2, seconds))
        reference = fingerprint(file, encoder, REFERENCE_EVERY)
        assert len(reference.embeddings) == 1
        query = fingerprint(file, encoder, QUERY_EVERY)
        at = round((reference.start - query.start) / query.step)
        assert query.embeddings[at] @ reference.embeddings[0] > 0.999


@pytest.mark.parametrize(
    "samples, kind",
    [
        (np.zeros(0), "too-short"),
        (melody(3, 0.4), "too-short"),
        (np.zeros(3 * RATE), "silent"),
        (1e-6 * melody(3, 3.0), "silent"),
        (np.concatenate([np.zeros(3 * RATE), melody(3, 0.1)]), "too-short"),
    ],
)
def test_too_little_sound_is_refused(encoder, samples, kind):
    with pytest.raises(AudioError, match="clip") as raised:
        fingerprint(wav(samples), encoder, QUERY_EVERY, name="clip.wav")
    assert raised.value.type == kind


@pytest.mark.parametrize("rate", [7350, 22050, 96000, 192000])
def test_odd_rates_give_nearly_the_same_embeddings(encoder, rate):
    soxr = pytest.importorskip("soxr")
    samples = melody(4, 6.0)
    plain = fingerprint(wav(samples), encoder, QUERY_EVERY)
    other = fingerprint(wav(soxr.resample(samples, RATE, rate), rate), encoder, QUERY_EVERY)
    n = min(len(plain.embeddings), len(other.embeddings))
    likeness = np.sum(plain.embeddings[:n] * other.embeddings[:n], axis=1)
    assert np.median(likeness) > 0.9


@pytest.mark.parametrize("hostile", ["nan", "inf", "dc", "clipped", "hole"])
def test_no_signal_makes_an_embedding_that_is_not_a_number(encoder, hostile):
    samples = melody(5, 4.0)
    if hostile == "nan":
        samples[1000:2000] = np.nan
    elif hostile == "inf":
        samples[1000:2000] = np.inf
    elif hostile == "dc":
        samples = samples + 0.9
    elif hostile == "clipped":
        samples = np.sign(samples)
    else:
        samples[RATE : 3 * RATE] = 0
    made = fingerprint(wav(samples), encoder, QUERY_EVERY)
    assert np.isfinite(made.embeddings).all()
    lengths = np.linalg.norm(made.embeddings, axis=1)
    silent = lengths == 0  # a window in the hole is nobody's
    assert np.allclose(lengths[~silent], 1, atol=1e-3)
    assert silent.any() == (hostile == "hole")


def test_longer_than_allowed_is_refused(encoder):
    with pytest.raises(AudioError) as raised:
        fingerprint(wav(melody(6, 5.0)), encoder, QUERY_EVERY, limits=Limits(max_seconds=4))
    assert raised.value.type == "too-long"


def test_emk_keeps_everything_that_a_query_needs(encoder, tmp_path):
    made = fingerprint(wav(melody(7, 5.0)), encoder, QUERY_EVERY, name="tune.wav")
    path = tmp_path / "tune.emk"
    made.save(path)
    read = Fingerprint.load(path.read_bytes(), "tune.emk")
    for name in ("encoder", "source", "sha256", "duration", "every", "start", "step", "reach"):
        assert getattr(read, name) == getattr(made, name)
    assert np.sum(read.embeddings * made.embeddings, axis=1).min() > 0.995
    assert np.array_equal(read.levels, made.levels)
    assert path.stat().st_size < 5.0 * 6000


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_mutilated_emk_is_an_error_or_a_sane_fingerprint(data):
    made = Fingerprint("id", "a.wav", "0" * 64, 1.0, 1, 0.3, 0.1, 0.6, np.eye(8, dtype=np.float32))
    content = _emk(made)
    cut = data.draw(st.integers(0, len(content)))
    flips = data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(1, 255))))
    for at, bits in flips:
        content[at] ^= bits
    try:
        read = Fingerprint.load(bytes(content[:cut]), "mutilated.emk")
    except AudioError as error:
        assert error.type == "undecodable" and "mutilated.emk" in error.detail
    else:
        assert np.isfinite(read.embeddings).all() and read.step > 0


def _emk(made: Fingerprint) -> bytearray:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        made.save(Path(folder, "a.emk"))
        return bytearray(Path(folder, "a.emk").read_bytes())
