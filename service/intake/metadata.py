"""What is said about the files of an ingest: a CSV's rows, the command line, the files' own tags.

A CSV has a header in any case; `file` is its only required column. Its separator and encoding are sniffed.
What a row leaves empty is filled by `--rightsholder` and `--rights` and, for the rest, by the tags.
`service.intake.paths` says which file a row means.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fingerprint.errors import EarmarkError
from fingerprint.isrc import normalised
from index.recording import RIGHTS, Metadata, Recording
from service.datasets.delimited import decoded, encoding_of, layout_of, records
from service.datasets.labels import plain
from service.intake.paths import Paths

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
# Other names of a column, as `plain` has them, best first; the column's own name comes before them.
_SYNONYMS = {
    "file": ("filename", "filepath", "path", "audiofile", "audiofilename", "audio", "location"),
    "id": ("recordingid",),
    "title": ("tracktitle", "trackname", "songtitle", "songname", "track", "song", "name", "titel"),
    "artist": ("artistname", "artists", "trackartist", "mainartist", "performer", "interpret"),
    "isrc": ("isrccode", "isrcnumber", "trackisrc"),
    "iswc": ("iswccode", "iswcnumber"),
    "work": ("worktitle", "composition"),
    "label": ("labelname", "recordlabel"),
    "releasedate": ("released", "originalreleasedate", "date", "year"),
    "rightsholder": ("rightsowner", "rightholder", "copyrightholder"),
    "rights": ("rightsbasis", "rightstype"),
    "licenceuntil": ("licenseuntil", "licenceend", "licenseend"),
}
EMPTY = "-"  # a cell of this alone empties a field, where metadata is changed
_FROM_TAGS = ("title", "artist", "isrc", "label", "release_date")


class MetadataError(EarmarkError):
    """A metadata file, or one row of it, that cannot be used."""


@dataclass(frozen=True)
class Row:
    """One row: its number as a spreadsheet shows it, its known fields, what is wrong with it.

    `seconds` is how long the recording is said to last; `by_name` whether its file was found by its bare
    name, though the row says a folder.
    """

    number: int
    file: str
    fields: Mapping[str, str]
    problem: str | None = None
    seconds: float | None = None
    by_name: bool = False


@dataclass(frozen=True)
class MetadataTable:
    """The rows of one metadata file, the columns that Earmark does not know, what a row is called.

    `assumed` is how many lines are not UTF-8 and were taken for Windows-1252.
    """

    path: Path
    rows: Sequence[Row]
    unknown_columns: Sequence[str]
    unit: str = "row"
    assumed: int = 0

    @classmethod
    def load(cls, path: Path, keys: Sequence[str] = ("file",)) -> "MetadataTable":
        """Read a CSV file; raises MetadataError when it is not a readable CSV with one of `keys`.

        A row that cannot be used is kept, with its problem, so that the other rows still count.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise MetadataError(f"{path} cannot be read: {error.strerror}") from error
        codec, assumed = encoding_of(data), 0
        if codec == "utf-8":
            lines = [decoded(line) for line in data.split(b"\n")]
            assumed = sum(not sound for _, sound in lines)
            text = "\n".join(line for line, _ in lines)
        else:
            text = data.decode(codec, "replace")
        text = text.removeprefix("\ufeff")
        layout = layout_of(text, codec, lambda names: len(_known(names)))
        header, rest = layout.header, text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        columns = _known(header)
        _check_header(path, header, columns, keys)
        numbered = list(enumerate(rest, start=1))[layout.lines :]
        rows = [
            _row(number, cells, columns, len(header), keys)
            for number, cells in records(numbered, layout.delimiter, len(header))
        ]
        unknown = [name for at, name in enumerate(header) if name and at not in columns.values()]
        return cls(path, rows, unknown, assumed=assumed)

    def assign(
        self, files: Sequence[Path], folders: Iterable[Path]
    ) -> tuple[dict[Path, Row], list[Row]]:
        """The row of each file that has one, and the rows that name none of the files.

        A row that is named twice, or that could mean several files, comes back with its problem.
        """
        paths = Paths(files, [self.path.parent, Path(), *folders])
        assigned: dict[Path, Row] = {}
        unused = []
        for row, (found, by_name) in zip(
            self.rows, paths.of([row.file for row in self.rows]), strict=True
        ):
            if not found:
                unused.append(row)
            for file in found:
                problem, earlier = row.problem, assigned.get(file)
                if len(found) > 1:
                    problem = f"{row.file!r} could be {len(found)} of the files; write its folder"
                elif earlier and (earlier.fields, earlier.seconds) == (row.fields, row.seconds):
                    continue
                elif earlier:
                    problem = f"{self.unit} {earlier.number} is about the same file"
                assigned[file] = replace(row, problem=problem, by_name=by_name)
        return assigned, unused

    def lacking(self, name: str) -> list[int]:
        """The numbers of the rows that do not say this."""
        return [row.number for row in self.rows if name not in row.fields]

    def where(self, row: Row) -> str:
        """`catalogue.csv, row 5`."""
        return f"{self.path}, {self.unit} {row.number}"


