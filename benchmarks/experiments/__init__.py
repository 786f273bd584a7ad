"""Questions that were asked once; `docs/decisions/` has their answers."""
