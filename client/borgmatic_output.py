"""What borgmatic says, understood: log lines, progress and statistics out of bytes that may be anything. Pure.

With ``--log-json`` borgmatic 2.1 writes a JSON object a line: INFO to stdout, the rest to stderr. With ``--json`` it
wraps the JSON lines of Borg's ``create`` into its own, as text and with the level ERROR, and prints one list of
statistics at the very end, without a line break and only when no repository failed. Borg's other commands write their
JSON lines themselves. Hooks, ssh and Python's tracebacks write plain text in between. ``runner`` feeds all of it to
``Reader``.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from schema.errors import scrub
from schema.observed import MAX_TEXT, LogLine, RepositoryStatistics
from schema.scalars import NAME_PATTERN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Level = Literal["debug", "info", "warning", "error", "critical"]

MAX_LINE_BYTES = 1024 * 1024
"""A longer line is cut: the list of statistics of a hundred repositories has a tenth of that."""

_LEVELS: dict[str, Level] = {
    "DEBUG": "debug",
    "INFO": "info",
    "ANSWER": "info",
    "WARNING": "warning",
    "ERROR": "error",
    "CRITICAL": "critical",
}
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_LARGEST = 2**63 - 1
_SHORT = 1_024
_MIN_SECRET = 6
_MAX_REASONS = 200

_NOISE = ("summary:", "Need some help?")
_TRACEBACK = "Exception ignored in: <function _TemporaryFileCloser"
"""What Python prints when borgmatic's temporary folder went before a file in it: of no interest to anybody."""
_END_OF_TRACEBACK = re.compile(r"\w+Error: ")
_GENERIC = (
    "Error running actions for repository",
    "Error running configuration",
    "Error running command hook",
    "An error occurred",
    "Command '",
    "Treating exit code",
)

_LOCK_OF_THE_DEAD = re.compile(r"Killed stale lock \S+\.$|Removed stale \w+ roster lock for host ")
"""Borg took away the lock of a process of this machine that was killed: it says so, and there is nothing left to do."""

_MISSING_REPOSITORY = re.compile(r"Repository (?P<url>\S+) does not exist")

HINTS: tuple[tuple[str, str], ...] = (
    (
        r"Host key verification failed",
        "the server shows another host key: make sure that it is the right one, then change knownHosts",
    ),
    (
        r"Load key .*(error in libcrypto|invalid format)",
        "ssh cannot read the private key: seal the whole file, of a key without a passphrase",
    ),
    (
        r"Permission denied \(publickey",
        "the server does not accept the ssh key: add its public half to authorized_keys",
    ),
    (
        r"Connection (refused|timed out|reset by peer)|No route to host|is unreachable|Could not resolve hostname",
        "the server of the repository cannot be reached: is it up, and are host and port right?",
    ),
    (
        r"Repository path not allowed",
        "the server lets this key use other paths only: compare the url with --restrict-to-path in its authorized_keys",
    ),
    (
        r"Failed to create/acquire the lock",
        "another program uses the repository; when none does, a crash left the lock: `borgmatic break-lock` removes it",
    ),
    (
        r"passphrase supplied .*incorrect|Passphrase .*is wrong",
        "the passphrase is not the one that the repository was created with: look at encryption.passphraseFrom",
    ),
    (
        r"No such file or directory: '(/\S*/)?borg'",
        "Borg is not installed on this machine: install the package borgbackup",
    ),
    (_MISSING_REPOSITORY.pattern, "if it should be made, say `create: true` in the Repository; if not, is it mounted?"),
    (
        r"is not a valid repository",
        "this is something else, or its making was cut off: look at it and at the Repository's url, or move it away",
    ),
    (
        r"Repository has no manifest",
        "its making was cut off, or it is damaged: move it away if it never held an archive, else see `borg check`",
    ),
    (
        r"No space left on device|Insufficient free space|Disk quota exceeded|storage quota",
        "make room where the repository, Borg's cache or the client's state directory is, for example by compacting",
    ),
    (
        r"[Ss]ource directories .*do not exist",
        "change source_directories, or set source_directories_must_exist: false when they come and go",
    ),
    (
        r"[Cc]ommand not found|No such file or directory: '[\w-]+'",
        "a program that borgmatic needs is not installed, here or on the repository's server",
    ),
    (
        r"Connection closed by remote host",
        "the server ended the connection: is Borg installed there, and may this key use that path?",
    ),
    (
        r"previously located at|previously unknown unencrypted",
        "Borg asks whether the repository is the right one: answer once at this machine with `borgmatic info`",
    ),
    (r"Permission denied", "the client may not read or write that: run it as root, and see the permissions"),
)
"""Common reasons, the most telling first, and what to do."""

