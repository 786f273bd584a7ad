"""Members of Parquet files: rows with columns of {bytes, path}, as Hugging Face datasets write them."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from service.datasets.labels import Labels, labels_of
from service.datasets.limits import MOST_IN_MEMORY, ROW, Unpacked, is_bomb
from service.datasets.location import DatasetError, Place, bytes_of
from service.datasets.member import Member, bad, named
from service.datasets.source import InMemory
from service.datasets.url import Url
from service.presentation.formatting import as_text

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 8  # of a Parquet file read at once
_SILENT = ("Image", "Pdf")  # of Hugging Face's kinds of columns of {bytes, path}
# How pictures' names end, and how their bytes begin; those of WebP begin as those of WAV do.
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp")
_PICTURES_BEGIN = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8")


class NoSounds(DatasetError):
    """A table in which no column holds sounds."""


class _Cell(NamedTuple):
    """What a row has in a column: bytes, or the path of a file."""

    data: bytes | None
    path: str


def parquet_members(path: Place, name: str) -> Iterator[Member]:
    """Sounds of a Parquet file, row by row; pictures in other columns are passed over.

    A sound's index is its row's number, of further columns counted on from the last row of the one before.

    Raises NoSounds, ValueError for a bomb, and what pyarrow makes of damage.
    """
    import pyarrow.parquet as pq

    where = path.open("rb") if isinstance(path, Url) else path
    with pq.ParquetFile(where, buffer_size=2**20) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
        columns = _sound_columns(schema)
        kinds = _kinds(schema)
        firsts = {
            column: number * rows
            for number, column in enumerate(columns)
            if kinds.get(column) not in _SILENT
        }
        if not firsts:
            raise NoSounds(
                f"{path}: no column holds sounds ({{bytes, path}}); to compare its metadata alone, "
                "use `earmark reconcile`"
            )
        described = [
            column.name
            for column in schema
            if column.name not in columns and _is_plain(column.type)
        ]
        _refuse_bombs(file.metadata)
        share = bytes_of(path) // max(1, rows)
        row = 0
        decoded, packed = Unpacked(), bytes_of(path)
        for batch in file.iter_batches(_ROWS, columns=[*firsts, *described], use_threads=False):
            # a dictionary's or a run's one value is packed once, however many rows have it
            decoded.add(batch.nbytes + ROW * len(batch), packed)
            for at in range(len(batch)):
                cells = {column: batch.column(column)[at].as_py() for column in batch.schema.names}
                labels = labels_of({column: cells[column] for column in described})
                found = {
                    column: cell
                    for column in firsts
                    if (cell := _cell(cells[column]))
                    and not (len(columns) > 1 and _is_picture(cell))
                }
                if not found:
                    what = "the row has no sound"
                    yield bad(name, f"row {row}", row, share, "undecodable", what)
                for column, cell in found.items():
                    said = f"row {row}, {column}" if len(columns) > 1 else f"row {row}"
                    index = firsts[column] + row
                    yield _of_cell(path, name, said, index, share // len(found), cell, labels)
                row += 1


def _refuse_bombs(metadata: Any) -> None:
    """Raise ValueError for a table that unpacks to very much more than it is."""
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            size = column.total_uncompressed_size
            if is_bomb(size, column.total_compressed_size):
                raise ValueError(f"a column unpacks to {size / 2**20:,.0f} MiB of almost nothing")


def _of_cell(
    path: Place, name: str, said: str, index: int, weight: int, cell: _Cell, labels: Labels
) -> Member:
    """The sound of a row; said : which one that is"""
    member = f"{said}: {cell.path}" if cell.path else said
    if cell.data is None:
        return named(path.parent, cell.path, name, member, index, weight, labels)
    if len(cell.data) > MOST_IN_MEMORY:
        what = f"has {len(cell.data) / 2**20:,.0f} MiB, more than is read of a row"
        return bad(name, member, index, weight, "too-large", what)
    return Member(name, member, index, weight, InMemory(cell.data), labels)


def _cell(value: Any) -> _Cell | None:
    """What a row has in a column of sounds; None if that is nothing."""
    if isinstance(value, bytes):
        return _Cell(value, "")
    value = value or {}
    cell = _Cell(value.get("bytes"), as_text(str(value.get("path") or "")))
    return None if cell == (None, "") else cell


def _is_picture(cell: _Cell) -> bool:
    if cell.data is None:
        return cell.path.lower().endswith(_PICTURES)
    is_webp = cell.data.startswith(b"RIFF") and cell.data[8:12] == b"WEBP"
    return is_webp or cell.data.startswith(_PICTURES_BEGIN)


def _sound_columns(schema: "pa.Schema") -> list[str]:
    """The columns of {bytes, path}, or else the first of bytes."""
    import pyarrow.types as kinds

    def is_binary(kind: Any) -> bool:
        return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind))

    def is_sound_struct(kind: Any) -> bool:
        return kinds.is_struct(kind) and any(
            part.name == "bytes" and is_binary(part.type) for part in kind
        )

    structs = [column.name for column in schema if is_sound_struct(column.type)]
    return structs or [column.name for column in schema if is_binary(column.type)][:1]


def _kinds(schema: "pa.Schema") -> dict[str, str]:
    """What Hugging Face's own metadata says the columns are, where it is there."""
    try:
        said = json.loads((schema.metadata or {})[b"huggingface"])
        features = said["info"]["features"]
        return {
            column: str(feature["_type"])
            for column, feature in features.items()
            if "_type" in feature
        }
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}


def _is_plain(kind: Any) -> bool:
    import pyarrow.types as kinds

    return kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_primitive(kind)
