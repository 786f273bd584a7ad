"""One clip asked of a library, and the answer as JSON."""
