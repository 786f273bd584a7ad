"""A dataset's members: what is hostile, closed, linked or out of reach is told of, and costs nothing."""

import gzip
import io
import json
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fingerprint.audio import Limits
from fingerprint.errors import AudioError
from service.dataset import members
from service.place import DatasetError
from service.source import identify

HUGE = 20 * 2**30  # bytes
SOUND = b"no sound, but nobody listens here"


def problems(dataset: Path) -> dict[str, str]:
    """Why each member that cannot be read cannot."""
    return {
        it.member or it.file: it.problem.detail for it in members(dataset) if it.problem is not None
    }


def names(dataset: Path) -> list[str]:
    """Members that can be read."""
    return [it.member or it.file for it in members(dataset) if it.problem is None]


def with_holes(path: Path, head: bytes, size: int) -> Path:
    """A file that begins so and is zero from there to its size, which the disk does not hold."""
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)
    return path


def in_folder(folder: Path) -> Path:
    with_holes(folder / "huge.wav", b"RIFF", HUGE)
    return folder


def in_tar(folder: Path) -> Path:
    info = tarfile.TarInfo("huge.wav")
    info.size = HUGE
    return with_holes(folder / "dump.tar", info.tobuf(), HUGE + 3 * 512)


def in_zip(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "dump.zip", "w") as archive:
        archive.writestr("huge.wav", SOUND)
        archive.filelist[0].file_size = archive.filelist[0].compress_size = HUGE
    return folder / "dump.zip"


@pytest.mark.parametrize("place", [in_folder, in_tar, in_zip], ids=lambda it: it.__name__)
def test_a_member_of_20_gb_is_refused_unread(
    place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (member,) = members(place(tmp_path))
    assert member.source is not None
    source = member.source
    monkeypatch.setattr(type(source), "open", lambda self: _Unread())
    with pytest.raises(AudioError, match="larger than 4,096 MiB") as error:
        identify(source, member.name, Limits())
    assert error.value.type == "too-large"


class _Unread(io.RawIOBase):
    def read(self, size: int = -1) -> bytes:
        raise AssertionError("it was read")


def test_archives_that_are_not_looked_into_are_told_of(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        for name in ("a.ogg", "in.zip", "in.tar.zst", "in.parquet", "in.7z", "notes.txt"):
            archive.writestr(name, SOUND)
    (tmp_path / "dump.zip").write_bytes(inner.getvalue())
    for name in ("closed.rar", "closed.tar.bz2", "letter.txt"):
        (tmp_path / name).write_bytes(SOUND)
    assert names(tmp_path) == ["a.ogg"]
    said = problems(tmp_path)
    assert set(said) == {
        *("in.zip", "in.tar.zst", "in.parquet", "in.7z"),
        *("closed.rar", "closed.tar.bz2"),
    }
    assert all("archive" in detail for detail in said.values())
    with pytest.raises(DatasetError, match="pack it as tar or zip"):
        list(members(tmp_path / "closed.rar"))


def test_links_in_a_tar_are_told_of(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "dump.tar", "w") as archive:
        for name, kind in (("a.ogg", None), ("b.ogg", tarfile.LNKTYPE), ("c.ogg", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            if kind is None:
                info.size = len(SOUND)
            else:
                info.type, info.linkname = kind, "a.ogg"
            archive.addfile(info, io.BytesIO(SOUND))
    assert names(tmp_path / "dump.tar") == ["a.ogg"]
    assert {
        name: "link to a.ogg" in why for name, why in problems(tmp_path / "dump.tar").items()
    } == {
        "b.ogg": True,
        "c.ogg": True,
    }


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_tar_whose_names_would_fill_the_memory_is_damaged(kind: bytes, tmp_path: Path) -> None:
    info = tarfile.TarInfo("name")
    info.type, info.size = kind, 4 * 2**30
    head = info.tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "dump.tar.gz").write_bytes(gzip.compress(head + bytes(2**16)))
    assert "a header of 4,096 MiB" in problems(tmp_path / "dump.tar.gz")["dump.tar.gz"]


def test_a_table_that_unpacks_to_nothing_is_damaged(tmp_path: Path) -> None:
    table = pa.table({"audio": pa.array([bytes(300 * 2**20)], pa.binary())})
    pq.write_table(table, tmp_path / "dump.parquet", compression="zstd", use_dictionary=False)
    assert "of almost nothing" in problems(tmp_path / "dump.parquet")["dump.parquet"]


def test_a_manifest_that_is_cut_off_is_read_up_to_there(tmp_path: Path) -> None:
    lines = "".join(
        json.dumps({"path": f"{n}.ogg", "x": os.urandom(40).hex()}) + "\n" for n in range(2000)
    )
    whole = gzip.compress(lines.encode())
    (tmp_path / "dump.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    rows = names(tmp_path / "dump.jsonl.gz")
    assert 500 < len(rows) < 1500
    said = problems(tmp_path / "dump.jsonl.gz")
    assert f"what comes after {len(rows)} rows is not looked at" in said["dump.jsonl.gz"]
    (tmp_path / "noise.csv.gz").write_bytes(b"no gzip at all")
    with pytest.raises(DatasetError, match="cannot be read"):
        list(members(tmp_path / "noise.csv.gz"))


def test_a_manifests_long_fields_cost_nothing(tmp_path: Path) -> None:
    lyrics = "la " * 100_000
    (tmp_path / "dump.csv").write_text(f"file,lyrics\na.ogg,{lyrics}\nb.ogg,-\n")
    assert names(tmp_path / "dump.csv") == ["row 0: a.ogg", "row 1: b.ogg"]


def test_a_folder_that_cannot_be_read_is_told_of_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.ogg").write_bytes(SOUND)
    scandir = os.scandir

    def denied(path: Any) -> Any:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert names(tmp_path) == ["a/x.ogg", "c/x.ogg"]
    assert "Permission denied" in problems(tmp_path)["b"]


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["tar", "tar.gz"])
def test_a_tar_with_a_damaged_header_is_read_up_to_there_and_told_of(
    pack: Any, tmp_path: Path
) -> None:
    info = tarfile.TarInfo("a.ogg")
    info.size = len(SOUND)
    data = info.tobuf() + SOUND.ljust(512, b"\0") + b"broken" * 2000
    path = tmp_path / ("dump.tar" if pack is bytes else "dump.tar.gz")
    path.write_bytes(pack(data))
    assert names(path) == ["a.ogg"]
    assert "is damaged (a member's header: invalid header)" in problems(path)[path.name]
