"""Where a dataset and its files are, on a disk or at a URL, and what can be asked of them there."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from fingerprint.errors import EarmarkError
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


@contextmanager
def unpacked(path: Place) -> Iterator[tuple[Any, bool]]:
    """A file's content, decompressed if its name says that it is compressed, and whether it is not."""
    name = path.name.lower()
    with path.open("rb") as file:
        if name.endswith((".gz", ".tgz")):
            with gzip.GzipFile(fileobj=file) as stream:
                yield _Bounded(stream, file), False
        elif name.endswith((".zst", ".tzst")):
            import zstandard

            reader = zstandard.ZstdDecompressor(max_window_size=2**31)
            with reader.stream_reader(file, read_across_frames=True) as stream:
                yield _Bounded(stream, file), False
        else:
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
