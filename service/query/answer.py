"""A clip to its answer: the contract's JSON, made in one place for the command and the server."""

import hashlib
import math
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from fingerprint.audio import Limits, open_file
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY, Fingerprint, fingerprint
from fingerprint.spectrogram import BANDS, FRAME_RATE
from index.library import Library
from index.search import Match as Found
from index.snapshot import Snapshot
from service.presentation.formatting import as_text
from service.query.recording_fields import Rights

FINGERPRINT_EXTENSION = ".emk"
STANDARD_INPUT = "-"
# What a fingerprint's file holds beside the embeddings, in bytes, with much to spare.
_FINGERPRINT_REST = 2**20
# Seconds by which a fingerprint may begin or end beside its audio, with much to spare.
_MOST_PADDING = 10.0
_TIME_DIGITS = 3

ErrorType = Literal[
    "not-found", "undecodable", "too-short", "silent", "too-long", "too-large", "timeout"
]


def _is_none(value: object) -> bool:
    return value is None


def _is_false(value: bool) -> bool:
    return not value


def _is_all(share: float) -> bool:
    return share == 1


class Match(BaseModel):
    """One stretch of the clip that is one stretch of a recording. Times are seconds."""

    model_config = ConfigDict(from_attributes=True)

    recording: str = Field(description="Id of the recording.")
    source: str = Field(description="Name of the file that the recording was ingested from.")
    title: str | None
    artist: str | None
    isrc: str | None
    work: str | None = Field(description="The musical work that this is a recording of.")
    rightsholder: str
    rights: Rights
    tier: Literal["match", "review"] = Field(
        description="`match`: act on it; `review`: a person should listen first."
    )
    e_value: float = Field(
        description="Expected number of matches this strong by chance, per query."
    )
    score: float = Field(description="Larger is stronger; comparable only within one encoder.")
    query_start: float
    query_end: float
    reference_start: float
    reference_end: float
    tempo: float = Field(description="Reference seconds that pass per query second.")
    pitch_semitones: float = Field(description="The clip's pitch above the reference's.")
    shared_start: float | None = Field(
        default=None,
        exclude_if=_is_none,
        description="Where in the clip what other recordings have too begins, a loop or a sample; only told "
        "of a match that rests on it, and so is for review.",
    )
    shared_end: float | None = Field(
        default=None, exclude_if=_is_none, description="Where it ends."
    )
    other_version: bool = Field(
        default=False,
        exclude_if=_is_false,
        description="Whether the clip is less alike than a copy of this recording would be: then it is most "
        "likely another version of the same music, and for review. Only told if it is.",
    )


class ClipError(BaseModel):
    """Why a clip could not be searched for."""

    type: ErrorType
    detail: str


class LibraryState(BaseModel):
    """What the answer was looked up in."""

    snapshot: str
    recordings: int
    seconds: float
    answered: float = Field(
        default=1.0,
        exclude_if=_is_all,
        description="Share of it that was searched; only told while a shard of a cluster is lost.",
    )


class Answer(BaseModel):
    """What is known in one clip. `matches` empty and `error` null: nothing known in here."""

    clip: str
    sha256: str | None = Field(description="Of the clip's bytes; null where they cannot be read.")
    duration: float | None = Field(description="Of the clip; null where it cannot be decoded.")
    error: ClipError | None
    matches: list[Match] = Field(
        description="Best first; segments of one recording are separate entries."
    )
    library: LibraryState
    encoder: str = Field(description="Id of the encoder that made the fingerprints.")
    elapsed_ms: float


def fingerprint_clip(
    source: Path | BinaryIO, name: str, encoder: Encoder, limits: Limits
) -> Fingerprint:
    """A clip's fingerprint: loaded if `name` says that it is one (.emk), else made from audio.

    Raises AudioError, also for a fingerprint of another encoder.
    """
    if not name.lower().endswith(FINGERPRINT_EXTENSION):
        return fingerprint(source, encoder, QUERY_EVERY, limits=limits, name=as_text(name))
    most = most_fingerprint_bytes(encoder, limits)
    if not isinstance(source, Path):
        return load_fingerprint(source.read(most + 1), name, encoder, limits)
    try:
        with open_file(source, as_text(source)) as stream:
            data = stream.read(most + 1)
    except OSError as error:
        raise AudioError("undecodable", f"{source}: cannot be read ({error.strerror})") from error
    return load_fingerprint(data, as_text(source), encoder, limits)


def load_fingerprint(data: bytes, name: str, encoder: Encoder, limits: Limits) -> Fingerprint:
    """A fingerprint made elsewhere. Raises AudioError if it is broken or of another encoder."""
    most = most_fingerprint_bytes(encoder, limits)
    if len(data) > most:
        raise AudioError("too-large", f"{name}: a fingerprint of more than {most} bytes")
    made = Fingerprint.load(data, name)
    if made.encoder != encoder.id:
        raise AudioError(
            "undecodable",
            f"{name}: is of encoder {made.encoder}, but this library is of {encoder.id}; "
            "make it again with `earmark fingerprint`",
        )
    sane = (
        (made.every, made.embeddings.shape[1]) == (QUERY_EVERY, encoder.dimension)
        and math.isclose(made.step, QUERY_EVERY * encoder.step)
        and made.duration >= 0
        and abs(len(made.embeddings) * made.step - made.duration) < _MOST_PADDING
        and max(abs(made.start), abs(made.reach)) < _MOST_PADDING
        and (
            made.levels is None
            or abs(len(made.levels) / FRAME_RATE - made.duration) < _MOST_PADDING
        )
        and re.fullmatch("[0-9a-f]{64}", made.sha256)
    )
    if not sane:
        raise AudioError("undecodable", f"{name}: is not the fingerprint of a clip")
    if made.duration > limits.max_seconds:
        raise AudioError("too-long", f"{name}: is of more than {limits.max_seconds:g} s")
    return made


