"""Ingests that are asked for over HTTP: jobs that run `earmark ingest --job` on an archive, for its owner.

What the command says of each file is noted, beside the jobs, as soon as it is committed. It can be run again
after a kill: what is in the library is known by its content, and what was said of a file first stands.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO

import sqlalchemy as sql
from pydantic import BaseModel, Field

from index.database import Text
from service.datasets.extensions import ARCHIVES
from service.intake.metadata import MetadataError, MetadataTable
from service.jobs.job_table import Jobs, State, plain_name
from service.runtime.asker import Asker
from service.runtime.errors import InvalidField, NotTaken, TooMuch
from service.runtime.quotas import Quotas
from service.runtime.settings import Settings

# Of a metadata file: it is held in memory as a whole.
_MOST_METADATA = 16 * 2**20  # bytes
_LONGEST_NAME = 600  # characters of a file's name that are kept
_MOST_FAILURES = 1000  # that are told of one by one
_METADATA = "metadata.csv"


class FileError(BaseModel):
    """Why a file was not added."""

    type: str = Field(
        description="not-found, undecodable, too-short, silent, too-long, too-large, timeout; metadata."
    )
    detail: str


class FailedFile(BaseModel):
    """A file that was not added."""

    file: str
    error: FileError


class IngestEntry(BaseModel):
    """One ingest."""

    id: str
    name: str = Field(description="Of the archive, as it was sent.")
    state: State
    done: int = Field(
        description="Files that have been dealt with so far: the sum of the next four."
    )
    added: int
    changed: int = Field(
        description="Files that were there already, of which the metadata said more."
    )
    unchanged: int = Field(description="Files of audio that was already there.")
    failed: int
    failures: list[FailedFile] = Field(
        description=f"Files that were not added, and why; the first {_MOST_FAILURES}."
    )
    error: str | None = Field(description="Why the ingest as a whole failed.")
    created_at: str = Field(description="ISO 8601, UTC.")
    finished_at: str | None


class IngestPage(BaseModel):
    """Some of the ingests, the newest first, and where the next ones start; of each, up to ten failures."""

    ingests: list[IngestEntry]
    next_cursor: str | None


class Ingests(Jobs):
    """Ingests of one server; threads may share it."""

    kind = "ingest"

    def __init__(self, settings: Settings, quotas: Quotas) -> None:
        super().__init__(
            settings,
            at_once=1,  # a library has one writer, and each takes all cores
            per_owner=settings.ingests_per_owner,
            keep=settings.keep_ingests,
        )
        self._quotas = quotas
        self._files = sql.Table(
            "files",
            self._metadata,
            sql.Column("ingest", Text, primary_key=True),
            sql.Column("file", Text, primary_key=True),
            sql.Column("status", Text, nullable=False),
            sql.Column("type", Text),
            sql.Column("detail", Text),
        )

    def ask(
        self,
        archive: BinaryIO,
        name: str,
        metadata: BinaryIO | None,
        fields: Mapping[str, str | date],
        private: bool,
        asker: Asker,
    ) -> IngestEntry:
        """Ask for an ingest of an upload; `fields` hold for all files unless the metadata says otherwise.

        Raises NotTaken for what is no archive by its name, InvalidField for metadata that cannot be used or
        where there is no rights basis, and what `Jobs.add` does.
        """
        suffix = next(
            (it for it in sorted(ARCHIVES, key=len, reverse=True) if name.lower().endswith(it)),
            None,
        )
        if suffix is None:
            raise NotTaken(f"{name}: is no archive by its name; send one of {', '.join(ARCHIVES)}")
        sent = {plain_name(name, f"archive{suffix}"): archive} | (
            {_METADATA: metadata} if metadata else {}
        )
        options = {
            "fields": {field: str(value) for field, value in fields.items()},
            "private": private,
            "key": asker.id,
        }
        return self._entry(self.add(sent, name, options, asker, _check_rights(fields)))

    def get(self, id: str, asker: Asker) -> IngestEntry:
        """An ingest. Raises NotFound where there is none that the asker may see."""
        return self._entry(self.row(id, asker))

    def page(self, asker: Asker, cursor: str | None = None) -> IngestPage:
        """A page of the ingests that the asker may see, the newest first, with some of their failures."""
        rows, more = self.rows(asker, cursor)
        return IngestPage(ingests=self._entries(rows, 10), next_cursor=more)

    def command(self, row: sql.Row) -> Sequence[str]:
        """`earmark ingest`, for the asker."""
        has_table = (self._folder / row.id / _METADATA).is_file()
        said = {
            **{name.replace("_", "-"): value for name, value in row.options["fields"].items()},
            "metadata": _METADATA if has_table else None,
            "owner": row.owner or None,
            "key": row.options["key"],
        }
        return [
            *("ingest", row.file, "--job", "--json"),
            *(f"--{name}={value}" for name, value in said.items() if value is not None),
            *(("--private",) if row.options["private"] else ()),
        ]

    def heard(self, row: sql.Row, line: str) -> None:
        """Take note of what has become of a file, and count its sound; end the job if that was too much."""
        outcome = json.loads(line)
        error = outcome["error"] or {"type": None, "detail": ""}
        file, detail = outcome["file"], self._without_paths(error["detail"], row.id)
        if file == _METADATA:  # of which each row may fail
            file = detail.partition(":")[0]
        if len(file) > _LONGEST_NAME:
            file = f"…{file[1 - _LONGEST_NAME :]}"
        note = {
            "ingest": row.id,
            "file": file,
            "status": outcome["status"],
            "type": error["type"],
            "detail": detail,
        }
        said = self._files.c.ingest == row.id, self._files.c.file == file
        with self._begin() as connection:  # one process says it, and is heard by one server
            is_new = connection.execute(sql.select(self._files.c.file).where(*said)).first() is None
            if is_new:
                connection.execute(sql.insert(self._files).values(note))
        if is_new and outcome["status"] not in ("changed", "unchanged"):
            self._quotas.audio(row.options["key"], outcome["duration"] or 0)
            try:
                self._quotas.require_audio(row.options["key"])
            except TooMuch as used_up:
                again = "what was added stays: send it again when there is more"
                self.end(row.id, "failed", f"{used_up}; {again}")

    def forget(self, connection: sql.Connection, ids: Collection[str]) -> None:
        """Delete what is noted about ingests, and about their files."""
        if ids:
            these = self._files.c.ingest == sql.bindparam("gone")
            connection.execute(sql.delete(self._files).where(these), [{"gone": id} for id in ids])
        super().forget(connection, ids)

    def _entry(self, row: sql.Row) -> IngestEntry:
        return self._entries([row], _MOST_FAILURES)[0]

    def _entries(self, rows: Sequence[sql.Row], most: int) -> list[IngestEntry]:
        """Ingests with their counts and, of each, so many failures: in two queries in all."""
        files = self._files.c
        mine = files.ingest.in_([row.id for row in rows])
        rank = sql.func.row_number().over(partition_by=files.ingest, order_by=files.file)
        ranked = (
            sql.select(self._files, rank.label("rank"))
            .where(mine, files.status == "failed")
            .subquery()
        )
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        failures: dict[str, list[FailedFile]] = defaultdict(list)
        with self._begin() as connection:
            counting = sql.select(files.ingest, files.status, sql.func.count().label("files"))
            for it in connection.execute(counting.where(mine).group_by(files.ingest, files.status)):
                counts[it.ingest][it.status] = int(it.files)
            failed = sql.select(ranked).where(ranked.c.rank <= most)
            for it in connection.execute(failed.order_by(ranked.c.ingest, ranked.c.rank)):
                error = FileError(type=it.type, detail=it.detail)
                failures[it.ingest].append(FailedFile(file=it.file, error=error))
        return [
            IngestEntry(
                id=row.id,
                name=row.name,
                state=row.state,
                done=counts[row.id].total(),
                added=counts[row.id]["added"],
                changed=counts[row.id]["changed"],
                unchanged=counts[row.id]["unchanged"],
                failed=counts[row.id]["failed"],
                failures=failures[row.id],
                error=row.error,
                created_at=row.created_at,
                finished_at=row.finished_at,
            )
            for row in rows
        ]


def _check_rights(fields: Mapping[str, Any]) -> Callable[[Path], None]:
    """What raises InvalidField if the metadata that was sent is unsound, or a rights basis is missing."""

    def check(folder: Path) -> None:
        path, table = folder / _METADATA, None
        if path.is_file():
            if path.stat().st_size > _MOST_METADATA:
                most = f"more than {_MOST_METADATA >> 20} MiB are not taken; send parts"
                raise InvalidField("metadata", most)
            try:
                table = MetadataTable.load(path)
            except MetadataError as error:
                raise InvalidField("metadata", str(error).replace(f"{folder}/", "")) from error
        for name in ("rightsholder", "rights"):
            if name not in fields and (table is None or table.lacking(name)):
                raise InvalidField(name, "is needed, here or in every row of the metadata")

    return check
