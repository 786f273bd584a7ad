"""`njit`, as numba's, without importing numba before a kernel is called.

Numba takes 0.3 s to import, and `earmark list` calls no kernel. The first call of any kernel makes all of
them numba's own, in every module that has them by name, since kernels call each other.
"""

import sys
from collections.abc import Callable
from typing import Any

_waiting: "list[_Waiting]" = []


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
        import numba

        if self._kernel is None:
            self._kernel = numba.njit(**self._options)(self.py_func)
        return self._kernel


def njit(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """As `numba.njit`: of a function, or with options a decorator of one."""
    if function is None:
        return lambda it: njit(it, **options)
    if "numba" in sys.modules:
        import numba

        return numba.njit(**options)(function)
    return _Waiting(function, options)


def _give_all_to_numba() -> None:
    for kernel in _waiting:
        kernel.give_to_numba()
    for module in list(sys.modules.values()):
        names = getattr(module, "__dict__", {})
        for name, value in list(names.items()):
            if type(value) is _Waiting:
                names[name] = value.give_to_numba()
