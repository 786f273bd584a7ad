"""Archives ingested over HTTP: asked for, watched, cancelled; and finished, whatever becomes of servers."""

import io
import os
import signal
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sql
from command import Earmark
from conftest import BOTH
from fastapi.testclient import TestClient
from melodies import SONGS, melody, write
from patience import PATIENCE, until
from server import Server

from fingerprint.encoder import Encoder
from index import audit_log as audit
from index.database import BESIDE
from index.library import Library
from service.jobs.ingest_jobs import Ingests
from service.runtime.asker import Asker
from service.runtime.quotas import Quotas
from service.runtime.settings import Settings

FORM = {"rightsholder": "Red Label", "rights": "owned"}


@pytest.fixture
def client(library: Path, database: sql.URL) -> Iterator[TestClient]:
    with Server(library=library, database=database) as client:
        yield client


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, music: Path) -> bytes:
    """A zip file: two new songs in folders, one that the library has, one broken file, and a letter."""
    folder = tmp_path_factory.mktemp("archive")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for number in (71, 72):
            packed.write(
                write(folder / f"{number}.flac", melody(number, 6.0)), f"album/{number}.flac"
            )
        packed.write(music / "songs" / "song-0.flac", "old/song-0.flac")
        packed.writestr("broken.flac", b"fLaC")
        packed.writestr("letter.txt", b"Dear all")
    return file.getvalue()


def ask(
    client: TestClient,
    sent: bytes,
    name: str = "album.zip",
    metadata: str | None = None,
    form: dict[str, str] = FORM,
    **options: Any,
) -> dict[str, Any]:
    files = {"archive": (name, sent)}
    if metadata is not None:
        files["metadata"] = ("rows.csv", metadata.encode())
    response = client.post("/v1/ingests", files=files, data=form, **options)
    assert response.status_code == 202, response.text
    assert response.headers["location"] == f"/v1/ingests/{response.json()['id']}"
    return response.json()


def ended(client: TestClient, id: str, **options: Any) -> dict[str, Any]:
    """The ingest once it has ended."""

    def over() -> dict[str, Any] | None:
        entry = client.get(f"/v1/ingests/{id}", **options).json()
        return None if entry["state"] in ("queued", "running") else entry

    return until(over)


def sources(client: TestClient, **options: Any) -> list[str]:
    listed = client.get("/v1/recordings", **options).json()["recordings"]
    return sorted(it["source"] for it in listed)


OLD = [f"song-{number}.flac" for number in range(SONGS)]


def keys_of(library: Path, *owners: str, database: sql.URL = BESIDE) -> dict[str, Any]:
    """Keys for ingesting, as options of a request, by owner."""
    opened = Library.open(library, Encoder.load(), url=database)
    keys = {owner: opened.add_key(owner, "ingest", None) for owner in owners}
    opened.close()
    return {
        owner: {"headers": {"Authorization": f"Bearer {text}"}} for owner, (_, text) in keys.items()
    }


@BOTH
def test_the_recordings_of_an_archive_are_added_and_what_is_broken_is_told(
    client: TestClient, archive: bytes, library: Path
) -> None:
    rows = "file,title,isrc\nalbum/71.flac,First,DEA120000071\n72.flac,Second,\n"
    asked = ask(client, archive, metadata=rows)
    assert asked["state"] in ("queued", "running") and asked["name"] == "album.zip"
    entry = ended(client, asked["id"])
    assert entry["state"] == "done", entry
    counts = [entry[name] for name in ("done", "added", "unchanged", "failed")]
    assert counts == [4, 2, 1, 1]
    (broken,) = entry["failures"]
    assert broken["file"] == "album.zip/broken.flac"
    assert broken["error"]["type"] == "undecodable"
    assert str(library.parent) not in broken["error"]["detail"]
    assert sources(client) == ["album/71.flac", "album/72.flac", *OLD]
    (first,) = client.get("/v1/recordings", params={"q": "First"}).json()["recordings"]
    assert (first["isrc"], first["rightsholder"]) == ("DEA120000071", "Red Label")
    assert [it["id"] for it in client.get("/v1/ingests").json()["ingests"]] == [asked["id"]]
    until(
        lambda: not list((library / "jobs" / "ingests" / asked["id"]).iterdir())
    )  # nothing is kept
    assert client.delete(f"/v1/ingests/{asked['id']}").status_code == 204
    assert client.get(f"/v1/ingests/{asked['id']}").status_code == 404
    assert sources(client) == ["album/71.flac", "album/72.flac", *OLD]


