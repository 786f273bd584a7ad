"""The encoder at work: spectrogram in, embeddings out, without torch.

A stack of convolutions, not padded over time, is run over a whole recording at once, so that
overlapping windows share their work (`fingerprint.convolution`). A linear projection of the patch (the
mel-PCA baseline) is the same thing with one layer.

The weights file (safetensors) holds the layers, the codec and, as metadata, the layers' geometry and the
front end they were trained on. The encoder's id is the hash of that file: whatever changes an embedding
or a code changes the id.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

from fingerprint import spectrogram as front_end
from fingerprint.audio import SAMPLE_RATE
from fingerprint.codec import Codec
from fingerprint.convolution import Layer, convolve
from fingerprint.errors import EarmarkError
from fingerprint.kernels import njit

SHIPPED = Path(__file__).parent / "weights" / "encoder.safetensors"
_CHUNK = 2560  # frames embedded in one go (64 s): bounds memory, costs 2 % in overlaps


class EncoderError(EarmarkError):
    """A weights file that is missing, damaged or made for another front end."""


def front_end_parameters() -> dict[str, float]:
    """Everything that defines the picture an encoder is trained on."""
    return {
        "sample_rate": SAMPLE_RATE,
        "fft": front_end.FFT,
        "hop": front_end.HOP,
        "bands": front_end.BANDS,
        "bands_per_octave": front_end.BANDS_PER_OCTAVE,
        "lowest": front_end.LOWEST,
        "dynamic_range": front_end.DYNAMIC_RANGE,
        "silence": front_end.SILENCE,
        "surroundings": front_end.SURROUNDINGS,
        "decibel_per_unit": front_end.DB_PER_UNIT,
    }


class Encoder:
    """Trained layers and codec. Stateless in use: threads may share one.

    Attributes
    ----------
    id : hash of the weights file
    codec : Codec
    window, hop : frames that one embedding looks at, frames from one to the next at the densest
    background_mean, background_covariance : of the embeddings of music at large [shape=(d,), (d, d)]
    """

    def __init__(
        self,
        layers: list[Layer],
        codec: Codec,
        id: str,
        background_mean: NDArray[np.float32],
        background_covariance: NDArray[np.float32],
    ) -> None:
        self.layers = layers
        self.codec = codec
        self.id = id
        self.background_mean = background_mean
        self.background_covariance = background_covariance
        self.window = self.hop = 1
        for layer in layers:
            self.window += (layer.time - 1) * self.hop
            self.hop *= layer.time_stride
        # past this layer nothing looks at two moments, so what is not kept need not be computed
        self._last_in_time = max(i for i, layer in enumerate(layers) if layer.time > 1)

    @classmethod
    def load(cls, path: Path | None = None) -> "Encoder":
        """The encoder of a weights file; by default the one that ships with Earmark.

        Raises EncoderError if the file cannot be read or is for another front end.
        """
        path = path or SHIPPED
        try:
            data = path.read_bytes()
            tensors = load_tensors(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            metadata = {k: json.loads(v) for k, v in header["__metadata__"].items()}
            layers = layers_of(tensors, metadata)
            id = hashlib.sha256(data).hexdigest()[:16]
            parts = (tensors[f"codec.{name}"] for name in ("coarse", "books", "cells"))
            codec = Codec(*(part.astype(np.float32) for part in parts))
            trained_on = metadata["front_end"]
            background = tensors["background.mean"], tensors["background.covariance"]
        except OSError as error:
            raise EncoderError(
                f"{path}: cannot read the encoder's weights: {error.strerror}"
            ) from None
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise EncoderError(f"{path}: not an encoder's weights file ({error})") from None
        if trained_on != front_end_parameters():
            raise EncoderError(f"{path}: these weights were trained on another spectrogram")
        return cls(layers, codec, id, *background)

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        return self.layers[-1].weight.shape[1]

    @property
    def step(self) -> float:
        """Seconds from one embedding to the next at the densest."""
        return self.hop / front_end.FRAME_RATE

    def embed(self, spectrogram: NDArray[np.float32], every: int = 1) -> NDArray[np.float32]:
        """Embeddings of length 1 [shape=(n, dimension)] of a spectrogram [shape=(frames, BANDS)].

        Embedding i looks at frames i * every * hop and the window - 1 after it; n is the number of
        windows that fit, 0 if the spectrogram is shorter than one. Where more than three quarters of a
        window are silent or unknown the embedding is zero: all silence is alike, and nobody's.
        """
        frames, hop = len(spectrogram), self.hop * every
        count = max(0, (frames - self.window) // hop + 1)
        embeddings = np.empty((count, self.dimension), np.float32)
        per_chunk = max(1, _CHUNK // hop)
        for first in range(0, count, per_chunk):
            last = min(first + per_chunk, count) - 1
            piece = spectrogram[first * hop : last * hop + self.window]
            embeddings[first : last + 1] = self._run(piece, every)
        _to_unit_length(embeddings)
        _forget_silence(spectrogram, hop, self.window, embeddings)
        return embeddings

    def _run(self, piece: NDArray[np.float32], every: int) -> NDArray[np.float32]:
        """Every layer over one piece [shape=(frames, BANDS)] → [shape=(n, dimension)]."""
        x = np.ascontiguousarray(piece[:, :, None])
        for i, layer in enumerate(self.layers):
            stride = layer.time_stride * (every if i == self._last_in_time else 1)
            x = convolve(x, layer, stride)
        return x[:, 0, :]


def layers_of(tensors: dict[str, NDArray], metadata: dict[str, Any]) -> list[Layer]:
    """The layers of a weights file. Raises KeyError, TypeError or ValueError if it has none."""
    return [
        Layer(
            **geometry,
            weight=tensors[f"layer{i}.weight"].astype(np.float32),
            bias=tensors[f"layer{i}.bias"].astype(np.float32),
        )
        for i, geometry in enumerate(metadata["layers"])
    ]


@njit(cache=True, nogil=True)
def _to_unit_length(x):
    """Divide every row by its length; a row of zeros stays."""
    for i in range(x.shape[0]):
        total = np.float32(0.0)
        for c in range(x.shape[1]):
            total += x[i, c] * x[i, c]
        if total > 0:
            scale = np.float32(1.0) / np.sqrt(total)
            for c in range(x.shape[1]):
                x[i, c] *= scale


@njit(cache=True, nogil=True)
def _forget_silence(spectrogram, hop, window, embeddings):
    """Zero the embeddings of windows that are flat, the same in all bands, in over 3/4 of their frames.

    Unknown bands are 0; the middle one is always known.
    """
    flat = np.empty(len(spectrogram), np.bool_)
    middle = spectrogram.shape[1] // 2
    for t in range(len(spectrogram)):
        flat[t] = True
        for b in range(spectrogram.shape[1]):
            if spectrogram[t, b] != spectrogram[t, middle] and spectrogram[t, b] != 0:
                flat[t] = False
                break
    for i in range(len(embeddings)):
        count = 0
        for t in range(i * hop, i * hop + window):
            count += flat[t]
        if 4 * count > 3 * window:
            embeddings[i] = 0.0
