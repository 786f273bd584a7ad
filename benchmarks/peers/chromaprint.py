"""Chromaprint: Debian's `fpcalc` makes the fingerprints, what AcoustID does with them is done here for clips.

A fingerprint is a row of 32-bit items, one per 0.124 s. AcoustID compares whole files of equal length;
Chromaprint's own matcher, made for parts of files, is followed instead: items that agree in their upper
12 bits vote for offsets, and the bit errors along an offset decide. It accepts fewer than 10 wrong bits of
32 on average (`kDefaultMatchThreshold`). Where it takes the offset with most votes of one pair of files,
the offsets with most votes of the whole library are tried here, and the one with fewest errors is answered.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.base import Answer, Ingested, PeerError, as_listed

ITEM_SECONDS = 1365 / 11025  # frames of 4,096 samples at 11,025 Hz, a third of one apart
KEY_BITS = 12
SILENCE = 627964279  # the item of digital silence, which AcoustID leaves out of look-ups as well
CANDIDATES = 500  # offsets whose bit errors are counted
LEAST_OVERLAP = 0.5  # share of a clip's items that must lie inside the recording
MOST_ERRORS = 10.0  # wrong bits of 32
WORK_LIMIT = 600.0  # s, wall time
CLIP_LIMIT = 60.0
PACKAGE = "libchromaprint-tools"


class Chromaprint:
    """See `Peer`."""

    name = "chromaprint"
    licence = "MIT; LGPL-2.1-or-later in parts"
    gate = "fewer than 10 wrong bits of 32, Chromaprint's default"

    def __init__(self) -> None:
        self.version = ""
        self.ingest_seconds = 0.0
        self.refused: dict[str, str] = {}
        self._recordings: list[str] = []
        self._library: Items | None = None
        self._index_bytes = 0

    def missing(self) -> str | None:
        """Installs the Debian package where that is allowed (as root)."""
        if not shutil.which("fpcalc") and os.geteuid() == 0 and shutil.which("apt-get"):
            # fmt: off
            subprocess.run(
                ["apt-get", "-qq", "-y", "--no-install-recommends", "install", PACKAGE],
                stdin=subprocess.DEVNULL, capture_output=True, check=False,
            )
            # fmt: on
        if not shutil.which("fpcalc"):
            return f"fpcalc was not found: sudo apt-get install {PACKAGE}"
        stated = subprocess.run(["fpcalc", "-version"], capture_output=True, text=True, check=False)
        self.version = stated.stdout.removeprefix("fpcalc version").split("(")[0].strip()
        return None

    def ingest(self, works: Sequence[tuple[str, Path]], folder: Path) -> None:
        """See `Peer`."""
        reason = self.missing()
        if reason:
            raise PeerError(f"{self.name} cannot be measured: {reason}")
        done = Ingested.load(folder, self.version, works) or self._fill(works, folder)
        if works and len(done.refused) == len(works):
            raise PeerError(
                f"{self.name} took in none of {len(works)} works: {next(iter(done.refused.values()))}"
            )
        self.refused, self.ingest_seconds = done.refused, done.seconds
        self._index_bytes = done.index_bytes
        self._recordings = [recording for recording, _ in works if recording not in done.refused]
        with np.load(folder / "index.npz") as index:
            self._library = Items(index["items"], index["lengths"])

    def _fill(self, works: Sequence[tuple[str, Path]], folder: Path) -> Ingested:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        started = _cpu_seconds()
        refused, rows = {}, []
        for recording, path in works:
            try:
                rows.append(fpcalc(path, WORK_LIMIT))
            except PeerError as error:
                refused[recording] = str(error)
        items = np.concatenate([np.empty(0, np.uint32), *rows])
        file = folder / "index.npz"
        np.savez(file, items=items, lengths=np.array([len(row) for row in rows], np.int64))
        Items(items, np.array([len(row) for row in rows]))  # the look-up table is part of the cost
        size = file.stat().st_size
        done = Ingested(self.version, as_listed(works), _cpu_seconds() - started, size, refused)
        done.save(folder)
        return done

    def query(self, clips: Sequence[Path]) -> list[Answer]:
        """See `Peer`."""
        if self._library is None:
            raise PeerError(f"{self.name} has not taken in any works yet")
        return [self._best(clip, self._library) for clip in clips]

    def _best(self, clip: Path, library: Items) -> Answer:
        started = _cpu_seconds()
        try:
            found = library.nearest(fpcalc(clip, CLIP_LIMIT))
        except PeerError as error:
            return Answer(seconds=_cpu_seconds() - started, error=str(error))
        seconds = _cpu_seconds() - started
        if found is None:
            return Answer(seconds=seconds)
        number, offset, errors = found
        return Answer(
            recording=self._recordings[number],
            reference_start=offset * ITEM_SECONDS,
            score=1 - errors / 16,  # 1 for the same bits, 0 for chance
            accepted=errors < MOST_ERRORS,
            seconds=seconds,
        )

    def index_bytes(self) -> int:
        """See `Peer`."""
        return self._index_bytes

    def close(self) -> None:
        """Nothing keeps running."""


class Items:
    """The items of a library's recordings, and where each key (the upper bits of an item) occurs."""

    def __init__(self, items: NDArray[np.uint32], lengths: NDArray[np.int64]) -> None:
        self._items = items
        self._lengths = lengths
        self._starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        keys = items >> np.uint32(32 - KEY_BITS)
        sounding = np.flatnonzero(items != SILENCE)
        self._positions = sounding[np.argsort(keys[sounding], kind="stable")]
        self._bounds = np.searchsorted(keys[self._positions], np.arange((1 << KEY_BITS) + 1))

    def nearest(self, clip: NDArray[np.uint32]) -> tuple[int, int, float] | None:
        """(recording's number, offset in items, mean wrong bits per item) of the fewest errors."""
        sounding = np.flatnonzero(clip != SILENCE)
        keys = (clip[sounding] >> np.uint32(32 - KEY_BITS)).astype(np.int64)
        first, counts = self._bounds[keys], self._bounds[keys + 1] - self._bounds[keys]
        total = int(counts.sum())
        if not total:
            return None
        within = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
        positions = self._positions[np.repeat(first, counts) + within]
        number = np.searchsorted(self._starts, positions, side="right") - 1
        offset = positions - self._starts[number] - np.repeat(sounding, counts)
        pairs, votes = np.unique((number << 32) + offset + len(clip), return_counts=True)
        chosen = pairs[np.argsort(-votes, kind="stable")[:CANDIDATES]]
        number, offset = chosen >> 32, (chosen & 0xFFFFFFFF) - len(clip)
        errors = self._errors(clip, number, offset)
        best = int(np.argmin(errors))
        if not np.isfinite(errors[best]):
            return None
        return int(number[best]), int(offset[best]), float(errors[best])

    def _errors(
        self, clip: NDArray[np.uint32], number: NDArray[np.int64], offset: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Mean wrong bits per item along each candidate; infinite where too little overlaps."""
        at = offset[:, None] + np.arange(len(clip))
        inside = (at >= 0) & (at < self._lengths[number][:, None])
        reference = self._items[np.where(inside, at + self._starts[number][:, None], 0)]
        wrong = np.where(inside, np.bitwise_count(reference ^ clip), 0).sum(axis=1)
        overlap = inside.sum(axis=1)
        enough = overlap >= LEAST_OVERLAP * len(clip)
        return np.where(enough, wrong / np.maximum(overlap, 1), np.inf)


def fpcalc(path: Path, limit: float) -> NDArray[np.uint32]:
    """A file's items [shape=(n,)]; none of a file that is too short (under about 2.6 s).

    Raises PeerError if there is no answer within `limit` seconds or no fingerprint for another reason.
    """
    command = ["fpcalc", "-raw", "-json", "-length", "0", str(path.absolute())]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        raise PeerError(f"fpcalc: no answer within {limit:g} s") from None
    try:
        return np.array(json.loads(done.stdout)["fingerprint"], np.uint32)
    except (ValueError, KeyError):
        complaint = done.stderr.decode(errors="replace").strip()
    if "Empty fingerprint" in complaint:
        return np.empty(0, np.uint32)
    if done.returncode < 0:
        raise PeerError(f"fpcalc: killed by signal {-done.returncode}")
    raise PeerError(
        f"fpcalc: {complaint.splitlines()[-1][:200] if complaint else 'no fingerprint'}"
    )


def _cpu_seconds() -> float:
    """CPU time of this process and of those that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