@pytest.mark.parametrize(
    ("name", "metadata", "form", "status", "where"),
    [
        ("letter.txt", None, FORM, 415, None),
        ("sound.flac", None, FORM, 415, None),
        ("a.zip", None, {"rights": "owned"}, 422, "rightsholder"),
        ("a.zip", "file,rightsholder\na.flac,Me\n", {}, 422, "rights"),
        ("a.zip", "file,rights\na.flac,owned\n", {"rightsholder": " "}, 422, "rightsholder"),
        ("a.zip", "title\nBlue Moon\n", FORM, 422, "metadata"),
        ("a.zip", None, FORM | {"tilte": "Neu"}, 422, "tilte"),
    ],
)
def test_what_cannot_be_ingested_is_refused_at_once(
    client: TestClient,
    name: str,
    metadata: str | None,
    form: dict[str, str],
    status: int,
    where: str | None,
    library: Path,
) -> None:
    files = {"archive": (name, b"PK")} | ({"metadata": metadata.encode()} if metadata else {})
    refused = client.post("/v1/ingests", files=files, data=form)
    assert refused.status_code == status, refused.text
    assert refused.headers["content-type"] == "application/problem+json"
    assert str(library.parent) not in refused.text
    assert [it["where"][-1] for it in refused.json().get("errors", [])] == (
        [where] if where else []
    )
    assert client.get("/v1/ingests").json()["ingests"] == []
    assert [it for it in (library / "jobs" / "ingests").iterdir() if it.is_dir()] == []


def test_each_row_of_the_metadata_that_cannot_be_used_is_told(
    client: TestClient, archive: bytes
) -> None:
    rows = "file,rights\nnobody.flac,owned\nnothing.flac,stolen\n71.flac,stolen\n72.flac,owned\n"
    entry = ended(client, ask(client, archive, metadata=rows)["id"])
    assert (entry["state"], entry["added"], entry["unchanged"]) == ("done", 1, 1), entry
    assert {it["file"]: it["error"]["type"] for it in entry["failures"]} == {
        "album.zip/album/71.flac": "metadata",
        "album.zip/broken.flac": "undecodable",
        "metadata.csv, row 2": "metadata",
        "metadata.csv, row 3": "metadata",
    }


def test_a_file_that_is_no_archive_whatever_its_name_is_a_failed_file(client: TestClient) -> None:
    entry = ended(client, ask(client, b"This is a letter.", "letter.tar.gz")["id"])
    assert (entry["state"], entry["failed"]) == ("done", 1)
    assert entry["failures"][0]["file"] == "letter.tar.gz"


