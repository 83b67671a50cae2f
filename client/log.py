"""The service's log: lines for a person at a terminal, JSON for whatever reads a pipe. Set up by ``client.cli``.

JSON is written here, with what the service has in memory anyway. Structlog writes for a person, and where the client
is a part of the director's process.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from schema.errors import scrub

Write = Callable[[str, str, dict[str, Any]], None]
"""Takes the method (``info``, ``exception``, …), what happened, and its values."""


class Log:
    """``log.info("what happened", key=value)``."""

    def debug(self, event: str, **values: Any) -> None:
        _write("debug", event, values)

    def info(self, event: str, **values: Any) -> None:
        _write("info", event, values)

    def warning(self, event: str, **values: Any) -> None:
        _write("warning", event, values)

    def error(self, event: str, **values: Any) -> None:
        _write("error", event, values)

    def exception(self, event: str, **values: Any) -> None:
        """As an error, with the traceback of what is being handled."""
        _write("exception", event, values)


def get_logger() -> Log:
    """Return a logger."""
    return Log()


def configure(level: str) -> None:
    """Write to stderr from now on."""
    threshold = getattr(logging, level.upper())
    if sys.stderr.isatty():
        _configure_structlog(threshold)
    else:
        _send_to(_json_lines(threshold))


def through_structlog() -> None:
    """Log as the rest of the process does, from now on."""
    import structlog  # noqa: PLC0415 - 2 MiB that a service does not need

    logger = structlog.get_logger()
    _send_to(lambda method, event, values: getattr(logger, method)(event, **values))


def _send_to(write: Write) -> None:
    global _write  # noqa: PLW0603 - a log is everybody's
    _write = write


def _json_lines(threshold: int) -> Write:
    stream = sys.stderr

    def write(method: str, event: str, values: dict[str, Any]) -> None:
        level = "error" if method == "exception" else method
        if getattr(logging, level.upper()) < threshold:
            return
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        line = {**values, "event": event, "level": level, "timestamp": now}
        if method == "exception":
            line["exception"] = traceback.format_exc().rstrip("\n")
        text = json.dumps(_scrubbed(line), ensure_ascii=False, default=repr)
        stream.write(f"{text}\n")
        stream.flush()

    return write


_write = _json_lines(logging.INFO)


def _configure_structlog(threshold: int) -> None:
    import structlog  # noqa: PLC0415

    from client.terminal import printable_lines  # noqa: PLC0415

    def printed(event: Any) -> Any:
        return {key: printable_lines(value) if isinstance(value, str) else value for key, value in event.items()}

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            lambda _logger, _method, event: printed(_scrubbed(event)),
            structlog.dev.ConsoleRenderer(
                colors="NO_COLOR" not in os.environ, exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    through_structlog()


def _scrubbed(event: Any) -> Any:
    """Nothing secret in any line, whoever wrote it."""
    return {key: scrub(value) if isinstance(value, str) else value for key, value in event.items()}
