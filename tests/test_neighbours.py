"""The nearest stored embeddings are those that FAISS finds, whatever was removed."""

import faiss
import numpy as np
import pytest
from embeddings import track

from fingerprint.encoder import Encoder
from index.neighbours import nearest
from index.segment import BLOCK, Codes, arrange

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


@pytest.mark.parametrize("n", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1])
def test_a_segment_gives_back_its_codes_in_order(n):
    rng = np.random.default_rng(n)
    stored = Codes(
        rng.integers(0, LISTS, n).astype(np.uint16),
        rng.integers(0, 256, (n, CODEC.code_size)).astype(np.uint8),
    )
    arranged = arrange(stored, LISTS)
    for first, end in ((0, n), (n // 2, n), (0, n // 3), (max(0, n - 2), n)):
        run = arranged.run(first, end)
        assert (run.lists == stored.lists[first:end]).all()
        assert (run.codes == stored.codes[first:end]).all()
