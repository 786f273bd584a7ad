"""Two decoders of one sound file: FFmpeg's libraries, and libsndfile where these refuse or misread it.

Each gives its samples in pieces, and says at the end how many seconds the file states and did not give.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import AudioError, reason_of
from fingerprint.part import Part, as_file
from fingerprint.stated import correction, has_length, is_false, lacking, tag_bytes
from fingerprint.tags import tags_of

if TYPE_CHECKING:
    from av.audio.fifo import AudioFifo
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream as Track
    from av.container import InputContainer
    from av.packet import Packet
    from soundfile import SoundFile

RATES = (1_000, 800_000)  # Hz, believable sample rates: telephony to 8-fold DSD as PCM

_PIECE_BLOCKS = 4  # down-mix blocks handled at once: 1 s, 350 kB in stereo, stays in the cache
READ_BYTES = 1 << 16  # bytes asked of a file at a time

# What music comes in. Playlists, image sequences, subtitles and the like open other files or call
# anything a sound, so they are not among these.
_CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,loas,matroska,mov,mp3,mpc,mpc8,"
    "mpeg,mpegts,ogg,rm,tak,tta,w64,wav,wv,xwma"
)
# Containers whose headers state a duration; of the others libav makes a guess from the bit rate or from
# time stamps. MP3 states it in a tag of its own.
_STATE_DURATION = frozenset(
    {"aiff", "ape", "asf", "au", "avi", "caf", "dsf", "flac", "flv", "matroska", "mov"}
    | {"ogg", "tak", "tta", "w64", "wav", "wv"}
)
# Of these, it is the file's and not each track's, or that of any track a tag's.
_OF_THE_FILE = frozenset({"flv", "matroska"})

# Decoders that check the sums which lossless formats carry: without, damage is heard as noise.
_CHECKED = frozenset({"flac", "tta", "wavpack"})

GAP = 0.5  # s from one time stamp to the next, at least, that are a hole in the file
_RETRIES = 20  # failures of reading, one after the other, after which a file is given up

# libav's sample formats (packed; planar ones end in "p"): NumPy type, value of full scale.
_SAMPLE_FORMATS: dict[str, tuple[type[np.generic], float]] = {
    "u8": (np.uint8, 2.0**7),
    "s16": (np.int16, 2.0**15),
    "s32": (np.int32, 2.0**31),
    "s64": (np.int64, 2.0**63),
    "flt": (np.float32, 1.0),
    "dbl": (np.float64, 1.0),
}


class Decoder(Protocol):
    """What reads one sound file.

    Attributes
    ----------
    tags : title, artist, isrc, label and release_date, where the file has them
    tracks : how many sound tracks it has
    track : the one that is decoded, counted from 1
    stated : seconds that its header states; 0 if it states none, or a placeholder
    guess : seconds that it probably lasts; 0 if nobody knows
    decoded : seconds decoded so far
    problem : the first thing that went wrong
    note : what else is to be said of it, or ""
    torn : whether it ends within a fragment, so that nobody knows how much is missing
    """

    tags: dict[str, str]
    tracks: int
    track: int
    stated: float
    guess: float
    decoded: float
    problem: Exception | None
    note: str
    torn: bool

    def signal(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Sample rate and samples [shape=(channels, n)] in pieces that `Downmix.mix` can take.

        The array is valid, and may be changed, until the next one is asked for. What cannot be decoded is
        left out.
        """

    def seek(self, second: float) -> None:
        """Go on from about there. Raises what the libraries do where that is not possible."""

    def undecoded(self) -> float:
        """Seconds that are stated and were not decoded; right once `signal` has ended."""

    def close(self) -> None:
        """Let go of the file."""


def decoder_of(file: BinaryIO, name: str, track: int | None = None) -> Decoder:
    """The decoder of a file; of one that libav refuses, libsndfile. Raises AudioError.

    track : the sound track to hear, counted from 1; by default the one that a player would play
    """
    file.seek(0)
    if file.read(4) == b"RIFX" and (second := _second_opinion(file)) is not None:
        return Sndfile(second)  # libav takes it for little-endian
    try:
        return Libav(file, name, track)
    except AudioError:
        second = None if track not in (None, 1) else _second_opinion(file)
        if second is None:
            raise
        return Sndfile(second)


