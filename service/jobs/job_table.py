"""Jobs that are asked for over HTTP: kept in a database, run by a queue, in a process of their own each.

    <folder>/jobs.sqlite       what was asked for and what became of it, unless it is in PostgreSQL
    <folder>/<id>/             what was sent, until the job has ended, and what the job leaves

A job is a command of `earmark`. What a server that is stopped or killed has not finished is taken up when
it is started again, or by another server of the same PostgreSQL database and folder; that the command can
be run again, and does nothing twice, is the command's business. The table alone says what is to be done, so
the queue (Huey's) is in memory. Of several servers one claims a job, and has it until it is done or its
connection to the database is lost. Kinds of jobs: `service.jobs.scan_jobs`, `service.jobs.ingest_jobs`.
"""

import logging
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Literal

import sqlalchemy as sql
from filelock import FileLock, Timeout
from huey import MemoryHuey
from huey.consumer import Consumer

from fingerprint.errors import reason_of
from index.database import Database, DatabaseErrors, Text, database
from index.errors import LibraryError
from index.schema import Schema
from service.cli.group import SOME_FAILED
from service.runtime.settings import Settings
from service.web.auth import Asker
from service.web.problems import ProblemError, unavailable

UNFINISHED = ("queued", "running")
SCHEMA = Schema(Path(__file__).parent / "migrations", "jobs_version", 1)
_LOOK_EVERY = 2.0  # s, for what other servers have left undone or were told to end
# Python's own status for an error that nobody expected is SOME_FAILED.
_START = """
import sys, traceback
try:
    from service.command import main
    main(prog_name="earmark")
except Exception:
    traceback.print_exc()
    sys.exit(70)
"""
_LONGEST_ERROR = 1000  # characters
_ID = re.compile("[0-9a-f]{16}")
# A name that a file can have as it is, beside the folders that jobs leave.
_PLAIN = re.compile(r"[\w(][\w .,()+-]{0,150}\.\w+")

_log = logging.getLogger(__name__)

State = Literal["queued", "running", "done", "failed", "cancelled"]


class _Consumer(Consumer):
    """Huey's consumer inside of a server, which has signal handlers of its own."""

    def _set_signal_handlers(self) -> None:
        pass


