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
from service.datasets.location import DatasetError, is_folder
from service.datasets.source import identify
from service.datasets.walk import members
from service.scan.journal import Journal, JournalError

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
    if place is in_zip:  # an archive of a few bytes cannot have it
        assert member.problem is not None and member.problem.type == "too-large"
        return
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


def test_names_that_are_not_utf_8_are_told_apart(tmp_path: Path) -> None:
    odd = [
        b"x\xfe",
        b"x\xff",
        b"x\\xfe",
        b"x\\x5cxfe",
        b"x\\\xfe",
        "x\N{REPLACEMENT CHARACTER}".encode(),
    ]
    for name in odd:
        (tmp_path / os.fsdecode(name)).mkdir()
        (tmp_path / os.fsdecode(name + b"/a.ogg")).write_bytes(SOUND)
        with zipfile.ZipFile(tmp_path / os.fsdecode(name + b".zip"), "w") as archive:
            archive.writestr("a.ogg", SOUND)
    found = [(it.file, it.index) for it in members(tmp_path)]
    assert len(set(found)) == len(found) == 2 * len(odd)
    assert ("x\\xfe/a.ogg", 0) in found and ("x\\xff.zip", 0) in found
    assert all(file.encode() for file, _ in found)


def test_what_is_said_of_a_sound_in_a_tar_is_not_said_of_another_name(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "dump.tar", "w") as archive:
        for name, data in ((b"\xfe.json", b'{"title": "Dawn"}'), (b"\xff.ogg", SOUND)):
            info = tarfile.TarInfo(os.fsdecode(name))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    (member,) = members(tmp_path / "dump.tar")
    assert (member.member, member.labels) == ("\\xff.ogg", {})


PNG, WEBP = b"\x89PNG\r\n\x1a\n picture", b"RIFF\0\0\0\0WEBPVP8 "


def parquet(path: Path, rows: list[dict[str, Any]], kinds: dict[str, str] | None = None) -> Path:
    """A Parquet file, with Hugging Face's metadata about the kinds of its columns."""
    table = pa.Table.from_pylist(rows)
    if kinds is not None:
        features = {column: {"_type": kind} for column, kind in kinds.items()}
        said = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(said)
    pq.write_table(table, path)
    return path


def cell(data: bytes | None, path: str | None = None) -> dict[str, Any]:
    return {"bytes": data, "path": path}


def test_every_column_of_sounds_is_read_and_pictures_are_passed_over(tmp_path: Path) -> None:
    rows = [
        {"image": cell(PNG), "vocals": cell(SOUND, "v.wav"), "rest": cell(SOUND, "r.wav"), "n": 0},
        {"image": cell(WEBP), "vocals": cell(None), "rest": cell(SOUND), "n": 1},
        {"image": cell(None, "2.JPG"), "vocals": cell(None), "rest": cell(None), "n": 2},
    ]
    dump = parquet(tmp_path / "dump.parquet", rows)
    assert names(dump) == ["row 0, vocals: v.wav", "row 0, rest: r.wav", "row 1, rest"]
    assert "the row has no sound" in problems(dump)["row 2"]
    indexes = [it.index for it in members(dump)]
    assert len(set(indexes)) == 4
    more = parquet(tmp_path / "more.parquet", rows, {"image": "Image", "vocals": "Audio"})
    assert [it.index for it in members(more)] == indexes


def test_hugging_face_says_which_columns_are_pictures(tmp_path: Path) -> None:
    rows = [{"image": cell(b"a TIFF", "0.tif"), "audio": cell(SOUND, "0.wav")}]
    said = parquet(tmp_path / "said.parquet", rows, {"image": "Image", "audio": "Audio"})
    assert names(said) == ["row 0, audio: 0.wav"]
    assert problems(said) == {}
    for row in rows:
        del row["audio"]
    with pytest.raises(DatasetError, match="no column holds sounds"):
        list(members(parquet(tmp_path / "none.parquet", rows, {"image": "Image"})))


def test_one_column_of_sounds_is_named_by_its_rows(tmp_path: Path) -> None:
    rows = [{"audio": cell(SOUND, "0.wav")}, {"audio": cell(PNG)}, {"audio": None}]
    found = list(members(parquet(tmp_path / "dump.parquet", rows)))
    assert [(it.member, it.index) for it in found] == [
        ("row 0: 0.wav", 0),
        ("row 1", 1),
        ("row 2", 2),
    ]
    assert [it.problem is None for it in found] == [True, True, False]


def test_a_place_that_may_not_be_looked_at_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Any, **_: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", denied)
        with pytest.raises(DatasetError, match="Permission denied"):
            is_folder(tmp_path / "dump")
        with pytest.raises(JournalError, match="Permission denied"):
            Journal.open(tmp_path / "report", {}, {}, resume=False)
    with pytest.raises(DatasetError, match="File name too long"):
        is_folder(tmp_path / ("a" * 300))
    with pytest.raises(JournalError, match="File name too long"):
        Journal.open(tmp_path / ("a" * 300), {}, {}, resume=False)
