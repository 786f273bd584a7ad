"""Catalogues in PostgreSQL: shared by processes, moved, brought up to date; away, and back again."""

import multiprocessing
import shutil
import tarfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sql
from command import Earmark
from conftest import BOTH
from embeddings import reference, track
from fastapi.testclient import TestClient
from melodies import melody, write
from patience import PATIENCE, until
from server import Server

from benchmarks.soak import postgresql
from fingerprint.encoder import Encoder
from index import audit_log as audit
from index import catalogue, keys
from index.backup import backup
from index.database import BESIDE, Text
from index.errors import DatabaseAway, LibraryError, LibraryLocked
from index.library import Library
from index.recording import Metadata
from index.schema import Schema
from index.verify import verify
from service.jobs import scan_jobs as scans
from service.jobs.ingest_jobs import Ingests
from service.runtime.settings import SettingsError, load_settings

ENCODER = Encoder.load()
FORM = {"rightsholder": "Red Label", "rights": "owned"}


@pytest.fixture
def kind() -> str:
    return "postgresql"


def opened(path: Path, url: sql.URL, **options: Any) -> Library:
    return Library.open(path, ENCODER, url=url, **options)


def ingest(library: Library, seed: int, id: str | None = None) -> bool:
    """Add a recording, whoever else is writing; whether it was new."""
    with library.writer(wait=-1) as writer:
        made = reference(ENCODER, track(ENCODER, seed, 8))
        return writer.add(made, Metadata(f"{seed}.flac", "Me", "owned", id=id or f"id-{seed}"))[1]


def work(path: Path, url: sql.URL, name: str, added: Any) -> None:
    """Ingest what another process ingests too, and what it does not, and remove some of the latter."""
    library = opened(path, url)
    for turn in range(6):
        added.put((turn, ingest(library, turn, f"{name}-{turn}")))
        own = 100 * (1 + "ab".index(name)) + turn
        assert ingest(library, own)
        if turn % 2:
            with library.writer(wait=-1) as writer:
                writer.remove(f"id-{own}")
        assert f"id-{own}" not in {it.id for it in library.refresh().recordings} or not turn % 2


def test_two_processes_that_ingest_and_remove_at_once_lose_and_double_nothing(
    tmp_path: Path, database: sql.URL
) -> None:
    path = tmp_path / "library"
    context = multiprocessing.get_context("spawn")
    added = context.Queue()
    library = opened(path, database, create=True)
    processes = [context.Process(target=work, args=(path, database, it, added)) for it in "ab"]
    for process in processes:
        process.start()
    told = [added.get(timeout=PATIENCE) for _ in range(12)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    # each sound that both had was added by one of them
    assert sorted(turn for turn, new in told if new) == list(range(6))
    own = {f"id-{100 * which + turn}" for which in (1, 2) for turn in (0, 2, 4)}
    there = [it.id for it in library.every_recording()]
    assert set(there) >= own and sorted(it[-1] for it in set(there) - own) == list("012345")
    assert len(there) == 12 == len(library.refresh().recordings)
    assert list(verify(library)) == []
    with library.reading() as connection:
        logged = [it.kind for it in audit.entries(connection)]
        assert catalogue.revision(connection) == len(logged)
    assert (logged.count("ingest"), logged.count("remove")) == (18, 6)
    assert set(logged) == {"ingest", "remove", "compact"}


def test_a_writer_that_is_killed_or_cut_off_frees_the_lock_and_commits_nothing_more(
    tmp_path: Path, database: sql.URL
) -> None:
    library = opened(tmp_path / "library", database, create=True)
    other = opened(tmp_path / "library", database)
    with (
        pytest.raises(DatabaseAway, match="what was committed before is safe"),
        library.writer() as it,
    ):
        it.add(reference(ENCODER, track(ENCODER, 1, 8)), Metadata("1", "Me", "owned", id="one"))
        it.commit()
        with pytest.raises(LibraryLocked), other.writer():
            pass
        with other.reading() as connection:  # as the machine's death would, in time
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            )
        assert ingest(other, 2)
        it.add(reference(ENCODER, track(ENCODER, 3, 8)), Metadata("3", "Me", "owned", id="three"))
    assert [it.id for it in library.every_recording()] == ["one", "id-2"]
    assert ingest(library, 3)
    assert list(verify(other)) == []


@pytest.fixture
def servers(library: Path, database: sql.URL) -> Iterator[tuple[TestClient, TestClient]]:
    """Two servers of one library, which share its folders."""
    one, other = (Server(library=library, database=database) for _ in range(2))
    with one as first, other as second:
        yield first, second


