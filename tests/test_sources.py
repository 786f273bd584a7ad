"""Corpora from git at a commit and from other suites of Debian: whole, or one line of why not."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile as sf

from benchmarks import corpora, sources
from benchmarks.carve import audio_in, collect
from benchmarks.sources import CorpusError, Source


def wave() -> bytes:
    """A WAV file's bytes."""
    buffer = io.BytesIO()
    sf.write(buffer, np.tile([0.25, -0.25], 2000), 8_000, format="WAV")
    return buffer.getvalue()


def sofa(measurements: int = 3) -> bytes:
    """A SOFA file's bytes: response m of receiver r is an impulse at sample 10 m + r."""
    buffer = io.BytesIO()
    responses = np.zeros((measurements, 2, 100))
    for m in range(measurements):
        responses[m, [0, 1], [10 * m, 10 * m + 1]] = 0.5
    with h5py.File(buffer, "w") as file:
        file["Data.IR"] = responses
        file["Data.SamplingRate"] = np.array([16_000.0])
    return buffer.getvalue()


@pytest.fixture
def git(tmp_path: Path) -> Callable[..., str]:
    """Runs git in a repository that holds music, another folder and a measured room."""
    home = tmp_path / "upstream"
    home.mkdir()

    def run(*words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", "-C", home, *identity, *words], check=True, capture_output=True, text=True
        ).stdout.strip()

    run("init", "--quiet", "--initial-branch=main")
    run("config", "uploadpack.allowFilter", "true")
    run("config", "uploadpack.allowAnySHA1InWant", "true")
    for name, data in (
        ("LICENSE", b"free"),
        ("music/a.wav", wave()),
        ("sounds/b.wav", wave()),
        ("room.sofa", sofa()),
    ):
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_bytes(data)
    run("add", ".")
    run("commit", "--quiet", "-m", "music")
    return run


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("EARMARK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "packages"


@pytest.fixture
def known(
    tmp_path: Path, git: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Source], None]:
    """Makes a source known as the corpora's."""

    def know(source: Source) -> None:
        monkeypatch.setattr(corpora, "sources", lambda: {source.package: source})

    return know


@pytest.fixture
def source(tmp_path: Path, git: Callable[..., str]) -> Source:
    """The repository at its commit, without the folder of other sounds."""
    address = f"file://{tmp_path / 'upstream'}"
    return Source(
        "in-git", "git", address, git("rev-parse", "HEAD"), ("LICENSE", "music", "room.sofa")
    )


def kept(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_a_repository_is_fetched_at_its_commit_and_only_what_is_wanted(
    cache: Path, git: Callable[..., str], source: Source, known: Callable[[Source], None]
) -> None:
    git("rm", "--quiet", "music/a.wav")
    git("commit", "--quiet", "-m", "gone upstream, and still there at the commit")
    known(source)
    assert corpora.fetch(["in-git"]).fetched == ["in-git"]
    assert kept(cache / "in-git") == {
        "_copyright",
        "_version",
        "music/a.wav",
        *(f"room.sofa.d/response-{m:04d}.wav" for m in range(3)),
    }
    assert (cache / "in-git/_version").read_text().strip() == source.revision
    assert (cache / "in-git/_copyright").read_text() == "free"
    assert corpora.fetch(["in-git"]).present == ["in-git"]


def test_a_package_is_fetched_again_if_its_commit_changed(
    cache: Path, git: Callable[..., str], source: Source, known: Callable[[Source], None]
) -> None:
    known(source)
    corpora.fetch(["in-git"])
    git("mv", "music/a.wav", "music/c.wav")
    git("commit", "--quiet", "-m", "renamed")
    known(replace(source, revision=git("rev-parse", "HEAD")))
    assert corpora.fetch(["in-git"]).fetched == ["in-git"]
    assert "music/c.wav" in kept(cache / "in-git") and "music/a.wav" not in kept(cache / "in-git")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"location": "file:///nowhere/at/all"}, "/nowhere/at/all"),
        ({"revision": "f" * 40}, "not our ref"),
        ({"paths": ("no-such-folder",)}, "no-such-folder"),
        ({"location": "http://127.0.0.1:9/gone"}, "127.0.0.1"),
    ],
    ids=["repository gone", "commit gone", "folder gone", "no network"],
)
def test_what_is_gone_is_one_line_and_leaves_nothing_half_done(
    change: dict[str, object],
    reason: str,
    cache: Path,
    source: Source,
    known: Callable[[Source], None],
) -> None:
    known(replace(source, **change))  # type: ignore[arg-type]
    failed = corpora.fetch(["in-git"]).failed["in-git"]
    assert reason in failed and "\n" not in failed
    assert kept(cache) == set()


