"""One committed state of a library, and what a search asks of it.

Embeddings are numbered through all segments in their order; those of removed recordings, and of ones
whose licence has ended, keep their numbers and are not found. What a recording is called is looked up
when it is asked for, so that a million of them cost neither time at opening nor memory.
"""

import math
from collections.abc import Callable, Collection, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from fingerprint.codec import Codec
from index.catalogue import Placements
from index.neighbours import Nearest
from index.recording import Recording
from index.segment import Codes, arrange, concatenate
from index.segment_set import Mapped, Segments


class Recordings(Sequence[Recording]):
    """The recordings of a snapshot, each looked up by its number when it is asked for."""

    def __init__(self, numbers: NDArray[np.int64], look_up: Callable[[int], Recording]) -> None:
        self.numbers = numbers
        self._look_up = look_up

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Recording: ...
    @overload
    def __getitem__(self, index: slice) -> "Recordings": ...
    def __getitem__(self, index: int | slice) -> "Recording | Recordings":
        if isinstance(index, slice):
            return Recordings(self.numbers[index], self._look_up)
        return self._look_up(int(self.numbers[index]))


class Snapshot:
    """Recordings and codes as of one revision; immutable, shared by threads.

    Attributes
    ----------
    revision : number of commits that led here
    day : on which the licences were looked at
    recordings : those that can be found, in order of their codes
    seconds : their audio
    starts : number of each recording's first embedding, and of what comes after the last
        [shape=(recordings + 1,)]
    segments : that hold the codes
    """

    def __init__(
        self,
        revision: int,
        day: str,
        placements: Placements,
        segments: Segments,
        codec: Codec,
        look_up: Callable[[int], Recording],
        whole: "Snapshot | None" = None,
    ) -> None:
        self.revision = revision
        self.day = day
        self.recordings = Recordings(placements.number, look_up)
        self.seconds = float(placements.duration.sum())
        self._whole = whole
        self._placements = placements
        self._stored = int(placements.count.sum())
        self.segments = segments
        numbers = np.array(list(segments.firsts), np.int64)
        firsts = np.array(list(segments.firsts.values()), np.int64)
        starts = firsts[np.searchsorted(numbers, placements.segment)] + placements.first
        self.starts = np.append(starts, segments.total).astype(np.int64)
        gone = _between(starts, starts + placements.count, segments.total)
        self._searched = segments.without(gone)
        self._codec = codec

    @classmethod
    def of(cls, works: Sequence[Codes], codec: Codec) -> "Snapshot":
        """A snapshot of codes that are in no library; recordings are called by numbers and have no end."""
        counts = np.array([len(codes) for codes in works], np.int64)
        numbers = np.arange(len(works))
        placements = Placements(
            numbers,
            np.zeros_like(numbers),
            np.cumsum(counts) - counts,
            counts,
            np.zeros(len(works)),
        )
        segment = arrange(concatenate(list(works), codec.code_size), codec)
        return cls(0, "", placements, Mapped({0: segment}, codec), codec, _nameless)

    def only(self, placements: Placements) -> "Snapshot":
        """The same state with some of its recordings only."""
        return self._with(placements, None)

    def without(self, segments: Collection[int]) -> "Snapshot":
        """The part of this state that is not in some segments, as they do not answer.

        Chance is that of the whole: what is found in the part has the E-value that it always has.
        """
        there = [number for number in self.segments.firsts if number not in segments]
        return self._with(self._placements.where(there), self)

    def _with(self, placements: Placements, whole: "Snapshot | None") -> "Snapshot":
        return Snapshot(
            self.revision,
            self.day,
            placements,
            self.segments,
            self._codec,
            self.recordings._look_up,
            whole,
        )

    def leaving_out(self, recordings: NDArray[np.int64]) -> "Snapshot":
        """The same state without some of its recordings, given by their index."""
        rest = np.delete(np.arange(len(self.recordings)), recordings)
        return self.only(self._placements.take(rest))

    @property
    def whole(self) -> "Snapshot":
        """All of the state that this is a part of; itself, if nothing is missing."""
        return self if self._whole is None else self._whole

    @property
    def answered(self) -> float:
        """Share of the whole state that this is, in embeddings."""
        return self._stored / len(self) if len(self) else 1.0

    def naming(self, look_up: Callable[[int], Recording]) -> "Snapshot":
        """The same state with another way to look recordings up."""
        other = object.__new__(Snapshot)
        other.__dict__ = self.__dict__ | {
            "recordings": Recordings(self.recordings.numbers, look_up)
        }
        return other

    def __len__(self) -> int:
        """Embeddings in all, of the whole state."""
        return self.whole._stored

    def nearest(
        self, embeddings: NDArray[np.float32], count: int, probes: int, compared: int
    ) -> Nearest:
        """Similarities and numbers [shape=(n, count)] of the nearest stored embeddings; -1: none.

        Each is compared with those in the `probes` lists whose centroids are nearest to it, or in fewer,
        or in as many cells of these and others, where these hold more than about `compared`.
        """
        return self.nearest_to_each([embeddings], count, probes, compared)[0]

    def nearest_to_each(
        self, passages: Sequence[NDArray[np.float32]], count: int, probes: int, compared: int
    ) -> list[Nearest]:
        """The same of each of several passages, which costs a cluster no more calls than one."""
        share = min(1.0, probes / len(self._codec.coarse), compared / max(1, len(self)))
        return self._searched.nearest(passages, count, share)

    def owner(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Index in `recordings` of the recordings that embeddings belong to."""
        return np.searchsorted(self.starts[:-1], numbers, side="right") - 1

    def embeddings(self, recording: int, first: int, end: int) -> NDArray[np.float32]:
        """Stored embeddings first to end (excluded) of a recording [shape=(n, dimension)]."""
        codes = self.codes(recording, first, end)
        return self._codec.decode(codes.lists, codes.codes)

    def codes(self, recording: int, first: int, end: int) -> Codes:
        """Codes of a recording's embeddings first to end (excluded)."""
        place = self._placements
        start = int(place.first[recording])
        end = min(end, self.length(recording))
        return self.segments.run(int(place.segment[recording]), start + first, start + end)

    def place(self, number: int) -> int:
        """Index in `recordings` of the one of that number. Raises KeyError if it is not found here."""
        (places,) = np.nonzero(self.recordings.numbers == number)
        if not len(places):
            raise KeyError(number)
        return int(places[0])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Embeddings of each recording [shape=(recordings,)]."""
        return self._placements.count

    def length(self, recording: int) -> int:
        """Embeddings of a recording."""
        return int(self._placements.count[recording])


def _between(starts: NDArray[np.int64], ends: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """The runs of numbers below total that lie in none of the runs given [shape=(m, 2)]."""
    first = np.append(0, ends)
    end = np.append(starts, total)
    return np.stack([first, end], axis=1)[end > first].astype(np.int64)


def _nameless(number: int) -> Recording:
    return Recording("", "", "open-licence", str(number), duration=math.inf)
