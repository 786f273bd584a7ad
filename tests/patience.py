"""How long the tests wait for what must come about, and how."""

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE = 600.0  # s; nothing takes that long, on a busy machine either, unless something is wrong
_PAUSE = 0.02  # s between two looks, in which what is waited for has the core

Thing = TypeVar("Thing")


def until(look: Callable[[], Thing]) -> Thing:
    """What `look` returns, once that is something."""
    end = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(_PAUSE)
    return found
