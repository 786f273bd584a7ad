"""The metadata of an `.emk` file: JSON values that strangers wrote."""

import json
import math
from typing import Any

_MOST_NOTES = 100  # of one fingerprint


def value_of(text: dict[str, str], key: str, kind: type) -> Any:
    """A JSON value of the metadata; a whole number will do for a float."""
    value = json.loads(text[key])
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise ValueError(f"{key} is a {type(value).__name__}")
    return value


def heard_as(text: dict[str, str]) -> dict[str, Any]:
    """What an `.emk` file says of what was heard. Raises ValueError."""
    heard = json.loads(text["heard"])
    track, undecoded = heard["track"], float(heard["undecoded"])
    damage, notes = heard["damage"], tuple(heard["notes"])
    lines = (*notes, *([] if damage is None else [damage]))
    if not (
        (track is None or (type(track) is int and track > 0))
        and 0 <= undecoded < math.inf
        and len(lines) <= _MOST_NOTES
        and all(isinstance(it, str) and it.isprintable() and len(it) <= 1000 for it in lines)
    ):
        raise ValueError("what was heard is no such thing")
    return {"track": track, "undecoded": undecoded, "damage": damage, "notes": notes}
