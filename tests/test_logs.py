"""Request ids and the log: what an operator can follow, and what is never in it."""

import json
import logging
import re
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Earmark
from fastapi.testclient import TestClient
from server import Server

from index.library import Library


@pytest.fixture
def client(library: Path) -> Iterator[TestClient]:
    with Server(library=library) as client:
        yield client


def test_a_sane_request_id_is_kept_and_another_replaced(client: TestClient) -> None:
    for sent in ("client-7", "0123abcd" * 4, "a/b:c=+._-"):
        response = client.get("/healthz", headers={"X-Request-ID": sent})
        assert response.headers["x-request-id"] == sent
    made = set()
    for sent in ("", "two words", "x" * 129, "<script>", "{}"):
        response = client.get("/healthz", headers={"X-Request-ID": sent})
        assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])
        made.add(response.headers["x-request-id"])
    assert len(made) == 5


def test_every_problem_says_which_request_it_was(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(Library, "recordings", fail)
    for method, path, status in (
        ("GET", "/v1/recordings/none", 404),
        ("GET", "/none", 404),
        ("POST", "/v1/query", 415),
        ("POST", "/v1/recordings", 422),
        ("GET", "/v1/recordings", 500),
    ):
        response = client.request(method, path, headers={"X-Request-ID": "mine"})
        assert response.status_code == status
        assert response.headers["x-request-id"] == response.json()["request_id"] == "mine"
    refused = Server(library=Path("nowhere")).client.get("/v1/recordings")
    assert refused.status_code == 503
    assert refused.headers["x-request-id"] == refused.json()["request_id"]


def test_requests_are_logged_as_json_without_what_is_private(
    earmark: Earmark, music: Path, tmp_path: Path
) -> None:
    (made,) = earmark.lines("keys", "create", "--owner", "Ada", "--scope", "query")
    process = subprocess.Popen(
        earmark.command("serve", "--port", "0"),
        cwd=earmark.folder,
        env=earmark.environment
        | {
            "EARMARK_LOG_FORMAT": "json",
            "EARMARK_LOG_LEVEL": "info",
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(json.loads(line))
        if "ready, with" in line:
            break
    (address,) = re.findall(r"http://\S+", "".join(line["message"] for line in lines))
    fingerprint = tmp_path / "clip.emk"
    earmark("fingerprint", "clip.wav", "-o", fingerprint)
    request = urllib.request.Request(
        f"{address}/v1/query?secret-query=1",
        fingerprint.read_bytes(),
        {
            "Authorization": f"Bearer {made['key']}",
            "Content-Type": "application/vnd.earmark.fingerprint",
            "X-Request-ID": "mine",
        },
    )
    with urllib.request.urlopen(request) as response:
        assert response.headers["x-request-id"] == "mine"
        assert json.load(response)["matches"]
    process.send_signal(signal.SIGTERM)
    lines += [json.loads(line) for line in process.stderr]
    process.wait()
    process.stderr.close()
    (asked,) = [line for line in lines if line.get("request_id") == "mine"]
    assert asked["seconds"] > 0 and asked["time"] and asked["level"] == "INFO"
    assert {name: asked[name] for name in ("method", "route", "status", "key")} == {
        "method": "POST",
        "route": "/v1/query",
        "status": 200,
        "key": made["id"],
    }
    said = json.dumps(lines)
    for private in (made["key"].split("_", 2)[2], "secret-query", "song-1", "clip.wav", "Ada"):
        assert private not in said


def test_requests_are_logged_from_info_on(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        client.get("/healthz")
        client.get("/v1/keys/earmark_0_secret", headers={"X-Request-ID": "not sane"})
    assert "/healthz" not in caplog.text
    with caplog.at_level(logging.INFO):
        client.get("/v1/keys/earmark_0_secret")
    assert "GET /v1/keys/{key_id}: 404" in caplog.text
    assert "earmark_0_secret" not in "".join(
        record.getMessage() for record in caplog.records if record.name.startswith("service")
    )
