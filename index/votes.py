"""Candidates: recordings and offsets for which a query's nearest neighbours vote.

Each stored embedding that is near a query's embedding votes for its recording at the offset between the
two, with the square of how far their similarity exceeds the crowding there: one that is near counts for
several that are less so. A slope lets votes of a query whose tempo is a little off fall together.

A loop may lie in more places than have a vote. Where even the last neighbour is as near as the first, many
more are asked; of one recording only a few offsets are candidates, and a passage of many recordings makes
candidates of them all.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fingerprint.cores import pool
from fingerprint.fingerprint import REFERENCE_EVERY
from fingerprint.kernels import njit
from index.neighbours import Nearest
from index.query_context import Question

MANY = 128  # stored embeddings that vote for one of the query's whose neighbours are all alike:
NEAR = 0.3  # the nearest exceeds the crowding by so much,
ALIKE = 0.8  # and the last by this share of that
SHARED = 10  # so many embeddings, or half of a query's, make a shared passage
OF_ONE = 4  # candidates of one recording at a time: pairs of an offset and a slope
TIED = (
    0.3  # share of the votes that a shared passage has to give that makes its recordings candidates
)


class Effort(NamedTuple):
    """How closely a query is looked at, for candidates.

    Attributes
    ----------
    every : query steps from one embedding that votes to the next
    neighbours : stored embeddings that vote for each of them
    probes : of the index's 1,024 lists
    compared : stored embeddings that each is compared with, at most
    candidates : (recording, offset) pairs of most votes that are told of a passage
    """

    every: int
    neighbours: int
    probes: int
    compared: int
    candidates: int


class Candidate(NamedTuple):
    """A recording (its index in the snapshot) at an offset.

    Query step i lies over the reference's time offset + slope * i, in query steps.
    """

    votes: float
    recording: int
    offset: int
    slope: float


class Passage(NamedTuple):
    """Embeddings of a query [shape=(n, dimension)], and how crowded it is around each [shape=(n,)]."""

    embeddings: NDArray[np.float32]
    crowding: NDArray[np.float32]


def candidates(
    passages: Sequence[Passage],
    question: Question,
    effort: Effort,
    slopes: tuple[float, ...] = (1.0,),
) -> list[list[Candidate]]:
    """The candidates of most votes of each passage, best first; more where it is many recordings'.

    A passage's embeddings lie `effort.every` query steps apart.
    """

    def nearest(of: Sequence[Passage], count: int) -> list[Nearest]:
        embeddings = [passage.embeddings for passage in of]
        return question.snapshot.nearest_to_each(embeddings, count, effort.probes, effort.compared)

    voters = nearest(passages, effort.neighbours)
    given = [
        _shared(similarity, passage.crowding)
        for passage, (similarity, _) in zip(passages, voters, strict=True)
    ]
    shared = [number for number, votes in enumerate(given) if votes]
    if shared:
        more = nearest([passages[number] for number in shared], MANY)
        for number, of_it in zip(shared, more, strict=True):
            voters[number] = of_it

    def chosen(passage: Passage, voters: Nearest, given: float) -> list[Candidate]:
        return _chosen(passage, voters, given, question, effort, slopes)

    return list(pool().map(chosen, passages, voters, given))


def _chosen(
    passage: Passage,
    voters: Nearest,
    given: float,
    question: Question,
    effort: Effort,
    slopes: tuple[float, ...],
) -> list[Candidate]:
    """A passage's candidates; `given` is what a shared passage gives to each recording that has it."""
    similarity, numbers = voters
    valid = numbers >= 0
    step = np.broadcast_to(np.arange(len(numbers))[:, None], numbers.shape)[valid]
    weight = np.maximum(similarity[valid] - passage.crowding[step], 0) ** 2
    recording = question.snapshot.owner(numbers[valid])
    at = REFERENCE_EVERY * (numbers[valid] - question.snapshot.starts[recording])
    ballots = []
    for slope in slopes:
        offset = at - np.round(slope * effort.every * step).astype(np.int64)
        ballots.append(_vote(recording, offset, weight))
    votes = np.concatenate([ballot[0] for ballot in ballots])
    slope_of = np.repeat(slopes, [len(ballot[0]) for ballot in ballots])
    recordings = np.concatenate([ballot[1] for ballot in ballots])
    places = np.concatenate([ballot[2] for ballot in ballots])
    chosen: list[Candidate] = []
    offsets: Counter[int] = Counter()
    for i in np.argsort(-votes, kind="stable"):
        one = Candidate(float(votes[i]), int(recordings[i]), int(places[i]), float(slope_of[i]))
        if len(chosen) >= effort.candidates and not (given and one.votes >= TIED * given):
            break
        offsets[one.recording] += 1
        if offsets[one.recording] <= OF_ONE:
            chosen.append(one)
    return chosen


def _shared(similarity: NDArray[np.float32], crowding: NDArray[np.float32]) -> float:
    """The votes that a query's shared passage gives to a recording that has it; 0 if it has none."""
    if not len(crowding):
        return 0.0
    nearest, last = similarity[:, 0] - crowding, similarity[:, -1] - crowding
    alike = (nearest >= NEAR) & (last >= ALIKE * nearest)
    if np.count_nonzero(alike) < min(SHARED, len(alike) / 2):
        return 0.0
    return float(np.sum(last[alike] ** 2))


def _vote(
    recording: NDArray[np.int64], offset: NDArray[np.int64], weight: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Votes, recordings and offsets of most votes [shape=(n,) each], n at most OF_ONE * MANY, best first."""
    if not len(recording):
        return weight, recording, offset
    lowest = offset.min()
    width = offset.max() - lowest + 4  # so that recordings do not touch
    key = recording * width + (offset - lowest + 1)
    order = np.argsort(key, kind="stable")
    keys, votes = _tally(key[order], weight[order])
    best = np.argsort(-votes, kind="stable")[: OF_ONE * MANY]
    recordings, places = np.divmod(keys[best], width)
    return votes[best], recordings, places + lowest - 1


@njit(cache=True, nogil=True)
def _tally(key, weight):
    """Weight of each key and its two neighbours, of keys in order; only local maxima."""
    n = len(key)
    unique = np.empty(n, np.int64)
    total = np.zeros(n, np.float32)
    count = 0
    for i in range(n):
        if count == 0 or unique[count - 1] != key[i]:
            unique[count] = key[i]
            count += 1
        total[count - 1] += weight[i]
    smooth = np.empty(count, np.float32)
    for i in range(count):
        smooth[i] = total[i]
        if i > 0 and unique[i - 1] == unique[i] - 1:
            smooth[i] += total[i - 1]
        if i + 1 < count and unique[i + 1] == unique[i] + 1:
            smooth[i] += total[i + 1]
    kept = 0
    keys = np.empty(count, np.int64)
    votes = np.empty(count, np.float32)
    for i in range(count):
        if i > 0 and unique[i - 1] == unique[i] - 1 and smooth[i - 1] > smooth[i]:
            continue
        if i + 1 < count and unique[i + 1] == unique[i] + 1 and smooth[i + 1] >= smooth[i]:
            continue
        keys[kept] = unique[i]
        votes[kept] = smooth[i]
        kept += 1
    return keys[:kept], votes[:kept]
