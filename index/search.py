"""From a query's fingerprint to matches: candidates, votes, alignment, significance.

The stored embeddings nearest to each of the query's vote for a recording and an offset. The offsets with
most weight are aligned with the whole of the query, and an alignment is answered if its E-value says that
chance does not explain it.

What is not recognised as it is may have been altered in tempo or pitch: `index.ladder` looks at it under
other hypotheses, and what it finds is aligned and judged in the same way.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from fingerprint.fingerprint import REFERENCE_EVERY
from fingerprint.hypotheses import LADDER, Hypothesis
from fingerprint.view import View, unaltered
from index.align import MOST_BEND, SLACK, Found, align_near
from index.boundaries import stretches
from index.change import Change
from index.ladder import climb, excerpts
from index.query_context import Question
from index.refine import LOOKS, refined, told
from index.repeated_material import Part, shared_part
from index.repeats import repeats
from index.significance import MATCH, REVIEW, Calibration
from index.versions import are_unlike, is_version
from index.votes import Effort, Passage, candidates

# 128 lists hold 96 % of what is sought under noise of 0 dB.
THOROUGH = Effort(1, 40, 128, 200_000, 24)
# For scans, in which hours are compared and what is sought lasts ten seconds and more: few embeddings in
# many cells find as much as many in few, for less (docs/decisions/scan.md).
QUICK = Effort(8, 20, 128, 100_000, 12)
# Before a closer look, and enough where one recording is heard throughout and nothing beside it: an alignment
# then explains that share of a block, and its steps, their price included, say so much on average (the same
# moment about 12, under speech less than 4: docs/decisions/timeline.md).
FIRST = Effort(2, 40, 32, 100_000, 24)
THROUGHOUT = 0.75
CLEARLY = 8.0
REFINED = 8  # recordings of one passage whose tempo and pitch are refined
SAME_PLACE = 0.5  # s between clip and recording within which the same file is the same second
BLOCK = 300  # query steps (30 s) that vote together


@dataclass(frozen=True)
class Match:
    """One stretch of a query that is one stretch of a recording; times in seconds.

    `tempo` is reference seconds per query second, `pitch_semitones` the query's pitch above the
    reference's; their 95 % intervals are None of a query that keeps no levels. `changed` tells whether one
    of these excludes that nothing was changed. `same_file` tells that the query is the very file that was
    ingested, `repeats` where else in the recording the same audio is (start and end), as far as the query
    can tell. `e_value` is the number of matches this strong expected by chance in one such query,
    `tested_closer` how many of `tested_clips` of unrelated music came this close in a test,
    `likelihood_ratio` how many times as likely such a score is of a copy as of unrelated music, as far as
    that was validated; these are None of what was not tested: a query under the ladder. `shared_start` to
    `shared_end` of the query is what other recordings have too, if a match rests on it; `other_version`
    tells that it is less alike than a copy is. Both are for review, whatever their E-value.
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
    shared_start: float | None
    shared_end: float | None
    other_version: bool
    tempo_low: float | None = None
    tempo_high: float | None = None
    pitch_low: float | None = None
    pitch_high: float | None = None
    changed: bool = False
    same_file: bool = False
    repeats: tuple[tuple[float, float], ...] = ()
    likelihood_ratio: float | None = None
    tested_clips: int | None = None
    tested_closer: int | None = None


def search(
    question: Question,
    calibration: Calibration,
    max_e_value: float,
    rungs: Sequence[Hypothesis] = LADDER,
    effort: Effort = THOROUGH,
    gate: float = MATCH,
) -> list[Match]:
    """Matches of a query, best first; only those of E-value max_e_value or less.

    rungs : hypotheses that are tried on what is not recognised as it is
    effort : how closely the query as it is is looked at
    gate : E-value up to which one is of tier `match`
    """

    def chance(found: Found) -> float:
        return calibration.e_value(found.score, *question.size, found.hypotheses)

    if calibration.altered is None:
        rungs = ()
    least = calibration.score(max_e_value, *question.size)
    certain = min(gate, max_e_value)
    heard = everything(question, rungs, chance, max_e_value, certain, effort, least)
    return [
        _match(measured, first, last, judgement, question, calibration)
        for found in heard
        for judgement in [_judged(found, heard, question, calibration, gate)]
        # what is too weak for review is not looked at closely
        for measured in [told(found, question) if found.e_value <= REVIEW else found]
        for first, last in found.stretches
    ]


