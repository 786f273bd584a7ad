"""Who asks a server for something: a key's owner, or the operator of a library without keys."""

from dataclasses import dataclass

from index.key import Key


@dataclass(frozen=True)
class Asker:
    """The owner of a key; or, with none, the operator, who sees and may do all."""

    key: Key | None

    @property
    def id(self) -> str | None:
        """The key's id."""
        return self.key.id if self.key else None

    @property
    def owner(self) -> str | None:
        """Whose recordings are added; None: nobody's in particular."""
        return self.key.owner if self.key else None

    @property
    def seen_by(self) -> str | None:
        """The owner as whom the library is searched; None sees all."""
        return self.key.seen_by if self.key else None

    def may(self, scope: str) -> bool:
        """Whether what this scope allows is allowed."""
        return self.key is None or self.key.may(scope)

    def may_change(self, owner: str | None) -> bool:
        """Whether a recording of that owner may be changed and removed."""
        return self.may("admin") or (self.may("ingest") and owner == self.owner)
