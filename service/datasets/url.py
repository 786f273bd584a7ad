"""Files and folders at URLs: what a dataset asks of a path, through fsspec and the clients installed."""

import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, cast
from urllib.parse import quote, unquote

from fingerprint.errors import AudioErrorType

# Bounds of what a web server may list: bytes of one folder's listing, folders below each other, and in all.
_LISTING, _DEEPEST, _FOLDERS = 64 * 2**20, 32, 1_000_000


class _Refused(Exception):
    """What a web server asks for and does not get."""


class Unreachable(OSError):
    """What is at a URL, or should be, and cannot be had; `strerror` and `type` say why."""

    def __init__(self, error: BaseException, url: "Url") -> None:
        missing = isinstance(error, FileNotFoundError)
        while error.__cause__ is not None:  # of what a client says, the cause tells most
            error = error.__cause__
            missing = missing or isinstance(error, FileNotFoundError)
        missing = missing and not isinstance(
            error, _Refused
        )  # which fsspec takes for a missing file
        reason = "no such file or folder" if missing else shown(str(error)) or type(error).__name__
        super().__init__(None, reason, url)
        self.type: AudioErrorType = "not-found" if missing else "undecodable"


@dataclass(frozen=True)
class Url:
    """A file or folder at a URL.

    Attributes
    ----------
    given : the URL that the dataset was named by, of the same store
    path : where in the store it is, as fsspec's client calls it
    size : bytes, where the listing of its folder said so
    """

    given: str
    path: str
    size: int | None = None

    @classmethod
    def of(cls, url: str) -> "Url":
        """Raises ValueError for a protocol that is not known, ImportError where its client is missing."""
        return cls(url, _store(url)[1])

    @property
    def local(self) -> Path | None:
        """The path that it is, if it is one of this machine (file://)."""
        return Path(self.path) if "file" in self._store.protocol else None

    def __str__(self) -> str:
        """Without passwords and signatures."""
        root = _store(self.given)[1].rstrip("/")
        if self.path.startswith(root):
            return shown(self.given.rstrip("/") + self.path.removeprefix(root))
        return shown(f"{self.given.partition('://')[0]}://{self.path}")

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self._read(posixpath.basename(str(self)))

    def within(self, folder: "Url") -> str:
        """Its path from a folder on, as its parts are called."""
        return self._read(posixpath.relpath(self.path, folder.path))

    @property
    def parent(self) -> "Url":
        """The folder it is in."""
        return Url(self.given, posixpath.dirname(self.path))

    def __truediv__(self, name: str) -> "Url":
        written = quote(name) if self._is_web else name
        return Url(self.given, posixpath.join(self.path, written))

    def is_below(self, folder: "Url") -> bool:
        """Whether it stays in a folder, its dots followed."""
        return posixpath.normpath(self.path).startswith(f"{posixpath.normpath(folder.path)}/")

    def open(self, mode: str = "rb", buffering: int = -1) -> BinaryIO:
        """It, for reading. Raises Unreachable."""
        try:
            return cast(BinaryIO, self._store.open(self.path, mode))
        except Exception as error:
            raise Unreachable(error, self) from None

    def is_folder(self) -> bool:
        """Whether it is a folder; on a web server, those are that end in a slash.

        Raises Unreachable, also where there is nothing at all.
        """
        try:
            if self.path.endswith("/"):
                return bool(self._store.ls(self.path) is not None)
            return bool(self._store.info(self.path)["type"] == "directory")
        except Exception as error:
            raise Unreachable(error, self) from None

    def bytes(self) -> int:
        """Its size; 0 where it is not known."""
        if self.size is not None:
            return self.size
        try:
            return self._store.size(self.path) or 0
        except Exception:
            return 0

    def files(self, unreadable: Callable[[OSError], None]) -> Iterator["Url"]:
        """The files below a folder, top down, in order of name, without hidden ones.

        A server can list folders without end: `unreadable` is told where that is not followed.
        """
        yield from self._files(unreadable, 0, count(1))

    def _files(
        self, unreadable: Callable[[OSError], None], depth: int, folders_seen: "count[int]"
    ) -> Iterator["Url"]:
        store = _store(self.given, _LISTING)[0] if self._is_web else self._store
        try:
            if depth > _DEEPEST or next(folders_seen) > _FOLDERS:
                raise _Refused(f"more than {_DEEPEST} folders deep, or {_FOLDERS:,} folders")
            listed = store.ls(self.path, detail=True)
        except Exception as error:
            unreadable(Unreachable(error, self))
            return
        store.invalidate_cache(self.path)  # of millions of files it would be large
        found = sorted((posixpath.basename(it["name"].rstrip("/")), it) for it in listed)
        folders = []
        for name, it in found:
            if name.startswith(".") or it["name"].rstrip("/") == self.path.rstrip("/"):
                continue
            path = posixpath.join(self.path, name)
            if it["type"] == "directory":
                folders.append(Url(self.given, path))
            else:
                yield Url(self.given, path, it.get("size") or 0)
        for folder in folders:
            yield from folder._files(unreadable, depth + 1, folders_seen)

    def _read(self, path: str) -> str:
        """A path as it is meant: on a web server, it is a part of a URL."""
        return unquote(path) if self._is_web else path

    @property
    def _is_web(self) -> bool:
        return "http" in self._store.protocol

    @property
    def _store(self) -> Any:
        return _store(self.given)[0]


def shown(text: str) -> str:
    """A text with URLs in it, without the passwords and signatures in these."""
    text = re.sub(r"://[^/@\s]*@", "://", text)
    return re.sub(r"(https?://[^\s'\"?]*)\?[^\s'\"]*", r"\1", text)


@lru_cache(maxsize=16)
def _store(url: str, most: int | None = None) -> tuple[Any, str]:
    """fsspec's client for a URL, and what it calls what is there.

    most : bytes that an answer of a web server may have
    """
    from fsspec.core import url_to_fs

    is_web = url.startswith(("http://", "https://"))
    options = {"client_kwargs": {"trace_configs": [_bounds(most)]}} if is_web else {}
    store, path = url_to_fs(url, **options)
    return store, str(path)


@lru_cache
def _bounds(most: int | None) -> Any:
    """What aiohttp is given to follow no redirect to another host, and to read no more than that."""
    import aiohttp

    class Read(SimpleNamespace):
        size = 0

    async def redirected(session: Any, read: Any, request: Any) -> None:
        here = request.url
        there = here.join(type(here)(request.response.headers.get("Location", "")))
        upgraded = (here.scheme, there.scheme, there.port) == ("http", "https", 443)
        if there.host != here.host or (there.port != here.port and not upgraded):
            raise _Refused(f"it leads to another server, {there.host}, which is not followed")

    async def received(session: Any, read: Any, chunk: Any) -> None:
        read.size += len(chunk.chunk)
        if most is not None and read.size > most:
            raise _Refused(f"the listing has more than {most / 2**20:,.0f} MiB")

    config = aiohttp.TraceConfig(Read)
    config.on_request_redirect.append(redirected)
    config.on_response_chunk_received.append(received)
    return config
