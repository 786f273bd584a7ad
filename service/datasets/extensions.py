"""What the names of files say of their content."""

from pathlib import PurePosixPath

# What a folder is searched for; a file that is named itself is tried whatever it is called.
AUDIO_EXTENSIONS = frozenset(
    f".{name}"
    for names in (
        "aac ac3 adts aif aifc aiff alac amr ape au bw64 bwf caf dff dsf dts eac3 ec3 flac m4a m4b m4p",
        "m4r mka mp1 mp2 mp3 mp+ mpa mpc mpga oga ogg ogx opus ra rf64 rm snd spx tak tta w64 wav wave",
        "weba wma wv xwma",
        "3g2 3gp asf avi divx f4a f4v flv m1v m2t m2ts m2v m4v mkv mod mov mp4 mpe mpeg mpg mpv mts ogm",
        "ogv qt rmvb tod trp ts vob webm wmv",
    )
    for name in names.split()
)

_TAR = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst")
# Lists of paths: playlists, and text with a path on each line.
_LISTS = (".m3u", ".m3u8", ".txt", ".lst")
_MANIFESTS = tuple(
    kind + packed
    for kind in (".jsonl", ".ndjson", ".csv", ".tsv", *_LISTS)
    for packed in ("", ".gz", ".zst")
)
ARCHIVES = (".zip", *_TAR)
CONTAINERS = (*ARCHIVES, ".parquet")
# Archives that are told of, as they may hold sounds, and not looked into.
_CLOSED = (".7z", ".rar", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.lz4", ".iso")


def is_sound(name: str) -> bool:
    """Whether a name's extension is one of sounds or videos."""
    return PurePosixPath(name).suffix.lower() in AUDIO_EXTENSIONS


def is_container(name: str) -> bool:
    """Whether a name is one of files that hold others and are looked into."""
    return name.lower().endswith(CONTAINERS)


def is_archive(name: str) -> bool:
    """Whether a name is one of archives that are looked into."""
    return name.lower().endswith(ARCHIVES)


def is_closed(name: str) -> bool:
    """Whether a name is one of archives that are told of and not looked into."""
    return name.lower().endswith(_CLOSED)


def is_manifest(name: str) -> bool:
    """Whether a name is one of tables whose rows name files."""
    return name.lower().endswith(_MANIFESTS)


def is_list(name: str) -> bool:
    """Whether a manifest's name is one of lists of paths."""
    return name.lower().removesuffix(".gz").removesuffix(".zst").endswith(_LISTS)
