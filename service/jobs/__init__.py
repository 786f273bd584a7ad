"""Work that a server does in the background: scans and ingests, kept in a table."""
