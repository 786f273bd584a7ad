"""Tags of a sound file under the contract's names."""

from collections.abc import Mapping

from fingerprint.isrc import isrcs_in

# Names that containers use for a tag, best first, in lower case.
_NAMES = {
    "title": ("title", "tit2", "inam", "©nam"),
    "artist": ("artist", "tpe1", "author", "iart", "album_artist"),
    "isrc": ("isrc", "tsrc", "wm/isrc"),
    "label": ("label", "publisher", "organization", "tpub", "wm/publisher"),
    "release_date": (
        "releasedate",
        "tdrl",
        "date",
        "tdrc",
        "year",
        "wm/year",
        "icrd",
        "tyer",
    ),
}
_LONGEST = 1000  # characters


def tags_of(*sources: Mapping[str, str]) -> dict[str, str]:
    """Title, artist, ISRC, label and release date, where one of these has them; the last one counts."""
    found: dict[str, str] = {}
    for metadata in sources:
        found |= {key.lower(): text for key, value in metadata.items() if (text := _text(value))}
    tags = {}
    for tag, names in _NAMES.items():
        value = next((found[name] for name in names if name in found), None)
        if tag == "isrc" and value is not None:
            # WAV has a chunk of this name that means "source".
            value = next(iter(isrcs_in(value)), None)
        if value is not None:
            tags[tag] = value
    return tags


def _text(value: str) -> str:
    """A tag as printable text; bytes that are not UTF-8 are taken for Windows' Western ones."""
    try:
        value.encode()
    except UnicodeEncodeError:
        value = value.encode(errors="surrogateescape").decode("cp1252", "replace")
    words = "".join(c if c.isprintable() else " " for c in value[:_LONGEST]).split()
    return " ".join(words)
