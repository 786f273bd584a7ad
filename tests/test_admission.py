"""Who may ask is decided before a body is read, and nobody fills the server or makes others wait."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from server import Server

import service.web.admission
from fingerprint.encoder import Encoder
from index.key import SCOPES
from index.library import Library
from service.runtime.errors import Busy, TooMuch
from service.runtime.quotas import Quotas
from service.runtime.settings import Settings
from service.web.admission import Admission
from service.web.api import create_app
from service.web.turns import Turns

FORM = "multipart/form-data; boundary=x"
# Routes with a body: the scope they need and a kind of body that they take.
BODIES = {
    ("POST", "/v1/query"): ("query", FORM),
    ("POST", "/parts/answer"): ("query", FORM),
    ("POST", "/v1/scans"): ("query", FORM),
    ("POST", "/v1/recordings"): ("ingest", FORM),
    ("POST", "/v1/ingests"): ("ingest", FORM),
    ("PATCH", "/v1/recordings/any"): ("ingest", "application/json"),
    ("POST", "/v1/keys"): ("admin", "application/json"),
}
FORMS = [path for (_, path), (_, kind) in BODIES.items() if kind == FORM]
UPLOAD = 2**20  # bytes, of these tests' servers


@pytest.fixture(scope="module")
def keyed(
    ingested: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[TestClient, dict[str, dict[str, str]], Library]]:
    """A server, the headers of a key of each scope, and its library."""
    library = tmp_path_factory.mktemp("admission") / "library"
    opened = Library.open(library, Encoder.load(), create=True)
    keys = {scope: opened.add_key("ada", scope, None)[1] for scope in SCOPES}
    keys |= {"other": opened.add_key("bo", "query", None)[1]}
    headers = {name: {"Authorization": f"Bearer {key}"} for name, key in keys.items()}
    with Server(library=library, requests_per_minute=0, max_upload=UPLOAD) as client:
        yield client, headers, opened


class Unread(httpx.SyncByteStream):
    """A body that says what was read of it."""

    def __init__(self, chunk: bytes = bytes(2**16), chunks: int = 2**12) -> None:
        self.left = chunks
        self.chunk = chunk
        self.read = 0

    def __iter__(self) -> Iterator[bytes]:
        while self.left:
            self.left -= 1
            self.read += len(self.chunk)
            yield self.chunk


def send(
    client: TestClient, method: str, path: str, headers: dict[str, str], body: Any
) -> httpx.Response:
    return client.request(method, path, headers=headers, content=iter(body))


@pytest.mark.parametrize("route", BODIES, ids=" ".join)
@pytest.mark.parametrize("declared", [True, False])
def test_no_byte_is_read_of_who_may_not_ask(
    route: tuple[str, str], declared: bool, keyed: Any
) -> None:
    client, headers, _ = keyed
    method, path = route
    needed, kind = BODIES[route]
    size = {"Content-Length": str(2**28)} if declared else {}
    for scope in (None, *SCOPES[: SCOPES.index(needed)]):
        body = Unread()
        given = {"Content-Type": kind} | size | (headers[scope] if scope else {})
        refused = send(client, method, path, given, body)
        assert refused.status_code == (403 if scope else 401), scope
        assert body.read == 0, scope
        assert refused.headers["connection"] == "close"


@pytest.mark.parametrize("route", BODIES, ids=" ".join)
def test_a_body_that_says_it_is_too_large_is_not_read(route: tuple[str, str], keyed: Any) -> None:
    client, headers, _ = keyed
    method, path = route
    given = {"Content-Type": BODIES[route][1], "Content-Length": str(2**28)} | headers["admin"]
    body = Unread()
    refused = send(client, method, path, given, body)
    assert refused.status_code == 413, refused.text
    assert refused.headers["content-type"] == "application/problem+json"
    assert body.read == 0


def test_a_body_that_becomes_too_large_is_not_read_to_its_end(tmp_path: Path) -> None:
    start = b'--x\r\nContent-Disposition: form-data; name="clip"; filename="a"\r\n\r\n'

    async def ask(client: httpx.AsyncClient) -> None:
        for (method, path), (_, kind) in BODIES.items():
            most = UPLOAD + 2**20 if kind == FORM else 2**20
            read = 0

            async def body() -> AsyncIterator[bytes]:
                nonlocal read
                while read < 2**28:
                    chunk = start.ljust(2**16, b"a") if not read else bytes(2**16)
                    read += len(chunk)
                    yield chunk

            given = {"Content-Type": kind}
            refused = await client.request(method, path, content=body(), headers=given)
            assert refused.status_code in (400, 413), (path, refused.text)
            assert read <= most + 2**17, path

    asyncio.run(spoken_to(tmp_path / "library", ask))


async def spoken_to(library: Path, ask: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
    """What `ask` returns, with a client whose bodies are read as they are sent."""
    loaded = asyncio.Event()
    settings = Settings(library=library, isolate=False, max_upload=UPLOAD)
    app = create_app(settings, lambda result: loaded.set())
    async with app.router.lifespan_context(app):
        await loaded.wait()
        transport = httpx.ASGITransport(app, client=("127.0.0.1", 50000))
        address = "http://127.0.0.1:8000"
        async with httpx.AsyncClient(transport=transport, base_url=address) as client:
            return await ask(client)


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize("what", ["files", "fields", "a field", "a header"])
def test_a_form_has_only_so_many_and_so_large_parts(path: str, what: str, keyed: Any) -> None:
    client, headers, _ = keyed
    begins = b'--x\r\nContent-Disposition: form-data; name="title"'
    parts = {
        "files": 40 * (begins + b'; filename="f"\r\n\r\nabc\r\n'),
        "fields": 40 * (begins + b"\r\n\r\nabc\r\n"),
        "a field": begins + b"\r\n\r\n" + bytes(2**18) + b"\r\n",
        "a header": begins + b"\r\nX-Long: " + b"a" * 2**17 + b"\r\n\r\nabc\r\n",
    }[what]
    given = {"Content-Type": FORM} | headers["admin"]
    refused = client.post(path, headers=given, content=parts + b"--x--\r\n")
    assert refused.status_code == 400, refused.text
    assert refused.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/v1/query", "/v1/recordings", "/v1/keys"])
@pytest.mark.parametrize("body", [b"", b"{", b"null", b"\xff\xfe", b"--x--\r\n", b"[" * 10_000])
@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/json", FORM, "multipart/form-data", "a/b; c=\xff"]
)
def test_a_body_of_the_wrong_kind_is_a_problem(
    path: str, body: bytes, kind: str, keyed: Any
) -> None:
    client, headers, _ = keyed
    given = headers["admin"] | ({"Content-Type": kind.encode("latin-1")} if kind else {})
    refused = client.post(path, headers=given, content=body)
    assert 400 <= refused.status_code < 500, refused.text
    assert refused.headers["content-type"] == "application/problem+json"


def test_a_body_that_does_not_come_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.web.admission, "SILENCE", 0.01)

    async def body() -> AsyncIterator[bytes]:
        yield b"--x\r\n"
        await asyncio.Event().wait()  # for ever

    async def ask(client: httpx.AsyncClient) -> httpx.Response:
        kind = {"Content-Type": FORM}
        return await client.post("/v1/query", content=body(), headers=kind)

    refused = asyncio.run(spoken_to(tmp_path / "library", ask))
    assert refused.status_code == 408, refused.text
    assert refused.headers["connection"] == "close"


def test_who_writes_a_lot_makes_nobody_wait(keyed: Any) -> None:
    client, headers, library = keyed
    with library.writer(), ThreadPoolExecutor(32) as threads:  # another process writes
        changes = [
            threads.submit(
                client.patch, "/v1/recordings/any", json={"title": "x"}, headers=headers["ingest"]
            )
            for _ in range(100)
        ]
        others = [
            threads.submit(client.get, "/v1/recordings", headers=headers["other"])
            for _ in range(10)
        ]
        for each in changes:
            refused = each.result()
            assert refused.status_code in (429, 503), refused.text
            assert int(refused.headers["retry-after"]) > 0
        assert {each.result().status_code for each in others} == {200}


def test_bodies_that_are_sent_at_once_are_bounded() -> None:
    settings = Settings(max_upload=UPLOAD, bodies_at_once=4 * UPLOAD)
    door = Admission(settings, lambda: None, Quotas(settings))  # type: ignore[arg-type, return-value]
    for key in ("ada", "bo"):
        door.hold(key, UPLOAD)
        with pytest.raises(TooMuch):  # its share
            door.hold(key, UPLOAD + 2**20 + 1)
    door.hold("cy", UPLOAD)
    door.hold("di", UPLOAD)
    with pytest.raises(Busy):  # all there is
        door.hold("eve", 1)
    door.release("ada", UPLOAD)
    door.hold("eve", UPLOAD)


def test_keys_alternate_whatever_each_has_waiting() -> None:
    async def run() -> list[str]:
        turns, order = Turns(1, 10), []

        async def work(key: str) -> None:
            async with turns.turn(key):
                order.append(key)
                await asyncio.sleep(0)

        await asyncio.gather(*(work(key) for key in "aaaabcb"))
        assert turns.taken == 0
        return order

    assert asyncio.run(run()) == list("aabcaba")


def test_a_turn_that_is_given_up_goes_to_the_next() -> None:
    async def run() -> None:
        turns = Turns(1, 2)
        holding, release = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            async with turns.turn("a"):
                holding.set()
                await release.wait()

        async def take() -> str:
            async with turns.turn("b"):
                return "taken"

        first = asyncio.create_task(hold())
        await holding.wait()
        second, third = asyncio.create_task(take()), asyncio.create_task(take())
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            turns.require_room()
        second.cancel()
        release.set()
        assert await third == "taken"
        await asyncio.gather(first, second, return_exceptions=True)
        assert turns.taken == 0
        assert await take() == "taken"

    asyncio.run(run())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://127.0.0.1:8000"}, 200),
        ({"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"X-Forwarded-For": "203.0.113.5"}, 403),
        ({"X-Forwarded-Host": "earmark.example"}, 403),
        ({"Forwarded": "for=203.0.113.5"}, 403),
        ({"Via": "1.1 proxy"}, 403),
        ({"X-Real-IP": "203.0.113.5"}, 403),
    ],
)
def test_without_keys_a_proxy_or_another_sites_page_is_not_answered(
    headers: dict[str, str], status: int, unkeyed: TestClient
) -> None:
    assert unkeyed.get("/v1/recordings", headers=headers).status_code == status
    assert unkeyed.get("/metrics", headers=headers).status_code == status


def test_without_keys_another_machine_is_not_answered(unkeyed: TestClient) -> None:
    far = TestClient(unkeyed.app, base_url="http://127.0.0.1:8000", client=("203.0.113.5", 4711))
    assert far.get("/v1/recordings").status_code == 403


@pytest.fixture(scope="module")
def unkeyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with Server(library=tmp_path_factory.mktemp("unkeyed") / "library") as client:
        yield client


def test_a_problem_names_its_request(keyed: Any) -> None:
    client, headers, _ = keyed
    refused = client.post("/v1/keys", headers=headers["query"], content=b"{}")
    assert json.loads(refused.text)["request_id"] == refused.headers["x-request-id"]
