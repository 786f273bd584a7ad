"""The library behind the routes, loaded in the background: the server answers at once."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

import anyio
import anyio.to_thread
from fastapi import Depends, Request

from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import Fingerprint
from index.errors import LibraryLocked
from index.library import Library
from index.merging import Merger
from index.writer import Writer
from service.jobs.ingest_jobs import Ingests
from service.jobs.scan_jobs import Scans
from service.runtime.asker import Asker
from service.runtime.decoding import Decoder, clip_limits
from service.runtime.quotas import Quotas
from service.runtime.ray_library import open_searched
from service.runtime.settings import Settings
from service.runtime.warm import warm
from service.web.metrics import Metrics
from service.web.problems import unavailable
from service.web.turns import Turns

_WRITE_WAIT, _WRITE_POLL = 3.0, 0.1  # s that what was decoded waits for another process that writes
_KEEPING = 2  # uploads that are copied into jobs' folders at the same time

Result = TypeVar("Result")
OnLoad = Callable[[Library | BaseException], None]


@dataclass
class Loaded:
    """What requests work with once it is there."""

    library: Library
    encoder: Encoder
    decoder: Decoder
    merger: Merger


class Service:
    """One server's library, jobs, quotas and turns."""

    def __init__(self, settings: Settings, on_load: OnLoad) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.quotas = Quotas(settings)
        self.scans = Scans(settings)
        self.ingests = Ingests(settings, self.quotas)
        self.clip_limits = clip_limits(settings)
        self.listening = Turns(settings.jobs, settings.waiting)
        self.writing = Turns(1, settings.waiting)
        self.keeping = Turns(_KEEPING, settings.waiting)
        self._keepers = anyio.CapacityLimiter(_KEEPING)
        self._listeners = anyio.CapacityLimiter(settings.jobs)
        self._writers = anyio.CapacityLimiter(1)
        self._on_load = on_load
        self._loading: asyncio.Future[Loaded] | None = None

    def start(self) -> None:
        """Begin to load. Called in the event loop."""
        self._loading = asyncio.get_running_loop().run_in_executor(None, self._load)
        self._loading.add_done_callback(self._tell)

    async def stop(self) -> None:
        """Let go of the library, and of jobs, which go on with the next server."""
        if self._loading is not None:
            await asyncio.wait([self._loading])
            async with anyio.create_task_group() as group:
                for jobs in (self.scans, self.ingests):
                    group.start_soon(anyio.to_thread.run_sync, jobs.stop)
            if self._loading.exception() is None:
                loaded = self._loading.result()
                loaded.decoder.kill()  # requests in hand have had their time
                await anyio.to_thread.run_sync(loaded.merger.close)
                loaded.library.close()

    def _load(self) -> Loaded:
        encoder = Encoder.load()
        library = open_searched(self.settings, encoder, create=True)
        warm(encoder, library)
        for jobs in (self.scans, self.ingests):
            jobs.start(library.id())
        return Loaded(library, encoder, Decoder(self.settings, encoder), Merger(library))

    def _tell(self, loading: "asyncio.Future[Loaded]") -> None:
        if not loading.cancelled():
            self._on_load(loading.exception() or loading.result().library)

    def loaded(self) -> Loaded:
        """The library and encoder; raises a 503 until they are there."""
        if self._loading is None or not self._loading.done():
            raise unavailable("the library is being loaded")
        if (error := self._loading.exception()) is not None:
            raise unavailable(f"the library cannot be used: {error}")
        return self._loading.result()

    @property
    def library(self) -> Library:
        """The library; raises a 503 until it is there."""
        return self.loaded().library

    async def in_turn(self, asker: Asker, work: Callable[[], Result]) -> Result:
        """Run CPU work off the event loop, `jobs` pieces at a time, keys in turn. Raises Busy."""
        async with self.listening.turn(asker.id):
            return await anyio.to_thread.run_sync(work, limiter=self._listeners)

    async def keep(self, asker: Asker, work: Callable[[], Result]) -> Result:
        """Have a job that is asked for kept, keys in turn. Raises Busy where too many wait."""
        async with self.keeping.turn(asker.id):
            return await anyio.to_thread.run_sync(work, limiter=self._keepers)

    def counted(self) -> bytes:
        """What the server counts, for Prometheus. Raises a 503 until the library is there."""
        taken = self.listening.taken
        return self.metrics.text(self.library, self.scans, self.ingests, taken)

    def decoded(self, asker: Asker, make: Callable[[], Fingerprint]) -> Fingerprint:
        """The fingerprint that `make` makes; its seconds count, also where there is none in the end."""
        try:
            with self.metrics.stage("decode"):
                made = make()
        except AudioError as error:
            self.quotas.audio(asker.id, error.seconds)
            raise
        self.quotas.audio(asker.id, made.duration)
        return made

    async def write(self, asker: Asker, work: Callable[[Writer], Result]) -> Result:
        """Have the library's one writer do something, keys in turn.

        Raises LibraryLocked at once if another process is writing, Busy where too many wait.
        """

        def write() -> Result:
            loaded = self.loaded()
            with loaded.library.writer(asker.id, merge=False) as writer:
                done = work(writer)
            loaded.merger.soon()
            return done

        async with self.writing.turn(asker.id):
            return await anyio.to_thread.run_sync(write, limiter=self._writers)

    async def write_soon(self, asker: Asker, work: Callable[[Writer], Result]) -> Result:
        """As `write`, for what took some effort: it waits a little for another process."""
        until = anyio.current_time() + _WRITE_WAIT
        while True:
            try:
                return await self.write(asker, work)
            except LibraryLocked:
                if anyio.current_time() >= until:
                    raise
                await anyio.sleep(_WRITE_POLL)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Serving = Annotated[Service, Depends(_service)]
