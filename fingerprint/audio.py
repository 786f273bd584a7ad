"""Decoding: any sound file becomes 8 kHz mono float32, in blocks, in constant memory.

FFmpeg's libraries (through PyAV) decode every format: they are the fastest there is for Ogg Vorbis
and Opus, on par for the rest; libsndfile is asked where they refuse a file (`fingerprint.decoders`).
Decoded frames are queued up to about a second, converted once, mixed down to one channel
(`fingerprint.downmix`) and resampled by soxr.

A file may hold several sound tracks, each of which is opened by its number, and several sound files one
after the other (`fingerprint.part`). What it states and does not give is told when it has been read:
`AudioStream.undecoded`, `damage` and `notes`.

Files are hostile territory. The containers that are tried are listed in `fingerprint.decoders`, nothing that
a file names is ever opened, and whatever a file holds ends in sound or in one `AudioError`. What a decoder
costs beyond the limits on bytes and seconds, or a crash of it, is for the process around it to bound.
"""

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

import numpy as np
from numpy.typing import NDArray

from fingerprint.decoders import READ_BYTES, Decoder, decoder_of
from fingerprint.errors import AudioError, reason_of
from fingerprint.part import Part, as_file, layout
from fingerprint.pointers import pointer

SAMPLE_RATE = 8000  # Hz: the highest band ends below 4 kHz

# soxr's MQ costs 15 % less than HQ. Its pass band is flat within 0.1 dB to 3.6 kHz and 0.2 dB down at
# 3.73 kHz, the centre of the highest band; what lies above 4.1 kHz comes back 120 dB down. LQ would
# be 35 dB down at 3.73 kHz and is no faster.
RESAMPLING_QUALITY = "MQ"

# s that may be stated and not be decoded without a word: encoders' delay and padding, rounded lengths.
TOLERANCE = 0.25
# Bytes a second of the sparsest sound there is. A header that states more of it in so few bytes is false or
# the file is cut off: how long it is, decoding will show.
SPARSEST = 100

_SPOOL_BYTES = 64 << 20  # bytes of a pipe kept in memory before they go to a temporary file

_WEB_PAGE = (b"<!doctype html", b"<html")


@dataclass(frozen=True)
class Limits:
    """How much of a source is accepted: decoded sound in seconds, file size in bytes.

    Attributes
    ----------
    seconds_setting, bytes_setting : the settings that messages name as what can be raised
    """

    max_seconds: float = 25 * 3600.0
    max_bytes: int = 4 * 2**30
    seconds_setting: str = "max_duration"
    bytes_setting: str = "max_size"

    def too_large(self, name: str) -> AudioError:
        """What is said of a file with more bytes."""
        return AudioError(
            "too-large",
            f"{name}: is larger than {self.max_bytes / 2**20:,.4g} MiB; raise the setting "
            f"{self.bytes_setting} or split the file",
        )

    def too_long(self, name: str, decoded: float = 0.0) -> AudioError:
        """What is said of a sound that lasts longer."""
        return AudioError(
            "too-long",
            f"{name}: is longer than {self.max_seconds:,.6g} s; raise the setting "
            f"{self.seconds_setting} or split the file",
            decoded,
        )


def open_audio(
    source: str | Path | BinaryIO,
    limits: Limits = Limits(),
    name: str | None = None,
    track: int | None = None,
) -> "AudioStream":
    """Open a sound file, or a sound track of a video.

    Parameters
    ----------
    source : path or binary file
        A seekable file object is read from its start and stays open; one that cannot seek (a pipe)
        is first stored, in memory or beyond 64 MiB in a temporary file.
    limits : Limits
    name : str
        What to call the source if it is not a path.
    track : int
        Which sound track to hear, counted from 1; by default the one that a player would play.

    Raises
    ------
    AudioError
        "not-found", "undecodable" (a folder, an empty file, text, a video without sound, …),
        "too-large" (more than `limits.max_bytes`), "too-long" (the header says so).
    """
    name = _name_of(source, name)
    with ExitStack() as resources:
        if isinstance(source, str | Path):
            file = open_file(source, name)
            resources.enter_context(file)
        elif source.seekable():
            file = source
        else:
            file = resources.enter_context(_spool(source, name, limits.max_bytes))
        size = file.seek(0, os.SEEK_END)
        if size > limits.max_bytes:
            raise limits.too_large(name)
        _require_content(file, size, name)
        return AudioStream(file, size, name, limits, track, resources)


