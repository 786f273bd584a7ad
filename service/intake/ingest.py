"""Files, folders and archives into a library: find them, fingerprint them side by side, commit in batches.

An outcome is told only once what it says is committed. A file whose bytes are already in the
library is not decoded.
"""

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path, PurePosixPath
from threading import Event
from typing import Literal, TypedDict

from fingerprint.audio import Limits
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import REFERENCE_EVERY, Fingerprint, fingerprint
from index.library import Library
from index.recording import Recording
from index.writer import Writer
from service.datasets.extensions import is_archive, is_sound
from service.datasets.folders import files_below
from service.datasets.location import DatasetError
from service.datasets.source import OnDisk, Source, identify
from service.datasets.walk import Read, members, read_container
from service.intake.metadata import MetadataError, MetadataTable, Row, changes, describe
from service.presentation.formatting import as_text, printable

# A commit writes and syncs a segment: often enough to lose little work to a power cut, seldom
# enough to leave few small segments.
BATCH_FILES = 200
BATCH_SECONDS = 60.0

# Seconds by which a file may differ from what its metadata says, or 5 % if that is more: silence at its
# ends, and no more.
OTHER_LENGTH = 5.0


# Makes the fingerprint of a sound of that name. Raises AudioError.
Make = Callable[[Source, str], Fingerprint]


class ErrorObject(TypedDict):
    """The contract's error of one input."""

    type: str
    detail: str


@dataclass(frozen=True)
class Outcome:
    """What became of one file; its fields are the keys of `earmark ingest --json`."""

    file: str
    status: Literal["added", "changed", "unchanged", "failed"]
    recording: str | None = None
    error: ErrorObject | None = None
    duration: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """A sound to ingest, its size in bytes, what is known about it, how long it is said to last (s).

    Of one in an archive the path is as if the archive were a folder, and `member` its number there.
    `name` is the path below the folder or archive that was given, `row` the fields that the metadata's row
    has, `written` that row's path, if it was matched by its end alone.
    """

    path: Path
    size: int = 0
    fields: Mapping[str, str] = field(default_factory=dict)
    row: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    written: str = ""
    seconds: float | None = None
    archive: Path | None = None
    member: int = 0


def failed(path: Path | str, kind: str, detail: str, seconds: float = 0.0) -> Outcome:
    """The outcome of a file that could not be ingested, of which that many seconds were decoded."""
    error: ErrorObject = {"type": kind, "detail": as_text(detail)}
    return Outcome(as_text(path), "failed", error=error, duration=seconds or None)


def find_candidates(
    paths: Sequence[Path],
    given: Mapping[str, str],
    table: MetadataTable | None = None,
    read: Read = read_container,
) -> tuple[list[Candidate], list[Outcome], list[Row]]:
    """The audio files at `paths`, each once, with their fields; what failed; rows of no file.

    `given` are the fields that hold for all files unless a row of `table` says otherwise;
    `read` reads archives.
    """
    failures: list[Outcome] = []
    files: dict[object, Candidate] = {}
    for path in paths:
        for it in _sounds_at(path, failures, read):
            files.setdefault(
                (it.archive, it.member) if it.archive else os.path.realpath(it.path), it
            )
    found = list(files.values())
    rows: dict[Path, Row] = {}
    unused: list[Row] = []
    if table is not None:
        folders = [path for path in paths if os.path.isdir(path) or is_archive(path.name)]
        rows, unused = table.assign([it.path for it in found], folders)
    candidates = []
    for it in found:
        row = rows.get(it.path)
        fields = {**given, **(row.fields if row else {})}
        problem = row.problem if row else None
        file = it.path
        try:
            size = it.size if it.archive else file.stat().st_size
            if not problem:
                describe(as_text(file.name), {}, fields)
        except OSError as error:
            failures.append(failed(file, "not-found", f"{file}: {error.strerror}"))
            continue
        except MetadataError as error:
            problem = str(error)
        if problem:
            where = f"{table.where(row)}: " if table and row else ""
            failures.append(failed(file, "metadata", where + problem))
        else:
            seconds = row.seconds if row else None
            said = row.fields if row else {}
            written = row.file if row and row.by_name else ""
            it = replace(it, size=size, fields=fields, row=said, seconds=seconds, written=written)
            candidates.append(it)
    failures += [
        failed(table.path, "metadata", f"{table.where(row)}: {row.problem}")
        for row in unused
        if table is not None and row.problem
    ]
    return candidates, failures, [row for row in unused if not row.problem]


