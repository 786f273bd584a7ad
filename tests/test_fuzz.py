"""Files made to do harm end in a fingerprint or in one error, in bounded time and memory, and harm nobody."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from benchmarks.soak.fuzz import Sandbox, bombs, damaged, explode, hear, seeds, untrue, workers
from service.runtime.settings import Settings

SETTINGS = Settings(jobs=2, max_duration=timedelta(seconds=60))
HARMLESS = {"decoded", "undecodable", "too-short", "silent", "too-long", "too-large"}


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox(SETTINGS, tmp_path_factory.mktemp("sandbox")) as it:
        yield it


def test_damaged_files_end_in_a_fingerprint_or_in_one_error(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    hear(sandbox, 0, 7, tmp_path)
    before = {process.pid for process in workers()}
    outcomes = {number: hear(sandbox, number, 7, tmp_path)["outcome"] for number in range(300)}
    assert {n: outcome for n, outcome in outcomes.items() if outcome not in HARMLESS} == {}
    assert before <= {process.pid for process in workers()}, "a worker died"


def test_fingerprints_that_lie_are_refused_or_searched_for(sandbox: Sandbox) -> None:
    true = seeds()["clip.emk"]
    outcomes = {
        number: sandbox.outcome("clip.emk", untrue(true, np.random.default_rng(number)))
        for number in range(60)
    }
    assert set(outcomes.values()) <= HARMLESS, outcomes
    assert {"decoded", "undecodable"} <= set(outcomes.values())


def test_a_damaged_file_can_be_made_again() -> None:
    assert damaged(12, 3) == damaged(12, 3)
    assert len({damaged(number, 3)[1] for number in range(50)}) > 40


def test_bombs_cost_bounded_time_and_memory(tmp_path: Path) -> None:
    found = {entry["bomb"]: entry for entry in explode(SETTINGS, tmp_path)}
    assert set(found) == set(bombs())
    for entry in found.values():
        assert entry["outcome"] in HARMLESS, entry
        assert entry["peak"] < 2**30, entry
    for hours in ("ten-hours.flac", "ten-hours.mp4", "ten-hours-said.flac"):
        assert found[hours]["outcome"] == "too-long"
        assert found[hours]["bytes"] < 10_000