def everything(
    question: Question,
    rungs: Sequence[Hypothesis],
    chance: Callable[[Found], float],
    max_e_value: float,
    certain: float = MATCH,
    effort: Effort = THOROUGH,
    least: float = 0.0,
) -> list[Found]:
    """Alignments of E-value max_e_value or less, judged by `chance`, best first.

    Those of the query as it is and, of the excerpts which these leave unexplained, those under the rungs.

    certain : E-value up to which nothing else is sought where a match is
    least : score under which no alignment of the query as it is can have max_e_value
    """

    def is_certain(item: Found) -> bool:
        return chance(item) <= certain

    def explains(item: Found) -> bool:
        """Whether it leaves nothing to be asked: a bent alignment may be part of an altered copy's."""
        sought = 1.0 if item.hypotheses == 1 else item.view.hypothesis.tempo
        return item.e_value <= certain and abs(item.tempo / sought - 1) <= MOST_BEND

    def refine(items: Iterable[Found], which: Callable[[Found], bool]) -> list[Found]:
        """With tempo and pitch of those, few of one passage."""
        told: list[Found] = []
        for item in items:
            if which(item) and sum(_same_seconds(item, other) for other in told) < REFINED:
                item = _refined(item, question, chance)
            told.append(item)
        return told

    def settled(found: Iterable[Found]) -> list[Found]:
        judged = [replace(item, e_value=chance(item)) for item in found]
        told = distinct(item for item in judged if item.e_value <= max_e_value)
        return [
            _followed(item, question) if explains(item) else item for item in refine(told, explains)
        ]

    found = settled(alignments(question, effort, least, is_certain))
    if question.fingerprint.levels is not None and rungs and len(question.snapshot):
        for excerpt in excerpts(question.fingerprint):
            if not any(excerpt.is_mostly_in(item) for item in found if explains(item)):
                found += settled(climb(question, excerpt, rungs, is_certain))
    # what is weak or bent may be a better match under the ladder: it is refined if nothing was better
    told = distinct(
        refine(distinct(found), lambda item: item.e_value <= REVIEW and not explains(item))
    )
    followed = [item if item.stretches else _followed(item, question) for item in told]
    return _once(sorted(followed, key=lambda item: item.e_value))


def _refined(found: Found, question: Question, chance: Callable[[Found], float]) -> Found:
    """A match refined; the hypotheses tried for that count against its chance."""
    if question.fingerprint.levels is None:
        return found
    better = refined(found, question)
    return replace(better, e_value=min(found.e_value, LOOKS * chance(better)))


def _followed(found: Found, question: Question) -> Found:
    """A match with its stretches."""
    return replace(found, stretches=stretches(found, question))


def _once(found: Iterable[Found]) -> list[Found]:
    """Without the stretches that for the most part lie in one of the same recording that came before."""
    kept: list[Found] = []
    told: dict[int, list[tuple[float, float]]] = {}
    for item in found:
        of_it = told.setdefault(item.recording, [])
        new = []
        for first, last in item.stretches:
            start, end = item.second(first), item.second(last)
            if not any(min(end, b) - max(start, a) > 0.5 * (end - start) for a, b in of_it):
                new.append((first, last))
                of_it.append((start, end))
        if new:
            kept.append(replace(item, stretches=tuple(new)))
    return kept