_HINTS = tuple((re.compile(pattern), hint) for pattern, hint in HINTS)


@dataclass(frozen=True, slots=True)
class Seen:
    """Progress of Borg. ``percent`` is None where Borg does not know the end."""

    phase: str
    files: int = 0
    original_size: int = 0
    deduplicated_size: int = 0
    path: str = ""
    percent: float | None = None


class Scrubber:
    """Takes the machine's own secrets out of texts, beside what ``schema.errors.scrub`` knows."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        parts = {part for secret in secrets for part in (secret, secret.strip(), *secret.splitlines())}
        words = sorted((re.escape(part) for part in parts if len(part) >= _MIN_SECRET), key=len, reverse=True)
        self._pattern = re.compile("|".join(words)) if words else None

    def __call__(self, text: str) -> str:
        """Return ``text`` without secrets."""
        return scrub(self._pattern.sub("***", text) if self._pattern else text)


class Lines:
    """Cuts a stream of bytes into lines of bounded length."""

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        self._limit = limit
        self._open = bytearray()

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the lines that ``chunk`` ends. Carriage returns end lines as well, as progress meters use them."""
        first, *others = chunk.replace(b"\r", b"\n").split(b"\n")
        self._add(first)
        for part in others:
            yield self._take()
            self._add(part)

    def rest(self) -> bytes:
        """Return the last line, which nothing ended."""
        return self._take()

    def _add(self, part: bytes) -> None:
        self._open += part[: max(0, self._limit - len(self._open))]

    def _take(self) -> bytes:
        line = bytes(self._open)
        self._open.clear()
        return line


