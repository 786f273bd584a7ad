"""A library is checked, compacted and copied; what is damaged is told, with how to mend it."""

import dataclasses
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sql
from command import Earmark
from embeddings import query, reference, track

from fingerprint.encoder import Encoder
from index import compaction, segment
from index.backup import backup
from index.compaction import compact
from index.database import BESIDE
from index.errors import LibraryError
from index.library import Library
from index.recording import Metadata
from index.significance import Calibration
from index.verify import verify

ENCODER = Encoder.load()


def ingest(library: Library, *seeds: int) -> None:
    with library.writer() as writer:
        for seed in seeds:
            fingerprint = reference(ENCODER, track(ENCODER, seed, 20))
            writer.add(fingerprint, Metadata(f"{seed}.flac", "Me", "owned", id=f"id-{seed}"))


def remove(library: Library, *seeds: int) -> None:
    with library.writer() as writer:
        for seed in seeds:
            writer.remove(f"id-{seed}")


def finds(library: Library, seed: int) -> list[str]:
    matches, _ = library.search(query(ENCODER, track(ENCODER, seed, 20)[30:70]))
    return [match.recording for match in matches]


def files(library: Library) -> list[Path]:
    """The segments' headers; the lists' files lie beside them."""
    assert len(list((library.path / "segments").iterdir())) == 2 * library.info()["segments"]
    return sorted((library.path / "segments").glob("*.faiss"))


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request) -> str:
    return request.param


@pytest.fixture
def works(tmp_path, database) -> Library:
    """Three segments, of two recordings each."""
    library = Library.open(tmp_path / "library", ENCODER, url=database, create=True)
    for seed in (0, 2, 4):
        ingest(library, seed, seed + 1)
    return library


def test_compaction_merges_segments_and_drops_what_was_removed(works):
    reader = Library.open(works.path, ENCODER, url=works.database.url)
    remove(works, 1, 2, 3)
    each = len(track(ENCODER, 0, 20)[::5])
    assert works.info()["removed_embeddings"] == 3 * each
    (merged,) = compact(works)
    assert merged == (3, 3 * each, 3 * each)
    assert len(files(works)) == works.info()["segments"] == 1
    assert works.info()["removed_embeddings"] == 0
    for library in (works, reader, Library.open(works.path, ENCODER, url=works.database.url)):
        for seed in range(6):
            assert finds(library, seed) == ([f"id-{seed}"] if seed in (0, 4, 5) else [])
    assert list(compact(works)) == []
    assert list(verify(works)) == []
    ingest(works, 1)
    assert finds(works, 1) == ["id-1"]


def test_compaction_of_a_library_that_was_emptied_leaves_nothing(works):
    remove(works, *range(6))
    list(compact(works))
    assert files(works) == []
    assert list(verify(works)) == []
    ingest(works, 1)
    assert finds(works, 1) == ["id-1"]


def test_large_segments_are_left_as_they_are(works, monkeypatch):
    monkeypatch.setattr(compaction, "LARGEST", 2 * len(track(ENCODER, 0, 20)[::5]))
    before = files(works)
    assert list(compact(works)) == []
    remove(works, 3)
    list(compact(works))
    kept = files(works)
    assert (kept[:2], len(kept)) == ([before[0], before[2]], 3)
    assert [finds(works, seed) for seed in (0, 2, 3, 5)] == [["id-0"], ["id-2"], [], ["id-5"]]


def test_a_reader_keeps_its_snapshot_while_the_library_is_compacted(works):
    snapshot = works.refresh()
    x = track(ENCODER, 3, 20)[30:70:5]
    before = snapshot.nearest(x, 5, 1024, 10**6)
    remove(works, 3)
    list(compact(Library.open(works.path, ENCODER, url=works.database.url)))
    after = snapshot.nearest(x, 5, 1024, 10**6)
    assert (before[0] == after[0]).all() and (before[1] == after[1]).all()
    assert snapshot.recordings[int(snapshot.owner(after[1][0, :1])[0])].id == "id-3"


