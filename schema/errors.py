"""The exception tree, and the problems that people are shown.

::

    DirectorError              everything we raise on purpose; has a hint
    ├── TransientError         trying again later may help (network, lock, disk)
    └── TerminalError          stays wrong until a person changes something
        ├── InvalidSource      the source has problems; carries all of them
        ├── TrustError         a key, signature, token or envelope was refused; carries a reason code
        └── PolicyDenied       the machine's local policy forbids it; carries the line that would allow it

A message is lower case, in the user's words: what failed, why, which values are allowed. The hint says what to do.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Iterable


class DirectorError(Exception):
    """Base of every error raised on purpose. ``str(error)`` never holds a secret (see ``scrub``)."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(scrub(message))
        self.message = scrub(message)
        self.hint = scrub(hint)

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class TransientError(DirectorError):
    """Trying again later may help; callers back off with full jitter."""


class TerminalError(DirectorError):
    """Stays wrong until a person changes something; callers stall instead of retrying."""


class Severity(StrEnum):
    """``error`` stops a revision; ``warning`` is shown and lets it pass."""

    ERROR = "error"
    WARNING = "warning"


class ExcerptLine(BaseModel):
    """One line of a file of the source, cut where it is long; values that may be secret are hidden."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    number: int
    text: str


class Problem(BaseModel):
    """One thing wrong in the source, at one place. ``line`` and ``column`` count from 1; 0 is "the whole file"."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    severity: Severity = Severity.ERROR
    code: str
    """Stable kebab-case identifier, e.g. ``unknown-field``: for scripts, SARIF rules and tests."""
    message: str
    hint: str = ""
    path: str = ""
    line: int = 0
    column: int = 0
    excerpt: tuple[ExcerptLine, ...] = ()
    """The line and its neighbours, when the director keeps the problem."""

    @property
    def place(self) -> str:
        """``file:line:column``, as editors and terminals understand it; shorter where parts are unknown."""
        return ":".join(str(part) for part in (self.path, self.line, self.column) if part)

    def __str__(self) -> str:
        text = f"{self.place or 'source'}: {self.severity}: {self.message}"
        return f"{text}\n  hint: {self.hint}" if self.hint else text


class InvalidSource(TerminalError):
    """The source has problems, and nothing of that revision may be used."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        errors = [problem for problem in self.problems if problem.severity is Severity.ERROR]
        first = errors[0] if errors else None
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        super().__init__(f"{first}{more}" if first else "the source is invalid")


class TrustError(TerminalError):
    """A key, signature, token or envelope was refused. ``code`` is one of ``wire.RefusalCode`` or of this kind."""

    def __init__(self, message: str, *, code: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class PolicyDenied(TerminalError):
    """The machine's own policy forbids what was asked. ``allow`` is the line of client.toml that would permit it."""

    def __init__(self, message: str, *, allow: str = "") -> None:
        super().__init__(message, hint=f"to allow it, put into client.toml on that machine: {allow}" if allow else "")
        self.allow = allow


# Compiled by re when the first text is scrubbed, and kept there: most commands have none.
_URL_CREDENTIALS = r"(?i)(?P<scheme>[a-z][a-z0-9+.-]{0,31}://)(?P<user>[^\s/:@]*):(?P<password>[^\s/@]+)@"
_TOKEN = r"\bbd1-(?:token|enroll|viewer)\.[A-Za-z0-9_=.:/-]+"  # noqa: S105 - a pattern

_ASSIGNED = (
    r"(?i)(?P<name>passphrase|password|passwd|pgpass|secret|token|(?:api|access|secret|private)[_-]?key)="
    # A shell joins what stands together: 'it'"'"'s' is one word.
    r"(?P<value>(?:\"[^\"\n]{0,4096}\"|'[^'\n]{0,4096}')"
    r"(?:\"[^\"\n]{0,4096}\"|'[^'\n]{0,4096}'|\\[\"'\\]|[^\s\"'&;,)\]}])*+|[\"']?[^\s\"'&;,)\]}]+)"
)
"""As in ``PGPASSWORD=…`` before a command, ``--password=…`` after it, and ``?token=…``: what hooks and tools print."""


def scrub(text: str) -> str:
    """Return ``text`` without passwords in URLs, our own tokens and what is assigned to a secret's name.

    The one place where that is done.
    """
    text = re.sub(_URL_CREDENTIALS, r"\g<scheme>\g<user>:***@", text)
    text = re.sub(_ASSIGNED, r"\g<name>=***", text)
    return re.sub(_TOKEN, "bd1-token.***", text)
