"""Catalogue, segments, search, alignment, significance. Knows nothing of HTTP."""

import fingerprint  # noqa: F401, its threads
