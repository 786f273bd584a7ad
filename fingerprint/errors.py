"""Errors that Earmark states to its users: one clear line each."""

from typing import Literal

AudioErrorType = Literal[
    "not-found",
    "undecodable",
    "too-short",
    "silent",
    "too-long",
    "too-large",
    "timeout",
]


class EarmarkError(Exception):
    """Root of Earmark's errors; `str(error)` is one line: what is wrong, where, what to do."""


def reason_of(error: BaseException) -> str:
    """What an error of a library or of the system says of itself."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class AudioError(EarmarkError):
    """Audio that cannot be used.

    Attributes
    ----------
    type : str
        What is wrong, as the contract names it.
    detail : str
        One printable line for people: where, what, what to do.
    seconds : float
        What it took to find out: seconds that were decoded, or went by.
    """

    def __init__(self, type: AudioErrorType, detail: str, seconds: float = 0.0) -> None:
        # File names and libraries' messages may hold line ends, terminal codes, half characters.
        printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in detail)
        super().__init__(printable)
        self.type: AudioErrorType = type
        self.detail = printable
        self.seconds = seconds

    def __reduce__(self) -> tuple[type["AudioError"], tuple[AudioErrorType, str, float]]:
        """Decoding runs in worker processes: an error has to survive the way back."""
        return AudioError, (self.type, self.detail, self.seconds)
