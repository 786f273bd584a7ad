"""Evidence for one match: a page to look at, and a file that says the same and can be computed again.

The file holds the fingerprint of the clip around the match (a coarse picture of its sound) and the
recording's stored codes there (from which nothing can be heard), with all that the statement depends on:
encoder, version, sizes, the library's snapshot and the newest hash of its audit log. `verify` computes the
score and the E-value anew from these, and compares them, what the answer said, the clip's hash, and the
library's codes and names with what is stated.
"""

import base64
import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError, EarmarkError
from fingerprint.fingerprint import REFERENCE_EVERY, Fingerprint
from index.library import Library
from index.rescoring import MARGIN, Statement, Weighed, excerpt, weigh
from index.segment import Codes
from index.significance import Calibration
from service.presentation.formatting import in_words
from service.presentation.templating import templates
from service.query.answer import Match

# Two computers' sums differ in the last digits.
_SAME_SCORE = 1e-3
# An answer's score is of all that was aligned, evidence's of what is kept of that: so much more is the same.
_MORE = 1.05
# Of these fields of a match the library has the last word.
_NAMES = ("source", "title", "artist", "isrc", "work", "rightsholder", "rights")


class EvidenceError(EarmarkError):
    """A file that is no evidence, or evidence that cannot be written."""


class Evidence(BaseModel):
    """One match, and what it can be computed from. Bytes are in base64."""

    format: Literal[1] = 1
    version: str = Field(description="Of Earmark.")
    made_at: str
    clip: str
    sha256: str
    duration: float = Field(
        description="Of the clip; of a long one, up to where it was heard by then."
    )
    match: Match
    encoder: str
    snapshot: str
    audit: str = Field(description="Newest hash of the library's audit log.")
    library_embeddings: int = Field(gt=0)
    query_embeddings: int = Field(gt=0)
    calibration: dict[str, Any] = Field(description="How chance was stated: the fitted tails.")
    excerpt_start: float = Field(description="Second of the clip at which the fingerprint begins.")
    fingerprint: str = Field(description="Of the clip around the match, as an .emk file.")
    codes_start: int = Field(ge=0, description="Number of the first of the recording's codes.")
    lists: str = Field(description="Of the recording's codes, 2 bytes each, least first.")
    codes: str
    score: float = Field(description="Of these codes and this fingerprint.")
    e_value: float = Field(description="That this score has.")
    likeness: float | None = Field(
        default=None, description="Mean similarity along the line; 1 is the same sound, undamaged."
    )
    contrast: float | None = Field(
        default=None,
        description="Of the clip there, from band to band, in dB: noise and damage make it less.",
    )

    def parts(self, encoder: Encoder) -> tuple[Fingerprint, Codes, Statement]:
        """The excerpt, the codes, and the statement in seconds of these. Raises ValueError, AudioError."""
        part = Fingerprint.load(base64.b64decode(self.fingerprint), "its fingerprint")
        lists = np.frombuffer(base64.b64decode(self.lists), "<u2")
        codes = np.frombuffer(base64.b64decode(self.codes), np.uint8)
        codes = codes.reshape(len(lists), encoder.codec.code_size)
        if not len(lists) or lists.max() >= len(encoder.codec.coarse):
            raise ValueError("codes of another encoder")
        begins = self.codes_start * _step(encoder)
        return (
            part,
            Codes(lists, codes),
            Statement(
                self.match.query_start - self.excerpt_start,
                self.match.query_end - self.excerpt_start,
                self.match.reference_start - begins,
                self.match.reference_end - begins,
                self.match.tempo,
                self.match.pitch_semitones,
            ),
        )


def _step(encoder: Encoder) -> float:
    """Seconds from one of a recording's codes to the next."""
    return encoder.step * REFERENCE_EVERY


def write_evidence(
    clip: str,
    made: Fingerprint,
    matches: Sequence[Match],
    library: Library,
    folder: Path,
    *,
    owner: str | None = None,
    begins: float = 0.0,
    earlier: int = 0,
) -> list[Path | None]:
    """Write a page and a file of evidence for each match of a clip; returns the pages, in their order.

    There is none (None) of a recording that was removed since. Raises EvidenceError where the folder
    cannot be written.

    owner : who asked, if not all of the library answered
    begins : second of the clip at which what was fingerprinted begins
    earlier : matches of this clip that have evidence already
    """
    try:
        return _write(clip, made, matches, library, folder, owner, begins, earlier)
    except OSError as error:
        raise EvidenceError(f"{folder}: evidence cannot be written ({error.strerror})") from error


def _write(
    clip: str,
    made: Fingerprint,
    matches: Sequence[Match],
    library: Library,
    folder: Path,
    owner: str | None,
    begins: float,
    earlier: int,
) -> list[Path | None]:
    folder.mkdir(parents=True, exist_ok=True)
    info, embeddings = library.info(), len(library.refresh(owner))
    pages: list[Path | None] = []
    for number, match in enumerate(matches, start=earlier + 1):
        try:
            evidence, weighed = gather(clip, made, match, library, info, embeddings, begins)
        except KeyError:
            pages.append(None)
            continue
        path = folder / f"{made.sha256[:16]}-{number}.html"
        text = evidence.model_dump_json(indent=1) + "\n"
        path.with_suffix(".json").write_text(text, encoding="utf-8")
        path.write_text(_page(evidence, weighed), encoding="utf-8")
        pages.append(path)
    return pages


