"""The audit log: every ingest, change, removal, compaction, calibration and key, in the order of commits.

Entry n holds the SHA-256 of entry n - 1's hash and of what n says, so that no entry can be altered, taken
out or put in without every later hash changing. The log is written in the transaction that does what it
tells of, and the database refuses to change or delete its rows. Who notes the newest hash elsewhere (`earmark
info` shows it) can prove that nothing before it was rewritten.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from index.database import Text

KINDS = ("ingest", "change", "remove", "compact", "calibration", "key", "revoke")
BEGINNING = "0" * 64  # stands for the hash before the first entry's

TABLES = sql.MetaData()
_entries = sql.Table(
    "audit",
    TABLES,
    sql.Column("number", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("at", Text, nullable=False),
    sql.Column("kind", Text, nullable=False),
    sql.Column("by", Text),
    sql.Column("recording", Text),
    sql.Column("details", Text, nullable=False),
    sql.Column("hash", Text, nullable=False),
)


@dataclass(frozen=True)
class Event:
    """Something done to a library: `kind` of KINDS, the id of the recording it concerns, if one."""

    kind: str
    recording: str | None
    details: dict[str, Any]


@dataclass(frozen=True)
class Entry(Event):
    """An event in the log: when (ISO 8601, UTC) and by which key; None: by who sits at the machine."""

    number: int
    at: str
    by: str | None
    hash: str


def append(connection: Connection, events: Iterable[Event], at: str, by: str | None) -> None:
    """Log events within the transaction that they happen in."""
    number, hash = newest(connection)
    rows = []
    for event in events:
        number += 1
        details = _json(event.details)
        hash = _chained(hash, number, at, event.kind, by, event.recording, details)
        rows.append(
            {
                "number": number,
                "at": at,
                "kind": event.kind,
                "by": by,
                "recording": event.recording,
                "details": details,
                "hash": hash,
            }
        )
    if rows:
        connection.execute(sql.insert(_entries), rows)


def newest(connection: Connection) -> tuple[int, str]:
    """Number and hash of the newest entry; 0 and BEGINNING in an empty log."""
    query = sql.select(_entries.c.number, _entries.c.hash)
    row = connection.execute(query.order_by(_entries.c.number.desc()).limit(1)).first()
    return (row.number, row.hash) if row else (0, BEGINNING)


def entries(connection: Connection) -> Iterator[Entry]:
    """The log from its beginning. Raises ValueError at the first entry that breaks the chain."""
    before = BEGINNING
    query = sql.select(_entries).order_by(_entries.c.number)
    rows = connection.execute(query.execution_options(yield_per=1000))
    for number, row in enumerate(rows, start=1):
        said = (row.number, row.at, row.kind, row.by, row.recording, row.details)
        if row.number != number or row.hash != _chained(before, *said):
            raise ValueError(f"entry {number} of the audit log was altered, taken out or put in")
        before = row.hash
        details = json.loads(row.details)
        yield Entry(row.kind, row.recording, details, number, row.at, row.by, row.hash)


def _chained(before: str, *said: object) -> str:
    return hashlib.sha256(f"{before}\n{_json(said)}".encode()).hexdigest()


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
