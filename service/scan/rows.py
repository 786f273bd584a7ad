"""The rows of a file of metadata as DuckDB's view `said`, whatever the file is.

    said: line BIGINT, broken BOOLEAN, id, title, artist, isrc, duration VARCHAR

A `line` is the line of a text file at which the row begins, the number of a Parquet file's row from 1, or
SQLite's rowid; `broken` marks a line that is no JSON. Several artists are one text, with "; " between.
"""

import glob
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as kinds

from fingerprint.errors import reason_of
from fingerprint.isrc import isrcs_in
from service.datasets.delimited import (
    SAMPLE,
    Delimited,
    Layout,
    blocks,
    decoded,
    encoding_of,
    layout_of,
    lines_of,
)
from service.datasets.labels import columns, unit_of
from service.datasets.location import DatasetError, unpacked
from service.scan.release import SUFFIXES as SQLITE
from service.scan.release import Release

COLUMNS = ("id", "title", "artist", "isrc", "duration")
_CSV = (".csv", ".tsv")
_JSON = (".jsonl", ".ndjson", ".json")
KNOWN = (".parquet", *_CSV, *_JSON, *SQLITE)
_MOST_ARRAY = 2**28  # bytes of a JSON file that is one array
_LINES_SNIFFED = 1000  # of JSON, for its keys

# Told of a row that is odd and read all the same: its line, and what is odd.
Odd = Callable[[int, str], None]


@dataclass
class Said:
    """What is known of the rows once they have been read.

    columns : names of the columns in use, by ours
    unit : seconds of the duration's unit, where its column names one
    rows, assumed : how many rows there are, and how many lines were taken for Windows-1252
    damage : what ended the file too soon
    """

    columns: Mapping[str, str]
    rows: Callable[[], int]
    assumed: Callable[[], int] = lambda: 0
    damage: Callable[[], str | None] = lambda: None
    release: Release | None = None
    unit: float | None = field(init=False)

    def __post_init__(self) -> None:
        self.unit = unit_of(self.columns.get("duration", ""))


def load(
    database: duckdb.DuckDBPyConnection, metadata: Path, encoding: str | None, odd: Odd
) -> Said:
    """Make the view `said`, which can be read once. Raises DatasetError for what names nothing."""
    suffix = Path(metadata.name.lower().removesuffix(".gz").removesuffix(".zst")).suffix
    if metadata.is_dir() or suffix in SQLITE:
        release = Release(metadata)
        database.register("rows_of_sqlite", release.reader)
        _view(database, {name: f'"{name}"' for name in release.columns}, "rows_of_sqlite", "line")
        return Said(release.columns, lambda: release.rows, release=release)
    if suffix == ".parquet":
        return _parquet(database, metadata)
    if suffix in _CSV:
        return _delimited(database, metadata, encoding, odd)
    if suffix in _JSON:
        return _json(database, metadata, encoding)
    hint = "; save it as CSV" if suffix in (".xlsx", ".xls", ".ods") else ""
    raise DatasetError(f"{metadata}: is none of {', '.join(KNOWN)} (also .gz and .zst){hint}")


def _view(
    database: duckdb.DuckDBPyConnection,
    expressions: Mapping[str, str],
    relation: str,
    line: str,
    broken: str = "false",
) -> None:
    said = ", ".join(f"{expressions.get(ours, 'NULL::VARCHAR')} AS {ours}" for ours in COLUMNS)
    database.execute(
        f"CREATE VIEW said AS SELECT {line} AS line, {broken} AS broken, {said} FROM {relation}"
    )


def _require_names(metadata: Path, found: Mapping[str, str], names: Iterable[str]) -> None:
    if "isrc" not in found and "title" not in found:
        some = ", ".join(list(names)[:20])
        raise DatasetError(f"{metadata}: has no column of ISRCs or titles, only {some}")


# Parquet


