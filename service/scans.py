"""Scans that are asked for over HTTP: kept in a database, run by a queue, in a process of their own each.

    <scans>/jobs.sqlite                    what was asked for and what became of it
    <scans>/queue.sqlite                   the queue (Huey's)
    <scans>/<id>/                          the upload, until it has been scanned, and report/

A job runs `earmark scan --resume` as whose key it is. A server that is stopped or killed takes up what was
not finished when it is started again; the scan's own journal sees to it that nothing is done twice.
"""

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

import sqlalchemy as sql
from filelock import FileLock, Timeout
from huey import SqliteHuey
from huey.consumer import Consumer
from pydantic import BaseModel, Field

from service.access import Asker
from service.command import SOME_FAILED
from service.dataset import AUDIO_EXTENSIONS, CONTAINERS
from service.journal import FILE as JOURNAL
from service.journal import LOCK
from service.problems import ProblemError
from service.settings import Settings

REPORT_FILES = frozenset(
    {
        "report.html",
        "summary.json",
        "files.csv",
        "files.parquet",
        "segments.csv",
        "segments.parquet",
        "errors.csv",
    }
)
UNFINISHED = ("queued", "running")
_START = "from service.cli import main; main(prog_name='earmark')"
# A dataset's name that its file can have as it is, beside a folder of the name "report".
_PLAIN = re.compile(r"[\w(][\w .,()+-]{0,150}\.\w+")
_LONGEST_ERROR = 1000  # characters

State = Literal["queued", "running", "done", "failed", "cancelled"]