def gather(
    clip: str,
    made: Fingerprint,
    match: Match,
    library: Library,
    info: dict[str, Any],
    embeddings: int,
    begins: float = 0.0,
) -> tuple[Evidence, Weighed]:
    """The evidence for a match, and what it was weighed to be. Raises KeyError without the recording.

    embeddings : of what answered
    """
    part, start = excerpt(made, match.query_start - begins, match.query_end - begins)
    codes, first = library.codes(
        match.recording, match.reference_start - MARGIN, match.reference_end + MARGIN
    )
    evidence = Evidence(
        version=version("earmark"),
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        clip=clip,
        sha256=made.sha256,
        duration=round(begins + made.duration, 3),
        match=match,
        encoder=made.encoder,
        snapshot=info["snapshot"],
        audit=info["audit"],
        library_embeddings=embeddings,
        query_embeddings=len(made.embeddings),
        calibration=asdict(library.calibration),
        excerpt_start=begins + start,
        fingerprint=_base64(part.to_bytes()),
        codes_start=first,
        lists=_base64(codes.lists.astype("<u2").tobytes()),
        codes=_base64(codes.codes.tobytes()),
        score=0.0,
        e_value=0.0,
    )
    weighed = _weigh(evidence, library.encoder)
    stated = {
        "score": round(weighed.score, 4),
        "e_value": float(f"{weighed.e_value:.4g}"),
        "likeness": weighed.likeness and round(weighed.likeness, 4),
        "contrast": weighed.contrast and round(weighed.contrast, 4),
    }
    return evidence.model_copy(update=stated), weighed


