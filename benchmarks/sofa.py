"""Measured impulse responses out of SOFA files (AES69: HDF5 with a convention), as WAV."""

from __future__ import annotations

import io
from collections.abc import Iterator

import h5py
import numpy as np
import soundfile as sf


def responses(data: bytes) -> Iterator[bytes]:
    """A WAV file of each measurement, as many channels as there are receivers.

    Raises OSError for what is not a whole SOFA file of impulse responses.
    """
    try:
        with h5py.File(io.BytesIO(data)) as file:
            measured = np.asarray(file["Data.IR"], np.float32)  # [shape=(m, receivers, samples)]
            rate = int(np.ravel(file["Data.SamplingRate"])[0])
    except (KeyError, ValueError, IndexError) as error:
        raise OSError(f"not a SOFA file of impulse responses: {error}") from None
    for response in measured:
        wav = io.BytesIO()
        sf.write(wav, response.T, rate, format="WAV", subtype="FLOAT")
        yield wav.getvalue()
