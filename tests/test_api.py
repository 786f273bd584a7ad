"""The HTTP service as a client meets it: the contract's answers, and every error as a problem."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from command import Earmark
from fastapi.testclient import TestClient
from melodies import CLIP_START, SONGS, melody, write
from server import Server

from fingerprint.encoder import Encoder
from fingerprint.fingerprint import QUERY_EVERY, fingerprint
from index.library import Library
from service.web.auth import is_loopback
from service.web.problems import STATUS_OF_CLIP_ERROR
from service.web.query_routes import FINGERPRINT_MEDIA_TYPE

Conforms = Callable[[object, str], None]
Problem = Callable[[httpx.Response, int], dict[str, Any]]
FORM = {"rightsholder": "Me", "rights": "owned"}


@pytest.fixture
def client(library: Path) -> Iterator[TestClient]:
    """A client of a server of this test's own library of the songs."""
    with Server(library=library) as client:
        yield client


@pytest.fixture
def problem(conforms: Conforms) -> Callable[[httpx.Response, int], dict[str, Any]]:
    """Checks that an answer is a problem of this status, and returns it."""

    def check(response: httpx.Response, status: int) -> dict[str, Any]:
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/problem+json"
        body: dict[str, Any] = response.json()
        conforms(body, "problem")
        assert body["status"] == status
        return body

    return check


def test_a_clip_is_answered_as_on_the_command_line(
    client: TestClient, earmark: Earmark, music: Path, conforms: Conforms
) -> None:
    response = client.post("/v1/query", files={"clip": (music / "clip.wav").open("rb")})
    assert response.status_code == 200, response.text
    answer = response.json()
    conforms(answer, "answer")
    best = answer["matches"][0]
    assert best["source"] == "song-1.flac"
    assert best["reference_start"] - best["query_start"] == pytest.approx(CLIP_START, abs=0.25)
    (told,) = earmark.lines("query", "clip.wav")
    assert list(answer) == list(told)
    assert {**answer, "elapsed_ms": 0} == {**told, "elapsed_ms": 0}


def test_a_fingerprint_is_answered_like_its_clip(
    client: TestClient, earmark: Earmark, music: Path, tmp_path: Path, conforms: Conforms
) -> None:
    emk = tmp_path / "clip.emk"
    earmark("fingerprint", "clip.wav", "-o", emk)
    media_type = {"Content-Type": FINGERPRINT_MEDIA_TYPE}
    sent = client.post("/v1/query", content=emk.read_bytes(), headers=media_type).json()
    uploaded = client.post("/v1/query", files={"clip": emk.open("rb")}).json()
    for answer, name in ((sent, "clip.wav"), (uploaded, "clip.emk")):
        conforms(answer, "answer")
        assert answer["clip"] == name
        assert answer["matches"][0]["source"] == "song-1.flac"


@pytest.mark.parametrize(
    "change",
    [
        {"encoder": "another"},
        {"sha256": "none"},
        {"duration": -1.0},
        {"duration": 1e9},
        {"step": 1e-9},
        {"start": 1e300},
        {"every": 5},
        {"embeddings": np.zeros((54, 7), np.float32)},
    ],
)
def test_a_fingerprint_whose_parts_do_not_belong_together_is_a_problem(
    client: TestClient, music: Path, tmp_path: Path, problem: Problem, change: dict[str, Any]
) -> None:
    made = fingerprint(music / "clip.wav", Encoder.load(), QUERY_EVERY)
    replace(made, **change).save(tmp_path / "clip.emk")
    response = client.post("/v1/query", files={"clip": (tmp_path / "clip.emk").open("rb")})
    assert problem(response, 415)["error"]["type"] == "undecodable"


def test_unknown_music_has_no_matches(client: TestClient, music: Path, conforms: Conforms) -> None:
    answer = client.post("/v1/query", files={"clip": (music / "unknown.wav").open("rb")}).json()
    conforms(answer, "answer")
    assert answer["error"] is None
    assert answer["matches"] == []


