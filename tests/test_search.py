"""Search finds what is there, says where, and keeps quiet about what is not."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
from embeddings import noisy, query, reference, track
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerprint.encoder import Encoder
from fingerprint.spectrogram import BANDS, FRAME_RATE
from index import votes
from index.align import CREEP_PRICE, align
from index.ladder import excerpts
from index.library import Library
from index.query_context import Question
from index.recording import Metadata
from index.search import FIRST, THOROUGH, search
from index.significance import Calibration
from index.snapshot import Snapshot

ENCODER = Encoder.load()
WORKS = 12


def plain_alignment(weights: np.ndarray, price: float) -> float:
    """Largest sum of weights on a path that steps by at most one offset, by trying all paths."""
    best = 0.0
    score = np.zeros(weights.shape[1])
    for row in weights:
        padded = np.concatenate([[0], score, [0]])
        before = np.maximum.reduce([padded[1:-1], padded[:-2] - price, padded[2:] - price])
        score = np.where(
            np.isnan(row), 0, np.maximum(0, np.nan_to_num(row) + np.maximum(before, 0))
        )
        best = max(best, score.max())
    return best


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 7))
def test_alignment_is_the_best_path(seed, steps, offsets):
    rng = np.random.default_rng(seed)
    weights = rng.normal(-0.5, 2, (steps, offsets)).astype(np.float32)
    weights[rng.random(weights.shape) < 0.1] = np.nan
    found = align(weights, low=-3)
    expected = plain_alignment(weights, CREEP_PRICE)
    if found is None:
        assert expected == 0
        return
    assert found.score == pytest.approx(expected, rel=1e-4)
    assert 0 <= found.first <= found.last < steps
    half = abs(found.creep) * (found.last - found.first) / 2
    assert found.offset - half >= -4 and found.offset + half <= offsets - 3


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Library:
    library = Library.open(tmp_path_factory.mktemp("works") / "library", ENCODER, create=True)
    with library.writer() as writer:
        for seed in range(WORKS):
            fingerprint = reference(ENCODER, track(ENCODER, seed, 60))
            writer.add(fingerprint, Metadata(f"{seed}.flac", "Me", "owned", id=str(seed)))
    return library


@pytest.mark.parametrize("first", [0, 7, 123, 500])
def test_a_clip_is_found_where_it_was_cut(library, first):
    matches, _ = library.search(query(ENCODER, track(ENCODER, 3, 60)[first : first + 40]))
    assert [match.recording for match in matches] == ["3"]
    match = matches[0]
    assert match.tier == "match"
    assert match.query_start == pytest.approx(0, abs=0.05)
    assert match.query_end == pytest.approx(5.08, abs=0.05)
    assert match.reference_start == pytest.approx(first * 0.1, abs=0.08)
    assert match.reference_end == pytest.approx(first * 0.1 + 5.08, abs=0.08)
    assert match.tempo == pytest.approx(1, abs=0.025)


def test_noise_lowers_the_score_and_raises_the_e_value(library):
    x = track(ENCODER, 5, 60)[100:160]
    found = [
        library.search(query(ENCODER, noisy(x, 1, amount)), max_e_value=1e9)[0][0]
        for amount in (0.0, 1.0, 2.0)
    ]
    assert [match.recording for match in found] == ["5"] * 3
    assert found[0].score > found[1].score > found[2].score
    assert found[0].e_value < found[1].e_value < found[2].e_value


def test_unknown_music_is_not_found(library):
    for seed in range(100, 130):
        assert library.search(query(ENCODER, track(ENCODER, seed, 6)))[0] == []


def test_two_works_in_one_clip_are_two_matches_with_their_places(library):
    first, second = track(ENCODER, 1, 60)[50:150], track(ENCODER, 2, 60)[300:400]
    matches, _ = library.search(query(ENCODER, np.concatenate([first, second])))
    by_recording = {match.recording: match for match in matches}
    assert set(by_recording) == {"1", "2"}
    assert by_recording["1"].query_end == pytest.approx(10.6, abs=0.5)
    assert by_recording["1"].reference_start == pytest.approx(5.0, abs=0.2)
    assert by_recording["2"].query_start == pytest.approx(10.6, abs=0.5)
    assert by_recording["2"].reference_end == pytest.approx(41.2, abs=0.3)


def test_the_same_place_twice_in_a_clip_is_two_entries(library):
    part, other = track(ENCODER, 1, 60)[50:110], track(ENCODER, 200, 20)
    matches, _ = library.search(query(ENCODER, np.concatenate([part, other, part])))
    assert [match.recording for match in matches] == ["1", "1"]
    starts = sorted(match.query_start for match in matches)
    assert starts[0] == 0 and starts[1] == pytest.approx(6.6 + len(other) * 0.1, abs=0.5)


def test_an_offset_that_creeps_is_followed(library):
    x = track(ENCODER, 7, 60)
    faster = x[(np.arange(150) * 1.04 + 100).round().astype(int)]
    matches, _ = library.search(query(ENCODER, faster))
    assert matches[0].recording == "7"
    assert matches[0].tempo == pytest.approx(1.04, abs=0.01)
    assert matches[0].reference_start == pytest.approx(10.0, abs=0.3)


def test_a_long_clip_of_one_recording_is_one_match(library):
    x = track(ENCODER, 4, 60)
    matches, _ = library.search(query(ENCODER, x[20:]))
    assert [match.recording for match in matches] == ["4"]
    assert matches[0].query_start == pytest.approx(0, abs=0.1)
    assert matches[0].reference_end == pytest.approx(60, abs=0.2)


@pytest.mark.parametrize("amount", [0.0, 0.5, 2.2])
def test_a_clear_clip_is_looked_at_once_and_answered_as_if_it_were_closely(
    library, amount, monkeypatch
):
    compared = []

    def seen(passages, question, effort):
        compared.append(effort.compared)
        return votes.candidates(passages, question, effort)

    monkeypatch.setattr("index.search.candidates", seen)
    clip = query(ENCODER, noisy(track(ENCODER, 5, 60)[100:160], 1, amount))
    matches, _ = library.search(clip)
    assert compared == [FIRST.compared, THOROUGH.compared][: 2 if amount > 1 else 1]
    assert [match.recording for match in matches] == ["5"]
    monkeypatch.setattr("index.search.FIRST", THOROUGH)
    assert library.search(clip)[0] == matches


def test_an_interruption_makes_two_matches_at_one_offset(library):
    x = track(ENCODER, 4, 60).copy()
    x[200:400] = track(ENCODER, 300, 30)[:200]
    matches, _ = library.search(query(ENCODER, x))
    assert [match.recording for match in matches] == ["4", "4"]
    first, second = sorted(matches, key=lambda match: match.query_start)
    assert first.query_end == pytest.approx(20.6, abs=0.5)
    assert second.query_start == pytest.approx(40.6, abs=0.5)
    assert second.reference_start == pytest.approx(second.query_start, abs=0.1)


def test_what_is_hardly_made_out_beside_a_match_is_part_of_it(library):
    x = track(ENCODER, 4, 60)[100:400].copy()
    x[:120] = noisy(x[:120], 1, 4.0)
    faint = library.search(query(ENCODER, x[:120]))[0]
    assert [match for match in faint if match.tier == "match"] == []
    unrelated = track(ENCODER, 300, 20)[:150]
    matches, _ = library.search(query(ENCODER, np.concatenate([unrelated, x])), max_e_value=1e-6)
    (match,) = matches
    assert match.recording == "4"
    assert match.query_start == pytest.approx(15.6, abs=0.8)


def test_two_works_at_once_are_both_followed_to_their_ends(library):
    first, second = track(ENCODER, 1, 60)[50:250], track(ENCODER, 2, 60)[300:500]
    both = first[100:] + second[:100]
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    matches, _ = library.search(query(ENCODER, np.concatenate([first[:100], both, second[100:]])))
    by_recording = {match.recording: match for match in matches}
    assert set(by_recording) == {"1", "2"} and len(matches) == 2
    assert by_recording["1"].query_start == 0
    assert by_recording["1"].query_end == pytest.approx(20.6, abs=0.5)
    assert by_recording["2"].query_start == pytest.approx(10.6, abs=0.5)
    assert by_recording["2"].query_end == pytest.approx(31.1, abs=0.1)


def test_a_whole_recording_inside_a_query_is_told_from_its_beginning_to_its_end(library):
    x = np.concatenate(
        [track(ENCODER, 300, 20)[:97], track(ENCODER, 4, 60), track(ENCODER, 301, 20)[:93]]
    )
    (match,) = library.search(query(ENCODER, x))[0]
    assert match.recording == "4"
    assert match.reference_start == pytest.approx(0, abs=0.05)
    assert match.reference_end == pytest.approx(60, abs=0.15)
    assert match.query_start == pytest.approx(9.7, abs=0.1)
    assert match.query_end == pytest.approx(69.7, abs=0.15)


class Counting(Snapshot):
    """A snapshot that counts what is asked of it."""

    asked: ClassVar[Counter[str]] = Counter()

    def nearest_to_each(self, passages, count, probes, compared):
        votes = sum(map(len, passages))
        self.asked["votes"] += votes
        self.asked["most votes at once"] = max(self.asked["most votes at once"], votes)
        return super().nearest_to_each(passages, count, probes, compared)

    def codes(self, recording, first, end):
        self.asked["codes"] += end - first
        self.asked["most codes at once"] = max(self.asked["most codes at once"], end - first)
        return super().codes(recording, first, end)


def test_work_grows_with_a_query_s_length_and_no_faster(library):
    counted = {}
    for minutes in (2, 4, 8):
        x = np.concatenate([track(ENCODER, 400 + n, 60) for n in range(minutes)])
        snapshot = library.refresh()
        counting = object.__new__(Counting)
        counting.__dict__ = snapshot.__dict__
        Counting.asked.clear()
        question = Question(query(ENCODER, x), counting, ENCODER)
        search(question, Calibration.of(ENCODER.id), 1e-2)
        counted[minutes] = Counting.asked.copy()
    assert counted[8]["votes"] == pytest.approx(4 * counted[2]["votes"], rel=0.1)
    assert counted[8]["codes"] < 3 * counted[4]["codes"]
    for most in ("most votes at once", "most codes at once"):
        assert counted[8][most] == counted[4][most] == counted[2][most]


def test_ten_hours_are_looked_at_in_pieces_of_seconds():
    levels = np.broadcast_to(np.uint8(200), (round(36_000 * FRAME_RATE), BANDS))
    long = replace(query(ENCODER, track(ENCODER, 1, 60)), duration=36_000.0, levels=levels)
    parts = excerpts(long)
    assert len(parts) == 3600
    assert max(part.end - part.start for part in parts) <= 6
    assert all(part.end <= after.start for part, after in pairwise(parts))


def test_identical_works_under_two_ids_are_both_named(tmp_path):
    library = Library.open(tmp_path / "library", ENCODER, create=True)
    x = track(ENCODER, 1, 30)
    with library.writer() as writer:
        for number, y in enumerate((x, noisy(x, 1, 0.2))):
            writer.add(reference(ENCODER, y), Metadata("a", "Me", "owned", id=str(number)))
    matches, _ = library.search(query(ENCODER, x[100:150]))
    assert {match.recording for match in matches} == {"0", "1"}


def test_a_passage_of_many_recordings_names_them_all(tmp_path):
    library = Library.open(tmp_path / "library", ENCODER, create=True)
    shared = track(ENCODER, 1, 10)
    with library.writer() as writer:
        for number in range(60):
            own = track(ENCODER, 1000 + number, 12)
            x = np.concatenate([own[:50], shared, own[50:]])
            writer.add(reference(ENCODER, x), Metadata("a", "Me", "owned", id=str(number)))
    x = np.concatenate([track(ENCODER, 900, 10), shared[10:70], track(ENCODER, 901, 10)])
    matches, _ = library.search(query(ENCODER, x))
    assert {match.recording for match in matches} == {str(number) for number in range(60)}
    assert {match.tier for match in matches} == {"review"}  # whose it is, the passage cannot say
    starts = [match.query_start for match in matches]
    assert max(starts) - min(starts) < 0.5


def test_a_loop_does_not_hide_another_recording_that_has_it_once(tmp_path):
    library = Library.open(tmp_path / "library", ENCODER, create=True)
    loop = track(ENCODER, 1, 8)[:50]
    with library.writer() as writer:
        for id, x in (
            ("loop", np.concatenate([loop] * 60)),
            ("song", np.concatenate([track(ENCODER, 2, 20)[:150], loop, track(ENCODER, 3, 20)])),
        ):
            writer.add(reference(ENCODER, x), Metadata("a", "Me", "owned", id=id))
    matches, _ = library.search(query(ENCODER, loop))
    assert {match.recording for match in matches} == {"loop", "song"}


@pytest.mark.parametrize("n", [0, 1, 3])
def test_hardly_any_query_is_answered_all_the_same(library, n):
    matches, snapshot = library.search(query(ENCODER, track(ENCODER, 3, 60)[100 : 100 + n]))
    assert len(snapshot.recordings) == WORKS
    assert all(match.query_end > match.query_start for match in matches)


def test_an_empty_library_knows_nothing(tmp_path):
    library = Library.open(tmp_path / "library", ENCODER, create=True)
    assert library.search(query(ENCODER, track(ENCODER, 1, 6)))[0] == []
