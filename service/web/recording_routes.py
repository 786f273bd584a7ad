"""The routes under /v1/recordings."""

from dataclasses import replace
from hashlib import file_digest
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Body, Form, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from fingerprint.fingerprint import Fingerprint
from index.library import Library
from index.recording import Metadata, Recording
from index.writer import Writer
from service.intake.ingest import require_whole
from service.intake.metadata import describe
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
from service.runtime.asker import Asker
from service.runtime.errors import InvalidField, NotFound
from service.web.admission import AdmittedRoute
from service.web.auth import Ingester, Querier
from service.web.problems import ProblemError, described
from service.web.serving import Serving
from service.web.uploads import File, file_name, form_limits

PAGE = 100


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


router = APIRouter(
    tags=["recordings"], route_class=AdmittedRoute, form_limits=form_limits(NewRecording)
)


@router.post(
    "/v1/recordings",
    status_code=201,
    responses={
        201: {"headers": {"Location": {"schema": {"type": "string"}}}},
        **described(400, 401, 403, 409, 413, 415, 422, 429, 503),
    },
)
async def add_recording(
    response: Response,
    service: Serving,
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

    def read() -> Recording | tuple[Fingerprint, Metadata]:
        digest = file_digest(form.audio.file, "sha256")  # type: ignore[arg-type]
        known = loaded.library.find(digest.hexdigest(), asker.owner)
        if known is not None:
            return known
        form.audio.file.seek(0)
        made = service.decoded(asker, lambda: loaded.decoder.recording(form.audio.file, name))
        if not form.allow_damaged:
            require_whole(made, "allow_damaged")
        apart = {"audio", "private", "allow_damaged"}
        fields = form.model_dump(mode="json", exclude=apart, exclude_none=True)
        private = form.private if form.private is not None else asker.key is not None
        said = describe(name, made.tags, fields)
        return made, replace(said, owner=asker.owner, private=private)

    try:
        found = await service.in_turn(asker, read)
        if isinstance(found, Recording):
            recording, added = found, False
        else:
            made, said = found
            recording, added = await service.write_soon(asker, lambda it: it.add(made, said))
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


@router.get("/v1/recordings", responses=described(401, 403, 422, 429, 503))
def list_recordings(
    service: Serving,
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
    recordings, next_cursor = service.library.recordings(q, cursor, PAGE, owner=asker.seen_by)
    entries = [RecordingEntry.model_validate(recording) for recording in recordings]
    return RecordingPage(recordings=entries, next_cursor=next_cursor)


@router.get("/v1/recordings/{recording_id:path}", responses=described(401, 403, 404, 422, 429, 503))
def show_recording(recording_id: str, service: Serving, asker: Querier) -> RecordingEntry:
    """All that is recorded of one recording."""
    try:
        recording = service.library.recording(recording_id, asker.seen_by)
    except KeyError:
        raise _unknown(recording_id) from None
    return RecordingEntry.model_validate(recording)


@router.delete(
    "/v1/recordings/{recording_id:path}",
    status_code=204,
    responses=described(401, 403, 404, 422, 429, 503),
)
async def remove_recording(recording_id: str, service: Serving, asker: Ingester) -> None:
    """Remove a recording; it is not found again from this moment on."""

    def remove(writer: Writer) -> None:
        _require_changeable(service.library, recording_id, asker)
        writer.remove(recording_id)

    await service.write(asker, remove)


@router.patch(
    "/v1/recordings/{recording_id:path}",
    responses=described(400, 401, 403, 404, 413, 422, 429, 503),
)
async def change_recording(
    recording_id: str,
    change: Annotated[RecordingChange, Body()],
    service: Serving,
    asker: Ingester,
) -> RecordingEntry:
    """Say other things of a recording (RFC 7396): null empties a field, what is left out stays."""
    values: dict[str, Any] = {**change}
    if until := change.get("licence_until"):
        values["licence_until"] = until.isoformat()

    def apply(writer: Writer) -> Recording:
        _require_changeable(service.library, recording_id, asker)
        recording, _ = writer.change(recording_id, values)
        return recording

    return RecordingEntry.model_validate(await service.write(asker, apply))


def _require_changeable(library: Library, recording_id: str, asker: Asker) -> None:
    """Raises NotFound if the asker sees no recording of that id, a 403 if it is another owner's."""
    try:
        owner = library.recording(recording_id, asker.seen_by).owner
    except KeyError:
        raise _unknown(recording_id) from None
    if not asker.may_change(owner):
        raise ProblemError(403, f"recording {recording_id!r} is another owner's")


def _refused(library: Library, recording_id: str | None, reason: str, asker: Asker) -> Exception:
    """Why a recording was not added: its id is taken, or is none."""
    try:
        library.recording(recording_id or "")
    except KeyError:
        return InvalidField("id", reason)
    try:
        library.recording(recording_id or "", asker.seen_by)
    except KeyError:  # somebody else's private one: of that no more is said
        return ProblemError(409, f"id {recording_id!r} is taken")
    return ProblemError(409, reason, recording=recording_id)


def _unknown(recording_id: str) -> NotFound:
    return NotFound(f"no recording {recording_id!r}")
