"""Kernels: functions that numba compiles, once for each installation where a cache can be written.

numba keeps them beside the source files or in the user's cache folder, or where NUMBA_CACHE_DIR says. Where
none of these can be written, as in a read-only installation without a home, a folder of the user's own among
the temporary files will do; without any, kernels are compiled anew in each process, which says so.

numba's cache does not notice a change of what a kernel imports: constants of other modules are arguments.
"""

import os
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba


def _can_cache() -> bool:
    """Whether numba finds a folder for its cache."""
    try:
        numba.njit(cache=True)(_can_cache)
    except RuntimeError:
        return False
    return True


def _own_folder() -> Path | None:
    """A folder among the temporary files that only this user can write to, if there can be one."""
    try:
        folder = Path(tempfile.gettempdir(), f"earmark-numba-{os.getuid()}")
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    private = found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return folder if stat.S_ISDIR(found.st_mode) and private else None


def _prepare() -> bool:
    """Whether kernels are kept from one process to the next."""
    if _can_cache():
        return True
    folder = _own_folder()
    if folder is not None:
        settings: Any = numba.config
        settings.CACHE_DIR = str(folder)
        if _can_cache():
            return True
        settings.CACHE_DIR = ""
    print(
        "earmark: no folder can be written to keep compiled kernels in, so each start takes longer; "
        "set NUMBA_CACHE_DIR to one that can",
        file=sys.stderr,
    )
    return False


_CACHED = _prepare()


def njit(*, cache: bool = True, **options: Any) -> Callable[[Callable], Callable]:
    """`numba.njit`, with a cache where there can be one."""
    return numba.njit(cache=cache and _CACHED, **options)