def test_a_crash_in_compaction_leaves_files_that_the_next_writer_deletes(works, monkeypatch):
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(OSError(5, "I/O")))
    list(compact(works))
    monkeypatch.undo()
    assert len(list((works.path / "segments").iterdir())) == 2 * 4
    assert list(verify(works)) == []
    ingest(works, 7)
    assert len(files(works)) == 2
    assert [finds(works, seed) for seed in (0, 5, 7)] == [["id-0"], ["id-5"], ["id-7"]]


@pytest.mark.parametrize("kind_of_file", [Path, segment.lists_of])
def test_compaction_does_not_launder_damage(works, kind_of_file):
    flip(kind_of_file(files(works)[1]), -1)
    with pytest.raises(LibraryError, match="damaged"):
        list(compact(works))
    assert len(files(works)) == 3


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_damage_is_found_told_and_mended(works):
    copy = works.path.parent / "copy"
    backup(works, copy)
    header = files(works)[1]
    for broken in (header, segment.lists_of(header)):
        whole = broken.read_bytes()
        for damage in (whole[:-1], whole + b"x", b"", b"rubbish" * 100, None, flipped(whole)):
            broken.unlink(missing_ok=True)
            if damage is not None:
                broken.write_bytes(damage)
            (found,) = verify(works)
            assert header.stem in found.what
            assert sorted(found.recordings) == ["id-2", "id-3"]
            assert f"restore {header.name} and {segment.lists_of(header).name}" in found.mend
        broken.unlink()
        broken.write_bytes((copy / "segments" / broken.name).read_bytes())
        assert list(verify(works)) == []


def flipped(data: bytes) -> bytes:
    return data[:-100] + bytes([data[-100] ^ 4]) + data[-99:]


def test_a_lost_segment_is_mended_without_a_backup(works):
    files(works)[1].unlink()
    mending = Library.open(works.path, ENCODER, url=works.database.url, searchable=False)
    (found,) = verify(mending)
    with pytest.raises(LibraryError, match="missing"):
        finds(mending, 0)
    with mending.writer() as writer:
        for id in found.recordings:
            writer.remove(id)
    assert finds(mending, 0) == ["id-0"]
    (found,) = verify(mending)
    assert "earmark compact" in found.mend
    list(compact(mending))
    assert list(verify(mending)) == []
    ingest(mending, 2, 3)
    assert finds(mending, 2) == ["id-2"]


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("UPDATE recordings SET first = 3 WHERE id = 'id-4'", "recording 'id-4': its codes"),
        ("UPDATE recordings SET removed_at = 'x' WHERE id = 'id-4'", "not what the audit log says"),
        ("DELETE FROM recordings WHERE id = 'id-4'", "not what the audit log says"),
    ],
)
def test_a_catalogue_that_was_tampered_with_is_found_out(works, statement, what):
    with works.database.engine.begin() as connection:
        connection.exec_driver_sql(statement)
    assert any(what in damage.what for damage in verify(works))


def test_a_recording_in_no_segment_is_refused_or_found_out(works, kind):
    statement = "UPDATE recordings SET segment = 99 WHERE id = 'id-4'"
    if kind == "postgresql":
        with pytest.raises(sql.exc.IntegrityError), works.database.engine.begin() as connection:
            connection.exec_driver_sql(statement)
        return
    with sqlite3.connect(works.path / "catalogue.sqlite") as connection:
        connection.execute(statement)
    assert any("the catalogue is damaged" in damage.what for damage in verify(works))


def test_a_snapshot_is_a_library_and_goes_its_own_way(works, tmp_path):
    copy = tmp_path / "copy"
    with works.writer() as writer:
        fingerprint = reference(ENCODER, track(ENCODER, 9, 20))
        writer.add(fingerprint, Metadata("9.flac", "Me", "owned", id="id-9"))
        assert backup(works, copy) == works.refresh().revision
    with pytest.raises(LibraryError, match="exists already"):
        backup(works, copy)
    other = Library.open(copy, ENCODER)
    assert list(verify(other)) == []
    assert (finds(works, 9), finds(other, 9)) == (["id-9"], [])
    remove(other, *range(5))
    list(compact(other))
    assert list(verify(other)) == list(verify(works)) == []
    assert finds(works, 3) == ["id-3"]
    assert (finds(other, 3), finds(other, 5)) == ([], ["id-5"])