def test_two_servers_are_one_library(
    servers: tuple[TestClient, TestClient], tmp_path: Path, library: Path, database: sql.URL
) -> None:
    one, other = servers
    sounds = [write(tmp_path / f"{it}.flac", melody(it, 6.0)).read_bytes() for it in (81, 82)]
    statuses: list[int] = []

    def add(client: TestClient, sound: bytes) -> None:
        files = {"audio": ("a.flac", sound)}
        statuses.append(client.post("/v1/recordings", files=files, data=FORM).status_code)

    at_once = [
        threading.Thread(target=add, args=(client, sound)) for client in servers for sound in sounds
    ]
    for thread in at_once:
        thread.start()
    for thread in at_once:
        thread.join()
    assert sorted(statuses) == [201, 201, 409, 409]
    ids = [
        [it["recording"] for it in found(client, sound)] for client in servers for sound in sounds
    ]
    assert ids[:2] == ids[2:] and all(len(it) == 1 for it in ids)
    (id,) = ids[0]
    assert one.delete(f"/v1/recordings/{id}").status_code == 204
    assert other.get(f"/v1/recordings/{id}").status_code == 404
    assert found(other, sounds[0]) == []
    assert len(found(other, sounds[1])) == 1
    assert list(verify(opened(library, database))) == []


def found(client: TestClient, sound: bytes) -> list[dict[str, Any]]:
    return client.post("/v1/query", files={"clip": sound}).json()["matches"]


def test_a_job_of_one_server_is_watched_and_ended_at_another(
    servers: tuple[TestClient, TestClient], music: Path, library: Path, database: sql.URL
) -> None:
    one, other = servers
    with ExitStack() as stack:
        stack.enter_context(opened(library, database).writer())  # it waits for this one
        sent = {"archive": ("album.tar", tar(music / "unknown.wav"))}
        url = one.post("/v1/ingests", files=sent, data=FORM).headers["location"]
        until(lambda: other.get(url).json()["state"] == "running")
        assert other.delete(url).status_code == 204
        assert one.get(url).json()["state"] == "cancelled"
        folder = library / "jobs" / "ingests" / url.rpartition("/")[2]
        until(lambda: not list(folder.iterdir()))  # its process has ended
    assert "unknown.wav" not in one.get("/v1/recordings").text


def tar(path: Path) -> bytes:
    file = BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.add(path, path.name)
    return file.getvalue()


def test_a_database_that_goes_away_is_told_and_used_again_when_it_is_back(
    library: Path, database: sql.URL, earmark: Earmark, server: postgresql.Server, music: Path
) -> None:
    clip = (music / "clip.wav").read_bytes()
    with Server(library=library, database=database) as client:
        before = found(client, clip)
        server.stop()
        try:
            for method, path in (
                ("GET", "/v1/recordings"),
                ("GET", "/readyz"),
                ("GET", "/v1/ingests"),
            ):
                away = client.request(method, path)
                assert away.status_code == 503, path
                assert int(away.headers["retry-after"]) > 0
                assert "cannot be read" in away.json()["detail"]
            assert client.get("/healthz").status_code == 200
            for command in ("list", "serve"):
                said = earmark(command, status=3).stderr
                assert said.count("\n") == 1 and "refused" in said and "tried again" in said
        finally:
            server.start()
        assert client.get("/readyz").status_code == 200
        assert found(client, clip) == before != []
        sent = {"archive": ("album.tar", tar(music / "unknown.wav"))}
        url = client.post("/v1/ingests", files=sent, data=FORM).headers["location"]
        until(lambda: client.get(url).json()["state"] == "done")
    assert "all is well" in earmark("verify").stdout


def test_a_job_that_the_database_went_away_from_is_done_when_it_is_back(
    library: Path, database: sql.URL, server: postgresql.Server, music: Path
) -> None:
    sent = {"archive": ("album.tar", tar(music / "unknown.wav"))}
    with Server(library=library, database=database) as client:
        with pytest.raises(LibraryError), opened(library, database).writer() as writer:
            url = client.post("/v1/ingests", files=sent, data=FORM).headers["location"]
            until(lambda: client.get(url).json()["state"] == "running")
            server.stop()
            server.start()
            writer.calibrate({})  # which is not written, as its lock is lost
        until(lambda: client.get(url).json()["state"] not in ("queued", "running"))
        entry = client.get(url).json()
    assert (entry["state"], entry["added"]) == ("done", 1), entry


def test_a_folder_and_a_database_are_of_one_library(
    tmp_path: Path, server: postgresql.Server, database: sql.URL
) -> None:
    library = opened(tmp_path / "one", database, create=True)
    ingest(library, 1)
    beside = opened(tmp_path / "beside", BESIDE, create=True)
    with pytest.raises(LibraryError, match="not that of this folder"):
        opened(beside.path, database, create=True)
    with pytest.raises(LibraryError, match=r"catalogue of this library is in catalogue\.sqlite"):
        opened(beside.path, server.new(), create=True)
    with pytest.raises(LibraryError, match=r"no catalogue of them; .* say where it is"):
        opened(library.path, server.new(), create=True)
    with pytest.raises(LibraryError, match="catalogue is in a PostgreSQL database"):
        opened(library.path, BESIDE)
    with pytest.raises(LibraryError, match=r"no catalogue of them; .* say where it is"):
        opened(library.path, server.new())
    with pytest.raises(LibraryError, match="no library here"):
        opened(tmp_path / "two", server.new())
    two = opened(tmp_path / "two", server.new(), create=True)
    with library.writer(), two.writer():  # of one server, and of their own
        pass
    assert [it.id for it in opened(library.path, database).every_recording()] == ["id-1"]
    assert list(two.every_recording()) == []


