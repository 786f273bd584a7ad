"""The routes under /v1/ingests."""

from typing import Annotated

from fastapi import APIRouter, Form, Response
from pydantic import BaseModel, ConfigDict, Field

from service.jobs.ingest_jobs import IngestEntry, IngestPage
from service.query.recording_fields import Day, Flag, NotBlank, Rights
from service.web.admission import AdmittedRoute
from service.web.auth import Ingester
from service.web.problems import described
from service.web.serving import Serving
from service.web.uploads import Cursor, File, file_name, form_limits


class NewIngest(BaseModel):
    """The form that an ingest is asked for with."""

    model_config = ConfigDict(extra="forbid")

    archive: File = Field(description="A .zip, .tar, .tar.gz or .tar.zst of sounds.")
    metadata: File | None = Field(
        default=None,
        description="A CSV with a header and a row for each file; `file` is its only required column.",
    )
    rightsholder: NotBlank | None = Field(
        default=None, description="Who holds the rights, where the metadata does not say it."
    )
    rights: Rights | None = Field(
        default=None, description="On what basis, where the metadata does not say it."
    )
    licence_until: Day | None = Field(
        default=None,
        description="Last day (UTC) on which they answer, where the metadata does not say it.",
    )
    private: Flag | None = Field(
        default=None,
        description="Whether only their owner's queries are answered from them; by default so with a key.",
    )


router = APIRouter(tags=["ingests"], route_class=AdmittedRoute, form_limits=form_limits(NewIngest))


@router.post(
    "/v1/ingests",
    status_code=202,
    responses={
        202: {"headers": {"Location": {"schema": {"type": "string"}}}},
        **described(400, 401, 403, 413, 415, 422, 429, 503),
    },
)
async def add_ingest(
    response: Response,
    service: Serving,
    asker: Ingester,
    form: Annotated[NewIngest, Form(media_type="multipart/form-data")],
) -> IngestEntry:
    """Add the recordings in an archive, each as `POST /v1/recordings` does.

    It is done when its turn comes, also if the server is stopped and started in between. A file that
    cannot be added is told of, and the others are added; audio that is already there stays as it is.
    """
    service.loaded()
    service.quotas.require_audio(asker.id)
    names = {"rightsholder", "rights", "licence_until"}
    fields = form.model_dump(include=names, exclude_none=True)
    private = form.private if form.private is not None else asker.key is not None

    def work() -> IngestEntry:
        archive, metadata = form.archive, form.metadata
        table = metadata.file if metadata else None
        name = file_name(archive)
        return service.ingests.ask(archive.file, name, table, fields, private, asker)

    entry = await service.keep(asker, work)
    response.headers["Location"] = f"/v1/ingests/{entry.id}"
    return entry


@router.get("/v1/ingests", responses=described(401, 403, 422, 429, 503))
def list_ingests(service: Serving, asker: Ingester, cursor: Cursor = None) -> IngestPage:
    """One's ingests, the newest first, page by page."""
    service.loaded()
    return service.ingests.page(asker, cursor)


@router.get("/v1/ingests/{ingest_id}", responses=described(401, 403, 404, 422, 429, 503))
def show_ingest(ingest_id: str, service: Serving, asker: Ingester) -> IngestEntry:
    """What has become of an ingest and of its files."""
    service.loaded()
    return service.ingests.get(ingest_id, asker)


@router.delete(
    "/v1/ingests/{ingest_id}",
    status_code=204,
    responses=described(401, 403, 404, 422, 429, 503),
)
def cancel_ingest(ingest_id: str, service: Serving, asker: Ingester) -> None:
    """Cancel an ingest, what was added stays; one that has ended is forgotten."""
    service.loaded()
    service.ingests.cancel(ingest_id, asker)
