"""Convolutions over pictures [shape=(time, band, channel)], by numba kernels and BLAS.

Patches are laid out as rows by a kernel and multiplied with the weights by BLAS. Where neighbouring outputs
look at neighbouring frames (stride 1 over time) most of what they multiply is shared: Winograd's
minimal filtering along time (Lavin and Gray 2016, "Fast algorithms for convolutional neural networks",
section 4) makes m outputs of r taps from 6 = m + r - 1 products instead of m r, half as many at r = 3.
A first layer of 3 x 3, the picture having one channel, is too small for either and summed as it stands.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fingerprint.kernels import njit

_ROWS = 512  # patches laid out at once: stays in the cache between layout and product
# Minimal filtering in six products: the polynomials are multiplied at five points and at infinity.
_POINTS = np.array([0.0, 1.0, -1.0, 2.0, -2.0])
_PRODUCTS = 6
_TAPS = range(2, _PRODUCTS)


@dataclass(frozen=True)
class Layer:
    """One convolution: kernel and stride over time and bands, zero bands added at either edge."""

    time: int
    time_stride: int
    band: int
    band_stride: int
    band_padding: int
    rectify: bool
    weight: NDArray[np.float32]  # [shape=(time * band * channels in, channels out)]
    bias: NDArray[np.float32]  # [shape=(channels out,)]

    @cached_property
    def filtered(self) -> NDArray[np.float32]:
        """The weights at the points [shape=(6, band * channels in, channels out)]."""
        powers = _POINTS[:, None] ** np.arange(self.time)
        apart = _POINTS[:, None] - _POINTS
        np.fill_diagonal(apart, 1.0)
        at_points = powers / apart.prod(axis=1, keepdims=True)
        at_infinity = np.eye(self.time)[-1:]
        taps = self.weight.reshape(self.time, -1, self.weight.shape[1])
        filters = np.concatenate([at_points, at_infinity])
        return np.einsum("pt,tio->pio", filters, taps).astype(np.float32)

    @cached_property
    def outputs_of_products(self) -> NDArray[np.float32]:
        """What products add up to outputs [shape=(m, 6)]."""
        several = _PRODUCTS + 1 - self.time
        of_points = _POINTS[None, :] ** np.arange(several)[:, None]
        return np.hstack([of_points, np.eye(several)[:, -1:]]).astype(np.float32)


def convolve(x: NDArray[np.float32], layer: Layer, time_stride: int) -> NDArray[np.float32]:
    """One layer of x [shape=(time, band, channel)] → [shape=(time', band', channel')].

    time_stride: instead of the layer's own.
    """
    times = (len(x) - layer.time) // time_stride + 1
    bands = (x.shape[1] + 2 * layer.band_padding - layer.band) // layer.band_stride + 1
    out = np.empty((times, bands, layer.weight.shape[1]), np.float32)
    if (layer.time, layer.band, x.shape[2]) == (3, 3, 1):
        over_bands = layer.band_stride, layer.band_padding
        _sum_nine(
            x[:, :, 0], time_stride, *over_bands, layer.weight, layer.bias, layer.rectify, out
        )
    elif time_stride == 1 and layer.time in _TAPS:
        _filter_minimally(x, layer, out)
    else:
        _multiply_patches(x, layer, time_stride, out)
    return out


def _multiply_patches(
    x: NDArray[np.float32], layer: Layer, time_stride: int, out: NDArray[np.float32]
) -> None:
    times, bands, outputs = out.shape
    block = max(1, _ROWS // bands)
    patches = np.empty((min(block, times) * bands, len(layer.weight)), np.float32)
    over_bands = layer.band, layer.band_stride, layer.band_padding
    for first in range(0, times, block):
        rows = min(block, times - first)
        _lay_out(x, first, rows, layer.time, time_stride, *over_bands, patches)
        part = out[first : first + rows].reshape(rows * bands, outputs)
        np.matmul(patches[: rows * bands], layer.weight, out=part)
        _finish(part, layer.bias, layer.rectify)


def _filter_minimally(x: NDArray[np.float32], layer: Layer, out: NDArray[np.float32]) -> None:
    times, bands, outputs = out.shape
    weights, sums = layer.filtered, layer.outputs_of_products
    tiles = -(-times // len(sums))
    block = max(1, _ROWS // bands)
    patches = np.empty((_PRODUCTS, min(block, tiles) * bands, weights.shape[1]), np.float32)
    products = np.empty((*patches.shape[:2], outputs), np.float32)
    over_bands = layer.band, layer.band_stride, layer.band_padding
    for first in range(0, tiles, block):
        count = min(block, tiles - first)
        rows = count * bands
        _lay_out_tiles(x, first, count, len(sums), *over_bands, patches)
        for patch, weight, product in zip(patches, weights, products, strict=True):
            np.matmul(patch[:rows], weight, out=product[:rows])
        _add_up(products, first, count, sums, layer.bias, layer.rectify, out)


@njit(cache=True, nogil=True, fastmath=True)
def _sum_nine(x, time_stride, band_stride, padding, weight, bias, rectify, out):
    """A kernel of 3 x 3 over one channel: x [shape=(time, band)] into out [shape=(time', band', channel)]."""
    bands, nothing = x.shape[1], np.float32(0.0)
    for t in range(out.shape[0]):
        at = t * time_stride
        for b in range(out.shape[1]):
            low = b * band_stride - padding
            in0, in1, in2 = 0 <= low < bands, 0 <= low + 1 < bands, 0 <= low + 2 < bands
            x0 = x[at, low] if in0 else nothing
            x1 = x[at, low + 1] if in1 else nothing
            x2 = x[at, low + 2] if in2 else nothing
            x3 = x[at + 1, low] if in0 else nothing
            x4 = x[at + 1, low + 1] if in1 else nothing
            x5 = x[at + 1, low + 2] if in2 else nothing
            x6 = x[at + 2, low] if in0 else nothing
            x7 = x[at + 2, low + 1] if in1 else nothing
            x8 = x[at + 2, low + 2] if in2 else nothing
            for o in range(out.shape[2]):
                first = x0 * weight[0, o] + x1 * weight[1, o] + x2 * weight[2, o]
                second = x3 * weight[3, o] + x4 * weight[4, o] + x5 * weight[5, o]
                third = x6 * weight[6, o] + x7 * weight[7, o] + x8 * weight[8, o]
                value = bias[o] + first + second + third
                out[t, b, o] = max(value, nothing) if rectify else value


@njit(cache=True, nogil=True)
def _lay_out(x, first, rows, time, time_stride, band, band_stride, padding, patches):
    """patches[(t, b)] = the kernel's view at output (first + t, b), as (time, band, channel)."""
    bands, channels = x.shape[1], x.shape[2]
    out_bands = (bands + 2 * padding - band) // band_stride + 1
    for t in range(rows):
        for b in range(out_bands):
            row = patches[t * out_bands + b]
            low = b * band_stride - padding
            at = 0
            for dt in range(time):
                frame = x[(first + t) * time_stride + dt]
                for db in range(band):
                    if 0 <= low + db < bands:
                        for c in range(channels):
                            row[at + c] = frame[low + db, c]
                    else:
                        for c in range(channels):
                            row[at + c] = 0.0
                    at += channels


@njit(cache=True, nogil=True, fastmath=True)
def _lay_out_tiles(x, first, tiles, several, band, band_stride, padding, patches):
    """patches[p, (tile, b)] = six frames from (first + tile) * several on, at point p, as (band, channel).

    At point p they are weighed with the coefficients of the product of (z - q) over the other points q, at
    infinity of that over all points. Frames after the last are the last.
    """
    last, bands, channels = len(x) - 1, x.shape[1], x.shape[2]
    out_bands = (bands + 2 * padding - band) // band_stride + 1
    four, five, two = np.float32(4.0), np.float32(5.0), np.float32(2.0)
    for tile in range(tiles):
        at = (first + tile) * several
        frame0, frame1, frame2 = x[at], x[min(at + 1, last)], x[min(at + 2, last)]
        frame3, frame4 = x[min(at + 3, last)], x[min(at + 4, last)]
        frame5 = x[min(at + 5, last)]
        for b in range(out_bands):
            low = b * band_stride - padding
            row = tile * out_bands + b
            for db in range(band):
                k, column = low + db, db * channels
                if k < 0 or k >= bands:
                    for p in range(6):
                        patches[p, row, column : column + channels] = 0.0
                    continue
                for c in range(channels):
                    x0, x1, x2 = frame0[k, c], frame1[k, c], frame2[k, c]
                    x3, x4, x5 = frame3[k, c], frame4[k, c], frame5[k, c]
                    even, odd = x4 - four * x2, x3 - four * x1
                    far_even, far_odd = x4 - x2, two * (x3 - x1)
                    patches[0, row, column + c] = four * x0 - five * x2 + x4
                    patches[1, row, column + c] = even + odd
                    patches[2, row, column + c] = even - odd
                    patches[3, row, column + c] = far_even + far_odd
                    patches[4, row, column + c] = far_even - far_odd
                    patches[5, row, column + c] = four * x1 - five * x3 + x5


@njit(cache=True, nogil=True, fastmath=True)
def _add_up(products, first, tiles, sums, bias, rectify, out):
    """Outputs of tiles from their products [shape=(6, tiles * bands, channels)], into out."""
    several = sums.shape[0]
    times, bands, outputs = out.shape
    for tile in range(tiles):
        at = (first + tile) * several
        for b in range(bands):
            row = tile * bands + b
            for i in range(min(several, times - at)):
                s = sums[i]
                for o in range(outputs):
                    value = bias[o]
                    for p in range(6):
                        value += s[p] * products[p, row, o]
                    out[at + i, b, o] = max(value, np.float32(0.0)) if rectify else value


@njit(cache=True, nogil=True, fastmath=True)
def _finish(out, bias, rectify):
    """out = max(0, out + bias), or out + bias, in place."""
    for i in range(out.shape[0]):
        for c in range(out.shape[1]):
            value = out[i, c] + bias[c]
            out[i, c] = max(value, np.float32(0.0)) if rectify else value
