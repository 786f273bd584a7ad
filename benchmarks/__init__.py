"""How good Earmark is: corpora, degradations, peers, accuracy and speed (`tests/`: whether it works)."""

import fingerprint  # noqa: F401, its threads
