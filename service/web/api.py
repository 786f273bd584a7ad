"""The HTTP service: `create_app` makes the FastAPI application that `earmark serve` runs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from service.runtime.logs import install_request_ids
from service.runtime.settings import Settings
from service.web import (
    ingest_routes,
    key_routes,
    page_routes,
    query_routes,
    recording_routes,
    scan_routes,
    state_routes,
)
from service.web.admission import Admission, CloseUnread
from service.web.example import STATIC
from service.web.metrics import Timed
from service.web.page_routes import PageHeaders
from service.web.problems import describe_problems, install_problems
from service.web.serving import OnLoad, Service

ROUTERS = tuple(
    each.router
    for each in (
        state_routes,
        query_routes,
        recording_routes,
        ingest_routes,
        scan_routes,
        key_routes,
        page_routes,
    )
)


def create_app(settings: Settings, on_load: OnLoad = lambda result: None) -> FastAPI:
    """The application. `on_load` is told the library once it is there, or why it is not."""
    service = Service(settings, on_load)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="Earmark",
        version=version("earmark"),
        summary="Which known recordings are in a clip, where, and how sure that is.",
        lifespan=lifespan,
        docs_url=None,  # a page of our own, which loads its viewer from here
        redoc_url=None,
    )
    app.state.service = service
    app.state.admission = Admission(settings, lambda: service.library, service.quotas)
    app.state.routes = [route for router in ROUTERS for route in router.routes]
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC))
    install_problems(app)
    app.add_middleware(PageHeaders)
    app.add_middleware(Timed, metrics=service.metrics)
    app.add_middleware(CloseUnread)
    install_request_ids(app)  # added last, it comes first
    describe_problems(app)
    return app
