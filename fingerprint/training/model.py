"""The encoder as torch trains it. `fingerprint.encoder` runs the same layers without torch."""

import torch
from torch import Tensor, nn

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


def window_frames() -> int:
    """Frames that one embedding looks at."""
    frames, jump = 1, 1
    for _, time, stride, _, _ in LAYERS:
        frames += (time - 1) * jump
        jump *= stride
    return frames
