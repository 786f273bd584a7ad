"""Log-frequency spectrogram: what the encoder sees of a sound.

8 kHz mono samples become 40 frames a second of 96 bands, 24 to the octave from 240 Hz to 3.73 kHz, so
that a change of pitch is a shift of bands and a change of tempo a resampling of frames. Levels are
then made relative to their surroundings of one second, so that neither gain nor slow automatic gain
is left in them, and nothing more than 50 dB below the loudest band nearby.

`band_levels` and `normalise` are exact on pieces: a frame depends on the samples under its window and,
after normalisation, on the `CONTEXT` frames at each side.
"""

import numpy as np
from numpy.typing import NDArray

from fingerprint.audio import SAMPLE_RATE
from fingerprint.kernels import njit

FFT = 1024  # samples under one window: 128 ms, 7.8 Hz between bins
HOP = 200  # samples from one frame to the next: 25 ms
FRAME_RATE = SAMPLE_RATE / HOP  # 40 frames a second
BANDS = 96
BANDS_PER_OCTAVE = 24
LOWEST = 240.0  # Hz, centre of band 0
DYNAMIC_RANGE = 50.0  # dB kept below the loudest band of the surroundings
SILENCE = -90.0  # dB re a full-scale sine; nothing quieter is told apart
SURROUNDINGS = 20  # frames at each side: 41 frames are about one second
CONTEXT = 2 * SURROUNDINGS  # the mean looks at frames whose floor looks as far again
DB_PER_UNIT = 10.0  # the spectrogram is in bels, which keeps it within a few units of zero

_LANES = 8
_HALF = FFT // 2


def band_matrix() -> NDArray[np.float64]:
    """Weights of FFT bins in bands [shape=(BANDS, FFT // 2 + 1)], each row summing to one.

    A triangle around each centre, reaching to the neighbouring centres but never narrower than the
    distance of two bins, below which the FFT tells nothing apart.
    """
    bins = np.arange(_HALF + 1) * SAMPLE_RATE / FFT
    centres = LOWEST * 2.0 ** (np.arange(BANDS) / BANDS_PER_OCTAVE)
    reach = np.maximum(centres * (2.0 ** (1 / BANDS_PER_OCTAVE) - 1), SAMPLE_RATE / FFT)
    triangles = np.maximum(0.0, 1 - np.abs(bins - centres[:, None]) / reach[:, None])
    return triangles / triangles.sum(axis=1, keepdims=True)


def _sparse_rows(
    matrix: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """First bin of each band, where its weights start, and all non-zero weights in a row."""
    columns = [np.flatnonzero(row) for row in matrix]
    first = np.array([c[0] for c in columns])
    starts = np.concatenate([[0], np.cumsum([len(c) for c in columns])])
    weights = np.concatenate([row[c] for row, c in zip(matrix, columns, strict=True)])
    return first, starts, weights.astype(np.float32)


# A periodic Hann window, scaled so that a full-scale sine on a bin has power 1.
_WINDOW = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)).astype(np.float32)
_WINDOW /= np.float32(FFT / 4)
_TWIDDLES = np.exp(-2j * np.pi * np.arange(_HALF) / FFT).astype(np.complex64)
_TWIDDLE_RE = np.ascontiguousarray(_TWIDDLES.real)
_TWIDDLE_IM = np.ascontiguousarray(_TWIDDLES.imag)
_BAND_FIRST, _BAND_STARTS, _BAND_WEIGHTS = _sparse_rows(band_matrix())


