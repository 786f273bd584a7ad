"""Decoys are found nowhere, and what a batch says of its mistakes follows from them."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
import soxr
from melodies import RATE, melody
from scipy.stats import binomtest, hypergeom

from fingerprint.audio import Limits
from fingerprint.encoder import Encoder
from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY, fingerprint_samples
from index.database import BESIDE
from index.library import Library
from index.recording import Metadata
from index.significance import MATCH, REVIEW
from service.datasets.source import OnDisk
from service.scan import worker as listen
from service.scan.decoy import (
    bound_in_words,
    false_discovery_rate,
    mirrored,
    most_wrong,
    wilson,
)

ENCODER = Encoder.load()


def clip(song: int, start: float, seconds: float) -> np.ndarray:
    samples = melody(song)[round(start * RATE) : round((start + seconds) * RATE)]
    return soxr.resample(samples, RATE, 8000).astype(np.float32)


def test_a_decoy_is_as_long_as_its_sound_and_is_not_found_where_that_is(tmp_path):
    library = Library.open(tmp_path / "library", ENCODER, create=True)
    whole = fingerprint_samples(clip(1, 0, 20), ENCODER, REFERENCE_EVERY, "song.flac")
    with library.writer() as writer:
        writer.add(whole, Metadata("song.flac", "Me", "owned"))
    made = fingerprint_samples(clip(1, 4, 8), ENCODER, QUERY_EVERY, "clip.wav")
    decoy = mirrored(made, ENCODER)
    assert library.search(made)[0][0].tier == "match"
    assert library.search(decoy)[0] == []
    assert decoy.embeddings.shape == made.embeddings.shape
    assert np.array_equal(mirrored(decoy, ENCODER).levels, made.levels)


@pytest.mark.parametrize(("decoy_of", "is_chance"), [(1, False), (2, True)])
def test_a_decoy_that_is_like_its_sound_finds_that_again_and_nothing_by_chance(
    tmp_path, monkeypatch, decoy_of, is_chance
):
    library = Library.open(tmp_path / "library", ENCODER, create=True)
    with library.writer() as writer:
        for song in (1, 2):
            whole = fingerprint_samples(clip(song, 0, 20), ENCODER, REFERENCE_EVERY, f"{song}.flac")
            whole = replace(whole, sha256=f"{song:064x}")
            writer.add(whole, Metadata(f"{song}.flac", "Me", "owned", id=str(song)))
    file = tmp_path / "clip.wav"
    soundfile.write(file, clip(1, 4, 10), 8000)
    other = fingerprint_samples(clip(decoy_of, 4, 10), ENCODER, QUERY_EVERY, "decoy")
    monkeypatch.setattr(listen, "mirrored", lambda made, encoder: other)
    task = listen.Task(library.path, BESIDE, Limits(), REVIEW, MATCH, 0, False, False, None)
    heard = listen.listen(OnDisk(file), "clip.wav", f"{0:064x}", listen.Ears(task))
    assert [match.tier for match in heard.matches] == ["match"]
    assert heard.decoy
    assert (heard.decoy_e_value is not None) == is_chance


def test_a_fingerprint_without_levels_has_no_decoy():
    made = fingerprint_samples(clip(1, 4, 3), ENCODER, QUERY_EVERY, "clip.wav")
    with pytest.raises(ValueError, match="keeps no levels"):
        mirrored(replace(made, levels=None), ENCODER)


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (0, 60), (3, 60), (7, 7), (40, 1000)])
def test_the_interval_of_a_share_is_wilsons(successes: int, trials: int) -> None:
    interval = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson(successes, trials) == pytest.approx((interval.low, interval.high), abs=1e-4)


def test_without_a_matched_decoy_the_e_value_states_the_rate_and_the_decoys_bound_it():
    rate, low, high = false_discovery_rate(2000, 200, 500, 0, 1e-6)
    assert (rate, low) == (pytest.approx(1e-5), 0.0)
    assert high == pytest.approx(10 * wilson(0, 500)[1])


def test_matched_decoys_say_that_more_is_chance_than_was_stated():
    rate, low, high = false_discovery_rate(100, 20, 100, 5, 1e-6)
    assert rate == pytest.approx(0.05 * 100 / 20)
    assert (low, high) == pytest.approx([5 * end for end in wilson(5, 100)])


@pytest.mark.parametrize(("sounds", "matched", "decoys", "false"), [(50, 1, 3, 3), (9, 9, 0, 0)])
def test_a_rate_is_a_share_and_lies_in_its_interval(sounds, matched, decoys, false):
    rate, low, high = false_discovery_rate(sounds, matched, decoys, false, 1e-6)
    assert 0 <= low <= rate <= high <= 1


def test_where_nothing_is_found_nothing_is_wrong():
    assert false_discovery_rate(50, 0, 10, 1, 1e-6) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("sounds", "matched", "decoys", "matched_decoys"),
    [
        (2_000, 191, 487, 0),
        (2_000, 191, 487, 3),
        (500, 40, 500, 1),
        (50, 30, 50, 0),
        (300, 9, 60, 9),
    ],
)
def test_the_bound_is_where_so_few_decoys_become_improbable(
    sounds: int, matched: int, decoys: int, matched_decoys: int
) -> None:
    bound = most_wrong(sounds, matched, decoys, matched_decoys)

    def few(wrong: int) -> float:
        return float(hypergeom.cdf(matched_decoys, sounds + decoys, decoys, wrong + matched_decoys))

    assert bound == matched or few(bound + 1) <= 0.05
    assert bound == 0 or few(bound) > 0.05


def test_the_bound_holds_the_true_number_of_wrong_ones_in_95_of_100_batches() -> None:
    rng = np.random.default_rng(1)
    held = []
    for _ in range(1_000):
        sounds, every = int(rng.integers(50, 2_001)), int(rng.choice([1, 4]))
        known, chance = int(sounds * rng.uniform(0, 0.5)), 10 ** rng.uniform(-4, -1.5)
        wrong = int(rng.binomial(sounds - known, chance))
        decoys = sounds // every
        bound = most_wrong(sounds, known + wrong, decoys, int(rng.binomial(decoys, chance)))
        held.append(wrong <= bound)
    assert np.mean(held) >= 0.95


def test_a_batch_that_is_too_small_says_so() -> None:
    assert bound_in_words(191, most_wrong(2_000, 191, 487, 0)).startswith(
        "With 95 % confidence at most 13 of these 191"
    )
    assert "too few" in bound_in_words(3, most_wrong(40, 3, 10, 0))
    assert "Nothing was matched" in bound_in_words(0, most_wrong(40, 0, 10, 0))
