"""The library's writer, for those who can wait until another process has done with it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from index.errors import LibraryLocked
from index.library import Library
from index.writer import Writer

_AGAIN = 0.1  # s between looks whether it is free


@contextmanager
def writer_in_turn(
    library: Library, by: str | None, give_up: Callable[[float], bool]
) -> Iterator[Writer]:
    """The writer, as soon as no other process has it.

    give_up : waits that many seconds and says whether to wait no longer; LibraryLocked is raised then
    """
    with ExitStack() as stack:
        while True:
            try:
                writer = stack.enter_context(library.writer(by))
                break
            except LibraryLocked:
                if give_up(_AGAIN):
                    raise
        yield writer
