"""A store that fsspec reads over the network: a folder, served by as much of WebHDFS as it takes to read it.

https://hadoop.apache.org/docs/stable/hadoop-project-dist/hadoop-hdfs/WebHDFS.html
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


def _status(path: Path) -> dict[str, Any]:
    kind = "DIRECTORY" if path.is_dir() else "FILE"
    return {"pathSuffix": path.name, "type": kind, "length": path.stat().st_size}


class _Handler(BaseHTTPRequestHandler):
    folder: Path

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(address.query).items()}
        path = self.folder / unquote(address.path).removeprefix("/webhdfs/v1/")
        if not path.exists():
            missing = {"exception": "FileNotFoundException", "message": "it is not there"}
            self._answer(404, json.dumps({"RemoteException": missing}).encode())
        elif asked["op"] == "GETFILESTATUS":
            self._answer(200, json.dumps({"FileStatus": _status(path)}).encode())
        elif asked["op"] == "LISTSTATUS":
            found = [_status(it) for it in path.iterdir()]
            self._answer(200, json.dumps({"FileStatuses": {"FileStatus": found}}).encode())
        else:
            start = int(asked["offset"])
            self._answer(200, path.read_bytes()[start : start + int(asked["length"])])

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The URL of a folder, while it is served."""
    with serving(type("Handler", (_Handler,), {"folder": folder})) as address:
        yield f"webhdfs://{address}"


@contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address, host:port, of a server, while it is there."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