class Libav:
    """FFmpeg's libraries, through PyAV; see `Decoder`."""

    def __init__(self, file: BinaryIO, name: str, track: int | None) -> None:
        self.decoded = 0.0
        self.problem: Exception | None = None
        self.note = ""
        size = file.seek(0, os.SEEK_END)
        self._lacking = lacking(file, size)
        has_tag, begins = has_length(file), tag_bytes(file)
        right = correction(file)
        self._bits = right.bits
        # Seconds between time stamps without sound, bytes of packets, and of those that were no sound.
        self._gaps, self._next = 0.0, -1.0
        self._good, self._bad = 0, 0
        self._all = (
            0  # bytes of a file that is nothing but packets, of which libav passes some over
        )
        self._first: float | None = None
        self._scale = 1.0
        if right.patches:
            file = as_file(Part(file, 0, size, right.patches))
        with ExitStack() as resources:
            self._container = resources.enter_context(_open(file, name))
            tracks = [it for it in self._container.streams if it.type == "audio"]
            self.tracks = len(tracks)
            self._track = _chosen(self._container, tracks, track, name)
            self.track = 1 + tracks.index(self._track)
            self.tags = tags_of(self._track.metadata, self._container.metadata)
            if self._container.format.name == "aac":
                self._all = size - begins
            self.stated = self._stated(has_tag)
            rate = self._track.codec_context.sample_rate or 0
            if self.stated and is_false(self.stated, rate, self._frame_bytes()):
                self.note = f"its header states {self.stated:,.0f} s, which is no length"
                self.stated = 0.0
            self.guess = self.stated or (self._container.duration or 0) / 1e6
            if self.note:
                self.guess = 0.0
            self.torn = self._lacking > 0 and self._container.format.name.startswith("mov")
            if self._track.codec_context.name in _CHECKED:
                self._track.codec_context.options = {"err_detect": "crccheck+explode"}
            self._resources = resources.pop_all()

    def _frame_bytes(self) -> int:
        context = self._track.codec_context
        return context.layout.nb_channels * max(
            1, (context.format.bits if context.format else 8) // 8
        )

    def _stated(self, has_tag: bool) -> float:
        """Length of the track as the file states it; 0 if it does not.

        has_tag : whether it is stated if this is MP3
        """
        kinds = set(self._container.format.name.split(","))
        stream = self._track
        if not (has_tag if "mp3" in kinds else kinds & _STATE_DURATION):
            return 0.0
        if stream.duration and stream.time_base:
            return max(0.0, float(stream.duration * stream.time_base))
        if kinds & _OF_THE_FILE:
            said = next((v for k, v in stream.metadata.items() if k.startswith("DURATION")), None)
            if said is not None:
                return _seconds(said)
            if any(it.type == "video" for it in self._container.streams):
                return 0.0
        return max(0.0, (self._container.duration or 0) / 1e6)

    def close(self) -> None:
        self._resources.close()

    def seek(self, second: float) -> None:
        self._container.seek(round(second * 1e6))

    def undecoded(self) -> float:
        if self.stated:
            begins = self._first or 0.0
            of_file = not self._track.duration
            lost = self.stated - self.decoded - (begins if of_file else 0.0)
        else:
            bad = max(self._bad, self._all - self._good)
            lost = self.decoded * bad / max(self._good, 1)
        return max(0.0, lost, self._gaps, self.decoded * self._lacking)

    def signal(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        from av.audio.fifo import AudioFifo

        from fingerprint.downmix import block_length

        shape: tuple[int, int, str] | None = None
        piece = 0
        buffer = np.empty((0, 0), np.float32)
        fifo = AudioFifo()
        for frame in self._frames():
            now = frame.sample_rate, frame.layout.nb_channels, frame.format.name
            if now != shape:
                yield from self._read(fifo, 0, buffer)
                rate, channels, _ = shape = now
                piece = _PIECE_BLOCKS * block_length(rate, channels)
                buffer = np.empty((channels, piece), np.float32)
                fifo = AudioFifo()
            frame.pts = None  # gaps in the time stamps are no concern of the queue
            fifo.write(frame)
            while fifo.samples >= piece:
                yield from self._read(fifo, piece, buffer)
        yield from self._read(fifo, 0, buffer)

    def _read(
        self, fifo: "AudioFifo", n: int, buffer: NDArray[np.float32]
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Take n samples (0: all) out of a queue, at their right level."""
        for rate, piece in _read(fifo, n, buffer):
            if self._bits:
                peak = float(np.abs(piece).max(initial=0.0))
                if self._scale == 1.0 and 0.0 < peak < 2.0**-self._bits:  # at the lower end
                    self._scale = 2.0**self._bits
                self._bits = self._bits if peak == 0.0 else 0
            if self._scale != 1.0:
                piece *= np.float32(self._scale)
            yield rate, piece

    def _frames(self) -> Iterator["AudioFrame"]:
        """Decoded frames; packets that cannot be decoded are left out."""
        for packet in self._packets():
            # Whatever a file can make libav, and PyAV above it, raise ends here.
            try:
                frames = packet.decode() if packet else self._track.codec_context.decode()
            except Exception as error:
                self.problem = self.problem or error
                self._bad += packet.size if packet else 0
                continue
            self._good += packet.size if packet else 0
            for frame in frames:
                if not RATES[0] <= frame.sample_rate <= RATES[1]:
                    self.problem = ValueError(f"a sample rate of {frame.sample_rate} Hz")
                elif frame.samples and frame.layout.nb_channels:
                    self._count(frame)
                    yield frame

    def _count(self, frame: "AudioFrame") -> None:
        """Note how long a frame is, and how long after the last one it comes."""
        seconds = frame.samples / frame.sample_rate
        self.decoded += seconds
        if frame.pts is None or frame.time_base is None:
            return
        at = float(frame.pts * frame.time_base)
        if self._first is None:
            self._first = max(0.0, at)
        elif GAP < at - self._next < (self.guess or np.inf):
            self._gaps += at - self._next
        self._next = at + seconds

    def _packets(self) -> Iterator["Packet[Track] | None"]:
        """Packets of the track; what cannot be read is passed over, None flushes the decoder at the end."""
        failures = 0
        while failures < _RETRIES:
            # As above; the source's own errors also arrive here.
            try:
                for packet in self._container.demux(self._track):
                    failures = 0
                    yield packet  # the last is empty: it flushes too
                return
            except Exception as error:
                self.problem = self.problem or error
                failures += 1
        yield None


class Sndfile:
    """libsndfile, through soundfile; see `Decoder`."""

    def __init__(self, sound: "SoundFile") -> None:
        self._sound = sound
        self.tags: dict[str, str] = {}
        self.tracks = self.track = 1
        self.torn = False
        self.stated = self.guess = sound.frames / sound.samplerate
        self.decoded = 0.0
        self.problem: Exception | None = None
        self.note = ""
        if is_false(self.stated, sound.samplerate, sound.channels):
            self.stated = self.guess = 0.0

    def close(self) -> None:
        self._sound.close()

    def seek(self, second: float) -> None:
        self._sound.seek(round(second * self._sound.samplerate))

    def undecoded(self) -> float:
        return max(0.0, self.stated - self.decoded)

    def signal(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        from fingerprint.downmix import block_length

        rate = self._sound.samplerate
        piece = _PIECE_BLOCKS * block_length(rate, self._sound.channels)
        try:
            while len(samples := self._sound.read(piece, np.float32, always_2d=True)):
                self.decoded += len(samples) / rate
                yield rate, np.ascontiguousarray(samples.T)
        except RuntimeError as error:  # LibsndfileError: what came before it stands
            self.problem = error


def _open(file: BinaryIO, name: str) -> "InputContainer":
    import av  # takes 0.15 s, which commands that decode nothing need not spend

    file.seek(0)
    try:
        return av.open(
            file,
            "r",
            buffer_size=READ_BYTES,
            container_options={
                "format_whitelist": _CONTAINERS,
                "protocol_whitelist": "",
            },
            metadata_errors="surrogateescape",
        )
    except Exception as error:  # as in `Libav._frames`
        raise AudioError(
            "undecodable",
            f"{name}: is not a sound file that can be read ({reason_of(error)}); "
            "if it should be one, copy it again or convert it to FLAC",
        ) from error


def _chosen(
    container: "InputContainer", tracks: list[Any], number: int | None, name: str
) -> "Track":
    """The sound track of that number, or the one that libav chooses for playback."""
    if number is not None and number <= len(tracks):
        track = tracks[number - 1]
        if track.codec_context is None:
            what = f"track {number} is in a format that cannot be decoded"
            raise AudioError("undecodable", f"{name}: {what}")
        return cast("Track", track)
    best = cast("Track | None", container.streams.best("audio"))
    if best is None or best.codec_context is None:
        what = "has no sound track" if container.streams else "holds no sound"
        if tracks:
            what = "has a sound track in a format that cannot be decoded"
        raise AudioError("undecodable", f"{name}: {what}; name a file with sound")
    return best


def _seconds(clock: str) -> float:
    """Matroska's DURATION tag: 00:03:45.120000000."""
    try:
        hours, minutes, seconds = clock.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        return 0.0


def _second_opinion(file: BinaryIO) -> "SoundFile | None":
    """libsndfile's view of a file that libav refuses, if it has one.

    Some Ogg Vorbis files in circulation have headers that only libvorbis takes. Formats that libsndfile
    would hand to mpg123, which complains on standard error, are not tried.
    """
    file.seek(0)
    if file.read(4) not in (b"OggS", b"fLaC", b"RIFF", b"RIFX", b"FORM"):
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
