"""Shared material: loops, samples and jingles that the library holds in several recordings.

A match whose evidence is confined to such a place says that the material is there, not whose recording is. So
the stored codes under a match are looked for in the other recordings. One that has them too, and goes on in
another way before or after, shares them. One that goes on in the same way, as far as both are there, is the
same recording under another id, an edit of it, or has a longer passage of it: a match with either is one.
"""

from collections.abc import Iterator
from typing import NamedTuple

from fingerprint.fingerprint import REFERENCE_EVERY
from fingerprint.view import unaltered
from index.align import Found, align_near
from index.query_context import Question
from index.significance import MATCH, Calibration
from index.stored_query import as_query
from index.votes import Effort, Passage, candidates

AROUND = 20  # reference steps (10 s) at either side, by which a copy is told from shared material
SAME = 0.8  # share of a stretch and its surroundings that a copy has too
LONGEST = 240  # reference steps (2 min) of a match that are looked for: what is longer is no loop
# What is nearly identical is among the nearest, in few lists; if very many have it, some are found.
ELSEWHERE = Effort(REFERENCE_EVERY, 40, 16, 20_000, 8)


class Part(NamedTuple):
    """Reference steps of a recording, both inclusive."""

    first: int
    last: int


def shared_part(
    found: Found, question: Question, calibration: Calibration, gate: float
) -> Part | None:
    """The part of a match that other recordings share, if what is outside of it would be no match.

    gate : E-value up to which something is a match
    """
    first, last = found.alignment.first, found.alignment.last
    if last - first >= LONGEST:
        return None
    shared = {
        step
        for part in _elsewhere(found.recording, first, last, question, calibration)
        for step in range(max(first, part.first), min(last, part.last) + 1)
    }
    if not shared:
        return None
    alone = found.score * (1 - len(shared) / (last - first + 1))
    if calibration.e_value(alone, *question.size, found.hypotheses) <= gate:
        return None
    return Part(min(shared), max(shared))


def _elsewhere(
    recording: int, first: int, last: int, question: Question, calibration: Calibration
) -> Iterator[Part]:
    """What of a recording, around steps first to last, other recordings have that are no copies of it."""
    snapshot, codec = question.snapshot, question.encoder.codec
    begin = max(0, first - AROUND)
    end = min(snapshot.length(recording), last + 1 + AROUND)
    stored = snapshot.embeddings(recording, begin, end)
    around = Question(as_query(stored, question.encoder), snapshot, question.encoder)
    view = unaltered(around.fingerprint, question.encoder)
    matched = stored[first - begin : last + 1 - begin]
    looked_at: set[int] = {recording}
    (elsewhere,) = candidates([Passage(matched, codec.crowding(matched))], question, ELSEWHERE)
    for candidate in elsewhere:
        other = candidate.recording
        if other in looked_at:
            continue
        looked_at.add(other)
        offset = candidate.offset - REFERENCE_EVERY * (first - begin)
        best = next(align_near(around, view, other, offset), None)
        # by the chance of clips, which states a little more than that of stored codes; whatever is asked of a
        # match, two recordings have something in common or not
        if best is None or calibration.e_value(best.score, *around.size) > MATCH:
            continue
        # both begin and end somewhere: what of the surroundings the other recording could have at all
        start, stop = (step / REFERENCE_EVERY for step in best.query_steps())
        could_start = max(0.0, start - best.alignment.first)
        could_stop = min(
            float(len(stored) - 1), stop + snapshot.length(other) - 1 - best.alignment.last
        )
        if stop - start + 1 < SAME * (could_stop - could_start + 1):
            yield Part(begin + round(start), begin + round(stop))
