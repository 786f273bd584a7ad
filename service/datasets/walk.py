"""A dataset's members: every sound in a folder, an archive, Parquet files or a manifest, one after the other.

Members are told one by one, in an order that is always the same. Names in an archive or a manifest lead
nowhere outside of the dataset.

    folder                       its files and those of the folders below, archives and Parquet among them
    .zip
    .tar .tar.gz .tgz .tar.zst   with the JSON beside a sound in WebDataset shards: 0001.flac, 0001.json
    .parquet                     rows with a column of {bytes, path}, as Hugging Face datasets write them
    .jsonl .csv .tsv (.gz .zst)  manifests: rows that name files, by paths relative to the manifest
    .m3u .m3u8 .txt .lst         lists: a path on each line, likewise
    anything else                one sound
"""

from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from fingerprint.errors import reason_of
from service.datasets.archives import tar_members, zip_members
from service.datasets.extensions import is_closed, is_container, is_manifest, is_sound
from service.datasets.folders import files_below
from service.datasets.location import (
    DatasetError,
    Place,
    bytes_of,
    is_folder,
    require_content,
)
from service.datasets.manifests import manifest_members
from service.datasets.member import Member, bad, spelled
from service.datasets.parquet import NoSounds, parquet_members
from service.datasets.source import OnDisk
from service.datasets.url import Url

_NOT_LOOKED_INTO = (
    "is an archive of a kind that is not looked into; unpack it, or pack it as tar or zip"
)


def size_of(dataset: Place) -> int:
    """Bytes of a dataset's files, as far as `members` looks at them. Raises DatasetError."""
    if not is_folder(dataset):
        return bytes_of(dataset)
    return sum(bytes_of(file) for file in _files(dataset, lambda error: None))


Read = Callable[[Place, str], Iterator[Member]]


def read_container(path: Place, name: str) -> Iterator[Member]:
    """Members of an archive, a table or a manifest; name : what the dataset calls it

    Raises DatasetError, and what its reader makes of damage.
    """
    return manifest_members(path) if is_manifest(path.name) else _reader(path)(path, name)


def members(dataset: Place, read: Read = read_container) -> Iterator[Member]:
    """Every member of a dataset. Raises DatasetError if there is none of that name.

    read : reads the containers in it, `service.runtime.reading` in a process with limits
    """
    if is_folder(dataset):
        yield from _of_folder(dataset, read)
    elif is_manifest(dataset.name) or is_container(dataset.name):
        yield from _of_container(dataset, spelled(dataset.name), read)
    elif is_closed(dataset.name):
        raise DatasetError(f"{dataset}: {_NOT_LOOKED_INTO}")
    else:
        yield Member(spelled(dataset.name), None, 0, bytes_of(dataset), OnDisk(dataset))


def _of_folder(folder: Place, read: Read) -> Iterator[Member]:
    def relative(path: Place | str) -> str:
        if isinstance(path, Url) and isinstance(folder, Url):
            return spelled(path.within(folder))
        return spelled(str(PurePosixPath(str(path)).relative_to(str(folder))))

    unread: list[OSError] = []
    for path in _files(folder, unread.append):
        yield from (_unread(relative(error.filename), error) for error in unread)
        unread.clear()
        if is_container(path.name):
            yield from _of_container(path, relative(path), read, in_folder=True)
        elif is_closed(path.name):
            yield bad(relative(path), None, 0, bytes_of(path), "undecodable", _NOT_LOOKED_INTO)
        else:
            yield Member(relative(path), None, 0, bytes_of(path), OnDisk(path))
    yield from (_unread(relative(error.filename), error) for error in unread)


def _files(folder: Place, unreadable: Callable[[OSError], None]) -> Iterator[Place]:
    """Sounds and containers below a folder, in order of name; hidden ones are left out."""
    if isinstance(folder, Url):
        yield from (file for file in folder.files(unreadable) if _is_looked_at(file))
        return
    yield from filter(_is_looked_at, files_below(folder, unreadable))


def _is_looked_at(path: Place) -> bool:
    return is_sound(path.name) or is_container(path.name) or is_closed(path.name)


def _unread(name: str, error: OSError) -> Member:
    return bad(name, None, 0, 0, "not-found", f"cannot be read ({error.strerror})")


def _of_container(
    path: Place, name: str, read: Read, *, in_folder: bool = False
) -> Iterator[Member]:
    """The members of an archive or a Parquet file, up to where it is damaged."""
    weight, index, count = 0, 0, 0
    try:
        for member in read(path, name):
            weight += member.weight
            index = max(index, member.index + 1)
            count += 1
            yield member
    except NoSounds:
        if not in_folder:  # where there are others, a table without sounds is only that
            raise
    except DatasetError as error:
        if not in_folder:
            raise
        what = str(error).removeprefix(f"{path}: ")
        yield bad(name, None, index, max(0, bytes_of(path) - weight), "undecodable", what)
    except Exception as error:  # what the reader of an archive makes of damage
        reason = reason_of(error)
        what = f"is damaged ({reason}); what comes after {count} sounds is not looked at"
        left = max(0, bytes_of(path) - weight)
        yield bad(name, None, index, left, "undecodable", what)


def _reader(path: Place) -> Callable[[Place, str], Iterator[Member]]:
    """What reads a file that holds others, as its beginning says, or else its name.

    Raises DatasetError, OSError.
    """
    require_content(path)
    with path.open("rb") as file:
        head = file.read(4)
    name = path.name.lower()
    if head.startswith(b"PK") or (not head and name.endswith(".zip")):
        return zip_members
    if head == b"PAR1" or name.endswith(".parquet"):
        return parquet_members
    return tar_members
