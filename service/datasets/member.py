"""A dataset's member: one sound, or what kept it from being one."""

import re
from dataclasses import dataclass, field

from fingerprint.errors import AudioError, AudioErrorType
from service.datasets.labels import Labels
from service.datasets.location import Place
from service.datasets.source import OnDisk, Source
from service.datasets.url import Url
from service.presentation.formatting import as_text

# In names: a byte that is no UTF-8, and a backslash that would look like the spelling of one.
_ODD = re.compile(r"[\udc80-\udcff]|\\(?=x[0-9a-f]{2})")


def spelled(name: str) -> str:
    """A file's name as text, different ones differently: bytes that are no UTF-8 as `\\xfe`.

    A backslash before what looks so is `\\x5c`. Not to be done twice.
    """
    return as_text(_ODD.sub(lambda odd: f"\\x{ord(odd[0]) & 0xFF:02x}", name))


@dataclass(frozen=True)
class Member:
    """One sound of a dataset, or what kept it from being one.

    Attributes
    ----------
    file : path of the file it is in, relative to the dataset, with "/"
    member : its name in that file, if it is in a container
    index : its number in that file; (file, index) is unique and the same in every run
    weight : bytes of the dataset that are behind once it is done with
    source : where its bytes are; None if there is a problem
    labels : what the dataset says it is
    problem : why it cannot be read
    """

    file: str
    member: str | None
    index: int
    weight: int
    source: Source | None
    labels: Labels = field(default_factory=dict)
    problem: AudioError | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return name_of(self.file, self.member)

    @property
    def held(self) -> int:
        """Bytes of memory that it takes."""
        return 0 if self.source is None else self.source.held


def name_of(file: str, member: str | None) -> str:
    """What messages call a sound of that file, and of that name in it."""
    return file if member is None else f"{file}: {member}"


def bad(
    file: str, member: str | None, index: int, weight: int, kind: AudioErrorType, what: str
) -> Member:
    """One that cannot be read: the kind of error, and what is said of it after its name."""
    problem = AudioError(kind, f"{name_of(file, member)}: {what}")
    return Member(file, member, index, weight, None, problem=problem)


def named(
    folder: Place, where: str, name: str, member: str, index: int, weight: int, labels: Labels
) -> Member:
    """A file that a table names: one in the table's folder or below."""
    path = folder / where
    if not _is_below(path, folder):
        what = "lies outside the list's folder, and is not opened; put the list into a folder above"
        return bad(name, member, index, weight, "not-found", what)
    return Member(name, member, index, weight, OnDisk(path), labels)


def _is_below(path: Place, folder: Place) -> bool:
    """Whether a path, its dots and links followed, stays in a folder."""
    if isinstance(path, Url) or isinstance(folder, Url):
        return isinstance(path, Url) and isinstance(folder, Url) and path.is_below(folder)
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a NUL, a loop of links
        return False
