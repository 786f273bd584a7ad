"""A library held by the nodes of a Ray cluster."""
