"""Environments of peers that are Python packages: one each, outside the repository, made when needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.corpora import cache_folder
from benchmarks.peers.base import PeerError

INSTALL_LIMIT = 900  # s


def environment(name: str, requirements: tuple[str, ...]) -> Path:
    """The interpreter of `<cache>/peers/<name>`, with exactly these requirements installed by pip.

    Raises PeerError if they cannot be installed.
    """
    folder = cache_folder() / "peers" / name
    python = folder / "bin" / "python"
    stamp = folder / "requirements.txt"
    wanted = "\n".join(requirements) + "\n"
    if stamp.is_file() and stamp.read_text() == wanted and python.exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    _run([sys.executable, "-m", "pip", "--python", str(python), "install", "-q", *requirements])
    stamp.write_text(wanted)  # last: it marks a whole environment
    return python


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_LIMIT,
            env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerError(f"it cannot be installed: {error}") from None
    if done.returncode:
        complaints = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = (complaints or done.stderr.strip().splitlines() or ["pip failed"])[0]
        raise PeerError(f"it cannot be installed: {reason.removeprefix('ERROR: ')}")
