"""The route of queries, `/v1/query`, and how a clip is answered."""

import time
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import UploadFile

from fingerprint.audio import Limits
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import Fingerprint
from service.presentation.formatting import as_text
from service.query.answer import Answer, answer, load_fingerprint, most_fingerprint_bytes
from service.runtime.asker import Asker
from service.web.admission import AdmittedRoute
from service.web.auth import Querier
from service.web.problems import ProblemError, described
from service.web.serving import Loaded, Service, Serving
from service.web.uploads import file_name

FINGERPRINT_MEDIA_TYPE = "application/vnd.earmark.fingerprint"
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["clip"],
                    "additionalProperties": False,
                    "properties": {"clip": {"type": "string", "format": "binary"}},
                }
            },
            FINGERPRINT_MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}

router = APIRouter(tags=["query"], route_class=AdmittedRoute)


@router.post(
    "/v1/query",
    responses=described(400, 401, 403, 413, 415, 422, 429, 503),
    openapi_extra=BODY,
)
async def query(
    request: Request,
    service: Serving,
    asker: Querier,
    max_e_value: Annotated[
        float | None,
        Query(
            gt=0,
            allow_inf_nan=False,
            description="Leave out matches that chance would bring more often, per query.",
        ),
    ] = None,
) -> Answer:
    """Say which recordings are in a clip: a file of audio or video, or its fingerprint.

    A clip that is no audio is answered with 415, one that is too large with 413, one that is
    too short, silent or too long with 422; the problem's `error` says which.
    """
    found, _ = await ask(request, service, asker, max_e_value)
    return found


async def ask(
    request: Request, service: Service, asker: Asker, max_e_value: float | None = None
) -> tuple[Answer, Fingerprint]:
    """The answer to a request that brings a clip, and the clip's fingerprint."""
    loaded = service.loaded()
    service.listening.require_room()  # before its body is read
    service.quotas.require_audio(asker.id)
    name, make = await _clip(request, loaded, service.clip_limits)

    def work() -> tuple[Answer, Fingerprint]:
        started = time.perf_counter()
        made = service.decoded(asker, make)
        with service.metrics.stage("search"):
            found = answer(
                as_text(name or made.source),
                made,
                loaded.library,
                max_e_value=max_e_value or service.settings.max_e_value,
                hypotheses=service.settings.hypotheses,
                owner=asker.seen_by,
                spent=time.perf_counter() - started,
            )
        service.metrics.answered(found)
        return found, made

    return await service.in_turn(asker, work)


async def _clip(
    request: Request, loaded: Loaded, limits: Limits
) -> tuple[str | None, Callable[[], Fingerprint]]:
    """The name of the clip that a request brings, if it has one, and what makes its fingerprint."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == FINGERPRINT_MEDIA_TYPE:
        encoder = loaded.encoder
        body = await _fingerprint_body(request, limits, encoder)
        return None, lambda: load_fingerprint(body, "clip", encoder, limits)
    if media_type != "multipart/form-data":
        raise ProblemError(
            415, f"send the clip as multipart/form-data, or as {FINGERPRINT_MEDIA_TYPE}"
        )
    form = await request.form(max_files=1, max_fields=0)
    clip = form.get("clip")
    if not isinstance(clip, UploadFile):
        raise RequestValidationError(
            [{"loc": ("body", "clip"), "msg": "a file is required", "type": "missing"}]
        )
    name = file_name(clip)
    return name, lambda: loaded.decoder.clip(clip.file, name)


async def _fingerprint_body(request: Request, limits: Limits, encoder: Encoder) -> bytes:
    """The body, of at most what the longest allowed audio's fingerprint takes."""
    most = most_fingerprint_bytes(encoder, limits)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise AudioError("too-large", f"a fingerprint of more than {most} bytes is not taken")
    return bytes(body)
