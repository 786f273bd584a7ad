"""Files below a folder on a disk, those of folders that are links among them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def files_below(folder: Path, unreadable: Callable[[OSError], None]) -> Iterator[Path]:
    """The files below a folder, top down, in order of name; hidden ones are left out.

    A folder that is reached a second time, through a link or in a circle of links, is not looked into again.

    unreadable : told of a folder that cannot be read
    """
    seen: set[tuple[int, int]] = set()
    for where, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        try:
            status = os.stat(where)
        except OSError as error:
            unreadable(error)
            folders.clear()
            continue
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        # what lies here comes before what is linked to: it keeps its name
        folders[:] = sorted(
            (name for name in folders if not name.startswith(".")),
            key=lambda name: (os.path.islink(os.path.join(where, name)), name),
        )
        yield from (Path(where, name) for name in sorted(names) if not name.startswith("."))
