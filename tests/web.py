"""A folder on a web server, which lists it and serves whole files, as most do at least."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

from webhdfs import serving


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def web(folder: Path) -> Iterator[str]:
    """Its URL, while it is there."""
    with serving(partial(_Handler, directory=folder)) as address:
        yield f"http://{address}"