@dataclass(slots=True)
class Reader:
    """Understands one run's output, line by line, and remembers what it came to."""

    on_line: Callable[[LogLine], None]
    on_progress: Callable[[Seen], None]
    now: Callable[[], datetime]
    scrub: Scrubber = field(default_factory=Scrubber)
    statistics: list[Any] = field(default_factory=list)
    """borgmatic's list, as it is."""
    warned: bool = False
    warning: str = ""
    """The first warning line that a person has to hear of."""
    missing: set[str] = field(default_factory=set)
    """Urls of repositories that Borg says do not exist."""
    _phase: str = ""
    _reasons: list[str] = field(default_factory=list)
    _last: str = ""
    _told: set[str] = field(default_factory=set)
    _summary: bool = False
    _in_traceback: bool = False

    def stdout(self, line: bytes) -> None:
        """Read a line of borgmatic's standard output."""
        self._read(line)

    def stderr(self, line: bytes) -> None:
        """Read a line of borgmatic's standard error, which is Borg's as well."""
        self._read(line)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What may have made the run fail, as it was said."""
        return tuple(self._reasons)

    def reason(self, exit_code: int) -> tuple[str, str]:
        """Return the line that best says why the run failed, and what to do about it."""
        for pattern, hint in _HINTS:
            for reason in self._reasons:
                if pattern.search(reason):
                    return reason, hint
        if self._reasons:
            return self._reasons[0], ""
        if exit_code < 0:
            return (
                f"borgmatic was killed by signal {-exit_code}",
                "did the machine run out of memory? the kernel's log knows" if exit_code == -9 else "",
            )
        return self._last or f"borgmatic ended with exit code {exit_code} and said nothing", ""

    # --- One line -----------------------------------------------------------------------------------------------------

    def _read(self, raw: bytes) -> None:
        text = raw.decode("utf-8", "replace").strip()
        while text:
            value, text = _leading_json(text)
            if isinstance(value, dict) and isinstance(value.get("type"), str):
                self._in_traceback = False
                self._object(value, depth=0)
            elif isinstance(value, list) and all(isinstance(item, dict) for item in value):
                self.statistics += value
            elif value is None:
                self._text(text)
                return

    def _text(self, text: str) -> None:
        if text.startswith(_TRACEBACK):
            self._in_traceback = True
        if self._in_traceback:
            self._in_traceback = not _END_OF_TRACEBACK.match(text)
            return
        self._line(_level_of_text(text), text, when=None)

    def _object(self, value: dict[str, Any], *, depth: int) -> None:
        kind, message = value["type"], value.get("message")
        if kind == "log_message":
            text = message if isinstance(message, str) else str(message)
            inner, rest = _leading_json(text) if text.startswith("{") and depth == 0 else (None, text)
            if isinstance(inner, dict) and isinstance(inner.get("type"), str) and not rest.strip():
                self._object(inner, depth=1)
                return
            name = value.get("name")
            if isinstance(name, str) and name.startswith("borgmatic.actions."):
                self._phase = name.removeprefix("borgmatic.actions.").split(".")[0].replace("_", "-")
            self._line(_LEVELS.get(str(value.get("levelname")), "info"), text, when=value.get("time"))
        elif kind == "archive_progress":
            self._archive_progress(value)
        elif kind in {"progress_percent", "progress_message"}:
            self._other_progress(value)
        elif kind == "file_status":
            self._line("info", f"{value.get('status')} {value.get('path')}", when=None)

    def _archive_progress(self, value: dict[str, Any]) -> None:
        if value.get("finished") is True:
            return
        self.on_progress(
            Seen(
                phase="create",
                files=_size(value.get("nfiles")),
                original_size=_size(value.get("original_size")),
                deduplicated_size=_size(value.get("deduplicated_size")),
                path=self._clean(str(value.get("path") or ""), _SHORT),
            )
        )

    def _other_progress(self, value: dict[str, Any]) -> None:
        if value.get("finished") is True:
            return
        phase = self._phase or self._clean(str(value.get("msgid") or value.get("message") or ""), _SHORT)
        current, total = _number(value.get("current")), _number(value.get("total"))
        percent = min(100.0, max(0.0, 100 * current / total)) if total > 0 else None
        self.on_progress(Seen(phase=phase, percent=percent))

    def _line(self, level: Level, message: str, *, when: object) -> None:
        text = self._clean(message, MAX_TEXT)
        if text == "summary:":
            self._summary = True
        # The summary says again what was said, which matters only when nothing was.
        if not text or text.startswith(_NOISE) or (self._summary and text in self._told):
            return
        self._remember(level, text)
        self.on_line(LogLine(at=self._moment(when), level=level, message=text))

    def _remember(self, level: Level, text: str) -> None:
        self._last = text
        if len(self._told) < _MAX_REASONS:
            self._told.add(text)
        if level == "warning" and not _LOCK_OF_THE_DEAD.match(text):
            self.warned = True
            self.warning = self.warning or text
        match = _MISSING_REPOSITORY.search(text)
        if match:
            self.missing.add(match["url"])
        telling = level in {"error", "critical"} or (level in {"warning", "info"} and _tells(text))
        if telling and not text.startswith(_GENERIC) and len(self._reasons) < _MAX_REASONS:
            self._reasons.append(text)

    def _clean(self, text: str, limit: int) -> str:
        # Secrets last: without what is not shown, letters stand together that did not before.
        cleaned = self.scrub(_CONTROL.sub("", text)[: 8 * limit]).strip()
        return cleaned.encode("utf-8", "replace").decode()[:limit]

    def _moment(self, when: object) -> datetime:
        now = self.now()
        seconds = _number(when)
        try:
            moment = datetime.fromtimestamp(seconds, UTC)
        except (ValueError, OverflowError, OSError):
            return now
        return moment if abs(moment - now) < timedelta(days=1) else now


def statistics(values: Iterable[Any], *, names: dict[str, str]) -> dict[str, RepositoryStatistics]:
    """Return the statistics in borgmatic's JSON (of ``create`` or ``info``) by repository name.

    ``names`` has the repositories that the job knows, by url.
    """
    found = {}
    for value in values:
        repository, archive = _mapping(value.get("repository")), _mapping(value.get("archive"))
        if not archive and isinstance(value.get("archives"), list) and value["archives"]:
            archive = _mapping(value["archives"][-1])
        label, location = repository.get("label"), repository.get("location")
        name = label if label in names.values() else names.get(str(location), "")
        if not archive or not isinstance(name, str) or not re.fullmatch(NAME_PATTERN, name):
            continue
        sizes = _mapping(archive.get("stats"))
        found[name] = RepositoryStatistics(
            repository=name,
            archive=str(archive.get("name") or "")[:_SHORT],
            archive_id=str(archive.get("id") or "")[:_SHORT],
            files=_size(sizes.get("nfiles")),
            original_size=_size(sizes.get("original_size")),
            compressed_size=_size(sizes.get("compressed_size")),
            deduplicated_size=_size(sizes.get("deduplicated_size")),
            duration=max(0.0, _number(archive.get("duration"))),
            repository_size=repository_size(value),
        )
    return found


def is_missing(message: str, url: str) -> bool:
    """Whether ``message`` says that there is no repository at ``url``."""
    match = _MISSING_REPOSITORY.search(message)
    return match is not None and match["url"] == url


def repository_size(value: dict[str, Any]) -> int:
    """Return the deduplicated, compressed size of a repository in one entry of borgmatic's JSON; 0 when unknown."""
    return _size(_mapping(_mapping(value.get("cache")).get("stats")).get("unique_csize"))


