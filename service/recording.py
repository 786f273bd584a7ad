"""A recording as Earmark tells of it: `earmark list --json`, `show --json` and `/v1/recordings`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Rights = Literal["owned", "licensed", "open-licence", "public-domain"]


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
    ingested_at: str = Field(description="ISO 8601, UTC.")
