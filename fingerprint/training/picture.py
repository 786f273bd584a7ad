"""The front end in torch, over many segments at once, on any device.

`fingerprint.spectrogram` and `fingerprint.hypotheses` compute the same for one sound, without torch.
"""

import numpy as np
import torch
from torch import Tensor

from fingerprint.spectrogram import (
    BANDS,
    DB_PER_UNIT,
    DYNAMIC_RANGE,
    FFT,
    HOP,
    SILENCE,
    SURROUNDINGS,
    band_matrix,
)

_MATRIX = torch.from_numpy(band_matrix().T.astype(np.float32))
_WINDOW = torch.hann_window(FFT) / (FFT / 4)


def band_levels(samples: Tensor) -> Tensor:
    """Levels in dB [shape=(rows, frames, BANDS)] of 8 kHz samples [shape=(rows, n)]."""
    frames = samples.unfold(1, FFT, HOP) * _WINDOW.to(samples.device)
    spectrum = torch.fft.rfft(frames)
    power = spectrum.real.square() + spectrum.imag.square()
    return 10 * torch.log10(10 ** (SILENCE / 10) + power @ _MATRIX.to(samples.device))


def normalise(levels: Tensor, known: Tensor, inside: Tensor) -> Tensor:
    """Spectrograms of band levels, 0 where a band is not `known` or a frame not `inside`.

    levels [shape=(rows, frames, BANDS)], known [shape=(rows, BANDS), bool] and inside [shape=(rows,
    frames), bool].
    """
    there = known[:, None, :] & inside[:, :, None]
    width = 2 * SURROUNDINGS + 1
    loudest = levels.masked_fill(~there, SILENCE).amax(2)
    loudest = torch.nn.functional.max_pool1d(loudest[:, None], width, 1, SURROUNDINGS)[:, 0]
    floored = torch.maximum(levels, loudest[:, :, None] - DYNAMIC_RANGE) * there
    mean = floored.sum(2) / known.sum(1, keepdim=True).clamp_min(1)
    around = torch.nn.functional.avg_pool1d(
        torch.stack([mean, inside.float()], 1), width, 1, SURROUNDINGS
    )
    mean = around[:, 0] / around[:, 1].clamp_min(1e-6)
    return (floored - mean[:, :, None]) * there / DB_PER_UNIT


def spectrogram(samples: Tensor) -> Tensor:
    """Spectrograms [shape=(rows, frames, BANDS)] of 8 kHz samples [shape=(rows, n)]."""
    levels = band_levels(samples)
    everything = torch.ones(levels.shape, dtype=torch.bool, device=levels.device)
    return normalise(levels, everything[:, 0], everything[:, :, 0])


def resampled(levels: Tensor, tempo: Tensor, bands: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Levels at frames t / tempo and bands b + bands, and which bands are known, which frames inside.

    tempo and bands [shape=(rows,)]; the rows have as many frames as the slowest needs.
    """
    rows, frames, _ = levels.shape
    last = frames - 1
    out = 1 + int(np.floor(last * float(tempo.max()) + 1e-4))
    at = torch.arange(out, device=levels.device) / tempo[:, None]
    inside = at <= last + 1e-4
    at = at.clamp_max(last)
    before = at.long().clamp_max(last - 1)
    late = (at - before)[:, :, None]
    before = before[:, :, None].expand(rows, out, BANDS)
    picture = torch.lerp(
        levels.gather(1, before), levels.gather(1, before + 1), late.expand_as(before)
    )
    at = torch.arange(BANDS, device=levels.device) + bands[:, None]
    known = (at >= -1e-4) & (at <= BANDS - 1 + 1e-4)
    at = at.clamp(0, BANDS - 1)
    below = at.long().clamp_max(BANDS - 2)
    high = (at - below)[:, None, :].expand_as(picture)
    below = below[:, None, :].expand_as(picture)
    return torch.lerp(picture.gather(2, below), picture.gather(2, below + 1), high), known, inside
