"""The HTTP service, as the tests run it: the application itself, spoken to without a network."""

import threading
from collections.abc import Callable
from functools import cache
from typing import Any
from unittest.mock import patch

from fastapi.testclient import TestClient
from patience import PATIENCE

from service.runtime import decoding
from service.runtime.settings import Settings
from service.runtime.workers import Bounds, Workers
from service.web.api import create_app


@cache
def _workers(count: int, bounds: Bounds, setup: Callable[..., None]) -> Workers:
    """Processes that decode for every server of this session: they take seconds to start."""
    return Workers(count, bounds, setup)


class _Shared:
    """The session's processes, as one server has them."""

    def __init__(self, count: int, bounds: Bounds, setup: Callable[..., None]) -> None:
        workers = _workers(count, bounds, setup)
        self.submit, self.submit_within = workers.submit, workers.submit_within

    def close(self) -> None:
        """Another server needs them."""

    kill = close


class Server:
    """An application with its library loaded, spoken to without a network."""

    def __init__(self, **settings: Any) -> None:
        self._loaded = threading.Event()
        self._app = create_app(Settings(**settings), lambda result: self._loaded.set())
        self.client = TestClient(
            self._app,
            base_url="http://127.0.0.1:8000",
            raise_server_exceptions=False,
            client=("127.0.0.1", 50000),
        )

    def __enter__(self) -> TestClient:
        with patch.object(decoding, "Workers", _Shared):
            self.client.__enter__()
            assert self._loaded.wait(PATIENCE)
        return self.client

    def __exit__(self, *exception: object) -> None:
        self.client.__exit__(*exception)