_metadata = sql.MetaData()
_jobs = sql.Table(
    "scans",
    _metadata,
    sql.Column("id", sql.Text, primary_key=True),
    sql.Column("owner", sql.Text),
    sql.Column("seen_by", sql.Text),
    sql.Column("name", sql.Text, nullable=False),
    sql.Column("file", sql.Text, nullable=False),
    sql.Column("options", sql.JSON, nullable=False),
    sql.Column("state", sql.Text, nullable=False, index=True),
    sql.Column("error", sql.Text),
    sql.Column("created_at", sql.Text, nullable=False),
    sql.Column("finished_at", sql.Text),
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
    """The scans that are there, the newest first."""

    scans: list[ScanEntry]


class _Consumer(Consumer):
    """Huey's consumer inside of a server, which has signal handlers of its own."""

    def _set_signal_handlers(self) -> None:
        pass


class Scans:
    """Scans of one server; threads may share it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.scans
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._engine: sql.Engine | None = None
        self._consumer: _Consumer | None = None

    def start(self) -> None:
        """Begin to run what is waiting, what a server before this one began first."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._engine = sql.create_engine(
            f"sqlite:///{self._folder / 'jobs.sqlite'}", connect_args={"timeout": 30}
        )
        _metadata.create_all(self._engine)
        self._queue = SqliteHuey("scans", filename=str(self._folder / "queue.sqlite"))
        self._run = self._queue.task()(self._scan)
        self._queue.flush()  # the jobs' own table says what is unfinished
        self._forget_old()
        with self._begin() as connection:
            query = sql.select(_jobs.c.id).where(_jobs.c.state.in_(UNFINISHED))
            waiting = connection.execute(query.order_by(_jobs.c.created_at)).scalars().all()
        for id in waiting:
            self._run(id)
        self._consumer = _Consumer(
            self._queue, workers=self._settings.scans_at_once, periodic=False, max_delay=1.0
        )
        self._consumer.start()

    def stop(self) -> None:
        """Let running scans note what they have; they go on with the next server."""
        self._stopping.set()
        with self._lock:
            for process in self._running.values():
                process.terminate()
        if self._consumer is not None:
            self._consumer.stop(graceful=True)
        if self._engine is not None:
            self._engine.dispose()

    def add(self, upload: BinaryIO, name: str, options: dict[str, bool], asker: Asker) -> ScanEntry:
        """Ask for a scan of an upload.

        Raises a 415 for what is no dataset by its name, a 429 for an owner who has too many.
        """
        suffix = _suffix(name)
        if suffix is None:
            raise ProblemError(
                415,
                f"{name}: is no dataset by its name; send one of {', '.join(CONTAINERS)}, or a sound",
            )
        with self._begin() as connection:
            query = sql.select(sql.func.count()).where(
                _jobs.c.state.in_(UNFINISHED), _jobs.c.owner == (asker.owner or "")
            )
            if (
                asker.key
                and connection.execute(query).scalar_one() >= self._settings.scans_per_owner
            ):
                raise ProblemError(
                    429,
                    f"{asker.owner} has {self._settings.scans_per_owner} scans that are not finished",
                    headers={"Retry-After": "60"},
                )
        id = secrets.token_hex(8)
        folder = self._folder / id
        folder.mkdir()
        plain = _PLAIN.fullmatch(name) is not None
        path = folder / (name if plain else f"dataset{suffix}")
        with path.open("wb") as file:
            shutil.copyfileobj(upload, file, 1 << 20)
        with self._begin() as connection:
            connection.execute(
                sql.insert(_jobs).values(
                    id=id,
                    owner=asker.owner or "",
                    seen_by=asker.seen_by,
                    name=name,
                    file=path.name,
                    options=options,
                    state="queued",
                    created_at=_now(),
                )
            )
        self._run(id)
        return self.get(id, asker)

    def get(self, id: str, asker: Asker) -> ScanEntry:
        """A scan. Raises a 404 where there is none that the asker may see."""
        return self._entry(self._row(id, asker))

    def all(self, asker: Asker) -> list[ScanEntry]:
        """The scans that the asker may see, the newest first."""
        query = sql.select(_jobs).order_by(_jobs.c.created_at.desc(), _jobs.c.id).limit(200)
        if not asker.may("admin"):
            query = query.where(_jobs.c.owner == (asker.owner or ""))
        with self._begin() as connection:
            return [self._entry(row) for row in connection.execute(query)]

    def unfinished(self) -> int:
        """Scans that wait or are running."""
        query = sql.select(sql.func.count()).where(_jobs.c.state.in_(UNFINISHED))
        with self._begin() as connection:
            return int(connection.execute(query).scalar_one())

    def cancel(self, id: str, asker: Asker) -> None:
        """End a scan, or forget one that has ended, with its report. Raises a 404."""
        row = self._row(id, asker)
        if row.state in UNFINISHED:
            self._ended(id, "cancelled")
            with self._lock:
                if process := self._running.get(id):
                    process.terminate()
            return
        with self._begin() as connection:
            connection.execute(sql.delete(_jobs).where(_jobs.c.id == id))
        shutil.rmtree(self._folder / id, ignore_errors=True)

    def report(self, id: str, name: str, asker: Asker) -> Path:
        """A file of a scan's report. Raises a 404."""
        self._row(id, asker)
        path = self._folder / id / "report" / name
        if name not in REPORT_FILES or not path.is_file():
            raise ProblemError(404, f"scan {id} has no {name}, or not yet")
        return path

    def _row(self, id: str, asker: Asker) -> sql.Row:
        with self._begin() as connection:
            row = connection.execute(sql.select(_jobs).where(_jobs.c.id == id)).first()
        if row is None or not (asker.may("admin") or row.owner == (asker.owner or "")):
            raise ProblemError(404, f"no scan {id!r}")
        return row

    def _entry(self, row: sql.Row) -> ScanEntry:
        report = self._folder / row.id / "report"
        summary = report / "summary.json"
        done = row.state == "done" and summary.is_file()
        return ScanEntry(
            id=row.id,
            name=row.name,
            state=row.state,
            files=_heard(report / JOURNAL),
            error=row.error,
            created_at=row.created_at,
            finished_at=row.finished_at,
            summary=json.loads(summary.read_text()) if done else None,
            report=sorted(it for it in REPORT_FILES if (report / it).is_file()) if done else [],
        )

    def _scan(self, id: str) -> None:
        """Run one job, in the queue's thread."""
        with self._begin() as connection:
            row = connection.execute(sql.select(_jobs).where(_jobs.c.id == id)).first()
            if row is None or row.state not in UNFINISHED or self._stopping.is_set():
                return
            connection.execute(sql.update(_jobs).where(_jobs.c.id == id).values(state="running"))
        folder = self._folder / id
        if not self._is_free(folder / "report" / LOCK):
            return
        command = [
            *(sys.executable, "-c", _START, "--library", str(self._settings.library)),
            *("scan", str(folder / row.file), "--report", str(folder / "report"), "--resume"),
            *(f"--{name}" for name, wanted in row.options.items() if wanted),
            *(("--owner", row.seen_by) if row.seen_by is not None else ()),
        ]
        environment = os.environ | {
            f"EARMARK_{name.upper()}": str(value)
            for name, value in (
                ("max_duration", f"{self._settings.max_duration.total_seconds()} s"),
                ("max_size", int(self._settings.max_upload)),
                ("jobs", self._settings.jobs),
            )
        }
        with self._lock:
            if self._stopping.is_set():
                return
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C at the terminal is for the server
            )
            self._running[id] = process
        try:
            _, said = process.communicate()
        finally:
            with self._lock:
                del self._running[id]
        reported = (folder / "report" / "summary.json").is_file()
        if process.returncode in (0, SOME_FAILED) and reported:
            self._ended(id, "done")
            (folder / row.file).unlink(missing_ok=True)
        elif not self._stopping.is_set() and process.returncode != 128 + signal.SIGTERM:
            lines = said.decode(errors="replace").strip().splitlines()
            reason = lines[-1] if lines else f"exit status {process.returncode}"
            self._ended(id, "failed", reason.replace(str(folder), "")[-_LONGEST_ERROR:])

    def _is_free(self, lock: Path) -> bool:
        """Wait for a scan that a killed server left at work; False if this server is stopped first."""
        while lock.exists() and not self._stopping.is_set():
            with suppress(Timeout), FileLock(lock, timeout=1):
                break
        return not self._stopping.is_set()

    def _ended(self, id: str, state: State, error: str | None = None) -> None:
        query = sql.update(_jobs).where(_jobs.c.id == id, _jobs.c.state.in_(UNFINISHED))
        with self._begin() as connection:
            connection.execute(query.values(state=state, error=error, finished_at=_now()))

    def _forget_old(self) -> None:
        """Delete what has been finished for longer than is kept."""
        until = (datetime.now(UTC) - self._settings.keep_scans).isoformat(timespec="seconds")
        with self._begin() as connection:
            query = sql.select(_jobs.c.id).where(_jobs.c.finished_at < until)
            old = connection.execute(query).scalars().all()
            connection.execute(sql.delete(_jobs).where(_jobs.c.id.in_(old)))
        for id in old:
            shutil.rmtree(self._folder / id, ignore_errors=True)

    @contextmanager
    def _begin(self) -> Iterator[sql.Connection]:
        if self._engine is None:
            raise ProblemError(503, "scans are not taken yet", headers={"Retry-After": "5"})
        with self._engine.begin() as connection:
            yield connection


def _suffix(name: str) -> str | None:
    """The part of a dataset's name that says what it is; None if it says nothing."""
    lower = name.lower()
    for suffix in sorted(CONTAINERS, key=len, reverse=True):
        if lower.endswith(suffix):
            return suffix
    suffix = Path(lower).suffix
    return suffix if suffix in AUDIO_EXTENSIONS and re.fullmatch(r"\.\w+", suffix) else None


def _heard(journal: Path) -> int:
    """Members that a scan's journal has."""
    if not journal.is_file():
        return 0
    engine = sql.create_engine(f"sqlite:///{journal}", connect_args={"timeout": 5})
    with suppress(sql.exc.DBAPIError), engine.connect() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM members").scalar_one())
    return 0


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