def band_levels(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Levels of the bands in dB re a full-scale sine [shape=(frames, BANDS)].

    samples: 8 kHz mono [shape=(n,)]; frame t lies under samples 200 t to 200 t + 1023, so there are
    1 + (n - 1024) // 200 frames, none if n < 1024.
    """
    frames = max(0, 1 + (len(samples) - FFT) // HOP)
    levels = np.empty((frames, BANDS), np.float32)
    _band_levels(
        np.ascontiguousarray(samples, np.float32),
        _WINDOW,
        _TWIDDLE_RE,
        _TWIDDLE_IM,
        _BAND_FIRST,
        _BAND_STARTS,
        _BAND_WEIGHTS,
        levels,
    )
    return levels


def normalise(levels: NDArray[np.float32], low: int = 0, high: int = BANDS) -> NDArray[np.float32]:
    """The spectrogram of band levels, in bels around the local mean [shape=(frames, BANDS)].

    Frame t is floored `DYNAMIC_RANGE` under the loudest band of frames t - 20 to t + 20 and lowered
    by the mean of all floored bands of those frames. At the ends there are fewer frames to look at.
    Only bands low to high (excluded) are known: the others are not looked at, and are zero.
    """
    spectrogram = np.zeros_like(levels)
    if len(levels) and low < high:
        known = np.zeros(BANDS, np.float32)
        known[low:high] = 1
        _normalise(levels, known, spectrogram)
    return spectrogram


def spectrogram(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Normalised log-frequency spectrogram of 8 kHz mono samples [shape=(frames, BANDS)]."""
    return normalise(band_levels(samples))


@njit(cache=True, nogil=True, fastmath=True)
def _transform(x, y, twiddle_re, twiddle_im):
    """Complex FFT of _HALF points of _LANES frames at once, between the buffers x and y.

    x holds point n at n * 2 * _LANES: the real parts of all lanes, then the imaginary ones. Stockham's
    radix 4 needs no bit reversal, and its butterflies are loops over lanes that LLVM vectorises (which
    it does not with a buffer for each part: too many to prove apart). Returns the buffer with the result.
    """
    points = _HALF
    stride = 1
    while points >= 4:
        quarter = points // 4
        for j in range(quarter):
            turn = j * (FFT // points)
            w1_re = twiddle_re[turn]
            w1_im = twiddle_im[turn]
            w2_re = w1_re * w1_re - w1_im * w1_im
            w2_im = np.float32(2.0) * w1_re * w1_im
            w3_re = w1_re * w2_re - w1_im * w2_im
            w3_im = w1_re * w2_im + w1_im * w2_re
            for k in range(stride):
                a = (j * stride + k) * 2 * _LANES
                b = a + quarter * stride * 2 * _LANES
                c = b + quarter * stride * 2 * _LANES
                d = c + quarter * stride * 2 * _LANES
                out0 = (4 * j * stride + k) * 2 * _LANES
                out1 = out0 + stride * 2 * _LANES
                out2 = out1 + stride * 2 * _LANES
                out3 = out2 + stride * 2 * _LANES
                for re in range(_LANES):
                    im = _LANES + re
                    ac_re = x[a + re] + x[c + re]
                    ac_im = x[a + im] + x[c + im]
                    a_c_re = x[a + re] - x[c + re]
                    a_c_im = x[a + im] - x[c + im]
                    bd_re = x[b + re] + x[d + re]
                    bd_im = x[b + im] + x[d + im]
                    b_d_re = x[b + re] - x[d + re]
                    b_d_im = x[b + im] - x[d + im]
                    y[out0 + re] = ac_re + bd_re
                    y[out0 + im] = ac_im + bd_im
                    u_re = a_c_re + b_d_im
                    u_im = a_c_im - b_d_re
                    y[out1 + re] = u_re * w1_re - u_im * w1_im
                    y[out1 + im] = u_re * w1_im + u_im * w1_re
                    u_re = ac_re - bd_re
                    u_im = ac_im - bd_im
                    y[out2 + re] = u_re * w2_re - u_im * w2_im
                    y[out2 + im] = u_re * w2_im + u_im * w2_re
                    u_re = a_c_re - b_d_im
                    u_im = a_c_im + b_d_re
                    y[out3 + re] = u_re * w3_re - u_im * w3_im
                    y[out3 + im] = u_re * w3_im + u_im * w3_re
        x, y = y, x
        points //= 4
        stride *= 4
    # _HALF is twice a power of four: one pass of radix 2 is left, without twiddles
    for i in range(_HALF * _LANES):
        y[i] = x[i] + x[_HALF * _LANES + i]
        y[_HALF * _LANES + i] = x[i] - x[_HALF * _LANES + i]
    return y


@njit(cache=True, nogil=True, fastmath=True)
def _band_levels(samples, window, twiddle_re, twiddle_im, first, starts, weights, levels):
    """Fill levels: window, FFT (even samples real, odd imaginary), power, bands, dB."""
    frames = levels.shape[0]
    x = np.empty(_HALF * 2 * _LANES, np.float32)
    y = np.empty(_HALF * 2 * _LANES, np.float32)
    power = np.empty((_HALF, _LANES), np.float32)
    band = np.empty(_LANES, np.float32)
    half = np.float32(0.5)
    least = np.float32(10.0 ** (SILENCE / 10))
    decibel = np.float32(10.0 / np.log(10.0))
    last_bin = first[-1] + starts[-1] - starts[-2]
    for frame in range(0, frames, _LANES):
        lanes = min(_LANES, frames - frame)
        for n in range(_HALF):
            for lane in range(_LANES):
                # lanes past the last frame repeat it, and are thrown away
                at = (frame + min(lane, lanes - 1)) * HOP + 2 * n
                x[n * 2 * _LANES + lane] = samples[at] * window[2 * n]
                x[(n * 2 + 1) * _LANES + lane] = samples[at + 1] * window[2 * n + 1]
        z = _transform(x, y, twiddle_re, twiddle_im)
        # X[k] = (Z[k] + Z*[N-k]) / 2 - i exp(-2 pi i k / FFT) (Z[k] - Z*[N-k]) / 2
        for k in range(first[0], last_bin):
            w_re = twiddle_re[k]
            w_im = twiddle_im[k]
            at = k * 2 * _LANES
            mirror = (_HALF - k) * 2 * _LANES
            for re in range(_LANES):
                im = _LANES + re
                even_re = half * (z[at + re] + z[mirror + re])
                even_im = half * (z[at + im] - z[mirror + im])
                odd_re = half * (z[at + im] + z[mirror + im])
                odd_im = half * (z[mirror + re] - z[at + re])
                x_re = even_re + w_re * odd_re - w_im * odd_im
                x_im = even_im + w_re * odd_im + w_im * odd_re
                power[k, re] = x_re * x_re + x_im * x_im
        for b in range(BANDS):
            band[:] = least
            for i in range(starts[b + 1] - starts[b]):
                w = weights[starts[b] + i]
                k = first[b] + i
                for lane in range(_LANES):
                    band[lane] += w * power[k, lane]
            for lane in range(lanes):
                levels[frame + lane, b] = decibel * np.log(band[lane])


@njit(cache=True, nogil=True, fastmath=True)
def _normalise(levels, known, spectrogram):
    """Fill spectrogram: floor, then subtract the mean of the surroundings; 0 where known is 0.

    Loops are over all bands, so that their sums are made in one order whatever the piece.
    """
    frames = levels.shape[0]
    loudest = np.empty(frames, np.float32)
    for t in range(frames):
        peak = np.float32(SILENCE)
        for b in range(BANDS):
            peak = max(peak, levels[t, b] if known[b] > 0 else np.float32(SILENCE))
        loudest[t] = peak
    bands = np.float32(0.0)
    for b in range(BANDS):
        bands += known[b]
    mean = np.empty(frames, np.float32)
    for t in range(frames):
        floor = loudest[t]
        for near in range(max(0, t - SURROUNDINGS), min(frames, t + SURROUNDINGS + 1)):
            floor = max(floor, loudest[near])
        floor -= np.float32(DYNAMIC_RANGE)
        total = np.float32(0.0)
        for b in range(BANDS):
            value = max(levels[t, b], floor)
            spectrogram[t, b] = value
            total += value * known[b]
        mean[t] = total / bands
    scale = np.float32(1.0 / DB_PER_UNIT)
    for t in range(frames):
        first = max(0, t - SURROUNDINGS)
        end = min(frames, t + SURROUNDINGS + 1)
        total = np.float32(0.0)
        for near in range(first, end):
            total += mean[near]
        total /= np.float32(end - first)
        for b in range(BANDS):
            spectrogram[t, b] = (spectrogram[t, b] - total) * scale * known[b]
