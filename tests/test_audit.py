"""The audit of what Earmark is built on: it fails for what is known, and says where nobody could be asked."""

import json
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest

AUDIT = Path(__file__).parent.parent / ".ci" / "audit.py"
GOOD = {"name": "numpy", "version": "2.0", "vulns": []}
FLAWED = {
    "name": "jinja2",
    "version": "2.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["3.1"], "aliases": [], "description": ""}],
}
SKIPPED = {"name": "av", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "status", "said"),
    [
        ([GOOD], 0, "1 of 1 packages audited, 0 vulnerabilities"),
        ([GOOD, FLAWED, SKIPPED], 1, "jinja2 2.0: PYSEC-1, mended in 3.1\n2 of 3 packages"),
        ([SKIPPED], 0, "NOT AUDITED"),
        ("requests.exceptions.ConnectionError: no such host", 0, "NOT AUDITED"),
        ("ERROR: requirements.lock is no such file", 1, "no such file"),
    ],
)
def test_an_audit_says_what_came_of_it(
    packages: Any,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*args: Any, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        if isinstance(packages, str):
            return subprocess.CompletedProcess(args, 1, "", packages)
        return subprocess.CompletedProcess(args, 0, json.dumps({"dependencies": packages}), "")

    monkeypatch.setattr(subprocess, "run", run)
    assert runpy.run_path(str(AUDIT))["main"]() == status
    assert said in capsys.readouterr().out
