"""The nearest stored embeddings are those that FAISS finds, or numpy, whatever was removed."""

from dataclasses import replace

import faiss
import numpy as np
import pytest
from embeddings import track
from safetensors.numpy import save

from fingerprint.codec import Codec
from fingerprint.encoder import Encoder
from index.errors import LibraryError
from index.neighbours import merged, nearest
from index.segment import BLOCK, DIVIDED, Codes, Segment, arrange, read, write

CODEC = Encoder.load().codec
LISTS = len(CODEC.coarse)


def codes(n: int, seed: int = 0) -> Codes:
    """Codes of n embeddings of music that never was."""
    return Codes(*CODEC.encode(track(Encoder.load(), seed, n / 10 + 2)[:n]))


def faiss_index(stored: Codes) -> faiss.IndexIVFPQ:
    dimension = CODEC.coarse.shape[1]
    quantiser = faiss.IndexFlatL2(dimension)  # probes the lists whose centroids are nearest
    quantiser.add(CODEC.coarse)
    index = faiss.IndexIVFPQ(
        quantiser, dimension, LISTS, CODEC.code_size, 8, faiss.METRIC_INNER_PRODUCT
    )
    faiss.copy_array_to_vector(CODEC.codebooks.ravel(), index.pq.centroids)
    index.is_trained = True
    for number in range(LISTS):
        ids = np.flatnonzero(stored.lists == number)
        rows = np.ascontiguousarray(stored.codes[ids])
        index.invlists.add_entries(number, len(ids), faiss.swig_ptr(ids), faiss.swig_ptr(rows))
    index.ntotal = len(stored)
    return index


@pytest.mark.parametrize("probes", [1, 7, LISTS])
def test_neighbours_are_those_of_faiss(probes):
    stored = codes(9000)
    segments = {0: arrange(stored[:4000], CODEC), 4000: arrange(stored[4000:], CODEC)}
    gone = np.array([[100, 900], [5000, 5001]], np.int64)
    q = track(Encoder.load(), 3, 5)
    parameters = faiss.SearchParametersIVF(nprobe=probes)
    similarity, numbers = faiss_index(stored).search(q, 1000, params=parameters)
    found, at = nearest(q, 20, probes / LISTS, segments, gone, CODEC)
    for row in range(len(q)):
        wanted = (numbers[row] >= 0) & ~((numbers[row] >= 100) & (numbers[row] < 900))
        wanted &= numbers[row] != 5000
        expected = similarity[row][wanted][:20]
        assert found[row][: len(expected)] == pytest.approx(expected, abs=1e-5)
        assert (at[row][len(expected) :] == -1).all()
        assert not ((at[row] >= 100) & (at[row] < 900)).any()


def any_codes(n: int, lists: int = LISTS) -> Codes:
    """Codes of no embeddings, of the first so many lists."""
    rng = np.random.default_rng(n)
    return Codes(
        rng.integers(0, lists, n).astype(np.uint16),
        rng.integers(0, 256, (n, CODEC.code_size)).astype(np.uint8),
    )


def test_neighbours_in_many_blocks_are_those_of_faiss():
    stored = any_codes(2 * BLOCK + 1000, lists=900)  # no block has any of the last lists
    q = track(Encoder.load(), 3, 2)
    parameters = faiss.SearchParametersIVF(nprobe=300)
    similarity, numbers = faiss_index(stored).search(q, 20, params=parameters)
    none = np.empty((0, 2), np.int64)
    found, at = nearest(q, 20, 300 / LISTS, {0: arrange(stored, CODEC)}, none, CODEC)
    assert found == pytest.approx(similarity, abs=1e-5)
    assert np.mean(at == numbers) > 0.99  # but where two are as near but for rounding


@pytest.fixture(scope="module")
def divided() -> tuple[Codes, Segment]:
    """Codes as many as lists are divided from on, which end in a block hardly begun."""
    stored = any_codes(DIVIDED + 100)
    return stored, arrange(stored, CODEC)


def nearest_by_numpy(
    q: np.ndarray, count: int, probes: int, stored: Codes
) -> tuple[np.ndarray, list[set[int]]]:
    """Of the embeddings in the cells nearest to each query, one after the other in double precision."""
    centroids = (CODEC.coarse[:, None] + CODEC.cells).reshape(-1, CODEC.coarse.shape[1])
    slices = np.arange(CODEC.code_size)
    similarities, cells_searched = [], []
    for one in q.astype(float):
        nearest_cells = np.argsort(np.sum((centroids - one) ** 2, axis=1))[:probes]
        rows = np.flatnonzero(np.isin(cells_of(stored), nearest_cells))
        parts = one.reshape(len(slices), -1)
        table = np.einsum("sew,sw->se", CODEC.codebooks, parts)
        values = CODEC.coarse[stored.lists[rows]] @ one
        values += table[slices, stored.codes[rows]].sum(axis=1)
        similarities.append(np.sort(values)[::-1][:count])
        cells_searched.append(set(rows[np.argsort(-values)][:count].tolist()))
    return np.array(similarities), cells_searched


