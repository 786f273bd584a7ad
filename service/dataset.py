"""A dataset's members: every sound in a folder, an archive, Parquet files or a manifest, one after the other.

Members are told one by one, in an order that is always the same, and nothing is unpacked to disk: a member
is either a place in a file, which whoever decodes it opens, or, of a compressed archive or a table, its
bytes. Names in an archive or a manifest lead nowhere outside of the dataset. What decodes has no network: of
a dataset at a URL it is given bytes, too (`at_hand`).

    folder                       its files and those of the folders below, archives and Parquet among them
    .zip
    .tar .tar.gz .tgz .tar.zst   with the JSON beside a sound in WebDataset shards: 0001.flac, 0001.json
    .parquet                     rows with a column of {bytes, path}, as Hugging Face datasets write them
    .jsonl .csv .tsv (.gz .zst)  manifests: rows that name files, by paths relative to the manifest
    anything else                one sound
"""

import csv
import gzip
import hashlib
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, Self, cast

from fingerprint.errors import AudioError, EarmarkError
from service.labels import Labels, labels_of, path_of
from service.url import Unreachable, Url, shown
from service.wording import as_text

if TYPE_CHECKING:
    import pyarrow as pa

    from fingerprint.audio import Limits

# What a folder is searched for; a file that is named itself is tried whatever it is called.
AUDIO_EXTENSIONS = frozenset(
    f".{name}"
    for names in (
        "aac ac3 aif aifc aiff alac amr ape au caf dts flac m4a m4b mka mp2 mp3 oga ogg opus spx",
        "tta wav wma wv 3gp avi flv m4v mkv mov mp4 mpeg mpg mts ogv ts webm wmv",
    )
    for name in names.split()
)

