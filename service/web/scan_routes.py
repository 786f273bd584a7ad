"""The routes under /v1/scans."""

from collections.abc import Callable
from typing import Annotated

import anyio.to_thread
from fastapi import FastAPI, Form, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field

from service.jobs.scan_jobs import ScanEntry, ScanPage, Scans
from service.query.recording_fields import Flag
from service.web.auth import Querier
from service.web.problems import described
from service.web.uploads import File, file_name


class NewScan(BaseModel):
    """The form that a scan is asked for with."""

    model_config = ConfigDict(extra="forbid")

    dataset: File
    probe: Flag = Field(default=False, description="Look at windows of each file first.")
    thorough: Flag = Field(default=False, description="Look at long files as closely as at clips.")


def install_scans(app: FastAPI, loaded: Callable[[], object], scans: Scans) -> None:
    """Add the routes to an application; `loaded` raises a 503 until the library is there."""

    @app.post(
        "/v1/scans",
        status_code=202,
        tags=["scans"],
        responses={
            202: {"headers": {"Location": {"schema": {"type": "string"}}}},
            **described(400, 401, 403, 413, 415, 422, 429, 503),
        },
    )
    async def add_scan(
        response: Response,
        asker: Querier,
        form: Annotated[NewScan, Form(media_type="multipart/form-data")],
    ) -> ScanEntry:
        """Ask for a scan of a dataset: an archive, a Parquet file with sounds, or one sound.

        It is run when its turn comes, also if the server is stopped and started in between.
        """
        loaded()
        options = form.model_dump(exclude={"dataset"})

        def work() -> ScanEntry:
            upload = form.dataset
            return scans.ask(upload.file, file_name(upload), options, asker)

        entry = await anyio.to_thread.run_sync(work)
        response.headers["Location"] = f"/v1/scans/{entry.id}"
        return entry

    @app.get("/v1/scans", tags=["scans"], responses=described(401, 403, 429, 503))
    def list_scans(asker: Querier) -> ScanPage:
        """One's scans, the newest first."""
        loaded()
        return ScanPage(scans=scans.all(asker))

    @app.get(
        "/v1/scans/{scan_id}", tags=["scans"], responses=described(401, 403, 404, 422, 429, 503)
    )
    def show_scan(scan_id: str, asker: Querier) -> ScanEntry:
        """What has become of a scan."""
        loaded()
        return scans.get(scan_id, asker)

    @app.delete(
        "/v1/scans/{scan_id}",
        status_code=204,
        tags=["scans"],
        responses=described(401, 403, 404, 422, 429, 503),
    )
    def cancel_scan(scan_id: str, asker: Querier) -> None:
        """Cancel a scan; one that has ended is forgotten, with its report."""
        loaded()
        scans.cancel(scan_id, asker)

    @app.get(
        "/v1/scans/{scan_id}/report/{file}",
        tags=["scans"],
        response_class=FileResponse,
        responses=described(401, 403, 404, 422, 429, 503),
    )
    def show_report(scan_id: str, file: str, asker: Querier) -> FileResponse:
        """A file of a scan's report: report.html, summary.json, files, segments, errors."""
        loaded()
        return FileResponse(scans.report(scan_id, file, asker))
