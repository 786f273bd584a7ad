"""Where a sound's bytes are: in a file, in a part of one, or in memory.

Nothing is unpacked to disk: whoever decodes a sound opens the place in a file that it is, or is given the
bytes that were read of a compressed archive or a table. What decodes has no network: of a dataset at a URL
it is given bytes, too (`at_hand`).
"""

import hashlib
import io
import os
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from fingerprint.errors import AudioError, reason_of
from service.datasets.limits import MOST_IN_MEMORY
from service.datasets.location import Place
from service.datasets.url import Unreachable, Url
from service.presentation.formatting import as_text

if TYPE_CHECKING:
    from fingerprint.audio import Limits

_READ_BYTES = 1 << 20


class _InPlace:
    """What is read where it is."""

    @property
    def held(self) -> int:
        """Bytes of memory that it takes by itself."""
        return 0


@dataclass(frozen=True)
class OnDisk(_InPlace):
    """A whole file."""

    path: Place

    @property
    def size(self) -> int:
        """Bytes of it. Raises OSError."""
        return self.path.bytes() if isinstance(self.path, Url) else self.path.stat().st_size

    def open(self) -> BinaryIO:
        """The file; what is no regular file (a device, a pipe) is refused."""
        from fingerprint.audio import open_file

        if isinstance(self.path, Url):
            return self.path.open("rb")
        return open_file(self.path, as_text(self.path))


@dataclass(frozen=True)
class Slice(_InPlace):
    """Bytes offset to offset + size of a file: a member of a tar file that is not compressed."""

    path: Place
    offset: int
    size: int

    def open(self) -> BinaryIO:
        """The slice as a seekable file."""
        return cast(BinaryIO, io.BufferedReader(_SliceOf(self)))


@dataclass(frozen=True)
class Zipped(_InPlace):
    """The member of that number in a zip file's directory."""

    path: Place
    number: int

    @property
    def size(self) -> int:
        """Bytes of it, as the directory has it."""
        return zip_at(self.path).infolist()[self.number].file_size

    def open(self) -> BinaryIO:
        """The member as a seekable file: decompressed in memory if it is small, else as it is read."""
        archive = zip_at(self.path)
        member = archive.infolist()[self.number]
        stream = archive.open(member)
        if member.compress_type == zipfile.ZIP_STORED or member.file_size > MOST_IN_MEMORY:
            return cast(BinaryIO, stream)
        with stream:
            return io.BytesIO(stream.read(MOST_IN_MEMORY + 1))


@dataclass(frozen=True)
class InMemory:
    """Bytes that were read in passing."""

    data: bytes

    @property
    def size(self) -> int:
        """Bytes of it."""
        return len(self.data)

    held = size

    def open(self) -> BinaryIO:
        """The bytes as a file."""
        return io.BytesIO(self.data)


@dataclass(frozen=True)
class Lost:
    """What could not be had."""

    why: AudioError
    size: int = 0
    held: int = 0

    def open(self) -> BinaryIO:
        """Raises why."""
        raise self.why


Source = OnDisk | Slice | Zipped | InMemory | Lost


def at_hand(given: object) -> object:
    """What a process without a network can open: of a source at a URL its bytes; all else as it is given."""
    if not isinstance(given, OnDisk | Slice | Zipped) or not isinstance(given.path, Url):
        return given
    try:
        with given.open() as file:
            data = file.read(MOST_IN_MEMORY + 1)
    except Exception as error:  # whatever the store's client or an archive's reader makes of it
        kind = error.type if isinstance(error, Unreachable) else "undecodable"
        return Lost(AudioError(kind, f"{given.path}: cannot be read ({reason_of(error)})"))
    if len(data) > MOST_IN_MEMORY:
        what = f"has more than {MOST_IN_MEMORY / 2**20:,.0f} MiB, the most that is read of a URL"
        return Lost(AudioError("too-large", f"{given.path}: {what}; copy it to a disk"))
    return InMemory(data)


def identify(source: Source, name: str, limits: "Limits") -> tuple[str, int]:
    """SHA-256 and bytes of a sound's content. Raises AudioError where it cannot be read or is too large."""
    digest, size = hashlib.sha256(), 0
    try:
        with source.open() as file:
            if source.size > limits.max_bytes:
                raise limits.too_large(name)
            while data := file.read(_READ_BYTES):
                digest.update(data)
                size += len(data)
                if size > limits.max_bytes:  # it is larger than its directory has it
                    raise limits.too_large(name)
    except AudioError:
        raise
    except Unreachable as error:
        raise AudioError(error.type, f"{name}: cannot be read ({error.strerror})") from error
    except Exception as error:  # what the reader of an archive makes of damage
        raise AudioError("undecodable", f"{name}: is damaged ({reason_of(error)})") from error
    return digest.hexdigest(), size


@lru_cache(maxsize=2)
def zip_at(path: Place) -> zipfile.ZipFile:
    """The zip file there, which stays open for its members. Raises what zipfile makes of damage."""
    return zipfile.ZipFile(path.open("rb") if isinstance(path, Url) else path)


class _SliceOf(io.RawIOBase):
    """A part of a file as a file."""

    def __init__(self, of: Slice) -> None:
        self._file: Any = of.path.open("rb", buffering=0)
        self._of = of
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._of.offset + self._at)
        wanted = max(0, min(len(buffer), self._of.size - self._at))
        count = self._file.readinto(memoryview(buffer)[:wanted]) or 0
        self._at += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._of.size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def close(self) -> None:
        self._file.close()
        super().close()
