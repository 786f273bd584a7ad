"""From a checkpoint to the weights file that Earmark runs: layers, codebooks, background.

    python -m fingerprint.training.export MANIFEST SAMPLES CHECKPOINT WEIGHTS

Batch normalisation is folded into the convolutions; the rest is that of `fingerprint.training.codebooks`.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from fingerprint.convolution import Layer
from fingerprint.encoder import Encoder
from fingerprint.training.codebooks import embeddings_of, export
from fingerprint.training.dataset import music
from fingerprint.training.model import Encoder as TorchEncoder
from fingerprint.training.model import mean_of


def layers_of(model: TorchEncoder) -> list[Layer]:
    """The layers of a trained model as the encoder runs them."""
    layers = []
    modules = list(model.layers)
    shape = model.shape.layers
    for i, (_, time, time_stride, band, band_stride) in enumerate(shape):
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
                0 if i == len(shape) - 1 else 1,
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


def encoder_of(checkpoint: Path) -> Encoder:
    """The encoder of a checkpoint of training, without codec, background and id."""
    model, _ = mean_of(checkpoint)
    return Encoder(layers_of(model), None, "", None, None)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("samples", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("weights", type=Path)
    args = parser.parse_args()
    model, pairs = mean_of(args.checkpoint)
    layers = layers_of(model)
    works = music(args.manifest, args.samples)
    recipe = {"loss": "NT-Xent", "pairs": pairs, "works": len(works)}
    encoder = export(layers, embeddings_of(layers, works), args.weights, recipe)
    print(f"{args.weights}: encoder {encoder.id}")


if __name__ == "__main__":
    main()
