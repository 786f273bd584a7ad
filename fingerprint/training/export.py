"""From a checkpoint to the weights file that Earmark runs: layers, codebooks, background.

    python -m fingerprint.training.export MANIFEST SAMPLES CHECKPOINT WEIGHTS

Batch normalisation is folded into the convolutions and the rotation of optimised product quantisation
into the last layer. Centroids, codebooks and the background statistics (mean and covariance of the
embeddings of music at large, against which a similarity is judged) are those of the manifest's music.
"""

import argparse
import json
from pathlib import Path

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch.optim.swa_utils import AveragedModel

from fingerprint.audio import SAMPLE_RATE
from fingerprint.codec import Codec
from fingerprint.encoder import Encoder, Layer, front_end_parameters
from fingerprint.fingerprint import REFERENCE_EVERY
from fingerprint.spectrogram import spectrogram
from fingerprint.training.dataset import music
from fingerprint.training.model import LAYERS
from fingerprint.training.model import Encoder as TorchEncoder

LISTS = 1024  # coarse centroids
CODE_SIZE = 16  # bytes an embedding, beside the number of its list
EXCERPT = 60.0  # seconds of each work that codebooks are trained on: variety counts, not length


def layers_of(model: TorchEncoder) -> list[Layer]:
    """The layers of a trained model as the encoder runs them."""
    layers = []
    modules = list(model.layers)
    for i, (_, time, time_stride, band, band_stride) in enumerate(LAYERS):
        convolution, norm = modules[3 * i], modules[3 * i + 1]
        scale = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach()
        weight = convolution.weight.detach() * scale[:, None, None, None]
        bias = norm.bias.detach() - norm.running_mean * scale
        layers.append(
            Layer(
                time,
                time_stride,
                band,
                band_stride,
                0 if i == len(LAYERS) - 1 else 1,
                True,
                np.ascontiguousarray(weight.permute(2, 3, 1, 0).flatten(0, 2).numpy()),
                bias.numpy(),
            )
        )
    project = model.project
    layers.append(
        Layer(
            1, 1, 1, 1, 0, False, project.weight.detach().T.numpy(), project.bias.detach().numpy()
        )
    )
    return layers


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


def export(
    layers: list[Layer], works: list[Path], path: Path, recipe: dict[str, object]
) -> Encoder:
    """Train codec and background on the works' embeddings and write the weights file."""
    plain = Encoder(layers, None, "", None, None)  # type: ignore[arg-type]
    embeddings = np.concatenate(
        [plain.embed(spectrogram(_excerpt(work)), REFERENCE_EVERY) for work in works]
    )
    embeddings = embeddings[np.linalg.norm(embeddings, axis=1) > 0.5]
    codec, rotation = train_codec(embeddings, LISTS, CODE_SIZE)
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


def encoder_of(checkpoint: Path) -> Encoder:
    """The encoder of a checkpoint of training, without codec, background and id."""
    layers, _ = trained(checkpoint)
    return Encoder(layers, None, "", None, None)  # type: ignore[arg-type]


def trained(checkpoint: Path) -> tuple[list[Layer], int]:
    """The layers of a checkpoint's mean weights, and its steps."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    average = AveragedModel(TorchEncoder())
    average.load_state_dict(state["average"])
    model = average.module.eval()
    return layers_of(model), state["step"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("samples", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("weights", type=Path)
    args = parser.parse_args()
    layers, steps = trained(args.checkpoint)
    works = music(args.manifest, args.samples)
    recipe = {"loss": "NT-Xent", "steps": steps, "works": len(works)}
    encoder = export(layers, works, args.weights, recipe)
    print(f"{args.weights}: encoder {encoder.id}")


if __name__ == "__main__":
    main()
