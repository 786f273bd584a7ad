"""A report's files, and its tables: the same rows as CSV, for people, and as Parquet, for programs."""

import csv
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from service.scan.journal import SUMMARY

_PARTIAL = ".partial"
_ROWS = 10_000  # of a Parquet row group
# A spreadsheet takes a cell that begins so for a formula, and names in a dataset are not ours.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@contextmanager
def report_in(folder: Path) -> Iterator[Path]:
    """Where a report's files are written: they go to `folder` when all are, SUMMARY last.

    Nothing is left of one that fails. Raises OSError if the folder cannot be written.
    """
    partial = folder / _PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    for file in sorted(partial.iterdir(), key=lambda file: (file.name == SUMMARY, file.name)):
        os.replace(file, folder / file.name)
    partial.rmdir()


class TableWriter:
    """Writes FOLDER/<name>.csv and FOLDER/<name>.parquet row by row; a context manager."""

    def __init__(self, folder: Path, name: str, columns: Mapping[str, pa.DataType]) -> None:
        self._schema = pa.schema(list(columns.items()))
        self._rows: list[Mapping[str, Any]] = []
        with ExitStack() as resources:
            file = resources.enter_context(
                (folder / f"{name}.csv").open("w", encoding="utf-8", newline="")
            )
            self._csv = csv.writer(file)
            self._csv.writerow(columns)
            self._parquet = resources.enter_context(
                pq.ParquetWriter(folder / f"{name}.parquet", self._schema, compression="zstd")
            )
            self._resources = resources.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._resources:
            self._flush()

    def write(self, row: Mapping[str, Any]) -> None:
        """One row; what it does not have is empty."""
        self._csv.writerow([_cell(row.get(name)) for name in self._schema.names])
        self._rows.append(row)
        if len(self._rows) >= _ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._parquet.write_table(pa.Table.from_pylist(self._rows, self._schema))
            self._rows = []


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    if isinstance(value, list):
        return json.dumps(value)
    return value
