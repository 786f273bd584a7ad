"""The audit log: every ingest, change, removal, compaction, calibration and key, in the order of commits.

The hash of entry n is the SHA-256 of three things: the hash of entry n - 1, the hash of entry n - b, where b
is the largest power of two that divides n, and the SHA-256 of what n says. So no entry can be altered, taken
out or put in without every later hash changing, and the second link makes a short way from any entry to any
later one: `Proof` shows in at most log2(n) (log2(n) + 1) / 2 steps that an entry is in the log of a hash,
without showing what the entries between say (binary linking: Buldas, Laud, Lipmaa and Villemson 1998,
"Time-stamping with binary linking schemes").

The log is written in the transaction that does what it tells of, and the database refuses to change or delete
its rows. Who notes the newest hash elsewhere (`earmark info` shows it) can prove that nothing before it was
rewritten.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from index.database import Text

KINDS = (
    "ingest",
    "change",
    "remove",
    "compact",
    "calibration",
    "key",
    "revoke",
    "signing-key",
)
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
    links = _hashes(connection, _linked(number))
    rows = []
    for event in events:
        number += 1
        details = _json(event.details)
        said = digest(_json((number, at, event.kind, by, event.recording, details)))
        hash = links[number] = chained(hash, links[skipped(number)], said)
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
    linked = [(0, BEGINNING)]  # the entries to which later ones may be linked, ascending
    query = sql.select(_entries).order_by(_entries.c.number)
    rows = connection.execute(query.execution_options(yield_per=1000))
    for number, row in enumerate(rows, start=1):
        before = linked[-1][1]
        while linked[-1][0] > skipped(number):
            linked.pop()
        if row.number != number or row.hash != chained(before, linked[-1][1], digest(_said(row))):
            raise ValueError(f"entry {number} of the audit log was altered, taken out or put in")
        linked.append((number, row.hash))
        yield _entry(row)


@dataclass(frozen=True)
class Step:
    """One step of a proof: entry `number`, the digest of what it says, its link to none of the steps."""

    number: int
    said: str
    other: str


@dataclass(frozen=True)
class Proof:
    """That the log of a hash has an entry.

    Attributes
    ----------
    said : what the entry says: a JSON list of number, time, kind, by whom, recording and details
    before, skipped : the two hashes that the entry is linked to
    steps : from the entry, which is not among them, to the one whose hash is proved
    """

    said: str
    before: str
    skipped: str
    steps: tuple[Step, ...]

    def entry(self, newest: int, hash: str) -> Entry:
        """The entry, if the log whose entry `newest` has this hash has it. Raises ValueError if not."""
        row = json.loads(self.said)
        number = int(row[0])
        if not 0 < number <= newest:
            raise ValueError(f"entry {number} is not among the first {newest} of the log")
        reached = here = chained(self.before, self.skipped, digest(self.said))
        at = number
        for step in self.steps:
            if at == step.number - 1:
                is_same = skipped(step.number) == at
                reached = chained(reached, reached if is_same else step.other, step.said)
            elif at == skipped(step.number):
                reached = chained(step.other, reached, step.said)
            else:
                raise ValueError(f"entry {step.number} of the audit log is not linked to {at}")
            at = step.number
        if at != newest or reached != hash:
            raise ValueError(
                f"entry {number} is not in the audit log whose entry {newest} is stated"
            )
        _, when, kind, by, recording, details = row
        return Entry(kind, recording, json.loads(details), number, when, by, here)


def prove(connection: Connection, number: int, newest: int) -> Proof:
    """The proof that entry `number` is in the log up to `newest`. Raises KeyError if it is not there."""
    way = [newest]
    while way[-1] > number:
        back = skipped(way[-1])
        way.append(back if back >= number else way[-1] - 1)
    way.reverse()
    rows = {
        row.number: row
        for row in connection.execute(sql.select(_entries).where(_entries.c.number.in_(way)))
    }
    first = rows[number]
    others = {
        after: skipped(after) if before == after - 1 else after - 1
        for before, after in pairwise(way)
    }
    hashes = _hashes(connection, {number - 1, skipped(number), *others.values()})
    steps = [Step(it, digest(_said(rows[it])), hashes[other]) for it, other in others.items()]
    return Proof(_said(first), hashes[number - 1], hashes[skipped(number)], tuple(steps))


def find(
    connection: Connection, kinds: Collection[str], recording: str | None = None
) -> list[Entry]:
    """Entries of some kinds, of one recording or of none, in order; the chain is not checked."""
    query = sql.select(_entries).where(_entries.c.kind.in_(kinds))
    query = query.where(_entries.c.recording == recording)
    return list(map(_entry, connection.execute(query.order_by(_entries.c.number))))


def hash_of(connection: Connection, number: int) -> str | None:
    """The hash of an entry; None if there is none yet."""
    query = sql.select(_entries.c.hash).where(_entries.c.number == number)
    return connection.execute(query).scalar_one_or_none()


def skipped(number: int) -> int:
    """The number of the second entry that one is linked to; 0 stands for BEGINNING."""
    return number - (number & -number)


def chained(before: str, skipped: str, said: str) -> str:
    """The hash of an entry: of the two hashes it is linked to, and the digest of what it says."""
    return digest(f"{before}\n{skipped}\n{said}")


def digest(text: str) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def _linked(number: int) -> set[int]:
    """The entries to which those after `number` may be linked."""
    linked = {number}
    while number:
        linked.add(number := skipped(number))
    return linked


def _hashes(connection: Connection, numbers: Collection[int]) -> dict[int, str]:
    query = sql.select(_entries.c.number, _entries.c.hash).where(_entries.c.number.in_(numbers))
    return {0: BEGINNING} | {row.number: row.hash for row in connection.execute(query)}


def _said(row: sql.Row) -> str:
    """What the hash of an entry is of, beside its links."""
    return _json((row.number, row.at, row.kind, row.by, row.recording, row.details))


def _entry(row: sql.Row) -> Entry:
    details = json.loads(row.details)
    return Entry(row.kind, row.recording, details, row.number, row.at, row.by, row.hash)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
