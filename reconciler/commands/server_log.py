"""What the HTTP server says by Python's own ``logging``, as lines of our log. Called by ``output.configure_logging``.

Otherwise it would go to stderr as it is: not JSON, not scrubbed, and a dozen lines for each request that cannot be
read, which hold what was in it. Anybody who reaches a port could fill the log, or find in it what somebody else sent.
"""

from __future__ import annotations

import logging
from typing import Final

import structlog
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import RequestPayloadError

_NAME: Final = "aiohttp"


class ServerLog(logging.Handler):
    """Hands records over to our log, but for those of requests that nobody can read: they are answered, and no news."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError | RequestPayloadError):
            return
        log = structlog.get_logger(record.name)
        log.log(record.levelno, "server.said", message=record.getMessage(), exc_info=error)


def take_over() -> None:
    """Send all that the server says through ``ServerLog``."""
    logger = logging.getLogger(_NAME)
    logger.handlers = [ServerLog()]
    logger.propagate = False
