"""The nearest stored embeddings are those of an exhaustive search over the decoded codes."""

from itertools import pairwise
from pathlib import Path

import faiss
import numpy as np
import pytest
from embeddings import track
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerprint.encoder import Encoder
from index import neighbours, segment
from index.errors import LibraryError
from index.neighbours import Kept, Nearest, kept_of, merged, nearest
from index.segment import Codes, Segment, arrange, doubled, write

ENCODER = Encoder.load()
CODEC = ENCODER.codec
LISTS, CELLS = CODEC.half_cells.shape
NOTHING = np.empty((0, 2), np.int64)


def codes(n: int, seed: int = 0) -> Codes:
    """Codes of n embeddings of music that never was."""
    return Codes(*CODEC.encode(track(ENCODER, seed, n / 10 + 2)[:n]))


def any_codes(n: int, lists: int = LISTS) -> Codes:
    """Codes of no embeddings, of the first so many lists."""
    rng = np.random.default_rng(n)
    return Codes(
        rng.integers(0, lists, n).astype(np.uint16),
        rng.integers(0, 256, (n, CODEC.code_size)).astype(np.uint8),
    )


def decoded(stored: Codes) -> np.ndarray:
    """What codes name, in double precision, before it gets length 1."""
    entries = [
        CODEC.books[s, 0, byte >> 4].astype(float) + CODEC.books[s, 1, byte & 15]
        for s, byte in enumerate(stored.codes.T)
    ]
    return CODEC.coarse[stored.lists].astype(float) + np.concatenate(entries, axis=1)


