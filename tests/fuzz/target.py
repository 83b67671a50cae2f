"""What is fuzzed: a function that takes bytes and fails when a promise is broken."""

from __future__ import annotations

import contextlib
import logging
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import structlog

from client import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True, slots=True)
class Target:
    """One parser, or a few that belong together."""

    name: str
    promise: str
    """What holds for every input, in words."""
    check: Callable[[bytes], None]
    """Raises whatever breaks the promise, ``AssertionError`` for what is merely wrong."""
    seeds: Callable[[], list[bytes]]
    """Inputs that get far; the kept corpus comes on top."""
    separator: bytes = b"\n---\n"
    """Stands between the parts of an input: those that are JSON are changed as data, not as text."""
    most: int = 4_096
    """Bytes of an input."""
    words: tuple[str, ...] = ()
    """What is worth trying where text stands."""
    seconds: int = 10
    """For one input; a thousand times what it usually takes, for a machine that has other things to do."""

    def run(self, data: bytes) -> None:
        """Hold the promise against one input."""
        with contextlib.suppress(Refused):
            self.check(data)


class Refused(Exception):
    """An input was refused as it should be."""


@contextlib.contextmanager
def refusing(*errors: type[Exception]) -> Iterator[None]:
    """Take these errors for an answer, whose words can be shown; everything else is a fault."""
    try:
        yield
    except errors as error:
        str(error).encode()
        raise Refused from None


def parts(data: bytes, separator: bytes) -> list[str]:
    """Return the parts of an input as text."""
    return [part.decode("utf-8", "replace") for part in data.split(separator)]


def prepare_process() -> None:
    """Make warnings errors, and let nobody print: called where inputs are run by the thousand."""
    warnings.simplefilter("error")
    logging.disable(logging.CRITICAL)
    structlog.configure(processors=[_drop], cache_logger_on_first_use=False)
    log.through_structlog()


REPORTED: list[object] = []
"""What our own code logged as an exception that nobody expected."""


def _drop(_: object, method: str, event: object) -> NoReturn:
    if method == "exception":
        REPORTED.append(event)
    raise structlog.DropEvent
