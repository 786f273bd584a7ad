"""Down-mix of any number of channels to one, in which an inverted channel does not cancel music.

The plain mean of a stereo recording whose right channel is wired the wrong way round is silence.
So each block of the signal is mixed as the mean of its channels times a sign each: -1 for a channel
that is (nearly) the negative of the loudest one, +1 for all others. Ordinary stereo, however wide,
has no such channel, and its mix is exactly the plain mean.
"""

import numpy as np
from numpy.typing import NDArray

from fingerprint.kernels import njit

# How often signs are decided, s: long enough for a correlation to mean something and for a ramp
# between two signs to be inaudible as a click.
BLOCK_SECONDS = 0.25

# Correlation with the loudest channel below which a channel counts as its negative: the plain mean of
# two such channels lies 10 dB or more under either. Wide stereo and reverberation stay well above.
INVERTED = -0.8

# Share of the covariance so far that is kept beside a new block's: a recording that turns inverted on
# its way is found out within four blocks, 1 s.
MEMORY = 0.5

# Covariances cost channels squared; layouts of more channels are averaged plainly.
MAX_SIGNED_CHANNELS = 16

# Samples of all channels in one block, at most (4 MiB), whatever a header claims.
MAX_BLOCK_VALUES = 1 << 20

# A sample beyond this (full scale is 1), or not a number, is damage and counts as 0.
LOUDEST = 1e10


def block_length(rate: int, channels: int) -> int:
    """Frames in one down-mix block of a signal at `rate` Hz: the grid that signs are decided on."""
    return max(1, min(int(rate * BLOCK_SECONDS), MAX_BLOCK_VALUES // channels))


class Downmix:
    """Down-mix of one signal, given in consecutive pieces.

    Every piece but the last has to be a whole number of `block` frames, so the outcome depends on
    the signal alone and not on how it was cut.
    """

    def __init__(self, rate: int, channels: int) -> None:
        self.block = block_length(rate, channels)
        self._signs = np.ones(channels, np.float32)
        signed = channels if 1 < channels <= MAX_SIGNED_CHANNELS else 0
        self._covariance = np.zeros((signed, signed))

    def mix(self, signal: NDArray[np.float32]) -> NDArray[np.float32]:
        """One channel out of many.

        Parameters
        ----------
        signal : float32 [shape=(channels, n)], C-contiguous rows
            Changed in place: what is not a usable number becomes 0.

        Returns
        -------
        float32 [shape=(n,)]
        """
        mixed = np.empty(signal.shape[1], np.float32)
        _downmix(signal, self.block, self._covariance, self._signs, mixed)
        return mixed


# Sums may be reordered so that they run in SIMD; NaN has to stay NaN, or the check for it is lost.
_kernel = njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})


@_kernel
def _clean(row: NDArray[np.float32]) -> None:
    """x -> x if |x| <= LOUDEST else 0, in place (NaN fails the comparison)."""
    limit = np.float32(LOUDEST)
    for i in range(row.size):
        x = row[i]
        row[i] = x if abs(x) <= limit else np.float32(0)


@_kernel
def _dot(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Sum of a·b, in double precision."""
    total = 0.0
    for i in range(a.size):
        total += np.float64(a[i]) * np.float64(b[i])
    return total


@_kernel
def _decide(covariance: NDArray[np.float64], signs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each channel's sign: that of the loudest, or its opposite where r < INVERTED.

    The loudest keeps the sign it had: were it +1 by definition, two inverted channels that take
    turns at being the loudest would flip the whole mix, through silence, at every turn.
    """
    channels = signs.size
    loudest = 0
    for c in range(1, channels):
        if covariance[c, c] > covariance[loudest, loudest]:
            loudest = c
    decided = signs.copy()
    for c in range(channels):
        scale = np.sqrt(covariance[c, c]) * np.sqrt(covariance[loudest, loudest])
        if c != loudest and scale > 0.0:
            inverted = covariance[c, loudest] < INVERTED * scale
            decided[c] = -signs[loudest] if inverted else signs[loudest]
    return decided


@_kernel
def _downmix(
    signal: NDArray[np.float32],
    block: int,
    covariance: NDArray[np.float64],
    signs: NDArray[np.float32],
    mixed: NDArray[np.float32],
) -> None:
    """mixed[i] = sum over c of g_c(i)·signal[c, i] / channels, block by block.

    g_c is the channel's sign; where that changes, a ramp from the old to the new over the block, or
    the new at once if the channel was silent until then (there is nothing to click).
    """
    channels, length = signal.shape
    for start in range(0, length, block):
        stop = min(start + block, length)
        n = stop - start
        for c in range(channels):
            _clean(signal[c, start:stop])
        decided = signs.copy()
        if covariance.size:
            heard = np.diag(covariance) > 0.0
            for a in range(channels):
                for b in range(a + 1):
                    kept = MEMORY * covariance[a, b]
                    fresh = _dot(signal[a, start:stop], signal[b, start:stop])
                    covariance[a, b] = covariance[b, a] = kept + fresh
            decided = _decide(covariance, signs)
            signs[:] = np.where(heard, signs, decided)
        out = mixed[start:stop]
        out[:] = np.float32(0)
        for c in range(channels):
            row = signal[c, start:stop]
            old, new = signs[c], decided[c]
            if old == new:
                for i in range(n):
                    out[i] += new * row[i]
            else:
                step = (new - old) / np.float32(n)
                for i in range(n):
                    out[i] += (old + step * np.float32(i + 1)) * row[i]
        for i in range(n):
            out[i] /= np.float32(channels)
        signs[:] = decided
