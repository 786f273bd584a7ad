"""A real PostgreSQL server for tests and benchmarks, on loopback, of a folder that goes with it."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from itertools import count
from pathlib import Path

import psycopg
import sqlalchemy as sql

PATIENCE = 600.0  # s that its programs may take


def pg_ctl() -> Path | None:
    """Where PostgreSQL's programs are: on the path, or where Debian puts them."""
    found = shutil.which("pg_ctl")
    if found:
        return Path(found).resolve()
    here = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda it: int(it.parts[4]))
    return here[-1] if here else None


class Server:
    """Starts when it is made; can be stopped and started again, at the same address."""

    def __init__(self, pg_ctl: Path) -> None:
        self._pg_ctl = pg_ctl
        self._numbers = count()
        # PostgreSQL refuses to be run by root
        self._user = None
        if os.getuid() == 0:
            names = {it.pw_name for it in pwd.getpwall()}
            self._user = "postgres" if "postgres" in names else "nobody"
        self._folder = Path(tempfile.mkdtemp(prefix="earmark-postgresql-"))
        if self._user:
            shutil.chown(self._folder, self._user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._do("initdb", "--auth=trust", "--username=earmark", "--no-sync", "--encoding=UTF8")
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": "200",
        }
        with (self._folder / "data" / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        self.start()

    def start(self) -> None:
        """Begin to answer."""
        self._do("pg_ctl", "start", "--wait", "--log", str(self._folder / "log"))

    def stop(self) -> None:
        """Break all connections, and answer no more."""
        self._do("pg_ctl", "stop", "--wait", "--mode=immediate")

    def close(self) -> None:
        """Stop for good."""
        self.stop()
        shutil.rmtree(self._folder)

    def new(self) -> sql.URL:
        """The address of an empty schema, which takes less time to make than a database."""
        schema = f"library_{next(self._numbers)}"
        address = sql.URL.create(
            "postgresql", "earmark", host="127.0.0.1", port=self._port, database="postgres"
        )
        with psycopg.connect(str(address), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {schema}")
        return address.set(
            drivername="postgresql+psycopg", query={"options": f"-csearch_path={schema}"}
        )

    def _do(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._pg_ctl.with_name(program), *arguments, "--pgdata", self._folder / "data"],
            check=True,
            user=self._user,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=self._folder,
            timeout=PATIENCE,
        )
