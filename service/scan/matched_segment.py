"""A stretch of a scanned sound that is a recording's."""

from pydantic import Field

from service.query.answer import Match


class Segment(Match):
    """A match in a scanned sound."""

    reference_duration: float = Field(description="Of the recording, in seconds.")
    evidence: str | None = Field(
        default=None, description="Page of evidence, relative to the report's folder."
    )
