"""Kernels are compiled also where nothing can be written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = """
import numba
from fingerprint.encoder import _to_unit_length
import numpy as np
_to_unit_length(np.ones((3, 4), np.float32))
print(numba.config.CACHE_DIR)
"""


@pytest.fixture
def read_only(tmp_path) -> Path:
    """An installation beside whose files no cache can be made, also by root."""
    shutil.copytree(ROOT / "fingerprint", tmp_path / "fingerprint", ignore=_kept_out)
    for folder in (tmp_path / "fingerprint", tmp_path / "fingerprint" / "training"):
        (folder / "__pycache__").touch()
    return tmp_path


def _kept_out(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "__pycache__"]


def run(folder: Path, temporary: Path) -> "subprocess.CompletedProcess[str]":
    clean = {name: text for name, text in os.environ.items() if not name.startswith("NUMBA")}
    nowhere = {"HOME": "/proc/nowhere", "XDG_CACHE_HOME": "/proc/nowhere", "TMPDIR": str(temporary)}
    return subprocess.run(
        [sys.executable, "-B", "-c", PROGRAM],
        cwd=folder,
        env=clean | nowhere | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_they_are_kept_among_temporary_files_where_nothing_else_can_be_written(read_only):
    temporary = read_only / "tmp"
    temporary.mkdir()
    done = run(read_only, temporary)
    assert (done.returncode, done.stderr) == (0, "")
    kept = Path(done.stdout.strip())
    assert kept.parent == temporary and list(kept.rglob("*.nbi"))
    assert kept.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_can_write_to_is_not_used_and_that_is_told_once(read_only):
    temporary = read_only / "tmp"
    (temporary / f"earmark-numba-{os.getuid()}").mkdir(parents=True)
    (temporary / f"earmark-numba-{os.getuid()}").chmod(0o777)
    done = run(read_only, temporary)
    assert (done.returncode, done.stdout) == (0, "\n")
    assert done.stderr.count("\n") == 1 and "NUMBA_CACHE_DIR" in done.stderr
