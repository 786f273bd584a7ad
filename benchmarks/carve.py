"""Audio out of what games ship: plain files, packs (zip, pk3, jar, tar, gzip), streams in other files.

`collect(tree, destination)` copies every audio file below `tree`. A member of a pack lands in
`<pack>.d/<member>`; a stream found in an unknown container lands in `<container>.d/carved-NNNN.<type>`,
numbered in the order Ogg, WAV, MIDI, each by position: the catalogue's paths rest on this layout.
"""

from __future__ import annotations

import io
import os
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_AUDIO = (
    "ogg oga opus mp3 flac wav aif aiff aifc au snd m4a aac wma wv ape mpc spx mp2 "
    "mod xm it s3m mptm stm mtm 669 med okt ult far umx mo3 mid midi kar rmi"
)
AUDIO_SUFFIXES = frozenset(_AUDIO.split())
# Never audio nor a container of it; or holding audio of no use here (videos, sound fonts).
_IGNORED = (
    "png jpg jpeg gif svg svgz html htm txt py pyc so a o js css xml ttf otf mo po webp dds tga bmp "
    "xcf pdf ps tex java class sf2 sf3 debug webm avi mp4 ogv mkv"
)
IGNORED_SUFFIXES = frozenset(_IGNORED.split())
IGNORED_FOLDERS = tuple(
    PurePosixPath(p).parts
    for p in (
        "usr/bin",
        "usr/sbin",
        "usr/lib/debug",
        "usr/share/icons",
        "usr/share/locale",
        "usr/share/fonts",
        "usr/share/man",
    )
)
SMALLEST_FILE = 100  # bytes; below it there is no sound
SMALLEST_CONTAINER = 50_000  # bytes; smaller unknown files are not searched for streams
SMALLEST_OGG = 2_000  # bytes
SMALLEST_WAV = 200  # bytes
LARGEST_IN_MEMORY = 1_500_000_000  # bytes; larger files are skipped unless they are zips
DEEPEST = 2  # packs inside packs
MOST_MIDI = 2_000  # streams of one container

_MODULE_TAGS = (b"M.K.", b"M!K!", b"FLT4", b"6CHN", b"8CHN", b"4CHN")


