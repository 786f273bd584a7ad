"""The `earmark` command and the HTTP service: everything a person or another program talks to."""

import fingerprint  # noqa: F401, its threads
