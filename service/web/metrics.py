"""What a server counts, for Prometheus: how long requests and their stages take, what is found, what fails.

No clip's name, key or owner is among it.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fingerprint.errors import AudioError
from index.library import Library
from service.jobs.ingest_jobs import Ingests
from service.jobs.scan_jobs import Scans
from service.query.answer import Answer

_log = logging.getLogger(__name__)
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """The counters of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Histogram(
            "earmark_request_seconds",
            "Time from a request to the end of its answer.",
            ("method", "route", "status"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._stages = Histogram(
            "earmark_stage_seconds",
            "Time that a clip takes: decode (and fingerprint), search.",
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._matches = Counter(
            "earmark_matches_total", "Matches told, by tier.", ("tier",), registry=self.registry
        )
        self._errors = Counter(
            "earmark_clip_errors_total",
            "Clips that could not be used, by what was wrong.",
            ("type",),
            registry=self.registry,
        )
        self._recordings = self._gauge("earmark_recordings", "Recordings in the library.")
        self._seconds = self._gauge("earmark_recorded_seconds", "Their audio, in seconds.")
        self._taken = self._gauge(
            "earmark_requests_taken",
            "Requests with sound that are worked on or wait for their turn.",
        )
        self._scans = self._gauge("earmark_scans_unfinished", "Scans that wait or are running.")
        self._ingests = self._gauge(
            "earmark_ingests_unfinished", "Ingests of archives that wait or are running."
        )

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(name, meaning, registry=self.registry)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; what is wrong with a clip in it is counted."""
        with self._stages.labels(name).time():
            try:
                yield
            except AudioError as error:
                self._errors.labels(error.type).inc()
                raise

    def answered(self, answer: Answer) -> None:
        """Count what was found."""
        for match in answer.matches:
            self._matches.labels(match.tier).inc()

    def at_each_look(self, count: Callable[[], object]) -> CollectorRegistry:
        """The registry, brought up to date by `count` each time that it is looked at."""
        registry, own = CollectorRegistry(), self.registry

        class Current:
            def collect(self) -> Iterator[Metric]:
                with suppress(Exception):  # the library is not there: what was counted is told
                    count()
                yield from own.collect()

        registry.register(cast(Any, Current()))
        return registry

    def text(self, library: Library, scans: Scans, ingests: Ingests, taken: int) -> bytes:
        """All of it, in Prometheus' text format; taken: requests that are worked on or wait."""
        snapshot = library.refresh()
        self._recordings.set(len(snapshot.recordings))
        self._seconds.set(snapshot.seconds)
        self._taken.set(taken)
        self._scans.set(scans.unfinished())
        self._ingests.set(ingests.unfinished())
        return generate_latest(self.registry)


class Timed:
    """Middleware: times every request by the route that took it, and logs it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if route != "none" else "other"
            seconds = time.perf_counter() - began
            asker = scope.get("state", {}).get("asker")
            key = asker.id if asker else None
            _log.info(
                "%s %s: %d in %.3f s",
                *(method, route, status, seconds),
                extra={
                    "method": method,
                    "route": route,
                    "status": status,
                    "seconds": round(seconds, 4),
                    "key": key,
                },
            )
            self._metrics.requests.labels(method, route, str(status)).observe(seconds)