def nearest_by_numpy(
    q: np.ndarray, count: int, stored: Codes, inside: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Of all embeddings, or of those `inside` [shape=(queries, n)], one after the other."""
    values = q.astype(float) @ decoded(stored).T
    if inside is not None:
        values[~inside] = -np.inf
    order = np.argsort(-values, axis=1, kind="stable")[:, :count]
    similarity = np.take_along_axis(values, order, 1)
    return similarity, np.where(np.isfinite(similarity), order, -1)


def found_in(
    q: np.ndarray, count: int, share: float, parts: dict[int, Segment], gone: np.ndarray = NOTHING
) -> Nearest:
    return nearest(q, count, share, parts, kept_of(parts, gone), CODEC)


def probed(q: np.ndarray, share: float, stored: Codes) -> np.ndarray:
    """Which embeddings are in the lists whose centroids are nearest to each query."""
    distance = np.sum(CODEC.coarse**2, axis=1) - 2 * q @ CODEC.coarse.T
    lists = np.argsort(distance, axis=1)[:, : max(1, int(np.ceil(share * LISTS)))]
    return np.array([np.isin(stored.lists, some) for some in lists])


def same(found: Nearest, expected: tuple[np.ndarray, np.ndarray]) -> None:
    similarity, numbers = expected
    finite = np.isfinite(similarity)
    assert (np.isfinite(found[0]) == finite).all()
    assert found[0][finite] == pytest.approx(similarity[finite], abs=1e-5)
    assert np.mean(found[1] == numbers) > 0.99  # but where two are as near but for rounding


@pytest.mark.parametrize("probes", [1, 7, LISTS])
def test_neighbours_are_those_of_an_exhaustive_search(probes):
    stored = codes(9000)
    parts = {0: arrange(stored[:4000], CODEC), 4000: arrange(stored[4000:], CODEC)}
    gone = np.array([[100, 900], [5000, 5001]], np.int64)
    q = track(ENCODER, 3, 5)
    inside = probed(q, probes / LISTS, stored)
    inside[:, 100:900] = inside[:, 5000] = False
    same(found_in(q, 20, probes / LISTS, parts, gone), nearest_by_numpy(q, 20, stored, inside))


@pytest.fixture
def divided(monkeypatch) -> tuple[Codes, Segment]:
    """Codes in a segment whose lists are divided into cells."""
    monkeypatch.setattr(segment, "DIVIDED", 30_000)
    stored = codes(30_100)
    return stored, arrange(stored, CODEC)


def cells_of(stored: Codes) -> np.ndarray:
    """The cell of each code: that whose centroid is nearest to the decoded residual."""
    left = decoded(stored) - CODEC.coarse[stored.lists]
    distance = np.sum(CODEC.cells.astype(float) ** 2, axis=1) - 2 * left @ CODEC.cells.T
    return stored.lists.astype(int) * CELLS + np.argmin(distance, axis=1)


def test_a_large_segment_is_searched_by_the_nearest_cells(divided):
    stored, large = divided
    assert large.cells == CELLS == 16
    q = track(ENCODER, 3, 4)
    centroids = (CODEC.coarse[:, None] + CODEC.cells).reshape(LISTS * CELLS, -1)
    distance = np.sum(centroids**2, axis=1) - 2 * q @ centroids.T
    near = np.argsort(distance, axis=1)[:, :410]
    inside = np.array([np.isin(cells_of(stored), some) for some in near])
    found = found_in(q, 20, 410 / (LISTS * CELLS), {0: large})
    same(found, nearest_by_numpy(q, 20, stored, inside))


def test_segments_with_and_without_cells_are_searched_together(divided):
    stored, large = divided
    small = codes(900, seed=5)
    q = track(ENCODER, 5, 4)
    both = {0: large, len(stored): arrange(small, CODEC)}
    together = Codes(
        np.concatenate([stored.lists, small.lists]), np.concatenate([stored.codes, small.codes])
    )
    same(found_in(q, 20, 1.0, both), nearest_by_numpy(q, 20, together))


@settings(max_examples=15, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 3000), max_size=3).map(sorted),
    copies=st.integers(1, 150),
    count=st.sampled_from([1, 20, 40]),
    share=st.sampled_from([0.02, 0.2, 1.0]),
)
def test_neighbours_are_the_same_in_whatever_parts(cuts, copies, count, share):
    """Also where more embeddings than FAISS is asked for are the same to the last bit."""
    stored = codes(3000)
    for part in (stored.lists, stored.codes):
        part[100 : 100 + copies] = part[7]
    ends = [0, *cuts, 3000]
    parts = {
        first: arrange(stored[first:end], CODEC) for first, end in pairwise(ends) if end > first
    }
    gone = np.array([[105, 110], [2000, 2300]], np.int64)
    q = np.concatenate([track(ENCODER, 0, 2.5), track(ENCODER, 9, 2)])
    whole = found_in(q, count, share, {0: arrange(stored, CODEC)}, gone)
    cut = found_in(q, count, share, parts, gone)
    assert (whole[1] == cut[1]).all() and (whole[0] == cut[0]).all()


def test_a_search_without_rounding_finds_the_same(monkeypatch):
    """Where FAISS is asked for too few, what it left out is looked at again."""
    stored = codes(5000)
    q = track(ENCODER, 3, 3)
    parts = {0: arrange(stored, CODEC)}
    before = found_in(q, 40, 0.3, parts)
    monkeypatch.setattr(neighbours, "MORE", 1)
    again = found_in(q, 40, 0.3, parts)
    assert (before[0] == again[0]).all() and (before[1] == again[1]).all()


def test_silence_is_near_to_nothing():
    parts = {0: arrange(codes(500), CODEC)}
    q = np.concatenate([np.zeros((1, CODEC.coarse.shape[1]), np.float32), track(ENCODER, 0, 3)])
    similarity, numbers = found_in(q, 5, 1.0, parts)
    assert (numbers[0] == -1).all() and (similarity[0] == -np.inf).all()
    assert (numbers[1:] >= 0).all()
    similarity, numbers = found_in(q[:0], 5, 1.0, parts)
    assert similarity.shape == numbers.shape == (0, 5)


def test_what_is_in_no_segment_or_may_not_be_found_is_not():
    q = track(ENCODER, 0, 2)
    for parts in ({}, {0: arrange(codes(0), CODEC)}):
        assert (found_in(q, 5, 1.0, parts)[1] == -1).all()
    parts = {0: arrange(codes(100), CODEC)}
    assert (found_in(q, 5, 1.0, parts, np.array([[0, 100]]))[1] == -1).all()
    similarity, numbers = found_in(q, 5, 1.0, parts, np.array([[0, 97]]))
    assert set(numbers[0]) == {97, 98, 99, -1}
    assert (similarity[0, 3:] == -np.inf).all()


@given(st.integers(1, 70), st.lists(st.integers(0, 70), max_size=6))
def test_bits_say_what_may_be_found(embeddings, cuts):
    ends = sorted({min(cut, embeddings) for cut in cuts})
    gone = np.array(ends[: len(ends) // 2 * 2], np.int64).reshape(-1, 2)
    kept = Kept(embeddings, gone)
    expected = np.ones(embeddings, bool)
    for first, end in gone:
        expected[first:end] = False
    assert kept.none == (not expected.any())
    if len(kept.bits):
        bits = np.unpackbits(kept.bits, bitorder="little")[:embeddings]
        assert (bits == expected).all()
    else:
        assert kept.none or expected.all()


@pytest.mark.parametrize("divide", [False, True])
def test_any_faiss_finds_in_a_segment_what_an_exhaustive_search_does(tmp_path, monkeypatch, divide):
    if divide:
        monkeypatch.setattr(segment, "DIVIDED", 1000)
    stored = codes(4000)
    header = tmp_path / "00000001.faiss"
    write(header, stored, CODEC)
    monkeypatch.chdir(tmp_path)  # the header names the lists' file alone
    index = faiss.read_index(header.name, faiss.IO_FLAG_READ_ONLY)
    assert isinstance(index, faiss.IndexIVFPQFastScan)
    lists = faiss.downcast_InvertedLists(index.invlists)
    assert isinstance(lists, faiss.OnDiskInvertedLists)
    assert (index.ntotal, index.nlist) == (4000, LISTS * (CELLS if divide else 1))
    index.nprobe = index.nlist
    q = track(ENCODER, 3, 3)
    similarity, numbers = index.search(doubled(q, CODEC.code_size), 20)
    expected, at = nearest_by_numpy(q, 40, stored)
    exact = np.take_along_axis(q.astype(float) @ decoded(stored).T, numbers, 1)
    assert np.abs(similarity - exact).max() < 5e-3  # FAISS rounds its tables to bytes
    assert np.mean([np.isin(one, of) for one, of in zip(numbers, at, strict=True)]) > 0.99
    assert (exact.min(axis=1) > expected[:, 19] - 5e-3).all()


def test_flipped_ids_are_damage_and_no_wrong_answer(tmp_path):
    """In a recording's codes, or a search, ids of another list or of no embedding at all."""
    stored = codes(3000)
    header = Path(tmp_path, "00000001.faiss")
    written = write(header, stored, CODEC)
    read = segment.read(header, written, CODEC)
    number = int(np.argmax(read.counts))
    at = 8 * int(read.id_starts[number])
    q = decoded(stored)[[int(read.long[at // 8])]].astype(np.float32)
    lists = segment.lists_of(header)
    data = bytearray(lists.read_bytes())
    for byte, bits in ((at + 7, 0x80), (at + 7, 0x40), (at + 3, 0x7F), (at, 1), (at + 1, 4)):
        flipped = data.copy()
        flipped[byte] ^= bits
        lists.write_bytes(flipped)
        damaged = segment.read(header, written, CODEC)
        with pytest.raises(LibraryError, match="damaged"):
            found_in(q, 20, 1.0, {0: damaged})
        with pytest.raises(LibraryError, match="damaged"):
            damaged.run(0, 3000)


def test_parts_are_merged_best_first_and_of_equal_ones_by_number():
    one = np.array([[0.9, 0.5, -np.inf]], np.float32), np.array([[7, 3, -1]])
    other = np.array([[0.9, 0.7, 0.5]], np.float32), np.array([[2, 9, 1]])
    similarity, numbers = merged([one, other], 4)
    assert numbers.tolist() == [[2, 7, 9, 1]]
    assert similarity[0].tolist() == pytest.approx([0.9, 0.9, 0.7, 0.5])


def test_answers_are_the_same_without_the_instructions_that_make_them_fast():
    """On a processor without AVX2, FAISS is slower and finds the same."""
    parts = {0: arrange(codes(3000), CODEC)}
    q = track(ENCODER, 3, 3)
    level = faiss.SIMDConfig.get_level()
    before = found_in(q, 20, 0.5, parts)
    try:
        faiss.SIMDConfig.set_level(faiss.SIMDLevel_NONE)
        again = found_in(q, 20, 0.5, parts)
    finally:
        faiss.SIMDConfig.set_level(level)
    assert (before[0] == again[0]).all() and (before[1] == again[1]).all()
