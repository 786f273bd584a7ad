"""Keys: who is answered what over HTTP, and what nobody else learns of one's recordings."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sql
from command import Earmark
from conftest import BOTH
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from melodies import melody, write
from server import Server

from fingerprint.encoder import Encoder
from index.key import SCOPES
from index.library import Library
from index.verify import verify
from service.runtime.settings import Settings
from service.web.api import create_app

FORM = {"rightsholder": "Me", "rights": "owned"}
YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).isoformat(timespec="seconds")


@dataclass
class Keyed:
    """A server, and the keys of two owners, some of them worth nothing."""

    client: TestClient
    keys: dict[str, str]

    def ask(self, method: str, url: str, key: str | None, **options: Any) -> httpx.Response:
        headers = options.pop("headers", {})
        if key is not None:
            headers["Authorization"] = f"Bearer {self.keys.get(key, key)}"
        return self.client.request(method, url, headers=headers, **options)


@pytest.fixture
def keyed(library: Path, database: sql.URL) -> Iterator[Keyed]:
    opened = Library.open(library, Encoder.load(), url=database)
    keys = {}
    for owner in ("ada", "bo"):
        for scope in SCOPES:
            _, keys[f"{owner} {scope}"] = opened.add_key(owner, scope, None)
    _, keys["expired"] = opened.add_key("ada", "admin", YESTERDAY)
    revoked, keys["revoked"] = opened.add_key("ada", "admin", None)
    opened.revoke_key(revoked.id)
    opened.close()
    with Server(library=library, database=database) as client:
        yield Keyed(client, keys)


def sound(tmp_path: Path, seed: int) -> bytes:
    return write(tmp_path / f"{seed}.flac", melody(seed, 8.0)).read_bytes()


def post(keyed: Keyed, key: str | None, data: bytes, **fields: str) -> httpx.Response:
    files = {"audio": ("a.flac", data)}
    return keyed.ask("POST", "/v1/recordings", key, data=FORM | fields, files=files)


def found(keyed: Keyed, key: str, data: bytes) -> list[str]:
    answer = keyed.ask("POST", "/v1/query", key, files={"clip": data})
    assert answer.status_code == 200, answer.text
    return [match["recording"] for match in answer.json()["matches"]]


# What each route needs. A route that is added has to be told of here.
NEEDS = {
    ("POST", "/v1/query"): "query",
    ("POST", "/v1/recordings"): "ingest",
    ("GET", "/v1/recordings"): "query",
    ("GET", "/v1/recordings/{recording_id:path}"): "query",
    ("DELETE", "/v1/recordings/{recording_id:path}"): "ingest",
    ("PATCH", "/v1/recordings/{recording_id:path}"): "ingest",
    ("GET", "/v1/keys"): "admin",
    ("POST", "/v1/keys"): "admin",
    ("GET", "/v1/keys/{key_id}"): "admin",
    ("DELETE", "/v1/keys/{key_id}"): "admin",
    ("POST", "/v1/ingests"): "ingest",
    ("GET", "/v1/ingests"): "ingest",
    ("GET", "/v1/ingests/{ingest_id}"): "ingest",
    ("DELETE", "/v1/ingests/{ingest_id}"): "ingest",
    ("POST", "/v1/scans"): "query",
    ("GET", "/v1/scans"): "query",
    ("GET", "/v1/scans/{scan_id}"): "query",
    ("DELETE", "/v1/scans/{scan_id}"): "query",
    ("GET", "/v1/scans/{scan_id}/report/{file}"): "query",
    ("GET", "/"): None,
    ("GET", "/library"): None,
    ("GET", "/scans"): None,
    ("GET", "/docs"): None,
    ("GET", "/keys"): None,
    ("GET", "/parts/keys"): "admin",
    ("GET", "/parts/scans"): "query",
    ("GET", "/parts/ingests"): "ingest",
    ("GET", "/parts/example"): "query",
    ("POST", "/parts/answer"): "query",
    ("GET", "/parts/library"): "query",
    ("GET", "/metrics"): "admin",
    ("GET", "/healthz"): None,
    ("GET", "/readyz"): None,
}


def test_every_route_is_told_of() -> None:
    routes = {
        (method, route.path)
        for route in create_app(Settings()).state.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }
    assert routes == set(NEEDS)


@pytest.mark.parametrize("route", NEEDS, ids=" ".join)
def test_each_route_asks_for_its_scope(route: tuple[str, str], keyed: Keyed) -> None:
    method, path = route
    needed = NEEDS[route]
    url = re.sub(r"\{\w+(:path)?\}", "nothing-of-that-id", path)
    for key in (None, "", "earmark_0_0", "expired", "revoked", *SCOPES):
        name = f"bo {key}" if key in SCOPES else key
        status = keyed.ask(method, url, name).status_code
        if needed is None:
            assert status == 200, key
        elif key not in SCOPES:
            assert status == 401, key
        elif SCOPES.index(key) < SCOPES.index(needed):
            assert status == 403, key
        else:
            assert status in (200, 404, 415, 422), key


def test_who_has_no_key_is_told_so_before_the_body_is_read(keyed: Keyed) -> None:
    def body() -> Iterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    response = keyed.client.post("/v1/query", content=body(), headers={"Content-Length": "99"})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.headers["content-type"] == "application/problem+json"


@BOTH
def test_a_private_recording_answers_its_owner_alone(keyed: Keyed, tmp_path: Path) -> None:
    data = sound(tmp_path, 50)
    added = post(keyed, "ada ingest", data)
    assert added.status_code == 201, added.text
    entry = added.json()
    assert (entry["owner"], entry["private"]) == ("ada", True)
    id = entry["id"]
    assert found(keyed, "ada query", data) == [id]
    assert found(keyed, "bo admin", data) == [id]
    assert found(keyed, "bo query", data) == []
    for key, status in (("ada query", 200), ("bo query", 404), ("bo admin", 200)):
        assert keyed.ask("GET", f"/v1/recordings/{id}", key).status_code == status
        listed = keyed.ask("GET", "/v1/recordings", key).json()["recordings"]
        assert (id in [it["id"] for it in listed]) == (status == 200)
    assert keyed.ask("DELETE", f"/v1/recordings/{id}", "bo ingest").status_code == 404
    assert keyed.ask("DELETE", f"/v1/recordings/{id}", "ada ingest").status_code == 204
    assert found(keyed, "ada query", data) == []


def test_a_shared_recording_answers_all_and_only_its_owner_removes_it(
    keyed: Keyed, tmp_path: Path
) -> None:
    data = sound(tmp_path, 51)
    id = post(keyed, "ada ingest", data, private="false").json()["id"]
    assert found(keyed, "bo query", data) == [id]
    again = post(keyed, "bo ingest", data)
    assert (again.status_code, again.json()["recording"]) == (409, id)
    assert keyed.ask("DELETE", f"/v1/recordings/{id}", "bo ingest").status_code == 403
    assert keyed.ask("DELETE", f"/v1/recordings/{id}", "bo admin").status_code == 204


@BOTH
def test_the_same_audio_of_another_owner_is_added_and_not_told_of(
    keyed: Keyed, tmp_path: Path
) -> None:
    data = sound(tmp_path, 52)
    first, second = (post(keyed, f"{owner} ingest", data) for owner in ("ada", "bo"))
    assert (first.status_code, second.status_code) == (201, 201), second.text
    assert first.json()["id"] != second.json()["id"]
    assert found(keyed, "ada query", data) == [first.json()["id"]]
    assert found(keyed, "bo query", data) == [second.json()["id"]]
    taken = post(keyed, "bo ingest", sound(tmp_path, 53), id=first.json()["id"])
    assert taken.status_code == 409
    assert "recording" not in taken.json()


def test_what_was_ingested_at_the_machine_answers_everybody(
    keyed: Keyed, earmark: Earmark, music: Path
) -> None:
    (song,) = [row for row in earmark.lines("list") if row["source"] == "song-1.flac"]
    assert (song["owner"], song["private"]) == (None, False)
    assert found(keyed, "bo query", (music / "clip.wav").read_bytes()) == [song["id"]]
    assert keyed.ask("DELETE", f"/v1/recordings/{song['id']}", "bo ingest").status_code == 403


@BOTH
def test_a_library_without_keys_asks_for_none_and_with_its_first_key_for_one(
    library: Path, earmark: Earmark, database: sql.URL
) -> None:
    with Server(library=library, database=database) as client:
        assert client.get("/v1/recordings").status_code == 200
        (made,) = earmark.lines("keys", "create", "--owner", "Ada", "--scope", "query")
        assert client.get("/v1/recordings").status_code == 401
        header = {"Authorization": f"Bearer {made['key']}"}
        assert client.get("/v1/recordings", headers=header).status_code == 200
        earmark("keys", "revoke", made["id"])
        assert client.get("/v1/recordings", headers=header).status_code == 401
        again = earmark.lines("keys", "revoke", made["id"])
        assert again == [{"id": made["id"], "revoked": False}]


@BOTH
def test_a_key_is_revoked_while_another_process_writes(
    keyed: Keyed, library: Path, earmark: Earmark, database: sql.URL
) -> None:
    opened = Library.open(library, Encoder.load(), url=database)
    with opened.writer():  # for as long as an ingest takes
        (made,) = earmark.lines("keys", "create", "--owner", "Cy", "--scope", "query")
        (listed,) = [it for it in opened.all_keys() if it.owner == "Cy"]
        assert keyed.ask("GET", "/v1/recordings", made["key"]).status_code == 200
        earmark("keys", "revoke", made["id"])
        assert keyed.ask("GET", "/v1/recordings", made["key"]).status_code == 401
        revoked = keyed.ask("DELETE", f"/v1/keys/{listed.id}", "ada admin")
        assert revoked.status_code == 204
        wanted = {"owner": "Di", "scope": "query"}
        assert keyed.ask("POST", "/v1/keys", "ada admin", json=wanted).status_code == 201
    assert list(verify(opened)) == []


@BOTH
def test_keys_and_recordings_change_at_once_and_the_log_stays_whole(
    library: Path, database: sql.URL
) -> None:
    def make_keys() -> None:
        own = Library.open(library, Encoder.load(), url=database)
        for number in range(20):
            own.revoke_key(own.add_key(f"owner {number}", "query", None)[0].id)

    opened = Library.open(library, Encoder.load(), url=database)
    some = next(opened.every_recording()).id
    with ThreadPoolExecutor(2) as threads:
        makers = [threads.submit(make_keys) for _ in range(2)]
        for number in range(20):
            with opened.writer() as writer:
                writer.change(some, {"title": f"title {number}"})
        for each in makers:
            each.result()
    assert sum(it.revoked_at is not None for it in opened.all_keys()) == 40
    assert list(verify(opened)) == []


@BOTH
def test_keys_are_shown_once_and_kept_as_hashes(
    earmark: Earmark, library: Path, database: sql.URL
) -> None:
    options = ("--owner", "Blue Label", "--scope", "ingest", "--expires", "2099-12-31")
    text = earmark("keys", "create", *options).stdout.strip()
    (listed,) = earmark.lines("keys", "list")
    assert listed["owner"] == "Blue Label" and listed["scope"] == "ingest"
    assert listed["expires_at"] == "2099-12-31T23:59:59+00:00"
    secret = text.split("_", 2)[2].encode()
    for file in library.rglob("*"):
        assert not file.is_file() or secret not in file.read_bytes(), file
    opened = Library.open(library, Encoder.load(), url=database)
    assert opened.key(text) is not None
    assert opened.key(text[:-1]) is None
    assert opened.key(text[:-1] + ("A" if text[-1] != "A" else "B")) is None
    assert list(verify(opened)) == []


@BOTH
def test_an_admin_makes_lists_and_revokes_keys(keyed: Keyed) -> None:
    wanted = {"owner": " Cy ", "scope": "query", "expires": "2099-12-31"}
    made = keyed.ask("POST", "/v1/keys", "ada admin", json=wanted)
    assert made.status_code == 201, made.text
    assert made.headers["cache-control"] == "no-store"
    entry = made.json()
    text = entry.pop("key")
    assert (entry["owner"], entry["scope"]) == ("Cy", "query")
    assert entry["expires_at"] == "2099-12-31T23:59:59+00:00"
    assert keyed.ask("GET", "/v1/recordings", text).status_code == 200
    location = made.headers["location"]
    assert keyed.ask("GET", location, "ada admin").json() == entry
    listed = keyed.ask("GET", "/v1/keys", "ada admin")
    assert entry in listed.json()["keys"]
    assert text.split("_", 2)[2] not in listed.text
    for _ in range(2):
        assert keyed.ask("DELETE", location, "ada admin").status_code == 204
    assert keyed.ask("GET", "/v1/recordings", text).status_code == 401
    assert keyed.ask("GET", location, "ada admin").json()["revoked_at"] is not None


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"owner": " "}, "owner"),
        ({"owner": "two\u2028lines"}, "owner"),
        ({"owner": "x" * 201}, "owner"),
        ({"scope": "all"}, "scope"),
        ({"expires": "soon"}, "expires"),
        ({"expires": 0}, "expires"),
        ({"expires": "0"}, "expires"),
        ({"colour": "blue"}, "colour"),
    ],
)
def test_a_key_that_cannot_be_is_a_problem(
    keyed: Keyed, change: dict[str, str], where: str
) -> None:
    wanted = {"owner": "Cy", "scope": "query"} | change
    refused = keyed.ask("POST", "/v1/keys", "ada admin", json=wanted)
    assert refused.status_code == 422
    assert [error["where"][-1] for error in refused.json()["errors"]] == [where]


def test_the_first_key_is_not_made_by_whoever_reaches_the_server(library: Path) -> None:
    with Server(library=library) as client:
        refused = client.post("/v1/keys", json={"owner": "Eve", "scope": "admin"})
        assert refused.status_code == 403
        assert "earmark keys create" in refused.json()["detail"]
        assert client.get("/v1/keys").json() == {"keys": []}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8000"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Host": "rebound.example"}, 403),
        ({"Host": "127.0.0.1.rebound.example:8000"}, 403),
        ({"Host": ""}, 403),
    ],
)
def test_without_keys_pages_of_other_sites_are_not_answered(
    headers: dict[str, str], status: int, library: Path
) -> None:
    with Server(library=library) as client:
        response = client.get("/v1/recordings", headers=headers)
        assert response.status_code == status, response.text
        if status == 403:
            assert "earmark keys create" in response.json()["detail"]


def test_with_keys_a_server_answers_under_any_name(keyed: Keyed) -> None:
    headers = {"Host": "earmark.example", "Sec-Fetch-Site": "cross-site"}
    assert keyed.ask("GET", "/v1/recordings", "bo query", headers=headers).status_code == 200


def test_only_who_may_change_a_recording_changes_what_is_said_of_it(
    keyed: Keyed, tmp_path: Path
) -> None:
    data = sound(tmp_path, 54)
    id = post(keyed, "ada ingest", data, title="Before", isrc="DEA120000001").json()["id"]
    url = f"/v1/recordings/{id}"

    def change(key: str, **values: Any) -> httpx.Response:
        return keyed.ask("PATCH", url, key, json=values)

    assert change("bo ingest", title="Mine").status_code == 404
    changed = change("ada ingest", title="After", isrc=None, licence_until="2099-12-31")
    assert changed.status_code == 200, changed.text
    assert changed.json() == keyed.ask("GET", url, "ada query").json()
    said = changed.json()
    assert (said["title"], said["isrc"], said["licence_until"]) == ("After", None, "2099-12-31")
    assert found(keyed, "bo query", data) == []
    assert change("ada ingest", private=False).json()["private"] is False
    assert found(keyed, "bo query", data) == [id]
    assert change("bo ingest", title="Mine").status_code == 403
    by_admin = change("bo admin", rights="licensed").json()
    assert by_admin["rights"] == "licensed" and by_admin["supplied_by"] != said["supplied_by"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("create", "--owner", " ", "--scope", "query"), "owner"),
        (("create", "--owner", "a\nb", "--scope", "query"), "owner"),
        (("create", "--owner", "a", "--scope", "all"), "--scope"),
        (("create", "--owner", "a", "--scope", "query", "--expires", "soon"), "soon"),
    ],
)
def test_a_key_that_cannot_be_is_refused(
    arguments: tuple[str, ...], complaint: str, earmark: Earmark
) -> None:
    assert complaint in earmark("keys", *arguments, status=2).stderr
    assert "no key" in earmark("keys", "revoke", "000000000000", status=1).stderr


@pytest.mark.parametrize(
    ("setting", "value", "answers"),
    [("requests_per_minute", 3, 3), ("audio_per_day", 12, 3), ("bytes_per_day", 600_000, 3)],
)
def test_a_key_has_only_so_much(
    setting: str, value: Any, answers: int, library: Path, music: Path
) -> None:
    opened = Library.open(library, Encoder.load())
    keys = dict(zip("ab", (opened.add_key(owner, "query", None)[1] for owner in "ab"), strict=True))
    opened.close()
    clip = (music / "clip.wav").read_bytes()  # 5 s, 160 kB
    with Server(library=library, **{setting: value}) as client:
        keyed = Keyed(client, keys)
        statuses = [
            keyed.ask("POST", "/v1/query", "a", files={"clip": clip}).status_code
            for _ in range(answers)
        ]
        assert statuses == answers * [200]
        refused = keyed.ask("POST", "/v1/query", "a", files={"clip": clip})
        assert refused.status_code == 429
        assert 0 < int(refused.headers["retry-after"]) <= 86400
        assert keyed.ask("POST", "/v1/query", "b", files={"clip": clip}).status_code == 200


def test_sound_that_comes_to_nothing_counts_too(library: Path, music: Path) -> None:
    opened = Library.open(library, Encoder.load())
    _, key = opened.add_key("ada", "query", None)
    opened.close()
    silent = (music / "silent.wav").read_bytes()  # 3 s
    with Server(library=library, audio_per_day=3) as client:
        keyed = Keyed(client, {"ada": key})
        statuses = [
            keyed.ask("POST", "/v1/query", "ada", files={"clip": silent}).status_code
            for _ in range(2)
        ]
        assert statuses == [422, 429]


def test_bodies_that_do_not_say_how_long_they_are_count_too(library: Path, music: Path) -> None:
    opened = Library.open(library, Encoder.load())
    _, key = opened.add_key("ada", "query", None)
    opened.close()

    def body(size: int) -> Iterator[bytes]:
        yield bytes(size)

    kind = {"Content-Type": "application/vnd.earmark.fingerprint"}
    with Server(library=library, bytes_per_day=100_000) as client:
        keyed = Keyed(client, {"ada": key})
        first = keyed.ask("POST", "/v1/query", "ada", content=body(90_000), headers=dict(kind))
        assert first.status_code == 415  # no fingerprint
        again = keyed.ask("POST", "/v1/query", "ada", content=body(20_000), headers=dict(kind))
        assert again.status_code == 429
        assert int(again.headers["retry-after"]) > 0