class Jobs:
    """Jobs of one kind, of one server; threads may share it."""

    kind: str  # what messages call one

    def __init__(
        self, settings: Settings, folder: Path, *, at_once: int, per_owner: int, keep: timedelta
    ) -> None:
        """at_once : jobs that run at the same time; per_owner : unfinished ones that an owner may have"""
        self._settings = settings
        self._folder = folder
        self._at_once = at_once
        self._per_owner = per_owner
        self._keep = keep
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._ending: set[str] = set()  # of those that run, the ones that were told to end
        self._taken: set[str] = set()  # what waits here or is running
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._database: Database | None = None
        self._consumer: _Consumer | None = None
        self._looking = threading.Thread(target=self._look, daemon=True)
        self._metadata = sql.MetaData()
        self._jobs = sql.Table(
            f"{self.kind}s",
            self._metadata,
            sql.Column("id", Text, primary_key=True),
            sql.Column("owner", Text),
            sql.Column("seen_by", Text),
            sql.Column("name", Text, nullable=False),
            sql.Column("file", Text, nullable=False),
            sql.Column("options", sql.JSON, nullable=False),
            sql.Column("state", Text, nullable=False),
            sql.Column("error", Text),
            sql.Column("created_at", Text, nullable=False),
            sql.Column("finished_at", Text),
        )

    # What a kind of jobs is about

    def command(self, row: sql.Row, folder: Path) -> Sequence[str]:
        """What `earmark` is told to do a job."""
        raise NotImplementedError

    def lock(self, folder: Path) -> Path | None:
        """What a job's process holds as long as it is at work, if it must not be at work twice."""

    def heard(self, row: sql.Row, line: str) -> None:
        """Take note of a line that a job's process has printed."""

    def is_complete(self, folder: Path) -> bool:
        """Whether a job's process that has ended well has left what it should."""
        return True

    def forget(self, connection: sql.Connection, ids: Collection[str]) -> None:
        """Delete what is noted about jobs."""
        if ids:
            these = self._jobs.c.id == sql.bindparam("gone")
            connection.execute(sql.delete(self._jobs).where(these), [{"gone": id} for id in ids])

    # The server's part

    def start(self) -> None:
        """Begin to run what is waiting, what a server before this one began first."""
        self._folder.mkdir(parents=True, exist_ok=True)
        kept = database(self._folder / "jobs.sqlite", self._settings.database, "READ COMMITTED")
        _make_tables(kept, self.kind)
        self._database = kept
        queue = MemoryHuey(f"{self.kind}s")
        self._run = queue.task()(self._have_done)
        self._forget_old()
        self._take_up()
        self._consumer = _Consumer(queue, workers=self._at_once, periodic=False, max_delay=1.0)
        self._consumer.start()
        self._looking.start()

    def stop(self) -> None:
        """Let running jobs finish what they have in hand; they go on with the next server."""
        self._stopping.set()
        with self._lock:
            for id in self._running:
                self._tell_to_end(id)
        if self._consumer is not None:
            self._looking.join()
            self._consumer.stop(graceful=True)
        if self._database is not None:
            self._database.engine.dispose()

    # What may be asked

    def add(
        self,
        sent: Mapping[str, BinaryIO],
        name: str,
        options: Mapping[str, Any],
        asker: Asker,
        check: Callable[[Path], None] = lambda folder: None,
    ) -> sql.Row:
        """Ask for a job.

        sent : the files that it is about, by the names that they get in its folder, the main one first
        name : of the main one, as it was sent
        check : told the folder with the files, may raise what is wrong with them

        Raises a 429 for an owner who has too many, a 503 where the disk has no room.
        """
        id = secrets.token_hex(8)
        with self._begin() as connection:
            self._require_room(connection, asker, id)
        folder = self._folder / id
        with self._claim(id):
            self._receive(id, folder, sent, name, options, asker, check)
        self._enqueue(id)
        return self.row(id, asker)

    def _receive(
        self,
        id: str,
        folder: Path,
        sent: Mapping[str, BinaryIO],
        name: str,
        options: Mapping[str, Any],
        asker: Asker,
        check: Callable[[Path], None],
    ) -> None:
        try:
            folder.mkdir()
            for file, stream in sent.items():
                with (folder / file).open("wb") as copy:
                    shutil.copyfileobj(stream, copy, 1 << 20)
            check(folder)
            with self._begin_alone() as connection:
                # written first: SQLite lets no other write between what is read and what is written then
                connection.execute(
                    sql.insert(self._jobs).values(
                        id=id,
                        owner=asker.owner or "",
                        seen_by=asker.seen_by,
                        name=name,
                        file=next(iter(sent)),
                        options=dict(options),
                        state="queued",
                        created_at=_now(),
                    )
                )
                self._require_room(connection, asker, id)  # others may have come by now
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                reason = reason_of(error)
                raise unavailable(f"what was sent cannot be kept ({reason})") from error
            raise

    def _require_room(self, connection: sql.Connection, asker: Asker, id: str) -> None:
        """Raises a 429 for an owner who has as many unfinished jobs as there may be beside this one."""
        query = sql.select(sql.func.count()).where(
            self._jobs.c.state.in_(UNFINISHED),
            self._jobs.c.owner == (asker.owner or ""),
            self._jobs.c.id != id,
        )
        if asker.key and connection.execute(query).scalar_one() >= self._per_owner:
            raise ProblemError(
                429,
                f"{asker.owner} has {self._per_owner} {self.kind}s that are not finished",
                headers={"Retry-After": "60"},
            )

    def row(self, id: str, asker: Asker) -> sql.Row:
        """A job. Raises a 404 where there is none that the asker may see."""
        row = self._find(id)
        if row is None or not (asker.may("admin") or row.owner == (asker.owner or "")):
            raise ProblemError(404, f"no {self.kind} {id!r}")
        return row

    def rows(self, asker: Asker) -> Sequence[sql.Row]:
        """The jobs that the asker may see, the newest first."""
        query = sql.select(self._jobs).order_by(self._jobs.c.created_at.desc(), self._jobs.c.id)
        if not asker.may("admin"):
            query = query.where(self._jobs.c.owner == (asker.owner or ""))
        with self._begin() as connection:
            return connection.execute(query.limit(200)).all()

    def unfinished(self) -> int:
        """Jobs that wait or are running."""
        query = sql.select(sql.func.count()).where(self._jobs.c.state.in_(UNFINISHED))
        with self._begin() as connection:
            return int(connection.execute(query).scalar_one())

    def cancel(self, id: str, asker: Asker) -> None:
        """End a job, or forget one that has ended, with what it left. Raises a 404."""
        row = self.row(id, asker)
        if row.state in UNFINISHED:
            self.end(id, "cancelled")
            return
        with self._begin() as connection:
            self.forget(connection, [id])
        shutil.rmtree(self._folder / id, ignore_errors=True)

    def end(self, id: str, state: State, error: str | None = None) -> None:
        """End a job that has not ended, and its process; what was sent is deleted."""
        if self._note_end(id, state, error):
            with self._claim(id) as is_mine:
                if is_mine:  # or else by the server that runs it
                    self._delete_sent(id)

    def _note_end(self, id: str, state: State, error: str | None = None) -> bool:
        """End a job that has not ended, and its process here; whether there was no such process."""
        query = sql.update(self._jobs).where(
            self._jobs.c.id == id, self._jobs.c.state.in_(UNFINISHED)
        )
        with self._lock:
            with self._begin() as connection:
                values = query.values(state=state, error=error, finished_at=_now())
                if not connection.execute(values).rowcount:
                    return False  # it has ended before
            self._tell_to_end(id)  # what was sent is deleted when it has ended
            return id not in self._running

    # How a job is done

    def _enqueue(self, id: str) -> None:
        """Have a job done here, unless that is about to be."""
        with self._lock:
            if id not in self._taken:
                self._taken.add(id)
                self._run(id)

    def _take_up(self) -> None:
        """Enqueue what is unfinished and can be done here; end what was ended by another server."""
        with self._lock:
            mine = set(self._running)
        with self._begin() as connection:
            query = sql.select(self._jobs.c.id).where(self._jobs.c.state.in_(UNFINISHED))
            unfinished = connection.execute(query.order_by(self._jobs.c.created_at)).scalars().all()
        for id in unfinished:
            if (self._folder / id).is_dir():
                self._enqueue(id)
        with self._lock:
            for id in mine.difference(unfinished):
                self._tell_to_end(id)

    def _look(self) -> None:
        """Look for what there is to do, until the server stops."""
        told = False
        while not self._stopping.wait(_LOOK_EVERY):
            try:
                self._take_up()
                told = False
            except LibraryError as error:
                if not told:
                    _log.warning("%s", error)
                told = True

    def _tell_to_end(self, id: str) -> None:
        """End a process, if it is there, once: told twice, it would drop what it has in hand."""
        if id in self._running and id not in self._ending:
            self._ending.add(id)
            self._running[id].terminate()

    def _have_done(self, id: str) -> None:
        """Run one job, in the queue's thread; what the database is not there for is left for later."""
        try:
            with self._claim(id) as is_mine:
                if is_mine:
                    self._do(id, is_mine)
        except LibraryError as error:
            _log.warning("%s %s is left for later: %s", self.kind, id, error)
        with self._lock:
            self._taken.discard(id)

    def _do(self, id: str, is_mine: Callable[[], bool]) -> None:
        """Run one job. Raises LibraryError where what becomes of it cannot be noted."""
        row = self._find(id)
        if row is None or row.state not in UNFINISHED:
            return
        folder = self._folder / id
        lock = self.lock(folder)
        if lock is not None and not self._is_free(lock):
            return
        with tempfile.TemporaryFile() as complaints:
            process = self._begin_process(row, complaints)
            if process is None:
                return
            try:
                assert process.stdout is not None
                with process.stdout:
                    for line in process.stdout:
                        self.heard(row, line)
            except BaseException:
                with self._lock:
                    self._tell_to_end(id)
                raise
            finally:
                status = process.wait()
                with self._lock:
                    del self._running[id]
                    self._ending.discard(id)
            complaints.seek(0)
            said = complaints.read().decode(errors="replace").strip().splitlines()
        if not is_mine():
            return  # the database was away, which the process may have failed for
        if status in (0, SOME_FAILED) and self.is_complete(folder):
            self._note_end(id, "done")
        elif not self._stopping.is_set() and status != 128 + signal.SIGTERM:
            reason = said[-1] if said else f"its process ended (status {status}); ask again"
            self._note_end(id, "failed", reason.replace(f"{folder}/", "")[-_LONGEST_ERROR:])
        row = self._find(id)
        if row is None:  # it was cancelled and forgotten while its process was ending
            with self._begin() as connection:
                self.forget(connection, [id])
            shutil.rmtree(folder, ignore_errors=True)
        elif row.state not in UNFINISHED:
            self._delete_sent(id)

    def _begin_process(self, row: sql.Row, complaints: BinaryIO) -> "subprocess.Popen[str] | None":
        """A job's process; None if it is not to be run any more, or not by this server."""
        command = [
            *(sys.executable, "-c", _START, "--library", str(self._settings.library)),
            *self.command(row, self._folder / row.id),
        ]
        # what is sent to a server has that limit, not the one of files that the command line reads
        settings = self._settings.model_copy(update={"max_size": self._settings.max_upload})
        environment = os.environ | settings.as_environment()
        with self._lock:
            before = self._find(row.id)
            if before is None or before.state not in UNFINISHED or self._stopping.is_set():
                return None
            query = sql.update(self._jobs).where(self._jobs.c.id == row.id)
            with self._begin() as connection:
                connection.execute(query.values(state="running"))
            process = self._running[row.id] = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # Ctrl-C at the terminal is for the server
            )
        return process

    def _is_free(self, lock: Path) -> bool:
        """Wait for a process that a killed server left at work; False if this server is stopped first."""
        while lock.exists() and not self._stopping.is_set():
            with suppress(Timeout), FileLock(lock, timeout=1):
                break
        return not self._stopping.is_set()

    def _find(self, id: str) -> sql.Row | None:
        with self._begin() as connection:
            return connection.execute(sql.select(self._jobs).where(self._jobs.c.id == id)).first()

    def _delete_sent(self, id: str) -> None:
        """Delete the files of a job that has ended; the folders in its folder are what it leaves."""
        with suppress(OSError):
            for path in (self._folder / id).iterdir():
                if not path.is_dir():
                    path.unlink(missing_ok=True)

    def _forget_old(self) -> None:
        """Delete what has been finished for longer than is kept, and what never became a job."""
        until = (datetime.now(UTC) - self._keep).isoformat(timespec="seconds")
        with self._begin() as connection:
            query = sql.select(self._jobs.c.id).where(self._jobs.c.finished_at < until)
            self.forget(connection, connection.execute(query).scalars().all())
            known = set(connection.execute(sql.select(self._jobs.c.id)).scalars())
        for folder in self._folder.iterdir():
            if not _ID.fullmatch(folder.name) or folder.name in known:
                continue
            with self._claim(folder.name) as is_mine:
                if is_mine and self._find(folder.name) is None:  # or it is just being received
                    shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _begin(self) -> Iterator[sql.Connection]:
        """A transaction. Raises LibraryError where the database cannot be used."""
        kept = self._kept()
        try:
            with kept.engine.begin() as connection:
                yield connection
        except DatabaseErrors as error:
            raise _unusable(kept, self.kind, error) from None

    @contextmanager
    def _begin_alone(self) -> Iterator[sql.Connection]:
        """A transaction of which there is one at a time, on all servers.

        Raises LibraryError where the database cannot be used, TimeoutError if others take too long.
        """
        kept = self._kept()
        try:
            with kept.lock("jobs", 30) as connection, connection.begin():
                yield connection
        except DatabaseErrors as error:
            raise _unusable(kept, self.kind, error) from None

    @contextmanager
    def _claim(self, id: str) -> Iterator[Callable[[], bool] | None]:
        """A job for this server alone: what tells whether it still is; None if it is another's.

        Raises LibraryError where the database cannot be used.
        """
        kept = self._kept()
        with ExitStack() as stack:
            try:
                is_mine = stack.enter_context(kept.claim(f"{self.kind} {id}"))
            except DatabaseErrors as error:
                raise _unusable(kept, self.kind, error) from None
            yield is_mine

    def _kept(self) -> Database:
        if self._database is None:
            raise ProblemError(503, f"{self.kind}s are not taken yet", headers={"Retry-After": "5"})
        return self._database


def _make_tables(kept: Database, kind: str) -> None:
    """The tables of all kinds of jobs. Raises LibraryError where there can be none, or newer ones are."""
    try:
        with kept.lock("jobs", 30) as connection, connection.begin():
            found = SCHEMA.format_of(connection)
            if found is not None and found > SCHEMA.format:
                raise LibraryError(
                    f"{kept.name}: its {kind}s have format {found}, this Earmark reads format "
                    f"{SCHEMA.format}; use the Earmark that made them"
                )
            if found != SCHEMA.format:
                SCHEMA.upgrade(connection)
    except (OSError, *DatabaseErrors) as error:
        raise _unusable(kept, kind, error) from None


def _unusable(kept: Database, kind: str, error: Exception) -> LibraryError:
    return kept.error(f"{kept.name}: {kind}s cannot be kept", error, "nothing is lost")


def plain_name(name: str, otherwise: str) -> str:
    """The name that a file gets which was sent under this one."""
    return name if _PLAIN.fullmatch(name) else otherwise


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
