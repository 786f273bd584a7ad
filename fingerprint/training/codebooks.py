"""Codebooks and background of an encoder, trained on its embeddings of music, and its weights file.

    python -m fingerprint.training.codebooks MANIFEST SAMPLES FOLDER [--code-sizes 8 16 32]

writes the encoder that ships anew with codes of each size, FOLDER/SIZE.safetensors, all trained on the same
embeddings of the manifest's music (see `fingerprint.training.dataset`). The rotation of optimised product
quantisation is folded into the last layer. The background statistics are mean and covariance of the
embeddings of music at large.
"""

import argparse
import json
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from fingerprint.audio import SAMPLE_RATE
from fingerprint.codec import Codec
from fingerprint.convolution import Layer
from fingerprint.encoder import Encoder, front_end_parameters
from fingerprint.fingerprint import REFERENCE_EVERY
from fingerprint.spectrogram import spectrogram
from fingerprint.training.dataset import music

LISTS = 1024  # coarse centroids
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
    residuals = embeddings - coarse[nearest[:, 0]]
    opq = faiss.OPQMatrix(dimension, code_size)
    opq.niter = 20
    opq.train(residuals)
    rotation = faiss.vector_to_array(opq.A).reshape(dimension, dimension).T
    quantiser = faiss.ProductQuantizer(dimension, code_size, 8)
    quantiser.train(np.ascontiguousarray(residuals @ rotation))
    books = faiss.vector_to_array(quantiser.centroids).reshape(code_size, 256, -1)
    return Codec(half_precision(coarse @ rotation), half_precision(books)), rotation


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
        "codec.coarse": codec.coarse.astype(np.float16),
        "codec.codebooks": codec.codebooks.astype(np.float16),
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
    save_file(tensors, path, {name: json.dumps(value) for name, value in metadata.items()})
    return Encoder.load(path)


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
    args = parser.parse_args()
    shipped = Encoder.load()
    works = music(args.manifest, args.samples)
    embeddings = embeddings_of(shipped.layers, works)
    for size in args.code_sizes:
        path = args.folder / f"{size}.safetensors"
        recipe = {"layers": shipped.id, "works": len(works)}
        encoder = export(shipped.layers, embeddings, path, recipe, size)
        print(f"{path}: encoder {encoder.id}")


if __name__ == "__main__":
    main()
