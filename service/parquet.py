"""Members of Parquet files: rows with a column of {bytes, path}, as Hugging Face datasets write them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from service.labels import Labels, labels_of
from service.member import Member, bad, named
from service.place import DatasetError, Place, bytes_of
from service.source import MOST_IN_MEMORY, InMemory, is_bomb
from service.url import Url
from service.wording import as_text

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 8  # of a Parquet file read at once


class NoSounds(DatasetError):
    """A table in which no column holds sounds."""


def parquet_members(path: Place, name: str) -> Iterator[Member]:
    """Rows of a Parquet file. Raises NoSounds, ValueError for a bomb, and what pyarrow makes of damage."""
    import pyarrow.parquet as pq

    where = path.open("rb") if isinstance(path, Url) else path
    with pq.ParquetFile(where, buffer_size=2**20) as file:
        sounds = _sound_column(file.schema_arrow)
        if sounds is None:
            raise NoSounds(
                f"{path}: no column holds sounds ({{bytes, path}}); to compare its metadata alone, "
                "use `earmark reconcile`"
            )
        described = [
            column.name
            for column in file.schema_arrow
            if column.name != sounds and _is_plain(column.type)
        ]
        _refuse_bombs(file.metadata)
        share = bytes_of(path) // max(1, file.metadata.num_rows)
        row = 0
        for batch in file.iter_batches(_ROWS, columns=[sounds, *described], use_threads=False):
            columns = {column: batch.column(column) for column in batch.schema.names}
            for at in range(len(batch)):
                sound = columns[sounds][at].as_py()
                labels = labels_of({column: columns[column][at].as_py() for column in described})
                yield _of_row(path, name, row, share, sound, labels)
                row += 1


def _refuse_bombs(metadata: Any) -> None:
    """Raise ValueError for a table that unpacks to very much more than it is."""
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            size = column.total_uncompressed_size
            if is_bomb(size, column.total_compressed_size):
                raise ValueError(f"a column unpacks to {size / 2**20:,.0f} MiB of almost nothing")


def _of_row(path: Place, name: str, row: int, weight: int, sound: Any, labels: Labels) -> Member:
    if isinstance(sound, bytes):
        sound = {"bytes": sound}
    sound = sound or {}
    where = as_text(str(sound.get("path") or ""))
    member = f"row {row}: {where}" if where else f"row {row}"
    data = sound.get("bytes")
    if data is None and where:
        return named(path.parent, where, name, member, row, weight, labels)
    if data is None:
        return bad(name, member, row, weight, "undecodable", "the row has no sound")
    if len(data) > MOST_IN_MEMORY:
        what = f"has {len(data) / 2**20:,.0f} MiB, more than is read of a row"
        return bad(name, member, row, weight, "too-large", what)
    return Member(name, member, row, weight, InMemory(data), labels)


def _sound_column(schema: "pa.Schema") -> str | None:
    """The first column of {bytes, path}, or else of bytes."""
    import pyarrow.types as kinds

    def is_binary(kind: Any) -> bool:
        return kinds.is_binary(kind) or kinds.is_large_binary(kind)

    def is_sound_struct(kind: Any) -> bool:
        return kinds.is_struct(kind) and any(
            part.name == "bytes" and is_binary(part.type) for part in kind
        )

    for fits in (is_sound_struct, is_binary):
        for column in schema:
            if fits(column.type):
                return column.name
    return None


def _is_plain(kind: Any) -> bool:
    import pyarrow.types as kinds

    return kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_primitive(kind)
