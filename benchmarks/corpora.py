"""Freely licensed real music, speech, noise and impulse responses, by package.

    python -m benchmarks.corpora fetch [--split train|tune|report|smoke] [--package NAME ...]
    python -m benchmarks.corpora list [--split ...] [--kind ...]

Packages are Debian's, of the machine's suite or another one, or public git repositories at a commit (see
`sources`); nothing is installed and no root is needed. They are kept outside this repository, in
`${EARMARK_CACHE:-~/.cache/earmark}`:

    packages/<package>/<path as in the catalogue>   audio files only, packs opened (see `carve`)
    packages/<package>/_copyright, _version         `_version` is written last: it marks a whole package
    rendered/<id>.flac                              modules and MIDI as audio (see `render`)

`data/catalogue.csv` lists what is worth using. Splits are by package and share no artist:

    train   the encoder, its codebooks and everything else that is fitted
    tune    constants and choices
    report  published figures; never looked at otherwise
    smoke   one small package of the report split, for end-to-end tests

Rows of one recording (the same audio in several files) share a `group`; one of them is `primary`, the one
to put in a library.
"""

from __future__ import annotations

import csv
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import click
from tqdm import tqdm

from benchmarks.carve import collect
from benchmarks.render import LONGEST, render
from benchmarks.sources import DATA, CorpusError, Source, clone, download_from_suite, run, sources

SPLITS = ("train", "tune", "report", "smoke")
MUSIC = ("music", "rendered-module", "rendered-midi")
KINDS = (*MUSIC, "noise", "speech", "impulse-response")
SHORTEST_WORK = 30.0  # s; shorter pieces of music are jingles

SCORES_PACKAGE = "pypi-music21"  # scores that come as a Python package, turned into MIDI files here
SCORES_REQUIREMENT = "music21==10.5.1"


@dataclass(frozen=True)
class Item:
    """One row of the catalogue: a recording that some package holds."""

    id: str
    split: str  # train, tune or report
    kind: str  # one of KINDS
    package: str
    member: str  # path below the package's folder
    duration: float  # s; of a rendered item at most `render.LONGEST`
    licence: str
    title: str
    artist: str  # "" if unknown
    group: str  # items that are the same recording share it
    primary: bool

    @property
    def path(self) -> Path:
        """The file as the package holds it (it need not be there yet)."""
        return packages_folder() / self.package / self.member

    @property
    def rendered(self) -> bool:
        """Whether the file has to be rendered before it can be heard."""
        return self.kind.startswith("rendered-")

    def audio(self) -> Path:
        """A playable file of this item; a module or MIDI file is rendered when first asked for.

        Raises `CorpusError` if its package has not been fetched, `RenderError` if it cannot be rendered.
        """
        if self.rendered:
            target = cache_folder() / "rendered" / f"{self.id}.flac"
            if target.is_file():
                return target
        if not self.path.is_file():
            raise CorpusError(
                f"{self.path} is missing: run python -m benchmarks.corpora fetch --package {self.package}"
            )
        return render(self.path, target) if self.rendered else self.path


def cache_folder() -> Path:
    """Where corpora are kept: `EARMARK_CACHE`, or ~/.cache/earmark."""
    return Path(os.environ.get("EARMARK_CACHE") or Path.home() / ".cache" / "earmark")


def packages_folder() -> Path:
    """The unpacked packages."""
    return cache_folder() / "packages"


@functools.cache
def packages(split: str) -> tuple[str, ...]:
    """Names of the packages of a split."""
    if split not in SPLITS:
        raise CorpusError(f"there is no split {split!r}: choose one of {', '.join(SPLITS)}")
    lines = (DATA / f"packages-{split}.txt").read_text().splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


@functools.cache
def catalogue() -> tuple[Item, ...]:
    """Every known item, fetched or not."""
    home = {package: split for split in ("train", "tune", "report") for package in packages(split)}
    with (DATA / "catalogue.csv").open(newline="", encoding="utf-8") as file:
        return tuple(_item(row, home[row["package"]]) for row in csv.DictReader(file))


def _item(row: dict[str, str], split: str) -> Item:
    duration = float(row["duration"])
    return Item(
        id=row["id"],
        split=split,
        kind=row["kind"],
        package=row["package"],
        member=row["path"],
        duration=min(duration, LONGEST) if row["kind"].startswith("rendered-") else duration,
        licence=row["licence"] or "see the package's _copyright",
        title=row["title"] or Path(row["path"]).stem,
        artist=row["artist"],
        group=row["group"] or row["id"],
        primary=row["primary"] == "1",
    )


