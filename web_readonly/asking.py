"""What a question of a page is made of: what is asked, what is answered, and the words that filters may be.

``web_readonly.questions`` and those beside it ask with these; ``web_readonly.answering`` makes an ``Asked`` of a
request.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from schema.errors import TerminalError
from schema.observed import Outcome
from schema.status import Following, Phase
from web_readonly.reader import InvalidQuery
from web_readonly.reader.facade import DEFAULT_LIMIT
from web_readonly.reader.paging import MAX_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import BaseModel

    from web_readonly.reader import Reader

    Question = Callable[[Reader, "Asked"], "Answer"]

T = TypeVar("T")

GROWTH: Final = timedelta(days=90)
"""How far back pages show how repositories and backups grew."""
PROTECTION: Final = ("protected", "unprotected", "unknown", "without-objective")
CLIENT_STATES: Final = (
    "connected",
    "away",
    "drifted",
    *(one.value for one in Following),
    *(one.value for one in Phase),
)
BACKUP_STATES: Final = (*PROTECTION, "running")
RUN_OUTCOMES: Final = ("running", *(one.value for one in Outcome))


class NotFound(TerminalError):
    """There is no such thing. Answered with 404."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: when, the parts of its path, and its filters (name → values, empty ones left out)."""

    now: datetime
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """Return a filter that may be given once; empty when it is not."""
        values = self.query.get(name, ())
        if len(values) > 1:
            raise InvalidQuery(f"'{name}' was given {len(values)} times", hint=f"give '{name}' once")
        return values[0] if values else ""

    def choice(self, name: str, allowed: Sequence[str]) -> str:
        """Return a filter that is one of a few words."""
        value = self.text(name)
        if value and value not in allowed:
            raise InvalidQuery(f"'{name}' cannot be '{value[:80]}'", hint=f"it is one of: {', '.join(allowed)}")
        return value

    def labels(self) -> dict[str, str]:
        """Return the labels of ``label=key=value``, which may be given several times."""
        found = {}
        for text in self.query.get("label", ()):
            key, separator, value = text.partition("=")
            if not key or not separator:
                raise InvalidQuery(f"'{text[:80]}' is not a label", hint="write key=value, for example role=web")
            found[key.strip()] = value.strip()
        return found

    def number(self, name: str, *, least: int) -> int | None:
        """Return a filter that is a whole number."""
        text = self.text(name)
        if not text:
            return None
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 12 and int(text) >= least):
            raise InvalidQuery(f"'{name}' cannot be '{text[:80]}'", hint=f"it is a number from {least}")
        return int(text)

    def limit(self, usual: int = DEFAULT_LIMIT) -> int:
        """Return how many rows of a list are wanted."""
        found = self.number("limit", least=1)
        if found is not None and found > MAX_LIMIT:
            raise InvalidQuery(f"'limit' cannot be '{found}'", hint=f"it is a number from 1 to {MAX_LIMIT}")
        return usual if found is None else found

    def moment(self, name: str, *, end: bool = False) -> datetime | None:
        """Return a filter that is a day or a time, in UTC unless it says otherwise; ``end`` is the end of a day."""
        text = self.text(name)
        if not text:
            return None
        try:
            found = datetime.fromisoformat(text)
            moment = found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
            return moment + timedelta(days=1) if end and len(text) == len("2026-11-23") else moment
        except (ValueError, OverflowError):
            hint = "it is a day or a time in UTC: 2026-11-23 or 2026-11-23T07:42"
            raise InvalidQuery(f"'{name}' cannot be '{text[:80]}'", hint=hint) from None


@dataclass(frozen=True, slots=True)
class Answer:
    """The main answer, and what a page shows beside it."""

    main: BaseModel
    beside: Callable[[], Mapping[str, Any]] = dict
    """Asked for by pages alone: the JSON does without, and without its cost."""


def found(value: T | None, kind: str, name: str, *, look: str, near: Sequence[str] = ()) -> T:
    """Return ``value``, or raise that there is no such thing: ``look`` says where all are, ``near`` what was meant."""
    if value is None:
        close = difflib.get_close_matches(name[:100], near, n=1)
        meant = f"did you mean '{close[0]}'? " if close else ""
        raise NotFound(f"there is no {kind} '{name[:200]}'", hint=f"{meant}see {look}")
    return value
