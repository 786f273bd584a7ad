"""`earmark scan`: what a dataset holds, in every container, whatever else is in it, however it ends."""

import csv
import gzip
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import zstandard
from command import Earmark
from hypothesis import given
from hypothesis import strategies as st
from melodies import RATE, melody, played, write
from web import web
from webhdfs import served

from benchmarks.demo.instruments import chip, piano
from fingerprint.errors import AudioError
from service.datasets.location import DatasetError, place
from service.datasets.walk import size_of
from service.runtime.workers import Bounds, WorkerError, Workers
from service.scan.worker import PROBED, SHORT, windows

Report = tuple[dict[str, Any], list[dict[str, str]], list[dict[str, str]]]


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Sounds by name: 8 s of song-2 in the middle of 14 s, 6 s of song-0, and one that is unknown."""
    folder = tmp_path_factory.mktemp("sounds")
    start = round(5 * RATE)
    inside = np.concatenate([melody(77, 3.0), melody(2)[start : start + 8 * RATE], melody(78, 3.0)])
    write(folder / "inside.flac", inside)
    write(folder / "all.ogg", melody(0)[2 * RATE : 8 * RATE])
    write(folder / "unknown.flac", melody(99, 6.0))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def tar_of(files: Iterable[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def report(folder: Path) -> Report:
    summary = json.loads((folder / "summary.json").read_text())
    return summary, rows(folder / "files.csv"), rows(folder / "segments.csv")


def statuses(files: list[dict[str, str]]) -> dict[str, str]:
    return {row["member"] or row["file"]: row["status"] for row in files}


def tagged(sound: bytes, **tags: str) -> bytes:
    """The same sound with tags."""
    samples, rate = soundfile.read(io.BytesIO(sound), dtype="float32")
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", rate, 1, format="OGG") as written:
        for name, value in tags.items():
            setattr(written, name, value)
        written.write(samples)
    return file.getvalue()


SIDECAR = {"title": "Song, the wrong one", "artist": "Somebody"}


def as_folder(folder: Path, sounds: dict[str, bytes]) -> Path:
    return put(folder / "dump", {f"deep/{name}": data for name, data in sounds.items()})


def as_zip(folder: Path, sounds: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(folder / "dump.zip", "w") as archive:
        for name, data in sounds.items():
            archive.writestr(name, data, zipfile.ZIP_DEFLATED)
    return folder / "dump.zip"


def as_tar(folder: Path, sounds: dict[str, bytes]) -> Path:
    (folder / "dump.tar").write_bytes(tar_of(sounds.items()))
    return folder / "dump.tar"


def as_tar_gz(folder: Path, sounds: dict[str, bytes]) -> Path:
    (folder / "dump.tar.gz").write_bytes(gzip.compress(tar_of(sounds.items())))
    return folder / "dump.tar.gz"


def as_tar_zst(folder: Path, sounds: dict[str, bytes]) -> Path:
    (folder / "dump.tar.zst").write_bytes(zstandard.compress(tar_of(sounds.items())))
    return folder / "dump.tar.zst"


def as_parquet(folder: Path, sounds: dict[str, bytes]) -> Path:
    table = [{"audio": {"bytes": data, "path": name}} for name, data in sounds.items()]
    pq.write_table(pa.Table.from_pylist(table), folder / "dump.parquet")
    return folder / "dump.parquet"


def as_jsonl_zst(folder: Path, sounds: dict[str, bytes]) -> Path:
    put(folder / "audio", sounds)
    lines = "".join(json.dumps({"audio_filepath": f"audio/{name}"}) + "\n" for name in sounds)
    (folder / "dump.jsonl.zst").write_bytes(zstandard.compress(lines.encode()))
    return folder / "dump.jsonl.zst"


def as_csv_gz(folder: Path, sounds: dict[str, bytes]) -> Path:
    put(folder / "audio", sounds)
    lines = "".join(f"audio/{name},x\n" for name in sounds)
    (folder / "dump.csv.gz").write_bytes(gzip.compress(f"file,note\n{lines}".encode()))
    return folder / "dump.csv.gz"


CONTAINERS: list[Callable[[Path, dict[str, bytes]], Path]] = [
    as_folder,
    as_zip,
    as_tar,
    as_tar_gz,
    as_tar_zst,
    as_parquet,
    as_jsonl_zst,
    as_csv_gz,
]


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda it: it.__name__)
def test_works_are_found_in_every_container(
    container: Callable[[Path, dict[str, bytes]], Path],
    earmark: Earmark,
    sounds: dict[str, bytes],
    tmp_path: Path,
) -> None:
    dataset = container(tmp_path, sounds)
    earmark("scan", dataset, "--report", tmp_path / "report")
    summary, files, segments = report(tmp_path / "report")
    assert (summary["files"], summary["matched_files"], summary["failed_files"]) == (3, 2, 0)
    found = {Path(row["member"] or row["file"]).name.split()[-1]: row for row in segments}
    assert {name: row["source"] for name, row in found.items()} == {
        "inside.flac": "song-2.flac",
        "all.ogg": "song-0.flac",
    }
    inside = found["inside.flac"]
    assert float(inside["query_start"]) == pytest.approx(3.0, abs=0.75)
    assert float(inside["query_end"]) == pytest.approx(11.0, abs=0.75)
    assert float(inside["reference_start"]) == pytest.approx(5.0, abs=0.75)
    assert float(inside["file_share"]) == pytest.approx(8 / 14, abs=0.12)
    assert float(inside["reference_share"]) == pytest.approx(8 / 20, abs=0.08)
    whole = next(row for row in files if "all.ogg" in (row["member"] or row["file"]))
    assert float(whole["matched_share"]) == pytest.approx(1, abs=0.05)


def test_the_tables_hold_the_same_as_csv_and_as_parquet(
    earmark: Earmark, sounds: dict[str, bytes], tmp_path: Path
) -> None:
    earmark("scan", as_folder(tmp_path, sounds), "--report", tmp_path / "report")
    for name in ("files", "segments"):
        table = pq.read_table(tmp_path / "report" / f"{name}.parquet").to_pylist()
        text = [
            {key: "" if value is None else str(value) for key, value in row.items()}
            for row in table
        ]
        assert text == rows(tmp_path / "report" / f"{name}.csv")


def test_what_a_match_shares_with_other_recordings_is_in_the_tables(
    earmark: Earmark, sounds: dict[str, bytes], tmp_path: Path
) -> None:
    loop = melody(2)[5 * RATE : 13 * RATE]
    write(tmp_path / "sampler.flac", np.concatenate([melody(55, 15.0), loop, melody(56, 15.0)]))
    earmark("ingest", tmp_path / "sampler.flac", "--rightsholder", "Me", "--rights", "owned")
    dataset = put(tmp_path / "dump", {"inside.flac": sounds["inside.flac"]})
    earmark("scan", dataset, "--report", tmp_path / "report")
    table = pq.read_table(tmp_path / "report" / "segments.parquet").to_pylist()
    assert {row["source"] for row in table} == {"song-2.flac", "sampler.flac"}
    for row, text in zip(table, rows(tmp_path / "report" / "segments.csv"), strict=True):
        assert row["tier"] == "review"
        assert row["shared_start"] == pytest.approx(3.0, abs=1.0) == float(text["shared_start"])
        assert row["shared_end"] == pytest.approx(11.0, abs=1.0) == float(text["shared_end"])


def test_another_version_of_a_recording_is_for_review_and_the_report_says_why(
    earmark: Earmark, tmp_path: Path
) -> None:
    write(tmp_path / "piano.flac", played(piano))
    earmark("ingest", tmp_path / "piano.flac", "--rightsholder", "Me", "--rights", "owned")
    dataset = tmp_path / "dump"
    dataset.mkdir()
    write(dataset / "chip.flac", played(chip))
    write(dataset / "piano.ogg", played(piano))
    earmark("scan", dataset, "--report", tmp_path / "report")
    told = {
        (row["file"], row["tier"], row["other_version"])
        for row in pq.read_table(tmp_path / "report" / "segments.parquet").to_pylist()
    }
    assert told == {("chip.flac", "review", True), ("piano.ogg", "match", False)}
    assert "most likely another version" in (tmp_path / "report" / "report.html").read_text()


def test_the_page_names_works_places_and_chances_and_loads_nothing(
    earmark: Earmark, sounds: dict[str, bytes], tmp_path: Path
) -> None:
    names = {f"<script>alert(1)<&script> {name}": data for name, data in sounds.items()}
    earmark("scan", put(tmp_path / "dump", names), "--report", tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert "song-2.flac" in page and "Blue Label" in page and "In a test" in page
    assert "<script" not in page and "src=" not in page and "http" not in page


def test_a_copy_is_counted_and_heard_once(
    earmark: Earmark, sounds: dict[str, bytes], tmp_path: Path
) -> None:
    data = sounds["all.ogg"]
    dataset = put(tmp_path / "dump", {f"{n}.ogg": data for n in range(12)})
    earmark("scan", dataset, "--report", tmp_path / "report")
    summary, files, _ = report(tmp_path / "report")
    assert (summary["files"], summary["matched_files"]) == (12, 12)
    assert summary["different_sounds"] == 1
    assert len({row["sha256"] for row in files}) == 1


def test_labels_are_compared_with_what_is_heard(
    earmark: Earmark, sounds: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "names.csv").write_text(
        "file,title,artist\nsong-0.flac,Dawn,Ada\nsong-2.flac,Dusk,Bo\n"
    )
    names = [
        {"id": row["id"], "title": title, "artist": artist}
        for row in earmark.lines("list")
        for source, title, artist in [("song-0.flac", "Dawn", "Ada"), ("song-2.flac", "Dusk", "Bo")]
        if row["source"] == source
    ]
    with (tmp_path / "change.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["id", "title", "artist"])
        table.writeheader()
        table.writerows(names)
    earmark("change", tmp_path / "change.csv")
    shard = [
        ("0.ogg", sounds["all.ogg"]),
        ("0.json", json.dumps({"title": "DAWN (Remastered)", "artists": ["Ada"]}).encode()),
        ("1.json", json.dumps(SIDECAR).encode()),
        ("1.flac", sounds["inside.flac"]),
        ("2.flac", sounds["unknown.flac"]),
        ("2.json", b"[broken"),
        ("3.ogg", tagged(sounds["all.ogg"], title="dawn", artist="ADA")),
        ("4.ogg", tagged(sounds["all.ogg"], title="Dusk", artist="Bo")),
        ("5.ogg", tagged(sounds["all.ogg"], title="Dusk")),  # by whom?
    ]
    (tmp_path / "shard.tar").write_bytes(tar_of(shard))
    earmark("scan", tmp_path / "shard.tar", "--report", tmp_path / "report")
    summary, files, _ = report(tmp_path / "report")
    assert {row["member"]: row["label"] for row in files} == {
        "0.ogg": "agrees",
        "1.flac": "unresolved",  # the library has no such work
        "2.flac": "",
        "3.ogg": "agrees",  # by the tags in it
        "4.ogg": "differs",
        "5.ogg": "unresolved",
    }
    labels = {"agrees": 2, "differs": 1, "unresolved": 2, "unlabelled": 0}
    assert summary["labels"] == labels
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count("is labelled as another work") == 1
    assert "labelled as another work of the library, Dusk, Bo. Label and sound differ" in page


def test_a_label_of_a_file_for_review_is_not_compared(earmark: Earmark, tmp_path: Path) -> None:
    rights = ("--rightsholder", "Me", "--rights", "owned")
    for name, title in (("piano", "Dawn"), ("other", "Dusk")):
        samples = played(piano) if name == "piano" else melody(61)
        write(tmp_path / f"{name}.flac", samples)
        (tmp_path / "names.csv").write_text(f"file,title,artist\n{name}.flac,{title},Ada\n")
        names = ("--metadata", tmp_path / "names.csv")
        earmark("ingest", tmp_path / f"{name}.flac", *rights, *names)
    sound = io.BytesIO()
    soundfile.write(sound, played(chip), RATE, format="FLAC")
    tagged_one = tagged(sound.getvalue(), title="Dusk", artist="Ada")
    earmark("scan", put(tmp_path / "d", {"a.ogg": tagged_one}), "--report", tmp_path / "report")
    summary, files, _ = report(tmp_path / "report")
    assert [(row["status"], row["label"]) for row in files] == [("review", "")]
    assert (summary["works_found"], summary["works_for_review"]) == (0, 1)
    page = (tmp_path / "report" / "report.html").read_text()
    assert "labelled as another work" not in page and "Files for review" in page


def test_a_report_says_who_asked_what_and_counts_works_by_matches_alone(
    earmark: Earmark, sounds: dict[str, bytes], tmp_path: Path
) -> None:
    silent = io.BytesIO()
    soundfile.write(silent, np.zeros(3 * RATE, np.float32), RATE, format="FLAC")
    both = np.concatenate([melody(0)[2 * RATE : 8 * RATE], melody(77, 3.0), melody(2)[: 6 * RATE]])
    write(tmp_path / "both.flac", both)
    dataset = put(
        tmp_path / "dump",
        {
            "both.flac": (tmp_path / "both.flac").read_bytes(),
            "copies/1.ogg": sounds["all.ogg"],
            "copies/2.ogg": sounds["all.ogg"],
            "silent.flac": silent.getvalue(),
            "text.mp3": b"letter" * 99,
            "unknown.flac": sounds["unknown.flac"],
        },
    )
    command = ("scan", dataset, "--report", tmp_path / "report", "--operator", "Ada <Archive>")
    earmark(*command, status=1)
    summary, _, segments = report(tmp_path / "report")
    assert (summary["works_found"], summary["matched_files"], summary["matched_sounds"]) == (
        2,
        3,
        2,
    )
    assert (summary["failed_files"], summary["silent_files"]) == (2, 1)
    assert (summary["operator"], summary["library_recordings"]) == ("Ada <Archive>", 4)
    assert all(float(row["e_value"]) > 0 for row in segments)
    page = (tmp_path / "report" / "report.html").read_text()
    for said in ("Ada &lt;Archive&gt;", "Question", "Method", "Limits", "What was looked for"):
        assert said in page, said
    assert "The same content 2 times: copies/2.ogg." in page
    assert "too few to state how many of them may be wrong" in page
    assert "chance of being wrong" not in page.lower()
    # in order of time, whichever is stronger
    assert page.index('>song-0.flac</td><td data-label="In the file">0:00') < page.index(
        '>song-2.flac</td><td data-label="In the file">0:09'
    )


def test_what_is_broken_is_a_line_and_the_scan_goes_on(
    earmark: Earmark, sounds: dict[str, bytes], tmp_path: Path
) -> None:
    whole = sounds["inside.flac"]
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.wav", bytes(400 * 2**20))
        archive.writestr("../../outside.ogg", sounds["all.ogg"])
        archive.writestr("nested.zip", b"PK")
        archive.writestr("flipped.flac", whole)
    flipped = bytearray(zipped.getvalue())
    flipped[flipped.rfind(b"PK\x03\x04") + 5000] ^= 0xFF  # in the data of flipped.flac
    shard = tar_of([("one.ogg", sounds["all.ogg"]), ("two.flac", whole), ("three.flac", whole)])
    dataset = put(
        tmp_path / "dump",
        {
            "empty.flac": b"",
            "text.mp3": b"a letter\n" * 50,
            "whole.flac": whole,
            "cut.tar": shard[: 512 * 3 + len(sounds["all.ogg"]) + 700],
            "cut.tar.gz": gzip.compress(shard)[: len(sounds["all.ogg"]) // 2],
            "noise.zip": b"PK\x03\x04" + bytes(range(256)) * 8,
            "noise.parquet": b"PAR1 no",
            "good.zip": bytes(flipped),
            "notes.txt": b"not a sound",
        },
    )
    (dataset / "gone.flac").symlink_to(dataset / "nowhere.flac")
    os.mkfifo(dataset / "pipe.wav")
    earmark("scan", dataset, "--report", tmp_path / "report", status=1)
    summary, files, _ = report(tmp_path / "report")
    status = statuses(files)
    errors = {row["member"] or row["file"]: row for row in rows(tmp_path / "report" / "errors.csv")}
    assert status["whole.flac"] == "match"
    assert status["one.ogg"] == "match"
    assert status["../../outside.ogg"] == "match"
    assert not (tmp_path / "outside.ogg").exists()
    assert "damaged" in errors["flipped.flac"]["detail"]
    for name in ("empty.flac", "text.mp3", "gone.flac", "pipe.wav", "bomb.wav", "nested.zip"):
        assert status[name] == "failed", name
    assert errors["bomb.wav"]["type"] == "too-large"
    for name in ("cut.tar", "cut.tar.gz", "noise.zip", "noise.parquet"):
        assert any(row["file"] == name for row in errors.values()), name
    assert "notes.txt" not in status
    assert summary["failed_files"] == len(errors)
    assert all(row["detail"] for row in errors.values())


def test_a_manifest_leads_nowhere_outside_its_folder(
    earmark: Earmark, sounds: dict[str, bytes], tmp_path: Path
) -> None:
    put(tmp_path, {"secret.flac": sounds["inside.flac"], "set/in.flac": sounds["inside.flac"]})
    paths = ["in.flac", "../secret.flac", str(tmp_path / "secret.flac"), "gone.flac", "a\0b"]
    lines = "".join(json.dumps({"path": path}) + "\n" for path in paths)
    manifest = put(tmp_path / "set", {"list.jsonl": (lines + "{}\n").encode()}) / "list.jsonl"
    earmark("scan", manifest, "--report", tmp_path / "report", status=1)
    _, files, _ = report(tmp_path / "report")
    assert [row["status"] for row in files] == ["match"] + 5 * ["failed"]


def test_a_dataset_at_a_url_is_reported_as_one_on_the_disk(
    earmark: Earmark, sounds: dict[str, bytes], tmp_path: Path
) -> None:
    dump = put(
        tmp_path / "dump",
        {**sounds, "why?/100%.ogg": sounds["all.ogg"], ".hid.ogg": b"", "deep/n.txt": b""},
    )
    for container in (as_zip, as_tar, as_tar_gz, as_parquet):
        container(dump / "deep", sounds)
    put(dump, {"text.mp3": b"a letter\n" * 50, "noise.tar": b"no" * 500, "noise.zip": bytes(2000)})
    earmark("scan", dump, "--report", tmp_path / "disk", status=1)
    with served(tmp_path) as url:
        earmark("scan", f"{url}/dump", "--report", tmp_path / "url", status=1)
    for name in ("files", "segments", "errors"):
        assert rows(tmp_path / "url" / f"{name}.csv") == rows(tmp_path / "disk" / f"{name}.csv")
    assert report(tmp_path / "url")[0]["matched_files"] == 11


def test_a_dataset_on_a_web_server_is_reported_as_one_on_the_disk(
    earmark: Earmark, sounds: dict[str, bytes], tmp_path: Path
) -> None:
    pytest.importorskip("aiohttp", reason="fsspec's client of web servers is not installed")
    names = ("why?/100%.ogg", "a ü & b#1.flac", "%2e%2e.flac")
    kept = dict.fromkeys(names, sounds["inside.flac"])
    dump = put(tmp_path / "dump", {**sounds, **kept, ".hid.ogg": b"", "text.mp3": b"letter" * 99})
    as_tar_gz(put(dump / "deep", {"n.txt": b""}), sounds)
    put(tmp_path, {"secret.flac": sounds["inside.flac"]})
    paths = [*names, "../secret.flac", "%2e%2e/secret.flac", "inside.flac?x", "inside.flac#x"]
    lines = "".join(json.dumps({"path": path}) + "\n" for path in paths)
    put(dump, {"list.jsonl": lines.encode()})
    with web(tmp_path) as url:
        for number, dataset in enumerate(("dump/", "dump/list.jsonl")):
            disk, far = tmp_path / f"disk-{number}", tmp_path / f"far-{number}"
            earmark("scan", tmp_path / dataset, "--report", disk, status=1)
            earmark("scan", f"{url}/{dataset}", "--report", far, status=1)
            for name in ("files.csv", "segments.csv"):
                assert rows(far / name) == rows(disk / name)
        with pytest.raises(DatasetError, match=r"gone\.tar: no such file or folder"):
            size_of(place(f"{url}/gone.tar"))
    assert report(tmp_path / "far-0")[0]["matched_files"] == 7
    assert [row["status"] for row in report(far)[1]] == 3 * ["match"] + 4 * ["failed"]


def test_a_manifest_at_a_url_leads_nowhere_outside_its_folder(
    earmark: Earmark, sounds: dict[str, bytes], tmp_path: Path
) -> None:
    put(tmp_path, {"secret.flac": sounds["inside.flac"], "set/in.flac": sounds["inside.flac"]})
    with served(tmp_path) as url:
        paths = ["in.flac", "../secret.flac", "/secret.flac", f"{url}/secret.flac", "gone.flac"]
        lines = "".join(json.dumps({"path": path}) + "\n" for path in paths)
        put(tmp_path / "set", {"list.jsonl": lines.encode()})
        earmark("scan", f"{url}/set/list.jsonl", "--report", tmp_path / "report", status=1)
    _, files, _ = report(tmp_path / "report")
    assert [row["status"] for row in files] == ["match"] + 4 * ["failed"]


def test_a_url_that_cannot_be_read_is_told_of(
    earmark: Earmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = earmark("scan", "sftpp://host/dump", "--report", tmp_path / "report", status=2)
    assert "sftpp://host/dump: is no URL that can be read: Protocol not known" in done.stderr
    assert not (tmp_path / "report").exists()
    with served(tmp_path) as url, pytest.raises(DatasetError, match="gone: no such file or folder"):
        size_of(place(f"{url}/gone"))
    who = "ada:secret@"
    with pytest.raises(DatasetError, match=r"127.0.0.1:\d+/dump: .*refused") as error:
        size_of(place(f"{url.replace('//', f'//{who}')}/dump"))
    assert "secret" not in str(error.value)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(DatasetError, match="s3://bucket/dump: cannot be read: Install s3fs"):
        place(f"s3://{who}bucket/dump")


# A scan that kills itself, by a signal that nothing can catch, when so many members are done.
KILLED = """
import os, signal, sys
import service.scan.runner
from service.command import main

