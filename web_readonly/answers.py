"""The read model by the name of a question, with text arguments: what commands ask through the admin socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from schema.errors import TerminalError
from schema.observed import Outcome
from web_readonly.reader import BackupFilter, ClientFilter, EventFilter, Reader, RunFilter

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from schema.status import Page

PAGE: Final = 200
"""How much is read at once; ``limit`` may be more."""


def answer(reader: Reader, question: str, arguments: dict[str, str], *, now: datetime) -> Any:
    """Return models (one, or a list) that answer ``question``.

    Raises:
        TerminalError: there is no such question, or nothing by that name.
    """
    ask = _QUESTIONS.get(question)
    if ask is None:
        raise TerminalError(f"there is no question '{question}'")
    _check(arguments)
    return ask(reader, arguments, now)


def _check(arguments: dict[str, str]) -> None:
    limit = arguments.get("limit", "1")
    if not (limit.isascii() and limit.isdigit() and int(limit[:9]) > 0):
        raise TerminalError(f"'{limit}' is no limit: write a whole number, 1 or more")


def _named(arguments: dict[str, str], name: str) -> str:
    """Return an argument that the question cannot do without."""
    if not arguments.get(name):
        raise TerminalError(f"the question needs '{name}'")
    return arguments[name]


def _all(arguments: dict[str, str], read: Callable[[int, str], Page[Any]]) -> list[Any]:
    """Read page after page, at most ``limit`` rows."""
    limit, cursor = int(arguments.get("limit", "1000000")), ""
    found: list[Any] = []
    while limit > len(found):
        page = read(min(PAGE, limit - len(found)), cursor)
        found += page.items
        cursor = page.next
        if not cursor:
            break
    return found


def _one(found: Any, what: str) -> Any:
    if found is None:
        raise TerminalError(f"there is no {what}")
    return found


def _clients(reader: Reader, arguments: dict[str, str], now: datetime) -> Any:
    wanted = ClientFilter(text=arguments.get("text", ""))
    return _all(arguments, lambda limit, after: reader.clients(wanted, limit=limit, after=after, now=now))


def _backups(reader: Reader, arguments: dict[str, str], now: datetime) -> Any:
    wanted = BackupFilter(client=arguments.get("client", ""), backup=arguments.get("backup", ""))
    return _all(arguments, lambda limit, after: reader.backups(wanted, limit=limit, after=after, now=now))


def _runs(reader: Reader, arguments: dict[str, str], _: datetime) -> Any:
    word = arguments.get("outcome", "")
    known = [*(outcome.value for outcome in Outcome), "running"]
    if word and word not in known:
        raise TerminalError(f"'{word}' is not an outcome; write one of {', '.join(known)}")
    wanted = RunFilter(
        client=arguments.get("client", ""),
        backup=arguments.get("backup", ""),
        outcome="running" if word == "running" else Outcome(word) if word else None,
    )
    return _all(arguments, lambda limit, before: reader.runs(wanted, limit=limit, before=before))


def _run(reader: Reader, arguments: dict[str, str], _: datetime) -> Any:
    return _one(reader.run(_named(arguments, "id")), f"run '{arguments['id']}'")


def _run_log(reader: Reader, arguments: dict[str, str], _: datetime) -> Any:
    run = _named(arguments, "id")
    return _all(arguments, lambda limit, after: reader.run_log(run, limit=limit, after=int(after or "-1")))


def _archives(reader: Reader, arguments: dict[str, str], _: datetime) -> Any:
    wanted = {name: arguments.get(name, "") for name in ("client", "backup", "repository")}
    return _all(arguments, lambda limit, before: reader.archives(**wanted, limit=limit, before=before))


def _events(reader: Reader, arguments: dict[str, str], _: datetime) -> Any:
    wanted = EventFilter(client=arguments.get("client", ""))
    return _all(arguments, lambda limit, before: reader.events(wanted, limit=limit, before=before))


_QUESTIONS: Final[dict[str, Callable[[Reader, dict[str, str], datetime], Any]]] = {
    "overview": lambda reader, _, now: reader.overview(now=now),
    "source": lambda reader, _, __: reader.source(),
    "clients": _clients,
    "client": lambda reader, arguments, now: _one(
        reader.client(_named(arguments, "name"), now=now), f"client '{arguments['name']}'"
    ),
    "pending": lambda reader, _, __: list(reader.pending()),
    "backups": _backups,
    "runs": _runs,
    "run": _run,
    "run_log": _run_log,
    "archives": _archives,
    "events": _events,
    "tokens": lambda reader, _, __: list(reader.tokens()),
    "lockouts": lambda reader, _, now: list(reader.lockouts(now=now)),
}
