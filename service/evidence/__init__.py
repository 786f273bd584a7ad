"""What speaks for a match, in files that can be checked elsewhere."""
