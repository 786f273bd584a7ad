"""The public Python interface: a library, and fingerprints.

>>> import earmark
>>> library = earmark.Library.open("earmark-library", create=True)
>>> [outcome.status for outcome in library.ingest("album", rightsholder="Me", rights="owned")]
['added']
>>> answer = library.query("suspect.mp3")
>>> answer.matches[0].source, answer.matches[0].tier
('example-work.opus', 'match')
"""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from os import PathLike, fspath
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import BinaryIO, Self

from numpy.typing import ArrayLike

from earmark.answers import Answer, LibraryState, Match, Outcome, ScanReport, plain
from earmark.samples import NAME, as_wav
from fingerprint.audio import Limits
from fingerprint.encoder import Encoder
from fingerprint.fingerprint import Fingerprint
from index.library import Library as Index
from index.merging import merge_after
from index.recording import Recording
from index.writer import Writer
from service.intake.ern import load_message
from service.intake.ingest import find_candidates, made_here, whole_only
from service.intake.ingest import ingest as ingest_files
from service.intake.metadata import MetadataError, MetadataTable
from service.query.answer import fingerprint_clip
from service.query.clips import Asked, ask
from service.runtime.extras import requires
from service.runtime.ray_library import open_searched
from service.runtime.settings import Settings, load_settings

Clip = str | PathLike[str] | BinaryIO | Fingerprint


class Library:
    """An open library. Threads may share one. A context manager.

    Settings (limits, number of jobs, the database) come from the environment and the configuration file,
    as for the `earmark` command.
    """

    def __init__(self, index: Index, settings: Settings) -> None:
        self._index = index
        self._settings = settings

    @classmethod
    def open(cls, path: str | PathLike[str] = "earmark-library", *, create: bool = False) -> Self:
        """Open a library's folder; `create` makes one where there is none.

        Raises
        ------
        LibraryError
            There is no library, it is damaged, or another encoder or version made it.
        SettingsError
            A setting in the environment or the configuration file is wrong.

        Examples
        --------
        >>> import earmark
        >>> earmark.Library.open("nowhere")
        Traceback (most recent call last):
        ...
        index.errors.LibraryError: nowhere: there is no library here; `earmark ingest` makes one
        """
        settings = load_settings(library=Path(path))
        return cls(open_searched(settings, Encoder.load(), create=create), settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._index.refresh().whole.recordings)

    def __repr__(self) -> str:
        return f"<earmark.Library {str(self.path)!r}>"

    @property
    def path(self) -> Path:
        """The library's folder."""
        return self._index.path

    def close(self) -> None:
        """Close the library's files and connections."""
        self._index.close()

    def recordings(self) -> Iterator[Recording]:
        """Every recording, in order of ingest."""
        return self._index.every_recording()

    def ingest(
        self,
        paths: str | PathLike[str] | Iterable[str | PathLike[str]],
        *,
        rightsholder: str | None = None,
        rights: str | None = None,
        metadata: str | PathLike[str] | None = None,
        licence_until: date | str | None = None,
        owner: str | None = None,
        private: bool = False,
        allow_damaged: bool = False,
    ) -> list[Outcome]:
        """Add recordings. The same audio a second time changes nothing.

        Parameters
        ----------
        paths : files, folders or archives
        rightsholder : who holds the rights
        rights : `owned`, `licensed`, `open-licence` or `public-domain`
        metadata : a CSV, or a DDEX ERN 4 message (.xml); its rows come before `rightsholder` and `rights`
        licence_until : last day (UTC) on which the recordings answer queries
        owner, private : the owner of keys whose recordings these become; private ones answer only that owner
        allow_damaged : also add files of which more is stated than can be decoded

        Returns
        -------
        list of Outcome
            One for each file. A file that cannot be read does not raise: its status is `failed`.

        Raises
        ------
        MetadataError
            The rights basis is missing, or the metadata cannot be read.
        LibraryLocked
            Another process is writing this library.
        """
        table = _table(metadata)
        given = {"rightsholder": rightsholder, "rights": rights}
        for name, value in given.items():
            if not value and (table is None or table.lacking(name)):
                raise MetadataError(
                    f"no rights basis: give {name}=, or a metadata file that states it"
                )
        if licence_until is not None:
            given["licence_until"] = _day(licence_until)
        if private and owner is None:
            raise MetadataError("private=True: give owner= too")
        some = [paths] if isinstance(paths, str | PathLike) else paths
        candidates, failures, idle = find_candidates(
            [Path(path) for path in some], {k: v for k, v in given.items() if v}, table
        )
        for row in idle:
            warnings.warn(f"row {row.number} of {metadata} names no file: {row.file}", stacklevel=2)
        limits = _limits(self._settings)
        make = made_here(self._index.encoder, limits)
        with self._index.writer() as writer:
            outcomes = [
                *failures,
                *ingest_files(
                    self._index,
                    candidates,
                    make if allow_damaged else whole_only(make),
                    lambda: _merging(self._index, writer),
                    limits=limits,
                    jobs=self._settings.jobs,
                    stop=Event(),
                    owner=owner,
                    private=private,
                ),
            ]
        return [plain(Outcome, outcome) for outcome in outcomes]

    def query(
        self,
        clip: Clip | None = None,
        *,
        samples: ArrayLike | None = None,
        rate: float | None = None,
        max_e_value: float | None = None,
        hypotheses: int | None = None,
    ) -> Answer:
        """The recordings in a clip, or in samples.

        Parameters
        ----------
        clip : path of a file of audio or video or of a fingerprint (.emk), a binary file, or a Fingerprint
        samples : [shape=(n,) or (n, channels)] instead of a clip: floats with full scale at 1, or integers
        rate : samples per second
        max_e_value : leave out matches that chance brings more often than this per query; default 0.01
        hypotheses : number of altered tempos and pitches to try, 0 for none; default 124

        Raises
        ------
        AudioError
            The clip or the samples cannot be used; `error.type` says why, as in the command's JSON.

        Examples
        --------
        >>> import earmark
        >>> library = earmark.Library.open("earmark-library")
        >>> library.query(samples=[], rate=8000)
        Traceback (most recent call last):
        ...
        fingerprint.errors.AudioError: samples: there are none
        """
        asked = Asked(
            self._index,
            self._index.encoder,
            _limits(self._settings),
            self._settings.max_e_value if max_e_value is None else max_e_value,
            self._settings.hypotheses if hypotheses is None else hypotheses,
        )
        found = ask(*_named(clip, samples, rate), asked)
        return plain(
            Answer,
            found,
            sha256=None if samples is not None else found.sha256 or None,
            matches=tuple(plain(Match, match) for match in found.matches),
            notes=tuple(found.notes),
            library=plain(LibraryState, found.library),
        )

    def scan(
        self,
        dataset: str | PathLike[str],
        report: str | PathLike[str],
        *,
        resume: bool = False,
        probe: bool = False,
        thorough: bool = False,
        evidence: bool = False,
        hypotheses: int = 0,
        owner: str | None = None,
    ) -> ScanReport:
        """Compare a whole dataset with the library. Needs the extra `datasets`.

        Files are decoded in other processes, which import the calling script again: a script calls this
        under `if __name__ == "__main__":`.

        Parameters
        ----------
        dataset : folder, archive, Parquet file, manifest or URL
        report : folder for the report; it also holds the journal
        resume : continue a scan that was stopped
        probe : look at 3 s in every 27 first, and read a file whole only if they hold something
        thorough : search as closely as `query` does
        evidence : write a page of evidence for each match
        hypotheses : number of altered tempos and pitches to try
        owner : search the recordings that this owner sees; default: all

        Raises
        ------
        DatasetError, JournalError
            The dataset cannot be read; the report's folder cannot be used.
        MissingExtra
            An ImportError: the extra `datasets` is not installed.
        """
        with requires("datasets", "Library.scan"):
            from service.scan.scanning import scan_into

        summary = scan_into(
            Path(report),
            fspath(dataset),
            self._index,
            self._settings,
            resume=resume,
            probe=probe,
            thorough=thorough,
            evidence=evidence,
            hypotheses=hypotheses,
            owner=owner,
        )
        assert summary is not None  # nobody stops it
        return ScanReport(Path(report), summary)


