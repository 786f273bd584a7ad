"""Who is asking, whether they may, and how much they have asked for: before a request's body is read.

Until a library has its first key, whoever reaches the server (this machine only, see `service.web.server`) is
its operator. From then on every route under /v1 and /parts needs one.
"""

import ipaddress
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

import anyio.to_thread
from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from index.errors import LibraryError
from index.key import Key
from index.library import Library
from service.runtime.settings import Settings
from service.web.problems import ProblemError, library_problem, problem_response

_BYTES = "bytes a day"
GUARDED = ("/v1/", "/parts/")


@dataclass(frozen=True)
class Asker:
    """Who is asking: the owner of a key; or, with none, the operator, who sees and may do all."""

    key: Key | None

    @property
    def id(self) -> str | None:
        """Of the key."""
        return self.key.id if self.key else None

    @property
    def owner(self) -> str | None:
        """Whose recordings are added; None: nobody's in particular."""
        return self.key.owner if self.key else None

    @property
    def seen_by(self) -> str | None:
        """As whom the library is looked at; None sees all."""
        return self.key.seen_by if self.key else None

    def may(self, scope: str) -> bool:
        """Whether what this scope allows is allowed."""
        return self.key is None or self.key.may(scope)

    def may_change(self, owner: str | None) -> bool:
        """Whether a recording of that owner may be changed and removed."""
        return self.may("admin") or (self.may("ingest") and owner == self.owner)


_bearer = HTTPBearer(auto_error=False, description="A key, made by `earmark keys create`.")


def _asking(scope: str) -> Any:
    """The asker, for a route; a 403 where the key's scope is less than this."""

    def asker(request: Request, _: Annotated[Any, Depends(_bearer)]) -> Asker:
        found: Asker = request.state.asker
        if not found.may(scope):
            assert found.key is not None
            raise ProblemError(
                403, f"this key is for {found.key.scope}; this needs one for {scope}"
            )
        return found

    return Depends(asker)


# Who is asking, as a route's parameter that says what for.
Querier = Annotated[Asker, _asking("query")]
Ingester = Annotated[Asker, _asking("ingest")]
Administrator = Annotated[Asker, _asking("admin")]


class Quotas:
    """What each key may ask for: requests a minute, bytes and seconds of audio a day (0: no end)."""

    def __init__(self, settings: Settings) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._requests = _item(RateLimitItemPerMinute, settings.requests_per_minute)
        self._bytes = _item(RateLimitItemPerDay, int(settings.bytes_per_day))
        self._seconds = _item(
            RateLimitItemPerDay, math.ceil(settings.audio_per_day.total_seconds())
        )

    def request(self, asker: Asker, size: int) -> None:
        """Count a request with a body of that many bytes. Raises a 429."""
        self._count(asker.id, self._requests, 1, "requests a minute")
        self._count(asker.id, self._bytes, size, _BYTES)

    def body(self, asker: Asker, size: int) -> None:
        """Count bytes of a body that did not say how long it would be: what comes after it is refused."""
        if asker.key is not None and self._bytes is not None and size:
            self._limiter.hit(self._bytes, _BYTES, asker.key.id, cost=size)

    def audio(self, key: str | None, seconds: float) -> None:
        """Count seconds of audio that were decoded: what comes after them is refused."""
        if key is not None and self._seconds is not None and seconds:
            self._limiter.hit(self._seconds, "audio", key, cost=math.ceil(seconds))

    def require_audio(self, key: str | None) -> None:
        """Raises a 429 where the day's seconds of audio are used up."""
        self._require(key, self._seconds, 1, "audio", "seconds of audio a day")

    def _count(self, key: str | None, item: RateLimitItem | None, cost: int, what: str) -> None:
        self._require(key, item, cost, what, what)
        if key is not None and item is not None and cost:
            self._limiter.hit(item, what, key, cost=cost)

    def _require(
        self, key: str | None, item: RateLimitItem | None, cost: int, name: str, what: str
    ) -> None:
        if key is None or item is None or not cost:
            return
        if not self._limiter.test(item, name, key, cost=cost):
            reset = self._limiter.get_window_stats(item, name, key).reset_time
            seconds = max(1, math.ceil(reset - time.time()))
            raise ProblemError(
                429,
                f"this key has had its {item.amount} {what}",
                headers={"Retry-After": str(seconds)},
            )


def _item(kind: type[RateLimitItem], amount: int) -> RateLimitItem | None:
    return kind(amount) if amount else None


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only; other names are not looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _require_no_other_site(headers: dict[bytes, bytes]) -> None:
    """Raises a 403 for what a browser of this machine asks for another site's page.

    Browsers say so; not for a site whose name was made to lead here, which the request is then sent to.
    """
    site = headers.get(b"sec-fetch-site", b"none").decode("latin-1")
    try:
        host = urlsplit(f"//{headers.get(b'host', b'').decode('latin-1')}").hostname or ""
    except ValueError:
        host = ""
    if site not in ("same-origin", "none") or not is_loopback(host):
        raise ProblemError(
            403,
            "without keys this server answers this machine's programs and its own pages, under the name "
            "localhost or a loopback address; to be asked otherwise, make a key: earmark keys create",
        )


class Guard:
    """Middleware: recognises the key of every request under GUARDED, or answers it with 401 or 429."""

    def __init__(self, app: ASGIApp, library: Callable[[], Library], quotas: Quotas) -> None:
        self.app = app
        self._library = library
        self._quotas = quotas

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(GUARDED):
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        try:
            asker = await anyio.to_thread.run_sync(
                self._recognise, headers.get(b"authorization", b"").decode("latin-1")
            )
            if asker.key is None:
                _require_no_other_site(headers)
            declared = headers.get(b"content-length", b"0")
            self._quotas.request(asker, int(declared) if declared.isdigit() else 0)
        except ProblemError as error:
            answer = problem_response(error.status, error.detail, error.headers, **error.extensions)
            await answer(scope, receive, send)
            return
        except LibraryError as error:
            await library_problem(error)(scope, receive, send)
            return
        scope.setdefault("state", {})["asker"] = asker
        undeclared = 0

        async def counted() -> Message:
            nonlocal undeclared
            message = await receive()
            undeclared += len(message.get("body", b"")) if b"content-length" not in headers else 0
            return message

        try:
            await self.app(scope, counted, send)
        finally:
            self._quotas.body(asker, undeclared)

    def _recognise(self, authorization: str) -> Asker:
        library = self._library()
        if not library.has_keys():
            return Asker(None)
        scheme, _, text = authorization.partition(" ")
        key = library.key(text.strip()) if scheme.lower() == "bearer" else None
        if key is None:
            said = "this key is unknown, expired or revoked" if text else "a key is needed"
            raise ProblemError(
                401, f"{said}: Authorization: Bearer KEY", headers={"WWW-Authenticate": "Bearer"}
            )
        return Asker(key)