def alignments(
    question: Question, effort: Effort, least: float, certain: Callable[[Found], bool]
) -> list[Found]:
    """Alignments of the query as it is that score at least so much, of all its blocks' candidates.

    A block is looked at closely only where a first look finds nothing that is `certain` and clear.
    """
    found: list[Found] = []
    view = unaltered(question.fingerprint, question.encoder)
    looks = (FIRST, effort) if effort.every < FIRST.every else (effort,)
    for first in range(0, len(view.embeddings) if len(question.snapshot) else 0, BLOCK):
        end = min(first + BLOCK, len(view.embeddings))
        for look in looks:
            found += _of_block(question, view, first, end, look, least, found)
            clear = CLEARLY - question.prices.pair
            if any(_is_clear(item, first, end, clear) and certain(item) for item in found):
                break
    return found


def _of_block(
    question: Question,
    view: View,
    first: int,
    end: int,
    effort: Effort,
    least: float,
    known: Sequence[Found],
) -> list[Found]:
    """Alignments of the candidates of query steps first to end (excluded), without those that are known."""
    steps = slice(first, end, effort.every)
    (of_block,) = candidates(
        [Passage(view.embeddings[steps], view.crowding[steps])], question, effort
    )
    found: list[Found] = []
    for candidate in of_block:
        recording, offset = candidate.recording, candidate.offset - first
        if not any(
            _leads_to(item, recording, offset, first, end - first) for item in (*known, *found)
        ):
            found += align_near(question, view, recording, offset, least)
    return found


def _is_clear(item: Found, first: int, end: int, clear: float) -> bool:
    """Whether an alignment explains most of query steps first to end, and nothing else is heard in it."""
    start, last = item.query_steps()
    explained = min(last, end) - max(start, first)
    steps = item.alignment.last - item.alignment.first + 1
    return explained >= THROUGHOUT * (end - first) and item.alignment.score >= clear * steps


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


def _same_seconds(one: Found, other: Found) -> bool:
    """Whether at least half of what one explains of the query is explained by another."""
    start, end = one.query_seconds()
    other_start, other_end = other.query_seconds()
    return min(end, other_end) - max(start, other_start) >= 0.5 * (end - start)


def distinct(found: Iterable[Found]) -> list[Found]:
    """Highest score first, without those that tell of the same stretch of query and recording again.

    Of the several places where a recording repeats itself, and of the hypotheses, the best is named: that
    which explains most, for a bent alignment of the query as it is has the smaller chance, being of one look.
    """
    kept: list[Found] = []
    for item in sorted(found, key=lambda item: -item.score):
        if not any(
            other.recording == item.recording and _same_seconds(item, other) for other in kept
        ):
            kept.append(item)
    return kept


class Judgement(NamedTuple):
    """The tier of a match, and why chance is not all that speaks against it."""

    tier: str
    shared: Part | None = None
    other_version: bool = False


def _judged(
    found: Found,
    told: Iterable[Found],
    question: Question,
    calibration: Calibration,
    gate: float,
) -> Judgement:
    """How one of the alignments that are told of is to be taken."""
    if found.e_value > gate:
        return Judgement("review")
    version = is_version(found, question, calibration.likeness)
    if version and not _is_mixed(found, told, question, gate):
        return Judgement("review", other_version=True)
    shared = shared_part(found, question, calibration, gate)
    return Judgement("match" if shared is None else "review", shared)


def _is_mixed(found: Found, told: Iterable[Found], question: Question, gate: float) -> bool:
    """Whether other music is over a recording, which makes it less alike: one that is nothing like it.

    Not if something like it says more: that is the recording in the mixture, and this one its version.
    """
    beside = [
        it
        for it in told
        if it.recording != found.recording and it.e_value <= gate and _same_seconds(found, it)
    ]
    alike = [it for it in beside if not are_unlike(found, it, question)]
    return len(alike) < len(beside) and all(it.score <= found.score for it in alike)


