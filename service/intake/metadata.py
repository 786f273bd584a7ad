"""What is said about the files of an ingest: a CSV's rows, the command line, the files' own tags.

A CSV has a header; `file` is its only required column. A `file` is looked for relative to the CSV's
folder and to each folder given, and, where it is a bare name, by that name alone. What a row leaves
empty is filled by `--rightsholder` and `--rights` and, for the rest, by the tags.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fingerprint.errors import EarmarkError
from index.recording import RIGHTS, Metadata

COLUMNS = (
    "file",
    "id",
    "title",
    "artist",
    "isrc",
    "iswc",
    "work",
    "label",
    "release_date",
    "rightsholder",
    "rights",
    "licence_until",
)
EMPTY = "-"  # a cell of this alone empties a field, where metadata is changed
_FROM_TAGS = ("title", "artist", "isrc", "label", "release_date")


class MetadataError(EarmarkError):
    """A metadata file, or one row of it, that cannot be used."""


@dataclass(frozen=True)
class Row:
    """One row: its number as a spreadsheet shows it, its known fields, what is wrong with it.

    `seconds` is how long the recording is said to last.
    """

    number: int
    file: str
    fields: Mapping[str, str]
    problem: str | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class MetadataTable:
    """The rows of one metadata file, the columns that Earmark does not know, what a row is called."""

    path: Path
    rows: Sequence[Row]
    unknown_columns: Sequence[str]
    unit: str = "row"

    @classmethod
    def load(cls, path: Path, keys: Sequence[str] = ("file",)) -> "MetadataTable":
        """Read a CSV file; raises MetadataError when it is not a readable CSV with one of `keys`.

        A row that cannot be used is kept, with its problem, so that the other rows still count.
        """
        try:
            with path.open(encoding="utf-8-sig", newline="") as stream:
                reader = csv.DictReader(stream)
                header = [name.strip() for name in reader.fieldnames or ()]
                _check_header(path, header, keys)
                reader.fieldnames = header
                rows = [_row(reader.line_num, cells, len(header), keys) for cells in reader]
        except OSError as error:
            raise MetadataError(f"{path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise MetadataError(f"{path} is not UTF-8 text: save it as CSV in UTF-8") from error
        except csv.Error as error:
            raise MetadataError(f"{path}, line {reader.line_num}: {error}") from error
        return cls(path, rows, [name for name in header if name and name not in COLUMNS])

    def assign(
        self, files: Sequence[Path], folders: Iterable[Path]
    ) -> tuple[dict[Path, Row], list[Row]]:
        """The row of each file that has one, and the rows that name none of the files.

        A row that is named twice, or that could mean several files, comes back with its problem.
        """
        places = [self.path.parent, Path(), *folders]
        resolved = {file.resolve(): file for file in files}
        named: dict[str, list[Path]] = {}
        for file in files:
            named.setdefault(file.name, []).append(file)
        assigned: dict[Path, Row] = {}
        unused = []
        for row in self.rows:
            found = [
                resolved[path]
                for place in places
                if "\0" not in row.file and (path := (place / row.file).resolve()) in resolved
            ][:1] or named.get(row.file, [])
            if not row.file or not found:
                unused.append(row)
            for file in found if row.file else ():
                problem = row.problem
                if len(found) > 1:
                    problem = f"{row.file!r} could be {len(found)} of the files; write its folder"
                elif file in assigned:
                    problem = f"{self.unit} {assigned[file].number} is about the same file"
                assigned[file] = replace(row, problem=problem)
        return assigned, unused

    def lacking(self, name: str) -> list[int]:
        """The numbers of the rows that do not say this."""
        return [row.number for row in self.rows if name not in row.fields]

    def where(self, row: Row) -> str:
        """`catalogue.csv, row 5`."""
        return f"{self.path}, {self.unit} {row.number}"


def _check_header(path: Path, header: Sequence[str], keys: Sequence[str]) -> None:
    if not set(keys) & set(header):
        hint = "its columns are " + ", ".join(header) if header else "it is empty"
        if len(header) == 1 and any(separator in header[0] for separator in ";\t"):
            hint = "its separator is not a comma; save it with commas"
        raise MetadataError(f"{path} has no column {_either(keys)}: {hint}")
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise MetadataError(f"{path} has two columns of the name {', '.join(twice)}")


def _either(keys: Sequence[str]) -> str:
    return " or ".join(f"`{key}`" for key in keys)


def _row(number: int, cells: Mapping[str | None, object], width: int, keys: Sequence[str]) -> Row:
    fields = {
        name: value.strip()
        for name, value in cells.items()
        if name in COLUMNS and isinstance(value, str) and value.strip()
    }
    fields = {str(name): value for name, value in fields.items()}
    lacking = not fields.keys() & set(keys)
    file = fields.pop("file", "")
    problem = None
    extra = cells.get(None)
    if isinstance(extra, list):
        problem = f"{width + len(extra)} cells, but the header has {width}"
    elif lacking:
        problem = f"no {_either(keys)}"
    else:
        said = {name: value for name, value in fields.items() if value != EMPTY}
        problem = _unsound({"rightsholder": "another's", "rights": RIGHTS[0]} | said)
    return Row(number, file, fields, problem)


def describe(source: str, tags: Mapping[str, str], fields: Mapping[str, str]) -> Metadata:
    """The metadata of one recording: the given fields first, the file's own tags for the rest.

    Raises MetadataError where there is no rights basis (no rights basis, no ingest) or no sound one.
    """
    for name in ("rightsholder", "rights"):
        if not fields.get(name):
            raise MetadataError(f"no {name}: give --{name}, or a metadata row with that column")
    if problem := _unsound(fields):
        raise MetadataError(problem)
    known: dict[str, Any] = {name: tags[name] for name in _FROM_TAGS if tags.get(name)}
    known |= fields
    return Metadata(source=source, **known)


def _unsound(fields: Mapping[str, str]) -> str | None:
    """What keeps a library from holding these fields, `rightsholder` and `rights` among them."""
    values: dict[str, Any] = dict(fields)
    try:
        Metadata(source="", **values).require_sound()
    except ValueError as error:
        return str(error)
    return None
