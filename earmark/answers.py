"""What the Python interface returns. Names and meanings are those of the command's JSON."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, cast

from service.presentation.formatting import clock, in_words
from service.presentation.templating import templates

T = TypeVar("T")


@dataclass(frozen=True)
class Match:
    """One stretch of the clip that is one stretch of a recording.

    Attributes
    ----------
    recording, source, title, artist, isrc, work, rightsholder, rights
        The recording's id, the name of the file it was ingested from, and its metadata.
    tier : `match` can be acted on; a person should listen to `review` first
    e_value : expected number of matches this strong by chance, per query
    score : larger is stronger; comparable only within one encoder
    query_start, query_end, reference_start, reference_end : seconds
    tempo, tempo_low, tempo_high : reference seconds per query second, with its 95 % interval
    pitch_semitones, pitch_low, pitch_high : the clip's pitch above the reference's, with its 95 % interval
    changed : whether an interval excludes no change
    likelihood_ratio : None where none applies
    tested_clips, tested_closer : unrelated clips of a test, and how many of them came as close
    same_file : whether the clip is the recording's file, byte for byte
    repeats : start and end, in seconds, of other passages of the recording with the same audio
    track : sound track of the file, where it has several
    licence : `valid`, or `ended` and the date
    shared_start, shared_end : part of the clip that other recordings contain too, in seconds
    other_version : whether the clip is probably another version of the same music
    """

    recording: str
    source: str
    title: str | None
    artist: str | None
    isrc: str | None
    work: str | None
    rightsholder: str
    rights: str
    tier: Literal["match", "review"]
    e_value: float
    score: float
    query_start: float
    query_end: float
    reference_start: float
    reference_end: float
    tempo: float
    pitch_semitones: float
    tempo_low: float | None = None
    tempo_high: float | None = None
    pitch_low: float | None = None
    pitch_high: float | None = None
    changed: bool | None = None
    likelihood_ratio: float | None = None
    tested_clips: int | None = None
    tested_closer: int | None = None
    same_file: bool = False
    repeats: Sequence[tuple[float, float]] = ()
    track: int | None = None
    licence: str | None = None
    shared_start: float | None = None
    shared_end: float | None = None
    other_version: bool = False

    @property
    def name(self) -> str:
        """Title and artist, or the file's name where there is no title."""
        name = self.title or self.source
        return f"{name} ({self.artist})" if self.artist else name


@dataclass(frozen=True)
class LibraryState:
    """The state of the library that gave an answer.

    Attributes
    ----------
    snapshot : revision of the library
    recordings : number of recordings
    seconds : duration of all recordings
    answered : share of the library that was searched; below 1 only while a node of a cluster is lost
    """

    snapshot: str
    recordings: int
    seconds: float
    answered: float = 1.0


@dataclass(frozen=True)
class Answer:
    """The matches of one clip, best first. No matches: the library has nothing of this clip.

    In a notebook an answer shows a timeline and a table.

    Attributes
    ----------
    clip : name of the clip
    sha256 : of the file; None for samples
    duration : seconds
    matches : best first; segments of one recording are separate entries
    library : the library's state
    encoder : id of the encoder
    elapsed_ms : time the query took, in milliseconds
    undecoded_seconds : seconds that the file states and that could not be decoded
    notes : what else of the clip was not searched, or is odd about it; a sentence each
    """

    clip: str
    sha256: str | None
    duration: float
    matches: tuple[Match, ...]
    library: LibraryState
    encoder: str
    elapsed_ms: float
    undecoded_seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        rows = [(match, in_words(cast(Any, match))) for match in self.matches]
        page = templates().get_template("notebook.html")
        return page.render(answer=self, duration=clock(self.duration), rows=rows)


@dataclass(frozen=True)
class Outcome:
    """What became of one file of an ingest.

    Attributes
    ----------
    file : path of the file
    status : `unchanged` means that the library had this audio already
    recording : id of the recording; None if it failed
    error : `{"type", "detail"}` of a file that failed
    duration : seconds
    notes : what else is to be said of the file, a sentence each
    """

    file: str
    status: Literal["added", "unchanged", "failed"]
    recording: str | None
    error: dict[str, str] | None
    duration: float | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScanReport:
    """The report of a scan.

    Attributes
    ----------
    folder : holds `report.html`, the tables and `summary.json`
    summary : the content of `summary.json`
    """

    folder: Path
    summary: dict[str, Any]

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read the report of an earlier scan. Raises OSError if there is none."""
        import json

        where = Path(folder)
        return cls(where, json.loads((where / "summary.json").read_text(encoding="utf-8")))

    def _repr_html_(self) -> str:
        return templates().get_template("notebook_scan.html").render(report=self)


def plain(kind: type[T], source: object, **given: Any) -> T:
    """A dataclass of the values that `source` has under the same names."""
    names = [each.name for each in fields(kind)]  # type: ignore[arg-type]
    found = {name: getattr(source, name) for name in names if hasattr(source, name)}
    return kind(**found | given)
