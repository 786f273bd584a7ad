"""A library in a folder that is read-only: it answers, and refuses to be changed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from command import Earmark
from patience import PATIENCE

# Root may write what nobody may write, unless it gives that up.
SUBJECT_TO_PERMISSIONS = (
    ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override")
    if os.geteuid() == 0
    else ()
)


class Unforked(Earmark):
    """The command in a process that is started for it."""

    def _run(
        self, arguments: list[str], environment: Mapping[str, str], stdin: bytes
    ) -> tuple[int, bytes, bytes]:
        words = self.command(*arguments)
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=environment,
            input=stdin,
            capture_output=True,
            timeout=PATIENCE,
        )
        return done.returncode, done.stdout, done.stderr


class Reader(Unforked):
    """The command as someone runs it who may not write everywhere."""

    def command(self, *arguments: object) -> list[str]:
        return [*SUBJECT_TO_PERMISSIONS, *super().command(*arguments)]


class Elsewhere(Unforked):
    """The command where the library's file system is mounted read-only."""

    def command(self, *arguments: object) -> list[str]:
        library = self.environment["EARMARK_LIBRARY"]
        mount = f"mount --bind {library} {library} && mount -o remount,bind,ro {library}"
        run = ["sh", "-c", f'{mount} && exec "$@"', "sh", *super().command(*arguments)]
        return ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else []), *run]


def _allow(library: Path, folder: int, file: int) -> None:
    for path in (library, *library.rglob("*")):
        path.chmod(folder if path.is_dir() else file)


@pytest.fixture(params=["permissions", "mount"])
def reader(request: pytest.FixtureRequest, music: Path, library: Path) -> Iterator[Earmark]:
    """The command, with this test's library of the songs, which it may only read."""
    if request.param == "mount":
        elsewhere = Elsewhere(music, library)
        may_mount = subprocess.run(elsewhere.command("--help"), capture_output=True, check=False)
        if may_mount.returncode:
            pytest.skip("nothing may be mounted here")
        yield elsewhere
    else:
        _allow(library, 0o555, 0o444)
        yield Reader(music, library)
    _allow(library, 0o755, 0o644)


def test_it_answers(reader: Earmark, tmp_path: Path) -> None:
    (answer,) = reader.lines("query", "clip.wav")
    assert [match["source"] for match in answer["matches"]] == ["song-1.flac"]
    (info,) = reader.lines("info")
    listed = reader.lines("list")
    assert info["recordings"] == len(listed)
    assert reader.lines("show", listed[0]["id"]) == listed[:1]
    assert "all is well" in reader("verify").stdout
    reader("snapshot", tmp_path / "copy")
    copy = Earmark(reader.folder, tmp_path / "copy")
    assert copy.lines("list") == listed


KILLED = """
import os, sys
from pathlib import Path
from fingerprint.encoder import Encoder
from index.library import Library
with Library.open(Path(sys.argv[1]), Encoder.load()).writer() as writer:
    writer.remove(sys.argv[2])
    writer.commit()
    os._exit(0)
"""


def test_it_answers_after_a_writer_that_was_killed(reader: Earmark) -> None:
    """SQLite's log is there then, and holds what was committed last."""
    library = Path(reader.environment["EARMARK_LIBRARY"])
    before = {line["id"] for line in reader.lines("list")}
    removed = min(before)
    _allow(library, 0o755, 0o644)
    subprocess.run([sys.executable, "-c", KILLED, str(library), removed], check=True)
    assert (library / "catalogue.sqlite-wal").stat().st_size
    _allow(library, 0o555, 0o444)
    assert {line["id"] for line in reader.lines("list")} == before - {removed}


def test_it_is_not_changed(reader: Earmark, music: Path, tmp_path: Path) -> None:
    library = Path(reader.environment["EARMARK_LIBRARY"])
    before = {path: path.stat().st_mtime_ns for path in library.rglob("*")}
    id = reader.lines("list")[0]["id"]
    changes = tmp_path / "changes.csv"
    changes.write_text(f"id,title\n{id},Other\n")
    other = shutil.copy(music / "unknown.wav", tmp_path / "other.wav")
    for command in (
        ("ingest", other, "--rightsholder", "Me", "--rights", "owned"),
        ("change", changes),
        ("remove", id),
        ("compact",),
        ("keys", "create", "--owner", "Me", "--scope", "query"),
    ):
        done = reader(*command, status=3)
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert "cannot be written" in line and str(library) in line
    assert {path: path.stat().st_mtime_ns for path in library.rglob("*")} == before


def test_none_can_be_made_there(reader: Earmark, tmp_path: Path) -> None:
    library = Path(reader.environment["EARMARK_LIBRARY"])
    inside = library / "new"
    done = reader(
        *("ingest", "clip.wav", "--rightsholder", "Me", "--rights", "owned"),
        *("--library", inside),
        status=3,
    )
    (line,) = done.stderr.splitlines()
    assert str(inside) in line
