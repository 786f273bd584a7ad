"""Whether queries that wait together are cheaper answered together: CPU time, joint over separate.

    python -m benchmarks.experiments.batching [--sizes 400000 4000000] [--queries 2 8 16]

The search for the nearest stored embeddings, of queries of 5 s (74 embeddings, 40 neighbours each, as
`index.search` asks): one call for all, in which FAISS goes through each probed list for eleven queries at a
time, against one call for each. And the encoder on their spectrograms, joined, against one run for each.
Rounds go through all in turn on one thread; the median of their ratios is given. Codes and queries are drawn
like `benchmarks.experiments.neighbours` does it.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.experiments.neighbours import codes_like, draw
from fingerprint.encoder import Encoder
from fingerprint.fingerprint import QUERY_EVERY
from fingerprint.spectrogram import BANDS
from index.neighbours import kept_of, nearest
from index.search import THOROUGH
from index.segment import arrange

EMBEDDINGS = 74  # of a query of 5 s
ROUNDS = 5


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
    for size in args.sizes:
        segments = {0: arrange(codes_like(encoder, size, rng), codec)}
        kept = kept_of(segments, np.empty((0, 2), np.int64))
        share = min(THOROUGH.probes / len(codec.coarse), THOROUGH.compared / size)
        for count in args.queries:
            queries = [draw(encoder, EMBEDDINGS, rng) for _ in range(count)]
            together = np.concatenate(queries)

            search = partial(
                nearest,
                count=THOROUGH.neighbours,
                share=share,
                segments=segments,
                kept=kept,
                codec=codec,
            )

            def separately(queries: list = queries, search: Callable = search) -> list:
                return [search(query) for query in queries]

            ratios = compared(
                {
                    "separate": separately,
                    "joint": partial(search, together),
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
