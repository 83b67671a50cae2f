"""What a revision changes for which client, in short: kept with the revision for the pages. Called by the loop.

``plan`` shows every line of it; this is what is worth keeping for years: names, bounded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from reconciler.core import identity
from schema.status import MAX_CHANGED_CLIENTS, MAX_NAMED_BACKUPS, ClientChange

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from reconciler.core.build import Build
    from schema.desired import Content, Job, ManagedFile

_MAX_LINES: Final = 12
_MAX_NAMES: Final = 3


@dataclass(frozen=True, slots=True)
class Changes:
    """The clients for which something changes, by name, and the same in a few lines."""

    clients: tuple[ClientChange, ...] = ()
    """At most ``MAX_CHANGED_CLIENTS``."""
    summary: str = ""


@dataclass(slots=True)
class _Tally:
    """Who is concerned by each thing that changes; ``text`` says of it what happens."""

    clients: dict[str, list[str]] = field(default_factory=dict)

    def add(self, client: str, *texts: str) -> None:
        for text in texts:
            self.clients.setdefault(text, []).append(client)

    def lines(self) -> Iterator[str]:
        """Yield the clients that come and go, then what concerns most clients first."""
        ordered = sorted(
            self.clients.items(), key=lambda one: (not one[0].startswith("clients "), -len(one[1]), one[0])
        )
        for text, clients in ordered[:_MAX_LINES]:
            yield f"{text} {_names(clients)}"
        if len(ordered) > _MAX_LINES:
            yield f"and {len(ordered) - _MAX_LINES} more"


def touched(before: Build, after: Build) -> list[str]:
    """Return the clients about which anything may differ, by name; of two builds of one cache these are few.

    One look at each client, by identity: what is asked of these names alone costs what they cost.
    """
    former, latter = before.rendered, after.rendered
    names = identity.differing(former, latter)
    return sorted((*names, *identity.gone(former, latter, differing=names)))


def between(before: Build | None, after: Build, *, names: Iterable[str] | None = None) -> Changes:
    """Return what changes from one revision to the next one. ``names`` are the clients that were ``touched``."""
    kept: list[ClientChange] = []
    tally = _Tally()
    contents: Mapping[str, Content] = before.contents if before is not None else {}
    if names is None:
        names = touched(before, after) if before is not None else sorted(after.contents)
    for name in names:
        former, latter = contents.get(name), after.contents.get(name)
        if former is latter or (change := _client_change(name, former, latter)) is None:
            continue
        tally.add(name, *_texts(change))
        if len(kept) < MAX_CHANGED_CLIENTS:
            kept.append(change)
    return Changes(tuple(kept), "\n".join(tally.lines()))


def _client_change(name: str, before: Content | None, after: Content | None) -> ClientChange | None:
    old, new = _backups(before), _backups(after)
    change = ClientChange(
        client=name,
        change="added" if before is None else "removed" if after is None else "changed",
        added=_bounded(new.keys() - old.keys()),
        removed=_bounded(old.keys() - new.keys()),
        changed=_bounded(backup for backup in old.keys() & new.keys() if old[backup] != new[backup]),
        others=before is not None and after is not None and _others(before) != _others(after),
    )
    is_same = before is not None and after is not None and not (change.added or change.removed or change.changed)
    return None if is_same and not change.others else change


def _backups(content: Content | None) -> dict[str, tuple[Job, ManagedFile | None]]:
    if content is None:
        return {}
    files = {file.path: file for file in content.files if file.place == "config"}
    return {job.backup: (job, files.get(job.file)) for job in content.jobs}


def _others(content: Content) -> tuple[object, ...]:
    files = [file for file in content.files if file.place != "config"]
    return content.directories, content.drift, content.suspend, files, content.secrets


def _bounded(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names)[:MAX_NAMED_BACKUPS])


def _texts(change: ClientChange) -> Iterator[str]:
    if change.change != "changed":
        yield f"clients {change.change}:"
    for word in ("added", "removed", "changed"):
        yield from (f"backup {backup} {word} on" for backup in getattr(change, word))
    if change.others:
        yield "settings, host keys or secrets changed on"


def _names(clients: list[str]) -> str:
    more = len(clients) - _MAX_NAMES
    return ", ".join(clients[:_MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
