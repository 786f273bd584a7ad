"""Decoding: any sound file becomes 8 kHz mono float32, in blocks, in constant memory.

FFmpeg's libraries (through PyAV) decode every format: they are the fastest there is for Ogg Vorbis
and Opus, on par for the rest, and silent about damage; libsndfile is asked where they refuse a file.
Decoded frames are queued up to about a second, converted once, mixed down to one channel
(`fingerprint.downmix`) and resampled by soxr.

Files are hostile territory. The containers that are tried are listed here, nothing that a file names
is ever opened, and whatever a file holds ends in sound or in one `AudioError`. What a decoder costs
beyond the limits on bytes and seconds, or a crash of it, is for the process around it to bound.
"""

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, cast

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import AudioError, reason_of
from fingerprint.isrc import isrcs_in

if TYPE_CHECKING:
    from av.audio.fifo import AudioFifo
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream as AvAudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from soundfile import SoundFile

SAMPLE_RATE = 8000  # Hz: the highest band ends below 4 kHz

# soxr's MQ costs 15 % less than HQ. Its pass band is flat within 0.1 dB to 3.6 kHz and 0.2 dB down at
# 3.73 kHz, the centre of the highest band; what lies above 4.1 kHz comes back 120 dB down. LQ would
# be 35 dB down at 3.73 kHz and is no faster.
RESAMPLING_QUALITY = "MQ"

RATES = (1_000, 800_000)  # Hz, believable sample rates: telephony to 8-fold DSD as PCM

_PIECE_BLOCKS = 4  # down-mix blocks handled at once: 1 s, 350 kB in stereo, stays in the cache
_READ_BYTES = 1 << 16  # bytes asked of a file at a time
_SPOOL_BYTES = 64 << 20  # bytes of a pipe kept in memory before they go to a temporary file

# What music comes in. Playlists, image sequences, subtitles and the like open other files or call
# anything a sound, so they are not among these.
_CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,loas,matroska,mov,mp3,mpc,mpc8,"
    "mpeg,mpegts,ogg,rm,tak,tta,w64,wav,wv,xwma"
)
# Containers whose headers state a duration; of the others libav makes a guess from the bit rate.
_STATE_DURATION = frozenset(
    {"aiff", "ape", "asf", "au", "caf", "dsf", "flac", "matroska", "mov"}
    | {"ogg", "tak", "tta", "w64", "wav", "wv"}
)

# libav's sample formats (packed; planar ones end in "p"): NumPy type, value of full scale.
_SAMPLE_FORMATS: dict[str, tuple[type[np.generic], float]] = {
    "u8": (np.uint8, 2.0**7),
    "s16": (np.int16, 2.0**15),
    "s32": (np.int32, 2.0**31),
    "s64": (np.int64, 2.0**63),
    "flt": (np.float32, 1.0),
    "dbl": (np.float64, 1.0),
}

# Names that containers use for a tag, best first, in lower case.
_TAG_NAMES = {
    "title": ("title", "tit2", "inam", "©nam"),
    "artist": ("artist", "tpe1", "author", "iart", "album_artist"),
    "isrc": ("isrc", "tsrc", "wm/isrc"),
    "label": ("label", "publisher", "organization", "tpub", "wm/publisher"),
    "release_date": (
        "releasedate",
        "tdrl",
        "date",
        "tdrc",
        "year",
        "wm/year",
        "icrd",
        "tyer",
    ),
}
_LONGEST_TAG = 1000  # characters


@dataclass(frozen=True)
class Limits:
    """How much of a source is accepted: decoded sound in seconds, file size in bytes."""

    max_seconds: float = 4 * 3600.0
    max_bytes: int = 4 * 2**30


