"""A segment gives back what was put into it, and is refused if it is not what was written."""

from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_neighbours import CELLS, CODEC, LISTS, any_codes, cells_of, codes

from index import blocks, segment
from index.errors import LibraryError
from index.segment import Segment, Written, arrange, lists_of, read, write


@pytest.fixture
def header(tmp_path) -> Path:
    return tmp_path / "00000001.faiss"


@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 1000])
@pytest.mark.parametrize("lists", [1, LISTS])
def test_a_segment_gives_back_its_codes_in_order(n, lists):
    stored = any_codes(n, lists)
    arranged = arrange(stored, CODEC)
    for first, end in ((0, n), (n // 2, n), (0, n // 3), (max(0, n - 2), n)):
        run = arranged.run(first, end)
        assert (run.lists == stored.lists[first:end]).all()
        assert (run.codes == stored.codes[first:end]).all()


def test_a_large_segment_gives_back_its_codes_and_has_them_in_cells(monkeypatch):
    monkeypatch.setattr(segment, "DIVIDED", 2000)
    monkeypatch.setattr(segment, "AT_ONCE", 300)
    stored = codes(2500)
    arranged = arrange(stored, CODEC)
    assert arranged.cells == CELLS
    assert (arranged.lists == cells_of(stored)).all()
    run = arranged.run(0, 2500)
    assert (run.lists == stored.lists).all() and (run.codes == stored.codes).all()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 70), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_blocks_are_those_of_faiss(counts, seed):
    rng = np.random.default_rng(seed)
    total = sum(counts)
    codes = rng.integers(0, 256, (total, CODEC.code_size)).astype(np.uint8)
    ids = np.arange(total)
    data, table = segment._laid_out(np.array(counts), ids, codes, CODEC.code_size)
    packer = faiss.IndexIVFPQFastScan(
        faiss.IndexFlatIP(32), 32, 1, 2 * CODEC.code_size, 4
    ).get_CodePacker()
    at = 0
    for count, _, start in table.astype(int):
        for place in range(count):
            block = data[start + place // 32 * 512 :][:512]
            assert (packer.unpack_1(block[None], place % 32) == codes[at]).all()
            at += 1
    assert blocks.BLOCK == packer.nvec == 32


def test_files_take_what_is_said_of_them(header):
    stored = codes(20_000)
    write(header, stored, CODEC)
    taken = header.stat().st_size + lists_of(header).stat().st_size
    assert segment.size(20_000, CODEC) == pytest.approx(taken, rel=0.1)
    for embeddings in (4_200_000, 42_000_000):
        assert 2 * segment.size(embeddings, CODEC) / embeddings < 56  # bytes a second of audio


def test_a_file_that_is_there_is_never_written_over(header):
    write(header, any_codes(5), CODEC)
    before = header.read_bytes(), lists_of(header).read_bytes()
    with pytest.raises(FileExistsError):
        write(header, any_codes(6), CODEC)
    assert (header.read_bytes(), lists_of(header).read_bytes()) == before


def test_no_segment_keeps_a_file_open(tmp_path):
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    kept: list[Segment] = []
    for number in range(30):
        header = tmp_path / segment.header_name(number)
        kept.append(read(header, write(header, any_codes(50), CODEC), CODEC))
    assert descriptors() == before
    assert sum(map(len, kept)) == 1500


def refused(header: Path, written: Written) -> None:
    with pytest.raises(LibraryError, match="damaged") as error:
        read(header, written, CODEC)
    assert "\n" not in str(error.value)


def test_a_segment_that_is_cut_short_missing_or_another_is_refused(header, tmp_path):
    written = write(header, any_codes(100), CODEC)
    other = tmp_path / "00000002.faiss"
    write(other, any_codes(90), CODEC)
    for file, instead in ((header, other), (lists_of(header), lists_of(other))):
        whole = file.read_bytes()
        for content in (b"", whole[: len(whole) // 2], whole + b"more", instead.read_bytes()):
            file.write_bytes(content)
            refused(header, written)
        file.unlink()
        refused(header, written)
        file.write_bytes(whole)
    assert len(read(header, written, CODEC)) == 100


def test_another_faiss_index_in_its_place_is_refused(header):
    written = write(header, any_codes(100), CODEC)
    faiss.write_index(faiss.IndexFlatL2(8), str(header))
    refused(header, written)
    refused(header, written._replace(header_sha256=segment.checksum(header)))


@pytest.mark.parametrize(
    ("row", "column", "value"), [(5, 0, 1), (5, 1, 64), (5, 2, 32), (0, 2, 2**40), (0, 0, 2**63)]
)
def test_tables_that_are_not_those_of_the_lists_are_damage(header, monkeypatch, row, column, value):
    """Also under the right checksum: FAISS itself trusts them."""
    true = segment._header

    def wrong(lists, *more):
        lists.table[row, column] += np.uint64(value)
        return true(lists, *more)

    monkeypatch.setattr(segment, "_header", wrong)
    refused(header, write(header, any_codes(5000), CODEC))


def test_codes_of_other_books_are_refused(header, monkeypatch):
    """A header that says what its codes mean, and not what they do here."""
    books = segment._books
    monkeypatch.setattr(segment, "_books", lambda codec: books(codec) + np.float32(0.1))
    written = write(header, any_codes(50), CODEC)
    monkeypatch.undo()
    refused(header, written)
