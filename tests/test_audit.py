"""The audit of what Earmark is built on: it fails for what is known, and where nobody could be asked."""

import json
import runpy
import subprocess
from datetime import UTC, datetime
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
AWAY = "requests.exceptions.ConnectionError: no such host"
ADVISORY = """
id: PYSEC-2
affected:
- package: {{name: jinja2, ecosystem: PyPI}}
  ranges:
  - type: GIT
    events: [{{introduced: "0"}}, {{fixed: abc}}]
  - type: ECOSYSTEM
    events: [{{introduced: "2.0"}}, {{fixed: "3.1.4"}}]
  versions: ["2.0", "3.1.3"]
modified: "{modified}"
"""


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets what pip-audit says: of packages, or in its complaint."""
    monkeypatch.delenv("EARMARK_ADVISORIES", raising=False)

    def set_to(packages: Any) -> None:
        def run(*args: Any, **kwargs: Any) -> subprocess.CompletedProcess[str]:
            if isinstance(packages, str):
                return subprocess.CompletedProcess(args, 1, "", packages)
            return subprocess.CompletedProcess(args, 0, json.dumps({"dependencies": packages}), "")

        monkeypatch.setattr(subprocess, "run", run)

    return set_to


@pytest.mark.parametrize(
    ("packages", "status", "said"),
    [
        ([GOOD], 0, "1 of 1 packages audited by PyPI, 0 vulnerabilities"),
        ([GOOD, FLAWED, SKIPPED], 1, "jinja2 2.0: PYSEC-1, mended in 3.1\n2 of 3 packages"),
        ([SKIPPED], 2, "NOT AUDITED"),
        (AWAY, 2, "NOT AUDITED"),
        ("ERROR: requirements.lock is no such file", 2, "no such file"),
    ],
)
def test_an_audit_says_what_came_of_it(
    packages: Any, status: int, said: str, says: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    says(packages)
    assert runpy.run_path(str(AUDIT))["main"]() == status
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("pinned", "modified", "status", "said"),
    [
        ("Jinja2==3.1.3", "now", 1, "Jinja2 3.1.3: PYSEC-2, mended in 3.1.4"),
        ("jinja2==2.5", "now", 1, "jinja2 2.5: PYSEC-2"),
        ("jinja2==3.1.4", "now", 0, "1 of 1 packages audited by the copy of"),
        ("jinja2==1.9", "now", 0, "0 vulnerabilities"),
        ("jinja2==3.1.4", "2024-10-10T00:00:00Z", 2, "NOT AUDITED"),
    ],
)
def test_without_pypi_a_recent_copy_of_the_advisories_is_read(
    pinned: str,
    modified: str,
    status: int,
    said: str,
    says: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    says(AWAY)
    folder = tmp_path / "copy" / "vulns" / "jinja2"
    folder.mkdir(parents=True)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    when = now if modified == "now" else modified
    (folder / "PYSEC-2.yaml").write_text(ADVISORY.format(modified=when))
    requirements = tmp_path / "requirements.lock"
    requirements.write_text(f"{pinned} \\\n    --hash=sha256:00\n")
    monkeypatch.setenv("EARMARK_ADVISORIES", str(tmp_path / "copy"))
    assert runpy.run_path(str(AUDIT))["main"](str(requirements)) == status
    assert said in capsys.readouterr().out
