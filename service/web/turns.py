"""Turns: so many pieces of work at a time, and keys alternate, whatever each of them has waiting."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

from service.runtime.errors import Busy


class Turns:
    """Turns of one event loop."""

    def __init__(self, count: int, waiting: int) -> None:
        """count : turns at a time; waiting : pieces of work that may wait for one"""
        self._free = count
        self._most = count + waiting
        self._waiting: dict[
            Hashable, deque[asyncio.Future[None]]
        ] = {}  # by key, the next one first
        self.taken = 0  # pieces of work that have a turn or wait for one

    def require_room(self) -> None:
        """Raises Busy where as many wait as may."""
        if self.taken >= self._most:
            raise Busy("more is being asked than can be answered now")

    @asynccontextmanager
    async def turn(self, key: Hashable) -> AsyncIterator[None]:
        """A turn, once it is this key's. Raises Busy at once where too many wait."""
        self.require_room()
        self.taken += 1
        try:
            await self._begin(key)
            try:
                yield
            finally:
                self._end()
        finally:
            self.taken -= 1

    async def _begin(self, key: Hashable) -> None:
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._end()  # it came when nobody wanted it any more
            raise

    def _end(self) -> None:
        """Hand a turn on, to the key that has waited longest for one."""
        while self._waiting:
            key = next(iter(self._waiting))
            turns = self._waiting.pop(key)
            turn = turns.popleft()
            if turns:
                self._waiting[key] = turns
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
