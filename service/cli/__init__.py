"""The `earmark` command."""
