"""The server decodes what it is sent in processes of their own: what ends one costs its request alone."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from melodies import melody, write
from server import Server

import service.runtime.decoding
import service.runtime.workers
from fingerprint.encoder import Encoder
from fingerprint.fingerprint import QUERY_EVERY, fingerprint

FORM = {"rightsholder": "Me", "rights": "owned"}


def _crash(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _swallow(*_: object) -> int:
    return len(bytearray(1 << 40))


def ask(client: TestClient, data: bytes) -> httpx.Response:
    return client.post("/v1/query", files={"clip": ("clip.wav", data)})


def test_clips_and_recordings_go_through_a_process_of_their_own(
    library: Path, music: Path, tmp_path: Path
) -> None:
    clip = (music / "clip.wav").read_bytes()
    song = write(tmp_path / "new.flac", melody(60, 8.0)).read_bytes()
    with Server(library=library, isolate=True, jobs=1) as client:
        answer = ask(client, clip)
        assert answer.json()["matches"][0]["source"] == "song-1.flac"
        added = client.post("/v1/recordings", files={"audio": ("new.flac", song)}, data=FORM)
        assert added.status_code == 201, added.text
        assert ask(client, song).json()["matches"][0]["recording"] == added.json()["id"]
        refused = ask(client, b"a letter\n" * 100)
        assert (refused.status_code, refused.json()["error"]["type"]) == (415, "undecodable")


@pytest.mark.parametrize(("harm", "status"), [(_crash, 422), (_swallow, 422)])
def test_what_ends_a_decoder_costs_its_request_alone(
    harm: object, status: int, library: Path, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = (music / "clip.wav").read_bytes()
    with Server(library=library, isolate=True, jobs=2) as client:
        with monkeypatch.context() as patched:
            patched.setattr(service.runtime.decoding, "_clip", harm)
            with ThreadPoolExecutor(3) as threads:
                refused = [
                    future.result()
                    for future in [threads.submit(ask, client, clip) for _ in range(3)]
                ]
        for response in refused:
            assert response.status_code == status, response.text
            assert response.headers["content-type"] == "application/problem+json"
        assert ask(client, clip).status_code == 200


def test_a_decoder_that_cannot_be_started_is_no_clips_fault(
    library: Path, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = (music / "clip.wav").read_bytes()
    with Server(library=library, isolate=True, jobs=3) as client:
        with monkeypatch.context() as patched:
            patched.setattr(service.runtime.workers, "_set_up", _crash)
            refused = ask(client, clip)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert ask(client, clip).status_code == 200


@pytest.mark.parametrize("isolate", [False, True])
def test_a_clip_may_be_less_long_than_a_recording(
    isolate: bool, library: Path, tmp_path: Path
) -> None:
    song = write(tmp_path / "new.flac", melody(60, 8.0)).read_bytes()
    made = fingerprint(tmp_path / "new.flac", Encoder.load(), QUERY_EVERY)
    settings = {"isolate": isolate, "jobs": 1, "max_clip": timedelta(seconds=6)}
    with Server(library=library, **settings) as client:
        refused = ask(client, song)
        assert (refused.status_code, refused.json()["error"]["type"]) == (422, "too-long")
        media_type = {"Content-Type": "application/vnd.earmark.fingerprint"}
        refused = client.post("/v1/query", content=made.to_bytes(), headers=media_type)
        assert (refused.status_code, refused.json()["error"]["type"]) == (422, "too-long")
        added = client.post("/v1/recordings", files={"audio": ("new.flac", song)}, data=FORM)
        assert added.status_code == 201, added.text
