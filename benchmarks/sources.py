"""Where packages of the corpora come from when it is not the machine's own Debian suite.

benchmarks/data/sources.csv     package, kind, location, revision, paths

debian   another suite of Debian, whose name is the location (its main and contrib are looked in). The
         machine's own apt-get fetches it, with package lists of its own below the cache: nothing of the
         machine's configuration is read or changed but the mirror's address and Debian's keys.
git      a public repository: location is its address, revision a commit, whose hash vouches for every
         file. Only the files below `paths` (separated by ";") are downloaded.
"""

from __future__ import annotations

import csv
import functools
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import filelock

from fingerprint.errors import EarmarkError

DATA = Path(__file__).parent / "data"
KINDS = ("debian", "git")
TIMEOUT = 3600  # s for one command; the largest package has 860 MB
# A connection of less than so many bytes a second for so many seconds is given up.
SLOWEST, PATIENCE = 1000, 60


class CorpusError(EarmarkError):
    """A corpus cannot be fetched or used."""


@dataclass(frozen=True)
class Source:
    """Where one package is."""

    package: str
    kind: str
    location: str
    revision: str = ""
    paths: tuple[str, ...] = ()


@functools.cache
def sources() -> dict[str, Source]:
    """Sources by package; a package without one is of the machine's own suite."""
    with (DATA / "sources.csv").open(newline="", encoding="utf-8") as file:
        rows = [
            Source(**row | {"paths": tuple(filter(None, row["paths"].split(";")))})
            for row in csv.DictReader(file)
        ]
    return {source.package: source for source in rows}


def run(command: list[str], cwd: Path | None = None, **environment: str) -> str:
    """Standard output of a command; `CorpusError` with its last line of complaint if it fails."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C.UTF-8", **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
    except FileNotFoundError:
        raise CorpusError(f"{command[0]} was not found: install it") from None
    except subprocess.TimeoutExpired:
        raise CorpusError(f"{command[0]} did not finish within {TIMEOUT} s") from None
    if done.returncode:
        complaint = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise CorpusError(complaint.removeprefix("E: ").removeprefix("fatal: "))
    return done.stdout


def clone(source: Source, tree: Path) -> None:
    """Lay the source's files at its commit in `tree`, an empty folder, which keeps no history.

    Raises `CorpusError` if the repository or the commit cannot be had, or lacks one of the paths.
    """
    quiet = {"GIT_TERMINAL_PROMPT": "0"}  # a repository that is gone asks for a password
    slow = ["-c", f"http.lowSpeedLimit={SLOWEST}", "-c", f"http.lowSpeedTime={PATIENCE}"]

    def git(*words: str) -> str:
        return run(["git", *slow, *words], cwd=tree, **quiet)

    try:
        git("init", "--quiet")
        git("remote", "add", "origin", source.location)
        # what is not below the paths is never sent
        git("config", "remote.origin.promisor", "true")
        git("config", "remote.origin.partialclonefilter", "blob:none")
        git("fetch", "--quiet", "--depth=1", "--filter=blob:none", "origin", source.revision)
        git("checkout", "--quiet", source.revision, "--", *(source.paths or (".",)))
        run(["rm", "-rf", ".git"], cwd=tree)
    except CorpusError as error:
        raise CorpusError(
            f"{source.location} at {source.revision[:12]}: {error} (is there a network, and is the "
            "repository still public?)"
        ) from None


def download_from_suite(source: Source, folder: Path, lists: Path) -> Path:
    """A package of another Debian suite, in `folder`; its lists are kept in `lists`.

    Raises `CorpusError` if this machine has no Debian mirror, or the suite lacks the package.
    """
    suite = source.location
    own = run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN)", "Created-By: Packages"]
    )
    mirrors = [line.split()[0] for line in own.splitlines() if line.endswith(" Debian")]
    if not mirrors:
        raise CorpusError(
            f"{source.package} is in Debian's suite {suite}, and this machine has no mirror of Debian"
        )
    lists = lists / suite
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    # beside the lists, where `update` removes what it does not know
    listed = lists.with_suffix(".list")
    line = f"deb {mirrors[0]} {suite} main contrib\n"
    options = {
        "Dir::Etc::sourcelist": str(listed),
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::Lists": str(lists),
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "APT::Sandbox::User": "root",  # as root, apt would hand over to a user who may not write here
    }
    flags = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    try:
        # packages are fetched side by side, and only one may write the lists
        with filelock.FileLock(lists.with_suffix(".lock")):
            if not listed.is_file() or listed.read_text() != line:
                listed.write_text(line)
            if not any(lists.glob("*_Packages*")):
                run(["apt-get", "-qq", *flags, "update"])
        run(["apt-get", "-qq", *flags, "download", source.package], cwd=folder)
    except CorpusError as error:
        raise CorpusError(f"{source.package} of {suite}: {error}") from None
    return next(folder.glob("*.deb"))
