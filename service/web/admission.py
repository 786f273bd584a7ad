"""Who may ask, and how much, decided before a request's body is read.

    key ─▶ requests a minute ─▶ scope ─▶ size ─▶ bytes a day ─▶ requests at once ─▶ bodies at once ─▶ body

A route that depends on an asker (`service.web.auth`) is guarded. Its body has to come at a tolerable speed,
and counts as long as the request is being answered.
"""

import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import anyio.to_thread
from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from index.library import Library
from service.runtime.asker import Asker
from service.runtime.errors import Busy, TooMuch
from service.runtime.quotas import Quotas
from service.runtime.settings import Settings
from service.web.auth import Scoped, recognise
from service.web.problems import RETRY_SECONDS, ProblemError

AUTHENTICATING = 8  # threads that look keys up, beside those that answer
JSON_MOST = 2**20  # bytes of a body that is no form
OTHER_PARTS = 2**20  # bytes of a form beside its files
_SPOOLED = 2**20  # bytes of a form's file from which on it is on the disk
_DISK_LEFT = 256 * 2**20  # bytes of the disk that bodies leave free
# A body that brings nothing for so long, or less a second on average once it has had a minute, is given up.
SILENCE = 30.0  # s
_FIRST, SLOWEST = 60.0, 4096  # s, bytes a second


class Admission:
    """The door of one server."""

    def __init__(self, settings: Settings, library: Callable[[], Library], quotas: Quotas) -> None:
        self._settings = settings
        self._library = library
        self._quotas = quotas
        self._authenticating = anyio.CapacityLimiter(AUTHENTICATING)
        self._requests: Counter[str] = Counter()  # being answered, by key
        self._bytes: Counter[str | None] = Counter()  # of bodies that are held, by key

    @asynccontextmanager
    async def admit(self, request: Request, scope: str, is_form: bool) -> AsyncIterator[Request]:
        """The request with its body bounded, while it is answered. Raises why it is not."""
        asker: Asker = await anyio.to_thread.run_sync(
            lambda: recognise(request, self._library()), limiter=self._authenticating
        )
        request.state.asker = asker
        self._quotas.request(asker.id)
        if not asker.may(scope):
            assert asker.key is not None
            raise ProblemError(
                403, f"this key is for {asker.key.scope}; this needs one for {scope}"
            )
        most = int(self._settings.max_upload) + OTHER_PARTS if is_form else JSON_MOST
        with self._at_once(asker), _Body(self, asker, request, most) as body:
            yield Request(request.scope, body.receive, request._send)

    @contextmanager
    def _at_once(self, asker: Asker) -> Iterator[None]:
        """Count a request as long as it is answered, its body's arrival included. Raises TooMuch."""
        most = self._settings.waiting_per_key
        if asker.id is None or not most:
            yield
            return
        if self._requests[asker.id] >= most:
            what = f"{most} requests of this key are being answered"
            raise TooMuch(f"{what}; come again when one of them is", int(RETRY_SECONDS))
        self._requests[asker.id] += 1
        try:
            yield
        finally:
            self._requests[asker.id] -= 1
            if not self._requests[asker.id]:
                del self._requests[asker.id]

    def hold(self, key: str | None, size: int) -> None:
        """Count bytes of a body before they are read. Raises TooMuch and Busy."""
        if not size:
            return
        most, upload = int(self._settings.bodies_at_once), int(self._settings.max_upload)
        own = max(upload + OTHER_PARTS, most // 4)
        if key is not None and self._bytes[key] + size > own:
            what = f"this key is sending more than {own / 2**20:,.0f} MiB at once"
            raise TooMuch(f"{what}; send one after the other", int(RETRY_SECONDS))
        if self._bytes.total() + size > most:
            raise Busy("more is being sent than can be held now")
        if size > _SPOOLED and shutil.disk_usage(tempfile.gettempdir()).free < size + _DISK_LEFT:
            raise Busy("the disk has no room for what is sent")
        self._quotas.body(key, size)
        self._bytes[key] += size

    def release(self, key: str | None, size: int) -> None:
        """Count bytes of a body no longer."""
        self._bytes[key] -= size
        if not self._bytes[key]:
            del self._bytes[key]


class _Body:
    """A request's body: of bounded size, at a tolerable speed, counted while it is held."""

    def __init__(self, door: Admission, asker: Asker, request: Request, most: int) -> None:
        self._door = door
        self._key = asker.id
        self._receive = request.receive
        self._most = most
        declared = request.headers.get("content-length", "0")
        self._declared = int(declared) if declared.isdigit() else 0
        self._is_counted = "content-length" in request.headers
        self._held = 0
        self._arrived = 0
        self._is_whole = False

    def __enter__(self) -> "_Body":
        if self._declared > self._most:
            raise ProblemError(413, f"a body of more than {self._most} bytes is not taken")
        self._hold(self._declared)
        self._began = anyio.current_time()
        return self

    def __exit__(self, *_: object) -> None:
        self._door.release(self._key, self._held)

    def _hold(self, size: int) -> None:
        self._door.hold(self._key, size)
        self._held += size

    async def receive(self) -> Message:
        """The next message. FastAPI passes on HTTPException alone while it reads a body."""
        if self._is_whole:
            return await self._receive()
        try:
            with anyio.fail_after(SILENCE):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, f"nothing of the body came for {SILENCE:g} s") from None
        size = len(message.get("body", b""))
        self._arrived += size
        self._is_whole = not message.get("more_body", False)
        if self._arrived > self._most:
            raise HTTPException(413, f"a body of more than {self._most} bytes is not taken")
        if not self._is_counted:
            try:
                self._hold(size)
            except TooMuch as error:
                again = {"Retry-After": str(error.seconds)}
                raise HTTPException(429, str(error), again) from error
            except Busy as error:
                raise HTTPException(503, str(error), {"Retry-After": RETRY_SECONDS}) from error
        late = anyio.current_time() - self._began - _FIRST
        if not self._is_whole and late > self._arrived / SLOWEST:
            raise HTTPException(408, f"the body comes at less than {SLOWEST} bytes a second")
        return message


class AdmittedRoute(APIRoute):
    """A route that reads no body before it knows who asks and whether they may."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, behind the door if the route depends on an asker."""
        answer = super().get_route_handler()
        needed = scope_of(self.dependant)
        if needed is None:
            return answer
        extra = (self.openapi_extra or {}).get("requestBody", {}).get("content", {})
        is_form = "multipart/form-data" in extra or (
            self.body_field is not None
            and getattr(self.body_field.field_info, "media_type", "") == "multipart/form-data"
        )

        async def admitted(request: Request) -> Response:
            door: Admission = request.app.state.admission
            async with door.admit(request, needed, is_form) as bounded:
                return await answer(bounded)

        return admitted


def scope_of(dependant: Dependant) -> str | None:
    """The scope that a route needs, by what it depends on; None if anybody may ask."""
    found = (it.call.scope for it in dependant.dependencies if isinstance(it.call, Scoped))
    return next(found, None)


class CloseUnread:
    """Middleware: an answer to a request whose body was not read ends the connection, and so the body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else {}
        if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
            await self.app(scope, receive, send)
            return
        is_whole = False

        async def noting() -> Message:
            nonlocal is_whole
            message = await receive()
            is_whole = is_whole or not message.get("more_body", False)
            return message

        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start" and not is_whole:
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await self.app(scope, noting, closing)
