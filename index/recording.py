"""What is known of a recording: what is said of it, whose it is, where it came from."""

import contextlib
from dataclasses import dataclass, fields
from datetime import date

RIGHTS = ("owned", "licensed", "open-licence", "public-domain")
RIGHTS_RECORD = ("rightsholder", "rights", "licence_until")
_LONGEST_ID = 200  # characters


@dataclass(frozen=True)
class Metadata:
    """What is said of a recording by who supplied it.

    `rights` is one of RIGHTS; `licence_until` the last day (ISO 8601, UTC) on which the recording
    answers queries, None for no end. `owner` is whose key supplied it, None: who sits at the machine; a
    `private` one answers its owner's queries only.
    """

    source: str
    rightsholder: str
    rights: str
    id: str | None = None
    title: str | None = None
    artist: str | None = None
    isrc: str | None = None
    iswc: str | None = None
    work: str | None = None
    label: str | None = None
    release_date: str | None = None
    licence_until: str | None = None
    owner: str | None = None
    private: bool = False

    def require_sound(self) -> None:
        """Raises ValueError, one line, if a library cannot hold this."""
        for field in fields(self):
            if "\0" in str(getattr(self, field.name)):
                raise ValueError(f"{field.name} has a NUL character")
        if self.rights not in RIGHTS:
            raise ValueError(f"rights {self.rights!r} is none of {', '.join(RIGHTS)}")
        if not self.rightsholder.strip():
            raise ValueError("a rightsholder is needed: no rights, no ingest")
        if self.licence_until is not None:
            with contextlib.suppress(ValueError):
                if date.fromisoformat(self.licence_until).isoformat() == self.licence_until:
                    return
            raise ValueError(f"licence_until {self.licence_until!r} is no date like 2027-12-31")


@dataclass(frozen=True)
class Recording(Metadata):
    """A recording in the library. `duration` in seconds, times in ISO 8601 (UTC).

    `undecoded_seconds` is what its file states beyond that and did not give: it was taken damaged.

    The rights record is `rightsholder`, `rights`, `licence_until`, and when and by which key (None: by
    who sits at the machine) they were last stated, `supplied_at` and `supplied_by`.
    """

    id: str = ""  # never None once it is here

    sha256: str = ""
    duration: float = 0.0
    undecoded_seconds: float = 0.0
    ingested_at: str = ""
    supplied_at: str = ""
    supplied_by: str | None = None

    def require_sound(self) -> None:
        """Raises ValueError, one line, if a library cannot hold this."""
        super().require_sound()
        id = self.id
        if not id.isprintable() or id != id.strip() or len(id) > _LONGEST_ID or id in (".", ".."):
            raise ValueError(
                f"id {id!r} cannot be one: printable, up to {_LONGEST_ID} characters, no space at "
                "its ends, neither . nor .."
            )
