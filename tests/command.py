"""The real `earmark` command, as the tests run it: in a process of its own."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import forked
import sqlalchemy as sql

from index.database import BESIDE


class Earmark:
    """Runs the real command, in a process and a folder of its own."""

    def __init__(self, folder: Path, library: Path, database: sql.URL = BESIDE) -> None:
        self.folder = folder
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("EARMARK_")
        } | {"EARMARK_LIBRARY": str(library), "EARMARK_DATABASE": str(database)}

    def command(self, *arguments: object) -> list[str]:
        """The words to start it with."""
        return [sys.executable, "-P", "-m", "earmark", *map(str, arguments)]

    def __call__(
        self,
        *arguments: object,
        status: int = 0,
        stdin: bytes | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end and check its exit status."""
        given = self.environment | dict(environment or {})
        left, out, err = self._run(list(map(str, arguments)), given, stdin or b"")
        assert left == status, f"exit status {left}\n{out.decode()}\n{err.decode()}"
        assert b"Traceback" not in err
        return subprocess.CompletedProcess(arguments, left, out.decode(), err.decode())

    def _run(
        self, arguments: list[str], environment: Mapping[str, str], stdin: bytes
    ) -> tuple[int, bytes, bytes]:
        """Exit status, standard output and error."""
        return forked.run(arguments, self.folder, environment, stdin)

    def lines(self, *arguments: object, **options: Any) -> list[dict[str, Any]]:
        """Run it with --json and parse each line of its result."""
        done = self(*arguments, "--json", **options)
        return [json.loads(line) for line in done.stdout.splitlines()]

    @contextmanager
    def server(self, **environment: str) -> Iterator[str]:
        """The address of a server of its own."""
        process = subprocess.Popen(
            self.command("serve", "--port", "0"),
            cwd=self.folder,
            env=self.environment | environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        try:
            said = ""
            for line in process.stderr:
                said += line
                if "ready, with" in line:
                    break
            (address,) = re.findall(r"http://[\d.:]+\d", said)
            yield address
        finally:
            process.terminate()
            process.communicate()