TAR = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst")
MANIFESTS = tuple(
    kind + packed
    for kind in (".jsonl", ".ndjson", ".csv", ".tsv")
    for packed in ("", ".gz", ".zst")
)
ARCHIVES = (".zip", *TAR)
CONTAINERS = (*ARCHIVES, ".parquet")
# Archives that are told of, as they may hold sounds, and not looked into.
_CLOSED = (".7z", ".rar", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.lz4", ".iso")

# What is held of a member that can only be read in passing; larger ones are told of as too large.
MOST_IN_MEMORY = 256 * 2**20
# Times its size that a zip file's member may unpack to, beyond what is held in memory anyway: sound that is
# compressed already hardly shrinks, and PCM to a half; only silence and bombs do so.
_MOST_RATIO = 200
_MOST_SIDECAR = 2**20  # bytes of JSON beside a sound
_MOST_HEADER = 2**20  # bytes of a tar file's names and other attributes of one member
_MOST_LINE = 2**20  # characters of a manifest's line
_READ_BYTES = 1 << 20
_ROWS = 8  # of a Parquet file read at once
_DRAINED = 1000  # members after which a tar file's list of them is emptied


class DatasetError(EarmarkError):
    """A dataset that cannot be scanned at all."""


Place = Path | Url


def place(dataset: str) -> Place:
    """Where a dataset of that name is. Raises DatasetError for a URL that nothing here can read."""
    if "://" not in dataset:
        return Path(dataset)
    try:
        url = Url.of(dataset)
        return url.local or url
    except ImportError as error:
        missing = "fsspec, which reads URLs, is not installed" if error.name == "fsspec" else error
        raise DatasetError(f"{shown(dataset)}: cannot be read: {missing}") from None
    except Exception as error:  # whatever the store's client makes of it
        raise DatasetError(f"{shown(dataset)}: is no URL that can be read: {error}") from None


class _InPlace:
    """What is read where it is."""

    @property
    def held(self) -> int:
        """Bytes of memory that it takes by itself."""
        return 0


@dataclass(frozen=True)
class OnDisk(_InPlace):
    """A whole file."""

    path: Place

    @property
    def size(self) -> int:
        """Bytes of it. Raises OSError."""
        return self.path.bytes() if isinstance(self.path, Url) else self.path.stat().st_size

    def open(self) -> BinaryIO:
        """The file; what is no regular file (a device, a pipe) is refused."""
        from fingerprint.audio import open_file

        if isinstance(self.path, Url):
            return self.path.open("rb")
        return open_file(self.path, as_text(self.path))


@dataclass(frozen=True)
class Slice(_InPlace):
    """Bytes offset to offset + size of a file: a member of a tar file that is not compressed."""

    path: Place
    offset: int
    size: int

    def open(self) -> BinaryIO:
        """The slice as a seekable file."""
        return cast(BinaryIO, io.BufferedReader(_SliceOf(self)))


@dataclass(frozen=True)
class Zipped(_InPlace):
    """The member of that number in a zip file's directory."""

    path: Place
    number: int

    @property
    def size(self) -> int:
        """Bytes of it, as the directory has it."""
        return _zip(self.path).infolist()[self.number].file_size

    def open(self) -> BinaryIO:
        """The member as a seekable file: decompressed in memory if it is small, else as it is read."""
        archive = _zip(self.path)
        member = archive.infolist()[self.number]
        stream = archive.open(member)
        if member.compress_type == zipfile.ZIP_STORED or member.file_size > MOST_IN_MEMORY:
            return cast(BinaryIO, stream)
        with stream:
            return io.BytesIO(stream.read(MOST_IN_MEMORY + 1))


@dataclass(frozen=True)
class InMemory:
    """Bytes that were read in passing."""

    data: bytes

    @property
    def size(self) -> int:
        """Bytes of it."""
        return len(self.data)

    held = size

    def open(self) -> BinaryIO:
        """The bytes as a file."""
        return io.BytesIO(self.data)


@dataclass(frozen=True)
class Lost:
    """What could not be had."""

    why: AudioError
    size: int = 0
    held: int = 0

    def open(self) -> BinaryIO:
        """Raises why."""
        raise self.why


Source = OnDisk | Slice | Zipped | InMemory | Lost


def at_hand(given: object) -> object:
    """What a process without a network can open: of a source at a URL its bytes; all else as it is given."""
    if not isinstance(given, OnDisk | Slice | Zipped) or not isinstance(given.path, Url):
        return given
    try:
        with given.open() as file:
            data = file.read(MOST_IN_MEMORY + 1)
    except Exception as error:  # whatever the store's client or an archive's reader makes of it
        kind = error.type if isinstance(error, Unreachable) else "undecodable"
        return Lost(AudioError(kind, f"{given.path}: cannot be read ({_reason(error)})"))
    if len(data) > MOST_IN_MEMORY:
        what = f"has more than {MOST_IN_MEMORY / 2**20:,.0f} MiB, the most that is read of a URL"
        return Lost(AudioError("too-large", f"{given.path}: {what}; copy it to a disk"))
    return InMemory(data)


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@dataclass(frozen=True)
class Member:
    """One sound of a dataset, or what kept it from being one.

    Attributes
    ----------
    file : path of the file it is in, relative to the dataset, with "/"
    member : its name in that file, if it is in a container
    index : its number in that file; (file, index) is unique and the same in every run
    weight : bytes of the dataset that are behind once it is done with
    source : where its bytes are; None if there is a problem
    labels : what the dataset says it is
    problem : why it cannot be read
    """

    file: str
    member: str | None
    index: int
    weight: int
    source: Source | None
    labels: Labels = field(default_factory=dict)
    problem: AudioError | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.file if self.member is None else f"{self.file}: {self.member}"

    @property
    def held(self) -> int:
        """Bytes of memory that it takes."""
        return 0 if self.source is None else self.source.held


def is_container(path: Place) -> bool:
    """Whether a file's name says that it holds other files."""
    return path.name.lower().endswith(CONTAINERS)


def is_sound(name: str) -> bool:
    """Whether a name's extension is one of sounds or videos."""
    return PurePosixPath(name).suffix.lower() in AUDIO_EXTENSIONS


def _is_closed(name: str) -> bool:
    return name.lower().endswith(_CLOSED)


def is_archive(path: Path) -> bool:
    """Whether a file's name says that it is an archive of others."""
    return path.name.lower().endswith(ARCHIVES)


def identify(source: Source, name: str, limits: "Limits") -> tuple[str, int]:
    """SHA-256 and bytes of a sound's content. Raises AudioError where it cannot be read or is too large."""
    digest, size = hashlib.sha256(), 0
    too_large = f"{name}: is larger than {limits.max_bytes / 2**20:,.4g} MiB; raise the limit"
    try:
        with source.open() as file:
            if source.size > limits.max_bytes:
                raise AudioError("too-large", too_large)
            while data := file.read(_READ_BYTES):
                digest.update(data)
                size += len(data)
                if size > limits.max_bytes:  # it is larger than its directory has it
                    raise AudioError("too-large", too_large)
    except AudioError:
        raise
    except Unreachable as error:
        raise AudioError(error.type, f"{name}: cannot be read ({error.strerror})") from error
    except Exception as error:  # what the reader of an archive makes of damage
        raise AudioError("undecodable", f"{name}: is damaged ({_reason(error)})") from error
    return digest.hexdigest(), size


def size_of(dataset: Place) -> int:
    """Bytes of a dataset's files, as far as `members` looks at them. Raises DatasetError."""
    if not _is_folder(dataset):
        return _size(dataset)
    return sum(_size(file) for file in _files(dataset, lambda error: None))


def members(dataset: Place) -> Iterator[Member]:
    """Every member of a dataset. Raises DatasetError if there is none of that name."""
    if _is_folder(dataset):
        yield from _of_folder(dataset)
    elif dataset.name.lower().endswith(MANIFESTS):
        yield from _of_manifest(dataset)
    elif is_container(dataset):
        yield from _of_container(dataset, dataset.name)
    elif _is_closed(dataset.name):
        raise DatasetError(f"{dataset}: {_NOT_LOOKED_INTO}")
    else:
        yield Member(as_text(dataset.name), None, 0, _size(dataset), OnDisk(dataset))


_NOT_LOOKED_INTO = (
    "is an archive of a kind that is not looked into; unpack it, or pack it as tar or zip"
)


def _is_folder(dataset: Place) -> bool:
    """Whether a dataset is a folder. Raises DatasetError if it is nothing at all."""
    try:
        if isinstance(dataset, Url):
            return dataset.is_folder()
        if dataset.exists():
            return dataset.is_dir()
        reason = "no such file or folder"
    except Unreachable as error:
        reason = str(error.strerror)
    raise DatasetError(f"{dataset}: {reason}; name the dataset to scan")


def _size(path: Place) -> int:
    try:
        return path.bytes() if isinstance(path, Url) else path.stat().st_size
    except OSError:
        return 0


# Folders


def _files(folder: Place, unreadable: Callable[[OSError], None]) -> Iterator[Place]:
    """Sounds and containers below a folder, in order of name; hidden ones are left out."""
    if isinstance(folder, Url):
        yield from (file for file in folder.files(unreadable) if _is_looked_at(file))
        return
    for where, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(where, name)
            if _is_looked_at(path) and not name.startswith("."):
                yield path


def _is_looked_at(path: Place) -> bool:
    return is_sound(path.name) or is_container(path) or _is_closed(path.name)


def _of_folder(folder: Place) -> Iterator[Member]:
    def relative(path: Place | str) -> str:
        if isinstance(path, Url) and isinstance(folder, Url):
            return as_text(path.within(folder))
        return as_text(str(PurePosixPath(str(path)).relative_to(str(folder))))

    unread: list[OSError] = []
    for path in _files(folder, unread.append):
        yield from (_unread(relative(error.filename), error) for error in unread)
        unread.clear()
        if is_container(path):
            yield from _of_container(path, relative(path), in_folder=True)
        elif _is_closed(path.name):
            yield _bad(relative(path), None, 0, _size(path), "undecodable", _NOT_LOOKED_INTO)
        else:
            yield Member(relative(path), None, 0, _size(path), OnDisk(path))
    yield from (_unread(relative(error.filename), error) for error in unread)


def _unread(name: str, error: OSError) -> Member:
    return _bad(name, None, 0, 0, "not-found", f"cannot be read ({error.strerror})")


def _bad(file: str, member: str | None, index: int, weight: int, kind: Any, what: str) -> Member:
    name = file if member is None else f"{file}: {member}"
    return Member(file, member, index, weight, None, problem=AudioError(kind, f"{name}: {what}"))


# Containers


def _of_container(path: Place, name: str, *, in_folder: bool = False) -> Iterator[Member]:
    """The members of an archive or a Parquet file, up to where it is damaged."""
    weight, index = 0, 0
    try:
        for member in _reader(path)(path, as_text(name)):
            weight += member.weight
            index = member.index + 1
            yield member
    except _NoSounds:
        if not in_folder:  # where there are others, a table without sounds is only that
            raise
    except Exception as error:  # what the reader of an archive makes of damage
        reason = _reason(error)
        what = f"is damaged ({reason}); what comes after {index} members is not looked at"
        left = max(0, _size(path) - weight)
        yield _bad(as_text(name), None, index, left, "undecodable", what)


def _reader(path: Place) -> Callable[[Place, str], Iterator[Member]]:
    name = path.name.lower()
    if name.endswith(".zip"):
        return _of_zip
    return _of_parquet if name.endswith(".parquet") else _of_tar


class _NoSounds(DatasetError):
    """A table in which no column holds sounds."""


@lru_cache(maxsize=2)
def _zip(path: Place) -> zipfile.ZipFile:
    return zipfile.ZipFile(path.open("rb") if isinstance(path, Url) else path)


def _of_zip(path: Place, name: str) -> Iterator[Member]:
    for number, info in enumerate(_zip(path).infolist()):
        weight, member = info.compress_size, as_text(info.filename)
        if info.is_dir():
            continue
        if info.filename.lower().endswith((*CONTAINERS, *_CLOSED)):
            yield _nested(name, member, number, weight)
        elif is_sound(info.filename):
            if info.flag_bits & 1:
                what = "is encrypted; unpack the archive with its password"
                yield _bad(name, member, number, weight, "undecodable", what)
            elif info.file_size > _MOST_RATIO * info.compress_size + MOST_IN_MEMORY:
                what = f"unpacks to {info.file_size / 2**20:,.0f} MiB of almost nothing"
                yield _bad(name, member, number, weight, "too-large", what)
            else:
                yield Member(name, member, number, weight, Zipped(path, number))


def _nested(file: str, member: str, index: int, weight: int) -> Member:
    what = "is an archive in an archive, which is not looked into; unpack the outer one"
    return _bad(file, member, index, weight, "undecodable", what)


def _of_tar(path: Place, name: str) -> Iterator[Member]:
    """Members of a tar file; sounds wait for the JSON that may follow under the same name."""
    waiting: list[Member] = []
    labels: dict[str, Labels] = {}
    stem = None
    try:
        for member in _tar_members(path, name, labels):
            here = _stem(member.member or "")
            if here != stem:
                yield from _labelled(waiting, labels.pop(stem or "", {}))
                waiting, stem = [], here
                for gone in [each for each in labels if each != here]:
                    del labels[gone]
            if member.source is not None or member.problem is not None:
                waiting.append(member)
    except Exception:  # damage costs what comes after it, not what waits
        yield from _labelled(waiting, labels.get(stem or "", {}))
        raise
    yield from _labelled(waiting, labels.get(stem or "", {}))


def _labelled(waiting: Iterable[Member], labels: Labels) -> Iterator[Member]:
    for member in waiting:
        yield replace(member, labels=labels)


def _stem(name: str) -> str:
    """What the parts of one WebDataset sample share: the path up to the first dot of its last part."""
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.partition('.')[0]}"


