"""Where a catalogue is kept: in a SQLite file beside the segments, or in a PostgreSQL database.

What the two do differently is here; the statements are SQLAlchemy Core and the same for both. A lock of
SQLite's is a file's. One of PostgreSQL's is held by a connection (an advisory lock, of the schema that the
tables are in), so that it ends with the process, or the machine, that had it; what is written under it is
written through that very connection, so that a writer that has lost its lock commits nothing more.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from filelock import FileLock
from sqlalchemy.engine import Connection, Engine

from index.errors import DatabaseAway, LibraryError

BESIDE = sql.make_url("sqlite://")  # a file beside the segments
POSTGRESQL = "postgresql+psycopg"
# What SQLAlchemy raises for a database's errors, and where all connections are in use for too long.
DatabaseErrors = (sql.exc.DBAPIError, sql.exc.TimeoutError)

_PATIENCE = 10  # seconds to wait for a connection
# Connections of one process to a PostgreSQL server, which by default has 100 for all; so many are kept open.
MOST_CONNECTIONS, _KEPT = 40, 5
_TURN = 60  # seconds that a search waits for others to end
_POLL = 0.05  # s between two tries to get a lock
# A machine that vanished is noticed, and its locks are free, after 20 + 4 × 10 s.
_KEEPALIVE = {"keepalives_idle": 20, "keepalives_interval": 10, "keepalives_count": 4}


def private(path: str, flags: int) -> int:
    """Open a file that nobody else may read, as `open`'s `opener`."""
    return os.open(path, flags, 0o600)


class Text(sql.TypeDecorator[str]):
    """Text that is compared byte by byte everywhere, as SQLite does.

    No text that is kept has a NUL, which PostgreSQL cannot have; one that is looked for is not found.
    """

    impl = sql.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sql.Dialect) -> Any:
        """Of PostgreSQL's orders the one that is the same on all machines."""
        return sql.Text(collation="C" if dialect.name == "postgresql" else None)

    def process_bind_param(self, value: str | None, dialect: sql.Dialect) -> str | None:
        """U+FFFD, the replacement character, in place of NULs."""
        return value.replace("\0", "\ufffd") if value else value


