"""What the names of files say of their content."""

from pathlib import PurePosixPath

# What a folder is searched for; a file that is named itself is tried whatever it is called.
AUDIO_EXTENSIONS = frozenset(
    f".{name}"
    for names in (
        "aac ac3 aif aifc aiff alac amr ape au caf dff dsf dts ec3 flac m4a m4b mka mp2 mp3 mp+ mpc",
        "oga ogg opus ra rm spx tak tta w64 wav wma wv xwma",
        "3gp avi flv m4v mkv mov mp4 mpeg mpg mts ogv ts webm wmv",
    )
    for name in names.split()
)

_TAR = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst")
_MANIFESTS = tuple(
    kind + packed
    for kind in (".jsonl", ".ndjson", ".csv", ".tsv")
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