def _known(header: Sequence[str]) -> dict[str, int]:
    """Which column each known field is in."""
    names = [plain(name) for name in header]
    return {
        field: next(names.index(name) for name in spelled if name in names)
        for field in COLUMNS
        if (spelled := [n for n in (plain(field), *_SYNONYMS[plain(field)]) if n in names])
    }


def _check_header(
    path: Path, header: Sequence[str], columns: Mapping[str, int], keys: Sequence[str]
) -> None:
    if not set(keys) & columns.keys():
        hint = "its columns are " + ", ".join(header) if any(header) else "it is empty"
        raise MetadataError(f"{path} has no column {_either(keys)}: {hint}")
    names = [plain(name) for name in header]
    twice = sorted({header[at] for at in columns.values() if names.count(names[at]) > 1})
    if twice:
        raise MetadataError(f"{path} has two columns of the name {', '.join(twice)}")


def _either(keys: Sequence[str]) -> str:
    return " or ".join(f"`{key}`" for key in keys)


def _row(
    number: int,
    cells: Sequence[str],
    columns: Mapping[str, int],
    width: int,
    keys: Sequence[str],
) -> Row:
    said = {name: cells[at].strip() for name, at in columns.items() if at < len(cells)}
    fields, problem = checked({name: value for name, value in said.items() if value})
    lacking = not fields.keys() & set(keys)
    file = fields.pop("file", "")
    if len(cells) > width:
        problem = f"{len(cells)} cells, but the header has {width}"
    elif lacking:
        problem = f"no {_either(keys)}"
    return Row(number, file, fields, problem)


def checked(fields: Mapping[str, str]) -> tuple[dict[str, str], str | None]:
    """Fields as they are stored, ISRC and rights in any spelling, and what is wrong with them."""
    stored = dict(fields)
    said = {name: value for name, value in fields.items() if value != EMPTY}
    if "rights" in said:
        spelled = "-".join(said["rights"].lower().replace("_", " ").replace("-", " ").split())
        stored["rights"] = {"open-license": "open-licence", "licenced": "licensed"}.get(
            spelled, spelled
        )
        said["rights"] = stored["rights"] if stored["rights"] in RIGHTS else fields["rights"]
    if "isrc" in said:
        try:
            stored["isrc"] = normalised(said["isrc"])
        except ValueError as error:
            return stored, str(error)
    known = {name: value for name, value in said.items() if name != "file"}
    return stored, _unsound({"rightsholder": "another's", "rights": RIGHTS[0]} | known)


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
    known |= {name: value for name, value in fields.items() if value != EMPTY}
    return Metadata(source=source, **known)


def _unsound(fields: Mapping[str, str]) -> str | None:
    """What keeps a library from holding these fields, `rightsholder` and `rights` among them."""
    values: dict[str, Any] = dict(fields)
    try:
        Metadata(source="", **values).require_sound()
    except ValueError as error:
        return str(error)
    return None


def changes(fields: Mapping[str, str], recording: Recording) -> dict[str, str | None]:
    """What a row changes of a recording. Raises ValueError where it says what cannot be."""
    if fields.get("id", recording.id) != recording.id:
        raise ValueError(
            f"is there already, as {recording.id!r}: its id cannot become {fields['id']!r}"
        )
    values = {
        name: None if value == EMPTY else value for name, value in fields.items() if name != "id"
    }
    for name in ("rightsholder", "rights"):
        if name in values and values[name] is None:
            raise ValueError(f"a recording cannot be without {name}")
    return values
