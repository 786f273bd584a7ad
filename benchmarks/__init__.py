"""How good Earmark is: corpora, degradations, peers, accuracy and speed (`tests/`: whether it works)."""
