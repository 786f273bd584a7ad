"""The encoder as torch trains it. `fingerprint.encoder` runs the same layers without torch."""

import torch
from torch import Tensor, nn

from fingerprint.convolution import Layer

# (channels out, kernel and stride over time, kernel and stride over frequency); time is not padded,
# frequency is padded by one on both sides where its kernel is 3. The last layer takes all bands left.
LAYERS = (
    (24, 3, 2, 3, 2),
    (48, 3, 2, 3, 2),
    (64, 3, 1, 3, 2),
    (128, 3, 1, 3, 2),
    (192, 3, 1, 3, 2),
    (256, 4, 1, 3, 1),
)
DIMENSION = 128


class Encoder(nn.Module):
    """Windows [shape=(n, frames, bands)] → embeddings of length 1 [shape=(n, DIMENSION)]."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        channels = 1
        for i, (out, time, time_stride, band, band_stride) in enumerate(LAYERS):
            last = i == len(LAYERS) - 1
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
        self.project = nn.Linear(channels, DIMENSION)

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
    if [len(layer.bias) for layer in layers] != [out for out, *_ in LAYERS] + [DIMENSION]:
        raise ValueError("the weights to start from are of another shape than the model")
    with torch.no_grad():
        for convolution, norm, layer in zip(convolutions, norms, convolved, strict=True):
            out, inputs, time, band = convolution.weight.shape
            weight = torch.from_numpy(layer.weight).reshape(time, band, inputs, out)
            convolution.weight.copy_(weight.permute(3, 2, 0, 1))
            norm.running_var.fill_(1 - norm.eps)
            norm.bias.copy_(torch.from_numpy(layer.bias))
            norm.eval()
        model.project.weight.copy_(torch.from_numpy(projected.weight).T)
        model.project.bias.copy_(torch.from_numpy(projected.bias))


def window_frames() -> int:
    """Frames that one embedding looks at."""
    frames, jump = 1, 1
    for _, time, stride, _, _ in LAYERS:
        frames += (time - 1) * jump
        jump *= stride
    return frames
