"""What the headers of a sound file state, where libav does not say it or believes too much.

lacking           bytes that a container states and the file does not have
has_length        whether an MP3 file states its length (Xing, Info, VBRI); libav guesses it otherwise
is_placeholder    whether a length is what programs write that do not know it yet
correction        what to read in a PCM header whose container is wider than its samples
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

# Bytes or samples in a header that mean "as yet unknown": 2^31, 2^32 or 2^36, less what a header takes;
# sox writes 0x7F000000. A file that long states more than half of it truly.
_UNKNOWN = (1 << 31, 1 << 32, 1 << 36)
_NEAR = 1 << 16
_SOX = 0x7F000000
# s: no file is so long, whatever its header says (a month)
_IMPOSSIBLE = 31 * 86_400.0

_EXTENSIBLE, _PCM = 0xFFFE, 1  # wFormatTag of WAVEFORMATEX
_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # of the GUIDs of its other chunks
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def is_placeholder(number: int) -> bool:
    """Whether so many bytes or samples are what is written where a length is not known."""
    if _SOX - _NEAR <= number <= _SOX + _NEAR:
        return True
    return any(of - _NEAR <= number <= of + _NEAR for of in _UNKNOWN)


def is_false(seconds: float, rate: int, frame_bytes: int) -> bool:
    """Whether a stated length is none: frame_bytes are those of all channels' samples of one moment."""
    samples = round(seconds * rate)
    return (
        seconds > _IMPOSSIBLE
        or is_placeholder(samples)
        or any(abs(samples * frame_bytes - of) <= _NEAR for of in (_SOX, *_UNKNOWN))
    )


def tag_bytes(file: BinaryIO) -> int:
    """Bytes of the ID3v2 tag that a file begins with; 0 without one."""
    file.seek(0)
    head = file.read(10)
    if len(head) < 10 or head[:3] != b"ID3":
        return 0
    return 10 + sum((byte & 0x7F) << 7 * place for place, byte in enumerate(head[:5:-1]))


def has_length(file: BinaryIO) -> bool:
    """Whether an MP3 file's first frame states how many there are."""
    file.seek(tag_bytes(file))
    frame = file.read(4096)
    return any(tag in frame for tag in (b"Xing", b"Info", b"VBRI"))


def lacking(file: BinaryIO, size: int) -> float:
    """Bytes that a container states and the file does not have, as a share of those that it has.

    Of an MP4 file in fragments also those behind what is no fragment: nobody finds the way past it.
    """
    file.seek(0)
    magic = file.read(16)
    missing = 0
    if magic[:4] in (b"RIFF", b"RIFX", b"FORM"):
        missing = _of_chunks(file, size, "<" if magic[:4] == b"RIFF" else ">", magic[8:12])
    elif magic[:4] == b"RF64":
        missing = _of_rf64(file, size)
    elif magic[:4] == b"caff":
        missing = _of_caf(file, size)
    elif magic == _W64_RIFF:
        file.seek(16)
        missing = _less(int.from_bytes(file.read(8), "little"), size)
    elif magic == _ASF_HEADER:
        missing = _of_asf(file, size)
    elif magic[:4] == b"\x1aE\xdf\xa3":
        missing = _of_matroska(file, size)
    elif magic[4:8] in (b"ftyp", b"styp", b"moov", b"moof"):
        return _of_mp4(file, size)
    return missing / max(size, 1)


def _less(stated: int, size: int) -> int:
    """What a file lacks of a stated number of bytes, if that is one."""
    if stated <= size or is_placeholder(stated) or stated >= 1 << 62:
        return 0
    return stated - size


# The chunk that the sound is in, by the kind of file.
_SOUND = {b"WAVE": b"data", b"AIFF": b"SSND", b"AIFC": b"SSND", b"AVI ": b"LIST"}


def _of_chunks(file: BinaryIO, size: int, order: str, kind: bytes) -> int:
    sound = _SOUND.get(kind)
    return max(
        (
            _less(length, size - at)
            for chunk, at, length in _chunks(file, size, order)
            if chunk == sound
        ),
        default=0,
    )


