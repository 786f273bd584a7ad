"""Optional parts of Earmark: which extra installs the package that is missing."""

from collections.abc import Iterator
from contextlib import contextmanager

from fingerprint.errors import EarmarkError

# The extra of each package that a plain installation lacks, by the name it is imported under.
EXTRA_OF = {
    "adbc_driver_sqlite": "datasets",
    "duckdb": "datasets",
    "pyarrow": "datasets",
    "fastapi": "server",
    "uvicorn": "server",
    "limits": "server",
    "prometheus_client": "server",
    "asgi_correlation_id": "server",
    "multipart": "server",
    "python_multipart": "server",
    "psycopg": "postgresql",
    "ray": "cluster",
    "torch": "training",
}


class MissingExtra(EarmarkError, ImportError):
    """An optional part that is not installed; `extra` names it."""

    def __init__(self, extra: str, what: str) -> None:
        self.extra = extra
        super().__init__(f"{what} needs Earmark's extra {extra!r}: pip install 'earmark[{extra}]'")


def missing_extra(error: BaseException, what: str) -> MissingExtra | None:
    """What to say of an import that failed; None if no extra would help."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    extra = EXTRA_OF.get(error.name.split(".")[0])
    return MissingExtra(extra, what) if extra else None


@contextmanager
def requires(extra: str, what: str) -> Iterator[None]:
    """Imports that an extra is needed for. Raises MissingExtra."""
    try:
        yield
    except ModuleNotFoundError as error:
        found = missing_extra(error, what)
        if found is None:
            raise
        raise found from error
