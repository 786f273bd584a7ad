"""The HTTP service, as the tests run it: the application itself, spoken to without a network."""

import threading
from typing import Any

from fastapi.testclient import TestClient
from patience import PATIENCE

from service.runtime.settings import Settings
from service.web.api import create_app


class Server:
    """An application with its library loaded, spoken to without a network."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("isolate", False)  # processes take seconds to start
        self._loaded = threading.Event()
        self._app = create_app(Settings(**settings), lambda result: self._loaded.set())
        self.client = TestClient(
            self._app,
            base_url="http://127.0.0.1:8000",
            raise_server_exceptions=False,
            client=("127.0.0.1", 50000),
        )

    def __enter__(self) -> TestClient:
        self.client.__enter__()
        assert self._loaded.wait(PATIENCE)
        return self.client

    def __exit__(self, *exception: object) -> None:
        self.client.__exit__(*exception)
