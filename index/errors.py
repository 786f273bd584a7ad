"""Errors of libraries."""

from fingerprint.errors import EarmarkError


class LibraryError(EarmarkError):
    """A library that cannot be used: missing, damaged, locked, or made by another encoder."""


class LibraryLocked(LibraryError):
    """Another process is writing the library; it can be tried again."""


class DatabaseAway(LibraryError):
    """The database of a library does not answer; it can be tried again."""


class ClusterError(LibraryError):
    """A cluster that cannot be used: not there, of another version, too small."""


class ShardLost(ClusterError):
    """A shard that does not answer just now."""
