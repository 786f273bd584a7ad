"""Clips named on the command line to their answers, in their order and in bounded memory.

Fingerprints of short clips are made side by side, ahead of the search. A clip that lasts longer than a
stretch, or of which that is not known, is heard stretch by stretch (`service.query.listening`), each of which
is a query of its own.
"""

import hashlib
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from fingerprint.audio import AudioStream, Limits, open_audio, open_file
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY, Fingerprint, fingerprint_stream
from index.library import Library
from service.presentation.formatting import as_text
from service.query.answer import (
    FINGERPRINT_EXTENSION,
    STANDARD_INPUT,
    TIME_DIGITS,
    Answer,
    ClipError,
    Match,
    answer,
    best_first,
    fingerprint_clip,
    match_of,
    milliseconds,
    state_of,
)
from service.query.chunks import STRETCH, joined
from service.query.listening import Listening

# Told of each fingerprint that was searched for: the clip, the fingerprint, its matches in seconds of the
# clip, and the second of the clip at which it begins.
OnFound = Callable[[str, Fingerprint, list[Match], float], None]


@dataclass(frozen=True)
class Asked:
    """How clips are looked up."""

    library: Library
    encoder: Encoder
    limits: Limits
    max_e_value: float
    hypotheses: int


def answers(
    clips: Sequence[str],
    asked: Asked,
    *,
    jobs: int,
    on_found: OnFound = lambda clip, made, matches, begins: None,
) -> Generator[Answer, None, None]:
    """The answers for clips named as on the command line, in their order.

    A clip is a file of audio or a fingerprint, or `-` for standard input. Fingerprints are made
    `jobs` at a time.
    """
    with ThreadPoolExecutor(jobs) as pool:
        ahead: deque[Future[_Read]] = deque()
        waiting = iter(clips)
        try:
            while True:
                for clip in islice(waiting, 2 * jobs - len(ahead)):
                    ahead.append(pool.submit(_read, clip, asked))
                if not ahead:
                    return
                yield _answered(ahead.popleft().result(), asked, on_found)
        finally:
            for future in ahead:
                if not future.cancel() and isinstance(future.result().result, AudioStream):
                    cast(AudioStream, future.result().result).close()
            pool.shutdown(cancel_futures=True)


def ask(clip: str, source: Path | BinaryIO | Fingerprint, asked: Asked) -> Answer:
    """The answer for one clip, by whatever it is; `clip` is its name. Raises AudioError."""
    started = time.perf_counter()
    made = source if isinstance(source, Fingerprint) else _opened(source, Path(clip).name, asked)
    spent = time.perf_counter() - started
    return _found(_Read(clip, made, spent), asked, lambda clip, made, matches, begins: None)


@dataclass(frozen=True)
class _Read:
    """A clip that was read, and the seconds it took: its fingerprint, or why there is none.

    Of a long one, it is the open sound.
    """

    clip: str
    result: Fingerprint | AudioStream | AudioError
    spent: float


def _read(clip: str, asked: Asked) -> _Read:
    started = time.perf_counter()
    result: Fingerprint | AudioStream | AudioError
    try:
        if clip == STANDARD_INPUT:
            if sys.stdin is None:
                raise AudioError("undecodable", "standard input: it is closed; send a clip there")
            result = _opened(sys.stdin.buffer, "standard input", asked)
        else:
            result = _opened(Path(clip), Path(clip).name, asked)
    except AudioError as error:
        result = error
    return _Read(clip, result, time.perf_counter() - started)


def _opened(source: Path | BinaryIO, name: str, asked: Asked) -> Fingerprint | AudioStream:
    """A clip's fingerprint, or the open sound if it is long. Raises AudioError."""
    if name.lower().endswith(FINGERPRINT_EXTENSION):
        return fingerprint_clip(source, name, asked.encoder, asked.limits)
    stream = open_audio(source, asked.limits, as_text(name))
    if stream.seconds is None or stream.seconds > STRETCH:
        return stream
    with stream:
        return fingerprint_stream(stream, asked.limits, asked.encoder, QUERY_EVERY)


def _answered(read: _Read, asked: Asked, on_found: OnFound) -> Answer:
    try:
        return _found(read, asked, on_found)
    except AudioError as error:
        return Answer(
            clip=as_text(read.clip),
            sha256=_sha256(read.clip, error),
            duration=None,
            error=ClipError(type=error.type, detail=error.detail),
            matches=[],
            library=state_of(asked.library.refresh()),
            encoder=asked.encoder.id,
            elapsed_ms=milliseconds(read.spent),
        )


def _found(read: _Read, asked: Asked, on_found: OnFound) -> Answer:
    """The answer for a clip that was read. Raises AudioError."""
    clip = as_text(read.clip)
    if isinstance(read.result, AudioError):
        raise read.result
    if isinstance(read.result, AudioStream):
        with read.result as stream:
            return _of_long(clip, stream, asked, on_found)
    found = answer(
        clip,
        read.result,
        asked.library,
        max_e_value=asked.max_e_value,
        hypotheses=asked.hypotheses,
        spent=read.spent,
    )
    on_found(clip, read.result, found.matches, 0.0)
    return found


def _of_long(clip: str, stream: AudioStream, asked: Asked, on_found: OnFound) -> Answer:
    """The answer for a clip that is heard stretch by stretch. Raises AudioError."""
    started = time.perf_counter()
    listening = Listening(stream, asked.limits, asked.encoder, stream.sha256())
    matches: list[Match] = []
    snapshot = asked.library.refresh()
    for begins, made in listening.stretches():
        found, snapshot = asked.library.search(
            made, max_e_value=asked.max_e_value, hypotheses=asked.hypotheses
        )
        new = [match_of(match, made.track).later(begins) for match in found]
        on_found(clip, made, new, begins)
        matches = joined(matches, new, begins)
    return Answer(
        clip=clip,
        sha256=listening.sha256,
        duration=round(listening.duration, TIME_DIGITS),
        error=None,
        matches=best_first(matches),
        undecoded_seconds=round(listening.undecoded, TIME_DIGITS),
        notes=listening.notes,
        library=state_of(snapshot),
        encoder=asked.encoder.id,
        elapsed_ms=milliseconds(time.perf_counter() - started),
    )


def _sha256(clip: str, refused: AudioError) -> str | None:
    """Hash of a file that was refused, where there is a file and it is no larger than allowed."""
    if clip == STANDARD_INPUT or refused.type in ("not-found", "too-large"):
        return None
    try:
        with open_file(clip, as_text(clip)) as stream:
            return hashlib.file_digest(cast(Any, stream), "sha256").hexdigest()
    except (OSError, AudioError):
        return None
