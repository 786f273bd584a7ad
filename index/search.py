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
from index.align import Alignment, align
from index.significance import MATCH, Calibration, Weigher
from index.snapshot import Snapshot

NEIGHBOURS = 40  # stored embeddings that vote for each of the query's
CANDIDATES = 24  # (recording, offset) pairs that are aligned for each block
BLOCK = 300  # query steps (30 s) that vote together
SLACK = 3  # query steps to either side of a candidate's offset that an alignment may use…
DRIFT = 0.03  # …and more, by this share of what query and recording overlap…
MOST_SLACK = 40  # …up to these 4 s
WINDOW = 12  # query steps that one embedding looks at


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

    def query_step(self, step: float) -> float:
        """Query step under a reference step."""
        along = step - (self.alignment.first + self.alignment.last) / 2
        return REFERENCE_EVERY * step - self.alignment.offset - self.alignment.creep * along

    def query_steps(self) -> tuple[float, float]:
        """Query steps under the alignment's first and last reference step."""
        return self.query_step(self.alignment.first), self.query_step(self.alignment.last)


def search(
    fingerprint: Fingerprint,
    snapshot: Snapshot,
    weigher: Weigher,
    calibration: Calibration,
    max_e_value: float,
) -> list[Match]:
    """Matches of a query in a snapshot, best first; only those of E-value max_e_value or less."""
    embeddings = fingerprint.embeddings
    least = max(0.0, calibration.score(max_e_value, len(embeddings), len(snapshot)))
    matches = []
    for found in _distinct(_alignments(embeddings, snapshot, weigher, least)):
        chance = calibration.e_value(found.alignment.score, len(embeddings), len(snapshot))
        matches += [
            _match(found, first, last, chance, fingerprint, snapshot)
            for first, last in found.alignment.stretches
        ]
    return matches


def strongest(fingerprint: Fingerprint, snapshot: Snapshot, weigher: Weigher) -> float:
    """Score of a query's best alignment, however weak; 0 if there is none. For calibration."""
    found = _alignments(fingerprint.embeddings, snapshot, weigher, 0.0)
    return max((item.alignment.score for item in found), default=0.0)


def _alignments(
    embeddings: NDArray[np.float32], snapshot: Snapshot, weigher: Weigher, least: float
) -> list[Found]:
    """All alignments that score at least so much, of all blocks' candidates."""
    found: list[Found] = []
    for first in range(0, len(embeddings) if len(snapshot) else 0, BLOCK):
        block = embeddings[first : first + BLOCK]
        for recording, offset in _candidates(block, snapshot, weigher):
            offset -= first
            if not any(_leads_to(item, recording, offset, first, len(block)) for item in found):
                found += _align(embeddings, recording, offset, snapshot, weigher, least)
    return found


def _leads_to(item: Found, recording: int, offset: int, first: int, steps: int) -> bool:
    """Whether a candidate of the block at `first` is part of an alignment that is known already."""
    if item.recording != recording:
        return False
    start, end = item.query_steps()
    if min(end, first + steps) - max(start, first) < 0.5 * min(steps, end - start):
        return False
    middle = (max(start, first) + min(end, first + steps)) / 2
    along = (middle - (start + end) / 2) / (REFERENCE_EVERY - item.alignment.creep)
    return abs(offset - item.alignment.offset - item.alignment.creep * along) <= SLACK


def _candidates(
    block: NDArray[np.float32], snapshot: Snapshot, weigher: Weigher
) -> list[tuple[int, int]]:
    """Recordings and offsets (from the block's first step) that a block of query steps votes for."""
    similarity, numbers = snapshot.nearest(block, NEIGHBOURS)
    mean, deviation = weigher.standard(block)
    valid = numbers >= 0
    step = np.broadcast_to(np.arange(len(block))[:, None], numbers.shape)[valid]
    weight = np.maximum((similarity[valid] - mean[step]) / deviation[step], 0)
    recording = snapshot.owner(numbers[valid])
    offset = REFERENCE_EVERY * (numbers[valid] - snapshot.starts[recording]) - step
    return [(int(r), int(o)) for r, o in _vote(recording, offset, weight)]


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


def _align(
    embeddings: NDArray[np.float32],
    recording: int,
    offset: int,
    snapshot: Snapshot,
    weigher: Weigher,
    least: float,
) -> list[Found]:
    """The alignments near one offset, wherever query and recording overlap there."""
    first = max(0, -(-offset // REFERENCE_EVERY))
    end = min(snapshot.length(recording), (offset + len(embeddings) - 1) // REFERENCE_EVERY + 1)
    slack = min(MOST_SLACK, SLACK + int(DRIFT * REFERENCE_EVERY * max(0, end - first)))
    # reference steps that only other offsets of the band put under the query
    first = max(0, first - slack // REFERENCE_EVERY - 1)
    end = min(snapshot.length(recording), end + slack // REFERENCE_EVERY + 1)
    if end <= first:
        return []
    reference = snapshot.embeddings(recording, first, end)
    low = offset - slack - REFERENCE_EVERY * first
    # only the query steps that the band touches
    begin = max(0, -(low + 2 * slack))
    stop = max(begin, REFERENCE_EVERY * (end - first) - low)
    banded = weigher.band(
        embeddings[begin:stop], reference, low + begin, 2 * slack + 1, REFERENCE_EVERY
    )
    found = []
    while (alignment := align(banded, low)) is not None and alignment.score >= least:
        found.append(
            Found(
                recording,
                alignment._replace(
                    first=alignment.first + first,
                    last=alignment.last + first,
                    offset=alignment.offset + REFERENCE_EVERY * first,
                    stretches=tuple((a + first, b + first) for a, b in alignment.stretches),
                ),
            )
        )
        banded[alignment.first : alignment.last + 1] = np.nan
    return found


def _distinct(found: list[Found]) -> list[Found]:
    """Best first, without those that tell of the same stretch of query and recording again.

    Of the several places where a recording repeats itself, the best is named.
    """
    kept: list[Found] = []
    for item in sorted(found, key=lambda item: -item.alignment.score):
        start, end = item.query_steps()
        for other in kept:
            other_start, other_end = other.query_steps()
            shared = min(end, other_end) - max(start, other_start) + WINDOW
            if other.recording == item.recording and shared >= 0.5 * (end - start + WINDOW):
                break
        else:
            kept.append(item)
    return kept


def _match(
    found: Found,
    first_step: int,
    last_step: int,
    chance: float,
    fingerprint: Fingerprint,
    snapshot: Snapshot,
) -> Match:
    """The match that reference steps first to last of an alignment are, in seconds."""
    recording = snapshot.recordings[found.recording]
    alignment = found.alignment
    first, last = found.query_step(first_step), found.query_step(last_step)
    reference_step = fingerprint.step * REFERENCE_EVERY
    tempo = REFERENCE_EVERY / (REFERENCE_EVERY - alignment.creep)
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
    reference_middle = fingerprint.reach + 0.5 * (first_step + last_step) * reference_step
    reference_start = reference_middle + (query_start - query_middle) * tempo
    reference_end = reference_middle + (query_end - query_middle) * tempo
    if reference_start < 0:
        query_start = max(0.0, query_start - reference_start / tempo)
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
