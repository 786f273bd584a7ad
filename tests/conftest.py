"""What the tests of the command and of the server share: a little music, and a library of it."""

import json
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import cast

import jsonschema
import numpy as np
import pytest
import sqlalchemy as sql
from command import Earmark
from melodies import CLIP_START, RATE, SONGS, melody, write
from referencing import Registry, Resource

from benchmarks.soak import postgresql
from fingerprint.encoder import Encoder
from index.backup import backup
from index.database import BESIDE
from index.library import Library

# Files, or single tests, that `make test` leaves to `make test-all`.
SLOW = (
    "test_cluster.py",
    "test_command_peers.py",
    "test_crashes.py",
    "test_databases.py::test_a_database_that_goes_away",
    "test_databases.py::test_a_job_that_the_database_went_away_from",
    "test_databases.py::test_a_writer_that_is_killed",
    "test_databases.py::test_two_processes",
    "test_databases.py::test_two_servers",
    "test_described.py",
    "test_dump.py",
    "test_fuzz.py",
    "test_ingest_jobs.py::test_an_ingest_goes_on_when_the_server_is_killed",
    "test_overload.py",
    "test_pages.py::test_pages_are_accessible",
    "test_peers.py",
    "test_read_only.py",
    "test_scan_jobs.py::test_a_scan_that_a_killed_server_left_at_work",
    "test_scan_jobs.py::test_scans_are_finished_by_the_next_server",
    "test_training.py",
)

# Marks a test that is run with each kind of database.
BOTH = pytest.mark.parametrize("kind", ["sqlite", "postgresql"])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fail-on-skip", action="store_true", help="A skipped test is a failure.")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow."""
    for item in items:
        if item.nodeid.removeprefix("tests/").startswith(SLOW):
            item.add_marker(pytest.mark.slow)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With --fail-on-skip, what was skipped fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--fail-on-skip") and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@cache
def _schemas() -> Registry:
    folder = Path(__file__).parent / "schemas"
    schemas = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    return Registry().with_resources(
        [(schema["$id"], Resource.from_contents(schema)) for schema in schemas]
    )


@pytest.fixture(scope="session")
def conforms() -> Callable[[object, str], None]:
    """Fails unless a value is what tests/schemas/NAME.json says."""

    def check(value: object, name: str) -> None:
        schema = _schemas().contents(f"{name}.json")
        jsonschema.Draft202012Validator(schema, registry=_schemas()).validate(value)

    return check


@pytest.fixture(scope="session")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: songs/song-0.flac …, clip.wav (5 s of song-1), unknown.wav, and what is no clip."""
    folder = tmp_path_factory.mktemp("music")
    (folder / "songs").mkdir()
    for number in range(SONGS):
        write(folder / "songs" / f"song-{number}.flac", melody(number))
    start = round(CLIP_START * RATE)
    write(folder / "clip.wav", melody(1)[start : start + 5 * RATE])
    write(folder / "unknown.wav", melody(99, 5.0))
    write(folder / "silent.wav", np.zeros(3 * RATE, np.float32))
    write(folder / "short.wav", melody(1)[: RATE // 4])
    (folder / "text.mp3").write_text("This is a letter, not music.\n" * 20)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "broken.emk").write_bytes(b"EMK?" * 10)
    return folder


@pytest.fixture(scope="session")
def ingested(music: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of the songs, made once; tests work on copies."""
    library = tmp_path_factory.mktemp("ingested") / "library"
    rights = ("--rightsholder", "Blue Label", "--rights", "owned")
    Earmark(music, library)("ingest", "songs", *rights)
    return library


@pytest.fixture(scope="session")
def server() -> Iterator[postgresql.Server]:
    """A PostgreSQL server; without one on the machine, what needs it is skipped."""
    pg_ctl = postgresql.pg_ctl()
    if pg_ctl is None:
        pytest.skip("PostgreSQL is not installed; on Debian: apt-get install postgresql")
    server = postgresql.Server(pg_ctl)
    yield server
    server.close()


@pytest.fixture
def kind() -> str:
    """Which kind of database a test is about; those for which it matters are given both."""
    return "sqlite"


@pytest.fixture
def new_database(kind: str, request: pytest.FixtureRequest) -> Callable[[], sql.URL]:
    """Gives a library's database, another each time: in files, or in PostgreSQL."""
    if kind == "sqlite":
        return lambda: BESIDE
    return cast(postgresql.Server, request.getfixturevalue("server")).new


@pytest.fixture
def database(new_database: Callable[[], sql.URL]) -> sql.URL:
    """Where this test's catalogue and jobs are."""
    return new_database()


@pytest.fixture
def library(ingested: Path, tmp_path: Path, database: sql.URL) -> Path:
    """This test's own library of the songs."""
    library = tmp_path / "library"
    if database == BESIDE:
        shutil.copytree(ingested, library)
    else:
        backup(Library.open(ingested, Encoder.load()), library, database)
    return library


@pytest.fixture
def earmark(music: Path, library: Path, database: sql.URL) -> Earmark:
    """The command, in the folder of the music, with this test's own library of the songs."""
    return Earmark(music, library, database)