def fingerprint(
    clip: str | PathLike[str] | BinaryIO | None = None,
    *,
    samples: ArrayLike | None = None,
    rate: float | None = None,
) -> Fingerprint:
    """The fingerprint of a clip or of samples, to save as `.emk` or to query with.

    Parameters and errors are those of `Library.query`.

    Examples
    --------
    >>> import earmark
    >>> made = earmark.fingerprint("suspect.mp3")
    >>> made.save("suspect.emk")
    >>> earmark.Library.open("earmark-library").query("suspect.emk").matches[0].source
    'example-work.opus'
    """
    name, source = _named(clip, samples, rate)
    assert not isinstance(source, Fingerprint)
    made = fingerprint_clip(source, Path(name).name, Encoder.load(), _limits(load_settings()))
    return made if samples is None else replace(made, sha256="")


def _named(
    clip: Clip | None, samples: ArrayLike | None, rate: float | None
) -> tuple[str, Path | BinaryIO | Fingerprint]:
    """What a clip is called, and where its bytes are. Raises AudioError for bad samples."""
    if (clip is None) == (samples is None):
        raise TypeError("give a clip, or samples= and rate=")
    if samples is not None:
        return NAME, as_wav(samples, rate)
    if isinstance(clip, Fingerprint):
        return clip.source, clip
    if isinstance(clip, str | PathLike):
        return str(clip), Path(clip)
    assert clip is not None
    return str(getattr(clip, "name", "file")), clip


@contextmanager
def _merging(index: Index, writer: Writer) -> Iterator[Writer]:
    """The writer of an ingest; small segments are merged after each batch."""
    yield writer
    merge_after(index, writer)


def _limits(settings: Settings) -> Limits:
    return Limits(
        max_seconds=settings.max_duration.total_seconds(), max_bytes=int(settings.max_size)
    )


def _table(metadata: str | PathLike[str] | None) -> MetadataTable | None:
    if metadata is None:
        return None
    path = Path(metadata)
    return load_message(path) if path.suffix.lower() == ".xml" else MetadataTable.load(path)


def _day(value: date | str) -> str:
    try:
        return date.fromisoformat(str(value)).isoformat()
    except ValueError:
        raise MetadataError(f"licence_until={value!r}: give a date like 2027-12-31") from None