def _parquet(database: duckdb.DuckDBPyConnection, metadata: Path) -> Said:
    try:
        schema, rows = pq.read_schema(metadata), pq.read_metadata(metadata).num_rows
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{metadata}: cannot be read as metadata ({reason_of(error)})") from None
    expressions = dict(_expressions(schema))
    found = columns(list(expressions))
    _require_names(metadata, found, expressions)
    # the name is this file's, not a pattern of several
    relation = f"read_parquet({_text(glob.escape(str(metadata)))}, file_row_number = true)"
    said = {ours: expressions[theirs] for ours, theirs in found.items()}
    _view(database, said, relation, "file_row_number + 1")
    return Said(found, lambda: rows)


def _expressions(fields: Iterable[pa.Field]) -> Iterator[tuple[str, str]]:
    """The columns that can be text, nested ones by their path such as `external_ids.isrc`, as SQL."""
    for each in fields:
        yield from _of_type(each.name, _name(each.name), each.type)


def _of_type(path: str, value: str, kind: Any) -> Iterator[tuple[str, str]]:
    if kinds.is_dictionary(kind):
        kind = kind.value_type
    if kinds.is_struct(kind):
        for inner in kind:
            inside = f"struct_extract({value}, {_text(inner.name)})"
            yield from _of_type(f"{path}.{inner.name}", inside, inner.type)
    elif kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind):
        for name, each in _of_type(path, "each", kind.value_type):
            yield name, f"array_to_string(list_transform({value}, lambda each: {each}), '; ')"
    elif kinds.is_binary(kind) or kinds.is_large_binary(kind):
        yield path, f"try(decode({value}))"
    else:
        yield path, f"CAST({value} AS VARCHAR)"


# CSV


def _delimited(
    database: duckdb.DuckDBPyConnection, metadata: Path, encoding: str | None, odd: Odd
) -> Said:
    sample = _sample(metadata)
    layout = layout_of(
        *_decoded(metadata, sample, encoding), lambda names: len(columns(list(names)))
    )
    names = {str(at): name for at, name in enumerate(layout.header)}
    by_name = {name: int(at) for at, name in reversed(names.items())}
    found = columns(list(layout.header))
    at = {ours: by_name[theirs] for ours, theirs in found.items()}
    codes = [place for place, cell in enumerate(layout.header) if isrcs_in(cell)]
    if not {"isrc", "title"} & found.keys() and codes:  # a list without a header
        found, at = {"isrc": f"column {codes[0] + 1}"}, {"isrc": codes[0]}
        layout = Layout(layout.encoding, layout.delimiter, layout.header, 0)
    _require_names(metadata, found, layout.header)
    wanted = sorted({at[ours] for ours in COLUMNS if ours in at})
    table = Delimited(metadata, layout, wanted, at.get("isrc"), odd)
    reader = pa.RecordBatchReader.from_batches(table.schema, table.batches())
    database.register("rows_of_csv", reader)
    _view(database, {ours: f"c{place}" for ours, place in at.items()}, "rows_of_csv", "line")
    return Said(found, lambda: table.rows, lambda: table.assumed, lambda: table.damage)


def _sample(metadata: Path) -> bytes:
    """The beginning of a text file. Raises DatasetError where it cannot be read."""
    try:
        with unpacked(metadata) as (stream, _):
            sample: bytes = stream.read(SAMPLE)
        if not sample and metadata.stat().st_size:
            raise ValueError("nothing can be unpacked of it")
        return sample
    except Exception as error:  # what the decompressors make of damage
        raise DatasetError(f"{metadata}: cannot be read as metadata ({reason_of(error)})") from None


def _decoded(metadata: Path, sample: bytes, encoding: str | None) -> tuple[str, str]:
    """The beginning as text, and its codec. Raises DatasetError for a codec that Python lacks."""
    codec = encoding or encoding_of(sample)
    if codec == "utf-8":
        return decoded(sample)[0].removeprefix("\ufeff"), codec
    try:
        return sample.decode(codec, "replace").removeprefix("\ufeff"), codec
    except LookupError:
        raise DatasetError(
            f"--encoding {encoding}: Python knows no encoding of that name"
        ) from None


# JSON