def _match(
    found: Found,
    first_step: float,
    last_step: float,
    judgement: Judgement,
    question: Question,
    calibration: Calibration,
) -> Match:
    """The match that reference steps first to last of an alignment are, in seconds."""
    fingerprint, shared = question.fingerprint, judgement.shared
    recording = question.snapshot.recordings[found.recording]
    tempo = found.tempo
    query_start, query_end = found.second(first_step), found.second(last_step)
    # the middle, where rounding of either end matters least
    query_middle = (query_start + query_end) / 2
    reference_step = fingerprint.step * REFERENCE_EVERY
    reference_middle = fingerprint.reach + 0.5 * (first_step + last_step) * reference_step
    # Where query or recording have no further embedding that could have spoken against it, the match goes
    # on to the beginning or end of that one.
    before, after = math.ceil(first_step) - 1, math.floor(last_step) + 1
    if found.second(before) < fingerprint.start:
        query_start = 0.0
    elif before < 0:
        query_start = max(0.0, query_middle - reference_middle / tempo)
    if (
        found.second(after)
        > fingerprint.start + (len(fingerprint.embeddings) - 1) * fingerprint.step
    ):
        query_end = fingerprint.duration
    elif after >= question.snapshot.length(found.recording):
        rest = (recording.duration - reference_middle) / tempo
        query_end = min(fingerprint.duration, query_middle + rest)
    reference_start = reference_middle + (query_start - query_middle) * tempo
    reference_end = reference_middle + (query_end - query_middle) * tempo
    if reference_start < 0:
        query_start = max(0.0, query_start - reference_start / tempo)
        reference_start = 0.0
    if reference_end > recording.duration:
        query_end -= (reference_end - recording.duration) / tempo
        reference_end = recording.duration

    same_file = (
        bool(fingerprint.sha256)
        and recording.sha256 == fingerprint.sha256
        and abs(reference_start - query_start) < SAME_PLACE
    )
    change = Change(1.0, 1.0, 1.0, 0.0, 0.0, 0.0) if same_file else found.change
    looked_at = found.e_value <= REVIEW and not same_file
    elsewhere = repeats(found, first_step, last_step, question) if looked_at else []

    tested = calibration.tested if found.hypotheses == 1 else calibration.tested_altered
    ratio = calibration.likelihood_ratio if found.hypotheses == 1 else None
    if judgement.shared is not None or judgement.other_version:
        ratio = None  # the question is no longer whether it is chance

    def seconds(step: int, reach: float) -> float:
        at = found.second(step) + reach
        return round(min(max(at, query_start), query_end), 3)

    return Match(
        recording=recording.id,
        source=recording.source,
        title=recording.title,
        artist=recording.artist,
        isrc=recording.isrc,
        work=recording.work,
        rightsholder=recording.rightsholder,
        rights=recording.rights,
        tier=judgement.tier,
        e_value=found.e_value,
        score=round(found.score, 3),
        query_start=round(query_start, 3),
        query_end=round(query_end, 3),
        reference_start=round(reference_start, 3),
        reference_end=round(reference_end, 3),
        tempo=round(change.tempo if change else tempo, 4),
        tempo_low=_down(change.tempo_low, 4) if change else None,
        tempo_high=_up(change.tempo_high, 4) if change else None,
        pitch_semitones=round(change.pitch if change else found.view.hypothesis.pitch, 2),
        pitch_low=_down(change.pitch_low, 2) if change else None,
        pitch_high=_up(change.pitch_high, 2) if change else None,
        changed=change is not None and change.changed,
        same_file=same_file,
        likelihood_ratio=ratio.at(found.e_value) if ratio else None,
        tested_clips=tested.clips if tested else None,
        tested_closer=tested.closer(found.e_value) if tested else None,
        repeats=tuple(
            (
                round(max(0.0, reference_start + later), 3),
                round(min(recording.duration, reference_end + later), 3),
            )
            for later in elsewhere
        ),
        shared_start=shared and seconds(shared.first, -found.view.reach),
        shared_end=shared and seconds(shared.last, found.view.reach),
        other_version=judgement.other_version,
    )


def _down(value: float, digits: int) -> float:
    """The lower end of an interval, rounded away from it."""
    return math.floor(value * 10**digits) / 10**digits


def _up(value: float, digits: int) -> float:
    """The upper end of an interval, rounded away from it."""
    return math.ceil(value * 10**digits) / 10**digits
