"""Where a dataset and its files are, on a disk or at a URL, and what can be asked of them there."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from fingerprint.errors import EarmarkError
from fingerprint.pointers import pointer
from service.datasets.limits import Unpacked
from service.datasets.url import Url, shown

Place = Path | Url


class DatasetError(EarmarkError):
    """A dataset that cannot be scanned at all."""


def place(dataset: str) -> Place:
    """Where a dataset of that name is. Raises DatasetError for a URL that nothing here can read."""
    if "://" not in dataset:
        return Path(dataset)
    try:
        url = Url.of(dataset)
        return url.local or url
    except ImportError as error:
        missing = "fsspec, which reads URLs, is not installed" if error.name == "fsspec" else error
        raise DatasetError(f"{shown(dataset)}: cannot be read: {missing}") from None
    except Exception as error:  # whatever the store's client makes of it
        raise DatasetError(f"{shown(dataset)}: is no URL that can be read: {error}") from None


def is_folder(dataset: Place) -> bool:
    """Whether a dataset is a folder. Raises DatasetError if it is nothing at all."""
    try:
        if isinstance(dataset, Url):
            return dataset.is_folder()
        if dataset.exists():
            return dataset.is_dir()
        reason = "no such file or folder"
    except OSError as error:
        reason = str(error.strerror)
    raise DatasetError(f"{dataset}: {reason}; name the dataset to scan")


def bytes_of(path: Place) -> int:
    """Bytes of a file; 0 where they are not known."""
    try:
        return path.bytes() if isinstance(path, Url) else path.stat().st_size
    except OSError:
        return 0


# How packed files begin, whatever they are called.
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_NOT_UNPACKED = {
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"PK\x03\x04": "zip",
    b"Rar!": "RAR",
    b"7z\xbc\xaf": "7z",
}


def require_content(path: Place) -> None:
    """Raises DatasetError for a file that stands for another, which was not fetched."""
    with path.open("rb") as file:
        what = pointer(file.read(256))
    if what is not None:
        raise DatasetError(f"{path}: {what}")


@contextmanager
def unpacked(path: Place) -> Iterator[tuple[Any, bool]]:
    """A file's content, decompressed if it is compressed, and whether it is not.

    An archive may be called otherwise. Raises DatasetError for what is compressed in a way not read here.
    """
    with path.open("rb") as file:
        head = file.read(8)
        file.seek(0)
        if head.startswith(_GZIP):
            with gzip.GzipFile(fileobj=file) as stream:
                yield _Bounded(stream, file), False
        elif head.startswith(_ZSTD):
            import zstandard

            reader = zstandard.ZstdDecompressor(max_window_size=2**31)
            with reader.stream_reader(file, read_across_frames=True) as stream:
                yield _Bounded(stream, file), False
        else:
            if path.name.lower().endswith((".gz", ".zst")) and ".tar." not in path.name.lower():
                raise DatasetError("it is not compressed, as its name says")
            for begins, kind in _NOT_UNPACKED.items():
                if head.startswith(begins):
                    raise DatasetError(f"it is packed as {kind}, which its name does not say")
            yield file, True


class _Bounded:
    """A decompressed stream that says how far its file has been read, and that no bomb gets through."""

    def __init__(self, stream: Any, file: BinaryIO) -> None:
        self._read = stream.read
        self._unpacked = Unpacked()
        self.position = file.tell

    def read(self, size: int) -> bytes:
        """The next bytes. Raises ValueError where they are very much more than what they came from."""
        data: bytes = self._read(size)
        self._unpacked.add(len(data), self.position())
        return data
