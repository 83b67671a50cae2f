"""Constrained scalar types: names, labels, digests, durations, generations. Made once at the edge, then trusted.

Every other module of ``schema`` builds on these; nothing here reads a clock or a file.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, PlainSerializer, StringConstraints

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
"""Names hold no dot, slash or underscore: they become file names, and ``.`` separates them in archive names."""

Name = Annotated[
    str,
    StringConstraints(pattern=NAME_PATTERN),
    Field(
        description="Lower-case letters, digits and hyphens, at most 63; unique within its kind.", examples=["web-1"]
    ),
]

SECRET_KEY_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,62}$"  # noqa: S105 - a pattern, not a secret
SecretKey = Annotated[str, StringConstraints(pattern=SECRET_KEY_PATTERN)]

LabelKey = Annotated[
    str,
    StringConstraints(
        pattern=r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
    ),
]
LabelValue = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$")]

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]

MAX_GENERATION = 2**53 - 1
"""The greatest integer that every JSON reader keeps exactly."""

Generation = Annotated[int, Field(ge=1, le=MAX_GENERATION)]
"""Counter of one client's desired state: ``max(last + 1, now in milliseconds)``. It only rises."""

_DURATION = re.compile(
    r"(?=.)(?:(?P<w>\d{1,6})w)?(?:(?P<d>\d{1,6})d)?(?:(?P<h>\d{1,6})h)?(?:(?P<m>\d{1,6})m)?(?:(?P<s>\d{1,9})s)?",
    re.ASCII,
)
_UNIT_SECONDS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
MAX_DURATION_SECONDS = 10 * 366 * 86_400


def parse_duration(text: str) -> int:
    """Return the seconds of a duration such as ``26h``, ``1d12h`` or ``90s`` (units w d h m s, in that order)."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text}' is not a duration: write for example 90s, 15m, 26h, 7d or 1d12h")
    seconds = sum(int(number) * _UNIT_SECONDS[unit] for unit, number in match.groupdict().items() if number)
    if seconds > MAX_DURATION_SECONDS:
        raise ValueError(f"'{text}' is longer than ten years")
    return seconds


def format_duration(seconds: int) -> str:
    """Return the shortest text that ``parse_duration`` reads back as ``seconds`` (``93600`` → ``1d2h``)."""
    parts = []
    for unit, size in _UNIT_SECONDS.items():
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _duration(value: Any) -> Any:
    if isinstance(value, str):
        return parse_duration(value)
    raise ValueError("a duration is text with a unit, for example 90s, 15m, 26h, 7d or 1d12h")


Duration = Annotated[
    int,
    BeforeValidator(_duration, json_schema_input_type=str),
    PlainSerializer(format_duration, return_type=str),
]
"""Seconds in memory; ``26h`` in YAML and JSON."""


FIRST_MOMENT = datetime(2, 1, 1, tzinfo=UTC)
LAST_MOMENT = datetime(9998, 12, 31, tzinfo=UTC)
"""A year within what Python can tell, so that no time zone, and no span added to what a stranger says, leads out."""

_FIRST_YEAR, _LAST_YEAR = FIRST_MOMENT.year, LAST_MOMENT.year


def _utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a time needs an offset, for example 2026-11-23T18:00:00Z")
    if _FIRST_YEAR < value.year < _LAST_YEAR:  # almost always, and of every log line
        return value.astimezone(UTC)
    try:
        return min(max(value.astimezone(UTC), FIRST_MOMENT), LAST_MOMENT)
    except OverflowError:
        raise ValueError("a time lies in the years 1 to 9999") from None


def _as_said(value: datetime) -> datetime:
    return value if _FIRST_YEAR < value.year < _LAST_YEAR else _utc(value)


Moment = Annotated[datetime, AfterValidator(_utc)]
"""A point in time, always with offset, kept in UTC; from ``FIRST_MOMENT`` to ``LAST_MOMENT``."""

LogMoment = Annotated[AwareDatetime, AfterValidator(_as_said)]
"""A ``Moment`` with the offset that was said: of log lines there are thousands a second, and UTC for each costs."""


# --- Of paths, repositories and what is done with them ----------------------------------------------------------------


def _absolute_path(text: str) -> str:
    if not text.startswith("/") or "\x00" in text or ".." in text.split("/") or any(ord(char) < 32 for char in text):
        raise ValueError(f"'{text}' is not an absolute path without '..' and control characters")
    return text.rstrip("/") or "/"


AbsolutePath = Annotated[str, StringConstraints(max_length=4096), AfterValidator(_absolute_path)]


def _repository_url(text: str) -> str:
    if any(ord(char) < 33 or ord(char) == 127 for char in text):
        raise ValueError("a repository url has no spaces and no control characters")
    if re.search(r"(?<!\$)\{", text):
        # Borg would expand them after everybody has checked the url: `.{now:.}` is `..`.
        raise ValueError("a repository url has no placeholders of Borg; only ${client} and ${backup} are replaced")
    if text.startswith("/"):
        if ":" in text:
            raise ValueError(f"'{text}' would be taken for a remote repository: a path has no ':'")
        return _absolute_path(text)
    parts = urlsplit(text)
    if parts.scheme != "ssh":
        raise ValueError(f"'{text}' is not supported: write an absolute path or ssh://user@host:port/path")
    if parts.password is not None:
        raise ValueError("a repository url holds no password: use an ssh key")
    if not parts.hostname or parts.hostname.startswith("-") or (parts.username or "").startswith("-"):
        raise ValueError(f"'{text}' names no host: write ssh://user@host:port/path")
    _ = parts.port  # raises ValueError when it is not a port
    if not parts.path.strip("/"):
        raise ValueError(f"'{text}' names no path on the host")
    if ".." in parts.path.split("/"):
        raise ValueError("a repository url has no '..'")
    return text


RepositoryUrl = Annotated[
    str,
    StringConstraints(max_length=2048),
    AfterValidator(_repository_url),
    Field(
        description="`/path` or `ssh://user@host:port/path`; `${client}` and `${backup}` are replaced by the names.",
        examples=["/mnt/backup/${client}", "ssh://borg@nas.example:22/./${client}"],
    ),
]

EncryptionMode = Literal[
    "none", "authenticated", "authenticated-blake2", "repokey", "repokey-blake2", "keyfile", "keyfile-blake2"
]  # the modes of `borg init --encryption`, Borg 1.x

Action = Literal["create", "prune", "compact", "check"]

DriftMode = Literal["heal", "report"]

Sealed = Annotated[str, StringConstraints(pattern=r"^bd1-sealed\.[A-Za-z0-9_-]+$", max_length=1_000_000)]
