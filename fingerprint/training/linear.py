"""The baseline: one discriminative linear projection of the patch (mel-PCA, whitened by what copying does).

    python -m fingerprint.training.linear MANIFEST SAMPLES WEIGHTS

Pairs of clean and degraded windows give the covariance of music and the covariance of the difference
that copying makes. In the music's leading principal components, the directions with most of the first
against the second are kept (Fisher's linear discriminant); a learned encoder has to beat that.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fingerprint.convolution import Layer
from fingerprint.spectrogram import BANDS
from fingerprint.training.augment import Chance
from fingerprint.training.batches import Corpus
from fingerprint.training.codebooks import embeddings_of, export
from fingerprint.training.dataset import music
from fingerprint.training.model import Shape

COMPONENTS = 512  # principal components in which the discriminant is sought
SEGMENTS = 64  # works in a batch of pairs


def discriminant(
    clean: NDArray[np.float64], difference: NDArray[np.float64], dimension: int
) -> NDArray[np.float64]:
    """Directions [shape=(n, dimension)] of most clean variance against that of the difference.

    Both covariances are [shape=(n, n)]; projections on the directions have difference variance 1.
    """
    _, vectors = np.linalg.eigh(clean)
    components = vectors[:, -COMPONENTS:]
    within = components.T @ difference @ components
    values, axes = np.linalg.eigh(within)
    whiten = axes / np.sqrt(values + 1e-3 * values.mean())
    between = whiten.T @ (components.T @ clean @ components) @ whiten
    _, best = np.linalg.eigh(between)
    return components @ whiten @ best[:, ::-1][:, :dimension]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("samples", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--batches", type=int, default=60)
    args = parser.parse_args()
    corpus = Corpus(args.manifest, args.samples)
    shape = Shape()
    frames = shape.frames
    size = frames * BANDS
    mean, count = np.zeros(size), 0
    clean, difference = np.zeros((size, size)), np.zeros((size, size))
    for k in range(args.batches):
        batch = corpus.batch(Chance("cpu", 2, k), SEGMENTS, frames)
        x = batch.clean.reshape(-1, size).numpy()
        d = batch.degraded.reshape(-1, size).numpy() - x
        mean += x.sum(axis=0)
        clean += x.T @ x
        difference += d.T @ d
        count += len(x)
    mean /= count
    directions = discriminant(
        clean / count - np.outer(mean, mean), difference / count, shape.dimension
    )
    layer = Layer(
        frames,
        4,
        BANDS,
        1,
        0,
        False,
        directions.astype(np.float32),
        (-mean @ directions).astype(np.float32),
    )
    works = music(args.manifest, args.samples)
    recipe = {"kind": "linear discriminant", "pairs": count, "works": len(works)}
    encoder = export([layer], embeddings_of([layer], works), args.weights, recipe)
    print(f"{args.weights}: encoder {encoder.id}")


if __name__ == "__main__":
    main()
