"""How much each key may ask for: requests a minute, bytes and seconds of audio a day (0: no limit)."""

import math
import time

from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from service.runtime.errors import TooMuch
from service.runtime.settings import Settings


class Quotas:
    """The quotas of one server, counted in memory; threads may share it."""

    def __init__(self, settings: Settings) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._requests = _item(RateLimitItemPerMinute, settings.requests_per_minute)
        self._bytes = _item(RateLimitItemPerDay, int(settings.bytes_per_day))
        self._seconds = _item(
            RateLimitItemPerDay, math.ceil(settings.audio_per_day.total_seconds())
        )

    def request(self, key: str | None) -> None:
        """Count a request. Raises TooMuch."""
        self._count(key, self._requests, 1, "requests a minute")

    def body(self, key: str | None, size: int) -> None:
        """Count bytes of a body before they are read. Raises TooMuch."""
        self._count(key, self._bytes, size, "bytes a day")

    def audio(self, key: str | None, seconds: float) -> None:
        """Count seconds of audio that were decoded: what comes after them is refused."""
        if key is not None and self._seconds is not None and seconds:
            self._limiter.hit(self._seconds, "seconds of audio a day", key, cost=math.ceil(seconds))

    def require_audio(self, key: str | None) -> None:
        """Raises TooMuch where the day's seconds of audio are used up."""
        self._require(key, self._seconds, 1, "seconds of audio a day")

    def _count(self, key: str | None, item: RateLimitItem | None, cost: int, what: str) -> None:
        self._require(key, item, cost, what)
        if key is not None and item is not None and cost:
            self._limiter.hit(item, what, key, cost=cost)

    def _require(self, key: str | None, item: RateLimitItem | None, cost: int, what: str) -> None:
        if key is None or item is None or not cost:
            return
        if not self._limiter.test(item, what, key, cost=cost):
            reset = self._limiter.get_window_stats(item, what, key).reset_time
            raise TooMuch(
                f"this key has had its {item.amount} {what}",
                max(1, math.ceil(reset - time.time())),
            )


def _item(kind: type[RateLimitItem], amount: int) -> RateLimitItem | None:
    return kind(amount) if amount else None
