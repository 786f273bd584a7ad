"""Catalogue, segments, search, alignment, significance. Knows nothing of HTTP."""