def test_a_query_says_how_rare_chance_has_to_be(client: TestClient, music: Path) -> None:
    clip = {"clip": (music / "clip.wav").open("rb")}
    answer = client.post("/v1/query?max_e_value=1e-300", files=clip).json()
    assert answer["matches"] == []


@pytest.mark.parametrize(
    ("name", "error", "status"),
    [
        ("text.mp3", "undecodable", 415),
        ("empty.wav", "undecodable", 415),
        ("broken.emk", "undecodable", 415),
        ("silent.wav", "silent", 422),
        ("short.wav", "too-short", 422),
    ],
)
def test_a_clip_that_cannot_be_read_is_a_problem(
    client: TestClient, music: Path, problem: Problem, name: str, error: str, status: int
) -> None:
    for route, part, form in (
        ("/v1/query", "clip", {}),
        ("/v1/recordings", "audio", FORM if not name.endswith(".emk") else FORM | {"id": "x"}),
    ):
        upload = {part: (music / name).open("rb")}
        body = problem(client.post(route, files=upload, data=form), status)
        assert body["error"]["type"] == error


def test_every_kind_of_clip_error_has_a_status() -> None:
    from typing import get_args

    from fingerprint.errors import AudioErrorType

    assert set(STATUS_OF_CLIP_ERROR) == set(get_args(AudioErrorType))


def test_a_clip_that_is_too_long_is_a_problem(library: Path, music: Path, problem: Problem) -> None:
    with Server(library=library, max_duration="2 s") as client:
        clip = {"clip": (music / "clip.wav").open("rb")}
        assert problem(client.post("/v1/query", files=clip), 422)["error"]["type"] == "too-long"


def test_a_body_that_is_too_large_is_a_problem(
    library: Path, music: Path, problem: Problem
) -> None:
    clip = (music / "clip.wav").read_bytes()

    def undeclared(content: bytes) -> Iterator[bytes]:
        for first in range(0, len(content), 2**16):
            yield content[first : first + 2**16]

    with Server(library=library, max_upload=2**16) as client:
        # the part is larger than allowed, the body is not
        response = client.post("/v1/query", files={"clip": clip})
        assert problem(response, 413)["error"]["type"] == "too-large"
        # the body as a whole, by its declared length and by what arrives
        big = clip * 10
        problem(client.post("/v1/query", files={"clip": big}), 413)
        for media_type in (FINGERPRINT_MEDIA_TYPE, "multipart/form-data; boundary=b"):
            head = b'--b\r\nContent-Disposition: form-data; name="clip"; filename="c"\r\n\r\n'
            response = client.post(
                "/v1/query",
                content=undeclared(head + big),
                headers={"Content-Type": media_type},
            )
            problem(response, 413)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"content": b"RIFF", "headers": {"Content-Type": "audio/wav"}}, 415),
        ({"content": b"RIFF"}, 415),
        ({"json": {"clip": "suspect.mp3"}}, 415),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400),
        (
            {
                "content": b"RIFF",
                "headers": {"Content-Type": "multipart/form-data; boundary=b"},
            },
            400,
        ),
        ({"content": b"no", "headers": {"Content-Type": FINGERPRINT_MEDIA_TYPE}}, 415),
        ({"files": {"audio": b"x"}}, 422),
        ({"files": {"clip": b"x"}, "params": {"max_e_value": "-1"}}, 422),
        ({"files": {"clip": b"x"}, "params": {"max_e_value": "nan"}}, 422),
        ({"files": {"clip": b"x"}, "params": {"max_e_value": "some"}}, 422),
    ],
)
def test_a_query_that_is_not_understood_is_a_problem(
    client: TestClient, problem: Problem, request_: dict[str, Any], status: int
) -> None:
    problem(client.post("/v1/query", **request_), status)


