"""Whether a library is whole: all that can be checked, and how to mend what is not as it should be."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from index import audit_log as audit
from index import catalogue, segment
from index.catalogue import SegmentRow
from index.errors import LibraryError
from index.library import Library

RESTORE = "restore the library from a backup"


@dataclass(frozen=True)
class Damage:
    """Something that is not as it should be, how to mend it, the ids of the recordings it affects."""

    what: str
    mend: str
    recordings: list[str] = field(default_factory=list)


def verify(library: Library) -> Iterator[Damage]:
    """Check everything: the catalogue, the audit log, every file, every recording's codes.

    A library that others read and write meanwhile is checked as of one commit.
    """
    with library.reading() as connection:
        for found in library.database.damages(connection):
            yield Damage(f"the catalogue is damaged: {found}", RESTORE)
        logged: dict[str, str] = {}
        try:
            for entry in audit.entries(connection):
                if entry.kind == "ingest":
                    logged[str(entry.recording)] = entry.details["codes_sha256"]
                elif entry.kind == "remove":
                    logged.pop(str(entry.recording), None)
        except (ValueError, KeyError) as error:
            yield Damage(str(error), f"find out who did it; {RESTORE}")
        else:
            held = catalogue.sounds(connection)
            differing = sorted(dict(held.items() ^ logged.items()))
            if differing:
                yield Damage(
                    f"{len(differing)} recordings are not what the audit log says, "
                    f"the first is {differing[0]!r}",
                    f"find out who did it; {RESTORE}",
                    differing,
                )
        for row in catalogue.segments(connection):
            yield from _segment(library, row, list(catalogue.codes_hashes(connection, row.number)))


def orphans(library: Library) -> list[Path]:
    """Files that no commit names: harmless, and deleted by the next writer."""
    with library.reading() as connection:
        rows = catalogue.segments(connection)
    return sorted(
        set((library.path / "segments").iterdir())
        - {file for it in rows for file in library.segment_files(it.number)}
    )


def _segment(
    library: Library, row: SegmentRow, recordings: list[tuple[str, str, int, int]]
) -> Iterator[Damage]:
    """What is wrong with one segment and the recordings in it."""
    path = library.segment_path(row.number)
    ids = [id for id, *_ in recordings]
    mend = (
        f"restore {' and '.join(segment.names(row.number))} from a backup, "
        f"or `earmark remove` its {len(ids)} recordings and ingest them again"
    )
    if not ids:
        mend = "`earmark compact` drops it: none of its recordings are left"
    try:
        read = library.segment(row)
        for file, sha256 in zip((segment.lists_of(path), path), row[2:], strict=True):
            if segment.checksum(file) != sha256:
                yield Damage(f"{file}: its checksum is wrong, so it was altered", mend, ids)
                return
        codes = read.run(0, len(read))
    except (LibraryError, OSError) as error:
        with library.reading() as newer:
            if row in catalogue.segments(newer):  # else it was compacted since
                yield Damage(str(error).partition(";")[0], mend, ids)
        return
    for id, sound, first, count in recordings:
        if first + count > len(codes) or codes[first : first + count].sha256() != sound:
            yield Damage(
                f"recording {id!r}: its codes in {path.name} are not those that were ingested",
                "`earmark remove` it and ingest it again",
                [id],
            )
