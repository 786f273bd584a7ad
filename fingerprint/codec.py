"""Embeddings to bytes and back: coarse centroids and quantised residuals.

The codebooks ship with the encoder, so ingest trains nothing and a code means the same in every library. An
embedding is stored as the number of its nearest coarse centroid (its list in the index) and one byte for each
slice of the residual (Jégou et al. 2011, "Product quantization for nearest neighbor search", section IV). A
slice's entry is the sum of one entry of each of two books of 16 (Babenko and Lempitsky 2014, "Additive
quantization for extreme vector compression"): the byte's high half numbers the first one, its low half the
second. So a byte is also two codes of 4 bits, whose tables fit a processor's registers (André et al. 2015,
"Cache locality is not enough", PQ fast scan). The rotation that spreads variance evenly over the slices (Ge
et al. 2013, "Optimized product quantization") is part of the encoder's last layer.

A large index divides each list into cells, by the second centroid nearest to the decoded residual. Second
centroids are the same for all lists (Babenko and Lempitsky 2016, "Efficient indexing of billion-scale
datasets of deep descriptors", the non-orthogonal inverted multi-index). They change no code.
"""

import numpy as np
from numpy.typing import NDArray

from fingerprint.kernels import njit

_ROWS = 4096  # embeddings compared with all centroids at once: bounds memory