def collect(tree: Path, destination: Path) -> list[str]:
    """Copy the audio below `tree` into `destination`; returns what could not be read, a line each."""
    problems = []
    for root, folders, files in os.walk(tree):
        below = Path(root).relative_to(tree)
        if any(below.parts[: len(ignored)] == ignored for ignored in IGNORED_FOLDERS):
            folders.clear()
            continue
        folders.sort()
        for file in sorted(files):
            path = Path(root, file)
            if path.is_symlink() or not path.is_file():
                continue
            name = _short_name((below / file).as_posix())
            if _suffix(name) in IGNORED_SUFFIXES or path.stat().st_size < SMALLEST_FILE:
                continue
            try:
                for member, data in _open_file(path, name):
                    target = destination / member
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(data)
            except (OSError, zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
                problems.append(f"{name}: {error}")
    return problems


def _short_name(name: str) -> str:
    for prefix in ("usr/share/", "usr/"):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def _suffix(name: str) -> str:
    base = name.rsplit("/", 1)[-1]
    return base.rsplit(".", 1)[-1].lower() if "." in base else ""


def _open_file(path: Path, name: str) -> Iterator[tuple[str, bytes]]:
    """Audio in one file on disk; a large zip is read member by member."""
    if _suffix(name) not in AUDIO_SUFFIXES and zipfile.is_zipfile(path) and _starts_as_zip(path):
        with zipfile.ZipFile(path) as pack:
            yield from _zip_members(pack, name, depth=1)
    elif path.stat().st_size <= LARGEST_IN_MEMORY:
        yield from audio_in(name, path.read_bytes())


def _starts_as_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def audio_in(name: str, data: bytes, depth: int = 0) -> Iterator[tuple[str, bytes]]:
    """(relative path, bytes) of every audio file in `data`, which was found under `name`."""
    suffix = _suffix(name)
    kind = sniff(data)
    if kind or suffix in AUDIO_SUFFIXES:
        # These two suffixes are also used for text (translations, modules of programs).
        if not kind and (suffix == "it" or (suffix == "mod" and b"\x00" not in data[:1084])):
            return
        yield (name if suffix in AUDIO_SUFFIXES else f"{name}.{kind}"), data
        return
    if depth > DEEPEST or suffix in IGNORED_SUFFIXES:
        return
    if suffix == "sofa":
        from benchmarks import sofa  # needs h5py, which the demo does without

        for number, response in enumerate(sofa.responses(data)):
            yield f"{name}.d/response-{number:04d}.wav", response
        return
    if data[:4] == b"PK\x03\x04":
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as pack:
                yield from _zip_members(pack, name, depth + 1)
            return
        except zipfile.BadZipFile:
            pass  # a zip header inside something else: carve it
    if data[:2] in (b"\x1f\x8b", b"\x1e\x8c"):  # the second is a Clonk group: gzip, other magic
        try:
            unpacked = _gunzip(b"\x1f\x8b" + data[2:])
        except zlib.error:
            return
        yield from audio_in(name.removesuffix(".gz"), unpacked, depth + 1)
        return
    if data[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for entry in archive:
                content = archive.extractfile(entry) if entry.isfile() else None
                if content:
                    yield from audio_in(_member(name, entry.name), content.read(), depth + 1)
        return
    if len(data) >= SMALLEST_CONTAINER:
        for number, (start, stop, found) in enumerate(_streams(data)):
            yield f"{name}.d/carved-{number:04d}.{found}", data[start:stop]


def _member(pack: str, member: str) -> str:
    """Where a pack's member goes; a path that climbs out of the pack is defused."""
    return f"{pack}.d/" + member.lstrip("/").replace("..", "_")


def _zip_members(pack: zipfile.ZipFile, name: str, depth: int) -> Iterator[tuple[str, bytes]]:
    for entry in pack.infolist():
        if entry.is_dir() or _suffix(entry.filename) in IGNORED_SUFFIXES:
            continue
        try:
            data = pack.read(entry)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError):
            continue  # damaged, encrypted or oddly compressed: the other members are still good
        yield from audio_in(_member(name, entry.filename), data, depth)


def _gunzip(data: bytes) -> bytes:
    """All gzip members of `data`; what follows the last one (padding) is ignored."""
    parts = []
    while data[:2] == b"\x1f\x8b":
        member = zlib.decompressobj(wbits=31)
        parts.append(member.decompress(data))
        data = member.unused_data
    return b"".join(parts)


def sniff(head: bytes) -> str | None:
    """The audio type that these first bytes (1,084 are enough) declare, as a file suffix."""
    if head[:4] == b"OggS":
        return "ogg"
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "wav"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    if head[:4] == b"fLaC":
        return "flac"
    if head[:3] == b"ID3":
        return "mp3"
    if head[:4] == b"MThd":
        return "mid"
    if head[:17] == b"Extended Module: ":
        return "xm"
    if head[:4] == b"IMPM":
        return "it"
    if head[0x2C:0x30] == b"SCRM":
        return "s3m"
    if head[1080:1084] in _MODULE_TAGS:
        return "mod"
    return None


def _streams(data: bytes) -> Iterator[tuple[int, int, str]]:
    for start, stop in _ogg_streams(data):
        yield start, stop, "ogg"
    for start, stop in _wav_streams(data):
        yield start, stop, "wav"
    for number, (start, stop) in enumerate(_midi_streams(data)):
        if number < MOST_MIDI:
            yield start, stop, "mid"


def _ogg_streams(data: bytes) -> Iterator[tuple[int, int]]:
    """Byte ranges of Ogg files: pages are followed from a first page until all its streams ended."""
    position = 0
    while (position := data.find(b"OggS\x00\x02", position)) >= 0:
        page = position
        opened: set[bytes] = set()
        ended: set[bytes] = set()
        while page + 27 <= len(data) and data[page : page + 4] == b"OggS":
            first, last = data[page + 5] & 2, data[page + 5] & 4
            serial, segments = data[page + 14 : page + 18], data[page + 26]
            if first and opened and ended >= opened:
                break  # the next file begins
            if first:
                opened.add(serial)
            if last:
                ended.add(serial)
            page += 27 + segments + sum(data[page + 27 : page + 27 + segments])
        stop = min(page, len(data))
        if stop - position > SMALLEST_OGG:
            yield position, stop
        position = max(stop, position + 6)


def _wav_streams(data: bytes) -> Iterator[tuple[int, int]]:
    for header in re.finditer(rb"RIFF....WAVEfmt ", data, re.DOTALL):
        start = header.start()
        size: int = struct.unpack_from("<I", data, start + 4)[0] + 8
        if SMALLEST_WAV < size <= len(data) - start:
            yield start, start + size


def _midi_streams(data: bytes) -> Iterator[tuple[int, int]]:
    for header in re.finditer(rb"MThd\x00\x00\x00\x06", data):
        start = header.start()
        if start + 14 > len(data):
            return
        tracks = struct.unpack_from(">H", data, start + 10)[0]
        stop = start + 14
        for _ in range(tracks):
            if data[stop : stop + 4] != b"MTrk" or stop + 8 > len(data):
                break
            stop += 8 + struct.unpack_from(">I", data, stop + 4)[0]
        else:
            if start + 14 < stop <= len(data):
                yield start, stop
