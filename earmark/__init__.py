"""Earmark: which recordings a clip, a file or a dataset contains, where, and how sure that is.

    import earmark

    library = earmark.Library.open("earmark-library", create=True)
    library.ingest(["album/"], rightsholder="Blue Label", rights="owned")
    answer = library.query("suspect.mp3")
    answer.matches[0].title, answer.matches[0].reference_start
    earmark.fingerprint("suspect.mp3").save("suspect.emk")

Everything listed in `__all__` is public. The packages `fingerprint`, `index` and `service` may change.
"""

import importlib
from importlib.metadata import version as _version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from earmark.answers import Answer, LibraryState, Match, Outcome, ScanReport
    from earmark.interface import Library, fingerprint
    from fingerprint.errors import AudioError, EarmarkError
    from fingerprint.fingerprint import Fingerprint
    from index.errors import LibraryError, LibraryLocked
    from index.recording import Recording
    from service.datasets.location import DatasetError
    from service.intake.metadata import MetadataError
    from service.runtime.extras import MissingExtra
    from service.runtime.settings import SettingsError
    from service.scan.journal import JournalError

# Where each public name is. A name is imported when it is first used, so `python -m earmark --help` is fast.
_HOMES = {
    "Answer": "earmark.answers",
    "AudioError": "fingerprint.errors",
    "DatasetError": "service.datasets.location",
    "EarmarkError": "fingerprint.errors",
    "Fingerprint": "fingerprint.fingerprint",
    "JournalError": "service.scan.journal",
    "Library": "earmark.interface",
    "LibraryError": "index.errors",
    "LibraryLocked": "index.errors",
    "LibraryState": "earmark.answers",
    "Match": "earmark.answers",
    "MetadataError": "service.intake.metadata",
    "MissingExtra": "service.runtime.extras",
    "Outcome": "earmark.answers",
    "Recording": "index.recording",
    "ScanReport": "earmark.answers",
    "SettingsError": "service.runtime.settings",
    "fingerprint": "earmark.interface",
}
__version__ = _version("earmark")
__all__ = [
    "Answer",
    "AudioError",
    "DatasetError",
    "EarmarkError",
    "Fingerprint",
    "JournalError",
    "Library",
    "LibraryError",
    "LibraryLocked",
    "LibraryState",
    "Match",
    "MetadataError",
    "MissingExtra",
    "Outcome",
    "Recording",
    "ScanReport",
    "SettingsError",
    "__version__",
    "fingerprint",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'earmark' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