def test_a_recording_is_added_found_and_removed(
    client: TestClient, tmp_path: Path, conforms: Conforms, problem: Problem
) -> None:
    song = write(tmp_path / "new.flac", melody(11))
    form = FORM | {"id": "new/one", "title": "Neu", "isrc": "DEA120000001"}
    response = client.post("/v1/recordings", files={"audio": song.open("rb")}, data=form)
    assert response.status_code == 201, response.text
    recording = response.json()
    conforms(recording, "recording")
    assert recording["source"] == "new.flac"
    assert {name: recording[name] for name in form} == form
    location = response.headers["Location"]
    assert client.get(location).json() == recording
    clip = write(tmp_path / "clip.flac", melody(11)[-80000:])
    answer = client.post("/v1/query", files={"clip": clip.open("rb")}).json()
    assert answer["matches"][0]["recording"] == "new/one"
    assert answer["library"]["recordings"] == SONGS + 1

    assert client.delete(location).status_code == 204
    problem(client.get(location), 404)
    problem(client.delete(location), 404)
    answer = client.post("/v1/query", files={"clip": clip.open("rb")}).json()
    assert answer["matches"] == []


def test_the_same_audio_or_a_taken_id_is_a_conflict(
    client: TestClient, music: Path, tmp_path: Path, problem: Problem
) -> None:
    known = client.get("/v1/recordings").json()["recordings"][0]
    song = (music / "songs" / known["source"]).open("rb")
    response = client.post("/v1/recordings", files={"audio": song}, data=FORM)
    assert problem(response, 409)["recording"] == known["id"]
    assert client.get(response.headers["Location"]).json() == known
    other = write(tmp_path / "other.flac", melody(12, 3.0)).open("rb")
    form = FORM | {"id": known["id"]}
    response = client.post("/v1/recordings", files={"audio": other}, data=form)
    assert problem(response, 409)["recording"] == known["id"]


@pytest.mark.parametrize(
    ("form", "where"),
    [
        ({"rightsholder": "Me"}, "rights"),
        ({"rights": "owned"}, "rightsholder"),
        ({"rightsholder": "", "rights": "owned"}, "rightsholder"),
        ({"rightsholder": " ", "rights": "owned"}, "rightsholder"),
        ({"rightsholder": "Me", "rights": "stolen"}, "rights"),
        (FORM | {"tilte": "Neu"}, "tilte"),
        (FORM | {"id": "two\nlines"}, "id"),
        (FORM | {"id": "x" * 201}, "id"),
        (FORM | {"title": "x" * 1001}, "title"),
        (FORM | {"artist": "a\0b"}, "artist"),
    ],
)
def test_no_rights_basis_or_a_bad_field_is_a_problem(
    client: TestClient, music: Path, problem: Problem, form: dict[str, str], where: str
) -> None:
    audio = {"audio": (music / "unknown.wav").open("rb")}
    body = problem(client.post("/v1/recordings", files=audio, data=form), 422)
    assert [error["where"][-1] for error in body["errors"]] == [where]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"title": ""}, "title"),
        ({"title": "x" * 1001}, "title"),
        ({"title": "x" * 1000 + " "}, "title"),
        ({"title": "two\n"}, "title"),
        ({"rightsholder": None}, "rightsholder"),
        ({"rightsholder": " "}, "rightsholder"),
        ({"rights": None}, "rights"),
        ({"rights": "stolen"}, "rights"),
        ({"licence_until": "soon"}, "licence_until"),
        ({"private": None}, "private"),
        ({"id": "another"}, "id"),
        ({"owner": "me"}, "owner"),
        ([], "body"),
    ],
)
def test_a_change_that_cannot_be_is_a_problem_and_changes_nothing(
    client: TestClient, problem: Problem, change: object, where: str
) -> None:
    before = client.get("/v1/recordings").json()["recordings"][0]
    url = f"/v1/recordings/{before['id']}"
    body = problem(client.patch(url, json=change), 422)
    assert [error["where"][-1] for error in body["errors"]] == [where]
    problem(client.patch(url, content=b"{", headers={"Content-Type": "application/json"}), 422)
    problem(client.patch("/v1/recordings/nobody", json={}), 404)
    assert client.get(url).json() == before


def test_blanks_at_the_ends_of_a_field_are_dropped(client: TestClient) -> None:
    url = f"/v1/recordings/{client.get('/v1/recordings').json()['recordings'][0]['id']}"
    assert client.patch(url, json={"title": "  Two  words "}).json()["title"] == "Two  words"


