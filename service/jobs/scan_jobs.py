"""Scans that are asked for over HTTP: jobs that run `earmark scan --resume` as whose key it is.

<library>/jobs/scans/<id>/report/       with the scan's journal, so that nothing is done twice
"""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import sqlalchemy as sql
from pydantic import BaseModel, Field

from service.datasets.extensions import AUDIO_EXTENSIONS, CONTAINERS
from service.jobs.job_table import Jobs, State, plain_name
from service.runtime.asker import Asker
from service.runtime.errors import NotFound, NotTaken
from service.runtime.settings import Settings
from service.scan.journal import FILE as JOURNAL
from service.scan.journal import LOCK, SUMMARY

REPORT_FILES = frozenset(
    {
        "report.html",
        SUMMARY,
        "files.csv",
        "files.parquet",
        "segments.csv",
        "segments.parquet",
        "errors.csv",
    }
)


class ScanEntry(BaseModel):
    """One scan."""

    id: str
    name: str = Field(description="Of the dataset, as it was sent.")
    state: State
    files: int = Field(description="Files of the dataset that have been heard so far.")
    error: str | None = Field(description="Why it failed.")
    created_at: str = Field(description="ISO 8601, UTC.")
    finished_at: str | None
    summary: dict[str, Any] | None = Field(description="summary.json, once it is done.")
    report: list[str] = Field(description="Files of its report that can be fetched.")


class ScanPage(BaseModel):
    """Some of the scans, the newest first, and where the next ones start."""

    scans: list[ScanEntry]
    next_cursor: str | None


class Scans(Jobs):
    """Scans of one server; threads may share it."""

    kind = "scan"

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            settings,
            at_once=settings.scans_at_once,
            per_owner=settings.scans_per_owner,
            keep=settings.keep_scans,
        )

    def ask(self, upload: BinaryIO, name: str, options: dict[str, bool], asker: Asker) -> ScanEntry:
        """Ask for a scan of an upload.

        Raises NotTaken for what is no dataset by its name, and what `Jobs.add` does.
        """
        suffix = _suffix(name)
        if suffix is None:
            raise NotTaken(
                f"{name}: is no dataset by its name; send one of {', '.join(CONTAINERS)}, or a sound"
            )
        file = plain_name(name, f"dataset{suffix}")
        return self._entry(self.add({file: upload}, name, options, asker))

    def get(self, id: str, asker: Asker) -> ScanEntry:
        """A scan. Raises NotFound where there is none that the asker may see."""
        return self._entry(self.row(id, asker))

    def page(self, asker: Asker, cursor: str | None = None) -> ScanPage:
        """A page of the scans that the asker may see, the newest first."""
        rows, more = self.rows(asker, cursor)
        return ScanPage(scans=[self._entry(row) for row in rows], next_cursor=more)

    def report(self, id: str, name: str, asker: Asker) -> Path:
        """A file of a scan's report. Raises NotFound."""
        self.row(id, asker)
        path = self._folder / id / "report" / name
        if name not in REPORT_FILES or not path.is_file():
            raise NotFound(f"scan {id} has no {name}, or not yet")
        return path

    def command(self, row: sql.Row) -> Sequence[str]:
        """`earmark scan`, as the asker sees the library."""
        return [
            *("scan", row.file, "--report", "report", "--resume"),
            *(f"--{name}" for name, wanted in row.options.items() if wanted),
            *(("--owner", row.seen_by) if row.seen_by is not None else ()),
        ]

    def lock(self, folder: Path) -> Path:
        """A journal is one process's."""
        return folder / "report" / LOCK

    def is_complete(self, folder: Path) -> bool:
        """Whether there is a report."""
        return (folder / "report" / SUMMARY).is_file()

    def _entry(self, row: sql.Row) -> ScanEntry:
        report = self._folder / row.id / "report"
        summary = report / SUMMARY
        done = row.state == "done" and summary.is_file()
        return ScanEntry(
            id=row.id,
            name=row.name,
            state=row.state,
            files=files_heard(report / JOURNAL),
            error=row.error,
            created_at=row.created_at,
            finished_at=row.finished_at,
            summary=json.loads(summary.read_text()) if done else None,
            report=sorted(it for it in REPORT_FILES if (report / it).is_file()) if done else [],
        )


def _suffix(name: str) -> str | None:
    """The part of a dataset's name that says what it is; None if it says nothing."""
    lower = name.lower()
    for suffix in sorted(CONTAINERS, key=len, reverse=True):
        if lower.endswith(suffix):
            return suffix
    suffix = Path(lower).suffix
    return suffix if suffix in AUDIO_EXTENSIONS and re.fullmatch(r"\.\w+", suffix) else None


def files_heard(journal: Path) -> int:
    """Members that a scan's journal has."""
    if not journal.is_file():
        return 0
    url = sql.URL.create("sqlite", database=str(journal))
    engine = sql.create_engine(url, connect_args={"timeout": 5})
    with suppress(sql.exc.DBAPIError), engine.connect() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM members").scalar_one())
    return 0