def _require_content(file: BinaryIO, size: int, name: str) -> None:
    """Raises AudioError for what stands for a sound, or should be one and is nothing."""
    if size == 0:
        raise AudioError("undecodable", f"{name}: the file is empty; copy or download it again")
    file.seek(0)
    head = file.read(256)
    if what := pointer(head):
        raise AudioError("undecodable", f"{name}: {what}")
    if head.lstrip(b"\xef\xbb\xbf \r\n\t").lower().startswith(_WEB_PAGE):
        what = "is a web page, not a sound file; download it again"
        raise AudioError("undecodable", f"{name}: {what}")


def read_audio(source: str | Path | BinaryIO, limits: Limits = Limits()) -> NDArray[np.float32]:
    """All of a sound file as 8 kHz mono [shape=(n,)]; arguments and errors of `open_audio`."""
    with open_audio(source, limits) as stream:
        return np.concatenate([np.empty(0, np.float32), *stream.blocks()])


class AudioStream:
    """An open sound file; a context manager, made by `open_audio`.

    Attributes
    ----------
    name : str
        What messages call the source.
    tags : dict
        Those of title, artist, isrc, label and release_date that the file carries.
    tracks : int
        How many sound tracks it has.
    track : int
        The one that is heard, counted from 1.
    undecoded : float
        Seconds that the file states and that could not be decoded, once `blocks` has ended.
    damage : str or None
        What keeps the file from being all that it states to be, likewise.
    notes : list of str
        What else was not heard or is odd, likewise.
    """

    def __init__(
        self,
        file: BinaryIO,
        size: int,
        name: str,
        limits: Limits,
        track: int | None,
        resources: ExitStack,
    ) -> None:
        self.name = name
        self.undecoded = 0.0
        self.damage: str | None = None
        self.notes: list[str] = []
        self._file = file
        self._size = size
        self._limits = limits
        self._layout = layout(file)
        self._asked = track
        self._decoder = self._opened(0)
        resources.callback(lambda: self._decoder.close())
        self.tags = self._decoder.tags
        self.tracks, self.track = self._decoder.tracks, self._decoder.track
        self._stated = self._decoder.stated
        if self._stated > limits.max_seconds and self._stated * SPARSEST < size:
            raise limits.too_long(name)
        self._resources = resources.pop_all()

    def _opened(self, number: int) -> Decoder:
        """The decoder of one of the sound files in the file. Raises AudioError."""
        if len(self._layout.parts) == 1:
            return decoder_of(self._file, self.name, self._asked)
        part = as_file(Part(self._file, *self._layout.parts[number]))
        return decoder_of(part, self.name, self._asked)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; a file object that was passed in stays open."""
        self._resources.close()

    def other(self, track: int, limits: Limits) -> "AudioStream":
        """Another sound track of the same file, when this one has been read or is not wanted.

        Raises what `open_audio` does.
        """
        return AudioStream(self._file, self._size, self.name, limits, track, ExitStack())

    def sha256(self) -> str:
        """Hash of the file's content, in hexadecimal; to be asked for before or after `blocks`."""
        place = self._file.tell()  # where the decoder goes on
        self._file.seek(0)
        digest = hashlib.sha256()
        while data := self._file.read(READ_BYTES):
            digest.update(data)
        self._file.seek(place)
        return digest.hexdigest()

    @property
    def seconds(self) -> float | None:
        """Length as the header states it or libav guesses it from the bit rate; None if neither can.

        Nobody knows of a file with several in it.
        """
        return (self._decoder.guess or None) if len(self._layout.parts) == 1 else None

    def window(self, start: float, seconds: float) -> NDArray[np.float32]:
        """About `seconds` of the sound from about `start` on [shape=(n,)], without what lies before.

        Where the format has no index, `start` is a guess from the bit rate. What cannot be sought or
        decoded is empty.
        """
        try:
            self._decoder.seek(start)
        except Exception:  # as in `Libav._frames`
            return np.empty(0, np.float32)
        pieces: list[NDArray[np.float32]] = []
        wanted = round(seconds * SAMPLE_RATE)
        with contextlib.suppress(AudioError):
            for block in self.blocks():
                pieces.append(block)
                wanted -= len(block)
                if wanted <= 0:
                    break
        return np.concatenate([np.empty(0, np.float32), *pieces])

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """The sound at `SAMPLE_RATE`, mono, in order, in blocks of about a second; only once.

        Of a damaged or cut-off file, everything that can be decoded; of a sound file of length zero,
        no block.

        Yields
        ------
        float32 [shape=(n,)], n > 0; full scale is 1

        Raises
        ------
        AudioError
            "too-long" once more than `limits.max_seconds` are decoded; "undecodable" if there
            should be sound and none can be decoded.
        """
        import soxr  # type: ignore[import-untyped]

        from fingerprint.downmix import Downmix

        seconds = 0.0
        shape = None
        downmix = resampler = None
        for rate, signal in self._signal():
            seconds += signal.shape[1] / rate
            if seconds > self._limits.max_seconds:
                raise self._limits.too_long(self.name, self._limits.max_seconds)
            if shape != (rate, len(signal)):
                if resampler is not None:
                    yield from _flush(resampler)
                shape = (rate, len(signal))
                downmix = Downmix(*shape)
                resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, quality=RESAMPLING_QUALITY)
            assert downmix is not None and resampler is not None
            block = resampler.resample_chunk(downmix.mix(signal))
            if block.size:
                yield block
        if resampler is not None:
            yield from _flush(resampler)

    def _signal(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Of all the sound files in the file, see `Decoder.signal`; then it is known what was not heard."""
        problem: Exception | None = None
        decoded = stated = lost = 0.0
        for number in range(len(self._layout.parts)):
            if number:
                self._decoder.close()
                try:
                    self._decoder = self._opened(number)
                except AudioError as error:
                    problem = problem or error
                    self.damage = (
                        f"part {number + 1} of those joined in it cannot be decoded ({error})"
                    )
                    continue
            decoder = self._decoder
            yield from decoder.signal()
            problem = problem or decoder.problem
            decoded += decoder.decoded
            stated += max(decoder.stated, decoder.decoded + decoder.undecoded())
            lost += decoder.undecoded()
            if decoder.note:
                self.notes.append(f"{decoder.note}: {decoder.decoded:,.1f} s were decoded")
        if not decoded and (self._stated or problem):
            reason = reason_of(problem) if problem else "the file is cut off"
            raise AudioError(
                "undecodable",
                f"{self.name}: no sound can be decoded ({reason}); copy or download it again",
            )
        self._judge(decoded, stated, lost, problem)

    def _judge(self, decoded: float, stated: float, lost: float, problem: Exception | None) -> None:
        """Say what was not heard of so many seconds that are stated."""
        torn = self._layout.torn
        broken = bool(torn) or self._decoder.torn
        self.undecoded = lost if lost > TOLERANCE else 0.0
        if broken:
            present = max(self._layout.parts[-1][1] - torn, 1)
            self.undecoded = max(lost, 0.01, decoded * torn / present)
            self.damage = f"it breaks off: {self.undecoded:.2f} s at the least are missing"
        elif self.undecoded:
            reason = f" ({reason_of(problem)})" if problem else ""
            share = f"{self.undecoded:,.1f} s of {stated:,.1f} s"
            self.damage = self.damage or f"{share} could not be decoded{reason}"
        elif self._layout.open_end:
            self.notes.append("it has no mark of its end: it may be cut off")
        if problem is not None and self.damage is None:
            self.notes.append(
                f"a part shorter than {TOLERANCE} s may be undecoded ({reason_of(problem)})"
            )


def _name_of(source: str | Path | BinaryIO, given: str | None) -> str:
    if isinstance(source, str | Path):
        return str(source)
    if given:
        return given
    name = getattr(source, "name", None)
    return name if isinstance(name, str) and name else "audio"


def open_file(path: str | Path, name: str) -> BinaryIO:
    """Open a regular file for reading; devices and pipes could block or never end."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise AudioError("undecodable", f"{name}: is a folder; name the files in it")
        if not stat.S_ISREG(mode):
            raise AudioError("undecodable", f"{name}: is not a regular file; copy it to one first")
        return open(path, "rb", buffering=0)  # libav brings its own buffer
    except (FileNotFoundError, NotADirectoryError):
        raise AudioError("not-found", f"{name}: there is no such file; check the path") from None
    except ValueError as error:  # a NUL in the path
        raise AudioError("not-found", f"{name}: {error}; check the path") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise AudioError("undecodable", f"{name}: cannot be read ({reason})") from error


def _spool(pipe: BinaryIO, name: str, max_bytes: int) -> BinaryIO:
    """A seekable copy of a pipe, of `max_bytes` + 1 bytes at most: MP4 has to be read from its end."""
    spool = cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES))  # noqa: SIM115
    size = 0
    try:
        while size <= max_bytes and (data := pipe.read(min(1 << 20, max_bytes + 1 - size))):
            size += spool.write(data)
    except OSError as error:
        spool.close()
        raise AudioError("undecodable", f"{name}: cannot be read ({error})") from error
    return spool


def _flush(resampler: Any) -> Iterator[NDArray[np.float32]]:
    """What the resampler still holds back."""
    block = resampler.resample_chunk(np.empty(0, np.float32), last=True)
    if block.size:
        yield block