class _TarInfo(tarfile.TarInfo):
    """A header whose names fit in memory, however long it says they are, and which is whole.

    tarfile takes a damaged one for the end of the archive.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str | None, errors: str) -> Self:
        try:
            return super().frombuf(buf, cast(str, encoding), errors)
        except tarfile.HeaderError as error:
            if not buf.strip(b"\0"):  # the end
                raise
            raise tarfile.ReadError(f"a member's header: {error}") from error

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _IN_MEMORY and self.size > _MOST_HEADER:
            raise tarfile.ReadError(f"a header of {self.size / 2**20:,.0f} MiB")
        return cast(tarfile.TarInfo, cast(Any, super())._proc_member(archive))


# Headers that tarfile reads whole.
_IN_MEMORY = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


def _tar_members(path: Place, name: str, labels: dict[str, Labels]) -> Iterator[Member]:
    """Sounds, problems and sidecars of a tar file; a sidecar has neither source nor problem."""
    seen = 0
    with (
        _unpacked(path) as (stream, sliceable),
        tarfile.open(fileobj=stream, mode="r:" if sliceable else "r|", tarinfo=_TarInfo) as archive,
    ):
        for number, info in enumerate(archive):
            before, seen = seen, (info.offset_data if sliceable else stream.position())
            weight = info.size if sliceable else max(0, seen - before)
            if number % _DRAINED == 0:
                cast(Any, archive).members = []  # tarfile keeps all it has seen
            member = as_text(info.name)
            if (info.islnk() or info.issym()) and is_sound(info.name):
                what = (
                    f"is a link to {as_text(info.linkname)}, and heard where that is, if it is here"
                )
                yield _bad(name, member, number, weight, "not-found", what)
            if not info.isreg():
                continue
            if info.name.lower().endswith((*CONTAINERS, *_CLOSED)):
                yield _nested(name, member, number, weight)
            elif is_sound(info.name):
                if info.issparse():
                    what = "is stored with holes in it, which are not filled; unpack it"
                    yield _bad(name, member, number, weight, "undecodable", what)
                elif info.size > MOST_IN_MEMORY and not sliceable:
                    what = (
                        f"has {info.size / 2**20:,.0f} MiB, more than is read of a compressed "
                        "archive's member; unpack it"
                    )
                    yield _bad(name, member, number, weight, "too-large", what)
                elif sliceable:
                    source = Slice(path, info.offset_data, info.size)
                    yield Member(name, member, number, weight, source)
                else:
                    data = _data(archive, info)
                    yield Member(name, member, number, weight, InMemory(data))
            elif info.name.lower().endswith(".json") and info.size <= _MOST_SIDECAR:
                labels[_stem(member)] = _sidecar(_data(archive, info))
                yield Member(name, member, number, weight, None)


def _data(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(info)
    assert file is not None  # of a regular member
    return file.read()


def _sidecar(data: bytes) -> Labels:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return labels_of(fields) if isinstance(fields, dict) else {}


@contextmanager
def _unpacked(path: Place) -> Iterator[tuple[Any, bool]]:
    """A file's content, decompressed if its name says that it is compressed, and whether it is not."""
    name = path.name.lower()
    with path.open("rb") as file:
        if name.endswith((".gz", ".tgz")):
            with gzip.GzipFile(fileobj=file) as stream:
                yield _Positioned(stream, file), False
        elif name.endswith((".zst", ".tzst")):
            import zstandard

            reader = zstandard.ZstdDecompressor(max_window_size=2**31)
            with reader.stream_reader(file, read_across_frames=True) as stream:
                yield _Positioned(stream, file), False
        else:
            yield file, True


