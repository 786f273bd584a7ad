"""Samples in memory as a sound file in memory, so that they take the way of every other sound."""

import io
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fingerprint.decoders import RATES
from fingerprint.errors import AudioError

NAME = "samples"  # what errors and answers call them
_LARGEST_WAV = 2**32 - 2**16  # bytes
_FORMATS = {"f4": "FLOAT", "f8": "FLOAT", "f2": "FLOAT", "i2": "PCM_16", "i4": "PCM_32"}


def as_wav(samples: ArrayLike, rate: float | None) -> io.BytesIO:
    """Samples [shape=(n,) or (n, channels)] as a WAV file.

    Floats have full scale at 1; integers (16 or 32 bits) at the limits of their type.

    Raises AudioError for what is no sound: no samples, a value that is not finite, an impossible rate.
    """
    values = np.asarray(samples)
    kind = values.dtype.str[1:]
    if kind not in _FORMATS:
        raise _undecodable(
            f"samples of type {values.dtype}; give floats, or integers of 16 or 32 bits"
        )
    if values.ndim not in (1, 2):
        raise _undecodable(f"an array of shape {values.shape}; give (n,) or (n, channels)")
    low, high = RATES
    if isinstance(rate, bool) or not isinstance(rate, int | float | np.integer | np.floating):
        raise _undecodable(f"rate={rate!r}; give the number of samples in a second, such as 44100")
    if not (low <= rate <= high and float(rate).is_integer()):
        raise _undecodable(f"a rate of {rate:g} Hz; give a whole number from {low} to {high}")
    if not len(values):
        raise AudioError("too-short", f"{NAME}: there are none")
    channels = 1 if values.ndim == 1 else values.shape[1]
    if not 1 <= channels <= 64:
        raise _undecodable(
            f"{channels} channels; give an array of shape (n, channels), with 1 to 64 channels"
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = int(np.count_nonzero(~np.isfinite(values)))
        raise _undecodable(f"{bad} of {values.size} values are NaN or infinite")
    if values.size * 4 > _LARGEST_WAV:
        raise AudioError("too-large", f"{NAME}: more than 4 GiB; query a part, or write a file")
    return _written(values, int(rate), _FORMATS[kind])


def _written(values: "np.ndarray[Any, Any]", rate: int, subtype: str) -> io.BytesIO:
    import soundfile

    file = io.BytesIO()
    native = values.dtype.newbyteorder("=")
    values = values.astype(np.float32 if values.dtype.kind == "f" else native, copy=False)
    soundfile.write(file, values, rate, subtype=subtype, format="WAV")
    file.seek(0)
    return file


def _undecodable(what: str) -> AudioError:
    return AudioError("undecodable", f"{NAME}: {what}")