def items(
    split: str,
    kinds: Sequence[str] = MUSIC,
    *,
    primary: bool = True,
    min_seconds: float | None = None,
    present: bool = True,
) -> list[Item]:
    """Items of a split, in the catalogue's order.

    primary: only one file of each recording.
    min_seconds: shortest duration; by default 30 s for music and none for other kinds.
    present: only what has been fetched (or rendered) already.
    """
    if unknown := set(kinds) - set(KINDS):
        raise CorpusError(f"there is no kind {min(unknown)!r}: choose of {', '.join(KINDS)}")
    wanted = set(packages(split))
    return [
        item
        for item in catalogue()
        if item.package in wanted
        and item.kind in kinds
        and (item.primary or not primary)
        and item.duration >= _shortest(item, min_seconds)
        and (not present or item.path.is_file())
    ]


def _shortest(item: Item, min_seconds: float | None) -> float:
    if min_seconds is not None:
        return min_seconds
    return SHORTEST_WORK if item.kind in MUSIC else 0.0


@dataclass
class Fetched:
    """What `fetch` did."""

    fetched: list[str] = field(default_factory=list)  # packages
    present: list[str] = field(default_factory=list)  # packages that were there already
    failed: dict[str, str] = field(default_factory=dict)  # package: reason
    missing: list[Item] = field(
        default_factory=list
    )  # catalogue rows a fetched package did not hold


def fetch(what: str | Iterable[str], *, workers: int = 2) -> Fetched:
    """Fetch a split (by name) or the given packages. What is there already is not fetched again.

    A package that cannot be had is listed in the result and the others go on. Raises `CorpusError` if
    nothing can be fetched at all: no apt-get, no package lists.
    """
    names = packages(what) if isinstance(what, str) else tuple(what)
    result = Fetched(present=[name for name in names if _complete(name)])
    wanted = [name for name in names if name not in set(result.present)]
    debian = [name for name in wanted if name != SCORES_PACKAGE and not _in_git(name)]
    if debian and len(debian) == len(wanted):
        _require_apt()
    packages_folder().mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(workers) as pool:
        jobs = {pool.submit(_fetch_package, name): name for name in wanted}
        progress = tqdm(as_completed(jobs), total=len(jobs), unit="package", disable=None)
        for job in progress:
            try:
                job.result()
                result.fetched.append(jobs[job])
            except (CorpusError, OSError, subprocess.SubprocessError) as error:
                result.failed[jobs[job]] = str(error)
    whole = set(result.fetched) | set(result.present)
    result.missing = [i for i in catalogue() if i.package in whole and not i.path.is_file()]
    return result


def _in_git(package: str) -> bool:
    return package in sources() and sources()[package].kind == "git"


def _complete(package: str) -> bool:
    """Whether it is there; of a repository, at the commit that is wanted now."""
    version = packages_folder() / package / "_version"
    if not version.is_file():
        return False
    return not _in_git(package) or version.read_text().strip() == sources()[package].revision


def _require_apt() -> None:
    for program in ("apt-get", "dpkg-deb"):
        if not shutil.which(program):
            raise CorpusError(
                f"{program} was not found: the corpora are Debian packages, so fetch them on Debian or "
                "Ubuntu, or point EARMARK_CACHE at a folder that holds them"
            )
    targets = run(["apt-get", "indextargets", "--format", "$(FILENAME)", "Created-By: Packages"])
    if not any(Path(line).is_file() for line in targets.splitlines()):
        raise CorpusError(
            "this machine has no Debian package lists: run 'sudo apt-get update' first"
        )


def _fetch_package(package: str) -> None:
    """Download, unpack and put in place one package, whole or not at all."""
    final = packages_folder() / package
    with tempfile.TemporaryDirectory(dir=packages_folder(), prefix=".partial-") as folder:
        collected = Path(folder, package)
        collected.mkdir()
        if package == SCORES_PACKAGE:
            version = _collect_scores(collected)
        elif _in_git(package):
            version = _collect_git(sources()[package], Path(folder), collected)
        else:
            version = _collect_debian(package, Path(folder), collected)
        (collected / "_version").write_text(version + "\n")
        if _complete(package):
            return  # another process was faster
        shutil.rmtree(final, ignore_errors=True)
        os.replace(collected, final)


def _collect_git(source: Source, folder: Path, collected: Path) -> str:
    """Fills `collected` with the audio of a repository; returns the commit."""
    tree = folder / "tree"
    tree.mkdir()
    clone(source, tree)
    _collect(tree, collected)
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md", "COPYING", "README.md"):
        if (tree / name).is_file():
            shutil.copyfile(tree / name, collected / "_copyright")
            break
    return source.revision


def _collect(tree: Path, collected: Path) -> None:
    """As `carve.collect`; a file that cannot be read is an error."""
    if problems := collect(tree, collected):
        raise CorpusError(f"{len(problems)} damaged, first {problems[0]}")


