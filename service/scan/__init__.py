"""A dataset against a library: the run, its journal, its report."""
