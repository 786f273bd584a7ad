"""The pages for people: `/` asks about a clip; `/library`, `/scans` and `/keys` look after these.

A page is a shell that anyone may load; what is in it comes from /parts, as HTML, to whoever may ask the
same of /v1. Words, times and chances are put by the same code as on the command line.
"""

import base64
import functools
import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fingerprint.fingerprint import Fingerprint
from index.library import Library
from service.evidence.pictures import likeness
from service.presentation.formatting import in_words
from service.presentation.templating import templates
from service.query.answer import Answer, Match
from service.web.admission import AdmittedRoute
from service.web.auth import Administrator, Ingester, Querier
from service.web.example import answered_example
from service.web.query_routes import BODY, ask
from service.web.serving import Service, Serving
from service.web.uploads import Cursor

PAGES = {
    "/": "query.html",
    "/library": "library.html",
    "/scans": "scans.html",
    "/keys": "keys.html",
    "/docs": "docs.html",
}
PAGE = 50  # recordings
_PICTURES = 5  # matches of an answer that come with a picture

# The style that a report has in it, which a page that opens a report has to allow by its hash.
_STYLE = hashlib.sha256(templates().get_template("page.css").render().encode()).digest()
_STYLES = f"style-src 'self' 'sha256-{base64.b64encode(_STYLE).decode()}'"
# Pages run their own scripts and styles, load nothing from elsewhere and are framed by nobody.
_HEADERS = {
    b"content-security-policy": (
        f"default-src 'self'; {_STYLES}; img-src 'self' data:; media-src 'self' blob:; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ).encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
}

# A scan's report is one page with its style in it, and nothing that runs.
_REPORT = {
    b"content-security-policy": (
        f"default-src 'none'; {_STYLES}; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
    ).encode(),
}

router = APIRouter(
    route_class=AdmittedRoute, include_in_schema=False, default_response_class=HTMLResponse
)


def _page(path: str, template: str) -> None:
    @router.get(path)
    def page() -> str:
        return templates().get_template(template).render(here=path)


for _path, _template in PAGES.items():
    _page(_path, _template)


@router.post("/parts/answer", openapi_extra=BODY)
async def part_answer(request: Request, service: Serving, asker: Querier) -> str:
    """What `POST /v1/query` answers, for people."""
    answer, made = await ask(request, service, asker)
    return await service.in_turn(asker, lambda: _answer(answer, made, service.library))


def _answer(answer: Answer, made: Fingerprint, of: Library, example: bool = False) -> str:
    matches = [
        _in_words(match) | {"picture": _picture(made, match, of) if i < _PICTURES else None}
        for i, match in enumerate(answer.matches)
    ]
    return (
        templates()
        .get_template("answer.html")
        .render(answer=answer, matches=matches, example=example)
    )


@functools.lru_cache(maxsize=1)
def _example(service: Service) -> str:
    with answered_example(service.library.encoder, service.settings) as (answer, made, of):
        return _answer(answer, made, of, example=True)


@router.get("/parts/example")
async def part_example(service: Serving, asker: Querier) -> str:
    """What the example clip is answered, by a library of the example."""
    return await service.in_turn(asker, lambda: _example(service))


@router.get("/parts/library")
def part_library(
    service: Serving,
    asker: Querier,
    q: Annotated[str, Query()] = "",
    cursor: Cursor = None,
) -> str:
    """Rows of what `GET /v1/recordings` lists, for people."""
    found, more = service.library.recordings(q or None, cursor, PAGE, owner=asker.seen_by)
    return (
        templates()
        .get_template("rows.html")
        .render(recordings=found, next_cursor=more, q=q, asker=asker)
    )


@router.get("/parts/keys")
def part_keys(service: Serving, asker: Administrator) -> str:
    """What `GET /v1/keys` lists, for people."""
    keys = service.library.all_keys()
    return templates().get_template("keyring.html").render(keys=keys, asker=asker)


@router.get("/parts/ingests")
def part_ingests(service: Serving, asker: Ingester) -> str:
    """The first page of what `GET /v1/ingests` lists, for people."""
    service.loaded()
    ingests = service.ingests.page(asker).ingests
    return templates().get_template("ingests.html").render(ingests=ingests)


@router.get("/parts/scans")
def part_scans(service: Serving, asker: Querier) -> str:
    """The first page of what `GET /v1/scans` lists, for people."""
    service.loaded()
    return templates().get_template("jobs.html").render(scans=service.scans.page(asker).scans)


def _in_words(match: Match) -> dict[str, Any]:
    name = match.title or match.source
    return {
        "match": match,
        "name": f"{name} ({match.artist})" if match.artist else name,
        **in_words(match),
    }


def _picture(made: Fingerprint, match: Match, library: Library) -> dict[str, Any] | None:
    try:
        image, line = likeness(made, match, library)
    except KeyError:  # it was removed since
        return None
    return {"image": image, "line": line}


class PageHeaders:
    """Middleware: what browsers are to be strict about."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        headers = _HEADERS | (_REPORT if "/report/" in scope["path"] else {})

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *headers.items()]
            await send(message)

        await self.app(scope, receive, with_headers)