class _Positioned:
    """A decompressed stream that says how far its file has been read."""

    def __init__(self, stream: Any, file: BinaryIO) -> None:
        self.read = stream.read
        self.position = file.tell


class _SliceOf(io.RawIOBase):
    """A part of a file as a file."""

    def __init__(self, of: Slice) -> None:
        self._file: Any = of.path.open("rb", buffering=0)
        self._of = of
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._of.offset + self._at)
        wanted = max(0, min(len(buffer), self._of.size - self._at))
        count = self._file.readinto(memoryview(buffer)[:wanted]) or 0
        self._at += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._of.size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def close(self) -> None:
        self._file.close()
        super().close()


# Parquet


def _of_parquet(path: Place, name: str) -> Iterator[Member]:
    import pyarrow.parquet as pq

    where = path.open("rb") if isinstance(path, Url) else path
    with pq.ParquetFile(where, buffer_size=2**20) as file:
        sounds = _sound_column(file.schema_arrow)
        if sounds is None:
            raise _NoSounds(
                f"{path}: no column holds sounds ({{bytes, path}}); to compare its metadata alone, "
                "use `earmark reconcile`"
            )
        described = [
            column.name
            for column in file.schema_arrow
            if column.name != sounds and _is_plain(column.type)
        ]
        _refuse_bombs(file.metadata)
        share = _size(path) // max(1, file.metadata.num_rows)
        row = 0
        for batch in file.iter_batches(_ROWS, columns=[sounds, *described], use_threads=False):
            columns = {column: batch.column(column) for column in batch.schema.names}
            for at in range(len(batch)):
                sound = columns[sounds][at].as_py()
                labels = labels_of({column: columns[column][at].as_py() for column in described})
                yield _of_row(path, name, row, share, sound, labels)
                row += 1


