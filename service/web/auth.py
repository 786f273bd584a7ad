"""Who asks, by their key. A library without keys is its operator's, who asks from this machine."""

import ipaddress
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from index.library import Library
from service.runtime.asker import Asker
from service.web.problems import ProblemError

_bearer = HTTPBearer(auto_error=False, description="A key, made by `earmark keys create`.")

# What a proxy adds to a request, beside every X-Forwarded-….
_FORWARDED = frozenset({"forwarded", "via", "x-real-ip", "cf-connecting-ip", "true-client-ip"})


class Scoped:
    """What a route depends on for who asks: it says which scope the route needs."""

    def __init__(self, scope: str) -> None:
        self.scope = scope

    def __call__(self, request: Request, _: Annotated[Any, Depends(_bearer)]) -> Asker:
        asker: Asker = request.state.asker  # whom `service.web.admission` has let in
        return asker


Querier = Annotated[Asker, Depends(Scoped("query"))]
Ingester = Annotated[Asker, Depends(Scoped("ingest"))]
Administrator = Annotated[Asker, Depends(Scoped("admin"))]


def recognise(request: Request, library: Library) -> Asker:
    """Who asks. Raises a 401 for what is no good key; without keys, a 403 for all but this machine."""
    if not library.has_keys():
        require_this_machine(request)
        return Asker(None)
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    key = library.key(text.strip()) if scheme.lower() == "bearer" else None
    if key is None:
        said = "this key is unknown, expired or revoked" if text else "a key is needed"
        raise ProblemError(
            401, f"{said}: Authorization: Bearer KEY", headers={"WWW-Authenticate": "Bearer"}
        )
    return Asker(key)


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only; other names are not looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_this_machine(request: Request) -> None:
    """Raises a 403 for what does not come from a program or a page of this machine.

    A proxy on this machine connects from it too, and says for whom. A browser says which site's page asks;
    an older one says so only of some requests. A name that a site made to lead here is none of ours.
    """
    peer = request.client.host if request.client else ""
    site = request.headers.get("sec-fetch-site")
    host = request.headers.get("host", "")
    if (
        not is_loopback(peer)
        or any(it in _FORWARDED or it.startswith("x-forwarded-") for it in request.headers)
        or site not in (None, "same-origin", "none")
        or (site is None and not _is_same_origin(request.headers.get("origin"), host))
        or not is_loopback(_name(f"//{host}"))
    ):
        raise ProblemError(
            403,
            "without keys this server answers this machine's programs and its own pages, under the name "
            "localhost or a loopback address and not through a proxy; to be asked otherwise, make a key: "
            "earmark keys create",
        )


def _is_same_origin(origin: str | None, host: str) -> bool:
    """Whether an Origin, if one is sent, is the server's own."""
    return origin is None or urlsplit(f"//{host}").netloc == origin.partition("://")[2] != ""


def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