def _collect_debian(package: str, folder: Path, collected: Path) -> str:
    """Fills `collected` with a Debian package's audio; returns the package's version."""
    tree = folder / "tree"
    if package in sources():
        archive = download_from_suite(sources()[package], folder, cache_folder() / "suites")
    else:
        _require_apt()
        archive = _download(package, folder)
    run(["dpkg-deb", "-x", str(archive), str(tree)])
    collect(tree, collected)
    copyright_file = tree / "usr/share/doc" / package / "copyright"
    if copyright_file.is_file():
        shutil.copyfile(copyright_file, collected / "_copyright")
    return run(["dpkg-deb", "-f", str(archive), "Version"]).strip()


def _download(package: str, folder: Path) -> Path:
    """A package of the machine's own suite, in `folder`."""
    # As root, apt would hand the download to a user of its own who may not write here.
    try:
        run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package], cwd=folder)
    except CorpusError as error:
        raise CorpusError(
            f"{error} (are the package lists old? run 'sudo apt-get update')"
        ) from None
    return next(folder.glob("*.deb"))


# Run in an interpreter of its own, so that music21 need not be installed beside Earmark.
# A score in a folder of its own, mozart/k155/movement1.mxl, becomes mozart/k155_movement1.mid.
_WRITE_SCORES = """
import pathlib, sys
from music21 import converter, corpus
destination, *members = sys.argv[1:]
folder = pathlib.Path(corpus.__file__).parent
scores = {}
for path in folder.rglob("*"):
    if path.suffix in (".mxl", ".xml", ".musicxml", ".krn"):
        composer, *rest = path.relative_to(folder).with_suffix("").parts
        scores[composer + "/" + "_".join(rest)] = path
for member in members:
    target = pathlib.Path(destination, member)
    target.parent.mkdir(parents=True, exist_ok=True)
    converter.parse(scores[member.removesuffix(".mid")]).write("midi", target)
"""


def _collect_scores(collected: Path) -> str:
    """Fills `collected` with the catalogue's scores as MIDI files; returns the package's version."""
    members = [item.member for item in catalogue() if item.package == SCORES_PACKAGE]
    with tempfile.TemporaryDirectory(dir=collected.parent) as library:
        # fmt: off
        run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
              "--target", library, SCORES_REQUIREMENT])
        # fmt: on
        run(
            [sys.executable, "-P", "-c", _WRITE_SCORES, str(collected), *members],
            PYTHONPATH=library,
        )
        shutil.copyfile(Path(library, "music21/corpus/license.txt"), collected / "_copyright")
    return SCORES_REQUIREMENT.partition("==")[2]


@click.group(help="Freely licensed corpora for training and measuring.")
def main() -> None:
    """Command line of this module."""


@main.command("fetch", help="Download and unpack a split, or single packages.")
@click.option("--split", type=click.Choice(SPLITS))
@click.option("--package", "names", multiple=True, help="May be given several times.")
def fetch_command(split: str | None, names: tuple[str, ...]) -> None:
    """Exit status 0: everything is there; 1: some packages could not be had; 2: none could."""
    chosen = [*(packages(split) if split else ()), *names]
    if not chosen:
        chosen = [name for part in ("train", "tune", "report") for name in packages(part)]
    try:
        result = fetch(chosen)
    except CorpusError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    for name, reason in sorted(result.failed.items()):
        click.echo(f"failed: {name}: {reason}", err=True)
    for item in result.missing:
        click.echo(f"not in this version of {item.package}: {item.member}", err=True)
    click.echo(
        f"{len(result.fetched)} packages fetched, {len(result.present)} were there, "
        f"{len(result.failed)} failed; in {packages_folder()}"
    )
    sys.exit(1 if result.failed else 0)


@main.command("list", help="The catalogue as CSV, fetched or not.")
@click.option("--split", type=click.Choice(SPLITS), multiple=True, help="Default: all.")
@click.option("--kind", type=click.Choice(KINDS), multiple=True, help="Default: all.")
@click.option(
    "--playable", is_flag=True, help="Only what is fetched, once each, rendered if need be."
)
def list_command(split: tuple[str, ...], kind: tuple[str, ...], playable: bool) -> None:
    """One line per item: id, kind, package, licence, duration (s), title, path in the cache."""
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(("id", "kind", "package", "licence", "duration", "title", "path"))
    for part in split or ("train", "tune", "report"):
        for i in items(part, kind or KINDS, primary=playable, min_seconds=0.0, present=playable):
            path = i.audio() if playable else i.path
            table.writerow((i.id, i.kind, i.package, i.licence, f"{i.duration:.2f}", i.title, path))


if __name__ == "__main__":
    main()