def test_a_repository_with_a_damaged_file_is_refused(
    tmp_path: Path,
    cache: Path,
    git: Callable[..., str],
    source: Source,
    known: Callable[[Source], None],
) -> None:
    for pack in (tmp_path / "upstream/.git/objects").rglob("*"):
        if pack.is_file() and git("rev-parse", "HEAD:music/a.wav")[2:] == pack.name:
            pack.chmod(0o644)
            pack.write_bytes(b"not what the hash says")
    known(source)
    assert "in-git" in corpora.fetch(["in-git"]).failed
    assert kept(cache) == set()


def test_a_damaged_room_is_named(
    cache: Path,
    tmp_path: Path,
    git: Callable[..., str],
    source: Source,
    known: Callable[[Source], None],
) -> None:
    (tmp_path / "upstream/room.sofa").write_bytes(sofa()[:1000])
    git("commit", "--quiet", "-a", "-m", "cut short")
    known(replace(source, revision=git("rev-parse", "HEAD")))
    assert "room.sofa" in corpora.fetch(["in-git"]).failed["in-git"]
    assert kept(cache) == set()


def test_rooms_come_out_of_sofa_files_as_they_were_measured() -> None:
    found = dict(audio_in("hall.sofa", sofa()))
    assert len(found) == 3
    for m, data in enumerate(found.values()):
        response, rate = sf.read(io.BytesIO(data))
        assert rate == 16_000
        assert response.argmax(axis=0).tolist() == [10 * m, 10 * m + 1]
        assert response.max() == 0.5


def test_a_sofa_file_without_responses_is_said(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["Data.SOS"] = np.zeros(3)
    (tmp_path / "a.sofa").write_bytes(buffer.getvalue())
    problems = collect(tmp_path, tmp_path / "kept")
    assert len(problems) == 1 and "a.sofa" in problems[0] and "SOFA" in problems[0]


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An apt-get that has a mirror of Debian, and of its suites only `trixie`, with one package."""
    programs = tmp_path / "programs"
    programs.mkdir()
    script = programs / "apt-get"
    script.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        '*indextargets*) echo "http://mirror/debian/ Debian";;\n'
        "*update*) for word in $*; do case $word in\n"
        '  Dir::Etc::sourcelist=*) grep -q " trixie " ${word#*=} ||'
        ' { echo "E: no such suite" >&2; exit 100; };;\n'
        "  Dir::State::Lists=*) mkdir ${word#*=}/updated || exit 100;"
        " touch ${word#*=}/main_Packages.lz4;;\n"
        "  esac; done;;\n"
        "*'download there') touch there_1_all.deb;;\n"
        "*) echo 'E: Unable to locate package' >&2; exit 100;;\n"
        "esac\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return script


def test_a_package_of_another_suite_is_downloaded_with_lists_of_its_own(
    apt: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "down"
    folder.mkdir()
    lists = tmp_path / "suites"
    found = sources.download_from_suite(Source("there", "debian", "trixie"), folder, lists)
    assert found == folder / "there_1_all.deb"
    assert (lists / "trixie.list").read_text() == "deb http://mirror/debian/ trixie main contrib\n"


def test_packages_that_are_fetched_side_by_side_share_one_update(apt: Path, tmp_path: Path) -> None:
    """The apt-get here fails if it is told to update twice."""
    folders = [tmp_path / f"down-{i}" for i in range(4)]
    for folder in folders:
        folder.mkdir()

    def download(folder: Path) -> Path:
        source = Source("there", "debian", "trixie")
        return sources.download_from_suite(source, folder, tmp_path / "suites")

    with ThreadPoolExecutor(4) as pool:
        assert all(path.is_file() for path in pool.map(download, folders))


@pytest.mark.parametrize(
    ("package", "suite", "reason"),
    [("gone", "trixie", "Unable to locate"), ("there", "potato", "no such suite")],
)
def test_a_package_or_suite_that_is_gone_is_named(
    package: str, suite: str, reason: str, apt: Path, tmp_path: Path
) -> None:
    with pytest.raises(CorpusError, match=f"{package} of {suite}: {reason}"):
        sources.download_from_suite(Source(package, "debian", suite), tmp_path, tmp_path / "l")


def test_without_a_mirror_of_debian_it_is_said(apt: Path, tmp_path: Path) -> None:
    apt.write_text("#!/bin/sh\necho http://elsewhere/ Ubuntu\n")
    with pytest.raises(CorpusError, match="no mirror of Debian"):
        sources.download_from_suite(Source("there", "debian", "trixie"), tmp_path, tmp_path)


def test_every_source_is_of_a_package_that_the_corpora_list() -> None:
    listed = {name for split in ("train", "tune", "report") for name in corpora.packages(split)}
    assert set(sources.sources()) <= listed
    for source in sources.sources().values():
        assert source.kind in sources.KINDS
        assert source.kind != "git" or len(source.revision) == 40
