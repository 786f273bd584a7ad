"""Members of archives: zip and tar files, read as they lie there and never unpacked to disk."""

import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Self, cast

from service.datasets import location
from service.datasets.extensions import is_closed, is_container, is_sound
from service.datasets.labels import Labels, labels_of
from service.datasets.limits import MOST_IN_MEMORY, is_bomb
from service.datasets.location import Place, bytes_of
from service.datasets.member import Member, bad, spelled
from service.datasets.source import InMemory, Slice, Zipped, zip_at
from service.presentation.formatting import as_text

_MOST_SIDECAR = 2**20  # bytes of JSON beside a sound
_MOST_HEADER = 2**20  # bytes of a tar file's names and other attributes of one member
_DRAINED = 1000  # members after which a tar file's list of them is emptied


def zip_members(path: Place, name: str) -> Iterator[Member]:
    """Members of a zip file. Raises what zipfile makes of damage."""
    found = zip_at(path).infolist()
    # members may share their bytes, so that the sum of theirs is more than the archive has
    packed = bytes_of(path) or sum(info.compress_size for info in found)
    unpacked = 0
    for number, info in enumerate(found):
        weight, member = info.compress_size, as_text(info.filename)
        if info.is_dir():
            continue
        if is_container(info.filename) or is_closed(info.filename):
            yield _nested(name, member, number, weight)
        elif is_sound(info.filename):
            if info.flag_bits & 1:
                what = "is encrypted; unpack the archive with its password"
                yield bad(name, member, number, weight, "undecodable", what)
            elif is_bomb(info.file_size, info.compress_size):
                what = f"unpacks to {info.file_size / 2**20:,.0f} MiB of almost nothing"
                yield bad(name, member, number, weight, "too-large", what)
            elif is_bomb(unpacked + info.file_size, packed):
                what = "unpacks, with those before it, to far more than the archive can hold"
                yield bad(name, member, number, weight, "too-large", what)
            else:
                unpacked += info.file_size
                yield Member(name, member, number, weight, Zipped(path, number))


def tar_members(path: Place, name: str) -> Iterator[Member]:
    """Members of a tar file; sounds wait for the JSON that may follow under the same name.

    Raises what tarfile and the decompressors make of damage, after the members that come before it.
    """
    waiting: list[Member] = []
    labels: dict[str, Labels] = {}
    stem = None
    try:
        for member in _tar_parts(path, name, labels):
            here = _stem(member.member or "")
            if here != stem:
                yield from _labelled(waiting, labels.pop(stem or "", {}))
                waiting, stem = [], here
                for gone in [each for each in labels if each != here]:
                    del labels[gone]
            if member.source is not None or member.problem is not None:
                waiting.append(member)
    except Exception:  # damage costs what comes after it, not what waits
        yield from _labelled(waiting, labels.get(stem or "", {}))
        raise
    yield from _labelled(waiting, labels.get(stem or "", {}))


def _labelled(waiting: Iterable[Member], labels: Labels) -> Iterator[Member]:
    for member in waiting:
        yield replace(member, labels=labels)


def _stem(name: str) -> str:
    """What the parts of one WebDataset sample share: the path up to the first dot of its last part."""
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.partition('.')[0]}"


class _TarInfo(tarfile.TarInfo):
    """A header whose names fit in memory, however long it says they are, and which is whole.

    tarfile takes a damaged one for the end of the archive.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str | None, errors: str) -> Self:
        try:
            return super().frombuf(buf, cast(str, encoding), errors)
        except tarfile.HeaderError as error:
            if not buf.strip(b"\0"):  # the end
                raise
            raise tarfile.ReadError(f"a member's header: {error}") from error

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _IN_MEMORY and self.size > _MOST_HEADER:
            raise tarfile.ReadError(f"a header of {self.size / 2**20:,.0f} MiB")
        return cast(tarfile.TarInfo, cast(Any, super())._proc_member(archive))


# Headers that tarfile reads whole.
_IN_MEMORY = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


def _tar_parts(path: Place, name: str, labels: dict[str, Labels]) -> Iterator[Member]:
    """Sounds, problems and sidecars of a tar file; a sidecar has neither source nor problem."""
    seen = 0
    with (
        location.unpacked(path) as (stream, sliceable),
        tarfile.open(fileobj=stream, mode="r:" if sliceable else "r|", tarinfo=_TarInfo) as archive,
    ):
        for number, info in enumerate(archive):
            before, seen = seen, (info.offset_data if sliceable else stream.position())
            weight = info.size if sliceable else max(0, seen - before)
            if number % _DRAINED == 0:
                cast(Any, archive).members = []  # tarfile keeps all it has seen
            member = spelled(info.name)
            if (info.islnk() or info.issym()) and is_sound(info.name):
                what = (
                    f"is a link to {spelled(info.linkname)}, and heard where that is, if it is here"
                )
                yield bad(name, member, number, weight, "not-found", what)
            if not info.isreg():
                continue
            if is_container(info.name) or is_closed(info.name):
                yield _nested(name, member, number, weight)
            elif is_sound(info.name):
                if info.issparse():
                    what = "is stored with holes in it, which are not filled; unpack it"
                    yield bad(name, member, number, weight, "undecodable", what)
                elif info.size > MOST_IN_MEMORY and not sliceable:
                    what = (
                        f"has {info.size / 2**20:,.0f} MiB, more than is read of a compressed "
                        "archive's member; unpack it"
                    )
                    yield bad(name, member, number, weight, "too-large", what)
                elif sliceable:
                    source = Slice(path, info.offset_data, info.size)
                    yield Member(name, member, number, weight, source)
                else:
                    data = _data(archive, info)
                    yield Member(name, member, number, weight, InMemory(data))
            elif info.name.lower().endswith(".json") and info.size <= _MOST_SIDECAR:
                labels[_stem(member)] = _sidecar(_data(archive, info))
                yield Member(name, member, number, weight, None)


def _data(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(info)
    assert file is not None  # of a regular member
    return file.read()


def _sidecar(data: bytes) -> Labels:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return labels_of(fields) if isinstance(fields, dict) else {}


def _nested(file: str, member: str, index: int, weight: int) -> Member:
    what = "is an archive in an archive, which is not looked into; unpack the outer one"
    return bad(file, member, index, weight, "undecodable", what)