class SqliteFile:
    """A database in a file of its own.

    Files of SQLite's log cannot be made in a folder that is read-only here: where no writer elsewhere has
    made them, the database is whole without them, and is read as a file that does not change, which is
    looked at anew for each use.
    """

    def __init__(self, file: Path, journal: str = "WAL") -> None:
        """journal : SQLite's; in write-ahead mode, WAL, readers and the writer do not wait."""
        self._file = file
        self.url = BESIDE
        self.name = str(file)
        # pathlib's tests raise for a folder that may not be entered, these do not
        self._writable = not os.path.isdir(file.parent) or os.access(file.parent, os.W_OK)
        self.engine = sql.create_engine(
            "sqlite://",
            creator=self._open,
            poolclass=sql.QueuePool if self._writable else sql.NullPool,
            # each search holds a connection: here there are as many as are searched at once
            **({"max_overflow": -1} if self._writable else {}),
        )

        @sql.event.listens_for(self.engine, "connect")
        def configure(connection: Any, _: Any) -> None:
            connection.isolation_level = None  # `begin` below, not sqlite3, opens transactions
            connection.execute(f"PRAGMA journal_mode={journal}")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")

        @sql.event.listens_for(self.engine, "begin")
        def begin(connection: Connection) -> None:
            writes = connection.get_execution_options().get("writes", False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    def _open(self) -> sqlite3.Connection:
        if self._writable and not os.path.exists(self._file) and os.path.isdir(self._file.parent):
            # SQLite makes the files beside it with the rights of this one
            with suppress(FileExistsError):
                os.close(private(str(self._file), os.O_CREAT | os.O_EXCL))
        alone = not self._writable and not os.path.exists(f"{self._file}-wal")
        uri = f"{self._file.absolute().as_uri()}?immutable={alone:d}"
        return sqlite3.connect(uri, uri=True, timeout=30, check_same_thread=False)

    def has(self, table: str) -> bool:
        """Whether the database is there: a file that nothing was committed to is none yet.

        One without the table is a damaged one, as is one that cannot be read: who reads it is told.
        Raises LibraryError where it may not be looked for.
        """
        try:
            if not self._file.is_file():
                return False
            # without `configure`, which would have to wait for who is making it
            with closing(self._open()) as connection:
                return bool(connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])
        except sqlite3.Error:
            return True
        except OSError as error:
            raise LibraryError(f"{self.name}: cannot be looked for: {error.strerror}") from None

    @contextmanager
    def lock(
        self, name: str, wait: float = 0.0, give_up: Callable[[], bool] | None = None
    ) -> Iterator[Connection]:
        """A lock between processes, and a connection to write with under it.

        wait : seconds to wait for it; -1: for as long as it takes, or until `give_up` says so

        Raises TimeoutError if another has it.
        """
        lock = FileLock(self._file.with_name(f"{name}.lock"), mode=0o600)
        with lock.acquire(timeout=wait, cancel_check=give_up), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def claim(self, name: str) -> Iterator[Callable[[], bool] | None]:
        """A lock, if it is free, with a function that says whether it is still held; otherwise None."""
        lock = FileLock(self._file.with_name(f"{name}.lock"), mode=0o600)
        try:
            lock.acquire(timeout=0)
        except TimeoutError:
            yield None
            return
        try:
            yield lambda: lock.is_locked
        finally:
            # while it is locked: who has opened the file that is gone then sees so, and opens another
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()

    @contextmanager
    def transaction(self, connection: Connection) -> Iterator[None]:
        """A transaction that writes. Others that write wait for it, whatever lock they hold."""
        connection.execution_options(writes=True)
        try:
            with connection.begin():
                yield
        finally:
            connection.execution_options(writes=False)

    def is_settled(self) -> bool:
        """Whether nothing that failed to be committed can still look as if it had been.

        SQLite's log is emptied for that; a reader in the middle of a search keeps it from being so.
        """
        raw = self.engine.raw_connection()
        try:
            busy, _, _ = raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not busy
        except sqlite3.Error:
            return False
        finally:
            raw.close()

    def withdraw(self) -> None:
        """Put an empty commit over what a failed one may have left in SQLite's log.

        Where only its synchronisation failed, all of it lies there, and who opens the library after a
        crash would find what was refused. The empty one is not synchronised, which has just failed.
        """
        with suppress(sqlite3.Error), closing(sqlite3.connect(self._file)) as connection:
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute("PRAGMA user_version=0")  # changes nothing, and is written

    def damages(self, connection: Connection) -> Iterator[str]:
        """What the database itself finds to be wrong with it."""
        for pragma in ("integrity_check", "foreign_key_check"):
            for found in connection.exec_driver_sql(f"PRAGMA {pragma}").fetchmany(10):
                if found[0] != "ok":
                    yield " ".join(map(str, found))

    def size(self, connection: Connection) -> int:
        """Bytes that it takes elsewhere than beside the segments."""
        return 0

    def error(self, what: str, error: Exception, then: str) -> LibraryError:
        """What is raised for an error of the database: what cannot be done, why, what then."""
        return LibraryError(f"{what} ({_reason(error)}); {then}")

    unreadable = "if the folder is not read-only, restore it from a backup"