def _sounds_at(path: Path, failures: list[Outcome], read: Read) -> Iterator[Candidate]:
    """What there is to ingest at a path: a file, the sounds of a folder or those of an archive."""
    if not (is_archive(path.name) and os.path.isfile(path)):
        for file in _files_at(path, failures):
            yield Candidate(file, name=file.name if file == path else _below(file, path))
        return
    count = 0
    try:
        for member in members(path, read):
            count += 1
            file = _inside(path, member.member) if member.member else path
            if member.problem is not None:
                failures.append(failed(file, member.problem.type, member.problem.detail))
            else:
                name = _below(file, path)
                yield Candidate(file, member.weight, name=name, archive=path, member=member.index)
    except DatasetError as error:
        failures.append(failed(path, "undecodable", str(error)))
        return
    if not count:
        failures.append(failed(path, "not-found", f"{path}: no audio file in this archive"))


def _below(file: Path, folder: Path) -> str:
    """A file's path below a folder, with slashes."""
    return file.relative_to(folder).as_posix()


def _inside(archive: Path, name: str) -> Path:
    """The path of a member, whose name leads nowhere else."""
    parts = PurePosixPath(printable(name)).parts
    return archive.joinpath(*(part for part in parts if part not in ("/", "//", "..")))


def _files_at(path: Path, failures: list[Outcome]) -> Iterator[Path]:
    """The file itself, or the audio files below a folder in order of name; hidden ones are left."""
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        failures.append(failed(path, "not-found", f"{path}: {error.strerror}"))
        return
    if not is_folder:
        yield path
        return
    count = 0

    def unreadable(error: OSError) -> None:
        failures.append(failed(error.filename, "not-found", f"{error.filename}: {error.strerror}"))

    before = len(failures)
    for file in files_below(path, unreadable):
        if is_sound(file.name):
            count += 1
            yield file
    if not count and len(failures) == before:
        failures.append(failed(path, "not-found", f"{path}: no audio file in this folder"))