def most_fingerprint_bytes(encoder: Encoder, limits: Limits) -> int:
    """What the fingerprint of the longest audio that is taken can take up, in bytes."""
    embeddings = int(limits.max_seconds / encoder.step + 1) * encoder.dimension
    levels = int(limits.max_seconds * FRAME_RATE + 1) * BANDS
    return embeddings + levels + _FINGERPRINT_REST


def answer(
    clip: str,
    made: Fingerprint,
    library: Library,
    *,
    max_e_value: float,
    hypotheses: int,
    owner: str | None = None,
    spent: float = 0.0,
) -> Answer:
    """Look a fingerprint up, in what `owner` sees; `spent` is what making it took already, in seconds."""
    started = time.perf_counter()
    matches, snapshot = library.search(
        made, max_e_value=max_e_value, hypotheses=hypotheses, owner=owner
    )
    return Answer(
        clip=clip,
        sha256=made.sha256,
        duration=round(made.duration, _TIME_DIGITS),
        error=None,
        matches=[match_of(match) for match in matches],
        library=_state(snapshot),
        encoder=made.encoder,
        elapsed_ms=_milliseconds(spent + time.perf_counter() - started),
    )


def match_of(found: Found) -> Match:
    """The contract's match, its figures rounded to what they are worth."""
    match = Match.model_validate(found)
    times = ("query_start", "query_end", "reference_start", "reference_end")
    rounded = {name: round(getattr(match, name), _TIME_DIGITS) for name in times}
    rounded["tempo"] = round(match.tempo, 4)
    rounded["pitch_semitones"] = round(match.pitch_semitones, 2)
    rounded["score"] = round(match.score, 3)
    rounded["e_value"] = float(f"{match.e_value:.3g}")
    return match.model_copy(update=rounded)


def _state(snapshot: Snapshot) -> LibraryState:
    return LibraryState(
        snapshot=str(snapshot.revision),
        recordings=len(snapshot.whole.recordings),
        seconds=round(snapshot.whole.seconds, _TIME_DIGITS),
        answered=round(snapshot.answered, 4),
    )


def answers(
    clips: Sequence[str],
    library: Library,
    encoder: Encoder,
    *,
    limits: Limits,
    max_e_value: float,
    hypotheses: int,
    jobs: int,
    on_answer: Callable[[Answer, Fingerprint], None] = lambda answer, made: None,
) -> Iterator[Answer]:
    """The answers for clips named as on the command line, in their order.

    A clip is a file of audio or a fingerprint, or `-` for standard input. Fingerprints are made
    `jobs` at a time. `on_answer` is told of each answer and the fingerprint that it is about.
    """
    with ThreadPoolExecutor(jobs) as pool:
        ahead: deque[Future[_Read]] = deque()
        waiting = iter(clips)
        try:
            while True:
                for clip in islice(waiting, 2 * jobs - len(ahead)):
                    ahead.append(pool.submit(_read, clip, encoder, limits))
                if not ahead:
                    return
                read = ahead.popleft().result()
                if isinstance(read.result, Fingerprint):
                    found = answer(
                        as_text(read.clip),
                        read.result,
                        library,
                        max_e_value=max_e_value,
                        hypotheses=hypotheses,
                        spent=read.spent,
                    )
                    on_answer(found, read.result)
                    yield found
                else:
                    yield Answer(
                        clip=as_text(read.clip),
                        sha256=_sha256(read),
                        duration=None,
                        error=ClipError(type=read.result.type, detail=read.result.detail),
                        matches=[],
                        library=_state(library.refresh()),
                        encoder=encoder.id,
                        elapsed_ms=_milliseconds(read.spent),
                    )
        finally:
            pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Read:
    """A clip that was read: its fingerprint, or why there is none, and the seconds it took."""

    clip: str
    result: Fingerprint | AudioError
    spent: float


def _read(clip: str, encoder: Encoder, limits: Limits) -> _Read:
    started = time.perf_counter()
    result: Fingerprint | AudioError
    try:
        if clip == STANDARD_INPUT:
            if sys.stdin is None:
                raise AudioError("undecodable", "standard input: it is closed; send a clip there")
            result = fingerprint_clip(sys.stdin.buffer, "standard input", encoder, limits)
        else:
            result = fingerprint_clip(Path(clip), Path(clip).name, encoder, limits)
    except AudioError as error:
        result = error
    return _Read(clip, result, time.perf_counter() - started)


def _sha256(read: _Read) -> str | None:
    """Hash of a file that was refused, where there is a file and it is no larger than allowed."""
    refused = isinstance(read.result, AudioError) and read.result.type
    if read.clip == STANDARD_INPUT or refused in ("not-found", "too-large"):
        return None
    try:
        with open_file(read.clip, as_text(read.clip)) as stream:
            return hashlib.file_digest(cast(Any, stream), "sha256").hexdigest()
    except (OSError, AudioError):
        return None


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)
