"""Files that stand for others which were not fetched."""

# How files begin that stand for others which were not fetched, and what fetches these.
_POINTERS = {
    b"version https://git-lfs.github.com/spec/": "is a Git LFS pointer, not the file itself; fetch it with "
    "`git lfs pull`",
    b"/annex/objects/": "is a git-annex pointer, not the file itself; fetch it with `git annex get`",
}


def pointer(head: bytes) -> str | None:
    """What a file is that begins so and stands for another, and how to fetch that; None if it is none."""
    return next((what for begins, what in _POINTERS.items() if head.startswith(begins)), None)
