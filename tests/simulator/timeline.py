"""What happened in a world, in virtual time, and where the logs of the simulated programs go."""

from __future__ import annotations

import contextlib
import logging
import re
import traceback
from collections.abc import Iterator
from typing import Any

import structlog

from client import log
from tests.simulator.process import PROCESS
from tests.simulator.virtual_loop import VirtualLoop

_PROCESS = re.compile(r"\bprocess \d+")
_RANDOM_NAME = re.compile(r"\b[0-9a-f]{32}\b")


class Timeline:
    """What happened, in virtual time. Names that are drawn by the real random get numbers."""

    def __init__(self, loop: VirtualLoop, *, base: str) -> None:
        self._loop = loop
        self._base = base
        self._began = loop.time()
        self._names: dict[str, str] = {}
        self.lines: list[str] = []

    def tell(self, who: str, what: str) -> None:
        """Write a line."""
        text = _PROCESS.sub("process …", what.replace(self._base, "…"))
        text = _RANDOM_NAME.sub(lambda match: self._names.setdefault(match[0], f"#{len(self._names)}"), text)
        self.lines.append(f"{self._loop.time() - self._began:12.4f} {who:10} {text}")


@contextlib.contextmanager
def telling(timeline: Timeline, faults: list[str]) -> Iterator[None]:
    """Send logs to the timeline, and what is logged with a traceback (a fault of ours) to ``faults`` as well."""

    def note(_logger: Any, method: str, event: Any) -> Any:
        process = PROCESS.get(None)
        if process is None or process.alive:
            words = [f"{key}={value}" for key, value in event.items() if key not in {"event", "exc_info"}]
            timeline.tell(process.name if process else "-", " ".join([f"{method}:", str(event["event"]), *words]))
            if event.get("exc_info"):
                faults.append(f"{event['event']}\n{_traceback(event['exc_info'])}")
        raise structlog.DropEvent

    former = structlog.get_config()
    structlog.configure(
        processors=[note],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=False,
    )
    log.through_structlog()
    try:
        yield
    finally:
        structlog.configure(**former)


def _traceback(error: Any) -> str:
    return "".join(traceback.format_exception(error)) if isinstance(error, BaseException) else traceback.format_exc()
