"""What a worker of a scan does with one sound: fingerprint it, search for it, and for a decoy of it.

A long sound is heard in stretches (`service.query.chunks`), each a query of its own.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import sqlalchemy as sql
from pydantic import BaseModel, Field

from fingerprint.audio import SAMPLE_RATE, AudioStream, Limits, open_audio
from fingerprint.cores import work_on
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY, Fingerprint, fingerprint_samples
from index.errors import LibraryError
from index.library import Library
from index.rescoring import MARGIN, excerpt
from index.search import QUICK, THOROUGH
from index.search import Match as Found
from index.significance import REVIEW
from index.votes import Effort
from service.datasets.source import Source
from service.evidence.bundle import SUFFIX, write_evidence
from service.evidence.errors import EvidenceError
from service.query.answer import ClipError, Match, match_of
from service.query.chunks import joined
from service.query.listening import Listening
from service.runtime.warm import warm
from service.scan.decoy import mirrored
from service.scan.matched_segment import Segment

# Windows that are probed: 3 s in every 27, so that each stretch of 30 s holds a whole one. A window has few
# embeddings, so more of them vote.
PROBED = 3.0  # s
PROBED_EVERY = 27.0  # s
PROBING = Effort(2, 20, 64, 100_000, 8)
# A file this short is read as a whole at once.
SHORT = 60.0  # s
# Of one sound in so many, so much is made a decoy and searched for again: what is found then is chance.
DECOY_EVERY = 4
DECOY = 60.0  # s


# Folder of a report in which evidence is.
EVIDENCE = "evidence"


class Heard(BaseModel):
    """What was found in one sound."""

    duration: float | None = None
    error: ClipError | None = None
    matches: list[Segment] = []
    queries: int = Field(default=1, description="Stretches of it that were searched for.")
    undecoded_seconds: float = Field(
        default=0.0,
        description="Stated by the file, and not heard because they could not be decoded.",
    )
    notes: list[str] = Field(default=[], description="What else was not heard; a sentence each.")
    tags: dict[str, str] = Field(default={}, description="What the file says that it is.")
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


class Ears:
    """What a worker keeps open."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.encoder = Encoder.load()
        self.library = Library.open(task.library, self.encoder, url=task.database, gate=task.gate)


_ears: Ears | None = None


def set_up(task: Task) -> None:
    """Open what a worker needs; the others have the other cores."""
    global _ears
    work_on(1)
    _ears = Ears(task)
    warm(
        _ears.encoder, _ears.library
    )  # before the worker is confined: what is compiled later is not kept


def listen(source: Source, name: str, sha256: str | None, ears: Ears | None = None) -> Heard:
    """What is heard in a sound; never raises for what the sound is like.

    Raises LibraryError, and EvidenceError where evidence cannot be written.

    sha256 : of its content, if it is known
    ears : if not those that were set up
    """
    ears = ears or _ears
    assert ears is not None, "set_up comes first"
    try:
        with source.open() as file:
            return _listen(file, name, sha256, ears)
    except AudioError as error:
        return Heard(error=ClipError(type=error.type, detail=error.detail))
    except MemoryError:
        detail = f"{name}: takes more memory than one sound may; split the file"
        return Heard(error=ClipError(type="too-large", detail=detail))
    except (LibraryError, EvidenceError):  # say nothing of the sound
        raise
    except Exception as error:  # what the reader of an archive makes of damage
        detail = f"{name}: is damaged ({str(error) or type(error).__name__})"
        return Heard(error=ClipError(type="undecodable", detail=detail))


def _listen(file: BinaryIO, name: str, sha256: str | None, ears: Ears) -> Heard:
    task = ears.task
    if task.probe:
        with open_audio(file, task.limits, name) as stream:
            seconds = stream.seconds
            if seconds is not None and seconds > SHORT and not _promises(stream, seconds, ears):
                return Heard(duration=round(seconds, 3), probed=True, tags=_label(stream))
    if sha256 is None:
        file.seek(0)
        sha256 = hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
    with open_audio(file, task.limits, name) as stream:
        return _hear(stream, sha256, ears)


def _label(stream: AudioStream) -> dict[str, str]:
    return {name: stream.tags[name] for name in ("title", "artist", "isrc") if name in stream.tags}