def test_a_catalogue_moves_into_postgresql_and_back(
    tmp_path: Path, server: postgresql.Server, database: sql.URL
) -> None:
    library = opened(tmp_path / "library", BESIDE, create=True)
    for seed in range(3):
        ingest(library, seed)
    with library.writer() as writer:
        writer.remove("id-1")
    library.add_key("ada", "query", None)
    there, back = tmp_path / "there", tmp_path / "back"
    revision = backup(library, there, database)
    with pytest.raises(LibraryError, match="holds a library already"):
        backup(library, tmp_path / "again", database)
    moved = opened(there, database)
    assert ingest(moved, 5)  # the fourth segment: they are merged
    assert backup(moved, back) == revision + 2
    returned = opened(back, BESIDE)
    for each in (moved, returned):
        assert [it.id for it in each.every_recording()] == ["id-0", "id-2", "id-5"]
        assert each.all_keys() == library.all_keys()
        assert list(verify(each)) == []
    assert returned.info()["audit"] == moved.info()["audit"] != library.info()["audit"]
    assert list(tmp_path.glob("*.partial*")) == []


@BOTH
def test_the_tables_that_are_made_are_those_that_are_used(database: sql.URL, library: Path) -> None:
    with Server(library=library, database=database):
        pass
    libraries = opened(library, database).database.engine
    kept = (
        libraries
        if database != BESIDE
        else sql.create_engine(f"sqlite:///{library}/jobs/jobs.sqlite")
    )
    settings = load_settings(library=library, database=str(database))
    described = [
        *((it, libraries) for it in (catalogue.TABLES, audit.TABLES, keys.TABLES)),
        *((it._metadata, kept) for it in (scans.Scans(settings), Ingests(settings, None))),
    ]
    for tables, engine in described:
        for table in tables.sorted_tables:
            made = {it["name"]: it for it in sql.inspect(engine).get_columns(table.name)}
            assert set(made) == set(table.c.keys())
            for name, column in table.c.items():
                assert made[name]["nullable"] == column.nullable, column
                used = column.type.impl if isinstance(column.type, Text) else column.type
                assert made[name]["type"].python_type is used.python_type, column


NEXT = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "{next}", "{newest}"

def upgrade():
    op.add_column("recordings", sa.Column("mood", sa.Text))
"""


@BOTH
def test_the_next_earmark_brings_a_library_up_to_date_and_this_one_then_refuses_it(
    tmp_path: Path, database: sql.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = opened(tmp_path / "library", database, create=True)
    ingest(library, 1)
    newest = catalogue.SCHEMA.format
    revisions = Path(shutil.copytree(catalogue.SCHEMA.folder, tmp_path / "revisions"))
    text = NEXT.format(next=newest + 1, newest=newest)
    (revisions / f"format_{newest + 1}.py").write_text(text)
    next_one = Schema(revisions, catalogue.SCHEMA.versions, newest + 1)
    with monkeypatch.context() as patched:
        patched.setattr(catalogue, "SCHEMA", next_one)
        with library.writer(), pytest.raises(LibraryError, match="another process is writing"):
            patched.setattr("index.library.PATIENCE", 0.0)
            opened(library.path, database)
        updated = opened(library.path, database)
        columns = sql.inspect(updated.database.engine).get_columns("recordings")
        assert "mood" in {it["name"] for it in columns}
        assert ingest(updated, 2)
        assert list(verify(updated)) == []
    with pytest.raises(
        LibraryError, match=f"format {newest + 1}, this Earmark reads format {newest}"
    ):
        opened(library.path, database)


@BOTH
def test_what_no_text_can_have_is_looked_for_and_not_found(
    library: Path, database: sql.URL
) -> None:
    with Server(library=library, database=database) as client:
        assert client.get("/v1/recordings", params={"q": "song\0"}).json()["recordings"] == []
        for path in ("recordings/a%00b", "ingests/a%00b", "scans/a%00b", "keys/a%00b"):
            assert client.get(f"/v1/{path}").status_code == 404, path
            assert client.delete(f"/v1/{path}").status_code == 404, path


def test_the_password_of_a_database_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    earmark = Earmark(tmp_path, tmp_path / "library")
    hidden = "geheim"
    good = {"EARMARK_DATABASE": "postgresql+psycopg://ada:" + hidden + "@127.0.0.1:1/none"}
    assert "ada:***@127.0.0.1" in earmark("settings", environment=good).stdout
    for command, status in (("settings", 0), ("list", 3)):
        done = earmark(command, environment=good, status=status)
        assert "geheim" not in done.stdout + done.stderr
    monkeypatch.setenv("EARMARK_DATABASE", "mysql://ada:" + hidden + "@here/none")
    with pytest.raises(SettingsError, match="EARMARK_DATABASE") as refused:
        load_settings()
    assert "geheim" not in str(refused.value)
