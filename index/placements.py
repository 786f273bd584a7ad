"""The placements that a reader keeps, of which it reads again, after a commit, those that changed.

They are kept by segment. A segment never gains a recording; which of its recordings are found changes with a
removal or a change of rights, which the catalogue notes with it; a compaction puts new segments in place of
old ones. So a commit costs a reader what it touched, whatever the library's size.
"""

import numpy as np
from sqlalchemy.engine import Connection

from index import catalogue
from index.catalogue import Placements


class Places:
    """Placements of the recordings that an owner sees; None: of all. Used by one thread at a time."""

    def __init__(self, owner: str | None = None) -> None:
        self._owner = owner
        self._day = ""
        self._kept: dict[int, tuple[int, Placements]] = {}  # by segment; as of which change

    def at(self, connection: Connection, day: str) -> Placements:
        """Those of the state that a transaction sees, on a day: as `catalogue.placements`."""
        changes = catalogue.changes(connection)
        kept = self._kept if self._day == day else {}
        stale = [
            number
            for number, change in changes.items()
            if number not in kept or kept[number][0] != change
        ]
        # where most are to be read, all are read at once
        some = stale if 2 * len(stale) < len(changes) else None
        read = catalogue.placements(connection, day, self._owner, some)
        firsts = np.searchsorted(read.segment, stale)
        ends = np.searchsorted(read.segment, stale, side="right")
        fresh = {
            number: (changes[number], read.take(slice(first, end)))
            for number, first, end in zip(stale, firsts, ends, strict=True)
        }
        self._day = day
        self._kept = {number: fresh.get(number) or kept[number] for number in changes}
        return Placements.joined([read.take(slice(0)), *(part for _, part in self._kept.values())])
