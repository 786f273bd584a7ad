"""Whether queries that wait together are cheaper answered together: CPU time, joint over separate.

    python -m benchmarks.batching [--sizes 400000 4000000] [--queries 2 8 16]

The search for the nearest stored embeddings, of queries of 5 s (74 embeddings, 40 neighbours each, as
`index.search` asks): one call for all with the kernel as it is, and with one that goes through each probed
list once for all queries' embeddings, against one call for each. And the encoder on their spectrograms,
joined, against one run for each. Rounds go through all in turn on one thread; the median of their ratios is
given. Codes and queries are drawn like `benchmarks.neighbours` does it. All find the same, up to what BLAS
makes of matrices of other heights in the last digit.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from numba import njit
from numpy.typing import NDArray

from benchmarks.neighbours import draw
from fingerprint.codec import Codec
from fingerprint.encoder import Encoder
from fingerprint.fingerprint import QUERY_EVERY
from fingerprint.spectrogram import BANDS
from index.neighbours import _probed, _replace_least, _sum_of_16, nearest
from index.search import THOROUGH
from index.segment import Codes, Segment, arrange, concatenate

EMBEDDINGS = 74  # of a query of 5 s
ROUNDS = 5


def nearest_by_list(
    embeddings: NDArray[np.float32], count: int, share: float, segment: Segment, codec: Codec
) -> NDArray[np.float32]:
    """Similarities [shape=(n, count)] of the nearest: each list, or cell, is gone through once for all."""
    to_lists, to_cells = embeddings @ codec.coarse.T, embeddings @ codec.cells.T
    probed = _probed(to_lists, to_cells, share, segment.cells, codec)
    slices, entries, width = codec.codebooks.shape
    parts = embeddings.reshape(len(embeddings), slices, width).transpose(1, 0, 2)
    tables = np.empty((len(embeddings), slices, entries), np.float32)
    for s in range(slices):
        tables[:, s] = parts[s] @ codec.codebooks[s].T
    order = np.argsort(probed.ravel(), kind="stable")
    asking = order // probed.shape[1]  # embeddings that probe the first list, then the second, …
    bounds = np.searchsorted(probed.ravel()[order], np.arange(segment.places.shape[1] + 1))
    similarity = np.full((len(embeddings), count), -np.inf, np.float32)
    numbers = np.full((len(embeddings), count), -1, np.int64)
    _scan_by_list(
        tables.reshape(len(embeddings), slices * entries),
        to_lists,
        segment.cells,
        asking,
        bounds,
        segment.places,
        segment.codes,
        similarity,
        numbers,
    )
    return -np.sort(-similarity, axis=1)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _scan_by_list(tables, close, cells, asking, who, places, codes, similarity, numbers):
    ends = np.append(places[0, 1:], len(codes))
    for number in range(len(who) - 1):
        for k in range(who[number], who[number + 1]):
            i = asking[k]
            least = similarity[i, 0]
            for place in range(places[0, number], ends[number]):
                value = close[i, number // cells] + _sum_of_16(tables[i], codes, place)
                if value > least:
                    _replace_least(similarity[i], numbers[i], value, place)
                    least = similarity[i, 0]


def _each_embedded(encoder: Encoder, clips: list[NDArray[np.float32]]) -> None:
    for clip in clips:
        encoder.embed(clip, QUERY_EVERY)


def compared(ways: dict[str, Callable[[], object]]) -> dict[str, float]:
    """CPU time of each way over that of the first: median of the rounds, after one that does not count."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS + 1):
        for name, way in ways.items():
            started = time.process_time()
            way()
            spent[name].append(time.process_time() - started)
    first = next(iter(spent.values()))
    return {
        name: statistics.median(a / b for a, b in zip(times[1:], first[1:], strict=True))
        for name, times in spent.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[400_000, 4_000_000])
    parser.add_argument("--queries", type=int, nargs="+", default=[2, 8, 16])
    args = parser.parse_args()
    encoder = Encoder.load()
    codec = encoder.codec
    rng = np.random.default_rng(0)
    none = np.empty((0, 2), np.int64)
    for size in args.sizes:
        drawn = Codes(*codec.encode(draw(encoder, min(size, 200_000), rng)))
        stored = concatenate([drawn] * -(-size // len(drawn)), codec.code_size)[:size]
        segment = arrange(stored, codec)
        share = min(THOROUGH.probes / len(codec.coarse), THOROUGH.compared / size)
        for count in args.queries:
            queries = [draw(encoder, EMBEDDINGS, rng) for _ in range(count)]
            together = np.concatenate(queries)

            def search(
                embeddings: NDArray[np.float32], share: float = share, segment: Segment = segment
            ) -> NDArray[np.float32]:
                return nearest(embeddings, THOROUGH.neighbours, share, {0: segment}, none, codec)[0]

            def separately(queries: list = queries, search: Callable = search) -> NDArray:
                return np.concatenate([search(query) for query in queries])

            def by_list(
                together: NDArray = together, share: float = share, segment: Segment = segment
            ) -> NDArray:
                return nearest_by_list(together, THOROUGH.neighbours, share, segment, codec)

            assert np.allclose(separately(), by_list(), atol=1e-5)
            ratios = compared(
                {
                    "separate": separately,
                    "joint": partial(search, together),
                    "joint, list by list": by_list,
                }
            )
            told = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
            print(
                f"{size:,} embeddings, {share:.1%} of the lists or cells, {count} queries: {told}",
                flush=True,
            )
    frames = encoder.window + (EMBEDDINGS - 1) * encoder.hop * QUERY_EVERY
    for count in args.queries:
        clip = rng.standard_normal((frames, BANDS)).astype(np.float32)
        joined = np.concatenate([clip] * count)
        ratios = compared(
            {
                "separate": partial(_each_embedded, encoder, [clip] * count),
                "joint": partial(encoder.embed, joined, QUERY_EVERY),
            }
        )
        told = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
        print(f"encoder, {count} queries: {told}", flush=True)


if __name__ == "__main__":
    main()
