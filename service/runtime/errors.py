"""Why a server does not do what it is asked: `service.web.problems` turns these into HTTP."""

from fingerprint.errors import EarmarkError


class NotFound(EarmarkError):
    """There is no such thing, or none that the asker may see."""


class NotTaken(EarmarkError):
    """A file of a kind that is not taken."""


class InvalidField(EarmarkError):
    """A field whose value cannot be used."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class TooMuch(EarmarkError):
    """One key, or one owner, asks for too much; after so many seconds it can ask again."""

    def __init__(self, detail: str, seconds: int) -> None:
        super().__init__(detail)
        self.seconds = seconds


class Busy(EarmarkError):
    """Too much is asked in all, or what is needed is not there now; it can be asked again soon."""
