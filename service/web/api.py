"""The HTTP service: `create_app` makes the FastAPI application that `earmark serve` runs."""

import asyncio
import io
import threading
import time
import wave
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from hashlib import file_digest
from importlib.metadata import version
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote

import anyio
import anyio.to_thread
import numpy as np
from fastapi import Body, FastAPI, Form, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import UploadFile as StarletteUploadFile
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fingerprint.audio import SAMPLE_RATE, Limits
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY, Fingerprint, fingerprint
from index.library import Library
from index.merging import Merger
from index.recording import Recording
from index.writer import Writer
from service.intake.ingest import require_whole
from service.intake.metadata import describe
from service.jobs.ingest_jobs import Ingests
from service.jobs.scan_jobs import Scans
from service.presentation.formatting import as_text
from service.query.answer import Answer, answer, load_fingerprint, most_fingerprint_bytes
from service.query.recording_fields import (
    CURSOR,
    Day,
    Flag,
    Isrc,
    NotBlank,
    RecordingChange,
    RecordingEntry,
    Rights,
    Text,
)
from service.runtime.decoding import Decoder, clip_limits
from service.runtime.logs import install_request_ids
from service.runtime.ray_library import open_searched
from service.runtime.settings import Settings
from service.web.auth import Asker, Guard, Ingester, Querier, Quotas
from service.web.ingest_routes import install_ingests
from service.web.key_routes import install_keys
from service.web.metrics import Metrics, Timed
from service.web.page_routes import install_pages
from service.web.problems import (
    RETRY_SECONDS,
    ProblemError,
    describe_problems,
    described,
    install_problems,
    invalid,
    problem_response,
    unavailable,
)
from service.web.scan_routes import install_scans
from service.web.uploads import File, file_name

FINGERPRINT_MEDIA_TYPE = "application/vnd.earmark.fingerprint"

# What a multipart body may hold beside the file itself, in bytes.
_OTHER_PARTS = 2**20
# How long a request waits for another one of this server that is writing, and for another process, in s.
_WRITE_WAIT, _PROCESS_WAIT = 10.0, 3.0
PAGE = 100

Result = TypeVar("Result")
OnLoad = Callable[[Library | BaseException], None]


class RecordingPage(BaseModel):
    """Some of the recordings, and where the next ones start."""

    recordings: list[RecordingEntry]
    next_cursor: str | None


class NewRecording(BaseModel):
    """The form that a recording is added with."""

    model_config = ConfigDict(extra="forbid")

    audio: File
    rightsholder: NotBlank = Field(description="Who holds the rights in it.")
    rights: Rights = Field(description="On what basis it is yours to add.")
    id: Text | None = Field(default=None, description="Given by Earmark where it is left out.")
    title: Text | None = None
    artist: Text | None = None
    isrc: Isrc | None = None
    iswc: Text | None = None
    work: Text | None = None
    label: Text | None = None
    release_date: Text | None = None
    licence_until: Day | None = Field(
        default=None, description="Last day (UTC) on which it answers queries."
    )
    private: Flag | None = Field(
        default=None,
        description="Whether only its owner's queries are answered from it; by default so with a key.",
    )
    allow_damaged: Flag = Field(
        default=False,
        description="Whether to take audio that is cut off or has holes as far as it can be decoded.",
    )


class Health(BaseModel):
    """The server's state."""

    status: Literal["ok", "ready"]


@dataclass
class Loaded:
    """What requests work with once it is there."""

    library: Library
    encoder: Encoder
    decoder: Decoder
    merger: Merger


