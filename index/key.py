"""A key to a library over HTTP: whose it is and what it may do. `index.keys` keeps them."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time

# What a key may do; each includes the ones before.
SCOPES = ("query", "ingest", "admin")


@dataclass(frozen=True)
class Key:
    """A key, without its secret; times in ISO 8601 (UTC).

    `owner` is whose recordings it adds, and whose private ones it sees; `scope` one of SCOPES.
    """

    id: str
    owner: str
    scope: str
    created_at: str
    expires_at: str | None = None
    revoked_at: str | None = None

    def may(self, scope: str) -> bool:
        """Whether what this scope allows is allowed."""
        return SCOPES.index(self.scope) >= SCOPES.index(scope)

    @property
    def state(self) -> str:
        """`good`, `expired` or `revoked`, now."""
        if self.revoked_at is not None:
            return "revoked"
        ends = self.expires_at and datetime.fromisoformat(self.expires_at)
        return "expired" if ends and ends <= datetime.now(UTC) else "good"

    @property
    def seen_by(self) -> str | None:
        """The owner as whom it looks at a library; None sees all."""
        return None if self.may("admin") else self.owner


def end_of(last: date) -> str:
    """When a key ends whose last day (UTC) this is: ISO 8601."""
    return datetime.combine(last, time.max, UTC).isoformat(timespec="seconds")
