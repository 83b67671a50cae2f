"""Who must be looked at again when something changes: the one dependency graph of a build, one step deep.

A backup depends on what it names: profiles, repositories, a schedule, secrets, clients, and the labels it selects by.
Nothing depends on a backup but the clients that run it, and those ``expand`` tells by itself. So there are no paths to
follow: what changed names the backups that need another look. ``docs/decisions/0010`` says why it is so small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

Key = tuple[str, str]
"""Kind and name of a resource, there or not; or ``label`` and ``key=value``."""

_NOTHING: frozenset[Key] = frozenset()


class Dependents:
    """Which backups depend on what, in both directions."""

    def __init__(self) -> None:
        self._needs: dict[str, frozenset[Key]] = {}
        self._needed_by: dict[Key, set[str]] = {}

    def of(self, changed: Iterable[Key]) -> set[str]:
        """Return the backups that depend on any of what changed."""
        return set().union(*(self._needed_by.get(key, ()) for key in changed))

    def put(self, backup: str, needs: AbstractSet[Key]) -> None:
        """Note what ``backup`` depends on now; nothing, when it is gone."""
        former = self._needs.get(backup, _NOTHING)
        for key in former - needs:
            backups = self._needed_by[key]
            backups.discard(backup)
            if not backups:
                del self._needed_by[key]
        for key in needs - former:
            self._needed_by.setdefault(key, set()).add(backup)
        if needs:
            self._needs[backup] = frozenset(needs)
        else:
            self._needs.pop(backup, None)


def label_key(key: str, value: str) -> Key:
    """Return what depends on a label: whoever selects by it."""
    return "label", f"{key}={value}"
