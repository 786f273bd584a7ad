"""Keys over HTTP, for admins: `/v1/keys`. `earmark keys` does so too, and makes the first."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated, Literal

from fastapi import FastAPI, Response
from pydantic import BaseModel, ConfigDict, Field

from index.key import end_of
from index.library import Library
from index.writer import Writer
from service.query.recording_fields import NOT_BLANK, TRIMMED, Day
from service.web.auth import Administrator, Asker
from service.web.problems import ProblemError, described, invalid

Writing = Callable[[Asker], AbstractContextManager[Writer]]


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


def install_keys(app: FastAPI, library: Callable[[], Library], writing: Writing) -> None:
    """Add the routes to an application; `writing` is the library's one writer, for who asks."""

    @app.get("/v1/keys", tags=["keys"], responses=described(401, 403, 429, 503))
    def list_keys(asker: Administrator) -> KeyPage:
        """List the keys that were ever made, without their secrets."""
        return KeyPage(keys=[KeyEntry.model_validate(key) for key in library().all_keys()])

    @app.post(
        "/v1/keys",
        status_code=201,
        tags=["keys"],
        responses={
            201: {"headers": {"Location": {"schema": {"type": "string"}}}},
            **described(400, 401, 403, 413, 422, 429, 503),
        },
    )
    def make_key(wanted: NewKey, asker: Administrator, response: Response) -> MadeKey:
        """Make a key. Of its secret, which is in this answer alone, only a hash is kept."""
        if asker.key is None:
            # Whoever reaches a server without keys would lock its operator out.
            raise ProblemError(
                403,
                "the first key is made at the machine: "
                "earmark keys create --owner NAME --scope admin",
            )
        expires_at = end_of(wanted.expires) if wanted.expires else None
        try:
            with writing(asker) as writer:
                key, text = writer.add_key(wanted.owner, wanted.scope, expires_at)
        except ValueError as error:
            raise invalid("owner", str(error)) from error
        response.headers["Location"] = f"/v1/keys/{key.id}"
        response.headers["Cache-Control"] = "no-store"
        return MadeKey(**vars(key), key=text)

    @app.get("/v1/keys/{key_id}", tags=["keys"], responses=described(401, 403, 404, 422, 429, 503))
    def show_key(key_id: str, asker: Administrator) -> KeyEntry:
        """A key, without its secret."""
        for key in library().all_keys():
            if key.id == key_id:
                return KeyEntry.model_validate(key)
        raise _unknown(key_id)

    @app.delete(
        "/v1/keys/{key_id}",
        status_code=204,
        tags=["keys"],
        responses=described(401, 403, 404, 422, 429, 503),
    )
    def revoke_key(key_id: str, asker: Administrator) -> None:
        """Revoke a key: it is worth nothing from this moment on. It stays listed."""
        try:
            with writing(asker) as writer:
                writer.revoke_key(key_id)
        except KeyError:
            raise _unknown(key_id) from None


def _unknown(key_id: str) -> ProblemError:
    return ProblemError(404, f"no key {key_id!r}")