def _refuse_bombs(metadata: Any) -> None:
    """Raise ValueError for a table that unpacks to very much more than it is."""
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            packed, size = column.total_compressed_size, column.total_uncompressed_size
            if size > _MOST_RATIO * packed + MOST_IN_MEMORY:
                raise ValueError(f"a column unpacks to {size / 2**20:,.0f} MiB of almost nothing")


def _of_row(path: Place, name: str, row: int, weight: int, sound: Any, labels: Labels) -> Member:
    if isinstance(sound, bytes):
        sound = {"bytes": sound}
    sound = sound or {}
    where = as_text(str(sound.get("path") or ""))
    member = f"row {row}: {where}" if where else f"row {row}"
    data = sound.get("bytes")
    if data is None and where:
        return _named(path.parent, where, name, member, row, weight, labels)
    if data is None:
        return _bad(name, member, row, weight, "undecodable", "the row has no sound")
    if len(data) > MOST_IN_MEMORY:
        what = f"has {len(data) / 2**20:,.0f} MiB, more than is read of a row"
        return _bad(name, member, row, weight, "too-large", what)
    return Member(name, member, row, weight, InMemory(data), labels)


def _sound_column(schema: "pa.Schema") -> str | None:
    """The first column of {bytes, path}, or else of bytes."""
    import pyarrow.types as kinds

    def is_binary(kind: Any) -> bool:
        return kinds.is_binary(kind) or kinds.is_large_binary(kind)

    def is_sound_struct(kind: Any) -> bool:
        return kinds.is_struct(kind) and any(
            part.name == "bytes" and is_binary(part.type) for part in kind
        )

    for fits in (is_sound_struct, is_binary):
        for column in schema:
            if fits(column.type):
                return column.name
    return None