def _fitted(library: Library) -> dict:
    """A calibration such as a fit to this library might give: chance reaches a tenth more."""
    entry = dataclasses.asdict(Calibration.of(ENCODER.id))
    entry["unaltered"]["decay"] = [it / 1.1 for it in entry["unaltered"]["decay"]]
    return entry | {"encoder": ENCODER.id, "library": library.id()}


def test_a_snapshot_answers_by_the_calibration_of_the_library(works, tmp_path, new_database):
    with works.writer() as writer:
        writer.calibrate(_fitted(works))
    first, second = new_database(), new_database()
    backup(works, tmp_path / "copy", first)
    copy = Library.open(tmp_path / "copy", ENCODER, url=first)
    backup(copy, tmp_path / "copy of it", second)
    x = query(ENCODER, track(ENCODER, 3, 20)[30:70])
    for other in (copy, Library.open(tmp_path / "copy of it", ENCODER, url=second)):
        assert other.id() != works.id()
        assert other.calibration == works.calibration != Calibration.of(ENCODER.id)
        assert other.search(x)[0] == works.search(x)[0]
        assert list(verify(other)) == []


def test_a_calibration_that_is_not_the_librarys_goes_into_a_snapshot_as_it_is(works, tmp_path):
    for wrong in (_fitted(works) | {"library": "another"}, {"clips": 1}):
        with works.writer() as writer:
            writer.calibrate(wrong)
        backup(works, tmp_path / wrong.get("library", "damaged"))
        copy = Library.open(tmp_path / wrong.get("library", "damaged"), ENCODER)
        with pytest.raises(LibraryError, match="calibration kept here"):
            copy.own_calibration()


def test_a_calibration_of_another_library_is_found_and_mended(
    earmark: Earmark, library: Path, database: sql.URL
) -> None:
    earmark("verify")
    opened = Library.open(library, ENCODER, url=database)
    with opened.writer() as writer:
        writer.calibrate(_fitted(opened) | {"library": "another"})
    (damage,) = earmark.lines("verify", status=3)
    assert "calibration kept here belongs to another library" in damage["what"]
    assert "earmark verify --calibration" in damage["mend"]
    (said,) = earmark.lines("verify", "--calibration")
    assert said["refitted"] is False  # there are too few recordings: Earmark's own is used
    assert earmark.lines("verify") == []
    assert opened.calibration == Calibration.of(ENCODER.id)
    (answer,) = earmark.lines("query", "clip.wav")
    assert answer["matches"]


def test_a_snapshot_leaves_other_folders_alone(works, tmp_path):
    other = tmp_path / "copy.partial"
    other.mkdir()
    (other / "thesis.txt").write_text("precious")
    backup(works, tmp_path / "copy")
    assert (other / "thesis.txt").read_text() == "precious"
    assert {it.name for it in tmp_path.iterdir()} == {"library", "copy", "copy.partial"}
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o700  # a copy is as private as a library


