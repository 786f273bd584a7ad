"""Copies whose speed, tempo or pitch was changed are found, and told for what they are."""

import io
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import soxr
from melodies import RATE, melody

from fingerprint.encoder import Encoder
from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY, Fingerprint, fingerprint
from index.library import Library
from index.recording import Metadata

ENCODER = Encoder.load()
SONGS = 8
START = 6.0  # s into song 3


def wav(samples: np.ndarray) -> io.BytesIO:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype="FLOAT")
    file.seek(0)
    return file


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Library:
    library = Library.open(tmp_path_factory.mktemp("songs") / "library", ENCODER, create=True)
    with library.writer() as writer:
        for song in range(SONGS):
            made = fingerprint(
                wav(melody(song, 30.0)), ENCODER, REFERENCE_EVERY, name=f"{song}.wav"
            )
            writer.add(made, Metadata(made.source, "Me", "owned", id=str(song)))
    return library


def clip(tempo: float, pitch: float, seconds: float = 6.0, tmp_path=None) -> Fingerprint:
    """A stretch of song 3 from START on, played at another tempo and pitch."""
    tune = melody(3, 30.0)[round(START * RATE) :][: round(seconds * tempo * RATE)]
    if abs(12 * np.log2(tempo) - pitch) < 0.01:
        altered = soxr.resample(tune, RATE * tempo, RATE)
    else:
        if not shutil.which("rubberband"):
            pytest.skip("rubberband is not installed")
        before, after = tmp_path / "before.wav", tmp_path / "after.wav"
        soundfile.write(before, tune, RATE)
        command = ["rubberband", "-q", "--tempo", str(tempo), "--pitch", str(pitch)]
        subprocess.run([*command, before, after], check=True, capture_output=True)
        altered = soundfile.read(after, dtype="float32")[0]
    return fingerprint(wav(altered), ENCODER, QUERY_EVERY, name="clip.wav")


@pytest.mark.parametrize(
    "tempo, pitch",
    [
        (2 ** (3 / 12), 3.0),
        (2 ** (-4 / 12), -4.0),
        (1.5, 0.0),
        (1.0, 4.5),
        (1.0, -6.0),
        (1.3, -3.0),
    ],
)
def test_an_altered_clip_is_found_with_its_tempo_and_pitch(library, tmp_path, tempo, pitch):
    matches, _ = library.search(clip(tempo, pitch, tmp_path=tmp_path))
    assert matches, "nothing was found"
    best = matches[0]
    assert best.recording == "3" and best.tier == "match"
    assert best.tempo == pytest.approx(tempo, rel=0.02)
    assert best.pitch_semitones == pytest.approx(pitch, abs=0.2)
    assert best.reference_start - best.query_start * best.tempo == pytest.approx(START, abs=0.25)
    assert best.query_start == 0 and best.query_end == pytest.approx(6.0, abs=0.1)


def test_a_clip_as_it_is_says_so(library):
    best = library.search(clip(1.0, 0.0))[0][0]
    assert (best.recording, best.pitch_semitones) == ("3", 0.0)
    assert best.tempo == pytest.approx(1.0, abs=0.01)


def test_without_hypotheses_or_levels_only_the_unaltered_is_found(library):
    altered = clip(2 ** (4 / 12), 4.0)
    assert library.search(altered, hypotheses=0)[0] == []
    assert library.search(replace(altered, levels=None))[0] == []
    assert library.search(replace(clip(1.0, 0.0), levels=None))[0][0].recording == "3"


def test_an_altered_unknown_tune_is_no_match(library):
    for seed in (50, 51, 52):
        tune = soxr.resample(melody(seed, 8.0), RATE * 1.2, RATE)
        matches, _ = library.search(fingerprint(wav(tune), ENCODER, QUERY_EVERY))
        assert [match for match in matches if match.tier == "match"] == []


def test_a_long_query_tells_each_altered_part_apart(library):
    slow = soxr.resample(melody(2, 30.0)[5 * RATE : 17 * RATE], RATE * 0.85, RATE)
    fast = soxr.resample(melody(5, 30.0)[3 * RATE : 21 * RATE], RATE * 1.25, RATE)
    mix = np.concatenate([slow, melody(60, 10.0), fast])
    matches, _ = library.search(fingerprint(wav(mix), ENCODER, QUERY_EVERY))
    found = {match.recording: match for match in matches if match.tier == "match"}
    assert set(found) == {"2", "5"}
    assert found["2"].tempo == pytest.approx(0.85, rel=0.01)
    assert found["5"].tempo == pytest.approx(1.25, rel=0.01)
    assert found["2"].query_end == pytest.approx(len(slow) / RATE, abs=0.5)
    assert found["5"].query_start == pytest.approx((len(slow) / RATE) + 10.0, abs=0.5)


@pytest.mark.parametrize("seconds", [0.6, 1.0])
def test_the_shortest_queries_have_an_answer_under_the_ladder(library, seconds):
    matches, _ = library.search(clip(2 ** (3 / 12), 3.0, seconds))
    assert all(match.query_end <= seconds + 0.01 for match in matches)


