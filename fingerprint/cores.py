"""How many cores there are to work on, and threads that do."""

import functools
import os
from concurrent.futures import ThreadPoolExecutor

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


@functools.cache
def pool() -> ThreadPoolExecutor:
    """Threads for what can be done side by side: kernels and BLAS let go of the interpreter."""
    return ThreadPoolExecutor(available_cores(), "side by side")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.cache_clear)  # threads do not outlive a fork
