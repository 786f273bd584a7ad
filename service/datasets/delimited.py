"""CSV as people have it: read whole, row by row, whatever its encoding, separator, quotes and ragged rows.

    bytes ─▶ UTF-8 blocks of whole lines ─▶ pyarrow, where a block is regular ─▶ record batches
                                         └▶ Python's csv, line by line, where it is not ─┘

A block is regular if pyarrow finds in it a row of the header's width for each line, in UTF-8. Of another
block every row still counts: a line that is no UTF-8 is taken for Windows-1252; a row with too few or too
many cells and a quote that is never closed are told of by their line. Empty lines are no rows.
"""

import codecs
import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from fingerprint.errors import reason_of
from fingerprint.isrc import isrcs_in
from service.datasets.location import DatasetError, Place, unpacked

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLE = 2**18  # bytes looked at for the layout
_BLOCK = 2**24  # bytes read at once
_PART = 2**18  # bytes of an irregular block that are looked at alone
_MOST_LINE = 2**26  # bytes of a line
_MOST_LINES = 1000  # of a record with line breaks in its cells
_LINES_SNIFFED = 50
_HEADER_WITHIN = 10  # lines; titles of a report may stand above it
_DELIMITERS = (",", ";", "\t", "|")
_NONE = "\x1f"  # the delimiter of a table of one column: ASCII's unit separator, in no such text
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

# How many of a header's columns are known.
Known = Callable[[Sequence[str]], int]


@dataclass(frozen=True)
class Layout:
    """How a table is written: its codec, separator, names of columns, and the lines above its first row."""

    encoding: str
    delimiter: str
    header: tuple[str, ...]
    lines: int