class Postgresql:
    """A PostgreSQL database, or one schema of it: the first of the connection's search_path."""

    def __init__(self, url: sql.URL, isolation: str = "REPEATABLE READ") -> None:
        self.url = url
        self.name = str(url)
        self.engine = _dialled.pop(url) if url in _dialled else _postgresql(url, isolation)

    def has(self, table: str) -> bool:
        """Whether the table is there. Raises DatabaseAway."""
        try:
            with self.engine.connect() as connection:
                return sql.inspect(connection).has_table(table)
        except DatabaseErrors as error:
            raise self.error(f"{self.name} cannot be used", error, "nothing was done") from None

    @contextmanager
    def lock(
        self, name: str, wait: float = 0.0, give_up: Callable[[], bool] | None = None
    ) -> Iterator[Connection]:
        """As SqliteFile's."""
        until = time.monotonic() + wait
        with self.engine.connect() as connection:
            while not _said(connection, sql.func.pg_try_advisory_lock(_key(name))):
                if (wait >= 0 and time.monotonic() >= until) or (give_up and give_up()):
                    raise TimeoutError
                time.sleep(_POLL)
            try:
                yield connection
            finally:
                _unlock(connection, name)

    @contextmanager
    def transaction(self, connection: Connection) -> Iterator[None]:
        """As SqliteFile's. The lock comes before the first query, which decides what the transaction sees."""
        with connection.begin():
            connection.exec_driver_sql("LOCK TABLE audit IN EXCLUSIVE MODE")
            yield

    @contextmanager
    def claim(self, name: str) -> Iterator[Callable[[], bool] | None]:
        """A lock, if it is free, with a function that says whether it is still held; otherwise None."""
        with self.engine.connect() as connection:
            if not _said(connection, sql.func.pg_try_advisory_lock(_key(name))):
                yield None
                return
            try:
                yield lambda: _is_alive(connection)
            finally:
                _unlock(connection, name)

    def is_settled(self) -> bool:
        """As SqliteFile's: a connection that is gone has committed, or never will."""
        return True

    def withdraw(self) -> None:
        """As SqliteFile's: what PostgreSQL refused does not come back."""

    def damages(self, connection: Connection) -> Iterator[str]:
        """As SqliteFile's: PostgreSQL looks after itself."""
        yield from ()

    def size(self, connection: Connection) -> int:
        """As SqliteFile's."""
        query = """SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class
                   WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"""
        return int(connection.exec_driver_sql(query).scalar_one())

    def error(self, what: str, error: Exception, then: str) -> LibraryError:
        """As SqliteFile's; DatabaseAway for what may be over in a while."""
        passing = isinstance(error, sql.exc.TimeoutError | sql.exc.OperationalError) or (
            isinstance(error, sql.exc.DBAPIError) and error.connection_invalidated
        )
        if isinstance(error, sql.exc.TimeoutError):
            then += (
                f"; more is asked at once than {MOST_CONNECTIONS} connections can answer: try again"
            )
        elif passing:
            then += "; it can be tried again when the database answers"
        kind = DatabaseAway if passing else LibraryError
        return kind(f"{what} ({_reason(error)}); {then}")

    unreadable = "nothing was changed"


Database = SqliteFile | Postgresql

# Engines that have their connections already, for processes that can make none later.
_dialled: dict[sql.URL, Engine] = {}


def database(file: Path, url: sql.URL, isolation: str = "REPEATABLE READ") -> Database:
    """The database at `url`, which for BESIDE is this file."""
    return SqliteFile(file) if url == BESIDE else Postgresql(url, isolation)


def dial(url: sql.URL) -> None:
    """Connect to a database now, where the process will have no network when it needs one.

    A search takes two connections. That there is none is said when one is needed.
    """
    if url == BESIDE:
        return
    engine = _postgresql(url, "REPEATABLE READ")
    with suppress(*DatabaseErrors), engine.connect() as one, engine.connect() as other:
        del one, other
        _dialled[url] = engine


def _postgresql(url: sql.URL, isolation: str) -> Engine:
    given = {name: value for name, value in _KEEPALIVE.items() if name not in url.query}
    given |= {} if "connect_timeout" in url.query else {"connect_timeout": _PATIENCE}
    try:
        engine = sql.create_engine(
            url.set(drivername=POSTGRESQL),
            isolation_level=isolation,
            pool_pre_ping=True,
            pool_timeout=_TURN,
            max_overflow=MOST_CONNECTIONS - _KEPT,
            pool_size=_KEPT,
            connect_args=given,
        )
    except ModuleNotFoundError as error:
        raise LibraryError(
            f"{url}: {error.name} is not installed; pip install 'earmark[postgresql]'"
        ) from None

    @sql.event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        for name, value in _KEEPALIVE.items():  # the same at the other end
            connection.execute(f"SET tcp_{name} = {value}")
        connection.commit()

    return engine


def _key(name: str) -> sql.ColumnElement[int]:
    """The number of an advisory lock of this schema."""
    return sql.func.hashtextextended(sql.func.concat(sql.func.current_schema(), ".", name), 0)


def _said(connection: Connection, expression: sql.ColumnElement[Any]) -> Any:
    """An expression's value, in a transaction of its own."""
    with connection.begin():
        return connection.execute(sql.select(expression)).scalar_one()


def _unlock(connection: Connection, name: str) -> None:
    """Let go of a lock; where that cannot be said, of its connection."""
    try:
        connection.rollback()
        _said(connection, sql.func.pg_advisory_unlock(_key(name)))
    except sql.exc.SQLAlchemyError:
        connection.invalidate()


def _is_alive(connection: Connection) -> bool:
    """Whether a connection is the one that it was."""
    with suppress(sql.exc.SQLAlchemyError):
        return not connection.invalidated and bool(_said(connection, sql.literal(1)))
    return False


def _reason(error: Exception) -> str:
    """Why, in one line."""
    return " ".join(str(getattr(error, "orig", None) or error).split())
