"""Keys over HTTP, for admins: `/v1/keys`. `earmark keys` does so too, and makes the first."""

from typing import Annotated, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from index.key import end_of
from service.query.recording_fields import NOT_BLANK, TRIMMED, Day
from service.runtime.errors import InvalidField, NotFound
from service.web.admission import AdmittedRoute
from service.web.auth import Administrator
from service.web.problems import ProblemError, described
from service.web.serving import Serving


class NewKey(BaseModel):
    """What a key is to be."""

    model_config = ConfigDict(extra="forbid")

    owner: Annotated[str, TRIMMED] = Field(
        max_length=200, pattern=NOT_BLANK, description="Whose recordings and queries it is for."
    )
    scope: Literal["query", "ingest", "admin"] = Field(
        description="query: ask; ingest: also add, change and remove one's own; admin: everything."
    )
    expires: Day | None = Field(
        default=None,
        description="Last day (UTC) on which it is good; null: it does not end.",
    )


class KeyEntry(BaseModel):
    """A key, without its secret."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    owner: str
    scope: Literal["query", "ingest", "admin"]
    created_at: str = Field(description="ISO 8601, UTC.")
    expires_at: str | None = Field(description="From when on it is worth nothing; null: never.")
    revoked_at: str | None


class MadeKey(KeyEntry):
    """A key that was just made."""

    key: str = Field(description="What is sent as `Authorization: Bearer`. It is not shown again.")


class KeyPage(BaseModel):
    """The keys that were ever made, the oldest first."""

    keys: list[KeyEntry]


router = APIRouter(tags=["keys"], route_class=AdmittedRoute)


@router.get("/v1/keys", responses=described(401, 403, 429, 503))
def list_keys(service: Serving, asker: Administrator) -> KeyPage:
    """List the keys that were ever made, without their secrets."""
    return KeyPage(keys=[KeyEntry.model_validate(key) for key in service.library.all_keys()])


@router.post(
    "/v1/keys",
    status_code=201,
    responses={
        201: {"headers": {"Location": {"schema": {"type": "string"}}}},
        **described(400, 401, 403, 413, 422, 429, 503),
    },
)
def make_key(wanted: NewKey, service: Serving, asker: Administrator, response: Response) -> MadeKey:
    """Make a key. Of its secret, which is in this answer alone, only a hash is kept."""
    if asker.key is None:
        # Whoever reaches a server without keys would lock its operator out.
        raise ProblemError(
            403,
            "the first key is made at the machine: earmark keys create --owner NAME --scope admin",
        )
    expires_at = end_of(wanted.expires) if wanted.expires else None
    try:
        key, text = service.library.add_key(wanted.owner, wanted.scope, expires_at, by=asker.id)
    except ValueError as error:
        raise InvalidField("owner", str(error)) from error
    response.headers["Location"] = f"/v1/keys/{key.id}"
    response.headers["Cache-Control"] = "no-store"
    return MadeKey(**vars(key), key=text)


@router.get("/v1/keys/{key_id}", responses=described(401, 403, 404, 422, 429, 503))
def show_key(key_id: str, service: Serving, asker: Administrator) -> KeyEntry:
    """A key, without its secret."""
    for key in service.library.all_keys():
        if key.id == key_id:
            return KeyEntry.model_validate(key)
    raise _unknown(key_id)


@router.delete(
    "/v1/keys/{key_id}",
    status_code=204,
    responses=described(401, 403, 404, 422, 429, 503),
)
def revoke_key(key_id: str, service: Serving, asker: Administrator) -> None:
    """Revoke a key: it is worth nothing from this moment on. It stays listed."""
    try:
        service.library.revoke_key(key_id, by=asker.id)
    except KeyError:
        raise _unknown(key_id) from None


def _unknown(key_id: str) -> NotFound:
    return NotFound(f"no key {key_id!r}")