def total_size(value: dict[str, Any]) -> int:
    """Return the size of all archives together, before deduplication; 0 when unknown."""
    return _size(_mapping(_mapping(value.get("cache")).get("stats")).get("total_size"))


def json_list(output: bytes) -> list[dict[str, Any]]:
    """Return borgmatic's JSON list in ``output``, whatever stands around it; empty when there is none."""
    text = output.decode("utf-8", "replace")
    for start in (match.start() for match in re.finditer(r"^\[", text, re.MULTILINE)):
        value, _ = _leading_json(text[start:])
        if isinstance(value, list):
            return [item for item in value if isinstance(item, dict)]
    return []


def utc(text: object) -> datetime | None:
    """Return the moment of Borg's time without offset, printed by a Borg that ran with ``TZ=UTC``."""
    try:
        moment = datetime.fromisoformat(str(text))
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _leading_json(text: str) -> tuple[Any, str]:
    """Return the JSON object or list that ``text`` begins with, and the rest; (None, text) when it begins otherwise."""
    if not text.startswith(("{", "[")):
        return None, text
    try:
        value, end = json.JSONDecoder().raw_decode(text)
        if _SURROGATE.search(text, 0, end):
            # Half a character, as Borg writes a byte that is no UTF-8: no report could carry it.
            value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None, text
    return value, text[end:].strip()


def _level_of_text(text: str) -> Level:
    lowered = text[:200].lower()
    if lowered.startswith(("warning:", "warning ")):
        return "warning"
    return "error" if lowered.startswith(("error:", "fatal:")) else "info"


def _tells(text: str) -> bool:
    return any(pattern.search(text) for pattern, _ in _HINTS)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    try:
        number = float(value)
    except OverflowError:
        return 0.0
    return number if math.isfinite(number) else 0.0


def _size(value: object) -> int:
    return min(_LARGEST, max(0, int(_number(value)))) if not isinstance(value, int) else min(_LARGEST, max(0, value))
