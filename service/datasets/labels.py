"""What a dataset's rows and sidecars say of a sound, under our names whatever they call it."""

from collections.abc import Mapping
from typing import Any

Labels = dict[str, str]

# Names of a column or a key, best first, in lower case and without spaces, hyphens and underscores.
NAMES = {
    "title": ("title", "trackname", "tracktitle", "songname", "songtitle", "track", "song", "name"),
    "artist": (
        "artist",
        "artists",
        "artistname",
        "artistnames",
        "trackartist",
        "creator",
        "performer",
    ),
    "isrc": ("isrc", "externalidisrc", "externalidsisrc", "trackisrc"),
    "duration": (
        "duration",
        "durationms",
        "durationseconds",
        "trackduration",
        "lengthseconds",
        "length",
    ),
    "id": ("id", "trackid", "uri", "url", "key", "file", "path", "filename"),
    "path": (
        "file",
        "path",
        "filename",
        "filepath",
        "audiofilepath",
        "audiopath",
        "audio",
        "location",
    ),
}
MILLISECONDS = "durationms"  # the one of these that is not in seconds
_LONGEST = 1000  # characters kept of a label


def plain(name: str) -> str:
    """A column's name as NAMES has it."""
    return "".join(name.casefold().split()).replace("_", "").replace("-", "").replace(".", "")


def columns(names: Mapping[str, Any] | list[str]) -> dict[str, str]:
    """Which of these columns hold a title, an artist, an ISRC, a duration, a path."""
    known = {plain(name): name for name in reversed(list(names))}
    return {
        ours: known[theirs[0]]
        for ours, spelled in NAMES.items()
        if (theirs := [name for name in spelled if name in known])
    }


def labels_of(fields: Mapping[str, Any]) -> Labels:
    """Title, artist and ISRC of a row, where it has them."""
    found = columns({name: None for name in fields if isinstance(name, str)})
    labels = {
        ours: _text(fields[found[ours]]) for ours in ("title", "artist", "isrc") if ours in found
    }
    return {ours: text for ours, text in labels.items() if text}


def path_of(fields: Mapping[str, Any]) -> str | None:
    """The path that a row names, if it names one."""
    column = columns({name: None for name in fields if isinstance(name, str)}).get("path")
    value = fields[column] if column else None
    if isinstance(value, dict):
        value = value.get("path")
    return value if isinstance(value, str) and value else None


def _text(value: Any) -> str:
    """A string, or a list of strings as one."""
    if isinstance(value, list):
        return ", ".join(filter(None, map(_text, value)))[:_LONGEST]
    if isinstance(value, dict):
        return _text(value.get("name"))
    if not isinstance(value, str):
        return ""
    return " ".join("".join(c if c.isprintable() else " " for c in value).split())[:_LONGEST]