def test_a_snapshot_that_failed_is_not_there(works, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(LibraryError, match="No space left"):
        backup(works, tmp_path / "copy")
    assert {path.name for path in tmp_path.iterdir()} == {"library"}
    monkeypatch.undo()
    backup(works, tmp_path / "copy")
    assert finds(Library.open(tmp_path / "copy", ENCODER), 3) == ["id-3"]


@pytest.mark.parametrize("kind_of_file", [Path, segment.lists_of])
def test_damage_in_a_library_does_not_reach_its_snapshot(works, tmp_path, kind_of_file):
    backup(works, tmp_path / "copy")
    broken = kind_of_file(files(works)[1])
    with broken.open("r+b") as file:
        file.write(b"xyz")
    assert list(verify(works))
    assert list(verify(Library.open(tmp_path / "copy", ENCODER))) == []
    with pytest.raises(LibraryError, match="damaged"):
        backup(works, tmp_path / "another")
    assert not (tmp_path / "another").exists()


def test_a_long_recording_is_stored_found_and_checked_like_any_other(
    tmp_path, database, monkeypatch
):
    monkeypatch.setattr(segment, "AT_ONCE", 500)  # embeddings that are laid out at a time
    library = Library.open(tmp_path / "library", ENCODER, url=database, create=True)
    x = reference(ENCODER, track(ENCODER, 1, 20))
    embeddings = track(ENCODER, 2, 500)
    long = dataclasses.replace(
        reference(ENCODER, track(ENCODER, 2, 20)), embeddings=embeddings, duration=2500.0
    )
    with library.writer() as writer:
        writer.add(x, Metadata("short", "Me", "owned", id="short"))
        writer.add(long, Metadata("long", "Me", "owned", id="long"))
    snapshot = library.refresh()
    last = len(embeddings)
    around = snapshot.embeddings(1, last - 160, last)
    assert (around == ENCODER.codec.decode(*ENCODER.codec.encode(embeddings[-160:]))).all()
    assert list(verify(library)) == []
    with library.writer() as writer:
        writer.remove("short")
    list(compact(library))
    assert list(verify(library)) == []
    assert (library.refresh().embeddings(0, last - 160, last) == around).all()


def test_upkeep_at_the_command_line(earmark: Earmark, library: Path, tmp_path: Path) -> None:
    ids = [it["id"] for it in earmark.lines("list")]
    assert earmark("verify").stdout == f"all is well with {len(ids)} recordings\n"
    assert earmark.lines("verify") == []
    earmark("remove", ids[0])
    (done,) = earmark.lines("compact")
    assert done["dropped"] > 0 and done["segments"] == 1
    copy = tmp_path / "copy"
    (made,) = earmark.lines("snapshot", copy)
    assert (made["path"], made["recordings"]) == (str(copy), len(ids) - 1)
    assert "exists already" in earmark("snapshot", copy, status=2).stderr
    flip(next((library / "segments").glob("*.ivfdata")), -1)
    text = earmark("verify", status=3).stdout
    assert "checksum is wrong" in text and "to mend it: restore" in text
    (damage,) = earmark.lines("verify", status=3)
    assert sorted(damage["recordings"]) == sorted(ids[1:])


def test_a_name_that_no_folder_can_have_is_told(earmark: Earmark, tmp_path: Path) -> None:
    impossible = tmp_path / ("x" * 300)
    rights = ("--rightsholder", "Me", "--rights", "owned")
    for command in (
        ("info",),
        ("list",),
        ("verify",),
        ("query", "clip.wav"),
        ("ingest", "clip.wav", *rights),
    ):
        beside = {"EARMARK_DATABASE": str(BESIDE)}  # PostgreSQL's has another library
        arguments = (*command, "--library", impossible)
        said = earmark(*arguments, status=3, environment=beside).stderr
        assert said.count("\n") == 1 and "File name too long" in said, command
    said = earmark("snapshot", impossible, status=3).stderr
    assert said.count("\n") == 1 and "File name too long" in said


def test_an_altered_catalogue_is_told_by_every_command(
    earmark: Earmark, library: Path, database: sql.URL
) -> None:
    file = sql.make_url(f"sqlite:///{library / 'catalogue.sqlite'}")
    with sql.create_engine(file if database == BESIDE else database).begin() as connection:
        connection.execute(sql.text("UPDATE properties SET value = 'x' WHERE name = 'revision'"))
    for command in (("info",), ("list",), ("verify",), ("query", "clip.wav")):
        said = earmark(*command, status=3).stderr
        assert said.count("\n") == 1 and "restore it from a backup" in said, command