class Service:
    """The library behind the routes, loaded in the background: the server answers at once."""

    def __init__(self, settings: Settings, on_load: OnLoad) -> None:
        self.settings = settings
        self.quotas = Quotas(settings)
        self.scans = Scans(settings)
        self.ingests = Ingests(settings, self.quotas)
        self.clip_limits = clip_limits(settings)
        self._on_load = on_load
        self._loading: asyncio.Future[Loaded] | None = None
        self._writing = threading.Lock()
        self._fingerprinting: anyio.CapacityLimiter | None = None
        # pieces of work that are being done or wait for their turn, by the key that they are for
        self._taken: Counter[str | None] = Counter()

    def start(self) -> None:
        """Begin to load. Called in the event loop."""
        self._fingerprinting = anyio.CapacityLimiter(self.settings.jobs)
        self._loading = asyncio.get_running_loop().run_in_executor(None, self._load)
        self._loading.add_done_callback(self._tell)

    async def stop(self) -> None:
        """Let go of the library, and of jobs, which go on with the next server."""
        if self._loading is not None:
            await asyncio.wait([self._loading])
            for jobs in (self.scans, self.ingests):
                await anyio.to_thread.run_sync(jobs.stop)
            if self._loading.exception() is None:
                loaded = self._loading.result()
                await anyio.to_thread.run_sync(loaded.decoder.close)
                await anyio.to_thread.run_sync(loaded.merger.close)
                loaded.library.close()

    def _load(self) -> Loaded:
        encoder = Encoder.load()
        library = open_searched(self.settings, encoder, create=True)
        _warm(library, encoder)
        self.scans.start()
        self.ingests.start()
        return Loaded(library, encoder, Decoder(self.settings, encoder), Merger(library))

    def _tell(self, loading: "asyncio.Future[Loaded]") -> None:
        if not loading.cancelled():
            self._on_load(loading.exception() or loading.result().library)

    def loaded(self) -> Loaded:
        """The library and encoder; raises a 503 until they are there."""
        if self._loading is None or not self._loading.done():
            raise unavailable("the library is being loaded")
        if (error := self._loading.exception()) is not None:
            raise unavailable(f"the library cannot be used: {error}")
        return self._loading.result()

    @property
    def taken(self) -> int:
        """Pieces of work that are being done or wait for their turn."""
        return sum(tuple(self._taken.values()))

    def require_room(self, asker: Asker) -> None:
        """Raises a 503 where as much waits for its turn as may, a 429 where as much of one key does."""
        most = self.settings.waiting_per_key
        if asker.id is not None and most and self._taken[asker.id] >= most:
            raise ProblemError(
                429,
                f"{most} requests of this key are being answered; come again when one of them is",
                headers={"Retry-After": RETRY_SECONDS},
            )
        if self.taken >= self.settings.jobs + self.settings.waiting:
            raise unavailable("more is being asked than can be answered now")

    async def in_turn(self, asker: Asker, work: Callable[[], Result]) -> Result:
        """Run CPU work off the event loop, `jobs` pieces at a time. Raises as `require_room` does."""
        self.require_room(asker)
        self._taken[asker.id] += 1
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._fingerprinting)
        finally:
            self._taken[asker.id] -= 1
            if not self._taken[asker.id]:
                del self._taken[asker.id]

    @contextmanager
    def writing(self, asker: Asker) -> Iterator[Writer]:
        """The library's one writer. Raises a 503 if other requests keep it."""
        library = self.loaded().library
        if not self._writing.acquire(timeout=_WRITE_WAIT):
            raise unavailable("other requests are writing to the library")
        try:
            with library.writer(asker.id, _PROCESS_WAIT, merge=False) as writer:
                yield writer
        finally:
            self._writing.release()
        self.loaded().merger.soon()

    @contextmanager
    def changing(self, recording_id: str, asker: Asker) -> Iterator[Writer]:
        """The writer, for what may be done to a recording by who may change it.

        Raises a 404 if the asker sees none of that id, a 403 if it is another owner's.
        """
        with self.writing(asker) as writer:
            try:
                owner = self.loaded().library.recording(recording_id, asker.seen_by).owner
            except KeyError:
                raise _unknown(recording_id) from None
            if not asker.may_change(owner):
                raise ProblemError(403, f"recording {recording_id!r} is another owner's")
            yield writer


