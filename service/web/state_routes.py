"""Routes about the server itself: whether it is alive and ready, and what it counts."""

from typing import Literal

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from service.web.admission import AdmittedRoute
from service.web.auth import Administrator
from service.web.problems import described
from service.web.serving import Serving

router = APIRouter(tags=["state"], route_class=AdmittedRoute)


class Health(BaseModel):
    """The server's state."""

    status: Literal["ok", "ready"]


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses=described(401, 403, 429, 503),
)
def show_metrics(service: Serving, asker: Administrator) -> PlainTextResponse:
    """Latencies by route and stage, matches, errors by type, sizes: for Prometheus, with an admin's key.

    The setting `metrics_port` serves the same without a key, at an address of its own.
    """
    return PlainTextResponse(service.counted(), media_type=CONTENT_TYPE_LATEST)


@router.get("/healthz")
async def healthz() -> Health:
    """The process is alive."""
    return Health(status="ok")


@router.get("/readyz", responses=described(503))
def readyz(service: Serving) -> Health:
    """The library is loaded and queries are answered; 503 until then, and while they are not."""
    service.library.refresh()
    return Health(status="ready")
