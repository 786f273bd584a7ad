"""Scans over HTTP: asked for, watched, fetched, cancelled; and finished whatever becomes of the server."""

import io
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sql
from command import Earmark
from conftest import BOTH
from fastapi.testclient import TestClient
from filelock import FileLock
from melodies import RATE, melody, write
from patience import until
from server import Server

from fingerprint.encoder import Encoder
from index.database import BESIDE
from index.key import Key
from index.library import Library
from service.jobs.scan_jobs import Scans
from service.runtime.asker import Asker
from service.runtime.errors import TooMuch
from service.runtime.settings import Settings
from service.scan.journal import LOCK


@pytest.fixture
def client(library: Path, database: sql.URL) -> Iterator[TestClient]:
    with Server(library=library, database=database) as client:
        yield client


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A tar file: known.flac is of song-2, unknown.flac of nothing, broken.flac no sound."""
    folder = tmp_path_factory.mktemp("dataset")
    write(folder / "known.flac", melody(2)[3 * RATE : 10 * RATE])
    write(folder / "unknown.flac", melody(99, 6.0))
    (folder / "broken.flac").write_bytes(b"fLaC")
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name)
    return file.getvalue()


def ask(client: TestClient, sent: bytes, name: str = "dump.tar", **options: Any) -> dict[str, Any]:
    response = client.post("/v1/scans", files={"dataset": (name, sent)}, **options)
    assert response.status_code == 202, response.text
    assert response.headers["location"] == f"/v1/scans/{response.json()['id']}"
    return response.json()


def id_of(library: Path, database: sql.URL = BESIDE) -> str:
    """The library's own id, which its jobs carry."""
    opened = Library.open(library, Encoder.load(), url=database, searchable=False)
    try:
        return opened.id()
    finally:
        opened.close()


def ended(client: TestClient, id: str, **options: Any) -> dict[str, Any]:
    """The scan once it has ended."""

    def over() -> dict[str, Any] | None:
        entry = client.get(f"/v1/scans/{id}", **options).json()
        return None if entry["state"] in ("queued", "running") else entry

    return until(over)


@BOTH
def test_a_scan_is_watched_and_its_report_fetched(client: TestClient, dataset: bytes) -> None:
    asked = ask(client, dataset, data={"probe": "false"})
    assert asked["state"] in ("queued", "running") and asked["name"] == "dump.tar"
    entry = ended(client, asked["id"])
    assert entry["state"] == "done", entry
    assert entry["files"] == 3
    assert entry["summary"]["matched_files"] == 1 and entry["summary"]["failed_files"] == 1
    assert "report.html" in entry["report"]
    page = client.get(f"/v1/scans/{asked['id']}/report/report.html")
    assert "song-2.flac" in page.text
    assert "sandbox" in page.headers["content-security-policy"]
    table = client.get(f"/v1/scans/{asked['id']}/report/files.parquet").content
    statuses = {
        row["member"]: row["status"] for row in pq.read_table(io.BytesIO(table)).to_pylist()
    }
    assert statuses == {"known.flac": "match", "unknown.flac": "none", "broken.flac": "failed"}
    assert [it["id"] for it in client.get("/v1/scans").json()["scans"]] == [asked["id"]]


def test_nothing_but_the_report_is_fetched(client: TestClient, dataset: bytes) -> None:
    id = ask(client, dataset)["id"]
    ended(client, id)
    for name in ("scan.sqlite", "dataset.tar", "..%2f..%2fjobs.sqlite", "%2e%2e", "gone.csv"):
        assert client.get(f"/v1/scans/{id}/report/{name}").status_code == 404, name


def test_a_dataset_is_deleted_once_it_has_been_scanned(
    client: TestClient, dataset: bytes, library: Path
) -> None:
    id = ask(client, dataset)["id"]
    ended(client, id)
    folder = library / "jobs" / "scans" / id
    until(lambda: [it.name for it in folder.iterdir()] == ["report"])
    assert client.delete(f"/v1/scans/{id}").status_code == 204
    assert client.get(f"/v1/scans/{id}").status_code == 404
    assert not folder.exists()


def test_what_is_no_dataset_is_refused_or_fails_with_its_reason(client: TestClient) -> None:
    response = client.post("/v1/scans", files={"dataset": ("letter.txt", b"hello")})
    assert response.status_code == 415
    assert response.headers["content-type"] == "application/problem+json"
    entry = ended(client, ask(client, b"PAR1 nothing", "rows.parquet")["id"])
    assert entry["state"] == "done" and entry["summary"]["failed_files"] == 1


def test_a_scan_is_cancelled(client: TestClient, dataset: bytes) -> None:
    id = ask(client, dataset)["id"]
    assert client.delete(f"/v1/scans/{id}").status_code == 204
    assert ended(client, id)["state"] in ("cancelled", "done")
    assert client.delete("/v1/scans/none").status_code == 404


