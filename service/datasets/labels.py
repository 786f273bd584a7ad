"""What a dataset's rows and sidecars say of a sound, under our names whatever they call it."""

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

Labels = dict[str, str]

# Names of a column or a key, best first, as `plain` has them.
NAMES = {
    "title": (
        *("title", "tracktitle", "trackname", "songtitle", "songname", "recordingtitle"),
        *("recordingname", "displaytitle", "titel", "titre", "titulo", "titolo"),
        *("track", "song", "recording", "name"),
    ),
    "artist": (
        *("artist", "artists", "artistname", "artistnames", "artistsname", "artists0name"),
        *("trackartist", "trackartists", "trackartistsname", "mainartist", "primaryartist"),
        *("displayartist", "displayartistname", "artistcredit", "performer", "performers"),
        *("creator", "interpret", "interprete", "artista", "band", "albumartist"),
    ),
    "isrc": (
        *("isrc", "isrcs", "isrccode", "isrccodes", "isrcnumber", "isrcno", "trackisrc"),
        *("recordingisrc", "externalidisrc", "externalidsisrc", "trackexternalidsisrc"),
        *("externalids", "tsrc"),
    ),
    "duration": (
        *("duration", "durationms", "durationmillis", "durationmilliseconds", "durations"),
        *("durationsec", "durationseconds", "durationmin", "durationminutes", "durationinseconds"),
        *("durationinms", "trackduration", "trackdurationms", "lengthseconds", "lengthsec"),
        *("lengthms", "length", "tracklength", "runtime", "playtime", "playingtime", "totaltime"),
        *("milliseconds", "seconds", "dauer", "duree", "duracion", "durata", "time"),
    ),
    "id": ("id", "trackid", "recordingid", "uri", "url", "key", "file", "path", "filename"),
    "path": (
        *("file", "path", "filename", "filepath", "audiofilepath", "audiopath", "audio"),
        *("location", "audiofile"),
    ),
}
# How the name of a column ends that has another unit than seconds, and seconds of that unit.
_UNITS = (
    (("ms", "millis", "milliseconds", "msec"), 0.001),
    (("sec", "seconds"), 1.0),
    (("min", "minutes"), 60.0),
)
_LONGEST = 1000  # characters kept of a label


def plain(name: str) -> str:
    """A column's name as NAMES has it: its letters and digits, in lower case, without accents."""
    apart = unicodedata.normalize("NFKD", name.casefold())
    return "".join(c for c in apart if c.isalnum())


def unit_of(column: str) -> float | None:
    """Seconds of the unit that a duration's column names; None where it names none."""
    name = plain(column)
    return next((unit for ends, unit in _UNITS if name.endswith(ends)), None)


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
    fields = dict(_flat(fields))
    found = columns(list(fields))
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


def _flat(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Fields with the keys of objects in them, such as `external_ids.isrc`, after their own."""
    for name, value in fields.items():
        if isinstance(name, str):
            yield name, value
            if isinstance(value, dict):
                yield from (
                    (f"{name}.{key}", inner) for key, inner in value.items() if isinstance(key, str)
                )


def _text(value: Any) -> str:
    """A string, or a list of strings as one."""
    if isinstance(value, list):
        return ", ".join(filter(None, map(_text, value)))[:_LONGEST]
    if isinstance(value, dict):
        return _text(value.get("name"))
    if not isinstance(value, str):
        return ""
    return " ".join("".join(c if c.isprintable() else " " for c in value).split())[:_LONGEST]
