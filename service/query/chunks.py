"""A long sound is heard in stretches, each a query of its own, so that memory does not grow with it.

What is found in one stretch and goes on in the next is one segment: of the same recording, in the same place.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fingerprint.audio import SAMPLE_RATE
from service.query.answer import Match

STRETCH = 600.0  # s
OVERLAP = 30.0  # s that a stretch has in common with the next
Segment = TypeVar("Segment", bound=Match)
_SAME_PLACE = 1.0  # s by which two stretches may differ on where in a recording a moment is


def stretches(blocks: Iterable[NDArray[np.float32]]) -> Iterator[tuple[float, NDArray[np.float32]]]:
    """Second of its beginning and samples [shape=(n,)] of each stretch of a sound; at least one."""
    waiting, have, begins = [np.empty(0, np.float32)], 0, 0
    for block in blocks:
        if have >= STRETCH * SAMPLE_RATE:
            samples = np.concatenate(waiting)
            yield begins / SAMPLE_RATE, samples
            kept = samples[-round(OVERLAP * SAMPLE_RATE) :].copy()
            begins += have - len(kept)
            waiting, have = [kept], len(kept)
        waiting.append(block)
        have += len(block)
    yield begins / SAMPLE_RATE, np.concatenate(waiting)


def joined(before: Sequence[Segment], found: Iterable[Segment], begins: float) -> list[Segment]:
    """Segments of a sound so far, and those of the stretch that begins at that second, joined to these."""
    segments = list(before)
    for new in found:
        for at, old in enumerate(segments):
            if old.query_end > begins and _is_same(old, new):
                segments[at] = _as_one(old, new)
                break
        else:
            segments.append(new)
    return segments


def _is_same(one: Match, other: Match) -> bool:
    """Whether two segments that overlap have the same recording in the same place."""
    start = max(one.query_start, other.query_start)
    end = min(one.query_end, other.query_end)
    if (one.recording, one.track) != (other.recording, other.track) or start > end:
        return False
    middle = (start + end) / 2
    return abs(_place(one, middle) - _place(other, middle)) <= _SAME_PLACE


def _place(segment: Match, second: float) -> float:
    """Second of the recording that is at a second of the sound."""
    return segment.reference_start + (second - segment.query_start) * segment.tempo


def _as_one(one: Segment, other: Segment) -> Segment:
    """The stronger of two, a `match` before one for review, over what both cover."""
    first, last = sorted((one, other), key=lambda it: it.query_start)
    return min(one, other, key=lambda it: (it.tier != "match", it.e_value)).model_copy(
        update={
            "query_start": first.query_start,
            "query_end": max(first.query_end, last.query_end),
            "reference_start": first.reference_start,
            "reference_end": max(first.reference_end, last.reference_end),
            "repeats": [],  # of the parts, not of the whole
        }
    )