def cells_of(stored: Codes) -> np.ndarray:
    """The cell of each code: that whose centroid is nearest to what the code leaves of its list's."""
    left = np.concatenate(
        [book[stored.codes[:, s]] for s, book in enumerate(CODEC.codebooks)], axis=1
    )
    distance = np.sum(CODEC.cells**2, axis=1) - 2 * left @ CODEC.cells.T
    return stored.lists.astype(int) * len(CODEC.cells) + np.argmin(distance, axis=1)


def test_a_large_segment_is_searched_by_the_nearest_cells(divided):
    stored, segment = divided
    assert segment.cells == len(CODEC.cells) == 16
    q = track(Encoder.load(), 3, 2)
    none = np.empty((0, 2), np.int64)
    probes = 100
    found, at = nearest(q, 20, probes / (16 * LISTS), {0: segment}, none, CODEC)
    expected, numbers = nearest_by_numpy(q, 20, probes, stored)
    assert found == pytest.approx(expected, abs=1e-5)
    same = [len(set(row) & of_it) / 20 for row, of_it in zip(at.tolist(), numbers, strict=True)]
    assert np.mean(same) > 0.99  # but where two are as near but for rounding


def test_large_and_small_segments_are_searched_together(divided):
    stored, segment = divided
    q = track(Encoder.load(), 3, 2)
    gone = np.array([[DIVIDED, DIVIDED + 100]], np.int64)
    small = any_codes(500)
    both = {0: segment, len(stored): arrange(small, CODEC)}
    found, at = nearest(q, 20, 1.0, both, gone, CODEC)
    whole, numbers = nearest(q, 20, 1.0, {0: segment}, gone, CODEC)
    few, others = nearest(q, 20, 1.0, {len(stored): both[len(stored)]}, gone, CODEC)
    expected, at_expected = merged([(whole, numbers), (few, others)], 20)
    assert (found == expected).all() and (at == at_expected).all()
    assert not ((at >= DIVIDED) & (at < len(stored))).any()


def test_a_large_segment_gives_back_its_codes_in_order(divided):
    stored, segment = divided
    for first, end in ((0, 400), (BLOCK - 300, BLOCK + 300), (DIVIDED - 5, DIVIDED + 100)):
        run = segment.run(first, end)
        assert (run.lists == stored.lists[first:end]).all()
        assert (run.codes == stored.codes[first:end]).all()


def test_a_large_segment_is_read_as_it_was_written_or_divided_anew(divided, tmp_path):
    stored, segment = divided
    write(tmp_path / "segment", segment, CODEC)
    other = Codec(CODEC.coarse, CODEC.books, CODEC.cells[::-1])
    for codec in (CODEC, other):
        same(read(tmp_path / "segment", len(stored), codec), arrange(stored, codec))
    plain = Codec(CODEC.coarse, CODEC.books)
    same(read(tmp_path / "segment", len(stored), plain), arrange(stored, plain))


def same(one: Segment, other: Segment) -> None:
    assert one.cells == other.cells
    for part in ("begins", "places", "ids", "codes"):
        assert (getattr(one, part) == getattr(other, part)).all()


@pytest.mark.parametrize("n", [0, 1, BLOCK + 1])
def test_a_written_segment_is_read_as_it_was_also_one_laid_out_as_before(tmp_path, n):
    segment = arrange(any_codes(n), CODEC)
    write(tmp_path / "now", segment, CODEC)
    bounds = np.zeros((len(segment.begins), LISTS + 1), np.uint32)
    of_ids = segment.run(0, n).codes
    for block in range(len(bounds)):
        here = slice(block * BLOCK, (block + 1) * BLOCK)
        bounds[block, :-1] = block * BLOCK + segment.begins[block].astype(int)
        bounds[block, -1] = min(n, here.stop)
        of_ids[here] = of_ids[here][segment.ids[here]]
    before = {"bounds": bounds, "places": segment.places, "ids": segment.ids}
    (tmp_path / "before").write_bytes(save(before | {"by_list": segment.codes}))
    (tmp_path / "first").write_bytes(
        save({k: before[k] for k in ("bounds", "ids")} | {"codes": of_ids})
    )
    for name in ("now", "before", "first"):
        same(read(tmp_path / name, n, CODEC), segment)


def test_all_embeddings_of_a_block_may_be_in_one_list(tmp_path):
    stored = any_codes(BLOCK + 3, lists=1)  # its last lists begin at 65,536
    segment = arrange(stored, CODEC)
    write(tmp_path / "segment", segment, CODEC)
    same(read(tmp_path / "segment", len(stored), CODEC), segment)
    assert (segment.run(0, len(stored)).codes == stored.codes).all()


def test_places_that_are_not_those_of_the_lists_are_damage(tmp_path):
    segment = arrange(any_codes(100), CODEC)
    wrong = segment.places.copy()
    wrong[0, 5] += 1
    write(tmp_path / "segment", replace(segment, places=wrong), CODEC)
    with pytest.raises(LibraryError, match="damaged"):
        read(tmp_path / "segment", 100, CODEC)


@pytest.mark.parametrize("n", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1])
def test_a_segment_gives_back_its_codes_in_order(n):
    stored = any_codes(n)
    arranged = arrange(stored, CODEC)
    for first, end in ((0, n), (n // 2, n), (0, n // 3), (max(0, n - 2), n)):
        run = arranged.run(first, end)
        assert (run.lists == stored.lists[first:end]).all()
        assert (run.codes == stored.codes[first:end]).all()
