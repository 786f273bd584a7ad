"""One committed state of a library in memory, and what a search asks of it.

Recordings' codes lie one after the other; number i of the whole belongs to the recording in whose run
it falls. The FAISS index (inverted lists over the encoder's centroids, product-quantised residuals)
finds the nearest numbers; codes of whole runs are decoded for alignment.
"""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from fingerprint.codec import Codec
from index.catalogue import Placement
from index.segment import Codes, concatenate


class Snapshot:
    """Recordings and codes as of one revision; immutable, shared by threads."""

    def __init__(
        self, revision: int, placements: list[Placement], segments: dict[str, Codes], codec: Codec
    ) -> None:
        self.revision = revision
        self.recordings = [placement.recording for placement in placements]
        self.seconds = float(sum(recording.duration for recording in self.recordings))
        runs = [
            Codes(
                segments[p.segment].lists[p.first : p.first + p.count],
                segments[p.segment].codes[p.first : p.first + p.count],
            )
            for p in placements
        ]
        self.codes = concatenate(runs, codec.code_size)
        self.starts = np.concatenate([[0], np.cumsum([len(run) for run in runs])]).astype(np.int64)
        self._codec = codec
        self._index = _faiss_index(self.codes, codec)

    def __len__(self) -> int:
        """Embeddings in all."""
        return len(self.codes)

    def nearest(
        self, embeddings: NDArray[np.float32], count: int, probes: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Similarities and numbers [shape=(n, count)] of the nearest stored embeddings; -1: none.

        Each is compared with those in the `probes` lists whose centroids are nearest to it.
        """
        parameters = faiss.SearchParametersIVF()
        parameters.nprobe = probes
        return self._index.search(np.ascontiguousarray(embeddings), count, params=parameters)

    def owner(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Index in `recordings` of the recordings that embeddings belong to."""
        return np.searchsorted(self.starts, numbers, side="right") - 1

    def embeddings(self, recording: int, first: int, end: int) -> NDArray[np.float32]:
        """Stored embeddings first to end (excluded) of a recording [shape=(n, dimension)]."""
        run = slice(self.starts[recording] + first, self.starts[recording] + end)
        return self._codec.decode(self.codes.lists[run], self.codes.codes[run])

    def length(self, recording: int) -> int:
        """Embeddings of a recording."""
        return int(self.starts[recording + 1] - self.starts[recording])


def _faiss_index(codes: Codes, codec: Codec) -> faiss.IndexIVFPQ:
    """An inverted-list index holding codes under their numbers."""
    lists, dimension = codec.coarse.shape
    quantiser: Any = faiss.IndexFlatIP(dimension)
    quantiser.add(codec.coarse)
    index: Any = faiss.IndexIVFPQ(
        quantiser, dimension, lists, codec.code_size, 8, faiss.METRIC_INNER_PRODUCT
    )
    index.own_fields = True
    quantiser.this.disown()
    faiss.copy_array_to_vector(codec.codebooks.ravel(), index.pq.centroids)
    index.is_trained = True
    order = np.argsort(codes.lists, kind="stable")
    bounds = np.searchsorted(codes.lists[order], np.arange(lists + 1))
    for number in range(lists):
        ids = np.ascontiguousarray(order[bounds[number] : bounds[number + 1]], np.int64)
        if len(ids):
            rows = np.ascontiguousarray(codes.codes[ids])
            index.invlists.add_entries(number, len(ids), faiss.swig_ptr(ids), faiss.swig_ptr(rows))
    index.ntotal = len(codes)
    return index
