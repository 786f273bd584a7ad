"""Members of manifests: JSON Lines and CSV whose rows name files, playlists and lists of paths."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from fingerprint.errors import reason_of
from service.datasets.extensions import is_list
from service.datasets.labels import labels_of, path_of
from service.datasets.limits import ROW, Unpacked
from service.datasets.location import DatasetError, Place, bytes_of, require_content, unpacked
from service.datasets.member import Member, bad, named
from service.presentation.formatting import as_text

_MOST_LINE = 2**20  # characters of a manifest's line


def manifest_members(path: Place) -> Iterator[Member]:
    """What a manifest names, up to where it is damaged. Raises DatasetError if that is its beginning."""
    name, index, seen = as_text(path.name), 0, 0
    require_content(path)
    rows, packed = Unpacked(), bytes_of(path)
    try:
        with unpacked(path) as (stream, plain):
            position = stream.tell if plain else stream.position
            raw = cast(Any, _Raw(stream))
            lines = _lines(io.TextIOWrapper(raw, "utf-8-sig", errors="replace", newline=""))
            for fields in _rows(path, lines):
                rows.add(ROW, packed)
                before, seen = seen, position()
                yield _of_line(path, name, index, max(0, seen - before), fields)
                index += 1
    except Exception as error:  # what the reader makes of damage
        if not index:
            raise DatasetError(f"{path}: cannot be read ({reason_of(error)})") from error
        what = f"is damaged ({reason_of(error)}); what comes after {index} rows is not looked at"
        yield bad(name, None, index, max(0, bytes_of(path) - seen), "undecodable", what)


def _of_line(path: Place, name: str, index: int, weight: int, fields: Mapping[str, Any]) -> Member:
    where = path_of(fields)
    if where is None:
        what = "names no file; a row has a path in `file`, `path` or `audio`"
        return bad(name, f"row {index}", index, weight, "not-found", what)
    member = f"row {index}: {as_text(where)}"
    return named(path.parent, where, name, member, index, weight, labels_of(fields))


def _rows(path: Place, lines: Iterator[str]) -> Iterator[Mapping[str, Any]]:
    kind = path.name.lower().removesuffix(".gz").removesuffix(".zst").rpartition(".")[2]
    if kind in ("csv", "tsv"):
        csv.field_size_limit(_MOST_LINE)
        yield from csv.DictReader(lines, delimiter="\t" if kind == "tsv" else ",")
        return
    for line in lines:
        if not line.strip():
            continue
        if is_list(path.name):
            if not line.startswith("#"):  # comments and playlists' directives
                yield {"path": _listed(line.rstrip("\r\n"))}
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            fields = None
        yield fields if isinstance(fields, dict) else {}


def _listed(line: str) -> str:
    """A path as lists have it: as a URL of this machine, or with the other kind of slashes."""
    line = line.strip()
    if line.lower().startswith("file://"):
        return unquote(urlsplit(line).path)
    return line.replace("\\", "/") if "/" not in line else line


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(_MOST_LINE + 1):
        if len(line) > _MOST_LINE:
            raise ValueError(f"a line of more than {_MOST_LINE} characters")
        yield line


class _Raw(io.RawIOBase):
    """A stream that has only `read`, as a raw file."""

    def __init__(self, stream: Any) -> None:
        self._read = stream.read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
