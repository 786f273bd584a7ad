"""What comes while too much is waiting is told to come again, at once; what waits is answered."""

import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE
from server import Server

import service.web.query_routes
import service.web.server
from fingerprint.encoder import Encoder
from index.library import Library
from service.web.problems import unavailable


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """What every answer waits for."""
    opened, answer = threading.Event(), service.web.query_routes.answer

    def late(*args: Any, **kwargs: Any) -> Any:
        assert opened.wait(PATIENCE)
        return answer(*args, **kwargs)

    monkeypatch.setattr(service.web.query_routes, "answer", late)
    yield opened
    opened.set()


@pytest.mark.parametrize("waiting", [0, 2])
def test_overload_is_refused_at_once_and_what_waits_is_answered(
    waiting: int, library: Path, music: Path, gate: threading.Event
) -> None:
    clip = (music / "clip.wav").read_bytes()
    room = 1 + waiting
    with (
        Server(library=library, jobs=1, waiting=waiting) as client,
        ThreadPoolExecutor(room + 1) as threads,
    ):
        asked = [
            threads.submit(client.post, "/v1/query", files={"clip": ("clip.wav", clip)})
            for _ in range(room + 1)
        ]
        (refused,), answered = wait(asked, 60, FIRST_COMPLETED)
        assert f"earmark_requests_taken {room}.0" in client.get("/metrics").text
        gate.set()
        problem = refused.result()
        assert problem.status_code == 503
        assert int(problem.headers["retry-after"]) > 0
        assert problem.headers["content-type"] == "application/problem+json"
        for each in answered:
            assert each.result().json()["matches"][0]["source"] == "song-1.flac"
        again = client.post("/v1/query", files={"clip": ("clip.wav", clip)})
        assert again.status_code == 200, "there is room again"


def test_one_key_leaves_room_for_others(library: Path, music: Path, gate: threading.Event) -> None:
    opened = Library.open(library, Encoder.load())
    ada, bo = (
        {"Authorization": f"Bearer {opened.add_key(owner, 'query', None)[1]}"}
        for owner in ("ada", "bo")
    )
    opened.close()
    clip = {"clip": ("clip.wav", (music / "clip.wav").read_bytes())}
    with (
        Server(library=library, jobs=1, waiting=9, waiting_per_key=2) as client,
        ThreadPoolExecutor(4) as threads,
    ):
        asked = [
            threads.submit(client.post, "/v1/query", files=clip, headers=ada) for _ in range(3)
        ]
        (refused,), answered = wait(asked, 60, FIRST_COMPLETED)
        others = threads.submit(client.post, "/v1/query", files=clip, headers=bo)
        gate.set()
        problem = refused.result()
        assert problem.status_code == 429
        assert int(problem.headers["retry-after"]) > 0
        assert "of this key" in problem.json()["detail"]
        for each in (*answered, others):
            assert each.result().status_code == 200
        again = client.post("/v1/query", files=clip, headers=ada)
        assert again.status_code == 200, "there is room again"


def test_who_comes_again_in_time_finds_the_connection_open() -> None:
    headers = unavailable("").headers or {}
    assert int(headers["Retry-After"]) < service.web.server.KEEP_ALIVE
