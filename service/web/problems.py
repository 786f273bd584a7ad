"""Every error of the server, as RFC 9457 `application/problem+json`."""

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route

from fingerprint.errors import AudioError
from index.errors import DatabaseAway, LibraryError, LibraryLocked
from service.query.answer import ClipError
from service.runtime import errors as errors_of
from service.runtime.logs import HEADER, request_id
from service.runtime.workers import WorkerDied, WorkerError

MEDIA_TYPE = "application/problem+json"

# A clip that is no audio is the wrong kind of body; one that is audio, but of which no fingerprint
# can be made, is understood and refused. Decoding that takes too long will do so again: not a 503.
STATUS_OF_CLIP_ERROR = {
    "not-found": HTTPStatus.UNPROCESSABLE_ENTITY,
    "undecodable": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "too-short": HTTPStatus.UNPROCESSABLE_ENTITY,
    "silent": HTTPStatus.UNPROCESSABLE_ENTITY,
    "too-long": HTTPStatus.UNPROCESSABLE_ENTITY,
    "too-large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "timeout": HTTPStatus.UNPROCESSABLE_ENTITY,
}

RETRY_SECONDS = "5"  # after which a client may come again


class InvalidField(BaseModel):
    """One part of a request that is missing or wrong."""

    where: list[str | int] = Field(description="Path to it: body, query or path, then names.")
    detail: str


class Problem(BaseModel):
    """RFC 9457 problem details; what follows `detail` are Earmark's extensions."""

    type: str = "about:blank"
    title: str = Field(description="The status in words.")
    status: int
    detail: str = Field(description="What was wrong, and what to do about it.")
    error: ClipError | None = Field(
        default=None, description="What was wrong with the clip, as the command line tells it."
    )
    errors: list[InvalidField] | None = Field(
        default=None, description="What was wrong with the request, part by part."
    )
    recording: str | None = Field(
        default=None, description="Id of the recording that this request conflicts with."
    )
    request_id: str | None = Field(
        default=None, description="What the request is called in the server's log (X-Request-ID)."
    )


class ProblemError(Exception):
    """Ends a request with a problem."""

    def __init__(
        self, status: int, detail: str, *, headers: dict[str, str] | None = None, **extensions: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers
        self.extensions = extensions


def unavailable(detail: str) -> ProblemError:
    """A 503 that asks the client to come again in a few seconds."""
    return ProblemError(503, detail, headers={"Retry-After": RETRY_SECONDS})


def problem_response(
    status: int, detail: str, headers: dict[str, str] | None = None, **extensions: Any
) -> JSONResponse:
    """The answer that tells of a problem."""
    problem = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        request_id=request_id(),
        **extensions,
    )
    return JSONResponse(
        problem.model_dump(exclude_none=True), status, headers=headers, media_type=MEDIA_TYPE
    )


def library_problem(error: LibraryError) -> JSONResponse:
    """The answer that tells what is wrong with the library."""
    passing = isinstance(error, LibraryLocked | DatabaseAway)
    return problem_response(503, str(error), {"Retry-After": RETRY_SECONDS} if passing else None)


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that ends in these problems, for its OpenAPI description."""
    again = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return {
        status: {"model": Problem, **({"headers": again} if status in (429, 503) else {})}
        for status in statuses
    }


def install_problems(app: FastAPI) -> None:
    """Answer every error of `app` with a problem."""

    @app.exception_handler(ProblemError)
    async def problem(request: Request, error: ProblemError) -> JSONResponse:
        return problem_response(error.status, error.detail, error.headers, **error.extensions)

    @app.exception_handler(AudioError)
    async def audio(request: Request, error: AudioError) -> JSONResponse:
        clip_error = ClipError(type=error.type, detail=error.detail)
        # what looked like a sound until it ended the worker
        died = isinstance(error, WorkerDied)
        status = HTTPStatus.UNPROCESSABLE_ENTITY if died else STATUS_OF_CLIP_ERROR[error.type]
        return problem_response(status, error.detail, error=clip_error)

    @app.exception_handler(WorkerError)
    async def worker(request: Request, error: WorkerError) -> JSONResponse:
        logging.getLogger(__name__).error("%s", error)
        again = {"Retry-After": RETRY_SECONDS}
        return problem_response(503, "no process to decode in can be started now", again)

    @app.exception_handler(LibraryError)
    async def library(request: Request, error: LibraryError) -> JSONResponse:
        return library_problem(error)

    @app.exception_handler(errors_of.InvalidField)
    async def field(request: Request, error: errors_of.InvalidField) -> JSONResponse:
        where: list[str | int] = ["body", error.field]
        errors = [InvalidField(where=where, detail=error.reason)]
        return problem_response(422, f"body.{error}", errors=errors)

    @app.exception_handler(errors_of.NotFound)
    async def not_found(request: Request, error: errors_of.NotFound) -> JSONResponse:
        return problem_response(404, str(error))

    @app.exception_handler(errors_of.NotTaken)
    async def not_taken(request: Request, error: errors_of.NotTaken) -> JSONResponse:
        return problem_response(415, str(error))

    @app.exception_handler(errors_of.TooMuch)
    async def too_much(request: Request, error: errors_of.TooMuch) -> JSONResponse:
        return problem_response(429, str(error), {"Retry-After": str(error.seconds)})

    @app.exception_handler(errors_of.Busy)
    async def busy(request: Request, error: errors_of.Busy) -> JSONResponse:
        return problem_response(503, str(error), {"Retry-After": RETRY_SECONDS})

    @app.exception_handler(RequestValidationError)
    async def validation(request: Request, error: RequestValidationError) -> JSONResponse:
        errors = [
            InvalidField(where=list(each["loc"]), detail=each["msg"]) for each in error.errors()
        ]
        first = errors[0]
        detail = f"{'.'.join(map(str, first.where))}: {first.detail}"
        return problem_response(422, detail, errors=errors)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(_allowed(request))
        detail = f"{error.detail} ({request.method} {request.url.path}; see /docs)"
        return problem_response(error.status_code, detail, headers)

    @app.exception_handler(ClientDisconnect)
    async def disconnected(request: Request, error: ClientDisconnect) -> JSONResponse:
        return problem_response(400, "the request ended before its body was complete")

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        # uvicorn logs it; it is answered outside of what gives every other answer its id
        known_as = request_id()
        headers = {HEADER: known_as} if known_as else None
        return problem_response(500, "an error of Earmark's; the server's log tells more", headers)


def _allowed(request: Request) -> list[str]:
    """The methods of all routes at a request's path; Starlette names one route's."""
    return sorted(
        {
            method
            for route in request.app.state.routes
            if isinstance(route, Route) and route.matches(request.scope)[0] != Match.NONE
            for method in route.methods or ()
        }
    )


def describe_problems(app: FastAPI) -> None:
    """Give the problems in `app`'s OpenAPI description the media type that they are sent with."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            for path in plain()["paths"].values():
                for operation in path.values():
                    for status, response in operation["responses"].items():
                        if status >= "400":
                            response["content"] = {MEDIA_TYPE: response["content"].popitem()[1]}
        return plain()

    app.openapi = openapi  # type: ignore[method-assign]
