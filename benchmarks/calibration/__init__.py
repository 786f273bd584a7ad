"""Tools that fit the tuned constants, on music that reports never use."""
