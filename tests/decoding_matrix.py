"""The decoding matrix: containers, codecs, bits, channels and damage, and what is heard of each.

    python tests/decoding_matrix.py        prints every cell and its outcome

A cell is a short piece of music, encoded by libav or written byte by byte, whole, cut off, or with a hole of
zeros. Right is: the sound is found, whole, and nothing is said; or the part that is there is found, and one
line says how much was not heard; or the file is refused.
"""

import io
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from fingerprint.audio import SAMPLE_RATE, open_audio
from fingerprint.errors import AudioError

SECONDS = 4.0
RATE = 44100
LIKE = 0.75  # correlation with the music from which on a sound is it
Signal = NDArray[np.float32]


@cache
def music(seed: int = 0, rate: int = RATE) -> Signal:
    """SECONDS of noise that swells and fades, between 200 and 3000 Hz, the same at any rate [shape=(n,)]."""
    n = round(SECONDS * rate)
    parts = np.random.default_rng(seed).standard_normal((round(3000 * SECONDS), 2)) @ (1, 1j)
    frequency = np.arange(len(parts)) / SECONDS
    parts *= (frequency > 200) / np.sqrt(np.maximum(frequency, 200))
    spectrum = np.zeros(n // 2 + 1, np.complex128)
    spectrum[: len(parts)] = parts
    signal = np.fft.irfft(spectrum, n) * (0.6 + 0.4 * np.sin(2 * np.pi * np.arange(n) / rate))
    return (0.3 * signal / np.abs(signal).max()).astype(np.float32)


class Kind(NamedTuple):
    """A container and a codec.

    states : whether a file of this kind states a length or an end, so that a cut is known
    pcm : whether zeros are silence in it
    """

    container: str
    codec: str
    layout: str = "stereo"
    rate: int = RATE
    options: tuple[tuple[str, str], ...] = ()
    states: bool = True
    pcm: bool = False

    @property
    def name(self) -> str:
        options = "".join(f" {key}={value}" for key, value in self.options)
        return f"{self.container} {self.codec} {self.layout}{options}"


_MOOV = (("movflags", "faststart"),)
_FRAGMENTS = (("movflags", "empty_moov+default_base_moof"), ("frag_duration", "500000"))
KINDS = [
    *(Kind("wav", codec, pcm=True) for codec in ("pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le")),
    *(
        Kind("wav", codec, pcm=True)
        for codec in ("pcm_f32le", "pcm_f64le", "pcm_mulaw", "pcm_alaw")
    ),
    *(Kind("wav", "pcm_s16le", layout, pcm=True) for layout in ("mono", "5.1", "7.1")),
    Kind("wav", "pcm_s16le", options=(("rf64", "always"),), pcm=True),
    Kind("w64", "pcm_s16le", pcm=True),
    *(Kind("aiff", codec, pcm=True) for codec in ("pcm_s16be", "pcm_s24be")),
    Kind("au", "pcm_s16be", pcm=True),
    *(Kind("caf", codec, pcm=True) for codec in ("pcm_s16be", "pcm_s24le")),
    *(Kind("flac", "flac", layout) for layout in ("mono", "stereo", "5.1")),
    *(Kind("ogg", "vorbis", layout) for layout in ("mono", "stereo", "5.1")),
    *(Kind("ogg", "libopus", layout, 48000) for layout in ("mono", "stereo", "5.1")),
    Kind("ogg", "flac"),
    *(Kind("mp4", "aac", layout, options=_MOOV) for layout in ("mono", "stereo", "5.1")),
    Kind("mp4", "alac", options=_MOOV),
    Kind("mp4", "ac3", rate=48000, options=_MOOV),
    Kind("mp4", "flac", options=_MOOV),
    Kind("mp4", "aac", options=_FRAGMENTS),
    Kind("mov", "pcm_s24le", options=_MOOV, pcm=True),
    *(Kind("mp3", "libmp3lame", layout) for layout in ("mono", "stereo")),
    Kind("mp3", "libmp3lame", options=(("write_xing", "0"),), states=False),
    Kind("mp2", "mp2", states=False),
    Kind("adts", "aac", states=False),
    Kind("ac3", "ac3", rate=48000, states=False),
    Kind("eac3", "eac3", rate=48000, states=False),
    Kind("asf", "wmav2"),
    *(Kind("matroska", codec) for codec in ("vorbis", "aac", "flac", "libmp3lame")),
    *(Kind("matroska", codec, rate=48000) for codec in ("libopus", "ac3")),
    Kind("matroska", "pcm_s16le", pcm=True),
    *(Kind("webm", codec, rate=48000) for codec in ("vorbis", "libopus")),
    *(Kind("mpegts", codec, states=False) for codec in ("aac", "mp2")),
    Kind("mpegts", "ac3", rate=48000, states=False),
    Kind("mpeg", "mp2", states=False),
    Kind("avi", "libmp3lame"),
    Kind("avi", "pcm_s16le", pcm=True),
    *(Kind("flv", codec) for codec in ("aac", "libmp3lame")),
    Kind("wv", "wavpack"),
    Kind("tta", "tta"),
]


@cache
def encoded(kind: Kind, *seeds: int) -> bytes:
    """A file of that kind, with a sound track for each seed."""
    file = io.BytesIO()
    if (kind.container, kind.codec, len(seeds) > 1) == ("ogg", "vorbis", False):
        channels = av.AudioLayout(kind.layout).nb_channels
        sound = np.repeat(music(*seeds or (0,), kind.rate)[:, None], channels, axis=1)
        soundfile.write(file, sound, kind.rate, "VORBIS", format="OGG")
        return file.getvalue()
    with (
        tempfile.NamedTemporaryFile(suffix=".sound") as named,  # MP4 is read again to be rearranged
        av.open(named.name, "w", format=kind.container, options=dict(kind.options)) as container,
    ):
        tracks: list[Any] = []
        for _ in seeds or (0,):
            tracks.append(
                container.add_stream(
                    kind.codec,
                    rate=kind.rate,
                    layout=kind.layout,
                    options={"strict": "experimental"},
                )
            )
            tracks[-1].bit_rate = 128_000
        for track, seed in zip(tracks, seeds or (0,), strict=True):
            channels = track.codec_context.layout.nb_channels
            signal = np.repeat(music(seed, kind.rate)[:, None], channels, axis=1)
            frame = av.AudioFrame.from_ndarray(signal.reshape(1, -1), "flt", kind.layout)
            frame.sample_rate, frame.time_base, frame.pts = kind.rate, Fraction(1, kind.rate), 0
            container.mux(track.encode(frame))
            container.mux(track.encode(None))
        container.close()
        return Path(named.name).read_bytes()


def cut_off(data: bytes) -> bytes:
    """As a transfer that broke off leaves it."""
    return data[: int(0.6 * len(data))]


def with_hole(data: bytes) -> bytes:
    """As a disk or a torrent leaves it: a quarter is zeros."""
    first, last = int(0.45 * len(data)), int(0.7 * len(data))
    return data[:first] + bytes(last - first) + data[last:]


def damaged(damage: Callable[[bytes], bytes], kind: Kind) -> bytes:
    """A damaged file of that kind."""
    return damage(encoded(kind))


@dataclass(frozen=True)
class Cell:
    """A file, and what is right.

    tracks : seeds of the pieces that are in each sound track, one after the other
    whole : whether all of it is there
    told : whether what is missing has to be told of
    noted : whether something may be said of it though it is whole
    """

    name: str
    data: Callable[[], bytes]
    tracks: tuple[tuple[int, ...], ...] = ((0,),)
    whole: bool = True
    told: bool = True
    noted: bool = False


class Heard(NamedTuple):
    """What is heard of a sound track: how like the music it is, seconds, what is said."""

    likeness: float
    seconds: float
    undecoded: float
    damage: str | None
    notes: list[str]


def hear(cell: Cell) -> list[Heard] | AudioError:
    """All sound tracks of a cell's file, or why there are none."""
    try:
        return list(_tracks(cell))
    except AudioError as error:
        return error


def _tracks(cell: Cell) -> Iterator[Heard]:
    data = cell.data()
    with open_audio(io.BytesIO(data), name=cell.name) as stream:
        count = stream.tracks
    for number in range(1, count + 1):
        with open_audio(io.BytesIO(data), name=cell.name, track=number) as stream:
            sound = np.concatenate([np.empty(0, np.float32), *stream.blocks()])
        seeds = cell.tracks[min(number, len(cell.tracks)) - 1]
        of = min(likeness(sound, seed, at) for at, seed in enumerate(seeds))
        seconds = len(sound) / SAMPLE_RATE
        yield Heard(of, seconds, stream.undecoded, stream.damage, stream.notes)


def likeness(sound: Signal, seed: int, at: int) -> float:
    """The highest correlation of part of a sound with a piece that is the at-th in it."""
    piece = music(seed, SAMPLE_RATE)
    first = round(at * SECONDS * SAMPLE_RATE)
    part = sound[first : first + round(SECONDS * SAMPLE_RATE)]
    part = part[round(0.2 * SAMPLE_RATE) : round(0.95 * SAMPLE_RATE)]  # behind encoders' delay
    if not len(part) or not part.any():
        return 0.0
    n = 1 << (len(piece) + len(part)).bit_length()
    found = np.fft.irfft(np.fft.rfft(piece, n) * np.conj(np.fft.rfft(part, n)), n)
    best = int(np.argmax(np.abs(found[: len(piece)])))
    same = piece[best : best + len(part)]
    return float(np.abs(found[best]) / (np.linalg.norm(same) * np.linalg.norm(part) + 1e-9))


# WAV, written byte by byte: what libav's encoders never write.

_PCM_GUID = bytes.fromhex("0100000000001000800000aa00389b71")


def _samples(seed: int = 0) -> NDArray[np.int64]:
    return np.round(32767 * music(seed)).astype(np.int64)


def _bytes(values: NDArray[np.int64], width: int, order: str = "<") -> bytes:
    columns = values.astype("<i8").reshape(-1, 1).view(np.uint8).reshape(-1, 8)[:, :width]
    return (columns if order == "<" else columns[:, ::-1]).tobytes()


def _chunk(kind: bytes, data: bytes, order: str = "<") -> bytes:
    return kind + struct.pack(f"{order}I", len(data)) + data + b"\0" * (len(data) % 2)


def wide(valid: int, container: int, *, extensible: bool, left: bool) -> bytes:
    """WAV of samples that are narrower than their containers, at the upper or lower end of these."""
    samples = _samples() << 16 >> (32 - valid)
    width = container // 8
    values = samples << (container - valid) if left else samples
    form = struct.pack(
        "<HHIIHH",
        0xFFFE if extensible else 1,
        1,
        RATE,
        RATE * width,
        width,
        container if extensible else valid,
    )
    if extensible:
        form += struct.pack("<HHI", 22, valid, 4) + _PCM_GUID
    body = b"WAVE" + _chunk(b"fmt ", form) + _chunk(b"data", _bytes(values, width))
    return b"RIFF" + struct.pack("<I", len(body)) + body


def rifx(bits: int) -> bytes:
    """WAV in the other order of bytes."""
    width = bits // 8
    data = _bytes(_samples() << (bits - 16), width, ">")
    form = struct.pack(">HHIIHH", 1, 1, RATE, RATE * width, width, bits)
    body = b"WAVE" + _chunk(b"fmt ", form, ">") + _chunk(b"data", data, ">")
    return b"RIFX" + struct.pack(">I", len(body)) + body


def wide_caf() -> bytes:
    """CAF of 24 bits in 4 bytes."""
    data = _bytes(_samples() << 16, 4, ">")
    form = struct.pack(">d4sIIIII", RATE, b"lpcm", 0, 4, 1, 1, 24)
    desc = b"desc" + struct.pack(">q", len(form)) + form
    return b"caff\0\1\0\0" + desc + b"data" + struct.pack(">q", len(data) + 4) + bytes(4) + data


def false_flac(samples: int) -> bytes:
    """FLAC that states so many samples."""
    data = bytearray(encoded(Kind("flac", "flac")))
    data[21] = data[21] & 0xF0 | samples >> 32
    data[22:26] = (samples & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(data)


def false_wav(size: int) -> bytes:
    """WAV that states so many bytes."""
    data = bytearray(encoded(Kind("wav", "pcm_s16le")))
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", size)
    return bytes(data)


def false_aiff(size: int) -> bytes:
    """AIFF that states so many bytes."""
    data = bytearray(encoded(Kind("aiff", "pcm_s16be")))
    common, sound = data.index(b"COMM"), data.index(b"SSND")
    data[common + 10 : common + 14] = struct.pack(">I", size // 4)
    data[sound + 4 : sound + 8] = struct.pack(">I", size + 8)
    return bytes(data)


def joined(*parts: tuple[Kind, int]) -> bytes:
    """Files one after the other."""
    return b"".join(encoded(kind, seed) for kind, seed in parts)


def _cells() -> Iterator[Cell]:
    for kind in KINDS:
        cut, hole = f"{kind.name}, cut off", f"{kind.name}, with a hole"
        yield Cell(kind.name, partial(encoded, kind))
        yield Cell(cut, partial(damaged, cut_off, kind), whole=False, told=kind.states)
        yield Cell(hole, partial(damaged, with_hole, kind), whole=False, told=not kind.pcm)
    for valid, container in ((8, 16), (16, 24), (12, 32), (16, 32), (20, 32), (24, 32), (20, 24)):
        for extensible, left in product((True, False), repeat=2):
            end = "upper" if left else "lower"
            what = f"wav {valid} bits at the {end} end of {container}{', extensible' * extensible}"
            yield Cell(what, partial(wide, valid, container, extensible=extensible, left=left))
    for bits in (16, 24, 32):
        yield Cell(f"rifx {bits} bits", partial(rifx, bits))
    yield Cell("caf 24 bits in 4 bytes", wide_caf)
    vorbis, opus = Kind("ogg", "vorbis"), Kind("ogg", "libopus", rate=48000)
    for name, first, second in (
        ("vorbis, vorbis of another rate", vorbis, Kind("ogg", "vorbis", "mono", 22050)),
        ("opus, vorbis", opus, vorbis),
        ("vorbis, flac", vorbis, Kind("ogg", "flac", "mono")),
        ("flac, opus", Kind("ogg", "flac", "mono"), opus),
        ("opus, opus mono", opus, Kind("ogg", "libopus", "mono", 48000)),
    ):
        yield Cell(f"ogg chained: {name}", partial(joined, (first, 0), (second, 1)), ((0, 1),))
    for first, second in (
        (Kind("wav", "pcm_s16le"), Kind("wav", "pcm_s24le", "mono", 48000)),
        (Kind("aiff", "pcm_s16be"), Kind("aiff", "pcm_s16be", "mono")),
        (Kind("mp3", "libmp3lame"), Kind("mp3", "libmp3lame", "mono", 22050)),
        (Kind("flac", "flac"), Kind("flac", "flac")),
    ):
        make = partial(joined, (first, 0), (second, 1))
        # a note may be on the tag between two
        noted = first.container == "mp3"
        yield Cell(f"{first.container} joined", make, ((0, 1),), noted=noted)
    for kind in (
        Kind("mp4", "aac", options=_MOOV),
        Kind("mov", "alac", options=_MOOV),
        Kind("matroska", "libopus", rate=48000),
        Kind("matroska", "flac"),
        Kind("mpegts", "aac"),
        Kind("mpegts", "mp2"),
        Kind("ogg", "flac"),
        Kind("mpeg", "mp2"),
        Kind("avi", "libmp3lame"),
        Kind("asf", "wmav2"),
    ):
        yield Cell(f"{kind.name}, two tracks", partial(encoded, kind, 0, 1), ((0,), (1,)))
    for count in (2**36 - 1, 2**32 - 1, 2**31 - 1):
        yield Cell(f"flac that states {count} samples", partial(false_flac, count), noted=True)
    for size in (0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000, 0xFFFFFFDB):
        yield Cell(f"wav that states {size} bytes", partial(false_wav, size), noted=True)
    for size in (0x7F000000, 0x7FFFFFF4, 0xFFFFFFF0):
        yield Cell(f"aiff that states {size} bytes", partial(false_aiff, size), noted=True)


CELLS = list(_cells())


def faults(cell: Cell) -> list[str]:
    """What is wrong with what is heard of a cell; nothing, where all is right."""
    heard = hear(cell)
    if isinstance(heard, AudioError):
        return [f"refused: {heard.detail}"] if cell.whole else []
    found = []
    for number, (track, seeds) in enumerate(zip(heard, cell.tracks, strict=True), start=1):
        seconds = SECONDS * len(seeds)
        said = track.damage is not None
        if track.likeness < LIKE:
            found.append(f"track {number} is not the music ({track.likeness:.2f})")
        if cell.whole and abs(track.seconds - seconds) > 0.2:
            found.append(f"track {number}: {track.seconds:.2f} s of {seconds:.2f} s")
        if cell.whole and (said or track.undecoded or (track.notes and not cell.noted)):
            found.append(f"track {number}: said of what is whole: {track.damage}, {track.notes}")
        if cell.told and not cell.whole and not (said and track.undecoded > 0):
            found.append(f"track {number}: {track.seconds:.2f} s, and not a word of the rest")
    return found


def main() -> None:
    """Print every cell and its outcome."""
    wrong = 0
    for cell in CELLS:
        heard = hear(cell)
        of = faults(cell)
        wrong += bool(of)
        if isinstance(heard, AudioError):
            said = f"refused: {heard.detail.removeprefix(cell.name)[2:80]}"
        else:
            said = "; ".join(
                f"{it.seconds:.2f} s, likeness {it.likeness:.2f}, {it.damage or it.notes or 'whole'}"
                for it in heard
            )
        print(f"{'WRONG' if of else 'ok   '} {cell.name:60s} {said} {of or ''}")
    print(f"{len(CELLS)} cells, {wrong} wrong")


if __name__ == "__main__":
    main()