def test_an_ingest_that_crashes_has_failed_and_says_why(
    client: TestClient, archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "tqdm.py").write_text("raise RuntimeError('there is a bug')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    entry = ended(client, ask(client, archive)["id"])
    assert (entry["state"], entry["error"]) == ("failed", "RuntimeError: there is a bug")


@BOTH
def test_recordings_are_their_owners_and_the_log_names_the_key(
    library: Path, archive: bytes, earmark: Earmark, database: sql.URL
) -> None:
    keys = keys_of(library, "ada", "bo", database=database)
    with Server(
        library=library, database=database, requests_per_minute=0
    ) as client:  # `ended` looks often
        id = ask(client, archive, **keys["ada"])["id"]
        for method in ("GET", "DELETE"):
            assert client.request(method, f"/v1/ingests/{id}", **keys["bo"]).status_code == 404
        assert client.get("/v1/ingests", **keys["bo"]).json()["ingests"] == []
        assert ended(client, id, **keys["ada"])["added"] == 2
        assert sources(client, **keys["ada"]) == ["album/71.flac", "album/72.flac", *OLD]
        assert sources(client, **keys["bo"]) == OLD
        shared = ask(client, archive, form=FORM | {"private": "false"}, **keys["bo"])["id"]
        assert ended(client, shared, **keys["bo"])["added"] == 2
    rows = [row for row in earmark.lines("list") if row["source"] == "album/71.flac"]
    assert sorted((row["owner"], row["private"]) for row in rows) == [("ada", True), ("bo", False)]
    opened = Library.open(library, Encoder.load(), url=database)
    with opened.reading() as connection:
        by = {it.by for it in audit.entries(connection) if it.kind == "ingest" and it.by}
    assert by == {row["supplied_by"] for row in rows}


def test_an_ingest_ends_where_the_keys_audio_is_used_up(library: Path, archive: bytes) -> None:
    keys = keys_of(library, "ada")
    with Server(library=library, requests_per_minute=0, audio_per_day=5) as client:
        entry = ended(client, ask(client, archive, **keys["ada"])["id"], **keys["ada"])
        assert entry["state"] == "failed" and "seconds of audio a day" in entry["error"]
        again = client.post("/v1/ingests", files={"archive": ("a.zip", archive)}, **keys["ada"])
        assert again.status_code == 429


def test_an_ingest_that_waits_is_cancelled(
    library: Path, archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ingests, "_do_next", lambda self: False)  # they wait for ever
    keys = keys_of(library, "ada", "bo")
    with Server(library=library, ingests_per_owner=1) as client:
        id = ask(client, archive, **keys["ada"])["id"]
        sent = {"archive": ("album.zip", archive)}
        refused = client.post("/v1/ingests", files=sent, data=FORM, **keys["ada"])
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        ask(client, archive, **keys["bo"])
        assert client.delete(f"/v1/ingests/{id}", **keys["ada"]).status_code == 204
        assert client.get(f"/v1/ingests/{id}", **keys["ada"]).json()["state"] == "cancelled"
        assert list((library / "jobs" / "ingests" / id).iterdir()) == []
        ask(client, archive, **keys["ada"])


@BOTH
def test_an_ingest_that_is_at_work_is_cancelled(
    client: TestClient, library: Path, archive: bytes, database: sql.URL
) -> None:
    with Library.open(library, Encoder.load(), url=database).writer():  # it waits for this one
        id = ask(client, archive)["id"]
        until(lambda: client.get(f"/v1/ingests/{id}").json()["state"] == "running")
        assert client.delete(f"/v1/ingests/{id}").status_code == 204
        assert client.get(f"/v1/ingests/{id}").json()["state"] == "cancelled"
    assert sources(client) == OLD


def test_ingests_are_finished_by_the_next_server(library: Path, archive: bytes) -> None:
    settings = Settings(library=library, isolate=False)
    before = Ingests(settings, Quotas(settings))
    opened = Library.open(library, Encoder.load())
    before.start(opened.id())
    opened.close()
    nobody = Asker(None)
    ids = [
        before.ask(io.BytesIO(archive), "album.zip", None, FORM, False, nobody).id for _ in range(2)
    ]
    before.stop()
    with Server(library=library) as client:
        entries = [ended(client, id) for id in ids]
        assert [it["state"] for it in entries] == ["done", "done"], entries
        assert [it["done"] for it in entries] == [4, 4]
        assert sum(it["added"] for it in entries) == 2
        assert sources(client) == ["album/71.flac", "album/72.flac", *OLD]


@BOTH
def test_an_ingest_goes_on_when_the_server_is_killed(
    library: Path, archive: bytes, earmark: Earmark, database: sql.URL
) -> None:
    with Library.open(
        library, Encoder.load(), url=database
    ).writer():  # it cannot be through before the kill
        server = subprocess.Popen(
            earmark.command("serve", "--port", "0"),
            env=earmark.environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert server.stderr is not None
        lines = iter(server.stderr)
        said = next(line for line in lines if "serving" in line)
        next(line for line in lines if "ready, with" in line)
        (address,) = [word for word in said.split() if word.startswith("http")]
        with httpx.Client(base_url=address, timeout=PATIENCE) as client:
            files = {"archive": ("album.zip", archive)}
            id = client.post("/v1/ingests", files=files, data=FORM).json()["id"]
            until(lambda: client.get(f"/v1/ingests/{id}").json()["state"] == "running")
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        server.stderr.close()
    with Server(library=library, database=database) as client:
        entry = ended(client, id)
        assert entry["state"] == "done", entry
        assert (entry["done"], entry["failed"]) == (4, 1)
        assert sources(client) == ["album/71.flac", "album/72.flac", *OLD]
