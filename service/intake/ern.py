"""The sound recordings of a DDEX ERN 4 message: what a label says of the files that it delivers.

Read are, for each SoundRecording of a NewReleaseMessage (4.1 to 4.3): its ISRC, title, artists, label,
ISWC, duration, and the delivered audio files, previews left out. In 4.3 identifiers and files are those
of its editions. Artists and labels are references into the message's PartyList.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from service.intake.metadata import MetadataError, MetadataTable, Row

_ROOT = re.compile(r"\{http://ddex\.net/xml/ern/4\d*\}NewReleaseMessage")
_DURATION = re.compile(r"P(?:(\d+)D)?T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?")
_UNITS = (86400.0, 3600.0, 60.0, 1.0)


class _Builder(ElementTree.TreeBuilder):
    """Refuses a document type: no DDEX message has one, and entities are how XML does harm."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise MetadataError("it has a document type, which no DDEX message has")


def load_message(path: Path) -> MetadataTable:
    """The rows of a message, one for each file. Raises MetadataError if it is no ERN 4 message."""
    try:
        root = ElementTree.parse(path, ElementTree.XMLParser(target=_Builder())).getroot()
    except OSError as error:
        raise MetadataError(f"{path} cannot be read: {error.strerror}") from error
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise MetadataError(f"{path} is not XML: {error}") from error
    except MetadataError as error:
        raise MetadataError(f"{path} cannot be used: {error}") from None
    if not _ROOT.fullmatch(root.tag):
        raise MetadataError(f"{path} is no NewReleaseMessage of DDEX ERN 4, but {root.tag}")
    parties = {
        _text(party, "PartyReference"): _text(party, "PartyName/FullName")
        for party in _all(root, "PartyList/Party")
    }
    labels = _labels(root, parties)
    rows = [
        row
        for number, recording in enumerate(_all(root, "ResourceList/SoundRecording"), start=1)
        for row in _rows(number, recording, parties, labels)
    ]
    return MetadataTable(path, rows, [], "sound recording")


def _rows(
    number: int, recording: Element, parties: dict[str, str], labels: dict[str, str]
) -> Iterator[Row]:
    """One row for each audio file of a sound recording."""
    editions = [recording, *_all(recording, "SoundRecordingEdition")]
    fields = {
        "isrc": next(filter(None, (_text(it, "ResourceId/ISRC") for it in editions)), ""),
        "title": _title(recording),
        "artist": _artist(recording, parties),
        "label": labels.get(_text(recording, "ResourceReference")) or labels.get("", ""),
        "iswc": _text(recording, "WorkId/ISWC"),
    }
    known = {name: value for name, value in fields.items() if value}
    seconds = _seconds(_text(recording, "Duration"))
    files = [
        file
        for edition in editions
        for details in _all(edition, "TechnicalDetails")
        if _text(details, "IsPreview") != "true"
        for place in ("File", "DeliveryFile/File")
        for node in _all(details, place)
        if (file := unquote(urlsplit(_text(node, "URI")).path).lstrip("/"))
    ]
    for file in files:
        yield Row(number, file, known, None, seconds)
    if not files:
        yield Row(number, "", known, "names no audio file", seconds)


def _labels(root: Element, parties: dict[str, str]) -> dict[str, str]:
    """Name of the label by the reference of its resource; by "", that of the whole release."""
    labels: dict[str, str] = {}
    for release in [*_all(root, "ReleaseList/Release"), *_all(root, "ReleaseList/TrackRelease")]:
        label = parties.get(_text(release, "ReleaseLabelReference"), "")
        track = release.tag.endswith("TrackRelease")
        resources = [_text(it, ".") for it in _all(release, "ReleaseResourceReference")]
        for reference in resources if track else [""]:
            if label:
                labels.setdefault(reference, label)
    return labels


def _title(recording: Element) -> str:
    parts = (_text(recording, f"DisplayTitle/{name}") for name in ("TitleText", "SubTitle"))
    title, subtitle = parts
    return _text(recording, "DisplayTitleText") or title + (f" ({subtitle})" if subtitle else "")


def _artist(recording: Element, parties: dict[str, str]) -> str:
    def place(artist: Element) -> int:
        number = artist.get("SequenceNumber") or ""
        return int(number) if number.isdecimal() else 0

    artists = sorted(_all(recording, "DisplayArtist"), key=place)
    names = [parties.get(_text(it, "ArtistPartyReference"), "") for it in artists]
    return _text(recording, "DisplayArtistName") or ", ".join(filter(None, names))


def _seconds(duration: str) -> float | None:
    """`PT3M20S` as 200; None for what is no duration."""
    found = _DURATION.fullmatch(duration)
    if not found or not any(found.groups()):
        return None
    parts = zip(_UNITS, found.groups(), strict=True)
    return sum(unit * float(value or 0) for unit, value in parts) or None  # PT0S is a placeholder


def _all(node: Element, path: str) -> list[Element]:
    """Elements below a node, whether or not they are in the message's namespace."""
    return node.findall("/".join(f"{{*}}{name}" for name in path.split("/")))


def _text(node: Element, path: str) -> str:
    """The text there: that which is the default where there are several, else the first with any."""
    found = [node] if path == "." else _all(node, path)
    found.sort(key=lambda it: it.get("IsDefault") != "true")
    return next(filter(None, (" ".join((it.text or "").split()) for it in found)), "")
