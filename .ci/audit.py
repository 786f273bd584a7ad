"""Whether a package that requirements.lock pins has a known vulnerability.

    python .ci/audit.py [REQUIREMENTS]
    EARMARK_ADVISORIES=advisory-database python .ci/audit.py

pip-audit asks PyPI. Where PyPI cannot be reached, a checkout of github.com/pypa/advisory-database is read
instead, if EARMARK_ADVISORIES names one of the last 90 days.

Exit status: 0 no vulnerability is known; 1 some are, a line each; 2 nothing was audited, which is no pass.
"""

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

_UNREACHABLE = re.compile(r"ConnectionError|ConnectTimeout|ReadTimeout|ServiceError")
_OLDEST = timedelta(days=90)  # of a copy that can still be relied on


def main(requirements: str = "requirements.lock") -> int:
    """Audit, and say what came of it."""
    packages = _asked(requirements)
    if packages is None:
        return 2
    by = "PyPI"
    if not any("skip_reason" not in package for package in packages):
        copy = os.environ.get("EARMARK_ADVISORIES")
        if not copy:
            print(
                "NOT AUDITED: PyPI cannot be reached, and EARMARK_ADVISORIES names no checkout of "
                "pypa/advisory-database"
            )
            return 2
        newest = _newest(Path(copy))
        if newest is None or datetime.now(UTC) - newest > _OLDEST:
            when = f"of {newest:%Y-%m-%d}" if newest else "nothing that can be read"
            print(f"NOT AUDITED: {copy} is {when}; fetch it anew")
            return 2
        packages, by = looked_up(requirements, Path(copy)), f"the copy of {newest:%Y-%m-%d}"
    audited = [package for package in packages if "skip_reason" not in package]
    found = [(package, flaw) for package in audited for flaw in package["vulns"]]
    for package, flaw in found:
        mended = ", ".join(flaw["fix_versions"]) or "no version yet"
        print(f"{package['name']} {package['version']}: {flaw['id']}, mended in {mended}")
    print(
        f"{len(audited)} of {len(packages)} packages audited by {by}, {len(found)} vulnerabilities"
    )
    return 1 if found else 0


def _asked(requirements: str) -> list[dict[str, Any]] | None:
    """What pip-audit says of each package; empty where PyPI is away, None for what cannot be read."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip_audit", "--requirement", requirements, "--require-hashes"),
            *("--disable-pip", "--format", "json", "--progress-spinner", "off", "--timeout", "30"),
        ],
        capture_output=True,
        text=True,
    )
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
        return packages
    except ValueError:  # it ended before it had an answer
        if _UNREACHABLE.search(done.stderr):
            return []
        print(done.stderr)
        return None


def looked_up(requirements: str, copy: Path) -> list[dict[str, Any]]:
    """The same, of a checkout of the advisories: a file for each, in a folder for each package."""
    import yaml  # type: ignore[import-untyped]
    from packaging.utils import canonicalize_name

    pinned = re.findall(r"^([\w.-]+)==([^\s;]+)", Path(requirements).read_text(), re.MULTILINE)
    packages = []
    for name, version in pinned:
        flaws = []
        for file in sorted((copy / "vulns" / canonicalize_name(name)).glob("*.yaml")):
            advisory = yaml.safe_load(file.read_text())
            if "withdrawn" not in advisory:
                flaws += [
                    {"id": advisory["id"], "fix_versions": _fixes(affected)}
                    for affected in advisory.get("affected", [])
                    if _affects(affected, version)
                ]
        packages.append({"name": name, "version": version, "vulns": flaws})
    return packages


def _affects(affected: dict[str, Any], version: str) -> bool:
    """Whether a version is one of those named, or lies in a range (OSV's schema: introduced, fixed)."""
    from packaging.version import Version

    here = Version(version)
    if version in map(str, affected.get("versions", [])):
        return True
    for events in _events(affected):
        inside = False
        for event in events:
            if "introduced" in event and here >= Version(str(event["introduced"])):
                inside = True
            if "fixed" in event and here >= Version(str(event["fixed"])):
                inside = False
            if "last_affected" in event and here > Version(str(event["last_affected"])):
                inside = False
        if inside:
            return True
    return False


def _fixes(affected: dict[str, Any]) -> list[str]:
    return [str(it["fixed"]) for events in _events(affected) for it in events if "fixed" in it]


def _events(affected: dict[str, Any]) -> list[list[dict[str, Any]]]:
    return [it["events"] for it in affected.get("ranges", []) if it["type"] == "ECOSYSTEM"]


def _newest(copy: Path) -> datetime | None:
    """When the newest advisory of a copy was changed; None where there is none."""
    dates = re.compile(r'^modified: "?([0-9T:.+-]+)', re.MULTILINE)
    found = [
        datetime.fromisoformat(date[1]).replace(tzinfo=UTC)
        for file in (copy / "vulns").glob("*/*.yaml")
        if (date := dates.search(file.read_text()))
    ]
    return max(found, default=None)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
