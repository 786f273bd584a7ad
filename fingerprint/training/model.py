"""The encoder as torch trains it. `fingerprint.encoder` runs the same layers without torch."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from fingerprint.convolution import Layer
from fingerprint.errors import EarmarkError, reason_of

# (kernel and stride over time, kernel and stride over frequency) of the convolutions before the last; time
# is not padded, frequency by one on both sides. The last one takes all bands that are left.
CONVOLUTIONS = ((3, 2, 3, 2), (3, 2, 3, 2), (3, 1, 3, 2), (3, 1, 3, 2), (3, 1, 3, 2))
LAST_BANDS = 3
SAVED = ("model", "average", "optimiser", "step", "pairs", "shape", "folded")  # in a checkpoint


class TrainingError(EarmarkError):
    """Training cannot begin or go on."""


@dataclass(frozen=True)
class Shape:
    """What may be chosen of an encoder; the defaults are those of the one that ships.

    Attributes
    ----------
    channels : of the convolutions, in order
    last : frames that the last one looks at, of 0.1 s each
    dimension : of the embeddings
    """

    channels: tuple[int, ...] = (24, 48, 64, 128, 192, 256)
    last: int = 4
    dimension: int = 128

    @property
    def layers(self) -> list[tuple[int, int, int, int, int]]:
        """Channels out, kernel and stride over time, kernel and stride over frequency."""
        kernels = (*CONVOLUTIONS, (self.last, 1, LAST_BANDS, 1))
        return [(out, *kernel) for out, kernel in zip(self.channels, kernels, strict=True)]

    @property
    def frames(self) -> int:
        """Frames that one embedding looks at."""
        frames, jump = 1, 1
        for _, time, stride, _, _ in self.layers:
            frames += (time - 1) * jump
            jump *= stride
        return frames


class Encoder(nn.Module):
    """Windows [shape=(n, shape.frames, bands)] → embeddings of length 1 [shape=(n, dimension)]."""

    def __init__(self, shape: Shape | None = None) -> None:
        super().__init__()
        self.shape = shape or Shape()
        blocks: list[nn.Module] = []
        channels = 1
        layers = self.shape.layers
        for i, (out, time, time_stride, band, band_stride) in enumerate(layers):
            last = i == len(layers) - 1
            blocks.append(
                nn.Conv2d(
                    channels,
                    out,
                    (time, band),
                    (time_stride, band_stride),
                    padding=(0, 0 if last else 1),
                    bias=False,
                )
            )
            blocks.append(nn.BatchNorm2d(out))
            blocks.append(nn.ReLU())
            channels = out
        self.layers = nn.Sequential(*blocks)
        self.project = nn.Linear(channels, self.shape.dimension)
        self.folded = False  # whether normalisation is in the convolutions, as of shipped weights

    def hold_normalisation(self) -> None:
        """Keep the normalisation, which does nothing any more, from moving."""
        self.folded = True
        for module in self.layers:
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

    def forward(self, windows: Tensor) -> Tensor:
        x = self.layers(windows.unsqueeze(1).contiguous(memory_format=torch.channels_last))
        x = self.project(x.flatten(2).mean(2))
        return nn.functional.normalize(x.float(), dim=1)


def start_from(model: Encoder, layers: list[Layer]) -> None:
    """Give a model the weights of a shipped encoder.

    Its normalisation is already in them, so the model's does nothing, and is kept from moving.
    Raises ValueError if the layers are another model's.
    """
    convolutions = [module for module in model.layers if isinstance(module, nn.Conv2d)]
    norms = [module for module in model.layers if isinstance(module, nn.BatchNorm2d)]
    *convolved, projected = layers
    if [len(layer.bias) for layer in layers] != [*model.shape.channels, model.shape.dimension]:
        raise ValueError("the weights to start from are of another shape than the model")
    with torch.no_grad():
        for convolution, norm, layer in zip(convolutions, norms, convolved, strict=True):
            out, inputs, time, band = convolution.weight.shape
            weight = torch.from_numpy(layer.weight).reshape(time, band, inputs, out)
            convolution.weight.copy_(weight.permute(3, 2, 0, 1))
            norm.running_var.fill_(1 - norm.eps)
            norm.bias.copy_(torch.from_numpy(layer.bias))
        model.project.weight.copy_(torch.from_numpy(projected.weight).T)
        model.project.bias.copy_(torch.from_numpy(projected.bias))
    model.hold_normalisation()


def checkpoint_of(path: Path, device: str = "cpu") -> dict[str, Any]:
    """What training saved. Raises TrainingError if the file is damaged or something else."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        return {key: state[key] for key in SAVED}
    except (RuntimeError, OSError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f"{path}: not a whole checkpoint ({reason_of(error).splitlines()[0]}): put it aside to begin anew"
        ) from None


def mean_of(checkpoint: Path) -> tuple[Encoder, int]:
    """The model of a checkpoint's mean weights, and how many pairs it has seen."""
    state = checkpoint_of(checkpoint)
    average = AveragedModel(Encoder(Shape(**state["shape"])))
    average.load_state_dict(state["average"])
    average.module.folded = state["folded"]
    return average.module.eval(), state["pairs"]
