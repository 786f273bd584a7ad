"""Kernels: functions that numba compiles, once for each installation where a cache can be written.

numba keeps them beside the source files or in the user's cache folder, or where NUMBA_CACHE_DIR says. Where
none of these can be written, as in a read-only installation without a home, a folder of the user's own among
the temporary files will do; without any, kernels are compiled anew in each process, which says so.

numba's cache does not notice a change of what a kernel imports: constants of other modules are arguments.

Numba takes 0.3 s to import, and `earmark list` calls no kernel, so numba is imported when a kernel is first
called. That call makes all kernels numba's own, in every module that has them by name, since they call each
other.
"""

import os
import stat
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from threading import RLock
from typing import Any

_waiting: "list[_Waiting]" = []
_giving = RLock()  # threads may call their first kernels at the same time


class _Waiting:
    """A kernel that has not been given to numba yet."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self.py_func = function
        self.__name__, self.__doc__ = function.__name__, function.__doc__
        self._options = options
        self._kernel: Any = None
        _waiting.append(self)

    def __call__(self, *arguments: Any) -> Any:
        if self._kernel is None:
            _give_all_to_numba()
        return self._kernel(*arguments)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self._kernel is None:
            _give_all_to_numba()
        return getattr(self._kernel, name)

    def give_to_numba(self) -> Any:
        """The kernel as numba has it."""
        if self._kernel is None:
            self._kernel = _compiled(self.py_func, self._options)
        return self._kernel


def njit(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """As `numba.njit`, with a cache where there can be one: of a function, or a decorator of one."""
    if function is None:
        return lambda it: njit(it, **options)
    if "numba" in sys.modules:
        return _compiled(function, options)
    return _Waiting(function, options)


def _compiled(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    import numba

    cached = options.get("cache", True) and _prepare()
    return numba.njit(**options | {"cache": cached})(function)


def _give_all_to_numba() -> None:
    with _giving:
        for kernel in _waiting:
            kernel.give_to_numba()
        for module in list(sys.modules.values()):
            names = getattr(module, "__dict__", {})
            for name, value in list(names.items()):
                if type(value) is _Waiting:
                    names[name] = value.give_to_numba()


def _can_cache() -> bool:
    """Whether numba finds a folder for its cache."""
    import numba

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


@cache
def _prepare() -> bool:
    """Whether kernels are kept from one process to the next."""
    import numba

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
