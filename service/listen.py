"""What a worker of a scan does with one sound: fingerprint it, search for it, and for a decoy of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import sqlalchemy as sql
from pydantic import BaseModel, Field

from fingerprint.audio import SAMPLE_RATE, AudioStream, Limits, open_audio
from fingerprint.cores import work_on
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY, Fingerprint, fingerprint, fingerprint_samples
from index.errors import LibraryError
from index.library import Library
from index.search import QUICK, THOROUGH, Effort
from index.search import Match as Found
from index.significance import REVIEW
from service.dataset import Source
from service.decoy import mirrored
from service.evidence import write_evidence
from service.query import ClipError, Match, match_of

# Windows that are probed: 3 s in every 24, so that each stretch of 30 s holds a whole one.
PROBED = 3.0  # s
PROBED_EVERY = 24.0  # s
# A file this short is read as a whole at once.
SHORT = 60.0  # s
# One sound in so many is made a decoy and searched for again: what is found then is chance.
DECOY_EVERY = 4


# Folder of a report in which evidence is.
EVIDENCE = "evidence"


class Segment(Match):
    """A match in a scanned sound."""

    reference_duration: float = Field(description="Of the recording, in seconds.")
    evidence: str | None = Field(
        default=None, description="Page of evidence, relative to the report's folder."
    )


class Heard(BaseModel):
    """What was found in one sound."""

    duration: float | None = None
    error: ClipError | None = None
    matches: list[Segment] = []
    probed: bool = Field(
        default=False, description="Whether only windows were looked at: they held nothing."
    )
    decoy: bool = Field(default=False, description="Whether a decoy of it was searched for too.")
    decoy_e_value: float | None = Field(
        default=None, description="Of the decoy's strongest match, tier `match`."
    )


@dataclass(frozen=True)
class Task:
    """How sounds are searched for."""

    library: Path
    database: sql.URL
    limits: Limits
    max_e_value: float
    gate: float  # E-value up to which an answer is a `match`
    hypotheses: int
    probe: bool
    thorough: bool  # whether as closely as a single query is
    evidence: Path | None  # where evidence of matches goes
    owner: str | None = None  # who is looking; None sees all

    @property
    def effort(self) -> Effort:
        """How closely a sound as it is is looked at."""
        return THOROUGH if self.thorough else QUICK


class _Ears:
    """What a worker keeps open."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.encoder = Encoder.load()
        self.library = Library.open(task.library, self.encoder, url=task.database, gate=task.gate)


_ears: _Ears | None = None


def set_up(task: Task) -> None:
    """Open what a worker needs; the others have the other cores."""
    global _ears
    work_on(1)
    _ears = _Ears(task)


def listen(source: Source, name: str) -> Heard:
    """What is heard in a sound; never raises for what the sound is like."""
    assert _ears is not None, "set_up comes first"
    try:
        with source.open() as file:
            return _listen(file, name, _ears)
    except AudioError as error:
        return Heard(error=ClipError(type=error.type, detail=error.detail))
    except MemoryError:
        detail = f"{name}: takes more memory than one sound may; split the file"
        return Heard(error=ClipError(type="too-large", detail=detail))
    except LibraryError:  # says nothing of the sound
        raise
    except Exception as error:  # what the reader of an archive makes of damage
        detail = f"{name}: is damaged ({str(error) or type(error).__name__})"
        return Heard(error=ClipError(type="undecodable", detail=detail))


def _listen(file: BinaryIO, name: str, ears: _Ears) -> Heard:
    task = ears.task
    if task.probe:
        with open_audio(file, task.limits, name) as stream:
            seconds = stream.seconds
            if seconds is not None and seconds > SHORT and not _promises(stream, seconds, ears):
                return Heard(duration=round(seconds, 3), probed=True)
        file.seek(0)
    made = fingerprint(file, ears.encoder, QUERY_EVERY, limits=task.limits, name=name)
    matches = _search(made, ears)
    drawn = int(made.sha256, 16) % DECOY_EVERY == 0
    segments = [_segment(match, ears) for match in matches]
    if task.evidence is not None:
        segments = _with_evidence(segments, name, made, ears)
    return Heard(
        duration=round(made.duration, 3),
        matches=segments,
        decoy=drawn,
        decoy_e_value=_decoy(made, ears) if drawn else None,
    )


def _search(made: Fingerprint, ears: _Ears) -> list[Found]:
    task = ears.task
    # a short sound is worth a close look, which costs little
    effort = THOROUGH if made.duration < SHORT else task.effort
    matches, _ = ears.library.search(
        made,
        max_e_value=task.max_e_value,
        hypotheses=task.hypotheses,
        effort=effort,
        owner=task.owner,
    )
    return matches


def _promises(stream: AudioStream, seconds: float, ears: _Ears) -> bool:
    """Whether some window of a sound is like a recording, so that all of it is worth reading.

    A sound of which no window can be had is.
    """
    heard = False
    for start in np.arange(PROBED_EVERY / 2, seconds - PROBED, PROBED_EVERY):
        samples = stream.window(float(start), PROBED)
        if len(samples) < PROBED * SAMPLE_RATE / 2:
            continue
        heard = True
        try:
            made = fingerprint_samples(samples, ears.encoder, QUERY_EVERY, stream.name)
        except AudioError:  # a silent window
            continue
        found, _ = ears.library.search(
            made,
            max_e_value=REVIEW,
            hypotheses=ears.task.hypotheses,
            owner=ears.task.owner,
        )
        if found:
            return True
    return not heard


def _segment(found: Found, ears: _Ears) -> Segment:
    match = match_of(found)
    try:
        duration = ears.library.recording(match.recording).duration
    except KeyError:  # it was removed since
        duration = match.reference_end
    return Segment(**match.model_dump(), reference_duration=round(duration, 3))


def _with_evidence(
    segments: list[Segment], name: str, made: Fingerprint, ears: _Ears
) -> list[Segment]:
    """Segments with their pages of evidence, which are written."""
    assert ears.task.evidence is not None
    pages = write_evidence(name, made, segments, ears.library, ears.task.evidence)
    return [
        segment.model_copy(update={"evidence": f"{EVIDENCE}/{page.name}" if page else None})
        for segment, page in zip(segments, pages, strict=True)
    ]


def _decoy(made: Fingerprint, ears: _Ears) -> float | None:
    """E-value of the strongest match of a sound's decoy; None if it has none."""
    found = _search(mirrored(made, ears.encoder), ears)
    return min((match.e_value for match in found if match.tier == "match"), default=None)
