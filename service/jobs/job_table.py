"""Jobs that are asked for over HTTP: kept in a table of the library, run in a process of their own each.

    <library>/jobs/jobs.sqlite       the table, unless the library's catalogue is in PostgreSQL
    <library>/jobs/<kind>s/<id>/     what was sent, until the job has ended, and what the job leaves

A job is a command of `earmark`. What a server that is stopped or killed has not finished is taken up by the
next one, or by another server of the same library; that the command can be run again, and does nothing twice,
is the command's business. The table alone says what is to be done. Of several servers one claims a job, and
has it until it is done or the server ends. Owners take turns. A job carries the id of its library: a table
that another library's jobs got into shows and runs none of them. Kinds of jobs: `service.jobs.scan_jobs`,
`service.jobs.ingest_jobs`.
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
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Literal

import sqlalchemy as sql
from filelock import FileLock, Timeout

from fingerprint.errors import reason_of
from index.database import Database, DatabaseErrors, Text, database, private
from index.errors import LibraryError
from index.schema import Schema
from service.runtime.asker import Asker
from service.runtime.errors import Busy, NotFound, TooMuch
from service.runtime.exit_status import CRASHED, SOME_FAILED
from service.runtime.settings import Settings

UNFINISHED = ("queued", "running")
SCHEMA = Schema(Path(__file__).parent / "migrations", "jobs_version", 1)
FOLDER = "jobs"  # in the library
PAGE = 100
_LOOK_EVERY = 2.0  # s, for what other servers have left undone or were told to end
_FORGET_EVERY = 3600.0  # s, for what has been kept for long enough
_NICE = 5  # below requests, which somebody waits for
_MEMORY = 8 * 2**30  # bytes that a process of a job may take; its workers take less
# A job's files are its owner's. Python's own status for an error that nobody expected is SOME_FAILED.
# Begins the line that says why a job crashed: what ends with its process may complain after it.
_REASON = "the job crashed: "
_START = f"""
import os, resource, sys, traceback
os.umask(0o077)
os.nice({_NICE})
resource.setrlimit(resource.RLIMIT_DATA, ({_MEMORY}, {_MEMORY}))
try:
    from service.command import main
    main(prog_name="earmark")
except Exception as error:
    traceback.print_exc()
    print({_REASON!r} + traceback.format_exception_only(error)[-1].strip(), file=sys.stderr)
    sys.exit({CRASHED})
