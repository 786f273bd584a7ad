"""CPU time of the search for the nearest stored embeddings, beside FAISS's other ways over the same codes.

    python -m benchmarks.experiments.neighbours [--sizes 14000 200000 4200000] [--compared 100000] \
        [--encoder WEIGHTS]

Codes and queries are drawn from the normal distribution with the mean and covariance of real embeddings; of
more than DRAWN codes each further one is a drawn one with two bytes changed at random. One segment, one
thread; BATCH queries together, as a scan asks, of COUNT neighbours each. Timed in turns, median of ROUNDS:

    segment       `index.neighbours`: coarse stage, fast scan, rescoring, and what is read again unrounded
    fast scan     FAISS's part of it alone: the lists and centroids' products are given
    8 bits        FAISS's IndexIVFPQ of the same lists and codes, read as bytes; similarities are the same
    coarse stage  which lists are probed

The ratio is that of 8 bits, with the coarse stage, to the segment; `again` is the share of queries for which
lists were read again.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from fingerprint.codec import Codec
from fingerprint.encoder import Encoder
from index import blocks, segment
from index.neighbours import _Query, kept_of, nearest
from index.segment import Codes, Segment, arrange

QUERIES, BATCH, COUNT, ROUNDS = 296, 37, 20, 5
DRAWN = 500_000


def draw(encoder: Encoder, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Vectors like embeddings [shape=(count, dimension)]."""
    mean, covariance = encoder.background_mean, encoder.background_covariance.astype(float)
    scale = np.linalg.cholesky(covariance + 1e-6 * np.eye(encoder.dimension))
    x = rng.standard_normal((count, encoder.dimension)) @ scale.T + mean
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def codes_like(encoder: Encoder, count: int, rng: np.random.Generator) -> Codes:
    """Codes of so many vectors like embeddings."""
    codec = encoder.codec
    parts = [
        codec.encode(draw(encoder, min(count - at, 50_000), rng))
        for at in range(0, min(count, DRAWN), 50_000)
    ]
    drawn = Codes(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    chosen = np.concatenate(
        [np.arange(len(drawn)), rng.integers(0, len(drawn), count - len(drawn))]
    )
    lists, codes = drawn.lists[chosen], drawn.codes[chosen]
    rows = np.arange(len(drawn), count)
    for _ in range(2):
        codes[rows, rng.integers(0, codec.code_size, len(rows))] = rng.integers(0, 256, len(rows))
    return Codes(lists, codes)


def of_bytes(of: Segment, codec: Codec) -> Any:
    """FAISS's index of a segment's lists, with one code of 8 bits for two of 4."""
    dimension, lists = codec.coarse.shape[1], len(of.counts)
    index: Any = faiss.IndexIVFPQ(
        faiss.IndexFlatIP(dimension),
        dimension,
        lists,
        codec.code_size,
        8,
        faiss.METRIC_INNER_PRODUCT,
    )
    centroids = np.repeat(codec.coarse, of.cells, axis=0)
    index.quantizer.add(centroids)
    faiss.copy_array_to_vector(codec.codebooks.ravel(), index.pq.centroids)
    index.is_trained, index.use_precomputed_table = True, -1
    for centroid in range(len(codec.coarse)):
        ids, codes = of.taken(centroid, centroid + 1)
        at = 0
        for number in range(centroid * of.cells, (centroid + 1) * of.cells):
            some = slice(at, at + int(of.counts[number]))
            rows, numbers = np.ascontiguousarray(codes.codes[some]), np.ascontiguousarray(ids[some])
            index.invlists.add_entries(
                number, len(rows), faiss.swig_ptr(numbers), faiss.swig_ptr(rows)
            )
            at = some.stop
    index.ntotal = len(of)
    return index


def median_of(ways: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """CPU seconds of each way, all in turn in each round."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS + 1):
        for name, way in ways.items():
            begun = time.process_time()
            way()
            if number:
                spent[name].append(time.process_time() - begun)
    return {name: statistics.median(times) for name, times in spent.items()}


def measure(encoder: Encoder, size: int, compared: int) -> str:
    """One row of the table."""
    codec = encoder.codec
    rng = np.random.default_rng(0)
    of = arrange(codes_like(encoder, size, rng), codec)
    index = of_bytes(of, codec)
    share = min(1.0, compared / size)
    batches = np.split(draw(encoder, QUERIES, rng), QUERIES // BATCH)
    parts = {0: of}
    kept = kept_of(parts, np.empty((0, 2), np.int64))
    doubled = [segment.doubled(batch, codec.code_size) for batch in batches]
    probed = [_Query(batch, share, codec)._probes(of.cells) for batch in batches]
    read_again: list[int] = []
    scan = blocks.scan

    def counted(rows: NDArray[np.int64], *more: Any) -> Any:
        read_again.append(len(rows))
        return scan(rows, *more)

    def preassigned(index: Any, queries: list[NDArray[np.float32]]) -> list[Any]:
        found = []
        for batch, (lists, centroids) in zip(queries, probed, strict=True):
            index.nprobe = lists.shape[1]
            found.append(index.search_preassigned(batch, COUNT, lists, centroids))
        return found

    def ours() -> list[Any]:
        return [nearest(batch, COUNT, share, parts, kept, codec) for batch in batches]

    blocks.scan = counted
    found = ours()
    blocks.scan = scan
    for (similarity, _), (expected, _) in zip(found, preassigned(index, batches), strict=True):
        assert np.allclose(similarity, expected, atol=1e-5)
    spent = median_of(
        {
            "segment": ours,
            "fast scan": lambda: preassigned(of.index, doubled),
            "8 bits": lambda: preassigned(index, batches),
            "coarse": lambda: [_Query(batch, share, codec)._probes(of.cells) for batch in batches],
        }
    )
    each = {name: 1e6 * seconds / QUERIES for name, seconds in spent.items()}
    cells = (
        f"{size:,}",
        f"{probed[0][0].shape[1]:,} of {len(of.counts):,}",
        *(f"{each[name]:,.0f}" for name in ("segment", "fast scan", "8 bits", "coarse")),
        f"{(each['8 bits'] + each['coarse']) / each['segment']:.1f}",
        f"{100 * sum(read_again) / QUERIES:.1f} %",
    )
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[14_000, 200_000, 4_200_000])
    parser.add_argument("--compared", type=int, nargs="+", default=[100_000])
    parser.add_argument("--encoder", type=Path)
    args = parser.parse_args()
    faiss.omp_set_num_threads(1)
    encoder = Encoder.load(args.encoder)
    print(
        "| embeddings | lists probed | segment, µs | fast scan | 8 bits | coarse | ratio | again |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for size in args.sizes:
        for compared in args.compared:
            print(measure(encoder, size, compared), flush=True)


if __name__ == "__main__":
    main()