class Codec:
    """Coarse centroids [shape=(lists, dimension)], books [shape=(bytes, 2, 16, dimension / bytes)].

    cells : second centroids [shape=(cells, dimension)]; without them a list is one cell

    Attributes
    ----------
    codebooks : the sums of the books' entries, by byte [shape=(bytes, 256, dimension / bytes)]
    half_coarse, half_cells : half the squared lengths of the centroids [shape=(lists,)], and of the sums of a
        centroid and a second one [shape=(lists, cells)]: of vectors, the nearest is that whose product less
        its half is largest
    """

    def __init__(
        self,
        coarse: NDArray[np.float32],
        books: NDArray[np.float32],
        cells: NDArray[np.float32] | None = None,
    ) -> None:
        slices, *entries, width = books.shape
        if cells is None:
            cells = np.zeros((1, coarse.shape[1]), np.float32)
        if entries != [2, 16] or slices * width != coarse.shape[1]:
            raise ValueError(f"books {books.shape} do not fit centroids {coarse.shape}")
        if cells.shape[1:] != coarse.shape[1:] or len(coarse) * len(cells) > 65_536:
            raise ValueError(f"cells {cells.shape} do not fit centroids {coarse.shape}")
        self.coarse = np.ascontiguousarray(coarse)
        self.books = np.ascontiguousarray(books)
        self.codebooks = sums(books)
        self.cells = np.ascontiguousarray(cells)
        self.half_coarse = 0.5 * np.sum(self.coarse**2, axis=1)
        self._half_entries = 0.5 * np.sum(self.codebooks**2, axis=2)
        self.half_cells = (
            self.half_coarse[:, None]
            + self.coarse @ self.cells.T
            + 0.5 * np.sum(self.cells**2, axis=1)
        )
        # side by side in each dimension, of which there are as many as the kernel takes at a time
        self._entries = np.ascontiguousarray(
            np.pad(self.codebooks.transpose(0, 2, 1), ((0, 0), (0, -width % 4), (0, 0)))
        )

    @property
    def code_size(self) -> int:
        """Bytes of a code, the number of its list not counted."""
        return len(self.codebooks)

    def encode(
        self, embeddings: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
        """Lists [shape=(n,)] and codes [shape=(n, code_size)] of embeddings [shape=(n, dimension)]."""
        lists = self.lists(embeddings)
        codes = np.empty((len(embeddings), self.code_size), np.uint8)
        _quantise(
            embeddings - self.coarse[lists],
            self._entries,
            self._half_entries,
            self.codebooks.shape[2],
            codes,
        )
        return lists, codes

    def lists(self, embeddings: NDArray[np.float32]) -> NDArray[np.uint16]:
        """Numbers of the nearest centroids [shape=(n,)]."""
        lists = np.empty(len(embeddings), np.uint16)
        for first in range(0, len(embeddings), _ROWS):
            rows = slice(first, first + _ROWS)
            products = embeddings[rows] @ self.coarse.T
            products -= self.half_coarse
            lists[rows] = np.argmax(products, axis=1)
        return lists

    def cells_of(self, lists: NDArray[np.uint16], codes: NDArray[np.uint8]) -> NDArray[np.uint16]:
        """Numbers of the cells [shape=(n,)], list * cells + cell, that codes lie in."""
        slices, _, width = self.codebooks.shape
        parts = self.cells.reshape(len(self.cells), slices, width)
        products = np.einsum("sew,csw->sec", self.codebooks, parts)
        out = np.empty(len(lists), np.uint16)
        _nearest_cells(lists, codes, np.ascontiguousarray(products), self.cells, out)
        return out

    def crowding(
        self, embeddings: NDArray[np.float32], lists: NDArray[np.uint16] | None = None
    ) -> NDArray[np.float32]:
        """How crowded music at large is around embeddings: their similarity to the nearest centroid.

        Returns [shape=(n,)]. A centroid is long where the music that it stands for is alike, and short
        where it is not. lists : numbers of the nearest centroids, where they are known
        """
        if lists is None:
            lists = self.lists(embeddings)
        return np.einsum("nd,nd->n", embeddings, self.coarse[lists])

    def decode(self, lists: NDArray[np.uint16], codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What is left of the embeddings [shape=(n, dimension)], of length 1 as these were.

        A code forgets how long a vector was: the sum of its entries is 0.77 and more of an embedding and a
        quarter of silence, which has none; what is shorter than half becomes zero again.
        """
        out = np.empty((len(lists), self.coarse.shape[1]), np.float32)
        _decode(lists, codes, self.coarse, self.codebooks, out)
        return out


def sums(books: NDArray[np.float32]) -> NDArray[np.float32]:
    """books[s, 0, byte // 16] + books[s, 1, byte % 16] of each slice and byte [shape=(bytes, 256, width)]."""
    slices, _, _, width = books.shape
    return (books[:, 0, :, None] + books[:, 1, None]).reshape(slices, 256, width)


@njit(cache=True, nogil=True, fastmath={"contract"})
def _quantise(residuals, entries, halves, width, out):
    """out[i, s] = argmax_e residuals[i, slice s]·entries[s, :, e] - halves[s, e], the first of equal ones.

    entries [shape=(slices, width, 256)], filled up with zeros to a width that four divide.
    """
    part = np.zeros(entries.shape[1], np.float32)
    product = np.empty(256, np.float32)
    largest = np.empty(128, np.float32)
    for i in range(len(residuals)):
        for s in range(len(entries)):
            part[:width] = residuals[i, s * width : (s + 1) * width]
            product[:] = 0
            for c in range(0, len(part), 4):  # four at a time: their sum stays in a register
                w, x, y, z = entries[s, c], entries[s, c + 1], entries[s, c + 2], entries[s, c + 3]
                p, q, r, t = part[c], part[c + 1], part[c + 2], part[c + 3]
                for e in range(256):
                    product[e] = (((product[e] + p * w[e]) + q * x[e]) + r * y[e]) + t * z[e]
            lengths = halves[s]
            for e in range(256):
                product[e] -= lengths[e]
            # by halves: the maximum of floats in one loop would not be vectorised
            for e in range(128):
                largest[e] = max(product[e], product[e + 128])
            half = 64
            while half:
                for e in range(half):
                    largest[e] = max(largest[e], largest[e + half])
                half //= 2
            first = np.int32(256)
            for e in range(256):
                first = min(first, np.int32(e) if product[e] == largest[0] else np.int32(256))
            out[i, s] = first


@njit(cache=True, nogil=True)
def _decode(lists, codes, coarse, codebooks, out):
    """out[i] = coarse[lists[i]] + the codebook entries of codes[i], slice by slice, at length 1."""
    slices, _, width = codebooks.shape
    for i in range(len(lists)):
        total = np.float32(0.0)
        for s in range(slices):
            entry = codebooks[s, codes[i, s]]
            for c in range(width):
                value = coarse[lists[i], s * width + c] + entry[c]
                out[i, s * width + c] = value
                total += value * value
        scale = np.float32(1.0) / np.sqrt(total) if total > np.float32(0.25) else np.float32(0.0)
        for c in range(slices * width):
            out[i, c] *= scale


@njit(cache=True, nogil=True)
def _nearest_cells(lists, codes, products, cells, out):
    """out[i] = lists[i] * len(cells) + argmax_k residual·cells[k] - |cells[k]|² / 2, the first of equal ones.

    products [shape=(slices, 256, cells)] are those of codebook entries and the slices of cells.
    """
    count = len(cells)
    halves = np.empty(count, np.float32)
    for k in range(count):
        halves[k] = np.float32(0.5) * np.sum(cells[k] * cells[k])
    near = np.empty(count, np.float32)
    for i in range(len(codes)):
        near[:] = -halves
        for s in range(codes.shape[1]):
            of_entry = products[s, codes[i, s]]
            for k in range(count):
                near[k] += of_entry[k]
        out[i] = lists[i] * count + np.argmax(near)
