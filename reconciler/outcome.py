"""How a pass of the loop ended, and what is said of it: to who asked, as conditions, as an event, with the revision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from schema.errors import Problem, Severity
from schema.status import Condition, ConditionType, Hold, RevisionStatus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from reconciler.core.changes import Changes
    from reconciler.source import Commit

Outcome = Literal["published", "unchanged", "stalled", "held", "failed", "suspended"]


@dataclass(frozen=True, slots=True)
class Result:
    """How one pass ended."""

    outcome: Outcome
    revision: str = ""
    reason: str = ""
    message: str = ""
    hint: str = ""
    problems: tuple[Problem, ...] = ()
    hold: Hold | None = None
    changed: tuple[str, ...] = ()
    """Clients that were sent something new."""

    @property
    def ok(self) -> bool:
        """Whether the newest revision is the published one."""
        return self.outcome in {"published", "unchanged"}


EVENTS = {
    "published": "Published",
    "unchanged": "Unchanged",
    "stalled": "Stalled",
    "held": "Held",
    "suspended": "Suspended",
}
"""The event that tells of each outcome; of any other, ``ReconcileFailed``."""


def source_conditions(result: Result, now: datetime) -> list[Condition]:
    """Return the source's conditions after a pass."""

    def condition(kind: ConditionType, status: bool, reason: str, message: str) -> Condition:  # noqa: FBT001
        return Condition(
            type=kind, status="True" if status else "False", reason=reason, message=message, last_transition_time=now
        )

    message = f"{result.message}\n{result.hint}" if result.hint else result.message
    stalled = result.outcome in {"stalled", "held"}
    return [
        condition(ConditionType.READY, result.ok, result.reason, message),
        condition(
            ConditionType.STALLED, stalled, result.reason if stalled else "Progressing", message if stalled else ""
        ),
        condition(
            ConditionType.RECONCILING,
            result.outcome == "failed",
            "Retrying" if result.outcome == "failed" else "Idle",
            message if result.outcome == "failed" else "",
        ),
    ]


def first_error(problems: Sequence[Problem]) -> str:
    """Return the first error in one line, and how many more there are."""
    errors = [problem for problem in problems if problem.severity is Severity.ERROR]
    first = f"{errors[0].place}: {errors[0].message}" if errors else "invalid"
    return f"{first} (and {len(errors) - 1} more)" if len(errors) > 1 else first


def revision_status(commit: Commit, result: Result, changed: Changes, *, now: datetime) -> RevisionStatus:
    """Return what is kept of a revision that was judged."""
    outcome: Literal["published", "stalled", "held"] = (
        "published" if result.ok else "held" if result.hold else "stalled"
    )
    return RevisionStatus(
        revision=commit.revision,
        author=commit.author,
        subject=commit.subject,
        committed=commit.committed,
        seen=now,
        outcome=outcome,
        reason=result.reason,
        message=result.message,
        changed_clients=len(result.changed),
        summary=changed.summary,
        changes=changed.clients,
    )
