"""Fingerprints of what strangers send to the server, made in processes that may die of it."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fingerprint.audio import SPARSEST, Limits
from fingerprint.cores import work_on
from fingerprint.encoder import Encoder
from fingerprint.fingerprint import REFERENCE_EVERY, Fingerprint, fingerprint
from service.datasets.source import InMemory, OnDisk, Source
from service.query.answer import fingerprint_clip
from service.runtime.settings import Settings
from service.runtime.warm import warm
from service.runtime.workers import Bounds, WorkerDied, Workers

# Seconds that a worker may take for any sound, and for each second of the longest that is taken for what it
# is, a clip or a recording.
_LEAST_TIME, _SLOWEST = 60.0, 0.02
_IN_MEMORY = 16 * 2**20  # bytes that a worker is sent; more it reads from a temporary file


def clip_limits(settings: Settings) -> Limits:
    """How much a clip may be that is asked about."""
    which = min(("max_clip", "max_duration"), key=lambda name: getattr(settings, name))
    longest = getattr(settings, which).total_seconds()
    return Limits(longest, int(settings.max_upload), which, "max_upload")


class Decoder:
    """Makes fingerprints of uploads; threads may share it."""

    def __init__(self, settings: Settings, encoder: Encoder, limits: Limits | None = None) -> None:
        """limits : of what becomes a recording; by default those of an upload"""
        longest = settings.max_duration.total_seconds()
        self._limits = limits or Limits(
            longest, int(settings.max_upload), bytes_setting="max_upload"
        )
        self._clip_limits = clip_limits(settings)
        self._encoder = encoder
        self._workers: Workers | None = None
        if settings.isolate:
            bounds = Bounds(_time_for(self._limits), _LEAST_TIME, _SLOWEST / SPARSEST)
            self._workers = Workers(settings.jobs, bounds, _set_up)

    def clip(self, upload: BinaryIO, name: str) -> Fingerprint:
        """The fingerprint of a clip, or the one that it is (.emk). Raises AudioError."""
        if self._workers is None:
            return fingerprint_clip(upload, name, self._encoder, self._clip_limits)
        with _as_source(upload) as source:
            limits = self._clip_limits
            future = self._workers.submit_within(_time_for(limits), _clip, source, name, limits)
            return _told(future, name)

    def recording(self, upload: BinaryIO, name: str) -> Fingerprint:
        """The fingerprint of what becomes a recording. Raises AudioError."""
        if self._workers is None:
            return _made(upload, name, self._encoder, self._limits)
        with _as_source(upload) as source:
            return self.of_source(source, name)

    def of_source(self, source: Source, name: str) -> Fingerprint:
        """The fingerprint of what becomes a recording, where it is. Raises AudioError."""
        if self._workers is None:
            with source.open() as file:
                return _made(file, name, self._encoder, self._limits)
        return _told(self._workers.submit(_recording, source, name, self._limits), name)

    def close(self) -> None:
        """End the workers, once they have done what they are at."""
        if self._workers is not None:
            self._workers.close()

    def kill(self) -> None:
        """End the workers, whatever they are at."""
        if self._workers is not None:
            self._workers.kill()


def _time_for(limits: Limits) -> float:
    """Seconds that a worker may take for a sound of at most that length."""
    return _LEAST_TIME + _SLOWEST * limits.max_seconds


def _told(future: Future[Fingerprint], name: str) -> Fingerprint:
    """The fingerprint, or what there is against the upload."""
    try:
        return future.result()
    except MemoryError:
        detail = f"{name}: takes more memory than one sound may; split the file"
        raise WorkerDied("too-large", detail) from None


@contextmanager
def _as_source(upload: BinaryIO) -> Iterator[Source]:
    """An upload as another process can read it."""
    size = upload.seek(0, os.SEEK_END)
    upload.seek(0)
    if size <= _IN_MEMORY:
        yield InMemory(upload.read())
        return
    with tempfile.NamedTemporaryFile(prefix="earmark-") as file:
        shutil.copyfileobj(upload, file, 1 << 20)
        file.flush()
        yield OnDisk(Path(file.name))


_encoder: Encoder | None = None


def _set_up() -> None:
    """What a worker does first."""
    global _encoder
    work_on(1)
    _encoder = Encoder.load()
    warm(_encoder)  # before the worker is confined: what is compiled later is not kept


def _clip(source: Source, name: str, limits: Limits) -> Fingerprint:
    assert _encoder is not None
    with source.open() as file:
        return fingerprint_clip(file, name, _encoder, limits)


def _recording(source: Source, name: str, limits: Limits) -> Fingerprint:
    assert _encoder is not None
    with source.open() as file:
        return _made(file, name, _encoder, limits)


def _made(file: BinaryIO, name: str, encoder: Encoder, limits: Limits) -> Fingerprint:
    return fingerprint(file, encoder, REFERENCE_EVERY, limits=limits, name=name)
