"""Embeddings to bytes and back: coarse centroids and product-quantised residuals.

The codebooks ship with the encoder, so ingest never trains anything and a code means the same in every
library. An embedding is stored as the number of its nearest coarse centroid (which is also its list in
the index) and one byte for each slice of what the centroid leaves (Jégou et al. 2011, "Product
quantization for nearest neighbor search", section IV). The rotation that spreads variance evenly over
the slices (Ge et al. 2013, "Optimized product quantization") is part of the encoder's last layer.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

_ROWS = 4096  # embeddings compared with all centroids at once: bounds memory


class Codec:
    """Coarse centroids [shape=(lists, dimension)], codebooks [shape=(bytes, 256, dimension / bytes)]."""

    def __init__(self, coarse: NDArray[np.float32], codebooks: NDArray[np.float32]) -> None:
        slices, entries, width = codebooks.shape
        if entries != 256 or slices * width != coarse.shape[1]:
            raise ValueError(f"codebooks {codebooks.shape} do not fit centroids {coarse.shape}")
        self.coarse = np.ascontiguousarray(coarse)
        self.codebooks = np.ascontiguousarray(codebooks)
        # nearest is the one of largest product once half its squared length is taken off
        self._half_coarse = 0.5 * np.sum(self.coarse**2, axis=1)
        self._half_entries = 0.5 * np.sum(self.codebooks**2, axis=2)

    @property
    def code_size(self) -> int:
        """Bytes of a code, the number of its list not counted."""
        return len(self.codebooks)

    def encode(
        self, embeddings: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
        """Lists [shape=(n,)] and codes [shape=(n, code_size)] of embeddings [shape=(n, dimension)]."""
        lists = self.lists(embeddings)
        residuals = embeddings - self.coarse[lists]
        codes = np.empty((len(embeddings), self.code_size), np.uint8)
        width = self.codebooks.shape[2]
        for s, book in enumerate(self.codebooks):
            part = residuals[:, s * width : (s + 1) * width]
            codes[:, s] = np.argmax(part @ book.T - self._half_entries[s], axis=1)
        return lists, codes

    def lists(self, embeddings: NDArray[np.float32]) -> NDArray[np.uint16]:
        """Numbers of the nearest centroids [shape=(n,)]."""
        lists = np.empty(len(embeddings), np.uint16)
        for first in range(0, len(embeddings), _ROWS):
            rows = slice(first, first + _ROWS)
            products = embeddings[rows] @ self.coarse.T
            lists[rows] = np.argmax(products - self._half_coarse, axis=1)
        return lists

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
