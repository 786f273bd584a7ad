"""The pages for people: `/` asks about a clip; `/library`, `/scans` and `/keys` look after these.

A page is a shell that anyone may load; what is in it comes from /parts, as HTML, to whoever may ask the
same of /v1. Words, times and chances are put by the same code as on the command line.
"""

import base64
import functools
import hashlib
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fingerprint.fingerprint import Fingerprint
from index.library import Library
from service.evidence.pictures import likeness
from service.jobs.ingest_jobs import Ingests
from service.jobs.scan_jobs import Scans
from service.presentation.formatting import in_words
from service.presentation.templating import templates
from service.query.answer import Answer, Match
from service.query.recording_fields import CURSOR
from service.runtime.settings import Settings
from service.web.auth import Administrator, Asker, Ingester, Querier
from service.web.example import STATIC, answered_example

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

Ask = Callable[[Request, Asker], Awaitable[tuple[Answer, Fingerprint]]]
InTurn = Callable[[Asker, Callable[[], str]], Awaitable[str]]


def install_pages(
    app: FastAPI,
    settings: Settings,
    library: Callable[[], Library],
    scans: Scans,
    ingests: Ingests,
    ask: Ask,
    in_turn: InTurn,
) -> None:
    """Add the pages to an application; `ask` answers a clip that a request brings."""
    pages = templates()
    viewer = StaticFiles(packages=[("fastapi_offline", "static")])  # Swagger UI
    app.mount("/static/viewer", viewer, name="viewer")
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_middleware(PageHeaders)

    def shell(path: str, template: str) -> None:
        @app.get(path, response_class=HTMLResponse, include_in_schema=False)
        def page() -> str:
            return pages.get_template(template).render(here=path)

    for path, template in PAGES.items():
        shell(path, template)

    @app.post("/parts/answer", response_class=HTMLResponse, include_in_schema=False)
    async def part_answer(request: Request, asker: Querier) -> str:
        """What `POST /v1/query` answers, for people."""
        answer, made = await ask(request, asker)
        return await in_turn(asker, lambda: _answer(answer, made, library()))

    def _answer(answer: Answer, made: Fingerprint, of: Library, example: bool = False) -> str:
        matches = [
            _in_words(match) | {"picture": _picture(made, match, of) if i < _PICTURES else None}
            for i, match in enumerate(answer.matches)
        ]
        return pages.get_template("answer.html").render(
            answer=answer, matches=matches, example=example
        )

    @functools.cache
    def example() -> str:
        with answered_example(library().encoder, settings) as (answer, made, of):
            return _answer(answer, made, of, example=True)

    @app.get("/parts/example", response_class=HTMLResponse, include_in_schema=False)
    async def part_example(asker: Querier) -> str:
        """What the example clip is answered, by a library of the example."""
        return await in_turn(asker, example)

    @app.get("/parts/library", response_class=HTMLResponse, include_in_schema=False)
    def part_library(
        asker: Querier,
        q: Annotated[str, Query()] = "",
        cursor: Annotated[str | None, Query(pattern=CURSOR)] = None,
    ) -> str:
        """Rows of what `GET /v1/recordings` lists, for people."""
        found, more = library().recordings(q or None, cursor, PAGE, owner=asker.seen_by)
        return pages.get_template("rows.html").render(
            recordings=found, next_cursor=more, q=q, asker=asker
        )

    @app.get("/parts/keys", response_class=HTMLResponse, include_in_schema=False)
    def part_keys(asker: Administrator) -> str:
        """What `GET /v1/keys` lists, for people."""
        return pages.get_template("keyring.html").render(keys=library().all_keys(), asker=asker)

    @app.get("/parts/ingests", response_class=HTMLResponse, include_in_schema=False)
    def part_ingests(asker: Ingester) -> str:
        """What `GET /v1/ingests` lists, for people."""
        library()
        return pages.get_template("ingests.html").render(ingests=ingests.all(asker))

    @app.get("/parts/scans", response_class=HTMLResponse, include_in_schema=False)
    def part_scans(asker: Querier) -> str:
        """What `GET /v1/scans` lists, for people."""
        return pages.get_template("jobs.html").render(scans=scans.all(asker))


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
