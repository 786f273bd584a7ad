"""Ingests that are asked for over HTTP: jobs that run `earmark ingest --job` on an archive, for its owner.

What the command says of each file is noted, beside the jobs, as soon as it is committed. It can be run again
after a kill: what is in the library is known by its content, and what was said of a file first stands.
"""

import json
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
from service.runtime.settings import Settings
from service.web.auth import Asker, Quotas
from service.web.problems import ProblemError, invalid

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
    """The ingests that are there, the newest first; of each, up to ten of its failures."""

    ingests: list[IngestEntry]


class Ingests(Jobs):
    """Ingests of one server; threads may share it."""

    kind = "ingest"

    def __init__(self, settings: Settings, quotas: Quotas) -> None:
        super().__init__(
            settings,
            settings.ingests,
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

        Raises a 415 for what is no archive by its name, a 422 for metadata that cannot be used or where
        there is no rights basis, and what `Jobs.add` does.
        """
        suffix = next(
            (it for it in sorted(ARCHIVES, key=len, reverse=True) if name.lower().endswith(it)),
            None,
        )
        if suffix is None:
            raise ProblemError(
                415, f"{name}: is no archive by its name; send one of {', '.join(ARCHIVES)}"
            )
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
        """An ingest. Raises a 404 where there is none that the asker may see."""
        return self._entry(self.row(id, asker))

    def all(self, asker: Asker) -> list[IngestEntry]:
        """The ingests that the asker may see, the newest first, with some of their failures."""
        return [self._entry(row, 10) for row in self.rows(asker)]

    def command(self, row: sql.Row, folder: Path) -> Sequence[str]:
        """`earmark ingest`, for the asker."""
        metadata = folder / _METADATA
        said = {
            **{name.replace("_", "-"): value for name, value in row.options["fields"].items()},
            "metadata": str(metadata) if metadata.is_file() else None,
            "owner": row.owner or None,
            "key": row.options["key"],
        }
        return [
            *("ingest", str(folder / row.file), "--job", "--json"),
            *(f"--{name}={value}" for name, value in said.items() if value is not None),
            *(("--private",) if row.options["private"] else ()),
        ]

    def heard(self, row: sql.Row, line: str) -> None:
        """Take note of what has become of a file, and count its sound; end the job if that was too much."""
        outcome = json.loads(line)
        error = outcome["error"] or {"type": None, "detail": ""}
        here = f"{self._folder / row.id}/"
        file, detail = outcome["file"].replace(here, ""), error["detail"].replace(here, "")
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
            except ProblemError as used_up:
                again = "what was added stays: send it again when there is more"
                self.end(row.id, "failed", f"{used_up.detail}; {again}")

    def forget(self, connection: sql.Connection, ids: Collection[str]) -> None:
        """Delete what is noted about ingests, and about their files."""
        if ids:
            these = self._files.c.ingest == sql.bindparam("gone")
            connection.execute(sql.delete(self._files).where(these), [{"gone": id} for id in ids])
        super().forget(connection, ids)

    def _entry(self, row: sql.Row, most: int = _MOST_FAILURES) -> IngestEntry:
        files = self._files.c
        mine = files.ingest == row.id
        with self._begin() as connection:
            counting = sql.select(files.status, sql.func.count().label("count")).where(mine)
            counted = connection.execute(counting.group_by(files.status)).mappings()
            counts = {it["status"]: int(it["count"]) for it in counted}
            failed = connection.execute(
                sql.select(self._files)
                .where(mine, files.status == "failed")
                .order_by(files.file)
                .limit(most)
            ).all()
        return IngestEntry(
            id=row.id,
            name=row.name,
            state=row.state,
            done=sum(counts.values()),
            added=counts.get("added", 0),
            changed=counts.get("changed", 0),
            unchanged=counts.get("unchanged", 0),
            failed=counts.get("failed", 0),
            failures=[
                FailedFile(file=it.file, error=FileError(type=it.type, detail=it.detail))
                for it in failed
            ],
            error=row.error,
            created_at=row.created_at,
            finished_at=row.finished_at,
        )


def _check_rights(fields: Mapping[str, Any]) -> Callable[[Path], None]:
    """What raises a 422 if the metadata that was sent is unsound, or a rights basis is missing."""

    def check(folder: Path) -> None:
        path, table = folder / _METADATA, None
        if path.is_file():
            if path.stat().st_size > _MOST_METADATA:
                most = f"more than {_MOST_METADATA >> 20} MiB are not taken; send parts"
                raise invalid("metadata", most)
            try:
                table = MetadataTable.load(path)
            except MetadataError as error:
                raise invalid("metadata", str(error).replace(f"{folder}/", "")) from error
        for name in ("rightsholder", "rights"):
            if name not in fields and (table is None or table.lacking(name)):
                raise invalid(name, "is needed, here or in every row of the metadata")

    return check
