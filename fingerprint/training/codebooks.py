"""Codebooks and background of an encoder, trained on its embeddings of music, and its weights file.

    python -m fingerprint.training.codebooks MANIFEST SAMPLES FOLDER [--code-sizes 8 16 32]
    python -m fingerprint.training.codebooks MANIFEST SAMPLES FOLDER --books-alone

writes the encoder that ships anew with codes of each size, FOLDER/SIZE.safetensors, all trained on the same
embeddings of the manifest's music (see `fingerprint.training.dataset`). The rotation of optimised product
quantisation is folded into the last layer. The background statistics are mean and covariance of the
embeddings of music at large. With --books-alone only books and cells are trained anew; centroids,
rotation and background stay.

Printed is the mean squared error of the codes on a tenth of the works, which is not trained on.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save_file

from fingerprint.audio import SAMPLE_RATE
from fingerprint.codec import Codec, sums
from fingerprint.convolution import Layer
from fingerprint.encoder import SHIPPED, Encoder, front_end_parameters, layers_of
from fingerprint.fingerprint import REFERENCE_EVERY
from fingerprint.spectrogram import spectrogram
from fingerprint.training.dataset import music

LISTS = 1024  # coarse centroids
CELLS = 16  # second centroids: 1024 lists of 16 cells are numbered by two bytes
ROUNDS = 25  # of training books; the error falls by less than 0.1 % in the last five
RIDGE = 1e-3  # of the mean number of vectors of a sum
HELD_OUT = 10  # one in so many works is not trained on
CODE_SIZE = 16  # bytes an embedding, beside the number of its list
EXCERPT = 60.0  # seconds of each work that codebooks are trained on: variety counts, not length


def train_codec(
    embeddings: NDArray[np.float32], lists: int, code_size: int
) -> tuple[Codec, NDArray[np.float32]]:
    """Codec of rotated embeddings, and the rotation [shape=(d, d)] (rotated = embeddings @ it)."""
    dimension = embeddings.shape[1]
    kmeans = faiss.Kmeans(dimension, lists, niter=15, seed=1, max_points_per_centroid=256)
    kmeans.train(embeddings)
    coarse = np.asarray(kmeans.centroids, np.float32)
    _, nearest = kmeans.index.search(embeddings, 1)
    opq = faiss.OPQMatrix(dimension, code_size)
    opq.niter = 20
    opq.train(embeddings - coarse[nearest[:, 0]])
    rotation = faiss.vector_to_array(opq.A).reshape(dimension, dimension).T
    return recoded(embeddings @ rotation, half_precision(coarse @ rotation), code_size), rotation


def recoded(embeddings: NDArray[np.float32], coarse: NDArray[np.float32], code_size: int) -> Codec:
    """Codec of these centroids [shape=(lists, d)], books and cells trained on embeddings [shape=(n, d)]."""
    lists = Codec(coarse, np.zeros((1, 2, 16, coarse.shape[1]), np.float32)).lists(embeddings)
    slices = np.split(embeddings - coarse[lists], code_size, axis=1)
    books = half_precision(np.stack([train_books(np.ascontiguousarray(part)) for part in slices]))
    codec = Codec(coarse, books)
    cells = train_cells(*codec.encode(embeddings), codec)
    return Codec(coarse, books, half_precision(cells))


def train_books(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Two books [shape=(2, 16, width)] whose sums are near to vectors [shape=(n, width)].

    The second one begins as the centroids of what the first, k-means, leaves. Then, in turns, each vector
    takes its nearest sum, and the books become those of least squared error for these choices.
    """
    count = len(x)
    books = np.empty((2, 16, x.shape[1]), np.float32)
    rest = x
    for book in range(2):
        kmeans = faiss.Kmeans(x.shape[1], 16, niter=15, seed=1, max_points_per_centroid=4000)
        kmeans.train(rest)
        books[book] = kmeans.centroids
        _, nearest = kmeans.index.search(rest, 1)
        rest = np.ascontiguousarray(rest - books[book][nearest[:, 0]])
    for _ in range(ROUNDS):
        entries = sums(books[None])[0]
        byte = np.argmax(x @ entries.T - 0.5 * np.sum(entries**2, axis=1), axis=1)
        chosen = np.stack([byte // 16, 16 + byte % 16], axis=1)
        # normal equations of 32 unknown entries, each vector the sum of two of them
        pairs = np.bincount(byte, minlength=256).reshape(16, 16)
        gram = np.block(
            [[np.diag(pairs.sum(axis=1)), pairs], [pairs.T, np.diag(pairs.sum(axis=0))]]
        )
        totals = np.zeros((32, x.shape[1]))
        for half in range(2):
            np.add.at(totals, chosen[:, half], x)
        # a constant can move from one book to the other: the ridge says where it stays
        ridge = RIDGE * count / 256 * np.eye(32)
        books = np.linalg.solve(gram + ridge, totals).reshape(books.shape).astype(np.float32)
    return books


def train_cells(
    lists: NDArray[np.uint16], codes: NDArray[np.uint8], codec: Codec
) -> NDArray[np.float32]:
    """Second centroids [shape=(CELLS, dimension)] of the residuals that codes decode to."""
    parts = [book[codes[:, s]] for s, book in enumerate(codec.codebooks)]
    dimension = codec.coarse.shape[1]
    kmeans = faiss.Kmeans(dimension, CELLS, niter=25, seed=1, max_points_per_centroid=20_000)
    kmeans.train(np.concatenate(parts, axis=1))
    return np.asarray(kmeans.centroids, np.float32)


def squared_error(embeddings: NDArray[np.float32], codec: Codec) -> float:
    """Mean squared distance of embeddings and the sums that their codes name, before these get length 1."""
    lists, codes = codec.encode(embeddings)
    parts = [book[codes[:, s]] for s, book in enumerate(codec.codebooks)]
    rest = embeddings - codec.coarse[lists] - np.concatenate(parts, axis=1)
    return float(np.mean(np.sum(rest**2, axis=1)))


def half_precision(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """What float16, in which weights are shipped, leaves of x."""
    return x.astype(np.float16).astype(np.float32)


def rotated(layer: Layer, rotation: NDArray[np.float32]) -> Layer:
    """A last layer whose outputs are rotated."""
    return Layer(
        layer.time,
        layer.time_stride,
        layer.band,
        layer.band_stride,
        layer.band_padding,
        layer.rectify,
        layer.weight @ rotation,
        layer.bias @ rotation,
    )


def embeddings_of(layers: list[Layer], works: list[Path]) -> NDArray[np.float32]:
    """What these layers make of the works' middles [shape=(n, dimension)]."""
    plain = Encoder(layers, None, "", None, None)  # type: ignore[arg-type]
    embeddings = np.concatenate(
        [plain.embed(spectrogram(_excerpt(work)), REFERENCE_EVERY) for work in works]
    )
    return embeddings[np.linalg.norm(embeddings, axis=1) > 0.5]


def export(
    layers: list[Layer],
    embeddings: NDArray[np.float32],
    path: Path,
    recipe: dict[str, object],
    code_size: int = CODE_SIZE,
) -> Encoder:
    """Train codec and background on the layers' embeddings of music and write the weights file."""
    codec, rotation = train_codec(embeddings, LISTS, code_size)
    embeddings = embeddings @ rotation
    layers = [*layers[:-1], rotated(layers[-1], rotation)]
    tensors: dict[str, NDArray] = {
        **codec_tensors(codec),
        "background.mean": embeddings.mean(axis=0),
        "background.covariance": np.cov(embeddings.T).astype(np.float32),
    }
    for i, layer in enumerate(layers):
        tensors[f"layer{i}.weight"] = np.ascontiguousarray(layer.weight, np.float16)
        tensors[f"layer{i}.bias"] = np.ascontiguousarray(layer.bias, np.float32)
    geometry = ("time", "time_stride", "band", "band_stride", "band_padding", "rectify")
    metadata = {
        "layers": [{name: getattr(layer, name) for name in geometry} for layer in layers],
        "front_end": front_end_parameters(),
        "recipe": recipe,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, _as_text(metadata))
    return Encoder.load(path)


def codec_tensors(codec: Codec) -> dict[str, NDArray]:
    """A codec as a weights file holds it."""
    parts = {"coarse": codec.coarse, "books": codec.books, "cells": codec.cells}
    return {f"codec.{name}": part.astype(np.float16) for name, part in parts.items()}


def recode(
    weights: Path, embeddings: NDArray[np.float32], path: Path, recipe: dict[str, object]
) -> Encoder:
    """Write a weights file again, with books and cells trained on its embeddings; `recipe` says on which."""
    tensors, metadata = read_weights(weights)
    codec = recoded(embeddings, tensors["codec.coarse"].astype(np.float32), CODE_SIZE)
    kept = {name: part for name, part in tensors.items() if not name.startswith("codec.")}
    metadata["recipe"] |= recipe
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(kept | codec_tensors(codec), path, _as_text(metadata))
    return Encoder.load(path)


def read_weights(path: Path) -> tuple[dict[str, NDArray], dict[str, Any]]:
    """Tensors and metadata of a weights file."""
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return load_tensors(data), {k: json.loads(v) for k, v in header["__metadata__"].items()}


def _as_text(metadata: dict[str, Any]) -> dict[str, str]:
    return {name: json.dumps(value) for name, value in metadata.items()}


def _excerpt(work: Path) -> NDArray[np.float32]:
    """The middle of a work [shape=(n,)]."""
    samples = np.load(work, mmap_mode="r")
    length = int(EXCERPT * SAMPLE_RATE)
    first = max(0, (len(samples) - length) // 2)
    return samples[first : first + length].astype(np.float32) / np.float32(32768)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("samples", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--code-sizes", type=int, nargs="+", default=[8, 16, 32], metavar="BYTES")
    parser.add_argument("--books-alone", action="store_true", help="keep centroids and rotation")
    parser.add_argument(
        "--weights", type=Path, default=SHIPPED, help="of an encoder; default: ours"
    )
    args = parser.parse_args()
    layers = layers_of(*read_weights(args.weights))
    works = music(args.manifest, args.samples)
    held = works[::HELD_OUT]
    trained_on = [work for work in works if work not in set(held)]
    embeddings = embeddings_of(layers, trained_on)
    made = hashlib.sha256(args.weights.read_bytes()).hexdigest()[:16]
    for size in [CODE_SIZE] if args.books_alone else args.code_sizes:
        path = args.folder / f"{size}.safetensors"
        if args.books_alone:
            recipe = {"codec_of": made, "codec_works": len(trained_on)}
            encoder = recode(args.weights, embeddings, path, recipe)
        else:
            recipe = {"layers": made, "works": len(trained_on)}
            encoder = export(layers, embeddings, path, recipe, size)
        error = squared_error(embeddings_of(encoder.layers, held), encoder.codec)
        print(f"{path}: encoder {encoder.id}, squared error {error:.4f} on {len(held)} other works")


if __name__ == "__main__":
    main()
