"""A library's own calibration: fitted to its music, kept in it, refused where it is not its own."""

import math
import sqlite3

import numpy as np
import pytest
from command import Earmark
from embeddings import query, reference, track

from fingerprint.encoder import Encoder
from index import audit_log as audit
from index import library_calibration as refits
from index.errors import LibraryError
from index.library import Library
from index.library_calibration import TooSmall, refit
from index.recording import Metadata
from index.significance import Calibration, Tail

ENCODER = Encoder.load()
SECONDS = 160.0


def crowded(seed: int, closeness: float) -> np.ndarray:
    """A track that goes near the same few places again and again, as near as `closeness` says."""
    x, places = track(ENCODER, 1000 + seed, SECONDS), track(ENCODER, 999, 20)
    rng = np.random.default_rng(seed)
    near = places[rng.integers(len(places), size=len(x))]
    mixed = (1 - closeness) * x + closeness * near
    return (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)


def library_of(path, tracks) -> Library:
    library = Library.open(path, ENCODER, create=True)
    with library.writer() as writer:
        for number, x in enumerate(tracks):
            writer.add(
                reference(ENCODER, x), Metadata(f"{number}.flac", "Me", "owned", id=f"id-{number}")
            )
    return library


@pytest.fixture(scope="module")
def works(tmp_path_factory) -> Library:
    tracks = [track(ENCODER, seed, SECONDS) for seed in range(100)]
    return library_of(tmp_path_factory.mktemp("works") / "library", tracks)


@pytest.fixture
def few_clips(monkeypatch) -> None:
    monkeypatch.setattr(refits, "CLIPS", 64)


def test_music_that_is_all_alike_must_match_more_strongly(works, tmp_path, few_clips):
    alike = library_of(tmp_path / "alike", [crowded(seed, 0.35) for seed in range(100)])
    own, other = refit(works).calibration, refit(alike).calibration
    size = works.info()["embeddings"]
    for n in (15, 45):
        assert other.unaltered.at(n, size).once > own.unaltered.at(n, size).once
        assert other.score(1e-2, n, size) > own.score(1e-2, n, size)


def test_a_library_of_the_same_kind_keeps_the_scores_that_the_encoder_came_with():
    unaltered = Tail((5.0, 45.0), (2.0, 1.2), (-7.0, -9.0), (1.8, 1.1), 10**5)
    stored = Tail((5.0, 45.0), (2.2, 1.4), (-8.0, -9.5), (2.0, 1.2), 10**5)
    same = refits._carried(unaltered, stored, stored)
    assert same.decay == pytest.approx(unaltered.decay, abs=1e-3)
    assert same.log_density == pytest.approx(unaltered.log_density, abs=1e-3)
    # scores half as large again: so is what chance reaches, and it falls that much more slowly
    wider = Tail(
        stored.lengths,
        tuple(decay / 1.5 for decay in stored.decay),
        tuple(
            (density + math.log(n * 10**5)) - math.log(n * 10**5)
            for density, n in zip(stored.log_density, stored.lengths, strict=True)
        ),
        tuple(decay / 1.5 for decay in stored.least_decay),
        10**5,
    )
    carried = refits._carried(unaltered, stored, wider)
    for n in (5, 45):
        for log_e in (0.0, -3.0):
            assert carried.score(log_e, n, 10**5) == pytest.approx(
                1.5 * unaltered.score(log_e, n, 10**5), rel=1e-3
            )


def test_it_is_used_from_then_on_by_those_who_have_the_library_open_too(works, few_clips):
    reader = Library.open(works.path, ENCODER)
    x = query(ENCODER, track(ENCODER, 3, SECONDS)[100:115])
    before = reader.search(x)[0][0]
    fitted = refit(works)
    with works.writer() as writer:
        writer.calibrate(fitted.entry())
    after = reader.search(x)[0][0]
    assert after.score == before.score
    size = reader.info()["embeddings"]
    assert after.e_value == pytest.approx(
        fitted.calibration.e_value(after.score, 15, size), rel=0.01
    )
    assert Library.open(works.path, ENCODER).calibration == fitted.calibration


def test_a_calibration_of_another_library_or_encoder_is_refused(works, tmp_path, few_clips):
    entry = refit(works).entry()
    other = library_of(tmp_path / "other", [track(ENCODER, 5, 20)])
    for wrong in (entry, entry | {"library": other.id(), "encoder": "another"}, {"clips": 1}):
        with other.writer() as writer:
            writer.calibrate(wrong)
        opened = Library.open(other.path, ENCODER)
        with pytest.raises(LibraryError, match=r"calibration kept here .* verify --calibration"):
            opened.search(query(ENCODER, track(ENCODER, 5, 20)[30:70]))


def test_a_small_library_says_so_and_goes_on_with_the_encoders(tmp_path):
    library = library_of(tmp_path / "library", [track(ENCODER, seed, 20) for seed in range(3)])
    with pytest.raises(TooSmall, match="at least 100 and 20000 are needed"):
        refit(library)
    (said,) = Earmark(tmp_path, library.path).lines("verify", "--calibration")
    assert said["refitted"] is False and "100" in said["reason"]
    assert library.calibration == Calibration.of(ENCODER.id)


def test_the_command_keeps_the_fit_and_logs_it(works, tmp_path):
    with sqlite3.connect(works.path / "catalogue.sqlite") as connection:
        connection.execute("DELETE FROM properties WHERE name = 'calibration'")
    (said,) = Earmark(tmp_path, works.path).lines("verify", "--calibration")
    assert said["refitted"] is True and said["recordings"] == 100
    assert [it["seconds"] for it in said["lengths"]] == [1, 2, 5, 10, 30]
    for it in said["lengths"]:
        assert it["decay_least"] <= it["decay"] <= it["decay_most"]
    with works.reading() as connection:
        last = list(audit.entries(connection))[-1]
    assert last.kind == "calibration"
    assert last.details["library"] == works.id()
