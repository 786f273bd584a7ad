"""How many cores there are to work on."""

import os

_most: int | None = None


def available_cores() -> int:
    """Number of cores that this process may run on, or was told to work on."""
    if _most is not None:
        return _most
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def work_on(cores: int) -> None:
    """Have this process use so many cores from now on: the others have work of their own."""
    global _most
    _most = cores