def encoding_of(sample: bytes) -> str:
    """The codec of a text by its mark, or by the zeros that UTF-16 has in Western text; else UTF-8."""
    for mark, codec in _BOMS:
        if sample.startswith(mark):
            return codec
    zeros = [sample[at::2].count(0) / max(1, len(sample) // 2) for at in (0, 1)]
    if max(zeros) > 0.3:
        return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    return "utf-8"


def decoded(data: bytes) -> tuple[str, bool]:
    """Text in UTF-8, or else taken for Windows-1252, and whether it is UTF-8."""
    try:
        return data.decode(), True
    except UnicodeDecodeError:
        pass
    try:
        return data.decode("cp1252"), False
    except UnicodeDecodeError:
        return data.decode("latin-1"), False


def layout_of(text: str, encoding: str, known: Known) -> Layout:
    """The layout of a table that begins so: the separator under which a header has most known columns."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    told = next((line[4:] for line in lines[:1] if line.lower().startswith("sep=")), "")
    skipped = 1 if told else 0  # Excel's own line above the header
    delimiters = [told] if len(told) == 1 else list(_DELIMITERS)
    best: tuple[tuple[float, ...], Layout] | None = None
    for delimiter in delimiters:
        rows = list(_sniffed(lines[skipped:], delimiter))
        for at, (end, cells) in enumerate(rows[:_HEADER_WITHIN]):
            widths = [len(row) for _, row in rows[at:]]
            alike = widths.count(len(cells)) / len(widths)
            count = known(cells)
            rank = (min(count, 2), -at, count, alike, len(cells))
            if best is None or rank > best[0]:
                names = tuple(" ".join(cell.split()) for cell in cells)
                layout = Layout(encoding, delimiter, names, skipped + end)
                best = (rank, layout)
    if best is None:
        return Layout(encoding, ",", (), 0)
    layout = best[1]
    if len(layout.header) == 1:
        layout = Layout(encoding, _NONE, layout.header, layout.lines)
    return layout


def _sniffed(lines: Sequence[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The first rows, and after which line each ends."""
    reader = csv.reader((line + "\n" for line in lines[:_LINES_SNIFFED]), delimiter=delimiter)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, cells
    except csv.Error:
        return


def blocks(path: Place, encoding: str, size: int = _BLOCK) -> Iterator[bytes]:
    """A text file's content in UTF-8, in blocks of whole lines that end in LF; the last may not.

    Bytes of a file in UTF-8 are passed on as they are. Raises DatasetError for a line without end, and
    what the decompressors make of damage.
    """
    decoder = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)("replace")
    rest, begun, returns = b"", False, False
    with unpacked(path) as (stream, _):
        while data := stream.read(size):
            if decoder is not None:
                data = decoder.decode(data).encode("utf-8", "replace")
            if not begun:
                data = data.removeprefix(codecs.BOM_UTF8)
                begun, returns = True, b"\r" in data and b"\n" not in data
            if returns:
                data = data.replace(b"\r", b"\n")
            end = data.rfind(b"\n") + 1
            if end:
                yield rest + data[:end]
                rest = data[end:]
            else:
                rest += data
            if len(rest) > _MOST_LINE:
                raise DatasetError(f"{path}: has a line of more than {_MOST_LINE >> 20} MiB")
    if decoder is not None:
        rest += decoder.decode(b"", True).encode("utf-8", "replace")
    if rest:
        yield rest


def lines_of(block: bytes) -> Iterator[tuple[str, bool]]:
    """The lines of a block without their ends, and whether each is UTF-8."""
    block = block.removesuffix(b"\n")
    text, sound = decoded(block)
    if sound:
        yield from ((line, True) for line in text.split("\n"))
    else:
        yield from map(decoded, block.split(b"\n"))


def records(
    lines: Iterable[tuple[int, str]],
    delimiter: str,
    width: int,
    rest: list[tuple[int, str]] | None = None,
) -> Iterator[tuple[int, list[str]]]:
    """The rows of numbered lines, and the line each begins at.

    A quoted cell may have line breaks in it, if its row then has the header's width; a quote that is never
    closed is a quote, and its line a row. The lines of a last row that may go on are put into `rest`, if that
    is given.
    """
    ahead: list[tuple[int, str]] = []
    source = iter(lines)
    while (first := ahead.pop() if ahead else next(source, None)) is not None:
        number, text = first
        cells = _cells([text], delimiter)
        taken: list[tuple[int, str]] = []
        while cells is None and len(taken) < _MOST_LINES:
            another = ahead.pop() if ahead else next(source, None)
            if another is None and rest is not None:
                rest += [first, *taken]
                return
            if another is None:
                break
            taken.append(another)
            if '"' in another[1]:
                cells = _cells([text, *(line for _, line in taken)], delimiter)
        if cells is None or (taken and len(cells) != width):
            cells = [cell.strip().strip('"') for cell in text.split(delimiter)]
            ahead += reversed(taken)
        if len(cells) > 1 or any(cell.strip() for cell in cells):
            yield number, cells


def _cells(lines: Sequence[str], delimiter: str) -> list[str] | None:
    """The cells of a row that has these lines; None if it goes on behind them, [] if it has others."""
    written = [line.rstrip("\r").replace("\r", " ") + "\n" for line in lines]
    try:
        return next(csv.reader(written, delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        if "unexpected end" in str(error):
            return None
        if len(lines) > 1:
            return []
    try:
        return next(csv.reader(written, delimiter=delimiter), [])
    except csv.Error:
        return "".join(lines).split(delimiter)


class Delimited:
    """The rows of a CSV file as Arrow record batches, each with the number of its line.

    wanted : numbers of the columns to read; `isrc` is the one of ISRCs
    odd : told of what is odd about a row that is read all the same: its line and what
    rows, assumed : how many rows there were so far, and how many lines were taken for Windows-1252
    damage : what ended the file too soon
    """

    def __init__(
        self,
        path: Place,
        layout: Layout,
        wanted: Sequence[int],
        isrc: int | None,
        odd: Callable[[int, str], None],
    ) -> None:
        self._path, self._layout, self._wanted, self._isrc = path, layout, wanted, isrc
        self._odd = odd
        self._columns = [f"c{at}" for at in range(len(layout.header))]
        import pyarrow as pa

        self.schema = pa.schema(
            [("line", pa.int64()), *((self._columns[at], pa.string()) for at in wanted)]
        )
        self.rows = self.assumed = 0
        self.damage: str | None = None

    def batches(self) -> "Iterator[pa.RecordBatch]":
        """Every row's wanted cells, up to damage if there is some: `damage` says so then."""
        line = 1
        carried: list[tuple[int, str]] = []  # lines of a row that goes on in the next block
        for block in self._readable():
            skipped = 0
            while skipped < len(block) and line <= self._layout.lines:
                skipped = block.find(b"\n", skipped) + 1 or len(block)
                line += 1
            block = block[skipped:]
            if not block:
                continue
            table = None if carried else self._regular(block, line)
            if table is not None:
                self.rows += table.num_rows
                line += table.num_rows
                yield from table.to_batches()
                continue
            for part in _parts(block):
                count = part.count(b"\n") + (not part.endswith(b"\n"))
                table = None if carried else self._regular(part, line)
                if table is None:
                    table, carried = self._irregular(part, line, carried)
                line += count
                self.rows += table.num_rows
                yield from table.to_batches()
        if carried:
            table, _ = self._irregular(b"", line, carried, last=True)
            self.rows += table.num_rows
            yield from table.to_batches()

    def _readable(self) -> Iterator[bytes]:
        try:
            yield from blocks(self._path, self._layout.encoding)
        except Exception as error:  # what the decompressors make of damage
            self.damage = f"is damaged ({reason_of(error)}); what comes after it is not read"

    def _regular(self, block: bytes, line: int) -> "pa.Table | None":
        """The rows of a block in which each line is one; None where that is not so."""
        import pyarrow as pa
        import pyarrow.csv as pacsv

        data = np.frombuffer(block, np.uint8)
        ends = np.flatnonzero(data == ord("\n"))
        count = len(ends) + (block[-1:] != b"\n")
        if b"\n\n" in block or b"\n\r\n" in block or block[:1] in (b"\r", b"\n"):
            return None
        if b"\r" in block and block.count(b"\r") != block.count(b"\r\n"):
            return None
        if b'"' in block:
            starts = np.concatenate(([0], ends + 1))[:count]
            if (np.add.reduceat(data == ord('"'), starts, dtype=np.int64) & 1).any():
                return None
        names = [self._columns[at] for at in self._wanted]
        try:
            table = pacsv.read_csv(
                pa.BufferReader(block),
                pacsv.ReadOptions(column_names=self._columns, block_size=2**22),
                pacsv.ParseOptions(delimiter=self._layout.delimiter),
                pacsv.ConvertOptions(
                    include_columns=names, column_types=dict.fromkeys(names, pa.string())
                ),
            )
        except (pa.ArrowInvalid, UnicodeDecodeError):
            return None
        if table.num_rows != count:
            return None
        return table.add_column(0, "line", pa.array(np.arange(line, line + count)))

    def _irregular(
        self, block: bytes, line: int, carried: list[tuple[int, str]], *, last: bool = False
    ) -> "tuple[pa.Table, list[tuple[int, str]]]":
        """The rows of a block and of the lines carried over, and the lines that may go on behind it."""
        import pyarrow as pa

        width = len(self._layout.header)
        numbered = []
        for number, (text, sound) in enumerate(lines_of(block) if block else (), start=line):
            self.assumed += not sound
            numbered.append((number, text))
        rest: list[tuple[int, str]] | None = None if last else []
        columns: list[list[Any]] = [[] for _ in self.schema]
        for number, cells in records(carried + numbered, self._layout.delimiter, width, rest):
            row = self._row(number, cells, width)
            columns[0].append(number)
            for column, at in zip(columns[1:], self._wanted, strict=True):
                column.append(row[at])
        arrays = [
            pa.array(column, kind) for column, kind in zip(columns, self.schema.types, strict=True)
        ]
        return pa.table(arrays, schema=self.schema), rest or []

    def _row(self, number: int, cells: list[str], width: int) -> list[str]:
        """A row of the header's width; an ISRC that slipped to another column is put back."""
        while len(cells) > width and not cells[-1].strip():
            cells = cells[:-1]
        if len(cells) == width:
            return cells
        self._odd(number, f"{len(cells)} cells where the header has {width}")
        row = [*cells, *[""] * (width - len(cells))][:width]
        if self._isrc is not None and not isrcs_in(row[self._isrc]):
            row[self._isrc] = "; ".join(chain.from_iterable(map(isrcs_in, cells)))
        return row


def _parts(block: bytes) -> Iterator[bytes]:
    """A block's lines, some at a time."""
    start = 0
    while start < len(block):
        end = block.find(b"\n", min(len(block), start + _PART)) + 1 or len(block)
        yield block[start:end]
        start = end