def test_scans_are_finished_by_the_next_server(library: Path, dataset: bytes) -> None:
    before = Scans(Settings(library=library))
    before.start(id_of(library))
    ids = [before.ask(io.BytesIO(dataset), "dump.tar", {}, Asker(None)).id for _ in range(2)]
    before.stop()
    with Server(library=library) as client:
        for id in ids:
            entry = ended(client, id)
            assert entry["state"] == "done", entry
            assert entry["summary"]["files"] == 3


def test_a_scan_that_a_killed_server_left_at_work_is_waited_for(
    library: Path, dataset: bytes, earmark: Earmark
) -> None:
    before = Scans(Settings(library=library))
    before.start(id_of(library))
    id = before.ask(io.BytesIO(dataset), "dump.tar", {}, Asker(None)).id
    before.stop()
    folder = library / "jobs" / "scans" / id
    shutil.rmtree(folder / "report", ignore_errors=True)
    earmark("scan", folder / "dump.tar", "--report", folder / "report", status=1)
    with FileLock(folder / "report" / LOCK):
        with Server(library=library) as client:
            state = client.get(f"/v1/scans/{id}").json()["state"]
        assert state in ("queued", "running")
    with Server(library=library) as client:
        assert ended(client, id)["state"] == "done"


def test_owners_see_their_scans_alone_and_compare_with_what_they_see(
    library: Path, tmp_path: Path
) -> None:
    opened = Library.open(library, Encoder.load())
    keys = {owner: opened.add_key(owner, "ingest", None)[1] for owner in ("ada", "bo")}
    opened.close()
    headers = {
        owner: {"headers": {"Authorization": f"Bearer {key}"}} for owner, key in keys.items()
    }
    private = write(tmp_path / "private.flac", melody(66, 8.0)).read_bytes()
    with Server(library=library, requests_per_minute=0) as client:  # `ended` looks often
        form = {"rightsholder": "Ada", "rights": "owned"}
        added = client.post(
            "/v1/recordings", files={"audio": ("p.flac", private)}, data=form, **headers["ada"]
        )
        assert added.status_code == 201, added.text
        found = {}
        for owner in keys:
            id = ask(client, private, "private.flac", **headers[owner])["id"]
            entry = ended(client, id, **headers[owner])
            found[owner] = entry["summary"]["matched_files"]
        assert found == {"ada": 1, "bo": 0}
        assert client.get(f"/v1/scans/{id}", **headers["ada"]).status_code == 404
        assert client.get(f"/v1/scans/{id}/report/report.html", **headers["ada"]).status_code == 404


def test_an_owner_has_only_so_many_scans_that_are_not_finished(
    library: Path, dataset: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scans, "_do_next", lambda self: False)  # they wait for ever
    opened = Library.open(library, Encoder.load())
    keys = {owner: opened.add_key(owner, "query", None)[1] for owner in ("ada", "bo")}
    opened.close()
    headers = {
        owner: {"headers": {"Authorization": f"Bearer {key}"}} for owner, key in keys.items()
    }
    sent = {"dataset": ("dump.tar", dataset)}
    with Server(library=library, scans_per_owner=1) as client:
        id = ask(client, dataset, **headers["ada"])["id"]
        refused = client.post("/v1/scans", files=sent, **headers["ada"])
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        ask(client, dataset, **headers["bo"])
        assert client.delete(f"/v1/scans/{id}", **headers["ada"]).status_code == 204
        ask(client, dataset, **headers["ada"])


@BOTH
def test_scans_that_are_asked_for_at_the_same_time_are_no_more_than_an_owner_may_have(
    library: Path, dataset: bytes, database: sql.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scans, "_do_next", lambda self: False)  # they wait for ever
    ada = Asker(Key("1", "ada", "query", "2026-01-01"))
    scans = Scans(Settings(library=library, database=database, scans_per_owner=1))
    asked = []

    class Slowly(io.BytesIO):
        """A dataset in whose middle another one arrives."""

        def read(self, size: int | None = -1) -> bytes:
            if not asked:
                asked.append(None)
                asked.append(scans.ask(io.BytesIO(dataset), "dump.tar", {}, ada))
            return super().read(size)

    scans.start(id_of(library, database))
    try:
        with pytest.raises(TooMuch, match="1 scans that are not finished"):
            scans.ask(Slowly(dataset), "dump.tar", {}, ada)
        assert [it.id for it in scans.page(ada).scans] == [asked[1].id]
        assert [it.name for it in (library / "jobs" / "scans").iterdir() if it.is_dir()] == [
            asked[1].id
        ]
    finally:
        scans.stop()
