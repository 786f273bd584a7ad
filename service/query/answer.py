"""A clip to its answer: the contract's JSON, made in one place for the command and the server."""

import math
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Literal, Self

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
TIME_DIGITS = 3

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

    model_config = ConfigDict(
        from_attributes=True, json_schema_serialization_defaults_required=True
    )

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
    tempo: float = Field(
        description="Reference seconds that pass per query second; 1 unless a change is beyond doubt."
    )
    tempo_low: float | None = Field(
        default=None,
        description="Ends of the 95 % interval of the tempo; null for a fingerprint that keeps no levels.",
    )
    tempo_high: float | None = None
    pitch_semitones: float = Field(
        description="The clip's pitch above the reference's; 0 unless a change is beyond doubt."
    )
    pitch_low: float | None = Field(
        default=None, description="Ends of the 95 % interval of the pitch; null likewise."
    )
    pitch_high: float | None = None
    changed: bool = Field(
        default=False,
        description="Whether one of the intervals excludes that nothing was changed.",
    )
    likelihood_ratio: float | None = Field(
        default=None,
        description="How many times as likely such a score is of a copy as of unrelated music, never above "
        "what its validation supports; null where none applies.",
    )
    tested_clips: int | None = Field(
        default=None,
        description="Unrelated clips that this calibration was tested with; null where it was not.",
    )
    tested_closer: int | None = Field(
        default=None, description="How many of them came this close or closer."
    )
    same_file: bool = Field(
        default=False, description="Whether the clip is the file that was ingested, byte for byte."
    )
    repeats: list[tuple[float, float]] = Field(
        default_factory=list,
        description="Other places of the recording with the same audio, start and end: the clip "
        "may be of any.",
    )
    track: int | None = Field(
        default=None,
        description="Number of the sound track, counted from 1; null if the file has only one.",
    )
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

    def later(self, seconds: float) -> Self:
        """The same in a sound that began so much earlier."""
        names = ("query_start", "query_end", "shared_start", "shared_end")
        times = {name: getattr(self, name) for name in names}
        moved = {name: round(at + seconds, 3) for name, at in times.items() if at is not None}
        return self.model_copy(update=moved)


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

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    clip: str
    sha256: str | None = Field(description="Of the clip's bytes; null where they cannot be read.")
    duration: float | None = Field(description="Of the clip; null where it cannot be decoded.")
    error: ClipError | None
    matches: list[Match] = Field(
        description="Best first; segments of one recording are separate entries."
    )
    undecoded_seconds: float = Field(
        default=0.0,
        description="Stated by the file, and not heard because they could not be decoded.",
    )
    notes: list[str] = Field(
        default=[],
        description="What else of the clip was not heard, or is odd about it; a sentence each.",
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
        raise limits.too_long(name)
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
    matches: list[Match] = []
    for of_track in made.tracks:
        found, snapshot = library.search(
            of_track, max_e_value=max_e_value, hypotheses=hypotheses, owner=owner
        )
        matches += [match_of(match, of_track.track) for match in found]
    undecoded, notes = unheard(made)
    return Answer(
        clip=clip,
        sha256=made.sha256,
        duration=round(max(it.duration for it in made.tracks), TIME_DIGITS),
        error=None,
        matches=best_first(matches) if made.others else matches,
        undecoded_seconds=undecoded,
        notes=notes,
        library=state_of(snapshot),
        encoder=made.encoder,
        elapsed_ms=milliseconds(spent + time.perf_counter() - started),
    )


def unheard(made: Fingerprint) -> tuple[float, list[str]]:
    """Seconds that a file states and that were not heard, and what is to be said of it."""
    tracks = made.tracks
    damage = [it.damage for it in tracks if it.damage is not None]
    return round(sum(it.undecoded for it in tracks), TIME_DIGITS), [*damage, *made.notes]


def best_first(matches: Iterable[Match]) -> list[Match]:
    """Matches of several tracks or stretches in the order of an answer."""
    return sorted(matches, key=lambda match: (match.tier != "match", match.e_value))


def match_of(found: Found, track: int | None = None) -> Match:
    """The contract's match, its figures rounded to what they are worth."""
    match = Match.model_validate(found).model_copy(update={"track": track})
    times = ("query_start", "query_end", "reference_start", "reference_end")
    rounded = {name: round(getattr(match, name), TIME_DIGITS) for name in times}
    rounded["tempo"] = round(match.tempo, 4)
    rounded["pitch_semitones"] = round(match.pitch_semitones, 2)
    rounded["score"] = round(match.score, 3)
    rounded["e_value"] = float(f"{match.e_value:.3g}")
    if match.likelihood_ratio is not None:
        rounded["likelihood_ratio"] = float(f"{match.likelihood_ratio:.2g}")
    return match.model_copy(update=rounded)


def state_of(snapshot: Snapshot) -> LibraryState:
    """The state of the library that was searched."""
    return LibraryState(
        snapshot=str(snapshot.revision),
        recordings=len(snapshot.whole.recordings),
        seconds=round(snapshot.whole.seconds, TIME_DIGITS),
        answered=round(snapshot.answered, 4),
    )


def milliseconds(seconds: float) -> float:
    """Seconds as an answer states them."""
    return round(seconds * 1000, 1)
