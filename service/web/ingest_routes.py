"""The routes under /v1/ingests."""

from collections.abc import Callable
from typing import Annotated

import anyio.to_thread
from fastapi import FastAPI, Form, Response
from pydantic import BaseModel, ConfigDict, Field

from service.jobs.ingest_jobs import IngestEntry, IngestPage, Ingests
from service.query.recording_fields import Day, Flag, NotBlank, Rights
from service.web.auth import Ingester, Quotas
from service.web.problems import described
from service.web.uploads import File, file_name


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


def install_ingests(
    app: FastAPI, loaded: Callable[[], object], ingests: Ingests, quotas: Quotas
) -> None:
    """Add the routes to an application; `loaded` raises a 503 until the library is there."""

    @app.post(
        "/v1/ingests",
        status_code=202,
        tags=["ingests"],
        responses={
            202: {"headers": {"Location": {"schema": {"type": "string"}}}},
            **described(400, 401, 403, 413, 415, 422, 429, 503),
        },
    )
    async def add_ingest(
        response: Response,
        asker: Ingester,
        form: Annotated[NewIngest, Form(media_type="multipart/form-data")],
    ) -> IngestEntry:
        """Add the recordings in an archive, each as `POST /v1/recordings` does.

        It is done when its turn comes, also if the server is stopped and started in between. A file that
        cannot be added is told of, and the others are added; audio that is already there stays as it is.
        """
        loaded()
        quotas.require_audio(asker.id)
        names = {"rightsholder", "rights", "licence_until"}
        fields = form.model_dump(include=names, exclude_none=True)
        private = form.private if form.private is not None else asker.key is not None

        def work() -> IngestEntry:
            archive, metadata = form.archive, form.metadata
            table = metadata.file if metadata else None
            return ingests.ask(archive.file, file_name(archive), table, fields, private, asker)

        entry = await anyio.to_thread.run_sync(work)
        response.headers["Location"] = f"/v1/ingests/{entry.id}"
        return entry

    @app.get("/v1/ingests", tags=["ingests"], responses=described(401, 403, 429, 503))
    def list_ingests(asker: Ingester) -> IngestPage:
        """One's ingests, the newest first."""
        loaded()
        return IngestPage(ingests=ingests.all(asker))

    @app.get(
        "/v1/ingests/{ingest_id}",
        tags=["ingests"],
        responses=described(401, 403, 404, 422, 429, 503),
    )
    def show_ingest(ingest_id: str, asker: Ingester) -> IngestEntry:
        """What has become of an ingest and of its files."""
        loaded()
        return ingests.get(ingest_id, asker)

    @app.delete(
        "/v1/ingests/{ingest_id}",
        status_code=204,
        tags=["ingests"],
        responses=described(401, 403, 404, 422, 429, 503),
    )
    def cancel_ingest(ingest_id: str, asker: Ingester) -> None:
        """Cancel an ingest, what was added stays; one that has ended is forgotten."""
        loaded()
        ingests.cancel(ingest_id, asker)
