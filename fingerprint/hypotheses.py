"""Tempo and pitch as hypotheses about a query: what it would look like if it had not been altered.

The spectrogram's bands are logarithmic in frequency, so a change of pitch is a shift of bands and a
change of tempo a resampling of frames; a change of speed is both. A hypothesis undoes one such change on the
query's band levels, after which encoder and index are used as always. The encoder by itself bears tempo
within about 12 % and pitch within about 0.6 semitone, which it was trained to do (`fingerprint.training`), so
that the ladder can be coarse.

Bands that the change moved out of the picture are unknown, not silent: they are left out of the
surroundings' loudest level and mean, and are zero in the spectrogram.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fingerprint.kernels import njit
from fingerprint.spectrogram import BANDS, BANDS_PER_OCTAVE, normalise

BANDS_PER_SEMITONE = BANDS_PER_OCTAVE / 12
MOST_PITCH = 12  # semitones of the highest and lowest rungs
# Between neighbouring rungs. Half of either is what the encoder bears, the tempo with the help of the
# slopes that votes are counted along (`index.votes`).
PITCH_STEP = 1  # semitones
TEMPO_STEP = 1.3
MOST_TEMPO_STEPS = 2  # up and down: rungs at 0.59 to 1.69, which reach 0.5 to 2


@dataclass(frozen=True)
class Hypothesis:
    """How a query differs from the recording it is a copy of.

    Attributes
    ----------
    tempo : reference seconds that pass per query second
    pitch : semitones of the query above the reference
    """

    tempo: float = 1.0
    pitch: float = 0.0


UNALTERED = Hypothesis()


def _ladder() -> tuple[Hypothesis, ...]:
    """Rungs over the plane of tempo and pitch, those that occur most first.

    Plain changes of speed, of pitch and of tempo come before mixed ones, small before large ones.
    """

    def rarity(rung: Hypothesis) -> float:
        speed = 12 * math.log2(rung.tempo)  # in semitones
        mixed = min(abs(speed - rung.pitch), abs(speed), abs(rung.pitch))
        return max(abs(speed), abs(rung.pitch)) + 2 * mixed

    rungs = [
        Hypothesis(TEMPO_STEP**steps, float(pitch))
        for steps in range(-MOST_TEMPO_STEPS, MOST_TEMPO_STEPS + 1)
        for pitch in range(-MOST_PITCH, MOST_PITCH + 1, PITCH_STEP)
        if (steps, pitch) != (0, 0)
    ]
    return tuple(sorted(rungs, key=rarity))


LADDER = _ladder()


def restore(
    levels: NDArray[np.float32], hypothesis: Hypothesis, begin: float = 0.0
) -> NDArray[np.float32]:
    """Spectrogram of the recording that a query [shape=(frames, BANDS), dB] would be a copy of.

    Returns [shape=(1 + floor((frames - 1 - begin) * tempo), BANDS)]: frame t shows the query's frame
    begin + t / tempo, band b its band b + 2 * pitch, both interpolated linearly.
    """
    if hypothesis == UNALTERED and not begin:
        return normalise(levels)
    restored, low, high = resampled(
        levels, hypothesis.tempo, hypothesis.pitch * BANDS_PER_SEMITONE, begin
    )
    return normalise(restored, low, high)


def resampled(
    levels: NDArray[np.float32], tempo: float, bands: float, begin: float = 0.0
) -> tuple[NDArray[np.float32], int, int]:
    """Levels at frames begin + t / tempo and bands b + bands, and the range low to high of known bands."""
    frames = 1 + math.floor((len(levels) - 1 - begin) * tempo + 1e-9) if len(levels) else 0
    frames = max(0, frames)
    low = min(BANDS, max(0, math.ceil(-bands - 1e-9)))
    high = max(low, min(BANDS, math.floor(BANDS - 1 - bands + 1e-9) + 1))
    out = np.zeros((frames, BANDS), np.float32)
    _resample(np.ascontiguousarray(levels, np.float32), tempo, bands, begin, low, high, out)
    return out, low, high


@njit(cache=True, nogil=True)
def _resample(levels, tempo, bands, begin, low, high, out):
    """out[t, b] = levels[begin + t / tempo, b + bands], bilinear; bands below low and from high on stay."""
    last = len(levels) - 1
    shift = int(np.floor(bands))
    above = np.float32(bands - shift)
    for t in range(len(out)):
        at = min(begin + t / tempo, float(last))
        before = min(int(at), max(last - 1, 0))
        after = min(before + 1, last)
        late = np.float32(at - before)
        for b in range(low, high):
            # rounding may name a band just outside, with weight zero
            i = min(max(b + shift, 0), levels.shape[1] - 1)
            j = min(i + 1, levels.shape[1] - 1)
            early_level = levels[before, i] + above * (levels[before, j] - levels[before, i])
            late_level = levels[after, i] + above * (levels[after, j] - levels[after, i])
            out[t, b] = early_level + late * (late_level - early_level)
