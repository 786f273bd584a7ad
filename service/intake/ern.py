"""The sound recordings of a DDEX ERN message: what a label says of the files that it delivers.

Read are, for each SoundRecording of a NewReleaseMessage (ERN 3, such as 3.8.2, and ERN 4): its ISRC, title,
artists, label, ISWC, duration, and the delivered audio files, previews left out. In 4.3 identifiers and
files are those of its editions, and artists and labels are references into the message's PartyList. In
ERN 3 they are written out, in details by territory; those that hold worldwide count, or else the first.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from service.intake.metadata import MetadataError, MetadataTable, Row, checked

_ROOT = re.compile(r"\{http://ddex\.net/xml/ern/[34]\d*\}NewReleaseMessage")
_BY_TERRITORY = "SoundRecordingDetailsByTerritory"  # of ERN 3
_DURATION = re.compile(r"P(?:(\d+)D)?T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?")
_UNITS = (86400.0, 3600.0, 60.0, 1.0)


class _Builder(ElementTree.TreeBuilder):
    """Refuses a document type: no DDEX message has one, and entities are how XML does harm."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise MetadataError("it has a document type, which no DDEX message has")


def load_message(path: Path) -> MetadataTable:
    """The rows of a message, one for each file. Raises MetadataError if it is no message of ERN 3 or 4."""
    try:
        root = ElementTree.parse(path, ElementTree.XMLParser(target=_Builder())).getroot()
    except OSError as error:
        raise MetadataError(f"{path} cannot be read: {error.strerror}") from error
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise MetadataError(f"{path} is not XML: {error}") from error
    except MetadataError as error:
        raise MetadataError(f"{path} cannot be used: {error}") from None
    if not _ROOT.fullmatch(root.tag):
        raise MetadataError(f"{path} is no NewReleaseMessage of DDEX ERN 3 or 4, but {root.tag}")
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
    local = sorted(
        _all(recording, _BY_TERRITORY), key=lambda it: _text(it, "TerritoryCode") != "Worldwide"
    )
    editions = [recording, *_all(recording, "SoundRecordingEdition"), *local]
    fields = {
        "isrc": _first(editions, "ResourceId/ISRC", "SoundRecordingId/ISRC"),
        "title": _title(recording) or next(filter(None, map(_title, local)), ""),
        "artist": next(filter(None, (_artist(it, parties) for it in editions)), ""),
        "label": labels.get(_text(recording, "ResourceReference"))
        or _first(local, "LabelName")
        or labels.get("", ""),
        "iswc": _first(
            [recording],
            *(
                "WorkId/ISWC",
                "IndirectSoundRecordingId/ISWC",
                "ResourceMusicalWorkReferenceList/ISWC",
            ),
        ),
    }
    known, problem = checked({name: value for name, value in fields.items() if value})
    seconds = _seconds(_text(recording, "Duration"))
    files = [
        file
        for edition in editions
        for kind in ("TechnicalDetails", "TechnicalSoundRecordingDetails")
        for details in _all(edition, kind)
        if _text(details, "IsPreview") != "true"
        for place in ("File", "DeliveryFile/File")
        for node in _all(details, place)
        if (file := _file(node))
    ]
    for file in dict.fromkeys(files):
        yield Row(number, file, known, problem, seconds)
    if not files:
        yield Row(number, "", known, "names no audio file", seconds)


def _file(node: Element) -> str:
    """The path of a delivered file: its URI of ERN 4, its URL or its folder and name of ERN 3."""
    if uri := _text(node, "URI") or _text(node, "URL"):
        return uri if "://" in uri else unquote(urlsplit(uri).path).lstrip("/")
    folder, name = _text(node, "FilePath").replace("\\", "/"), _text(node, "FileName")
    return f"{folder.strip('/')}/{name}".lstrip("/") if name else ""


def _first(nodes: Iterable[Element], *paths: str) -> str:
    """The first text there is at one of the paths below one of the nodes."""
    return next(filter(None, (_text(node, path) for node in nodes for path in paths)), "")


def _labels(root: Element, parties: dict[str, str]) -> dict[str, str]:
    """Name of the label by the reference of its resource; by "", that of the whole release."""
    labels: dict[str, str] = {}
    for release in [*_all(root, "ReleaseList/Release"), *_all(root, "ReleaseList/TrackRelease")]:
        label = parties.get(_text(release, "ReleaseLabelReference"), "")
        label = label or _text(release, "ReleaseDetailsByTerritory/LabelName")
        track = release.tag.endswith("TrackRelease")
        resources = [_text(it, ".") for it in _all(release, "ReleaseResourceReference")]
        for reference in resources if track else [""]:
            if label:
                labels.setdefault(reference, label)
    return labels


def _title(recording: Element) -> str:
    if text := _text(recording, "DisplayTitleText"):
        return text
    titles = _all(recording, "Title")
    titles.sort(key=lambda it: it.get("TitleType") not in ("DisplayTitle", "FormalTitle"))
    for node in (*_all(recording, "DisplayTitle"), *titles, *_all(recording, "ReferenceTitle")):
        if title := _text(node, "TitleText"):
            subtitle = _text(node, "SubTitle")
            return title + (f" ({subtitle})" if subtitle else "")
    return ""


def _artist(recording: Element, parties: dict[str, str]) -> str:
    def place(artist: Element) -> int:
        number = artist.get("SequenceNumber") or ""
        return int(number) if number.isdecimal() else 0

    artists = sorted(_all(recording, "DisplayArtist"), key=place)
    names = [
        parties.get(_text(it, "ArtistPartyReference"), "") or _text(it, "PartyName/FullName")
        for it in artists
    ]
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
