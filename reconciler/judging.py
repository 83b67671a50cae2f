"""What stands against a revision although it builds: rewritten history, very much at once, dangers. Used by ``loop``.

Words in commit messages allow what they name (``plan.acknowledgements``); what a person allowed by name, ``loop`` asks
nobody about.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from reconciler.core import dangers, plan, weigh

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.core.build import Build
    from reconciler.loop_ports import SourcePort
    from reconciler.source import Commit

    Reason = Literal["HistoryRewritten", "MassChangeHeld", "DangerHeld"]


class Held(Exception):
    """The revision waits for a person."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Past:
    """What lies between the published revision and a head."""

    commit: Commit
    """The head's."""
    is_built_upon: bool
    acknowledged: frozenset[str]
    """What the commits allow. When history was rewritten, these are the head's own words only."""


def look_back(source: SourcePort, *, head: str, published: str) -> Past:
    """Return what came since ``published``, which is empty when nothing is."""
    commits = source.log(published, head) if published and published != head else []
    commit = commits[0] if commits else source.commit(head)
    is_built_upon = (
        not published
        or published == head
        or any(published in one.parents for one in commits)
        or source.is_descendant(head, of=published)
    )
    words = commits if is_built_upon and commits else [commit]
    return Past(commit, is_built_upon, plan.acknowledgements(one.message for one in words))


def judge_history(past: Past, *, head: str, published: str) -> None:
    """Return when the head is built upon what is published, or says that it need not be.

    Raises:
        Held: otherwise.
    """
    if not past.is_built_upon and not past.acknowledged & {"history-rewritten", "all"}:
        raise Held("HistoryRewritten", f"revision {head[:12]} is not built upon the published {published[:12]}")


def judge_changes(
    before: Build,
    built: Build,
    *,
    past: Past,
    head: str,
    names: Sequence[str],
    mass_change: float,
    hold_dangers: bool,
) -> None:
    """Return when the changes for the clients ``names`` are no more than may go out by themselves.

    Raises:
        Held: otherwise.
    """
    found = weigh.weigh(before, built, revision=head, share=mass_change, names=names)
    if found is not None and not past.acknowledged & {weigh.CODE, "all"}:
        raise Held("MassChangeHeld", found.message)
    if hold_dangers:
        left = plan.unacknowledged(dangers.find(before, built, names=names), past.acknowledged)
        if left:
            codes = ", ".join(sorted({danger.code for danger in left}))
            raise Held("DangerHeld", f"revision {head[:12]} could destroy data: {codes}")
