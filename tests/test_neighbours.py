"""The nearest stored embeddings are those that FAISS finds, whatever was removed."""

from dataclasses import replace

import faiss
import numpy as np
import pytest
from embeddings import track
from safetensors.numpy import save

from fingerprint.encoder import Encoder
from index.errors import LibraryError
from index.neighbours import nearest
from index.segment import BLOCK, Codes, arrange, read, write

CODEC = Encoder.load().codec
LISTS = len(CODEC.coarse)


def codes(n: int, seed: int = 0) -> Codes:
    """Codes of n embeddings of music that never was."""
    return Codes(*CODEC.encode(track(Encoder.load(), seed, n / 10 + 2)[:n]))


def faiss_index(stored: Codes) -> faiss.IndexIVFPQ:
    dimension = CODEC.coarse.shape[1]
    quantiser = faiss.IndexFlatIP(dimension)
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
    segments = {0: arrange(stored[:4000], LISTS), 4000: arrange(stored[4000:], LISTS)}
    gone = np.array([[100, 900], [5000, 5001]], np.int64)
    q = track(Encoder.load(), 3, 5)
    parameters = faiss.SearchParametersIVF(nprobe=probes)
    similarity, numbers = faiss_index(stored).search(q, 1000, params=parameters)
    found, at = nearest(q, 20, probes, segments, gone, CODEC)
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
    found, at = nearest(q, 20, 300, {0: arrange(stored, LISTS)}, none, CODEC)
    assert found == pytest.approx(similarity, abs=1e-5)
    assert np.mean(at == numbers) > 0.99  # but where two are as near but for rounding


@pytest.mark.parametrize("n", [0, 1, BLOCK + 1])
def test_a_written_segment_is_read_as_it_was_also_one_laid_out_as_before(tmp_path, n):
    segment = arrange(any_codes(n), LISTS)
    write(tmp_path / "now", segment)
    of_ids = segment.run(0, n).codes
    for block in range(len(segment.bounds)):
        here = slice(block * BLOCK, (block + 1) * BLOCK)
        of_ids[here] = of_ids[here][segment.ids[here]]
    before = {"bounds": segment.bounds, "ids": segment.ids, "codes": of_ids}
    (tmp_path / "before").write_bytes(save(before))
    for name in ("now", "before"):
        again = read(tmp_path / name, n, LISTS, CODEC.code_size)
        for part in ("bounds", "places", "ids", "codes"):
            assert (getattr(again, part) == getattr(segment, part)).all()


def test_places_that_are_not_those_of_the_lists_are_damage(tmp_path):
    segment = arrange(any_codes(100), LISTS)
    wrong = segment.places.copy()
    wrong[0, 5] += 1
    write(tmp_path / "segment", replace(segment, places=wrong))
    with pytest.raises(LibraryError, match="damaged"):
        read(tmp_path / "segment", 100, LISTS, CODEC.code_size)


@pytest.mark.parametrize("n", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1])
def test_a_segment_gives_back_its_codes_in_order(n):
    stored = any_codes(n)
    arranged = arrange(stored, LISTS)
    for first, end in ((0, n), (n // 2, n), (0, n // 3), (max(0, n - 2), n)):
        run = arranged.run(first, end)
        assert (run.lists == stored.lists[first:end]).all()
        assert (run.codes == stored.codes[first:end]).all()
