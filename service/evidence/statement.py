"""What a piece of evidence states of one match, and everything that it can be computed from again.

It holds the fingerprint of the clip around the match (a coarse picture of its sound), all of the recording's
stored codes (from which nothing can be heard), the calibration, and the entries of the library's audit log
that say what the recording is, each with the proof that it is in the log (`index.audit_log.Proof`). The
ingest's entry has the SHA-256 of the file that was ingested and of the codes, so neither can be exchanged.
"""

import base64
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, Field

from fingerprint.encoder import Encoder
from fingerprint.fingerprint import REFERENCE_EVERY, Fingerprint
from index import audit_log as audit
from index import signing
from index.audit_log import Proof
from index.library import Library
from index.rescoring import MARGIN, Statement, Weighed, excerpt, weigh
from index.segment import Codes
from index.significance import Calibration
from service.evidence.errors import EvidenceError
from service.query.answer import Match
from service.query.recording_fields import RecordingEntry

FORMAT = 2
# By how much the clocks of a library's machines may differ.
CLOCK_SKEW = timedelta(minutes=5)
LIBRARIES = (
    "numpy",
    "av",
    "soundfile",
    "numba",
)  # whose versions can change a figure's last digits

LIMITS = (
    "It says that the sound of the clip and the sound that was ingested are alike there. It says nothing "
    "of who "
    "owns either, who was first, whether the use was allowed, or how the clip came to be.",
    "The chance stated is that of unrelated music, as tested. Music that is related is not unrelated: other "
    "versions, shared loops and samples, pieces by one maker.",
    "The catalogue says of the recording what its supplier stated. The audit log shows when that was "
    "stated and "
    "that it was not changed unseen since; it does not show that it is true.",
    "The time and the host are what the library's machine said, unless a time stamp server confirms the "
    "time.",
    "The signature says that this library's key signed it, not that what it says is true.",
)


class LogHead(BaseModel):
    """How far the audit log went, and its hash there."""

    number: int = Field(ge=1)
    hash: str


class Evidence(BaseModel):
    """One match, and what it can be computed from. Bytes are in base64."""

    format: Literal[2] = 2
    version: str = Field(description="Of Earmark.")
    versions: dict[str, str] = Field(description="Of what it runs on.")
    host: str = Field(description="Name of the machine that made it.")
    made_at: str
    settings: dict[str, Any] = Field(description="How the clip was searched for.")
    limits: list[str] = Field(description="What this does not say.")
    clip: str
    sha256: str
    duration: float = Field(
        description="Of the clip; of a long one, up to the end of the stretch that was searched."
    )
    match: Match
    recording: RecordingEntry = Field(description="The catalogue's row.")
    library: str = Field(description="Id of the library.")
    snapshot: str
    log: LogHead = Field(description="The audit log then.")
    entries: list[Proof] = Field(
        description="Of the audit log, each with its proof: the recording's ingest and changes, the "
        "signing key, and the calibration if it is the library's own."
    )
    encoder: str
    library_embeddings: int = Field(gt=0)
    query_embeddings: int = Field(gt=0)
    calibration: dict[str, Any] = Field(description="How chance was stated: the fitted tails.")
    read_from: float = Field(
        ge=0, description="Second of the clip at which the stretch of it that was searched begins."
    )
    excerpt_start: float = Field(description="Second of the clip at which the fingerprint begins.")
    fingerprint: str = Field(description="Of the clip around the match, as an .emk file.")
    lists: str = Field(description="Of the recording's codes, 2 bytes each, least first.")
    codes: str = Field(description="All of the recording's.")
    codes_start: int = Field(ge=0, description="Number of the first that the score is of.")
    codes_count: int = Field(gt=0, description="How many of them the score is of.")
    score: float = Field(description="Of these codes and this fingerprint.")
    e_value: float = Field(description="That this score has.")
    likeness: float | None = Field(
        default=None, description="Mean similarity along the line; 1 is the same sound, undamaged."
    )
    contrast: float | None = Field(
        default=None,
        description="Of the clip there, from band to band, in dB: noise and damage make it less.",
    )

    def excerpt(self) -> Fingerprint:
        """The clip's fingerprint around the match. Raises ValueError, AudioError."""
        return Fingerprint.load(base64.b64decode(self.fingerprint), "its fingerprint")

    def all_codes(self, encoder: Encoder) -> Codes:
        """All of the recording's codes. Raises ValueError for what can be none."""
        lists = np.frombuffer(base64.b64decode(self.lists), "<u2")
        codes = np.frombuffer(base64.b64decode(self.codes), np.uint8)
        codes = codes.reshape(len(lists), encoder.codec.code_size)
        if not len(lists) or lists.max() >= len(encoder.codec.coarse):
            raise ValueError("codes of another encoder")
        return Codes(lists, codes)

    def parts(self, encoder: Encoder) -> tuple[Fingerprint, Codes, Statement]:
        """The excerpt, the codes, and the statement in seconds of these. Raises ValueError, AudioError."""
        codes = self.all_codes(encoder)[self.codes_start : self.codes_start + self.codes_count]
        if len(codes) != self.codes_count:
            raise ValueError("fewer codes than stated")
        begins = self.codes_start * code_step(encoder)
        return (
            self.excerpt(),
            codes,
            Statement(
                self.match.query_start - self.excerpt_start,
                self.match.query_end - self.excerpt_start,
                self.match.reference_start - begins,
                self.match.reference_end - begins,
                self.match.tempo,
                self.match.pitch_semitones,
            ),
        )

    def weigh(self, encoder: Encoder) -> Weighed:
        """What the statement is worth, computed. Raises ValueError, AudioError, KeyError for damage."""
        part, codes, said = self.parts(encoder)
        return weigh(
            part,
            codes,
            said,
            encoder,
            Calibration.from_entry(self.calibration),
            query_embeddings=self.query_embeddings,
            library_embeddings=self.library_embeddings,
        )

    def least_likeness(self) -> float | None:
        """How alike a copy in a clip of such contrast is at least; None if that was never fitted."""
        likeness = Calibration.from_entry(self.calibration).likeness
        if likeness is None or self.contrast is None:
            return None
        return likeness.at_least(self.contrast)