def test_a_recording_without_audio_is_a_problem(client: TestClient, problem: Problem) -> None:
    body = problem(client.post("/v1/recordings", data=FORM), 422)
    assert body["errors"][0]["where"][-1] == "audio"


def test_recordings_are_listed_searched_and_paged(
    client: TestClient, conforms: Conforms, problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = client.get("/v1/recordings").json()
    conforms(page, "recording_page")
    assert sorted(it["source"] for it in page["recordings"]) == [
        f"song-{number}.flac" for number in range(SONGS)
    ]
    assert page["next_cursor"] is None
    found = client.get("/v1/recordings", params={"q": "song-2"}).json()["recordings"]
    assert [it["source"] for it in found] == ["song-2.flac"]
    assert client.get("/v1/recordings", params={"q": "%"}).json()["recordings"] == []

    monkeypatch.setattr("service.web.recording_routes.PAGE", SONGS - 1)
    first = client.get("/v1/recordings").json()
    cursor = {"cursor": first["next_cursor"]}
    second = client.get("/v1/recordings", params=cursor).json()
    conforms(second, "recording_page")
    assert first["recordings"] + second["recordings"] == page["recordings"]
    for cursor in ("none", "9" * 30):
        problem(client.get("/v1/recordings", params={"cursor": cursor}), 422)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1/recordings/nobody", 404),
        ("DELETE", "/v1/recordings/nobody", 404),
        ("GET", "/v1/query", 405),
        ("PUT", "/v1/recordings/nobody", 405),
    ],
)
def test_a_wrong_address_is_a_problem(
    client: TestClient, problem: Problem, method: str, path: str, status: int
) -> None:
    response = client.request(method, path)
    problem(response, status)
    assert (status == 405) == ("allow" in response.headers)


