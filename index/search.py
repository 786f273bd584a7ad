"""From a query's fingerprint to matches: candidates, votes, alignment, significance.

FAISS names the stored embeddings nearest to each of the query's; each of them votes for a recording and
an offset. The offsets with most weight are aligned with the whole of the query, and an alignment is
answered if its E-value says that chance does not explain it.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fingerprint.fingerprint import REFERENCE_EVERY, Fingerprint
from index.align import Alignment, align, band_weights
from index.significance import CALIBRATION, MATCH, Weigher, e_value
from index.snapshot import Snapshot

NEIGHBOURS = 40  # stored embeddings that vote for each of the query's
CANDIDATES = 24  # (recording, offset) pairs aligned for each block
BLOCK = 300  # query steps (30 s) that vote together
SLACK = 3  # query steps to either side of a candidate's offset that an alignment may use…
DRIFT = 0.03  # …and more, by this share of the block's length


@dataclass(frozen=True)
class Match:
    """One stretch of a query that is one stretch of a recording; times in seconds.

    `tempo` is reference seconds per query second, `pitch_semitones` the query's pitch above the
    reference's, `e_value` the number of matches this strong expected by chance in one such query.
    """

    recording: str
    source: str
    title: str | None
    artist: str | None
    isrc: str | None
    work: str | None
    rightsholder: str
    rights: str
    tier: str
    e_value: float
    score: float
    query_start: float
    query_end: float
    reference_start: float
    reference_end: float
    tempo: float
    pitch_semitones: float


@dataclass(frozen=True)
class Found:
    """An alignment with a recording (its index in the snapshot)."""

    recording: int
    alignment: Alignment


def search(
    fingerprint: Fingerprint, snapshot: Snapshot, weigher: Weigher, max_e_value: float
) -> list[Match]:
    """Matches of a query in a snapshot, best first; only those of E-value max_e_value or less."""
    if not len(snapshot) or not len(fingerprint.embeddings):
        return []
    found: list[Found] = []
    for first in range(0, len(fingerprint.embeddings), BLOCK):
        found += _search_block(fingerprint.embeddings, first, snapshot, weigher)
    matches = []
    for item in _distinct(found):
        chance = e_value(
            item.alignment.score, len(fingerprint.embeddings), len(snapshot), CALIBRATION
        )
        if chance <= max_e_value:
            matches.append(_match(item, chance, fingerprint, snapshot))
    return matches


def best_score(fingerprint: Fingerprint, snapshot: Snapshot, weigher: Weigher) -> float:
    """Score of the strongest alignment, whatever its significance; 0 if there is none."""
    found: list[Found] = []
    for first in range(0, len(fingerprint.embeddings), BLOCK):
        found += _search_block(fingerprint.embeddings, first, snapshot, weigher)
    return max((item.alignment.score for item in found), default=0.0)


def _search_block(
    embeddings: NDArray[np.float32], first: int, snapshot: Snapshot, weigher: Weigher
) -> list[Found]:
    """Alignments of the block of query steps that begins at `first`."""
    # the last block takes a short rest with it
    block = embeddings[first : first + BLOCK]
    similarity, numbers = snapshot.nearest(block, NEIGHBOURS)
    mean, deviation = weigher.standardise(block)
    weight = np.maximum((similarity - mean[:, None]) / deviation[:, None], 0).astype(np.float32)
    valid = numbers >= 0
    step = np.broadcast_to(np.arange(len(block))[:, None], numbers.shape)[valid]
    numbers = numbers[valid]
    recording = snapshot.owner(numbers)
    offset = REFERENCE_EVERY * (numbers - snapshot.starts[recording]) - step
    candidates = _vote(recording, offset, weight[valid])
    slack = SLACK + int(DRIFT * len(block))
    found = []
    for recording_index, candidate in candidates:
        alignment = _align_candidate(
            block, int(recording_index), int(candidate), slack, snapshot, weigher
        )
        if alignment is not None:
            found.append(
                Found(
                    int(recording_index),
                    alignment._replace(
                        first_offset=alignment.first_offset - first,
                        last_offset=alignment.last_offset - first,
                    ),
                )
            )
    return found


def _vote(
    recording: NDArray[np.int64], offset: NDArray[np.int64], weight: NDArray[np.float32]
) -> NDArray[np.int64]:
    """The (recording, offset) pairs of most weight [shape=(n, 2)], n ≤ CANDIDATES, best first."""
    if not len(recording):
        return np.empty((0, 2), np.int64)
    lowest = offset.min()
    width = offset.max() - lowest + 4  # so that recordings do not touch
    key = recording * width + (offset - lowest + 1)
    order = np.argsort(key, kind="stable")
    keys, votes = _tally(key[order], weight[order])
    chosen = keys[np.argsort(-votes, kind="stable")[:CANDIDATES]]
    return np.stack([chosen // width, chosen % width + lowest - 1], axis=1)


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


def _align_candidate(
    block: NDArray[np.float32],
    recording: int,
    offset: int,
    slack: int,
    snapshot: Snapshot,
    weigher: Weigher,
) -> Alignment | None:
    """The best alignment near one offset, its steps counted from the recording's start."""
    low = offset - slack
    first = max(0, -(-low // REFERENCE_EVERY))
    end = min(
        snapshot.length(recording),
        (offset + slack + len(block) - 1) // REFERENCE_EVERY + 1,
    )
    if end <= first:
        return None
    reference = snapshot.embeddings(recording, first, end)
    weights = weigher.weights(block, reference)
    # steps are counted from `first` here, so offsets are smaller by as much
    alignment = align(
        band_weights(weights, low - REFERENCE_EVERY * first, 2 * slack + 1),
        low,
    )
    if alignment is None:
        return None
    return alignment._replace(first=alignment.first + first, last=alignment.last + first)


def _distinct(found: list[Found]) -> list[Found]:
    """Best first, without those that tell of the same stretch of query and recording again.

    Of the several places where a recording repeats itself, the best is named.
    """
    kept: list[Found] = []
    for item in sorted(found, key=lambda f: -f.alignment.score):
        start, end = _query_steps(item.alignment)
        for other in kept:
            if other.recording != item.recording:
                continue
            other_start, other_end = _query_steps(other.alignment)
            shared = min(end, other_end) - max(start, other_start)
            if shared > 0.5 * (end - start):
                break
        else:
            kept.append(item)
    return kept


def _query_steps(alignment: Alignment) -> tuple[int, int]:
    """First and last query step of an alignment."""
    return (
        REFERENCE_EVERY * alignment.first - alignment.first_offset,
        REFERENCE_EVERY * alignment.last - alignment.last_offset,
    )


def _match(item: Found, chance: float, fingerprint: Fingerprint, snapshot: Snapshot) -> Match:
    """The match that an alignment is, in seconds."""
    recording = snapshot.recordings[item.recording]
    alignment = item.alignment
    first, last = _query_steps(alignment)
    reference_step = fingerprint.step * REFERENCE_EVERY
    tempo = 1.0
    if last > first:
        tempo = REFERENCE_EVERY * (alignment.last - alignment.first) / (last - first)
    # Evidence reaches half a window beyond the outermost embeddings. Where the query gave no
    # further embedding that could have spoken against it, the match goes on to the query's end.
    query_start = fingerprint.start + first * fingerprint.step - fingerprint.reach
    query_end = fingerprint.start + last * fingerprint.step + fingerprint.reach
    if first < REFERENCE_EVERY:
        query_start = 0.0
    if last >= len(fingerprint.embeddings) - REFERENCE_EVERY:
        query_end = fingerprint.duration
    query_start = max(0.0, query_start)
    query_end = min(fingerprint.duration, query_end)
    # the middle of the aligned embeddings, where rounding of either end matters least
    query_middle = fingerprint.start + 0.5 * (first + last) * fingerprint.step
    reference_middle = fingerprint.reach + 0.5 * (alignment.first + alignment.last) * reference_step
    reference_start = reference_middle + (query_start - query_middle) * tempo
    reference_end = reference_middle + (query_end - query_middle) * tempo
    if reference_start < 0:
        query_start -= reference_start / tempo
        reference_start = 0.0
    if reference_end > recording.duration:
        query_end -= (reference_end - recording.duration) / tempo
        reference_end = recording.duration
    return Match(
        recording=recording.id,
        source=recording.source,
        title=recording.title,
        artist=recording.artist,
        isrc=recording.isrc,
        work=recording.work,
        rightsholder=recording.rightsholder,
        rights=recording.rights,
        tier="match" if chance <= MATCH else "review",
        e_value=chance,
        score=round(alignment.score, 3),
        query_start=round(query_start, 3),
        query_end=round(query_end, 3),
        reference_start=round(reference_start, 3),
        reference_end=round(reference_end, 3),
        tempo=round(tempo, 4),
        pitch_semitones=0.0,
    )
