"""Recordings whose sound is the same under two ids, other encodings of it included.

A few of each recording's stored embeddings look for their neighbours in the whole library; another
recording that several of them lead to, at one offset, is a candidate. It is confirmed by a search, like
any query's: the stored embeddings of one, filled up to the query's step, in those of the other, must
match over most of both.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fingerprint.fingerprint import REFERENCE_EVERY
from index.library import Library
from index.query_context import Question
from index.recording import Recording
from index.search import Match, search
from index.significance import MATCH, Calibration
from index.snapshot import Snapshot
from index.stored_query import as_query

PROBES = 12  # embeddings of a recording that look for neighbours…
NEIGHBOURS = 20  # …so many each…
LISTS = 32  # …in so many lists of the index: one sound's embeddings lie in the same or near ones
COMPARED = 200_000  # stored embeddings that each probe is compared with, at most
AGREEING = 4  # of them must lead to the same place
SHARE = 0.8  # of either recording that must match the other
_SLACK = 1  # reference steps between offsets that agree
_BATCH = 64  # recordings whose embeddings look for neighbours at a time


@dataclass(frozen=True)
class Duplicate:
    """Two recordings of one sound; `share` is how much of the one that has more matches the other."""

    first: Recording
    second: Recording
    share: float


def duplicates(library: Library) -> Iterator[Duplicate]:
    """All pairs of recordings that sound the same, as of one commit."""
    snapshot = library.refresh()
    calibration = Calibration.of(library.encoder.id)
    for first in range(0, len(snapshot.recordings), _BATCH):
        end = min(first + _BATCH, len(snapshot.recordings))
        for one, other in sorted(_candidates(snapshot, first, end)):
            share = _share(library, snapshot, one, other, calibration)
            if share >= SHARE:
                yield Duplicate(snapshot.recordings[one], snapshot.recordings[other], share)


def _candidates(snapshot: Snapshot, first: int, end: int) -> set[tuple[int, int]]:
    """Pairs of recordings, of the ones from first to end and any after it, that may sound the same."""
    owners, places, probes = [], [], []
    for recording in range(first, end):
        length = snapshot.length(recording)
        spread = np.linspace(0, length - 1, min(length, PROBES)).round().astype(int)
        whole = snapshot.embeddings(recording, 0, length)
        for place in spread.tolist():
            owners.append(recording)
            places.append(place)
            probes.append(whole[place])
    if not probes:
        return set()
    _, numbers = snapshot.nearest(np.array(probes, np.float32), NEIGHBOURS, LISTS, COMPARED)
    votes: Counter[tuple[int, int, int]] = Counter()
    for owner, place, row in zip(owners, places, numbers, strict=True):
        found = row[row >= 0]
        others = snapshot.owner(found)
        offsets = found - snapshot.starts[others] - place
        # each probe counts once for a recording and offset, and for the offsets beside it
        votes.update(
            {
                (owner, other, near)
                for other, offset in zip(others.tolist(), offsets.tolist(), strict=True)
                if other > owner
                for near in range(offset - _SLACK, offset + _SLACK + 1)
            }
        )
    return {(owner, other) for (owner, other, _), count in votes.items() if count >= AGREEING}


def _share(
    library: Library,
    snapshot: Snapshot,
    one: int,
    other: int,
    calibration: Calibration,
) -> float:
    """The smaller of the shares of two recordings that match each other at one offset."""
    named = snapshot.recordings[other]
    alone = Snapshot.of([snapshot.codes(other, 0, snapshot.length(other))], library.encoder.codec)
    alone = alone.naming(lambda _: named)
    query = as_query(snapshot.embeddings(one, 0, snapshot.length(one)), library.encoder)
    length = float(snapshot.length(other)) * REFERENCE_EVERY * query.step
    matches = search(Question(query, alone, library.encoder), calibration, MATCH)
    if not matches:
        return 0.0
    best = matches[0]
    same = [match for match in matches if abs(_offset(match) - _offset(best)) < 1.0]
    heard = sum(match.query_end - match.query_start for match in same)
    return min(1.0, heard / max(query.duration, length, 1e-6))


def _offset(match: Match) -> float:
    return match.reference_start - match.query_start
