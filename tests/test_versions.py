"""Whether a match is of one recording is told from the waveforms where it was aligned."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import soxr
from melodies import RATE, melody, write

from benchmarks.corpora import Item
from benchmarks.experiments.versions import Signal, Told, Version, ask, is_same
from fingerprint.audio import SAMPLE_RATE
from fingerprint.encoder import Encoder
from fingerprint.fingerprint import REFERENCE_EVERY, fingerprint
from index.search import Match
from index.segment import Codes
from index.snapshot import Snapshot


def aligned(tempo: float, query: float, reference: float, seconds: float) -> Match:
    """A match of the same middle; everything else is of no concern."""
    return Match(
        recording="1",
        source="1",
        title=None,
        artist=None,
        isrc=None,
        work=None,
        rightsholder="Blue Label",
        rights="owned",
        tier="match",
        e_value=1e-9,
        score=30.0,
        query_start=query,
        query_end=query + seconds,
        reference_start=reference,
        reference_end=reference + tempo * seconds,
        tempo=tempo,
        pitch_semitones=0.0,
        shared_start=None,
        shared_end=None,
        other_version=False,
    )


def music(seed: int, seconds: float) -> Signal:
    """A tune as a query hears it."""
    return soxr.resample(melody(seed, seconds), RATE, SAMPLE_RATE).astype(np.float32)


def played(samples: Signal, tempo: float) -> Signal:
    """Faster by resampling, as a turntable does."""
    return soxr.resample(samples, SAMPLE_RATE * tempo, SAMPLE_RATE).astype(np.float32)


@pytest.mark.parametrize("tempo", [1.0, 1.083, 0.8])
def test_the_same_recording_is_told_at_the_tempo_found(tempo: float) -> None:
    whole = music(1, 30)
    clip = played(whole[10 * SAMPLE_RATE : 20 * SAMPLE_RATE], tempo)
    found = tempo if tempo == 1 else tempo * 1.003  # as near as a search tells it
    assert is_same(clip, whole, aligned(found, 0.0, 10.1, 10 / tempo))


def test_other_music_is_not_the_same() -> None:
    clip = music(2, 10)
    assert not is_same(clip, music(1, 30), aligned(1.0, 0.0, 10.0, 10.0))
    assert not is_same(clip, music(1, 30), aligned(1.08, 0.0, 10.0, 10.0))


def test_a_match_at_an_edge_is_compared_as_far_as_there_is_sound() -> None:
    whole = music(3, 12)
    assert is_same(whole[-2 * SAMPLE_RATE :], whole, aligned(1.0, 0.0, 10.0, 2.0))
    assert is_same(whole[: 2 * SAMPLE_RATE], whole, aligned(1.0, 0.0, 0.0, 2.0))


def test_clips_of_a_copy_are_matched_with_it_and_of_the_same_waveform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder.load()
    monkeypatch.setenv("EARMARK_CACHE", str(tmp_path))
    (tmp_path / "packages/p").mkdir(parents=True)
    songs = {seed: write(tmp_path / f"packages/p/{seed}.wav", melody(seed)) for seed in (1, 2)}
    made = [fingerprint(song, encoder, REFERENCE_EVERY).embeddings for song in songs.values()]
    snapshot = Snapshot.of([Codes(*encoder.codec.encode(x)) for x in made], encoder.codec)
    sought = Item("b", "tune", "music", "p", "2.wav", 20.0, "CC0", "Two", "", "b", True)
    version = Version("a copy", "tune", "Copy", "Two", songs[2], None, sought)
    told = ask(version, snapshot, ["a", "b"], encoder, Namespace(clips=2, seconds=5.0))
    assert told == Told("a copy", "tune", "Copy", "Two", 2, 2, 0, 2)
