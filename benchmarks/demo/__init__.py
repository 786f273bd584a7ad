"""What `make demo` runs, the works that it composes, and the pictures of the documentation."""