def open_audio(
    source: str | Path | BinaryIO, limits: Limits = Limits(), name: str | None = None
) -> "AudioStream":
    """Open a sound file, or the sound track of a video.

    Parameters
    ----------
    source : path or binary file
        A seekable file object is read from its start and stays open; one that cannot seek (a pipe)
        is first stored, in memory or beyond 64 MiB in a temporary file.
    limits : Limits
    name : str
        What to call the source if it is not a path.

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
            raise _too_large(name, limits.max_bytes)
        if size == 0:
            raise AudioError("undecodable", f"{name}: the file is empty; copy or download it again")
        file.seek(0)
        return AudioStream(file, name, limits, resources)


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
    """

    def __init__(self, file: BinaryIO, name: str, limits: Limits, resources: ExitStack) -> None:
        self.name = name
        self._file = file
        self._limits = limits
        self._problem: Exception | None = None
        self._second: SoundFile | None = None
        self.tags: dict[str, str] = {}
        try:
            self._container = resources.enter_context(_open_container(file, name))
            self._stream = _sound_track(self._container, name)
            self._stated_seconds = _stated_seconds(self._container, self._stream)
            self.tags = _tags(self._container, self._stream)
        except AudioError:
            self._second = _second_opinion(file)
            if self._second is None:
                raise
            resources.enter_context(self._second)
            self._stated_seconds = self._second.frames / self._second.samplerate
        if self._stated_seconds > limits.max_seconds:
            raise _too_long(name, limits.max_seconds)
        self._resources = resources.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; a file object that was passed in stays open."""
        self._resources.close()

    def sha256(self) -> str:
        """Hash of the file's content, in hexadecimal; to be asked for before or after `blocks`."""
        self._file.seek(0)
        digest = hashlib.sha256()
        while data := self._file.read(_READ_BYTES):
            digest.update(data)
        return digest.hexdigest()

    @property
    def seconds(self) -> float | None:
        """Length as the header states it or libav guesses it from the bit rate; None if neither can."""
        if self._second is not None:
            return self._stated_seconds
        return self._stated_seconds or (self._container.duration or 0) / 1e6 or None

    def window(self, start: float, seconds: float) -> NDArray[np.float32]:
        """About `seconds` of the sound from about `start` on [shape=(n,)], without what lies before.

        Where the format has no index, `start` is a guess from the bit rate. What cannot be sought or
        decoded is empty.
        """
        try:
            if self._second is not None:
                self._second.seek(round(start * self._second.samplerate))
            else:
                self._container.seek(round(start * 1e6))
        except Exception:  # as in `_frames`
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
                raise _too_long(self.name, self._limits.max_seconds, self._limits.max_seconds)
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
        """Sample rate and samples [shape=(channels, n)] in pieces that `Downmix.mix` can take.

        The array is valid, and may be changed, until the next one is asked for.
        """
        from av.audio.fifo import AudioFifo

        from fingerprint.downmix import block_length

        if self._second is not None:
            yield from self._signal_of_second(self._second)
            return
        shape: tuple[int, int, str] | None = None
        piece = 0
        buffer = np.empty((0, 0), np.float32)
        fifo = AudioFifo()
        for frame in self._frames():
            now = frame.sample_rate, frame.layout.nb_channels, frame.format.name
            if now != shape:
                yield from _read(fifo, 0, buffer)
                rate, channels, _ = shape = now
                piece = _PIECE_BLOCKS * block_length(rate, channels)
                buffer = np.empty((channels, piece), np.float32)
                fifo = AudioFifo()
            frame.pts = None  # gaps in the time stamps are no concern of the queue
            fifo.write(frame)
            while fifo.samples >= piece:
                yield from _read(fifo, piece, buffer)
        yield from _read(fifo, 0, buffer)

    def _signal_of_second(self, sound: "SoundFile") -> Iterator[tuple[int, NDArray[np.float32]]]:
        """As `_signal`, from libsndfile."""
        from fingerprint.downmix import block_length

        rate = sound.samplerate
        piece = _PIECE_BLOCKS * block_length(rate, sound.channels)
        decoded = False
        try:
            while len(samples := sound.read(piece, np.float32, always_2d=True)):
                decoded = True
                yield rate, np.ascontiguousarray(samples.T)
        except RuntimeError as error:  # LibsndfileError: what came before it stands
            if not decoded:
                raise AudioError(
                    "undecodable",
                    f"{self.name}: no sound can be decoded ({error}); copy or download it again",
                ) from error

    def _frames(self) -> Iterator["AudioFrame"]:
        """Decoded frames; packets that cannot be decoded are left out."""
        decoded = False
        for packet in self._packets():
            # Whatever a file can make libav, and PyAV above it, raise ends here.
            try:
                frames = packet.decode() if packet else self._stream.codec_context.decode()
            except Exception as error:
                self._problem = self._problem or error
                continue
            for frame in frames:
                if not RATES[0] <= frame.sample_rate <= RATES[1]:
                    self._problem = ValueError(f"a sample rate of {frame.sample_rate} Hz")
                elif frame.samples and frame.layout.nb_channels:
                    decoded = True
                    yield frame
        if not decoded and (self._stated_seconds or self._problem):
            reason = reason_of(self._problem) if self._problem else "the file is cut off"
            raise AudioError(
                "undecodable",
                f"{self.name}: no sound can be decoded ({reason}); copy or download it again",
            )

    def _packets(self) -> Iterator["Packet[AvAudioStream] | None"]:
        """Packets of the sound track; where reading breaks off, None, to flush the decoder with."""
        # As above; the source's own errors also arrive here.
        try:
            yield from self._container.demux(self._stream)  # the last is empty: it flushes too
        except Exception as error:
            self._problem = self._problem or error
            yield None


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


def _open_container(file: BinaryIO, name: str) -> "InputContainer":
    import av  # takes 0.15 s, which commands that decode nothing need not spend

    try:
        return av.open(
            file,
            "r",
            buffer_size=_READ_BYTES,
            container_options={
                "format_whitelist": _CONTAINERS,
                "protocol_whitelist": "",
            },
            metadata_errors="surrogateescape",
        )
    except Exception as error:  # as in `AudioStream._frames`
        raise AudioError(
            "undecodable",
            f"{name}: is not a sound file that can be read ({reason_of(error)}); "
            "if it should be one, copy it again or convert it to FLAC",
        ) from error


