"""What goes wrong with evidence."""

from fingerprint.errors import EarmarkError


class EvidenceError(EarmarkError):
    """A file that is no evidence, or evidence that cannot be made."""
