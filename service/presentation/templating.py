"""The pages that reports are: self-contained HTML."""

import jinja2

from service.presentation.formatting import clock, percent


def templates() -> jinja2.Environment:
    """The pages' templates; everything that is put into them is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("service.presentation"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"clock": clock, "percent": percent}
    return environment