def _warm(library: Library, encoder: Encoder) -> None:
    """Compile, or load from the cache, every kernel that a query runs, on two seconds of noise."""
    noise = np.random.default_rng(0).normal(0, 3000, 2 * SAMPLE_RATE)
    clip = io.BytesIO()
    with wave.open(clip, "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes(noise.astype("<i2").tobytes())
    clip.seek(0)
    library.search(fingerprint(clip, encoder, QUERY_EVERY, name="noise"))


class BodyLimit:
    """Refuses a request body of more than `max_bytes` before it is kept: by its declared length at
    once, and one that declares none as soon as it has become too long.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        detail = f"a body of more than {self.max_bytes} bytes is not taken"
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.max_bytes:
            await problem_response(413, detail, {"Connection": "close"})(scope, receive, send)
            return
        taken = 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.max_bytes:
                # FastAPI passes on this kind of exception where it comes up while it reads a form.
                raise HTTPException(413, detail, {"Connection": "close"})
            return message

        await self.app(scope, bounded, send)


def create_app(settings: Settings, on_load: OnLoad = lambda result: None) -> FastAPI:
    """The application. `on_load` is told the library once it is there, or why it is not."""
    service = Service(settings, on_load)
    metrics = Metrics()

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
    app.add_middleware(BodyLimit, max_bytes=int(settings.max_upload) + _OTHER_PARTS)
    app.add_middleware(
        Guard, library=lambda: service.loaded().library, quotas=service.quotas
    )  # added last, it comes first
    app.add_middleware(Timed, metrics=metrics)
    install_problems(app)

    @app.get("/metrics", tags=["state"], response_class=PlainTextResponse, responses=described(503))
    def show_metrics() -> PlainTextResponse:
        """Latencies by route and stage, matches, errors by type, sizes: for Prometheus."""
        text = metrics.text(service.loaded().library, service.scans, service.ingests, service.taken)
        return PlainTextResponse(text, media_type=CONTENT_TYPE_LATEST)

    @app.get("/healthz", tags=["state"])
    async def healthz() -> Health:
        """The process is alive."""
        return Health(status="ok")

    @app.get("/readyz", tags=["state"], responses=described(503))
    def readyz() -> Health:
        """The library is loaded and queries are answered; 503 until then, and while they are not."""
        service.loaded().library.refresh()
        return Health(status="ready")

    def decoded(asker: Asker, make: Callable[[], Fingerprint]) -> Fingerprint:
        """What `make` makes of a sound; its seconds count, also where it comes to nothing."""
        try:
            with metrics.stage("decode"):
                made = make()
        except AudioError as error:
            service.quotas.audio(asker.id, error.seconds)
            raise
        service.quotas.audio(asker.id, made.duration)
        return made

    async def ask(
        request: Request, asker: Asker, max_e_value: float | None = None
    ) -> tuple[Answer, Fingerprint]:
        """The answer to a request that brings a clip, and the clip's fingerprint."""
        loaded = service.loaded()
        service.require_room(asker)  # before its body is read
        service.quotas.require_audio(asker.id)
        name, make = await _clip(request, loaded, service.clip_limits)

        def work() -> tuple[Answer, Fingerprint]:
            started = time.perf_counter()
            made = decoded(asker, make)
            with metrics.stage("search"):
                found = answer(
                    as_text(name or made.source),
                    made,
                    loaded.library,
                    max_e_value=max_e_value or settings.max_e_value,
                    hypotheses=settings.hypotheses,
                    owner=asker.seen_by,
                    spent=time.perf_counter() - started,
                )
            metrics.answered(found)
            return found, made

        return await service.in_turn(asker, work)

    @app.post(
        "/v1/query",
        tags=["query"],
        responses=described(400, 401, 403, 413, 415, 422, 429, 503),
        openapi_extra={"requestBody": _QUERY_BODY},
    )
    async def query(
        request: Request,
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
        found, _ = await ask(request, asker, max_e_value)
        return found

    @app.post(
        "/v1/recordings",
        status_code=201,
        tags=["recordings"],
        responses={
            201: {"headers": {"Location": {"schema": {"type": "string"}}}},
            **described(400, 401, 403, 409, 413, 415, 422, 429, 503),
        },
    )
    async def add_recording(
        response: Response,
        asker: Ingester,
        form: Annotated[NewRecording, Form(media_type="multipart/form-data")],
    ) -> RecordingEntry:
        """Add a recording. Of the audio, which is not kept, a fingerprint is stored.

        What the fields leave open is taken from the file's tags. The same audio again, or an `id`
        that another recording has, is answered with 409 and that recording's id.
        """
        loaded = service.loaded()
        service.quotas.require_audio(asker.id)
        name = file_name(form.audio)

        def work() -> tuple[Recording, bool]:
            digest = file_digest(form.audio.file, "sha256")  # type: ignore[arg-type]
            known = loaded.library.find(digest.hexdigest(), asker.owner)
            if known is not None:
                return known, False
            form.audio.file.seek(0)
            made = decoded(asker, lambda: loaded.decoder.recording(form.audio.file, name))
            if not form.allow_damaged:
                require_whole(made, "allow_damaged")
            apart = {"audio", "private", "allow_damaged"}
            fields = form.model_dump(mode="json", exclude=apart, exclude_none=True)
            private = form.private if form.private is not None else asker.key is not None
            said = describe(name, made.tags, fields)
            with service.writing(asker) as writer:
                return writer.add(made, replace(said, owner=asker.owner, private=private))

        try:
            recording, added = await service.in_turn(asker, work)
        except ValueError as error:
            raise _refused(loaded.library, form.id, str(error), asker) from error
        # An id may hold any character, slashes too.
        location = f"/v1/recordings/{quote(recording.id, safe='')}"
        if not added:
            raise ProblemError(
                409,
                f"this audio is already there, as recording {recording.id}",
                headers={"Location": location},
                recording=recording.id,
            )
        response.headers["Location"] = location
        return RecordingEntry.model_validate(recording)

    @app.get("/v1/recordings", tags=["recordings"], responses=described(401, 403, 422, 429, 503))
    def list_recordings(
        asker: Querier,
        q: Annotated[
            str | None,
            Query(description="Words of title, artist, work, ISRC, rightsholder, source or id."),
        ] = None,
        cursor: Annotated[
            str | None, Query(pattern=CURSOR, description="`next_cursor` of the page before.")
        ] = None,
    ) -> RecordingPage:
        """List the recordings, or those that are searched for, page by page."""
        library = service.loaded().library
        recordings, next_cursor = library.recordings(q, cursor, PAGE, owner=asker.seen_by)
        entries = [RecordingEntry.model_validate(recording) for recording in recordings]
        return RecordingPage(recordings=entries, next_cursor=next_cursor)

    @app.get(
        "/v1/recordings/{recording_id:path}",
        tags=["recordings"],
        responses=described(401, 403, 404, 422, 429, 503),
    )
    def show_recording(recording_id: str, asker: Querier) -> RecordingEntry:
        """All that is recorded of one recording."""
        try:
            recording = service.loaded().library.recording(recording_id, asker.seen_by)
        except KeyError:
            raise _unknown(recording_id) from None
        return RecordingEntry.model_validate(recording)

    @app.delete(
        "/v1/recordings/{recording_id:path}",
        status_code=204,
        tags=["recordings"],
        responses=described(401, 403, 404, 422, 429, 503),
    )
    def remove_recording(recording_id: str, asker: Ingester) -> None:
        """Remove a recording; it is not found again from this moment on."""
        with service.changing(recording_id, asker) as writer:
            writer.remove(recording_id)

    @app.patch(
        "/v1/recordings/{recording_id:path}",
        tags=["recordings"],
        responses=described(400, 401, 403, 404, 413, 422, 429, 503),
    )
    def change_recording(
        recording_id: str, change: Annotated[RecordingChange, Body()], asker: Ingester
    ) -> RecordingEntry:
        """Say other things of a recording (RFC 7396): null empties a field, what is left out stays."""
        with service.changing(recording_id, asker) as writer:
            values: dict[str, Any] = {**change}
            if until := change.get("licence_until"):
                values["licence_until"] = until.isoformat()
            recording, _ = writer.change(recording_id, values)
        return RecordingEntry.model_validate(recording)

    install_ingests(app, service.loaded, service.ingests, service.quotas)
    install_scans(app, service.loaded, service.scans)
    install_keys(app, lambda: service.loaded().library, service.writing)
    install_pages(
        app,
        settings,
        lambda: service.loaded().library,
        service.scans,
        service.ingests,
        ask,
        service.in_turn,
    )
    install_request_ids(app)  # added last, it comes first
    describe_problems(app)
    return app


_QUERY_BODY = {
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
    if not isinstance(clip, StarletteUploadFile):
        raise RequestValidationError(
            [{"loc": ("body", "clip"), "msg": "a file is required", "type": "missing"}]
        )
    name = file_name(clip)
    return name, lambda: loaded.decoder.clip(clip.file, name)


def _refused(library: Library, recording_id: str | None, reason: str, asker: Asker) -> Exception:
    """Why a recording was not added: its id is taken, or is none."""
    try:
        library.recording(recording_id or "")
    except KeyError:
        return invalid("id", reason)
    try:
        library.recording(recording_id or "", asker.seen_by)
    except KeyError:  # somebody else's private one: of that no more is said
        return ProblemError(409, f"id {recording_id!r} is taken")
    return ProblemError(409, reason, recording=recording_id)


def _unknown(recording_id: str) -> ProblemError:
    return ProblemError(404, f"no recording {recording_id!r}")


async def _fingerprint_body(request: Request, limits: Limits, encoder: Encoder) -> bytes:
    """The body, of at most what the longest allowed audio's fingerprint takes."""
    most = most_fingerprint_bytes(encoder, limits)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise AudioError("too-large", f"a fingerprint of more than {most} bytes is not taken")
    return bytes(body)