class _Lines:
    """The lines of a JSON-lines file, or the elements of a JSON array, with their numbers."""

    schema = pa.schema([("line", pa.int64()), ("text", pa.string())])

    def __init__(self, metadata: Path, codec: str, elements: Sequence[Any] | None) -> None:
        self._metadata, self._codec, self._elements = metadata, codec, elements
        self.rows = self.assumed = 0
        self.damage: str | None = None

    def batches(self) -> Iterator[pa.RecordBatch]:
        for numbers, texts in self._some():
            self.rows += len(texts)
            yield pa.record_batch([pa.array(numbers), pa.array(texts)], schema=self.schema)

    def _some(self) -> Iterator[tuple[list[int], list[str]]]:
        if self._elements is not None:
            texts = [json.dumps(each) for each in self._elements]
            yield list(range(1, len(texts) + 1)), texts
            return
        number = 0
        try:
            for block in blocks(self._metadata, self._codec):
                numbers, texts = [], []
                for text, sound in lines_of(block):
                    number += 1
                    self.assumed += not sound
                    if text.strip():
                        numbers.append(number)
                        texts.append(text)
                if texts:
                    yield numbers, texts
        except Exception as error:  # what the decompressors make of damage
            self.damage = f"is damaged ({reason_of(error)}); what comes after it is not read"


def _json(database: duckdb.DuckDBPyConnection, metadata: Path, encoding: str | None) -> Said:
    sample = _sample(metadata)
    text, codec = _decoded(metadata, sample, encoding)
    elements = _array(metadata, codec, text)
    if elements is not None:
        known = [each for each in elements[:_LINES_SNIFFED] if isinstance(each, dict)]
    else:
        known = [each for line in text.split("\n")[:_LINES_SNIFFED] if (each := _object(line))]
    paths: dict[str, list[str]] = {}
    for each in known:
        for name, path in _paths("", "$", each):
            if path not in (same := paths.setdefault(name, [])):
                same.append(path)
    found = columns(list(paths))
    _require_names(metadata, found, paths)
    every = [path for ours in COLUMNS if ours in found for path in paths[found[ours]]]
    values = {path: f"nullif(v[{at}], '')" for at, path in enumerate(every, start=1)}
    said = {
        ours: f"coalesce({', '.join(values[path] for path in paths[found[ours]])})"
        for ours in COLUMNS
        if ours in found
    }
    lines = _Lines(metadata, codec, elements)
    reader = pa.RecordBatchReader.from_batches(lines.schema, lines.batches())
    database.register("lines_of_json", reader)
    extracted = f"json_extract_string(text, [{', '.join(map(_text, every))}])"
    relation = f"""(
        SELECT line, NOT json_valid(text) AS broken,
            CASE WHEN json_valid(text) THEN {extracted} END AS v
        FROM lines_of_json
    )"""
    _view(database, said, relation, "line", "broken")
    return Said(found, lambda: lines.rows, lambda: lines.assumed, lambda: lines.damage)


def _array(metadata: Path, codec: str, text: str) -> Sequence[Any] | None:
    """The elements of a file that is one JSON array, or one object with one array of objects in it."""
    if not metadata.name.lower().removesuffix(".gz").removesuffix(".zst").endswith(".json"):
        return None
    if _object(text.split("\n", 1)[0]):
        return None  # lines all the same
    whole = b""
    for block in blocks(metadata, codec):
        whole += block
        if len(whole) > _MOST_ARRAY:
            most = f"more than {_MOST_ARRAY >> 20} MiB in one value; write JSON lines (.jsonl)"
            raise DatasetError(f"{metadata}: has {most}")
    try:
        value = json.loads(whole)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{metadata}: is no JSON ({error})") from None
    if isinstance(value, dict):
        lists = [each for each in value.values() if isinstance(each, list)]
        value = lists[0] if len(lists) == 1 else [value]
    return value if isinstance(value, list) else [value]


def _object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _paths(name: str, path: str, value: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    """The names of an object's keys, nested ones as `artists.name`, and the JSON path of each."""
    if isinstance(value, dict) and depth < 4:
        for key, inner in value.items():
            if '"' not in key:
                inside = f"{name}.{key}" if name else key
                yield from _paths(inside, f'{path}."{key}"', inner, depth + 1)
    elif isinstance(value, list):
        if value:
            yield from _paths(name, f"{path}[0]", value[0], depth + 1)
    elif name:
        yield name, path


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