def _chunks(file: BinaryIO, size: int, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Chunks of a RIFF or FORM file."""
    at = 12
    while at + 8 <= size:
        file.seek(at)
        kind, length = struct.unpack(f"{order}4sI", file.read(8))
        yield kind, at + 8, length
        at += 8 + length + length % 2


def _of_rf64(file: BinaryIO, size: int) -> int:
    file.seek(12)
    kind, _, _, data = struct.unpack("<4sIQQ", file.read(24).ljust(24, b"\0"))
    for chunk, at, length in _chunks(file, size, "<"):
        if chunk == b"data" and kind == b"ds64":
            return _less(data if length == 0xFFFFFFFF else length, size - at)
    return 0


def _of_caf(file: BinaryIO, size: int) -> int:
    at = 8
    while at + 12 <= size:
        file.seek(at)
        kind, length = struct.unpack(">4sq", file.read(12))
        if kind == b"data" or length < 0:
            return _less(length, size - at - 12)
        at += 12 + length
    return 0


def _of_asf(file: BinaryIO, size: int) -> int:
    """From the File Properties object, unless it says that it was broadcast."""
    file.seek(0)
    header = file.read(1 << 16)
    at = header.find(_ASF_FILE)
    if at < 0 or at + 92 > len(header):
        return 0
    (stated,) = struct.unpack_from("<Q", header, at + 40)
    (flags,) = struct.unpack_from("<I", header, at + 88)
    return 0 if flags & 1 else _less(stated, size)


def _of_matroska(file: BinaryIO, size: int) -> int:
    """From the Segment's size (EBML, RFC 8794), if it is known."""
    file.seek(0)
    head = file.read(1024)
    at = 4
    length, width = _ebml(head, at)
    at += width + length
    if head[at : at + 4] != b"\x18\x53\x80\x67":
        return 0
    length, width = _ebml(head, at + 4)
    if not width or length == (1 << 7 * width) - 1:
        return 0
    return _less(at + 4 + width + length, size)


def _ebml(data: bytes, at: int) -> tuple[int, int]:
    """A number of variable length, and its bytes."""
    if at >= len(data) or not data[at]:
        return 0, 0
    width = 9 - data[at].bit_length()
    number = int.from_bytes(data[at : at + width], "big")
    return number & ((1 << 7 * width) - 1), width


def _of_mp4(file: BinaryIO, size: int) -> float:
    """Of fragments; what is not in any is stated by the tables in its header."""
    at, fragments = 0, False
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:], "big")
        if length < 8 or not kind.isascii():
            return (size - at) / max(at, 1) if fragments else 0.0
        fragments = fragments or kind == b"moof"
        at += length
    return _less(at, size) / max(size, 1) if fragments else 0.0


@dataclass(frozen=True)
class Correction:
    """What to read in a header instead of what is there.

    Attributes
    ----------
    patches : bytes by their places
    bits : bits by which samples are narrower than their containers
    """

    patches: dict[int, bytes] = field(default_factory=dict)
    bits: int = 0


def correction(file: BinaryIO) -> Correction:
    """What makes libav read PCM by the width of its containers, not by the valid bits in them.

    Where both differ, samples are at the upper end of their containers by the standard, and at the lower one
    in some files: only what is decoded can tell (`Correction.bits`).
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    magic = file.read(40)
    if magic[:4] in (b"RIFF", b"RF64") and magic[8:12] == b"WAVE":
        for kind, at, length in _chunks(file, size, "<"):
            if kind == b"fmt ":
                return _of_format(file, at, length)
    elif magic[:16] == _W64_RIFF:
        at = 40
        while at + 24 <= size:
            file.seek(at)
            kind, length = struct.unpack("<16sQ", file.read(24))
            if kind == b"fmt " + _W64_TAIL:
                return _of_format(file, at + 24, length - 24)
            at += max(24, length + -length % 8)
    elif magic[:4] == b"caff":
        file.seek(20)
        data = file.read(32)
        if len(data) == 32 and data[8:12] == b"lpcm":
            packet, _, channels, bits = struct.unpack(">IIII", data[16:])
            return _wider(bits, packet, channels, {48: ">I"})
    return Correction()


def _of_format(file: BinaryIO, at: int, length: int) -> Correction:
    """Of a WAVEFORMATEX."""
    file.seek(at)
    data = file.read(min(length, 40))
    if len(data) < 16:
        return Correction()
    tag, channels, _, _, align, bits = struct.unpack("<HHIIHH", data[:16])
    places = {at + 14: "<H"}
    if tag == _EXTENSIBLE and len(data) == 40:
        if int.from_bytes(data[24:26], "little") != _PCM:
            return Correction()
        (valid,) = struct.unpack("<H", data[18:20])
        bits = min(bits, valid) or bits
        places[at + 18] = "<H"
    elif tag != _PCM:
        return Correction()
    return _wider(bits, align, channels, places)


def _wider(bits: int, frame: int, channels: int, places: dict[int, str]) -> Correction:
    """The correction, if a frame of that many bytes has wider containers than samples of so many bits."""
    if not channels or frame % channels or not 1 <= frame // channels <= 4:
        return Correction()
    container = 8 * (frame // channels)
    if bits <= 0 or -(-bits // 8) * 8 >= container:
        return Correction()
    return Correction(
        {at: struct.pack(order, container) for at, order in places.items()}, container - bits
    )
