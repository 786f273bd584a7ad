"""The routes under /v1/scans."""

from typing import Annotated

from fastapi import APIRouter, Form, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field

from service.jobs.scan_jobs import ScanEntry, ScanPage
from service.query.recording_fields import Flag
from service.web.admission import AdmittedRoute
from service.web.auth import Querier
from service.web.problems import described
from service.web.serving import Serving
from service.web.uploads import Cursor, File, file_name, form_limits


class NewScan(BaseModel):
    """The form that a scan is asked for with."""

    model_config = ConfigDict(extra="forbid")

    dataset: File
    probe: Flag = Field(default=False, description="Look at windows of each file first.")
    thorough: Flag = Field(default=False, description="Look at long files as closely as at clips.")


router = APIRouter(tags=["scans"], route_class=AdmittedRoute, form_limits=form_limits(NewScan))


@router.post(
    "/v1/scans",
    status_code=202,
    responses={
        202: {"headers": {"Location": {"schema": {"type": "string"}}}},
        **described(400, 401, 403, 413, 415, 422, 429, 503),
    },
)
async def add_scan(
    response: Response,
    service: Serving,
    asker: Querier,
    form: Annotated[NewScan, Form(media_type="multipart/form-data")],
) -> ScanEntry:
    """Ask for a scan of a dataset: an archive, a Parquet file with sounds, or one sound.

    It is run when its turn comes, also if the server is stopped and started in between.
    """
    service.loaded()
    options = form.model_dump(exclude={"dataset"})

    def work() -> ScanEntry:
        upload = form.dataset
        return service.scans.ask(upload.file, file_name(upload), options, asker)

    entry = await service.keep(asker, work)
    response.headers["Location"] = f"/v1/scans/{entry.id}"
    return entry


@router.get("/v1/scans", responses=described(401, 403, 422, 429, 503))
def list_scans(service: Serving, asker: Querier, cursor: Cursor = None) -> ScanPage:
    """One's scans, the newest first, page by page."""
    service.loaded()
    return service.scans.page(asker, cursor)


@router.get("/v1/scans/{scan_id}", responses=described(401, 403, 404, 422, 429, 503))
def show_scan(scan_id: str, service: Serving, asker: Querier) -> ScanEntry:
    """What has become of a scan."""
    service.loaded()
    return service.scans.get(scan_id, asker)


@router.delete(
    "/v1/scans/{scan_id}",
    status_code=204,
    responses=described(401, 403, 404, 422, 429, 503),
)
def cancel_scan(scan_id: str, service: Serving, asker: Querier) -> None:
    """Cancel a scan; one that has ended is forgotten, with its report."""
    service.loaded()
    service.scans.cancel(scan_id, asker)


@router.get(
    "/v1/scans/{scan_id}/report/{file}",
    response_class=FileResponse,
    responses=described(401, 403, 404, 422, 429, 503),
)
def show_report(scan_id: str, file: str, service: Serving, asker: Querier) -> FileResponse:
    """A file of a scan's report: report.html, summary.json, files, segments, errors."""
    service.loaded()
    return FileResponse(service.scans.report(scan_id, file, asker))
