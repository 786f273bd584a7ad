"""Small segments are merged after commits: their number stays small, and nothing else changes."""

from pathlib import Path

import pytest
from embeddings import query, reference, track
from hypothesis import given
from hypothesis import strategies as st

from fingerprint.encoder import Encoder
from index import catalogue, merging, segment
from index.catalogue import SegmentRow
from index.errors import LibraryError, LibraryLocked
from index.library import Library
from index.merging import FEW, LARGEST, Merger, due, merge_small
from index.recording import Metadata
from index.verify import orphans, verify

ENCODER = Encoder.load()


def ingest(library: Library, *seeds: int, merge: bool = True) -> None:
    with library.writer(merge=merge) as writer:
        for seed in seeds:
            made = reference(ENCODER, track(ENCODER, seed, 5))
            writer.add(made, Metadata(f"{seed}.flac", "Me", "owned", id=f"id-{seed}"))


def finds(library: Library, seed: int) -> list[str]:
    matches, _ = library.search(query(ENCODER, track(ENCODER, seed, 5)))
    return [match.recording for match in matches]


def segments(library: Library) -> int:
    return library.info()["segments"]


@pytest.fixture
def library(tmp_path) -> Library:
    return Library.open(tmp_path / "library", ENCODER, create=True)


def grown(sizes: list[int]) -> list[int]:
    """The segments that commits of so many embeddings leave, merged after each; and all that was written."""
    rows: list[SegmentRow] = []
    written = 0
    for number, size in enumerate(sizes):
        rows.append(SegmentRow(number, size, "", ""))
        written += size
        while group := due(rows):
            assert len(group) > 1
            rows = [row for row in rows if row not in group]
            merged = sum(row.embeddings for row in group)
            assert merged <= LARGEST
            rows.append(SegmentRow(number, merged, "", ""))
            written += merged
    assert sum(row.embeddings for row in rows) == sum(sizes)
    return [*(row.embeddings for row in rows), written]


def test_2000_commits_of_one_recording_leave_few_segments_and_write_little():
    *rows, written = grown([420] * 2000)
    assert len(rows) <= 20
    assert written <= 10 * 420 * 2000


@given(st.lists(st.integers(0, 100_000), max_size=200))
def test_there_are_few_segments_of_each_size(sizes):
    *rows, _ = grown(sizes)
    assert due([SegmentRow(n, size, "", "") for n, size in enumerate(rows)]) == []
    # 256 × 4^9 is more than all of them together
    assert len(rows) < FEW * 10


def test_the_largest_segments_are_left_as_they_are():
    large = [SegmentRow(number, LARGEST // 2 + 1, "", "") for number in range(9)]
    assert due(large) == []
    small = [SegmentRow(number, 10, "", "") for number in range(10, 14)]
    assert due(large + small) == small


def test_commits_leave_few_segments_in_which_all_is_found(library):
    seeds = range(11)
    for seed in seeds:
        ingest(library, seed)
    assert segments(library) < FEW
    assert len(list((library.path / "segments").iterdir())) == 2 * segments(library)
    assert not (library.path / "merging").exists()
    for reader in (library, Library.open(library.path, ENCODER)):
        assert [finds(reader, seed) for seed in seeds] == [[f"id-{seed}"] for seed in seeds]
    assert list(verify(library)) == [] and orphans(library) == []


def test_what_is_removed_while_segments_are_merged_stays_removed(library, monkeypatch):
    for seed in range(4):
        ingest(library, seed, merge=False)
    other = Library.open(library.path, ENCODER)
    write = segment.write_lists

    def removed_meanwhile(*what):
        monkeypatch.undo()
        with other.writer(merge=False) as writer:
            writer.remove("id-2")
        ingest(other, 7, merge=False)
        return write(*what)

    monkeypatch.setattr(segment, "write_lists", removed_meanwhile)
    (merged,) = merge_small(library)
    assert merged.segments == 4
    assert [finds(library, seed) for seed in (0, 1, 2, 3, 7)] == [
        ["id-0"],
        ["id-1"],
        [],
        ["id-3"],
        ["id-7"],
    ]
    assert list(verify(library)) == [] and orphans(library) == []
    with library.reading() as connection:
        assert catalogue.totals(connection)[0] == 4


def test_a_merge_that_fails_does_not_undo_the_commit_before_it(library, monkeypatch, caplog):
    for seed in range(3):
        ingest(library, seed)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    ingest(library, 3)
    monkeypatch.undo()
    assert "small segments cannot be merged" in caplog.text and "No space left" in caplog.text
    assert segments(library) == 4
    assert not (library.path / "merging").exists()
    assert [finds(library, seed) for seed in range(4)] == [[f"id-{seed}"] for seed in range(4)]
    ingest(library, 4)
    assert segments(library) < FEW


def test_damage_is_not_merged_into_what_is_whole(library):
    for seed in range(4):
        ingest(library, seed, merge=False)
    lists = sorted((library.path / "segments").glob("*.ivfdata"))[1]
    data = bytearray(lists.read_bytes())
    data[100] ^= 1
    lists.write_bytes(data)
    with pytest.raises(LibraryError, match="damaged"):
        merge_small(library)
    assert segments(library) == 4


def test_one_process_merges_at_a_time_and_a_writer_does_not_wait_for_it(library, monkeypatch):
    for seed in range(4):
        ingest(library, seed, merge=False)
    other = Library.open(library.path, ENCODER)
    write = segment.write_lists
    seen = []

    def meanwhile(*what):
        monkeypatch.undo()
        seen.append(merge_small(other))
        ingest(other, 9, merge=False)
        return write(*what)

    monkeypatch.setattr(segment, "write_lists", meanwhile)
    assert len(merge_small(library)) == 1
    assert seen == [[]]
    assert segments(library) == 2


def test_a_server_merges_in_the_background_and_stops_when_it_is_told(library):
    for seed in range(4):
        ingest(library, seed, merge=False)
    merger = Merger(library)
    merger.soon()
    merger.soon()
    merger._pool.submit(int).result()  # after what was asked for before
    assert segments(library) == 1
    merger.close()
    for seed in range(4, 8):
        ingest(library, seed, merge=False)
    with pytest.raises(LibraryLocked, match="stopped"):
        merging.merge(library, _rows(library), give_up=lambda: True)
    assert not (library.path / "merging").exists()
    assert [finds(library, seed) for seed in (0, 7)] == [["id-0"], ["id-7"]]


def _rows(library: Library) -> list[SegmentRow]:
    with library.reading() as connection:
        return catalogue.segments(connection)


def test_a_searching_process_keeps_no_file_open_and_lets_go_of_merged_ones(library):
    def mapped() -> set[str]:
        lines = Path("/proc/self/maps").read_text().splitlines()
        return {
            line.split()[-1] for line in lines if str(library.path) in line and "ivfdata" in line
        }

    reader = Library.open(library.path, ENCODER)
    for seed in range(10):
        ingest(library, seed)
        reader.refresh("ada")  # an owner's view, which is kept
    descriptors = [file.resolve() for file in Path("/proc/self/fd").iterdir()]
    assert not any("segments" in str(file) for file in descriptors)
    library.refresh()
    there = {str(file) for file in (library.path / "segments").glob("*.ivfdata")}
    assert mapped() == there