def _weigh(evidence: Evidence, encoder: Encoder) -> Weighed:
    part, codes, said = evidence.parts(encoder)
    return weigh(
        part,
        codes,
        said,
        encoder,
        Calibration.from_entry(evidence.calibration),
        query_embeddings=evidence.query_embeddings,
        library_embeddings=evidence.library_embeddings,
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


class Check(BaseModel):
    """One thing that evidence states, and whether it holds; None: it could not be looked at."""

    what: str
    holds: bool | None
    detail: str


def verify(path: Path, encoder: Encoder, library: Library | None, clip: Path | None) -> list[Check]:
    """Compute a file of evidence again. Raises EvidenceError for a file that is none."""
    try:
        evidence = Evidence.model_validate_json(path.read_bytes())
    except OSError as error:
        raise EvidenceError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise EvidenceError(
            f"{path}: is no evidence of Earmark's ({where}: {first['msg']})"
        ) from None
    if evidence.encoder != encoder.id:
        raise EvidenceError(
            f"{path}: is of encoder {evidence.encoder}, this is {encoder.id}; verify it with Earmark "
            f"{evidence.version}"
        )
    try:
        return [
            _check_score(evidence, encoder),
            _check_answer(evidence),
            _check_clip(evidence, clip),
            _check_library(evidence, library, encoder),
        ]
    except (ValueError, KeyError, TypeError, ArithmeticError, IndexError, AudioError) as error:
        raise EvidenceError(f"{path}: is damaged ({error})") from error


def _check_score(evidence: Evidence, encoder: Encoder) -> Check:
    weighed = _weigh(evidence, encoder)
    same = abs(weighed.score - evidence.score) <= _SAME_SCORE * max(1.0, evidence.score)
    same = same and bool(np.isclose(weighed.e_value, evidence.e_value, rtol=0.05, atol=0))
    for computed, stated in (
        (weighed.likeness, evidence.likeness),
        (weighed.contrast, evidence.contrast),
    ):
        same = same and (stated is None or math.isclose(computed or 0.0, stated, rel_tol=0.01))
    detail = f"score {weighed.score:.3f} and E-value {weighed.e_value:.3g} computed, "
    detail += f"{evidence.score:.3f} and {evidence.e_value:.3g} stated"
    if weighed.likeness is not None and evidence.likeness is not None:
        detail += f"; likeness {weighed.likeness:.3f} computed, {evidence.likeness:.3f} stated"
    return Check(what="score", holds=same, detail=detail)


def _check_answer(evidence: Evidence) -> Check:
    """Whether the answer said no more than what is kept here bears out."""
    match = evidence.match
    same = match.score <= _MORE * evidence.score and math.log(
        max(match.e_value, 1e-300)
    ) >= _MORE * math.log(min(max(evidence.e_value, 1e-300), 1.0))
    said = f"the answer said score {match.score:.3f} and E-value {match.e_value:.3g}"
    more = "" if same else ", which is of more than what is kept here, and cannot be computed again"
    return Check(what="answer", holds=same or None, detail=said + more)


def _check_clip(evidence: Evidence, clip: Path | None) -> Check:
    if clip is None:
        return Check(what="clip", holds=None, detail="name it to have its hash compared (--clip)")
    try:
        with clip.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return Check(what="clip", holds=False, detail=f"{clip}: cannot be read ({error.strerror})")
    same = sha256 == evidence.sha256
    detail = f"SHA-256 {sha256}" + ("" if same else f" is not the one stated, {evidence.sha256}")
    return Check(what="clip", holds=same, detail=detail)


def _check_library(evidence: Evidence, library: Library | None, encoder: Encoder) -> Check:
    def said(holds: bool | None, detail: str) -> Check:
        return Check(what="library", holds=holds, detail=detail)

    if library is None:
        return said(None, "there is none here to compare the recording's codes with")
    _, codes, _ = evidence.parts(encoder)
    step = _step(encoder)
    first = evidence.codes_start
    try:
        stored, at = library.codes(
            evidence.match.recording, (first + 0.5) * step, (first + len(codes) - 0.5) * step
        )
    except KeyError:
        return said(None, f"recording {evidence.match.recording} is not in this library (any more)")
    same = (
        at == first
        and len(stored) == len(codes)
        and bool(np.array_equal(stored.lists, codes.lists))
        and bool(np.array_equal(stored.codes, codes.codes))
    )
    if not same:
        return said(False, f"the codes of {evidence.match.recording} here are not the evidence's")
    match, recording = evidence.match, library.recording(evidence.match.recording)
    others = [it for it in _NAMES if getattr(recording, it) != getattr(match, it)]
    if others:
        told = ", ".join(f"{it} is {getattr(recording, it)!r}" for it in others)
        return said(False, f"the codes are those of {match.recording} here, of which {told}")
    info = library.info()
    if info["audit"] == evidence.audit and (
        evidence.library_embeddings > info["embeddings"]
        or Calibration.from_entry(evidence.calibration) != library.calibration
    ):
        return said(False, f"in snapshot {evidence.snapshot} the library was not as it is stated")
    return said(True, f"codes and names are those of {match.recording} in this library")


def _page(evidence: Evidence, weighed: Weighed) -> str:
    match, begins = evidence.match, evidence.excerpt_start
    part = Fingerprint.load(base64.b64decode(evidence.fingerprint), "its fingerprint")
    offset = evidence.codes_start * REFERENCE_EVERY * part.step
    return (
        templates()
        .get_template("evidence.html")
        .render(
            evidence=evidence,
            match=match,
            **in_words(match),
            line_of_copies=_least_likeness(evidence),
            spectrogram=None if part.levels is None else _png(_shades(part.levels.T[::-1])),
            picture=_png(_shades(weighed.similarity, 0.0)),
            line=_line(weighed),
            clip_span=(begins + weighed.query_times[0], begins + weighed.query_times[-1]),
            work_span=(offset + weighed.reference_times[0], offset + weighed.reference_times[-1]),
        )
    )


def _least_likeness(evidence: Evidence) -> float | None:
    """How alike a copy in a clip of such contrast is at least."""
    likeness = Calibration.from_entry(evidence.calibration).likeness
    if likeness is None or evidence.contrast is None:
        return None
    return likeness.at_least(evidence.contrast)


def picture(
    made: Fingerprint, match: Match, library: Library
) -> tuple[str, tuple[float, float, float, float] | None]:
    """A clip's similarity to a match's stored codes, as a data URL, and the line's ends in per cent.

    Raises KeyError if the recording is not there any more.
    """
    _, weighed = gather("", made, match, library, library.info(), len(library.refresh()))
    return _png(_shades(weighed.similarity, 0.0)), _line(weighed)


def _line(weighed: Weighed) -> tuple[float, float, float, float] | None:
    """The aligned line's ends in per cent of the picture: x1, y1, x2, y2."""
    if weighed.line is None:
        return None

    def share(value: float, times: NDArray[np.floating]) -> float:
        breadth = max(times[-1] - times[0], 1e-9)
        return float(100 * (value - times[0]) / breadth)

    (q1, r1), (q2, r2) = weighed.line
    ours, theirs = weighed.query_times, weighed.reference_times
    return share(r1, theirs), share(q1, ours), share(r2, theirs), share(q2, ours)


def _shades(values: NDArray[Any], low: float | None = None) -> NDArray[np.uint8]:
    """Grey from white for the lowest to black for the highest."""
    values = values.astype(np.float32)
    low = float(values.min()) if low is None else low
    share = (values - low) / max(float(values.max()) - low, 1e-9)
    return np.round(255 * (1 - share.clip(0, 1))).astype(np.uint8)


def _png(grey: NDArray[np.uint8]) -> str:
    """A picture [shape=(rows, columns)] as a data URL."""
    import av

    grey = np.ascontiguousarray(grey)
    file = io.BytesIO()
    with av.open(file, "w", format="image2pipe") as container:
        stream = container.add_stream("png", rate=1)
        stream.height, stream.width = grey.shape
        stream.pix_fmt = "gray"
        frame = av.VideoFrame.from_ndarray(grey, format="gray")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return "data:image/png;base64," + _base64(file.getvalue())
