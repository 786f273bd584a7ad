"""Long programmes hold what they say they hold, and timelines are scored as by hand."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soxr
from melodies import melody, write

from benchmarks import corpora, programmes
from benchmarks.corpora import Item
from benchmarks.degrade import RATE, Sources, rng_for
from benchmarks.programmes import Heard, Material, Programme, Signal
from benchmarks.timeline import Named, Seconds, Timeline, f1, right, told, wrong_works
from benchmarks.truth import correlate
from fingerprint.audio import SAMPLE_RATE, read_audio


def timeline(*named: Named) -> Timeline:
    """20 s: a from 2 to 12 s, b from 10 to 18 s."""
    heard = (Heard("a", 2.0, 12.0, 0.0), Heard("b", 10.0, 18.0, 5.0))
    return Timeline(Programme("mix-0", "mix", 20.0, heard), named)


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ((Named("a", 2, 12), Named("b", 10, 18)), Seconds(18, 0, 0, 16, 16)),
        ((Named("a", 2, 12),), Seconds(10, 8, 0, 10, 16)),
        ((Named("a", 0, 12),), Seconds(10, 8, 2, 10, 16)),
        ((Named("a", 2, 12), Named("c", 4, 6)), Seconds(10, 8, 2, 8, 16)),
        ((Named("a", 2, 9), Named("a", 7, 12)), Seconds(10, 8, 0, 10, 16)),
        ((), Seconds(0, 18, 0, 0, 16)),
    ],
)
def test_seconds_are_those_counted_by_hand(named: tuple[Named, ...], expected: Seconds) -> None:
    seconds = Seconds.of(timeline(*named))
    for name in ("hit", "missed", "wrong", "right", "whole"):
        assert getattr(seconds, name) == pytest.approx(getattr(expected, name)), name


def test_figures_are_of_all_programmes_together() -> None:
    seconds = [Seconds(10, 8, 2, 8, 16), Seconds(5, 0, 0, 5, 5)]
    assert f1(seconds) == pytest.approx(30 / 40)
    assert right(seconds) == pytest.approx(13 / 21)


def test_a_stretch_is_found_if_half_of_it_is_named() -> None:
    a = timeline().programme.heard[0]
    assert told(a, [Named("a", 7.0, 30.0)]) == Named("a", 7.0, 30.0)
    assert told(a, [Named("a", 7.1, 30.0), Named("b", 2.0, 12.0)]) is None
    assert told(a, [Named("a", 1.0, 8.0), Named("a", 2.0, 12.0)]) == Named("a", 2.0, 12.0)


def test_what_is_nowhere_heard_is_a_wrong_work() -> None:
    assert wrong_works(timeline(Named("a", 15, 18), Named("c", 2, 3))) == {"c"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """Five melodies as works of a package, and two other sounds."""
    cache = tmp_path_factory.mktemp("cache")
    folder = cache / "packages" / "tunes"
    folder.mkdir(parents=True)
    for n in range(5):
        write(folder / f"{n}.flac", melody(n, 40.0))
    for name in ("noise", "speech"):
        write(cache / f"{name}.flac", melody(len(name), 8.0))
    return cache


@pytest.fixture
def material(cache: Path, monkeypatch) -> Material:
    """Four works that the library has, one that it has not, and what lies over or between them."""
    monkeypatch.setenv("EARMARK_CACHE", str(cache))
    works = [
        Item(f"{n}", "tune", "music", "tunes", f"{n}.flac", 40.0, "CC0", "", "", f"{n}", True)
        for n in range(5)
    ]
    sources = Sources(noise=(cache / "noise.flac",), speech=(cache / "speech.flac",))
    return Material(works[:4], works[4:], sources)


def at_8_khz(programme: Signal, heard: Heard) -> tuple[Signal, Signal]:
    """A stretch as it is in a programme, and the work at that time, both at 8 kHz."""
    sound = soxr.resample(programme, RATE, SAMPLE_RATE)
    start, first = round(heard.start * SAMPLE_RATE), round(heard.offset * SAMPLE_RATE)
    length = round((heard.end - heard.start) * SAMPLE_RATE)
    work = read_audio(corpora.packages_folder() / "tunes" / f"{heard.work}.flac")
    return sound[start : start + length], work[first : first + length]


def test_inserts_are_the_works_at_the_times_stated(material: Material, monkeypatch) -> None:
    monkeypatch.setattr(programmes, "INSERTS", 90.0)
    sound, heard = programmes.inserts(material, rng_for(1), 0)
    assert len(sound) == 90 * RATE and len(heard) == 3
    for each in heard:
        assert each.end - each.start == pytest.approx(3.0, abs=0.001)
        inside, work = at_8_khz(sound, each)
        likeness, lag = correlate(32_000 * inside[800:-800], 32_000 * work[796:-796])
        assert likeness > 0.95 and abs(lag - 4) <= 1


def test_music_of_a_broadcast_lies_6_to_12_db_below_the_speech(material: Material) -> None:
    sound, heard = programmes.broadcast(material, rng_for(3), 2)
    assert len(sound) == 60 * RATE and heard
    for each in heard:
        inside, work = at_8_khz(sound, each)
        explained = np.corrcoef(inside, work)[0, 1] ** 2
        assert 1 / (1 + 10**1.4) < explained < 1 / (1 + 10**0.4)


def test_one_broadcast_in_six_has_no_music_and_one_unknown_music(material: Material) -> None:
    silent, nothing = programmes.broadcast(material, rng_for(3), 0)
    unknown, nothing_known = programmes.broadcast(material, rng_for(3), 1)
    assert nothing == nothing_known == []
    assert len(silent) == len(unknown) == 60 * RATE


def test_a_mix_goes_from_work_to_work_without_a_gap(material: Material, monkeypatch) -> None:
    for name, value in (("MIX", 70.0), ("SHORTEST_TRACK", 30.0), ("TRACK", (35.0, 40.0))):
        monkeypatch.setattr(programmes, name, value)
    monkeypatch.setattr(programmes, "CROSS_FADE", (8.0, 10.0))
    sound, heard = programmes.mix(material, rng_for(2), 0)
    assert len(sound) == 70 * RATE
    assert heard[0].start == 0 and heard[-1].end == pytest.approx(70)
    for one, other in pairwise(heard):
        assert 8 <= one.end - other.start <= 10
        assert one.work != other.work
    assert all(0.92 <= each.tempo <= 1.08 for each in heard)
    blocks = np.sqrt(np.mean(sound.reshape(70, -1) ** 2, axis=1))
    assert blocks.min() > 0.2 * blocks.mean()


def test_the_same_seed_gives_the_same_programme(material: Material) -> None:
    one, other = (programmes.broadcast(material, rng_for(7), 3) for _ in range(2))
    assert np.array_equal(one[0], other[0]) and one[1] == other[1]
