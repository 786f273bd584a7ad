"""Whether a package that requirements.lock pins has a known vulnerability, by pip-audit.

    python .ci/audit.py [REQUIREMENTS]

Exit status: 0 none is known, 1 some are, each a line, or the file could not be audited. Where the advisories
cannot be reached nothing was audited: that is said, and is no failure of what was to be audited.
"""

import json
import re
import subprocess
import sys

_UNREACHABLE = re.compile(r"ConnectionError|ConnectTimeout|ReadTimeout|ServiceError")


def main(requirements: str = "requirements.lock") -> int:
    """Audit, and say what came of it."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip_audit", "--requirement", requirements, "--require-hashes"),
            *("--disable-pip", "--format", "json", "--progress-spinner", "off", "--timeout", "30"),
        ],
        capture_output=True,
        text=True,
    )
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:  # it ended before it had an answer
        if not _UNREACHABLE.search(done.stderr):
            print(done.stderr)
            return 1
        packages = []
    audited = [package for package in packages if "skip_reason" not in package]
    if not audited:
        print("NOT AUDITED: no advisories could be reached, so no package was looked up")
        return 0
    found = [(package, flaw) for package in audited for flaw in package["vulns"]]
    for package, flaw in found:
        mended = ", ".join(flaw["fix_versions"]) or "no version yet"
        print(f"{package['name']} {package['version']}: {flaw['id']}, mended in {mended}")
    print(f"{len(audited)} of {len(packages)} packages audited, {len(found)} vulnerabilities")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
