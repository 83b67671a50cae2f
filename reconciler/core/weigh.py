"""Whether a new state is so much smaller than the old one that a person should look first. Pure; called by the loop.

An empty checkout, a wrong path or branch, or a selector that lost its label look to the loop like a perfectly valid
wish to stop nearly all backups. Such a revision is held as ``MassChangeHeld`` until somebody says that it is meant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from reconciler.core.changes import touched

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from reconciler.core.build import Build

REASON = "MassChangeHeld"
CODE = "mass-change"
DEFAULT_SHARE = 0.2
_FEW = 1
"""In a homelab of two machines, taking away one backup is a third of all and still an ordinary change."""


class Hold(BaseModel):
    """A revision waits for a person."""

    model_config = ConfigDict(frozen=True)

    reason: str
    """``MassChangeHeld``; the loop adds holds of other reasons."""
    message: str
    hint: str


def weigh(
    before: Build | None,
    after: Build,
    *,
    revision: str,
    share: float = DEFAULT_SHARE,
    names: Collection[str] | None = None,
) -> Hold | None:
    """Return a hold when ``after`` lacks or replaces more than ``share`` of what ``before`` has, or has nothing left.

    Without a former state there is nothing to compare with, and nothing is held. ``names`` are the clients that were
    ``changes.touched``.
    """
    if before is None:
        return None
    names = touched(before, after) if names is None else names
    message = _backups_gone(before, after, share, names) or _keys_changed(before, after, share, names)
    if message is None:
        return None
    hint = (
        f"if this is meant, run `director acknowledge {revision[:12]}`, "
        f"or push a commit whose message ends with the trailer `Director-Acknowledge: {CODE}`"
    )
    return Hold(reason=REASON, message=message, hint=hint)


def _backups_gone(before: Build, after: Build, share: float, names: Iterable[str]) -> str | None:
    total = before.counts.jobs
    gone = sum(len(_runs(before, name) - _runs(after, name)) for name in names)
    if total and not after.counts.jobs:
        return f"all {total} backups of {len(before.expansion.clients)} clients would be gone"
    if _too_many(gone, total, share):
        return (
            f"{gone} of {total} backups ({gone / total:.0%}) would be gone, more than the {share:.0%} that pass unasked"
        )
    return None


def _runs(build: Build, client: str) -> set[str]:
    return {effective.name for effective in build.expansion.clients.get(client, ())}


def _keys_changed(before: Build, after: Build, share: float, names: Iterable[str]) -> str | None:
    total = len(before.keys)
    changed = sum(name in before.keys and after.keys.get(name) != before.keys[name] for name in names)
    if total > _FEW and not after.keys:
        return f"the public keys of all {total} clients would be gone"
    if _too_many(changed, total, share):
        return f"the public keys of {changed} of {total} clients would change or go"
    return None


def _too_many(count: int, total: int, share: float) -> bool:
    return count > max(share * total, _FEW)
