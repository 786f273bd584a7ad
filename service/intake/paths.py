"""Which files the paths of a table mean, as people and other machines write them.

A path is looked for relative to each folder, with either slash and in either Unicode form (NFC, NFD). One
that leads nowhere here, as `sftp://host/in/a.wav` and `C:\\in\\a.wav` do, is looked for by its end: the file
that shares most of its last folders and its name.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit


class Paths:
    """Files by the paths that a table has for them."""

    def __init__(self, files: Sequence[Path], folders: Iterable[Path]) -> None:
        """Files, and the folders that relative paths may start from."""
        self._folders = [str(folder.resolve()) for folder in folders]
        self._exact = {str(file.resolve()): file for file in files if self._folders}
        self._composed: dict[str, list[Path]] = {}
        self._named: dict[str, list[Path]] = {}
        for whole, file in self._exact.items():
            self._composed.setdefault(_composed(whole), []).append(file)
        for file in files:
            self._named.setdefault(_folded(file.name), []).append(file)

    def of(self, written: Sequence[str]) -> Iterator[tuple[list[Path], bool]]:
        """The files that each path may mean, and whether that is by its end though it has a folder.

        A bare name may mean several files. A path with a folder means one by its end only if no other path
        here ends in that name.
        """
        spelled = [_slashed(text) for text in written]
        counts: dict[str, int] = {}
        for path in dict.fromkeys(spelled):
            name = _folded(PurePosixPath(path).name)
            counts[name] = counts.get(name, 0) + 1
        for text, path in zip(written, spelled, strict=True):
            yield self._of(text, path, counts)

    def _of(self, text: str, path: str, counts: dict[str, int]) -> tuple[list[Path], bool]:
        if not path or "\0" in text:
            return [], False
        for place in self._folders:
            for each in dict.fromkeys((text, path)):
                whole = str(Path(place, each).resolve())
                if file := self._exact.get(whole):
                    return [file], False
                if found := self._composed.get(_composed(whole)):
                    return found, False
        named = self._named.get(_folded(PurePosixPath(path).name), [])
        same = [
            file for file in named if _composed(file.name) == _composed(PurePosixPath(path).name)
        ]
        if "/" not in path:
            return same or named, False
        ends = [(_shared(path, file), file) for file in same or named]
        most = max((shared for shared, _ in ends), default=0)
        best = [file for shared, file in ends if shared == most]
        if most > 1 or counts[_folded(PurePosixPath(path).name)] == 1:
            return best, True
        return [], False


def _slashed(text: str) -> str:
    """A path with slashes: a Windows path's backslashes turned, a URL's path."""
    if "://" in text:
        parts = urlsplit(text)
        return unquote(parts.path) or parts.netloc
    return text.replace("\\", "/")


def _shared(path: str, file: Path) -> int:
    """How many parts two paths have in common at their ends."""
    ours, theirs = (_folded(text).split("/")[::-1] for text in (path, str(file)))
    pairs = zip(ours, theirs, strict=False)
    return next(
        (at for at, (one, other) in enumerate(pairs) if one != other), min(len(ours), len(theirs))
    )


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _folded(text: str) -> str:
    return _composed(text).casefold()
