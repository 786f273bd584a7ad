"""What runs in the peers' own processes, each file alone, by `serve`."""
