"""How good Earmark is: corpora, degradations, peers, accuracy and speed. `tests/` asks only whether it works."""