def _second_opinion(file: BinaryIO) -> "SoundFile | None":
    """libsndfile's view of a file that libav refuses, if it has one.

    Some Ogg Vorbis files in circulation have headers that only libvorbis takes. Formats that libsndfile
    would hand to mpg123, which complains on standard error, are not tried.
    """
    file.seek(0)
    if file.read(4) not in (b"OggS", b"fLaC", b"RIFF", b"FORM"):
        return None
    file.seek(0)
    import soundfile

    try:
        sound = soundfile.SoundFile(_Quiet(file))
    except (RuntimeError, TypeError, ValueError):
        return None
    if RATES[0] <= sound.samplerate <= RATES[1]:
        return sound
    sound.close()
    return None


class _Quiet:
    """A file for libsndfile: seeking to where no file has a place leaves it where it is.

    An exception in there would be printed, once for each such file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.readinto, self.read, self.tell = file.readinto, file.read, file.tell  # type: ignore[attr-defined]

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with contextlib.suppress(ValueError, OSError):
            return self._file.seek(offset, whence)
        return self._file.tell()


def _sound_track(container: "InputContainer", name: str) -> "AvAudioStream":
    """The one sound track to listen to, as libav chooses it for playback."""
    track = cast("AvAudioStream | None", container.streams.best("audio"))
    if track is None:
        what = "has no sound track" if container.streams else "holds no sound"
        if any(s.type == "audio" for s in container.streams):
            what = "has a sound track in a format that cannot be decoded"
        raise AudioError("undecodable", f"{name}: {what}; name a file with sound")
    return track


def _stated_seconds(container: "InputContainer", stream: "AvAudioStream") -> float:
    """Length as the header states it; 0 if it does not."""
    if _STATE_DURATION.isdisjoint(container.format.name.split(",")):
        return 0.0
    if stream.duration and stream.time_base:
        return max(0.0, float(stream.duration * stream.time_base))
    return max(0.0, (container.duration or 0) / 1e6)


def _read(
    fifo: "AudioFifo", n: int, buffer: NDArray[np.float32]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Take n samples (0: all) out of a queue: its rate, float32 [shape=(channels, n)] in `buffer`."""
    from av.audio.plane import AudioPlane

    frame = fifo.read(n)
    if frame is None:
        return
    dtype, full_scale = _SAMPLE_FORMATS[frame.format.name.removesuffix("p")]
    out = buffer[:, : frame.samples]
    channels, n = out.shape

    def plane(index: int, size: int) -> NDArray[Any]:
        # Not `frame.planes`, which counts planes by looking for a null pointer behind the last.
        return np.frombuffer(cast(Any, AudioPlane(frame, index)), dtype, size)

    rows: Iterable[NDArray[Any]]
    if frame.format.is_planar:
        rows = (plane(c, n) for c in range(channels))
    else:
        rows = plane(0, n * channels).reshape(n, channels).T
    # Doubles too large for float32 become infinite here and 0 in the down-mix.
    with np.errstate(over="ignore", invalid="ignore"):
        for row, samples in zip(out, rows, strict=True):
            np.multiply(samples, 1 / full_scale, out=row, dtype=np.float32, casting="unsafe")
    if dtype is np.uint8:
        out -= 1
    yield frame.sample_rate, out


def _flush(resampler: Any) -> Iterator[NDArray[np.float32]]:
    """What the resampler still holds back."""
    block = resampler.resample_chunk(np.empty(0, np.float32), last=True)
    if block.size:
        yield block


def _tags(container: "InputContainer", stream: "AvAudioStream") -> dict[str, str]:
    """Tags under the contract's names. Ogg keeps them with the stream, the others with the file."""
    found: dict[str, str] = {}
    for metadata in (stream.metadata, container.metadata):
        found |= {key.lower(): text for key, value in metadata.items() if (text := _text(value))}
    tags = {}
    for tag, names in _TAG_NAMES.items():
        value = next((found[name] for name in names if name in found), None)
        if tag == "isrc" and value is not None:
            # WAV has a chunk of this name that means "source".
            value = next(iter(isrcs_in(value)), None)
        if value is not None:
            tags[tag] = value
    return tags


def _text(value: str) -> str:
    """A tag as printable text; bytes that are not UTF-8 are taken for Windows' Western ones."""
    try:
        value.encode()
    except UnicodeEncodeError:
        value = value.encode(errors="surrogateescape").decode("cp1252", "replace")
    words = "".join(c if c.isprintable() else " " for c in value[:_LONGEST_TAG]).split()
    return " ".join(words)


def _too_large(name: str, max_bytes: int) -> AudioError:
    return AudioError(
        "too-large",
        f"{name}: is larger than {max_bytes / 2**20:,.4g} MiB; raise the limit or split the file",
    )


def _too_long(name: str, max_seconds: float, decoded: float = 0.0) -> AudioError:
    return AudioError(
        "too-long",
        f"{name}: is longer than {max_seconds:,.6g} s; raise the limit or split the file",
        decoded,
    )
