"""CPU time of the search among mapped lists, beside FAISS's IndexIVFPQ over the same codes.

    python -m benchmarks.neighbours [--sizes 14000 200000 4000000]

Codes and queries are drawn from the normal distribution with the mean and covariance of real embeddings;
74 queries (a clip of 5 s) ask for 40 neighbours each, on one thread. Both find the same similarities.
"""

import argparse
import time
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from fingerprint.codec import Codec
from fingerprint.encoder import Encoder
from index.neighbours import nearest
from index.segment import Codes, arrange, concatenate

QUERIES, COUNT, ROUNDS = 74, 40, 5
COMPARED = 200_000  # embeddings that each query is compared with; all of a smaller library


def faiss_index(stored: Codes, codec: Codec) -> Any:
    """FAISS's index of the same codes, lists and codebooks."""
    lists, dimension = codec.coarse.shape
    quantiser: Any = faiss.IndexFlatL2(dimension)  # the nearest lists are probed
    quantiser.add(codec.coarse)
    index: Any = faiss.IndexIVFPQ(
        quantiser, dimension, lists, codec.code_size, 8, faiss.METRIC_INNER_PRODUCT
    )
    faiss.copy_array_to_vector(codec.codebooks.ravel(), index.pq.centroids)
    index.is_trained = True
    order = np.argsort(stored.lists, kind="stable")
    bounds = np.searchsorted(stored.lists[order], np.arange(lists + 1))
    for number in range(lists):
        ids = np.ascontiguousarray(order[bounds[number] : bounds[number + 1]], np.int64)
        rows = np.ascontiguousarray(stored.codes[ids])
        index.invlists.add_entries(number, len(ids), faiss.swig_ptr(ids), faiss.swig_ptr(rows))
    index.ntotal = len(stored)
    return index


def draw(encoder: Encoder, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Vectors like embeddings [shape=(count, dimension)]."""
    mean, covariance = encoder.background_mean, encoder.background_covariance.astype(float)
    scale = np.linalg.cholesky(covariance + 1e-6 * np.eye(encoder.dimension))
    x = rng.standard_normal((count, encoder.dimension)) @ scale.T + mean
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[14_000, 200_000, 4_000_000])
    args = parser.parse_args()
    faiss.omp_set_num_threads(1)
    encoder = Encoder.load()
    codec = Codec(encoder.codec.coarse, encoder.codec.books)  # lists alone, as FAISS has
    lists = len(codec.coarse)
    rng = np.random.default_rng(0)
    queries = draw(encoder, QUERIES, rng)
    none = np.empty((0, 2), np.int64)
    for size in args.sizes:
        drawn = Codes(*codec.encode(draw(encoder, min(size, 200_000), rng)))
        repeats = [drawn] * -(-size // len(drawn))
        stored = concatenate(repeats, codec.code_size)[:size]
        segments = {0: arrange(stored, codec)}
        index = faiss_index(stored, codec)
        probes = int(np.ceil(lists * min(1.0, COMPARED / size)))
        parameters: Any = faiss.SearchParametersIVF()
        parameters.nprobe = probes
        spent: dict[str, list[float]] = {"FAISS": [], "mapped lists": []}
        for _ in range(ROUNDS + 1):
            started = time.process_time()
            expected, _ = index.search(queries, COUNT, params=parameters)
            between = time.process_time()
            found, _ = nearest(queries, COUNT, probes / lists, segments, none, codec)
            spent["mapped lists"].append(time.process_time() - between)
            spent["FAISS"].append(between - started)
            assert np.allclose(found, expected, atol=1e-5)
        figures = ", ".join(
            f"{name} {1000 * min(times[1:]):.0f} ms" for name, times in spent.items()
        )
        print(f"{size:,} embeddings, {probes} of {lists} lists: {figures}", flush=True)


if __name__ == "__main__":
    main()