def ingest(
    library: Library,
    candidates: Sequence[Candidate],
    make: Make,
    writing: Callable[[], AbstractContextManager[Writer]],
    *,
    limits: Limits,
    jobs: int,
    stop: Event,
    owner: str | None = None,
    private: bool = False,
    read: Read = read_container,
    on_read: Callable[[Candidate], None] = lambda candidate: None,
    on_nameless: Callable[[Candidate], None] = lambda candidate: None,
) -> Iterator[Outcome]:
    """Add the candidates to the library; yields each one's outcome, batch by committed batch.

    A recording that is there already gets what its row says of it, if it is the owner's.

    When `stop` is set, the files in hand are finished and committed and no other is begun.

    make : makes a sound's fingerprint, `jobs` of them at a time
    writing : gives the library's writer, for each batch
    owner, private : whose the recordings become, and whether they answer nobody else
    read : reads archives, as `members` is given it
    on_read : told of a candidate that has been dealt with but is not yet committed
    on_nameless : told of one of which neither the metadata nor its tags say a title or an artist
    """
    written: set[str] = set()  # ids of what this ingest added or changed

    def prepare(candidate: Candidate, source: Source) -> Fingerprint | Recording | Outcome:
        """A sound's fingerprint, the recording to change, or its outcome where there is nothing to do."""
        path = candidate.path
        try:
            sha256, _ = identify(source, as_text(path), limits)
            known = library.find(sha256, owner)
            if known is not None and candidate.row and owner in (None, known.owner):
                return known
            if known is not None:
                return Outcome(as_text(path), "unchanged", known.id, duration=known.duration)
            return make(source, as_text(path))
        except AudioError as error:
            return failed(path, error.type, error.detail, error.seconds)

    def add(writer: Writer, candidate: Candidate, made: Fingerprint) -> Outcome:
        try:
            _require_length(candidate, made)
            name = as_text(candidate.name or candidate.path.name)
            said = describe(name, made.tags, candidate.fields)
            recording, added = writer.add(made, replace(said, owner=owner, private=private))
            written.add(recording.id)
            if added and not (said.title or said.artist):
                on_nameless(candidate)
        except ValueError as error:
            return failed(candidate.path, "metadata", f"{candidate.path}: {error}")
        status: Literal["added", "unchanged"] = "added" if added else "unchanged"
        return Outcome(
            as_text(candidate.path),
            status,
            recording.id,
            duration=recording.duration,
            notes=tuple(filter(None, (made.damage, *made.notes))),
        )

    def update(writer: Writer, candidate: Candidate, known: Recording) -> Outcome:
        status: Literal["changed", "unchanged"] = "unchanged"
        try:
            if (
                known.id not in written
                and writer.change(known.id, changes(candidate.row, known))[1]
            ):
                status = "changed"
            written.add(known.id)
        except ValueError as error:
            return failed(candidate.path, "metadata", f"{candidate.path}: {error}")
        return Outcome(as_text(candidate.path), status, known.id, duration=known.duration)

    def commit(batch: list[tuple[Candidate, Fingerprint | Recording | Outcome]]) -> list[Outcome]:
        if all(isinstance(made, Outcome) for _, made in batch):
            return [made for _, made in batch if isinstance(made, Outcome)]
        with writing() as writer:
            outcomes = [
                made
                if isinstance(made, Outcome)
                else update(writer, candidate, made)
                if isinstance(made, Recording)
                else add(writer, candidate, made)
                for candidate, made in batch
            ]
            writer.commit()
        return outcomes

    with ThreadPoolExecutor(jobs) as pool:
        waiting = _opened(candidates, read)
        running: dict[Future[Fingerprint | Recording | Outcome], Candidate] = {}
        batch: list[tuple[Candidate, Fingerprint | Recording | Outcome]] = []
        committed = time.monotonic()
        while True:
            while len(running) < 2 * jobs and not stop.is_set():
                candidate, source = next(waiting, (None, None))
                if candidate is None or source is None:
                    break
                running[pool.submit(prepare, candidate, source)] = candidate
            if not running:
                break
            if stop.is_set():
                running = {future: it for future, it in running.items() if not future.cancel()}
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in [each for each in running if each in done]:
                candidate = running.pop(future)
                batch.append((candidate, future.result()))
                on_read(candidate)
            if len(batch) >= BATCH_FILES or time.monotonic() - committed > BATCH_SECONDS:
                yield from commit(batch)
                batch = []
                committed = time.monotonic()
        yield from commit(batch)


def made_here(encoder: Encoder, limits: Limits) -> Make:
    """Makes fingerprints in this process."""

    def make(source: Source, name: str) -> Fingerprint:
        with source.open() as file:
            return fingerprint(file, encoder, REFERENCE_EVERY, limits=limits, name=name)

    return make


def whole_only(make: Make) -> Make:
    """Makes fingerprints, of sounds of which all can be decoded that they state."""

    def make_whole(source: Source, name: str) -> Fingerprint:
        made = make(source, name)
        require_whole(made, "--allow-damaged")
        return made

    return make_whole


def require_whole(made: Fingerprint, option: str) -> None:
    """Raises AudioError for a sound that is damaged, which names the option to take it all the same."""
    if made.damage is not None:
        detail = f"{made.source}: is damaged: {made.damage}; copy it again, or take what is there"
        raise AudioError("undecodable", f"{detail} with {option}", made.duration)


def _opened(candidates: Iterable[Candidate], read: Read) -> Iterator[tuple[Candidate, Source]]:
    """Candidates with where their bytes are; those in an archive are read in passing."""
    for archive, some in groupby(candidates, key=lambda it: it.archive):
        if archive is None:
            yield from ((it, OnDisk(it.path)) for it in some)
            continue
        wanted = {it.member: it for it in some}
        for member in members(archive, read):
            if member.source is not None and member.index in wanted:
                yield wanted[member.index], member.source


def _require_length(candidate: Candidate, made: Fingerprint) -> None:
    """Raises ValueError if a file cannot be what its metadata is about: it lasts too long or short."""
    said = candidate.seconds
    if said is not None and abs(made.duration - said) > max(OTHER_LENGTH, 0.05 * said):
        raise ValueError(
            f"lasts {made.duration:.0f} s where its metadata says {said:.0f} s: "
            "is it another recording's file?"
        )
