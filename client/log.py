"""The service's log: lines for a person at a terminal, JSON for whatever reads a pipe. Set up by ``client.cli``."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

# structlog draws tracebacks with rich where it finds it, and looks at greenlets: it would load both, for 5 MiB.
_unwanted = [name for name in ("greenlet", "rich") if name not in sys.modules]
for _name in _unwanted:
    sys.modules[_name] = None  # type: ignore[assignment]
try:
    import structlog
finally:
    for _name in _unwanted:
        del sys.modules[_name]

from schema.errors import scrub  # noqa: E402 - after the import that needs an order


def configure(level: str) -> None:
    """Write to stderr from now on."""
    terminal = sys.stderr.isatty()
    renderer: Any = structlog.processors.JSONRenderer(ensure_ascii=False)
    if terminal:
        renderer = structlog.dev.ConsoleRenderer(colors="NO_COLOR" not in os.environ)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _scrub,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def get_logger() -> Any:
    """Return a logger: ``log.info("what happened", key=value)``."""
    return structlog.get_logger()


def _scrub(_logger: Any, _method: str, event: Any) -> Any:
    """Nothing secret in any line, whoever wrote it."""
    return {key: scrub(value) if isinstance(value, str) else value for key, value in event.items()}
