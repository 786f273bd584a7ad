"""A stretch of a scanned sound that is a recording's."""

from pydantic import Field

from service.query.answer import Match


class Segment(Match):
    """A match in a scanned sound."""

    reference_duration: float = Field(description="Of the recording, in seconds.")
    evidence: str | None = Field(
        default=None, description="Page of evidence, relative to the report's folder."
    )

    def later(self, seconds: float) -> "Segment":
        """The same in a sound that began so much earlier."""
        names = ("query_start", "query_end", "shared_start", "shared_end")
        times = {name: getattr(self, name) for name in names}
        moved = {name: round(at + seconds, 3) for name, at in times.items() if at is not None}
        return self.model_copy(update=moved)
