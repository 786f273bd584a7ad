"""A recording as Earmark tells of it: `earmark list --json`, `show --json` and `/v1/recordings`."""

import re
from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool
from typing_extensions import TypedDict  # pydantic does without it from Python 3.12 on

from fingerprint.isrc import normalised

Rights = Literal["owned", "licensed", "open-licence", "public-domain"]


def _trimmed(value: str) -> str:
    return value.strip(" ")


# What is written in a field: one line; the second kind has something other than blanks in it. Blanks at its
# ends are dropped when it has been looked at as it was sent: what is described is what is taken.
TRIMMED = AfterValidator(_trimmed)
Text = Annotated[str, Field(max_length=1000, pattern=r"^[^\x00-\x1f]*$"), TRIMMED]
NOT_BLANK = r"^[^\x00-\x1f]*[^\x00-\x20][^\x00-\x1f]*$"
NotBlank = Annotated[str, Field(max_length=1000, pattern=NOT_BLANK), TRIMMED]


def _isrc(value: object) -> object:
    """An ISRC as it is stored; nothing for nothing."""
    return normalised(value) if isinstance(value, str) and value.strip() else value


# An ISRC in any spelling, stored as its twelve characters; the first may be empty.
_AS_STORED = BeforeValidator(_isrc)
_SPELLED = r"[A-Za-z]{2}[ -]?[A-Za-z0-9]{3}[ -]?[0-9]{2}[ -]?[0-9]{5}"
Isrc = Annotated[str, Field(max_length=100, pattern=rf"^(?:{_SPELLED})?$"), _AS_STORED]
NotBlankIsrc = Annotated[str, Field(max_length=100, pattern=rf"^{_SPELLED}$"), _AS_STORED]

CURSOR = r"^[0-9]{0,18}$"  # `next_cursor` of a page of recordings


def _as_written(value: object) -> object:
    """Nothing that pydantic takes for a date beside one, such as seconds since 1970."""
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", value, re.ASCII):
        return value
    raise ValueError("should be a date like 2027-12-31")


Day = Annotated[date, BeforeValidator(_as_written)]


def _true_or_false(value: object) -> object:
    """Nothing that pydantic takes for one of them beside, such as `off` and 1."""
    if isinstance(value, bool) or (isinstance(value, str) and value.lower() in ("true", "false")):
        return value
    raise ValueError("should be true or false")


Flag = Annotated[bool, BeforeValidator(_true_or_false)]


class RecordingEntry(BaseModel):
    """One recording of the library: its metadata, its rights record, its origin."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    title: str | None
    artist: str | None
    isrc: str | None
    iswc: str | None
    work: str | None = Field(description="The musical work that this is a recording of.")
    label: str | None
    release_date: str | None
    rightsholder: str
    rights: Rights = Field(description="On what basis it is here.")
    licence_until: str | None = Field(description="Last day (UTC) on which it answers queries.")
    supplied_at: str = Field(description="When its rights were last stated; ISO 8601, UTC.")
    supplied_by: str | None = Field(description="Id of the key that stated them; null: no key.")
    owner: str | None = Field(description="Whose key added it; null: no key.")
    private: bool = Field(description="Whether it answers its owner's queries only.")
    source: str = Field(description="Name of the file that it was ingested from.")
    sha256: str = Field(description="Of that file's bytes.")
    duration: float = Field(description="Seconds.")
    undecoded_seconds: float = Field(
        description="Stated by the file beyond that, and not decoded: it was taken damaged."
    )
    ingested_at: str = Field(description="ISO 8601, UTC.")


class RecordingChange(TypedDict, total=False):
    """What is to be said of a recording from now on."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    title: NotBlank | None
    artist: NotBlank | None
    isrc: NotBlankIsrc | None
    iswc: NotBlank | None
    work: NotBlank | None
    label: NotBlank | None
    release_date: NotBlank | None
    rightsholder: NotBlank
    rights: Rights
    licence_until: Day | None
    private: StrictBool