def code_step(encoder: Encoder) -> float:
    """Seconds from one of a recording's codes to the next."""
    return encoder.step * REFERENCE_EVERY


class Excerpts(NamedTuple):
    """The seconds around a match: of the clip and where they begin, of the codes and the first's number."""

    part: Fingerprint
    start: float
    codes: Codes
    first: int


def excerpts(made: Fingerprint, match: Match, library: Library, begins: float = 0.0) -> Excerpts:
    """The seconds around a match. Raises KeyError if the recording is not there any more.

    begins : second of the clip at which what was fingerprinted begins
    """
    made = made.of_track(match.track)
    part, start = excerpt(made, match.query_start - begins, match.query_end - begins)
    codes, first = library.codes(
        match.recording, match.reference_start - MARGIN, match.reference_end + MARGIN
    )
    return Excerpts(part, begins + start, codes, first)


def gather(
    clip: str,
    made: Fingerprint,
    match: Match,
    library: Library,
    *,
    owner: str | None = None,
    begins: float = 0.0,
    settings: Mapping[str, Any] | None = None,
) -> tuple[Evidence, Weighed]:
    """The evidence for a match, and what it was weighed to be.

    owner : who asked, if not all of the library answered
    begins : second of the clip at which what was fingerprinted begins
    settings : how the clip was searched for

    Raises KeyError if the recording is not there any more, EvidenceError if the clock says that it was
    ingested later than now.
    """
    part, start, codes, first = excerpts(made, match, library, begins)
    snapshot = library.refresh(owner)
    recording = library.recording(match.recording)
    every, _ = library.codes(match.recording, 0.0, recording.duration + MARGIN)
    now = datetime.now(UTC)
    if datetime.fromisoformat(recording.ingested_at) > now + CLOCK_SKEW:
        raise EvidenceError(
            f"{clip}: no evidence: this machine's clock says {now.isoformat(timespec='seconds')}, "
            f"before recording {match.recording!r} was ingested ({recording.ingested_at}); "
            "set the clock and ask again"
        )
    log, entries = _proved(library, match.recording)
    evidence = Evidence(
        version=version("earmark"),
        versions={"python": platform.python_version(), "system": sys.platform}
        | {name: version(name) for name in LIBRARIES},
        host=platform.node(),
        made_at=now.isoformat(timespec="seconds"),
        settings=dict(settings or {}),
        limits=list(LIMITS),
        clip=clip,
        sha256=made.sha256,
        duration=begins + made.duration,
        match=match,
        recording=RecordingEntry.model_validate(recording),
        library=library.id(),
        snapshot=str(snapshot.revision),
        log=log,
        entries=entries,
        encoder=made.encoder,
        library_embeddings=len(snapshot),
        query_embeddings=len(made.embeddings),
        calibration=asdict(library.calibration),
        read_from=begins,
        excerpt_start=start,
        fingerprint=_base64(part.to_bytes()),
        lists=_base64(every.lists.astype("<u2").tobytes()),
        codes=_base64(every.codes.tobytes()),
        codes_start=first,
        codes_count=len(codes),
        score=0.0,
        e_value=0.0,
    )
    weighed = evidence.weigh(library.encoder)
    stated = {
        "score": round(weighed.score, 4),
        "e_value": float(f"{weighed.e_value:.4g}"),
        "likeness": weighed.likeness and round(weighed.likeness, 4),
        "contrast": weighed.contrast and round(weighed.contrast, 4),
    }
    return evidence.model_copy(update=stated), weighed


def _proved(library: Library, recording: str) -> tuple[LogHead, list[Proof]]:
    """The audit log's newest hash, and what it says of a recording and of what evidence rests on."""
    with library.reading() as connection:
        number, hash = audit.newest(connection)
        told = audit.find(connection, ["ingest", "change"], recording)
        ingested = max(
            (it.number for it in told if it.kind == "ingest"),
            default=None,
        )
        if ingested is None:
            raise KeyError(recording)
        numbers = [it.number for it in told if it.number >= ingested]
        for kind in (signing.EVENT, "calibration"):
            numbers += [it.number for it in audit.find(connection, [kind])][-1:]
        proofs = [audit.prove(connection, it, number) for it in numbers if it <= number]
    return LogHead(number=number, hash=hash), proofs


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
