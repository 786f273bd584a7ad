"""A whole scan, from a dataset's name to its report: what `earmark scan` and the Python interface do."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from threading import Event
from typing import Any

from filelock import FileLock, Timeout

from fingerprint.audio import Limits
from fingerprint.errors import reason_of
from index.library import Library
from service.datasets.location import place
from service.datasets.member import spelled
from service.evidence.bundle import sealer
from service.runtime.ray_library import jobs_of, join
from service.runtime.settings import Settings
from service.scan.journal import GO_ON, LOCK, Journal, JournalError, JournalUnwritable
from service.scan.report import write_report
from service.scan.runner import OnDone, scan
from service.scan.worker import EVIDENCE, Task


def scan_into(
    report: Path,
    dataset: str,
    library: Library,
    settings: Settings,
    *,
    resume: bool = False,
    probe: bool = False,
    thorough: bool = False,
    evidence: bool = False,
    hypotheses: int = 0,
    owner: str | None = None,
    operator: str | None = None,
    warn: Callable[[str], None] = warnings.warn,
    stop: Event | None = None,
    on_begin: Callable[[int], None] = lambda found: None,
    on_done: OnDone = lambda member, heard: None,
) -> dict[str, Any] | None:
    """Scan a dataset and write its report into a folder; returns the summary.

    operator : who answers for the scan, for the report
    warn : gets a sentence on evidence that could not be time-stamped
    stop : once it is set, the files in hand are finished and None is returned; `resume` continues
    on_begin : gets the number of files in which an earlier run found something
    on_done : see `service.scan.runner.scan`

    Raises DatasetError, JournalError for a folder that cannot be used, JournalUnwritable, ClusterError.
    """
    where = place(dataset)
    if settings.ray is not None:
        join(settings.ray)
        report = report.absolute()
        where = where.absolute() if isinstance(where, Path) else where
    same_scan = {
        "dataset": spelled(str(where.resolve() if isinstance(where, Path) else where)),
        "library": library.id(),
        "encoder": library.encoder.id,
        "probe": "yes" if probe else "no",
        "thorough": "yes" if thorough else "no",
        "hypotheses": str(hypotheses),
        "max_e_value": repr(settings.max_e_value),
        "wrong_per_million": f"{settings.wrong_per_million:g}",
        "owner": owner or "",
    }
    seal = sealer(library, settings.timestamp_url, warn) if evidence else None
    snapshot = library.refresh(owner)
    begun = {
        "snapshot": str(snapshot.revision),
        "recordings": str(len(snapshot.whole.recordings)),
        "library_seconds": str(snapshot.whole.seconds),
        "begun_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": version("earmark"),
        "operator": operator or "",
    }
    journal = Journal.open(report, same_scan, begun, resume=resume)
    task = Task(
        library=settings.library.absolute(),
        database=settings.database,
        limits=Limits(
            max_seconds=settings.max_duration.total_seconds(), max_bytes=int(settings.max_size)
        ),
        max_e_value=settings.max_e_value,
        gate=settings.gate,
        hypotheses=hypotheses,
        probe=probe,
        thorough=thorough,
        evidence=report / EVIDENCE if evidence else None,
        owner=owner,
    )
    try:
        with _alone(report):
            on_begin(journal.found())
            complete = scan(
                where,
                journal,
                task,
                jobs=jobs_of(settings),
                stop=stop or Event(),
                on_done=on_done,
                seal=seal,
                cluster=settings.ray is not None,
            )
            return _report(journal, report, library) if complete else None
    finally:
        journal.close()


@contextmanager
def _alone(report: Path) -> Iterator[None]:
    """Keep other scans from a report's folder. Raises JournalError if one is at work there."""
    lock = FileLock(report / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise JournalError(f"{report}: another scan is at work in this folder") from None
    except OSError as error:
        raise JournalError(f"{report}: cannot be written ({error.strerror})") from error
    try:
        yield
    finally:
        lock.release()


def _report(journal: Journal, folder: Path, library: Library) -> dict[str, Any]:
    """Write the report of a journal; returns the summary. Raises JournalUnwritable."""
    try:
        return write_report(journal, folder, library)
    except OSError as error:
        what = f"{folder}: the report cannot be written ({reason_of(error)})"
        raise JournalUnwritable(f"{what}; {GO_ON}") from error
