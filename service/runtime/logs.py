"""What the server logs, to standard error, and the id by which a request's lines are known.

A line tells of a request's method, route, status, time and id, and the id of the key that asked: never of a
key's secret, of what was sent, or of the names of files and recordings.
"""

import logging
import logging.config
import re

from asgi_correlation_id import CorrelationIdMiddleware, correlation_id
from fastapi import FastAPI

from service.runtime.settings import Settings

HEADER = "X-Request-ID"
_SANE = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


def install_request_ids(app: FastAPI) -> None:
    """Give every request an id, the client's own if it is sane, and answer with it."""
    app.add_middleware(
        CorrelationIdMiddleware,
        header_name=HEADER,
        validator=lambda given: _SANE.fullmatch(given) is not None,
    )


def request_id() -> str | None:
    """The id of the request that is being answered."""
    return correlation_id.get(None)


def configure_logs(settings: Settings) -> None:
    """Log as the settings say, from all libraries too."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {
                "request": {"()": "asgi_correlation_id.CorrelationIdFilter", "default_value": "-"}
            },
            "formatters": {
                "text": {
                    "format": "%(asctime)s %(levelname)s %(name)s [%(correlation_id)s] %(message)s"
                },
                "json": {
                    "()": "pythonjsonlogger.json.JsonFormatter",
                    "fmt": ["levelname", "name", "message", "correlation_id"],
                    "timestamp": "time",
                    "rename_fields": {
                        "levelname": "level",
                        "name": "logger",
                        "correlation_id": "request_id",
                        "exc_info": "traceback",
                    },
                },
            },
            "handlers": {
                "stderr": {
                    "class": "logging.StreamHandler",
                    "formatter": settings.log_format,
                    "filters": ["request"],
                }
            },
            "root": {"level": settings.log_level.upper(), "handlers": ["stderr"]},
            "loggers": {
                # that it serves is told at any level; that an id was not sane is no news
                "service.web.server": {"level": "INFO"},
                "asgi_correlation_id": {"level": "ERROR"},
            },
        }
    )