"""
_LONGEST_ERROR = 1000  # characters
_LONGEST_FILE = 200  # bytes of a file's name, of the 255 that file systems take
_ID = re.compile("[0-9a-f]{16}")
# A name that a file can have as it is, beside the folders that jobs leave.
_PLAIN = re.compile(r"[\w(][\w .,()+-]*\.\w+")

_log = logging.getLogger(__name__)

State = Literal["queued", "running", "done", "failed", "cancelled"]


class Jobs:
    """Jobs of one kind, of one server; threads may share it."""

    kind: str  # what messages call one

    def __init__(
        self, settings: Settings, *, at_once: int, per_owner: int, keep: timedelta
    ) -> None:
        """at_once : jobs that run at the same time; per_owner : unfinished ones that an owner may have"""
        self._settings = settings
        self._library = settings.library.absolute()
        self._folder = self._library / FOLDER / f"{self.kind}s"
        self._at_once = at_once
        self._per_owner = per_owner
        self._keep = keep
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._ending: set[str] = set()  # of those that run, the ones that were told to end
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._wake = threading.Condition()
        self._database: Database | None = None
        self._library_id = ""
        self._threads = ThreadPoolExecutor(at_once + 1, f"{self.kind}s")
        self._metadata = sql.MetaData()
        self._jobs = sql.Table(
            f"{self.kind}s",
            self._metadata,
            sql.Column("number", sql.Integer, primary_key=True),
            sql.Column("id", Text, nullable=False),
            sql.Column("library", Text, nullable=False),
            sql.Column("owner", Text),
            sql.Column("seen_by", Text),
            sql.Column("name", Text, nullable=False),
            sql.Column("file", Text, nullable=False),
            sql.Column("options", sql.JSON, nullable=False),
            sql.Column("state", Text, nullable=False),
            sql.Column("error", Text),
            sql.Column("created_at", Text, nullable=False),
            sql.Column("started_at", Text),
            sql.Column("finished_at", Text),
        )

    # What a kind of jobs is about

    def command(self, row: sql.Row) -> Sequence[str]:
        """The arguments of `earmark` that do a job, run in the job's folder."""
        raise NotImplementedError

    def lock(self, folder: Path) -> Path | None:
        """The file that a job's process locks while it works, if two must not work at once."""

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

    def start(self, library_id: str) -> None:
        """Begin to run the jobs of a library that are waiting. Raises LibraryError."""
        try:
            for folder in (self._folder.parent, self._folder):
                folder.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            what = f"{self._folder}: {self.kind}s cannot be kept there"
            raise LibraryError(f"{what} ({error.strerror})") from None
        file = self._library / FOLDER / "jobs.sqlite"
        kept = database(file, self._settings.database, "READ COMMITTED")
        _make_tables(kept, self.kind)
        self._library_id = library_id
        self._database = kept
        self._forget_old()
        self._threads.submit(self._look)
        for _ in range(self._at_once):
            self._threads.submit(self._work)

    def stop(self) -> None:
        """Let running jobs finish what they have in hand, within the time that the server has to stop.

        They go on with the next server.
        """
        self._stopping.set()
        with self._wake:
            self._wake.notify_all()
        with self._lock:
            for id in self._running:
                self._tell_to_end(id)
        self._threads.shutdown()
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
        check : given the folder with the files, may raise what is wrong with them

        Raises TooMuch for an owner who has too many, Busy where the disk has no room.
        """
        id = secrets.token_hex(8)
        with self._begin() as connection:
            self._require_room(connection, asker, id)
        with self._claim(id):
            self._receive(id, sent, name, options, asker, check)
        with self._wake:
            self._wake.notify()
        return self.row(id, asker)

    def _receive(
        self,
        id: str,
        sent: Mapping[str, BinaryIO],
        name: str,
        options: Mapping[str, Any],
        asker: Asker,
        check: Callable[[Path], None],
    ) -> None:
        folder = self._folder / id
        try:
            folder.mkdir(mode=0o700)
            for file, stream in sent.items():
                with open(folder / file, "wb", opener=private) as copy:
                    shutil.copyfileobj(stream, copy, 1 << 20)
            check(folder)
            with self._begin_alone() as connection:
                # written first: SQLite lets no other write between what is read and what is written then
                connection.execute(
                    sql.insert(self._jobs).values(
                        id=id,
                        library=self._library_id,
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
                raise Busy(f"what was sent cannot be kept ({reason_of(error)})") from error
            raise

    def _require_room(self, connection: sql.Connection, asker: Asker, id: str) -> None:
        """Raises TooMuch for an owner who has as many unfinished jobs as there may be beside this one."""
        query = sql.select(sql.func.count()).where(
            *self._mine(self._jobs.c.state.in_(UNFINISHED)),
            self._jobs.c.owner == (asker.owner or ""),
            self._jobs.c.id != id,
        )
        if asker.key and connection.execute(query).scalar_one() >= self._per_owner:
            what = f"{asker.owner} has {self._per_owner} {self.kind}s that are not finished"
            raise TooMuch(what, 60)

    def row(self, id: str, asker: Asker) -> sql.Row:
        """A job. Raises NotFound where there is none that the asker may see."""
        row = self._find(id)
        if row is None or not (asker.may("admin") or row.owner == (asker.owner or "")):
            raise NotFound(f"no {self.kind} {id!r}")
        return row

    def rows(self, asker: Asker, cursor: str | None) -> tuple[Sequence[sql.Row], str | None]:
        """A page of the jobs that the asker may see, the newest first, and the cursor of the next."""
        jobs = self._jobs.c
        query = sql.select(self._jobs).where(*self._mine()).order_by(jobs.number.desc())
        if not asker.may("admin"):
            query = query.where(jobs.owner == (asker.owner or ""))
        if cursor:
            query = query.where(jobs.number < int(cursor))
        with self._begin() as connection:
            rows = connection.execute(query.limit(PAGE + 1)).all()
        more = str(rows[PAGE - 1].number) if len(rows) > PAGE else None
        return rows[:PAGE], more

    def unfinished(self) -> int:
        """Jobs that wait or are running."""
        query = sql.select(sql.func.count()).where(*self._mine(self._jobs.c.state.in_(UNFINISHED)))
        with self._begin() as connection:
            return int(connection.execute(query).scalar_one())

    def cancel(self, id: str, asker: Asker) -> None:
        """End a job, or forget one that has ended, with what it left. Raises NotFound."""
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

    def _mine(self, *conditions: sql.ColumnElement[bool]) -> tuple[sql.ColumnElement[bool], ...]:
        """Conditions on jobs, of this library alone."""
        return (self._jobs.c.library == self._library_id, *conditions)

    # How jobs are done

    def _work(self) -> None:
        """Do one job after the other, until the server stops. What goes wrong is left for later."""
        while not self._stopping.is_set():
            try:
                done = self._do_next()
            except LibraryError as error:
                _log.warning("a %s is left for later: %s", self.kind, error)
                done = False
            if not done:
                with self._wake:
                    if not self._stopping.is_set():
                        self._wake.wait(_LOOK_EVERY)

    def _do_next(self) -> bool:
        """Do the next job whose turn it is; whether there was one."""
        for id in self._in_turn():
            with self._claim(id) as is_mine:
                if is_mine:
                    self._do(id, is_mine)
                    return True
        return False

    def _in_turn(self) -> list[str]:
        """Unfinished jobs that can be done here, the oldest of the owner who has waited longest first."""
        jobs = self._jobs.c
        with self._begin() as connection:
            query = sql.select(jobs.id, jobs.owner).where(*self._mine(jobs.state.in_(UNFINISHED)))
            unfinished = connection.execute(query.order_by(jobs.number)).all()
            owners = sql.select(jobs.owner, sql.func.max(jobs.started_at).label("last"))
            last = {
                it.owner: it.last or ""
                for it in connection.execute(owners.where(*self._mine()).group_by(jobs.owner))
            }
        with self._lock:
            here = set(self._running)
        ready = [it for it in unfinished if it.id not in here and (self._folder / it.id).is_dir()]
        return [it.id for it in sorted(ready, key=lambda it: last.get(it.owner, ""))]

    def _look(self) -> None:
        """Look for what other servers ended, and for what is old, until the server stops."""
        told, forgotten = False, time.monotonic()
        while not self._stopping.wait(_LOOK_EVERY):
            try:
                self._end_elsewhere_ended()
                if time.monotonic() - forgotten > _FORGET_EVERY:
                    self._forget_old()
                    forgotten = time.monotonic()
                told = False
            except LibraryError as error:
                if not told:
                    _log.warning("%s", error)
                told = True

    def _end_elsewhere_ended(self) -> None:
        """Tell processes here to end whose jobs were ended by another server."""
        with self._lock:
            here = set(self._running)
        query = sql.select(self._jobs.c.id).where(
            self._jobs.c.id.in_(here), self._jobs.c.state.in_(UNFINISHED)
        )
        with self._begin() as connection:
            unfinished = connection.execute(query).scalars().all()
        with self._lock:
            for id in here.difference(unfinished):
                self._tell_to_end(id)

    def _tell_to_end(self, id: str) -> None:
        """End a process, if it is there, once: told twice, it would drop what it has in hand.

        It is killed where that takes too long.
        """
        process = self._running.get(id)
        if process is None or id in self._ending:
            return
        self._ending.add(id)
        process.terminate()
        patience = self._settings.stop_within.total_seconds() / 2
        killing = threading.Timer(patience, _kill, (process,))
        killing.daemon = True
        killing.start()

    def _do(self, id: str, is_mine: Callable[[], bool]) -> None:
        """Run one job. Raises LibraryError where what becomes of it cannot be noted."""
        row = self._find(id)
        if row is None or row.state not in UNFINISHED:
            return
        folder = self._folder / id
        lock = self.lock(folder)
        if lock is not None and not self._is_free(lock):
            return
        try:
            status, said = self._run(row)
        except OSError as error:
            # it was not begun: for want of a disk, of memory, of processes
            reason = f"its process cannot be started ({reason_of(error)}); ask again"
            self._note_end(id, "failed", reason)
            self._delete_sent(id)
            return
        if status is None or not is_mine():
            return  # stopped, or the database was away, which the process may have failed for
        if status in (0, SOME_FAILED) and self.is_complete(folder):
            self._note_end(id, "done")
        elif not (self._stopping.is_set() or status == 128 + signal.SIGTERM):
            reasons = [it.removeprefix(_REASON) for it in said if it.startswith(_REASON)]
            reason = (reasons or said or [f"its process ended (status {status}); ask again"])[-1]
            self._note_end(id, "failed", self._without_paths(reason, id)[-_LONGEST_ERROR:])
        row = self._find(id)
        if row is None:  # it was cancelled and forgotten while its process was ending
            with self._begin() as connection:
                self.forget(connection, [id])
            shutil.rmtree(folder, ignore_errors=True)
        elif row.state not in UNFINISHED:
            self._delete_sent(id)

    def _without_paths(self, text: str, id: str) -> str:
        """A message without the paths of this machine."""
        text = text.replace(f"{self._folder / id}/", "")
        return text.replace(str(self._library), "the library")

    def _run(self, row: sql.Row) -> tuple[int | None, list[str]]:
        """Run a job's process; its exit status, None where it was not begun, and what it complained of.

        Raises OSError where it cannot be started.
        """
        with tempfile.TemporaryFile() as complaints:
            process = self._begin_process(row, complaints)
            if process is None:
                return None, []
            limit = self._settings.max_job_time
            detail = f"not done after {limit}; split what is sent"
            timer = threading.Timer(limit.total_seconds(), self._end_late, (row.id, detail))
            timer.daemon = True
            timer.start()
            try:
                assert process.stdout is not None
                with process.stdout:
                    for line in process.stdout:
                        self.heard(row, line)
            except BaseException:
                with self._lock:
                    self._tell_to_end(row.id)
                raise
            finally:
                status = process.wait()
                timer.cancel()
                with self._lock:
                    del self._running[row.id]
                    self._ending.discard(row.id)
            complaints.seek(0)
            return status, complaints.read().decode(errors="replace").strip().splitlines()

    def _end_late(self, id: str, detail: str) -> None:
        """End a job that takes too long."""
        with suppress(LibraryError):
            self._note_end(id, "failed", detail)
        with self._lock:
            self._tell_to_end(id)

    def _begin_process(self, row: sql.Row, complaints: BinaryIO) -> "subprocess.Popen[str] | None":
        """A job's process; None if it is not to be run any more, or not by this server."""
        command = [
            # -P: what lies in the folder where it runs is no module of ours
            *(sys.executable, "-P", "-c", _START, "--library", str(self._library)),
            *self.command(row),
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
                started = datetime.now(UTC).isoformat()
                connection.execute(query.values(state="running", started_at=started))
            process = self._running[row.id] = subprocess.Popen(
                command,
                cwd=self._folder / row.id,  # so that messages name no path of this machine
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
        query = sql.select(self._jobs).where(*self._mine(self._jobs.c.id == id))
        with self._begin() as connection:
            return connection.execute(query).first()

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
            query = sql.select(self._jobs.c.id).where(*self._mine(self._jobs.c.finished_at < until))
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
                is_mine = stack.enter_context(kept.claim(f"{self.kind}-{id}"))
            except (OSError, *DatabaseErrors) as error:
                raise _unusable(kept, self.kind, error) from None
            yield is_mine

    def _kept(self) -> Database:
        if self._database is None:
            raise Busy(f"{self.kind}s are not taken yet")
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


def _kill(process: "subprocess.Popen[str]") -> None:
    """Kill a process and its children, if it has not ended."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def plain_name(name: str, otherwise: str) -> str:
    """The name that a file gets which was sent under this one."""
    return name if _PLAIN.fullmatch(name) and len(name.encode()) <= _LONGEST_FILE else otherwise


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
