"""Whether a new state is so much smaller than the old one that a person should look first. Pure; called by the loop.

An empty checkout, a wrong path or branch, or a selector that lost its label look to the loop like a perfectly valid
wish to stop nearly all backups. Such a revision is held as ``MassChangeHeld`` until somebody says that it is meant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from schema.resources import Client

if TYPE_CHECKING:
    from reconciler.core.build import Build

REASON = "MassChangeHeld"
CODE = "mass-change"
DEFAULT_SHARE = 0.2
_FEW = 1
"""In a homelab of two machines, taking away one backup is a third of all and still an ordinary change."""


class Shape(BaseModel):
    """What is weighed of a revision: who runs what, under which key. Small, so that it can be kept."""

    model_config = ConfigDict(frozen=True)

    backups: dict[str, tuple[str, ...]]
    """Client → names of its backups."""
    keys: dict[str, str]
    """Client → public key, for those that have one."""


class Hold(BaseModel):
    """A revision waits for a person."""

    model_config = ConfigDict(frozen=True)

    reason: str
    """``MassChangeHeld``; the loop adds holds of other reasons."""
    message: str
    hint: str


def shape(build: Build) -> Shape:
    """Return the shape of a build."""
    clients = build.catalogue.all(Client)
    return Shape.model_construct(
        backups={name: tuple(each.name for each in backups) for name, backups in build.expansion.clients.items()},
        keys={name: key for name, client in clients.items() if (key := client.resource.spec.public_key) is not None},
    )


def weigh(before: Shape | None, after: Shape, *, revision: str, share: float = DEFAULT_SHARE) -> Hold | None:
    """Return a hold when ``after`` lacks or replaces more than ``share`` of what ``before`` has, or has nothing left.

    Without a former state there is nothing to compare with, and nothing is held.
    """
    if before is None:
        return None
    message = _backups_gone(before, after, share) or _keys_changed(before, after, share)
    if message is None:
        return None
    hint = (
        f"if this is meant, run `director acknowledge {revision[:12]}`, "
        f"or push a commit whose message ends with the trailer `Director-Acknowledge: {CODE}`"
    )
    return Hold(reason=REASON, message=message, hint=hint)


def _backups_gone(before: Shape, after: Shape, share: float) -> str | None:
    total = sum(map(len, before.backups.values()))
    gone = sum(len(set(names).difference(after.backups.get(client, ()))) for client, names in before.backups.items())
    if total and not any(after.backups.values()):
        return f"all {total} backups of {len(before.backups)} clients would be gone"
    if _too_many(gone, total, share):
        return (
            f"{gone} of {total} backups ({gone / total:.0%}) would be gone, more than the {share:.0%} that pass unasked"
        )
    return None


def _keys_changed(before: Shape, after: Shape, share: float) -> str | None:
    total = len(before.keys)
    changed = sum(after.keys.get(client) != key for client, key in before.keys.items())
    if total > _FEW and not after.keys:
        return f"the public keys of all {total} clients would be gone"
    if _too_many(changed, total, share):
        return f"the public keys of {changed} of {total} clients would change or go"
    return None


def _too_many(count: int, total: int, share: float) -> bool:
    return count > max(share * total, _FEW)