def test_an_error_of_earmarks_is_a_problem_too(
    client: TestClient, problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(Library, "recordings", fail)
    assert "secret" not in problem(client.get("/v1/recordings"), 500)["detail"]


def test_what_another_process_ingests_and_removes_is_seen_at_once(
    client: TestClient, earmark: Earmark, tmp_path: Path
) -> None:
    song = write(tmp_path / "new.flac", melody(13))
    clip = write(tmp_path / "clip.wav", melody(13)[:80000])

    def found() -> list[str]:
        answer = client.post("/v1/query", files={"clip": clip.open("rb")}).json()
        return [match["source"] for match in answer["matches"] if match["tier"] == "match"]

    assert found() == []
    (added,) = earmark.lines("ingest", song, "--rightsholder", "Me", "--rights", "owned")
    assert found() == ["new.flac"]
    assert client.get(f"/v1/recordings/{added['recording']}").status_code == 200
    earmark("remove", added["recording"])
    assert found() == []
    assert client.get(f"/v1/recordings/{added['recording']}").status_code == 404


def test_a_library_that_another_process_is_writing_can_be_asked_but_not_changed(
    client: TestClient, library: Path, music: Path, tmp_path: Path, problem: Problem
) -> None:
    known = client.get("/v1/recordings").json()["recordings"][0]["id"]
    song = write(tmp_path / "new.flac", melody(14, 3.0))
    with Library.open(library, Encoder.load()).writer():
        added = client.post("/v1/recordings", files={"audio": song.open("rb")}, data=FORM)
        removed = client.delete(f"/v1/recordings/{known}")
        for response in (added, removed):
            problem(response, 503)
            assert int(response.headers["Retry-After"]) > 0
        clip = {"clip": (music / "clip.wav").open("rb")}
        assert client.post("/v1/query", files=clip).json()["matches"]
    assert client.delete(f"/v1/recordings/{known}").status_code == 204


def test_clients_that_come_together_are_all_answered(client: TestClient, music: Path) -> None:
    clip = (music / "clip.wav").read_bytes()
    songs = [write(music / f"together-{seed}.wav", melody(seed, 3.0)) for seed in range(20, 24)]
    answers: list[int] = []

    def ask() -> None:
        answers.append(client.post("/v1/query", files={"clip": clip}).status_code)

    def add(song: Path) -> None:
        upload = {"audio": song.open("rb")}
        answers.append(client.post("/v1/recordings", files=upload, data=FORM).status_code)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    threads += [threading.Thread(target=add, args=(song,)) for song in songs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] * 6 + [201] * 4
    assert len(client.get("/v1/recordings").json()["recordings"]) == SONGS + 4


def test_a_server_is_alive_at_once_and_ready_when_the_library_is_loaded(
    library: Path, music: Path, problem: Problem
) -> None:
    waiting = Server(library=library)
    response = waiting.client.get("/readyz")
    problem(response, 503)
    assert int(response.headers["Retry-After"]) > 0
    assert waiting.client.get("/healthz").json() == {"status": "ok"}
    clip = {"clip": (music / "clip.wav").open("rb")}
    problem(waiting.client.post("/v1/query", files=clip), 503)
    with waiting as client:
        assert client.get("/readyz").json() == {"status": "ready"}


def test_a_server_makes_the_library_that_is_not_there(tmp_path: Path, music: Path) -> None:
    with Server(library=tmp_path / "new") as client:
        assert client.get("/v1/recordings").json()["recordings"] == []
        clip = {"clip": (music / "clip.wav").open("rb")}
        assert client.post("/v1/query", files=clip).json()["matches"] == []


def test_a_library_that_cannot_be_used_keeps_a_server_from_being_ready(
    tmp_path: Path, problem: Problem
) -> None:
    (tmp_path / "photo.jpg").touch()
    with Server(library=tmp_path) as client:
        body = problem(client.get("/readyz"), 503)
        assert str(tmp_path) in body["detail"]
        assert client.get("/healthz").status_code == 200


def test_the_description_is_the_contract(client: TestClient, conforms: Conforms) -> None:
    description = client.get("/openapi.json").json()
    routes = {
        (method, path) for path, methods in description["paths"].items() for method in methods
    }
    assert routes == {
        ("post", "/v1/query"),
        ("post", "/v1/recordings"),
        ("get", "/v1/recordings"),
        ("get", "/v1/recordings/{recording_id}"),
        ("delete", "/v1/recordings/{recording_id}"),
        ("patch", "/v1/recordings/{recording_id}"),
        ("get", "/v1/keys"),
        ("post", "/v1/keys"),
        ("get", "/v1/keys/{key_id}"),
        ("delete", "/v1/keys/{key_id}"),
        ("post", "/v1/ingests"),
        ("get", "/v1/ingests"),
        ("get", "/v1/ingests/{ingest_id}"),
        ("delete", "/v1/ingests/{ingest_id}"),
        ("post", "/v1/scans"),
        ("get", "/v1/scans"),
        ("get", "/v1/scans/{scan_id}"),
        ("delete", "/v1/scans/{scan_id}"),
        ("get", "/v1/scans/{scan_id}/report/{file}"),
        ("get", "/metrics"),
        ("get", "/healthz"),
        ("get", "/readyz"),
    }
    query = description["paths"]["/v1/query"]["post"]
    assert set(query["requestBody"]["content"]) == {"multipart/form-data", FINGERPRINT_MEDIA_TYPE}
    for methods in description["paths"].values():
        for operation in methods.values():
            for status, response in operation["responses"].items():
                if status >= "400":
                    assert list(response["content"]) == ["application/problem+json"]
    assert client.get("/docs").status_code == 200


def test_described_answers_have_the_fields_that_are_sent(client: TestClient, music: Path) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    clip = {"clip": (music / "clip.wav").open("rb")}
    answer = client.post("/v1/query", files=clip).json()
    recording = client.get("/v1/recordings").json()["recordings"][0]
    for name, sent in (
        ("Answer", answer),
        ("Match", answer["matches"][0]),
        ("LibraryState", answer["library"]),
        ("RecordingEntry", recording),
    ):
        assert schemas[name]["required"] == list(sent)
        # what is only told at times comes last
        assert list(schemas[name]["properties"])[: len(sent)] == list(sent)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("localhost.example.org", False),
    ],
)
def test_only_this_machine_is_served(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