def _hear(stream: AudioStream, sha256: str, ears: Ears) -> Heard:
    """All of a sound, stretch by stretch. Raises AudioError where there is nothing to hear in any."""
    heard = Heard(queries=0, tags=_label(stream))
    written: set[str] = set()
    listening = Listening(stream, ears.task.limits, ears.encoder, sha256)
    for begins, made in listening.stretches():
        # a short sound is worth a close look, which costs little
        effort = THOROUGH if begins + made.duration < SHORT else ears.task.effort
        found = [_segment(it, made, ears).later(begins) for it in _search(made, ears, effort)]
        if ears.task.evidence is not None:
            found = _with_evidence(found, made, begins, ears)
            written |= _evidence_of(found)
        heard.matches = joined(heard.matches, found, begins)
        if not heard.queries and int(sha256, 16) % DECOY_EVERY == 0:
            heard.decoy = True
            heard.decoy_e_value = _decoy(made, {it.recording for it in found}, ears, effort)
        heard.queries += 1
    heard.duration = round(listening.duration, 3)
    heard.undecoded_seconds = round(listening.undecoded, 3)
    heard.notes = listening.notes
    if ears.task.evidence is not None:
        # of a segment that goes on in the next stretch, one of the two pieces is kept
        for name in written - _evidence_of(heard.matches):
            page = ears.task.evidence.parent / name
            for file in (page, page.with_suffix(SUFFIX)):
                file.unlink(missing_ok=True)
    return heard


def _evidence_of(segments: list[Segment]) -> set[str]:
    return {it.evidence for it in segments if it.evidence is not None}


def _search(made: Fingerprint, ears: Ears, effort: Effort) -> list[Found]:
    task = ears.task
    matches, _ = ears.library.search(
        made,
        max_e_value=task.max_e_value,
        hypotheses=task.hypotheses,
        effort=effort,
        owner=task.owner,
    )
    return matches


def windows(seconds: float) -> list[float]:
    """Seconds at which those windows of a sound that are probed begin."""
    starts: list[float] = np.arange(PROBED_EVERY / 2, seconds - PROBED, PROBED_EVERY).tolist()
    return starts


def _promises(stream: AudioStream, seconds: float, ears: Ears) -> bool:
    """Whether some window of a sound is like a recording, so that all of it is worth reading.

    A sound of which no window can be had is.
    """
    if stream.tracks > 1:  # the others are not looked at
        return True
    heard = False
    for start in windows(seconds):
        samples = stream.window(start, PROBED)
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
            effort=THOROUGH if ears.task.thorough else PROBING,
            owner=ears.task.owner,
        )
        if found:
            return True
    return not heard


def _segment(found: Found, made: Fingerprint, ears: Ears) -> Segment:
    match = match_of(found, made.track)
    try:
        duration = ears.library.recording(match.recording).duration
    except KeyError:  # it was removed since
        duration = match.reference_end
    return Segment(**match.model_dump(), reference_duration=round(duration, 3))


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Have temporary files made in a folder in which a worker may write; scoring again makes some."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def _with_evidence(
    segments: list[Segment], made: Fingerprint, begins: float, ears: Ears
) -> list[Segment]:
    """Segments of a stretch with their pages of evidence, which are written, and not signed here."""
    task = ears.task
    assert task.evidence is not None
    settings = {
        "max_e_value": task.max_e_value,
        "wrong_per_million": task.gate * 1e6,
        "hypotheses": task.hypotheses,
        "probe": task.probe,
        "thorough": task.thorough,
    }
    matches = [Match(**segment.model_dump(include=set(Match.model_fields))) for segment in segments]
    with _temporary_files_in(task.evidence.parent):
        bundles = write_evidence(
            made.source,
            made,
            matches,
            ears.library,
            task.evidence,
            owner=task.owner,
            begins=begins,
            settings=settings,
        )
    return [
        segment.model_copy(
            update={"evidence": f"{EVIDENCE}/{path.stem}.html" if path is not None else None}
        )
        for segment, path in zip(segments, bundles, strict=True)
    ]


def _decoy(made: Fingerprint, known: set[str], ears: Ears, effort: Effort) -> float | None:
    """E-value of the strongest match of a decoy of a sound's middle; None if it has none.

    known : recordings that the sound is matched with: one whose decoy is much like itself, as of drums
        alone, finds them again, which is no chance
    """
    middle, reach = made.duration / 2, DECOY / 2 - MARGIN
    part, _ = excerpt(made, middle - reach, middle + reach)
    found = _search(mirrored(part, ears.encoder), ears, effort)
    wrong = (it.e_value for it in found if it.tier == "match" and it.recording not in known)
    return min(wrong, default=None)