def test_a_held_note_and_clicks_in_silence_are_answered(library):
    note = 0.3 * np.sin(2 * np.pi * 440 * np.arange(5 * RATE) / RATE)
    clicks = np.zeros(5 * RATE)
    clicks[:: RATE // 2] = 0.9
    for samples in (note, clicks + 1e-3 * np.random.default_rng(0).standard_normal(5 * RATE)):
        made = fingerprint(wav(samples.astype(np.float32)), ENCODER, QUERY_EVERY)
        matches, _ = library.search(made)
        assert [match for match in matches if match.tier == "match"] == []


def test_one_altered_copy_is_one_match_however_long(library):
    faster = soxr.resample(melody(3, 30.0), RATE * 1.25, RATE)
    matches, _ = library.search(fingerprint(wav(faster), ENCODER, QUERY_EVERY))
    assert [match.recording for match in matches if match.tier == "match"] == ["3"]
    assert matches[0].query_start == 0
    assert matches[0].query_end == pytest.approx(len(faster) / RATE, abs=0.4)
    assert matches[0].reference_end == pytest.approx(30.0, abs=0.5)


def test_three_seconds_of_a_work_are_told_within_half_a_second(library):
    part = melody(4, 30.0)[round(8.3 * RATE) :][: 3 * RATE]
    mix = np.concatenate([melody(70, 11.2), part, melody(71, 11.0)])
    (match,) = library.search(fingerprint(wav(mix), ENCODER, QUERY_EVERY))[0]
    assert match.recording == "4"
    assert match.query_start == pytest.approx(11.2, abs=0.5)
    assert match.query_end == pytest.approx(14.2, abs=0.5)
    assert match.reference_start == pytest.approx(8.3, abs=0.5)
    assert match.reference_end == pytest.approx(11.3, abs=0.5)


def test_a_cross_fade_is_two_works_at_once_each_at_its_own_tempo(library):
    fade = 10 * RATE
    first = soxr.resample(melody(1, 30.0), RATE * 0.94, RATE)
    second = soxr.resample(melody(6, 30.0), RATE * 1.06, RATE)
    along = np.linspace(0, np.pi / 2, fade)
    both = first[-fade:] * np.cos(along) + second[:fade] * np.sin(along)
    mix = np.concatenate([first[:-fade], both, second[fade:]]).astype(np.float32)
    matches, _ = library.search(fingerprint(wav(mix), ENCODER, QUERY_EVERY))
    found = {match.recording: match for match in matches if match.tier == "match"}
    assert set(found) == {"1", "6"}
    assert found["1"].tempo == pytest.approx(0.94, rel=0.01)
    assert found["6"].tempo == pytest.approx(1.06, rel=0.01)
    assert found["1"].pitch_semitones == pytest.approx(12 * np.log2(0.94), abs=0.2)
    assert found["6"].pitch_semitones == pytest.approx(12 * np.log2(1.06), abs=0.2)
    begins, ends = (len(first) - fade) / RATE, len(first) / RATE
    assert found["1"].query_start == pytest.approx(0, abs=0.01)
    assert begins < found["1"].query_end <= ends + 0.5
    assert begins - 0.5 <= found["6"].query_start < ends
    assert found["6"].query_end == pytest.approx(len(mix) / RATE, abs=0.4)


def test_a_perfect_loop_is_found_where_it_is_from(library):
    loop = melody(5, 30.0)[10 * RATE : 12 * RATE]
    matches, _ = library.search(fingerprint(wav(np.tile(loop, 30)), ENCODER, QUERY_EVERY))
    assert {match.recording for match in matches if match.tier == "match"} <= {"5"}
    for match in matches:
        assert 0 <= match.query_start < match.query_end <= 60.01
        assert 0 <= match.reference_start < match.reference_end <= 30.01


def test_an_altered_part_does_not_claim_what_surrounds_it(library):
    part = soxr.resample(melody(4, 30.0)[8 * RATE : 20 * RATE], RATE * 1.25, RATE)
    mix = np.concatenate([melody(70, 11.0), part, melody(71, 11.0)])
    matches, _ = library.search(fingerprint(wav(mix), ENCODER, QUERY_EVERY))
    (match,) = (match for match in matches if match.tier == "match")
    assert match.recording == "4"
    assert match.query_start == pytest.approx(11.0, abs=0.5)
    assert match.query_end == pytest.approx(11.0 + len(part) / RATE, abs=0.5)


def test_silence_is_nobodys(tmp_path):
    pause = np.zeros(8 * RATE, np.float32)
    library = Library.open(tmp_path / "library", ENCODER, create=True)
    with library.writer() as writer:
        tune = np.concatenate([melody(1, 10.0), pause, melody(2, 10.0)])
        made = fingerprint(wav(tune), ENCODER, REFERENCE_EVERY, name="1.wav")
        writer.add(made, Metadata(made.source, "Me", "owned", id="1"))
    other = np.concatenate([melody(3, 10.0), pause, melody(4, 10.0)])
    assert library.search(fingerprint(wav(other), ENCODER, QUERY_EVERY))[0] == []


def test_matches_come_best_first_and_within_the_limit(library):
    two = melody(1, 30.0)[: 6 * RATE] + soxr.resample(melody(2, 30.0), RATE * 1.2, RATE)[: 6 * RATE]
    matches, _ = library.search(fingerprint(wav(two), ENCODER, QUERY_EVERY), max_e_value=1e-3)
    chances = [match.e_value for match in matches]
    assert chances == sorted(chances) and all(chance <= 1e-3 for chance in chances)
    assert "1" in {match.recording for match in matches}
