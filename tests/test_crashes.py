"""Whatever kills a writer, or fails under it: what was acknowledged is there, and nothing else is."""

import multiprocessing
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sql
from conftest import BOTH
from patience import PATIENCE

from benchmarks.soak import crashes
from fingerprint.encoder import Encoder
from fingerprint.fingerprint import QUERY_EVERY
from index import compaction, merging
from index.errors import LibraryError
from index.library import Library

ENCODER = Encoder.load()
FIRST = [("ingest", [1, 2, 3]), ("ingest", [4, 5]), ("remove", {"id-2": ""}), ("ingest", [6])]
THEN = [
    ("ingest", [7, 8]),
    ("change", {"id-1": "new", "id-7": "new"}),
    ("remove", {"id-3": "", "id-4": ""}),
    ("compact", None),
    ("ingest", [9]),
]


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch):
    for module in (compaction, merging):  # so that compaction has several commits
        monkeypatch.setattr(module, "LARGEST", 60)


def _next(waiting: Iterator, state: crashes.State) -> crashes.Operation | None:
    return next(waiting, None)


@BOTH
def test_a_kill_at_any_step_leaves_the_last_commit(
    new_database: Callable[[], sql.URL], tmp_path: Path
) -> None:
    """Every system call and SQL statement of a sequence of commits is the last one, in turn."""
    step, status = 0, signal.SIGKILL
    seen = set()
    while status == signal.SIGKILL:
        step += 11  # each run has other steps before it, so other moments are met
        path, url = tmp_path / str(step), new_database()
        library = Library.open(path, ENCODER, url=url, create=True)
        state: crashes.State = {}
        for what in FIRST:
            crashes.perform(library, ENCODER, what)
            state = crashes.after(state, what)
        library.close()
        process, reading = crashes.child(
            path, ENCODER, state, partial(_next, iter(THEN)), partial(crashes.die_at, step), url
        )
        told = crashes.understood(crashes.listen(reading), state)
        _, status = os.waitpid(process, 0)
        allowed = [told.acknowledged]
        if told.in_hand:
            seen.add(told.in_hand[0])
            allowed.append(crashes.after(told.acknowledged, told.in_hand))
        state = crashes.check(path, ENCODER, allowed, url)
        library = Library.open(path, ENCODER, url=url)
        crashes.perform(library, ENCODER, ("ingest", [20]))
        library.close()
        crashes.check(path, ENCODER, [crashes.after(state, ("ingest", [20]))], url)
    assert status == 0
    assert seen == {"ingest", "change", "remove", "compact"}


@BOTH
def test_a_library_whose_making_was_killed_at_any_step_is_made_by_the_next_writer(
    new_database: Callable[[], sql.URL], tmp_path: Path
) -> None:
    step, status = 0, signal.SIGKILL
    half_made = 0
    while status == signal.SIGKILL:
        step += 7
        path, url = tmp_path / str(step), new_database()
        process = os.fork()
        if not process:
            crashes.die_at(step)
            Library.open(path, ENCODER, url=url, create=True)
            os._exit(0)
        _, status = os.waitpid(process, 0)
        if not Library.is_there(path, url):
            half_made += 1
            with pytest.raises(LibraryError, match=r"no library here; `earmark ingest` makes one"):
                Library.open(path, ENCODER, url=url)
        library = Library.open(path, ENCODER, url=url, create=True)
        crashes.perform(library, ENCODER, ("ingest", [1]))
        library.close()
        crashes.check(path, ENCODER, [{"id-1": (1, "")}], url)
    assert status == 0
    assert half_made > 4


def test_random_kills_and_full_disks_lose_nothing(tmp_path: Path) -> None:
    """In full: python -m benchmarks.soak.crashes."""
    counts = crashes.rounds(tmp_path / "library", 8, 7, lambda _: None, ["full disk"])
    assert counts["kill"] == counts["full disk"] == 4
    assert counts["commits acknowledged"] and counts["commits refused"]


def _may_trace() -> bool:
    """Whether strace is here and may look at what runs here."""
    tracing = ["strace", "-o", os.devnull, "true"]
    return bool(shutil.which("strace")) and not subprocess.run(tracing, check=False).returncode


@pytest.mark.skipif(not _may_trace(), reason="Debian: strace")
@pytest.mark.parametrize("fault", crashes.FAULTS)
def test_system_calls_that_fail_lose_nothing(tmp_path: Path, fault: str) -> None:
    """Of Earmark and of SQLite; what was refused is not there either, also after a crash."""
    counts = crashes.rounds(tmp_path / "library", 8, 3, lambda _: None, [fault])
    assert counts[fault] == 4
    assert counts["commits acknowledged"]
    if fault in ("failing fsync", "failing write", "no space left"):
        assert counts["commits refused"]


def _read(path: Path, url: sql.URL, seeds: range, finished, answers) -> None:
    """Search for every sound until the writer is done; tell the revision and what was found."""
    library = Library.open(path, ENCODER, url=url)
    told = []
    last = False
    while not last:
        last = finished.is_set()
        for seed in seeds:
            asked = crashes.fingerprint(ENCODER, seed, QUERY_EVERY)
            matches, snapshot = library.search(asked, max_e_value=1.0)
            best = {(it.recording, it.title) for it in matches if it.recording == f"id-{seed}"}
            told.append((snapshot.revision, seed, best))
    answers.put(told)


@BOTH
def test_eight_readers_see_committed_states_while_one_writes(
    database: sql.URL, tmp_path: Path
) -> None:
    path = tmp_path / "library"
    library = Library.open(path, ENCODER, url=database, create=True)
    seeds = range(6)
    state: crashes.State = {}
    history = {0: state}

    def do(*what) -> None:
        nonlocal state
        crashes.perform(library, ENCODER, what)
        state = crashes.after(state, what)
        revision = library.refresh().revision
        for between in range(max(history) + 1, revision + 1):
            history[between] = state

    do("ingest", list(seeds))
    context = multiprocessing.get_context("fork")
    finished, answers = context.Event(), context.Queue()
    readers = [
        context.Process(target=_read, args=(path, database, seeds, finished, answers), daemon=True)
        for _ in range(8)
    ]
    for reader in readers:
        reader.start()
    for turn in range(2):
        do("change", {f"id-{seed}": f"title {turn}" for seed in seeds if seed != turn})
        do("remove", {f"id-{seed}": "" for seed in range(turn, 6, 3)})
        do("compact", None)
        do("ingest", list(range(turn, 6, 3)))
    finished.set()
    told = [answers.get(timeout=PATIENCE) for _ in readers]
    for reader in readers:
        reader.join()
        assert reader.exitcode == 0
    for revision, seed, best in (answer for each in told for answer in each):
        there = history[revision].get(f"id-{seed}")
        assert best == ({(f"id-{seed}", there[1])} if there else set()), (revision, seed)
    assert len({revision for each in told for revision, _, _ in each}) > 1
