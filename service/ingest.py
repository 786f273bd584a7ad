"""Files and folders into a library: find them, fingerprint them side by side, commit in batches.

An outcome is told only once what it says is committed. A file whose bytes are already in the
library is not decoded.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Literal, TypedDict

from fingerprint.audio import Limits
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import REFERENCE_EVERY, Fingerprint, fingerprint
from index.library import Library
from service.metadata import MetadataError, MetadataTable, Row, describe
from service.wording import as_text

# What a folder is searched for; a file that is named itself is tried whatever it is called.
AUDIO_EXTENSIONS = frozenset(
    f".{name}"
    for names in (
        "aac ac3 aif aifc aiff alac amr ape au caf dts flac m4a m4b mka mp2 mp3 oga ogg opus spx",
        "tta wav wma wv 3gp avi flv m4v mkv mov mp4 mpeg mpg mts ogv ts webm wmv",
    )
    for name in names.split()
)

# A commit writes and syncs a segment: often enough to lose little work to a power cut, seldom
# enough to leave few small segments.
BATCH_FILES = 200
BATCH_SECONDS = 60.0

# Seconds by which a file may differ from what its metadata says, or 5 % if that is more: silence at its
# ends, and no more.
OTHER_LENGTH = 5.0


class ErrorObject(TypedDict):
    """The contract's error of one input."""

    type: str
    detail: str


@dataclass(frozen=True)
class Outcome:
    """What became of one file; its fields are the keys of `earmark ingest --json`."""

    file: str
    status: Literal["added", "unchanged", "failed"]
    recording: str | None = None
    error: ErrorObject | None = None
    duration: float | None = None


@dataclass(frozen=True)
class Candidate:
    """A file to ingest, its size in bytes, what is known about it, how long it is said to last (s)."""

    path: Path
    size: int = 0
    fields: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = None


def failed(path: Path | str, kind: str, detail: str) -> Outcome:
    """The outcome of a file that could not be ingested."""
    return Outcome(as_text(path), "failed", error={"type": kind, "detail": as_text(detail)})


def find_candidates(
    paths: Sequence[Path],
    given: Mapping[str, str],
    table: MetadataTable | None = None,
) -> tuple[list[Candidate], list[Outcome], list[Row]]:
    """The audio files at `paths`, each once, with their fields; what failed; rows of no file.

    `given` are the fields that hold for all files unless a row of `table` says otherwise.
    """
    failures: list[Outcome] = []
    files: dict[Path, Path] = {}
    for path in paths:
        for file in _files_at(path, failures):
            files.setdefault(file.resolve(), file)
    found = list(files.values())
    rows: dict[Path, Row] = {}
    unused: list[Row] = []
    if table is not None:
        rows, unused = table.assign(found, [path for path in paths if path.is_dir()])
    candidates = []
    for file in found:
        row = rows.get(file)
        fields = {**given, **(row.fields if row else {})}
        problem = row.problem if row else None
        try:
            size = file.stat().st_size
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
            candidates.append(Candidate(file, size, fields, row.seconds if row else None))
    failures += [
        failed(table.path, "metadata", f"{table.where(row)}: {row.problem}")
        for row in unused
        if table is not None and row.problem
    ]
    return candidates, failures, [row for row in unused if not row.problem]


def _files_at(path: Path, failures: list[Outcome]) -> Iterator[Path]:
    """The file itself, or the audio files below a folder in order of name; hidden ones are left."""
    if not path.is_dir():
        if path.exists():
            yield path
        else:
            failures.append(failed(path, "not-found", f"{path}: no such file or folder"))
        return
    count = 0

    def unreadable(error: OSError) -> None:
        failures.append(failed(error.filename, "not-found", f"{error.filename}: {error.strerror}"))

    before = len(failures)
    for folder, folders, names in os.walk(path, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in AUDIO_EXTENSIONS:
                count += 1
                yield Path(folder, name)
    if not count and len(failures) == before:
        failures.append(failed(path, "not-found", f"{path}: no audio file in this folder"))


def ingest(
    library: Library,
    encoder: Encoder,
    candidates: Sequence[Candidate],
    *,
    limits: Limits,
    jobs: int,
    stop: Event,
    on_read: Callable[[Candidate], None] = lambda candidate: None,
) -> Iterator[Outcome]:
    """Add the candidates to the library; yields each one's outcome, batch by committed batch.

    When `stop` is set, the files in hand are finished and committed and no other is begun.
    `on_read` is called when a candidate has been dealt with but not yet committed.
    Raises LibraryError if another process is writing.
    """
    with library.writer() as writer, ThreadPoolExecutor(jobs) as pool:
        waiting = iter(candidates)
        running: dict[Future[Fingerprint | Outcome], Candidate] = {}
        batch: list[Outcome] = []
        committed = time.monotonic()
        while True:
            while len(running) < 2 * jobs and not stop.is_set():
                candidate = next(waiting, None)
                if candidate is None:
                    break
                running[pool.submit(_prepare, candidate, library, encoder, limits)] = candidate
            if not running:
                break
            if stop.is_set():
                running = {future: it for future, it in running.items() if not future.cancel()}
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in [each for each in running if each in done]:
                candidate = running.pop(future)
                result = future.result()
                if isinstance(result, Fingerprint):
                    try:
                        _require_length(candidate, result)
                        metadata = describe(
                            as_text(candidate.path.name), result.tags, candidate.fields
                        )
                        recording, added = writer.add(result, metadata)
                        result = Outcome(
                            as_text(candidate.path),
                            "added" if added else "unchanged",
                            recording.id,
                            duration=recording.duration,
                        )
                    except ValueError as error:
                        result = failed(candidate.path, "metadata", str(error))
                batch.append(result)
                on_read(candidate)
            if len(batch) >= BATCH_FILES or time.monotonic() - committed > BATCH_SECONDS:
                writer.commit()
                yield from batch
                batch = []
                committed = time.monotonic()
        writer.commit()
        yield from batch


def _require_length(candidate: Candidate, made: Fingerprint) -> None:
    """Raises ValueError if a file cannot be what its metadata is about: it lasts too long or short."""
    said = candidate.seconds
    if said is not None and abs(made.duration - said) > max(OTHER_LENGTH, 0.05 * said):
        raise ValueError(
            f"{candidate.path}: lasts {made.duration:.0f} s where its metadata says {said:.0f} s: "
            "is it another recording's file?"
        )


def _prepare(
    candidate: Candidate, library: Library, encoder: Encoder, limits: Limits
) -> Fingerprint | Outcome:
    """The fingerprint of a file, or its outcome where it is already there or cannot be read."""
    path = candidate.path
    try:
        with path.open("rb") as stream:
            known = library.find(hashlib.file_digest(stream, "sha256").hexdigest())
        if known is not None:
            return Outcome(as_text(path), "unchanged", known.id, duration=known.duration)
        return fingerprint(path, encoder, REFERENCE_EVERY, limits=limits, name=as_text(path.name))
    except AudioError as error:
        return failed(path, error.type, error.detail)
    except OSError as error:
        return failed(path, "not-found", f"{path}: {error.strerror}")