def _is_plain(kind: Any) -> bool:
    import pyarrow.types as kinds

    return kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_primitive(kind)


# Manifests


def _of_manifest(path: Place) -> Iterator[Member]:
    """What a manifest names, up to where it is damaged. Raises DatasetError if that is its beginning."""
    name, index, seen = as_text(path.name), 0, 0
    try:
        with _unpacked(path) as (stream, plain):
            position = stream.tell if plain else stream.position
            raw = cast(Any, _Raw(stream))
            lines = _lines(io.TextIOWrapper(raw, "utf-8-sig", errors="replace", newline=""))
            for fields in _rows(path, lines):
                before, seen = seen, position()
                yield _of_line(path, name, index, max(0, seen - before), fields)
                index += 1
    except Exception as error:  # what the reader makes of damage
        if not index:
            raise DatasetError(f"{path}: cannot be read ({_reason(error)})") from error
        what = f"is damaged ({_reason(error)}); what comes after {index} rows is not looked at"
        yield _bad(name, None, index, max(0, _size(path) - seen), "undecodable", what)


def _of_line(path: Place, name: str, index: int, weight: int, fields: Mapping[str, Any]) -> Member:
    where = path_of(fields)
    if where is None:
        what = "names no file; a row has a path in `file`, `path` or `audio`"
        return _bad(name, f"row {index}", index, weight, "not-found", what)
    member = f"row {index}: {as_text(where)}"
    return _named(path.parent, where, name, member, index, weight, labels_of(fields))


def _rows(path: Place, lines: Iterator[str]) -> Iterator[Mapping[str, Any]]:
    kind = path.name.lower().removesuffix(".gz").removesuffix(".zst").rpartition(".")[2]
    if kind in ("csv", "tsv"):
        csv.field_size_limit(_MOST_LINE)
        yield from csv.DictReader(lines, delimiter="\t" if kind == "tsv" else ",")
        return
    for line in lines:
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            fields = None
        yield fields if isinstance(fields, dict) else {}


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(_MOST_LINE + 1):
        if len(line) > _MOST_LINE:
            raise ValueError(f"a line of more than {_MOST_LINE} characters")
        yield line


class _Raw(io.RawIOBase):
    """A stream that has only `read`, as a raw file."""

    def __init__(self, stream: Any) -> None:
        self._read = stream.read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _named(
    folder: Place, where: str, name: str, member: str, index: int, weight: int, labels: Labels
) -> Member:
    """A file that a table names: one in the table's folder or below."""
    path = folder / where
    if not _is_below(path, folder):
        what = "lies outside the dataset's folder, and is not opened; move it there"
        return _bad(name, member, index, weight, "not-found", what)
    return Member(name, member, index, weight, OnDisk(path), labels)


def _is_below(path: Place, folder: Place) -> bool:
    """Whether a path, its dots and links followed, stays in a folder."""
    if isinstance(path, Url) or isinstance(folder, Url):
        return isinstance(path, Url) and isinstance(folder, Url) and path.is_below(folder)
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a NUL, a loop of links
        return False
