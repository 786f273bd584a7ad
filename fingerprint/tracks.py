"""The sound tracks of a file that has several, one after the other."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from fingerprint.audio import AudioStream, Limits
from fingerprint.errors import AudioError


@dataclass
class HeardTrack:
    """A sound track of a file with several, or why it cannot be opened; the seconds heard of it."""

    number: int
    stream: AudioStream | AudioError
    seconds: float = 0.0


def heard_tracks(stream: AudioStream, limits: Limits, *, in_order: bool) -> Iterator[HeardTrack]:
    """The sound tracks of a file, one open at a time, up to `limits` of all of them together.

    in_order : by their numbers; otherwise the one that was opened comes first
    """
    left = limits.max_seconds
    numbers = sorted(
        range(1, stream.tracks + 1), key=lambda it: not in_order and it != stream.track
    )
    for number in numbers:
        opened: AudioStream | AudioError
        try:
            if left <= 0:
                raise limits.too_long(stream.name)
            opened = stream.other(number, replace(limits, max_seconds=left))
        except AudioError as error:
            opened = error
        track = HeardTrack(number, opened)
        try:
            yield track
        finally:
            if isinstance(opened, AudioStream):
                opened.close()
        left -= track.seconds


def without_name(error: AudioError, name: str) -> str:
    """What an error says after the name of its file."""
    return error.detail.removeprefix(f"{name}: ")