scan, left = service.scan.runner.scan, 0

def killed(*args, on_done, **options):
    def count(member, heard):
        global left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        on_done(member, heard)
    return scan(*args, on_done=count, **options)

if __name__ == "__main__":
    left = int(sys.argv.pop(1))
    service.scan.runner.scan = killed
    service.scan.runner.COMMIT_EVERY = 0.0
    main(prog_name="earmark")
"""


def test_a_scan_that_is_killed_and_resumed_reports_what_an_undisturbed_one_does(
    earmark: Earmark, sounds: dict[str, bytes], tmp_path: Path
) -> None:
    files = {f"{n}-{name}": data for n in range(3) for name, data in sounds.items()}
    dataset = put(
        tmp_path / "dump", {"empty.ogg": b"", "shard.tar": tar_of(files.items()), **files}
    )
    program = tmp_path / "killed.py"
    program.write_text(KILLED)
    command = [
        "scan",
        str(dataset),
        "--report",
        str(tmp_path / "killed"),
        "--resume",
        "--jobs",
        "1",
    ]
    for members in (2, 7, 9):
        done = subprocess.run(
            [sys.executable, str(program), str(members), *command],
            cwd=Path(__file__).parents[1],
            env=earmark.environment | {"PYTHONPATH": str(Path(__file__).parents[1])},
            capture_output=True,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        assert not (tmp_path / "killed" / "report.html").exists()
    earmark(*command, status=1)  # a file of it cannot be read
    earmark("scan", dataset, "--report", tmp_path / "whole", status=1)
    for name in ("files", "segments", "errors"):
        killed, whole = (tmp_path / folder / f"{name}.csv" for folder in ("killed", "whole"))
        assert killed.read_text() == whole.read_text()
    assert len(rows(tmp_path / "whole" / "files.csv")) == 19


def test_a_folder_that_holds_something_else_is_refused(
    earmark: Earmark, sounds: dict[str, bytes], tmp_path: Path
) -> None:
    dataset = put(tmp_path / "dump", {"all.ogg": sounds["all.ogg"]})
    put(tmp_path / "mine", {"letter.txt": b"keep me"})
    done = earmark("scan", dataset, "--report", tmp_path / "mine", status=2)
    assert "not empty" in done.stderr
    earmark("scan", dataset, "--report", tmp_path / "report")
    done = earmark("scan", dataset, "--report", tmp_path / "report", status=2)
    assert "--resume" in done.stderr
    earmark("scan", dataset, "--report", tmp_path / "report", "--resume")
    done = earmark("scan", tmp_path, "--report", tmp_path / "report", "--resume", status=2)
    assert "another dataset" in done.stderr
    done = earmark("scan", tmp_path / "gone", "--report", tmp_path / "other", status=2)
    assert "no such file" in done.stderr
    assert not (tmp_path / "other").exists()


def test_no_file_is_lost_or_counted_twice_for_a_name_that_is_not_utf_8(
    earmark: Earmark, sounds: dict[str, bytes], tmp_path: Path
) -> None:
    first, second, third = (
        os.fsdecode(name) for name in (b"x\xfe.ogg", b"x\xff.ogg", b"x\\xff.ogg")
    )
    dataset = put(tmp_path / "dump", {first: sounds["unknown.flac"]})
    earmark("scan", dataset, "--report", tmp_path / "report")
    put(dataset, {second: sounds["all.ogg"], third: sounds["inside.flac"]})
    earmark("scan", dataset, "--report", tmp_path / "report", "--resume")
    summary, files, _ = report(tmp_path / "report")
    assert (summary["files"], summary["matched_files"]) == (3, 2)
    told = {"x\\xfe.ogg": "none", "x\\xff.ogg": "match", "x\\x5cxff.ogg": "match"}
    assert statuses(files) == told
    earmark("scan", dataset, "--report", tmp_path / "whole")
    assert report(tmp_path / "whole")[1] == files


def test_evidence_that_cannot_be_written_stops_the_scan_and_loses_nothing(
    earmark: Earmark, sounds: dict[str, bytes], tmp_path: Path
) -> None:
    dataset = put(tmp_path / "dump", {"unknown.flac": sounds["unknown.flac"]})
    command = ("scan", dataset, "--report", tmp_path / "report")
    earmark(*command)
    put(dataset, {"inside.flac": sounds["inside.flac"]})
    put(tmp_path / "report", {"evidence": b"in the way"})
    done = earmark(*command, "--resume", "--evidence", status=1)
    (line,) = done.stderr.splitlines()
    assert "evidence cannot be written" in line and "--resume" in line
    (tmp_path / "report" / "evidence").unlink()
    earmark(*command, "--resume", "--evidence")
    _, files, segments = report(tmp_path / "report")
    assert statuses(files) == {"inside.flac": "match", "unknown.flac": "none"}
    assert (tmp_path / "report" / segments[0]["evidence"]).is_file()


def test_a_report_that_cannot_be_written_is_one_clear_error_and_is_written_later(
    earmark: Earmark, sounds: dict[str, bytes], tmp_path: Path
) -> None:
    dataset = put(tmp_path / "dump", {"all.ogg": sounds["all.ogg"]})
    folder = tmp_path / "report"
    earmark("scan", dataset, "--report", folder)
    (folder / "files.csv").unlink()
    put(folder, {"files.csv/in the way": b""})
    done = earmark("scan", dataset, "--report", folder, "--resume", status=1)
    (line,) = done.stderr.splitlines()
    assert "the report cannot be written (Is a directory)" in line and "--resume" in line
    (folder / "files.csv" / "in the way").unlink()
    (folder / "files.csv").rmdir()
    (folder / "scan.lock").unlink(missing_ok=True)
    (folder / "scan.lock").mkdir()
    done = earmark("scan", dataset, "--report", folder, "--resume", status=2)
    assert "cannot be written" in done.stderr
    (folder / "scan.lock").rmdir()
    earmark("scan", dataset, "--report", folder, "--resume")
    assert report(folder)[0]["matched_files"] == 1


def test_a_scan_does_not_go_on_against_another_library(
    earmark: Earmark, sounds: dict[str, bytes], tmp_path: Path
) -> None:
    dataset = put(tmp_path / "dump", {"all.ogg": sounds["all.ogg"]})
    earmark("scan", dataset, "--report", tmp_path / "report")
    other = {"EARMARK_LIBRARY": str(tmp_path / "other")}
    mine = ("--rightsholder", "Me", "--rights", "owned")
    earmark("ingest", "songs/song-1.flac", *mine, environment=other)
    again = ("scan", dataset, "--report", tmp_path / "report", "--resume")
    done = earmark(*again, environment=other, status=2)
    assert "holds a scan of another library" in done.stderr
    earmark(*again)
    with closing(sqlite3.connect(tmp_path / "report" / "scan.sqlite")) as journal, journal:
        # as it was before this was noted
        journal.execute("DELETE FROM scan WHERE name = 'library'")
    earmark(*again)


def test_a_name_that_no_system_takes_is_one_clear_error(
    earmark: Earmark, sounds: dict[str, bytes], tmp_path: Path
) -> None:
    dataset = put(tmp_path / "dump", {"all.ogg": sounds["all.ogg"]})
    for command in (
        ("scan", "a" * 300, "--report", tmp_path / "report"),
        ("scan", dataset, "--report", tmp_path / ("a" * 300)),
    ):
        (line,) = earmark(*command, status=2).stderr.splitlines()
        assert "File name too long" in line


def test_each_copy_of_a_broken_file_is_told_of_by_its_own_name(
    earmark: Earmark, tmp_path: Path
) -> None:
    copies = dict.fromkeys(("a.flac", "b\n.flac", "c.flac"), b"fLaC")
    dataset = put(tmp_path / "dump", copies | {"z.tar": tar_of(copies.items())})
    earmark("scan", dataset, "--report", tmp_path / "report", status=1)
    put(dataset, {"later.flac": b"fLaC"})
    earmark("scan", dataset, "--report", tmp_path / "report", "--resume", status=1)
    errors = rows(tmp_path / "report" / "errors.csv")
    assert len(errors) == 7
    for row in errors:
        name = ": ".join(filter(None, (row["file"], row["member"])))
        assert row["detail"].startswith(
            name.replace("\n", "\N{REPLACEMENT CHARACTER}") + ": is not"
        )
    assert len({row["detail"].rpartition(": is not")[2] for row in errors}) == 1


def test_probing_finds_a_work_in_a_long_file_and_leaves_the_unknown_unread(
    earmark: Earmark, tmp_path: Path
) -> None:
    long = np.concatenate([melody(70, 30.0), melody(3), melody(71, 50.0)])
    write(tmp_path / "dump.flac", long)
    write(tmp_path / "other.flac", melody(72, 100.0))
    dataset = put(
        tmp_path / "dump",
        {
            "long.flac": (tmp_path / "dump.flac").read_bytes(),
            "other.flac": (tmp_path / "other.flac").read_bytes(),
        },
    )
    earmark("scan", dataset, "--report", tmp_path / "report", "--probe")
    _, files, segments = report(tmp_path / "report")
    assert statuses(files) == {"long.flac": "match", "other.flac": "none"}
    (segment,) = segments
    assert float(segment["query_start"]) == pytest.approx(30, abs=0.75)
    assert float(segment["query_end"]) == pytest.approx(50, abs=0.75)
    assert float(files[1]["duration"]) == pytest.approx(100, abs=0.1)


@given(seconds=st.floats(SHORT, 36_000.0), share=st.floats(0.0, 1.0))
def test_any_half_minute_of_a_sound_that_is_probed_holds_a_whole_window(
    seconds: float, share: float
) -> None:
    begin = share * (seconds - 30.0)
    ends = (start + PROBED for start in windows(seconds) if start >= begin)
    assert any(end <= begin + 30.0 for end in ends)


def test_what_ends_a_worker_costs_one_file(tmp_path: Path) -> None:
    with Workers(2, Bounds(60.0), _nothing) as workers:
        futures = [workers.submit(_work, n) for n in range(6)]
        for n, future in enumerate(futures):
            if n in (1, 4):
                with pytest.raises(AudioError, match="made to do harm"):
                    future.result()
            else:
                assert future.result() == n


def test_what_takes_too_long_or_too_much_is_ended(tmp_path: Path) -> None:
    with Workers(1, Bounds(0.5, memory=512 * 2**20), _nothing) as workers:
        hangs = workers.submit(_hang)
        swallows = workers.submit(_swallow, 2 * 2**30)
        with pytest.raises(AudioError) as error:
            hangs.result()
        assert error.value.type == "timeout"
        with pytest.raises(MemoryError):
            swallows.result()


def test_a_worker_that_cannot_begin_is_no_files_fault(tmp_path: Path) -> None:
    with Workers(1, Bounds(60.0), _fail) as workers, pytest.raises(WorkerError):
        workers.submit(_work, 0).result()


def _nothing() -> None:
    pass


def _fail() -> None:
    raise RuntimeError("no library")


def _work(number: int) -> int:
    if number in (1, 4):
        os.kill(os.getpid(), signal.SIGSEGV)
    return number


def _hang() -> None:
    while True:
        pass


def _swallow(size: int) -> int:
    return len(bytearray(size))
