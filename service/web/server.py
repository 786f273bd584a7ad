"""`earmark serve`: the application of `service.web.api` under uvicorn; without keys, to this machine only."""

import logging
import math
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from prometheus_client import start_http_server

from fingerprint.encoder import Encoder
from index.library import Library
from service.runtime.logs import configure_logs
from service.runtime.settings import Settings, SettingsError
from service.web.api import create_app
from service.web.auth import is_loopback
from service.web.serving import Service

# Seconds that a connection is kept for another request. Longer than any Retry-After of a 503: who comes
# again in time must not meet a connection that is just being closed.
KEEP_ALIVE = 30


def run(settings: Settings, tell: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `tell` is told where.

    Raises SettingsError if the address is taken or, without keys, not a loopback one, and whatever kept
    the library from being loaded.
    """
    configure_logs(settings)
    if settings.log_format == "json":
        tell = logging.getLogger(__name__).info
    with_keys = _has_keys(settings)
    if not with_keys and not is_loopback(settings.host):
        raise SettingsError(
            f"--host {settings.host}: this library has no keys yet, so it is served on the loopback "
            "interface only; use 127.0.0.1, ::1 or localhost, or make a key: earmark keys create"
        )
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise SettingsError(
            f"{settings.host}, port {settings.port} cannot be listened on: {error.strerror}; "
            "choose another with --port"
        ) from error
    failures: list[BaseException] = []

    def on_load(result: Library | BaseException) -> None:
        if isinstance(result, Library):
            tell(f"ready, with {result.info()['recordings']} recordings")
        else:
            failures.append(result)
            server.should_exit = True

    app = create_app(settings, on_load)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            proxy_headers=False,  # whose word would be taken for who asks
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=math.ceil(settings.stop_within.total_seconds() / 2),
        )
    )
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    port = listener.getsockname()[1]
    to_whom = (
        "to whoever has a key" if with_keys else "to this machine only, as there are no keys yet"
    )
    tell(f"serving {settings.library} at http://{host}:{port} (described at /docs), {to_whom}")
    with listener, _metrics(app, settings):
        server.run(sockets=[listener])
    if failures:
        raise failures[0]


@contextmanager
def _metrics(app: FastAPI, settings: Settings) -> Iterator[None]:
    """/metrics at an address of its own, if one is set. Raises SettingsError if it is taken."""
    if settings.metrics_port is None:
        yield
        return
    service: Service = app.state.service
    host, port = settings.metrics_host, settings.metrics_port
    try:
        server, _ = start_http_server(port, host, service.metrics.at_each_look(service.counted))
    except OSError as error:
        raise SettingsError(
            f"metrics: {host}, port {port} cannot be listened on: {error}"
        ) from None
    try:
        yield
    finally:
        server.shutdown()


def _has_keys(settings: Settings) -> bool:
    """Whether the library is there and has keys."""
    if not Library.is_there(settings.library, settings.database):
        return False
    encoder = Encoder.load()
    library = Library.open(settings.library, encoder, url=settings.database, searchable=False)
    try:
        return library.has_keys()
    finally:
        library.close()
