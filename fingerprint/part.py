"""Sound files within a file: the links of a chained Ogg file, WAV or AIFF files joined end to end.

libav decodes the first of them and leaves the others out, or stops where their channels, rate or codec
change. So each is opened as a file of its own.
"""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

_OGG_HEADER = 27  # bytes of an Ogg page before its table of segments (RFC 3533, section 6)
_OGG_FIRST, _OGG_LAST = 2, 4  # flags of a logical stream's first page, and of its last
_READ_BYTES = 1 << 20
_MOST_PARTS = 10_000  # more are not files that were joined


class Part(io.RawIOBase):
    """Bytes `offset` to `offset + size` of a file as a file, with other bytes in some places."""

    def __init__(
        self, file: BinaryIO, offset: int, size: int, patches: Mapping[int, bytes] | None = None
    ) -> None:
        self._file = file
        self._offset = offset
        self._size = size
        self._patches = patches or {}
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._offset + self._at)
        data = bytearray(self._file.read(max(0, min(len(buffer), self._size - self._at))) or b"")
        for at, patch in self._patches.items():
            for index, byte in enumerate(patch, at - self._at):
                if 0 <= index < len(data):
                    data[index] = byte
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"a negative place in a file: {start + offset}")
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at


@dataclass(frozen=True)
class Layout:
    """What a file consists of.

    Attributes
    ----------
    parts : offset and bytes of each sound file in it
    torn : bytes that are missing of the page that an Ogg file ends in
    open_end : whether an Ogg file has no page that is marked as its last
    """

    parts: tuple[tuple[int, int], ...]
    torn: int = 0
    open_end: bool = False


def layout(file: BinaryIO) -> Layout:
    """The sound files within a file; one, unless they were chained or joined."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(12)
    if head[:4] == b"OggS":
        return _ogg(file, size)
    if head[:4] in (b"RIFF", b"FORM") and head[8:] in _JOINED:
        return _joined(file, size)
    return Layout(((0, size),))


_JOINED = (b"WAVE", b"AIFF", b"AIFC")


def _joined(file: BinaryIO, size: int) -> Layout:
    """WAV or AIFF files, each of which says where it ends."""
    starts = [0]
    at = 0
    while len(starts) < _MOST_PARTS:
        file.seek(at + 4)
        stated = int.from_bytes(file.read(4), "big" if _magic(file, at) == b"FORM" else "little")
        at += 8 + stated + stated % 2
        if at + 12 > size or _magic(file, at) not in (b"RIFF", b"FORM"):
            break
        file.seek(at + 8)
        if file.read(4) not in _JOINED:
            break
        starts.append(at)
    return Layout(_spans(starts, size))


def _magic(file: BinaryIO, at: int) -> bytes:
    file.seek(at)
    return file.read(4)


def _ogg(file: BinaryIO, size: int) -> Layout:
    """The links of an Ogg file, from page to page: one begins with first pages after other ones."""
    starts = [0]
    at, base, data = 0, 0, b""
    begun = ended = False
    torn = 0
    while at + _OGG_HEADER <= size:
        if at < base or at + _OGG_HEADER + 255 > base + len(data):
            file.seek(at)
            base, data = at, file.read(_READ_BYTES)
        here = at - base
        if data[here : here + 5] != b"OggS\0":  # a hole: the next page is sought
            found = data.find(b"OggS\0", here + 1)
            at = base + found if found >= 0 else max(at + 1, base + len(data) - 4)
            continue
        flags, segments = data[here + 5], data[here + 26]
        table = here + _OGG_HEADER
        length = _OGG_HEADER + segments + sum(data[table : table + segments])
        if not flags & _OGG_FIRST:
            begun = True
        elif begun and len(starts) < _MOST_PARTS:
            starts.append(at)
            begun = ended = False
        ended = ended or bool(flags & _OGG_LAST)
        at += length
        torn = max(0, at - size)
    return Layout(_spans(starts, size), torn, not ended)


def _spans(starts: list[int], size: int) -> tuple[tuple[int, int], ...]:
    ends = [*starts[1:], size]
    return tuple((start, end - start) for start, end in zip(starts, ends, strict=True))


def as_file(part: Part) -> BinaryIO:
    """A part, buffered."""
    return cast(BinaryIO, io.BufferedReader(part, _READ_BYTES))
