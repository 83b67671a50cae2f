"""What each state looks like: a tone, which has a colour and a shape of its own, and a word. Pure.

Five tones are all there are. A state that nobody listed here is shown as it is called, quietly.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from schema.observed import Outcome
from schema.status import Following, Phase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from schema.status import BackupStatus, ClientStatus, Condition, Overview, RunStatus, SourceStatus
    from schema.timeline import RunSpan

Tone = Literal["good", "warn", "bad", "busy", "idle"]


class State(NamedTuple):
    """A tone and its word."""

    tone: Tone
    word: str
    why: str = ""


_OUTCOMES: Final[dict[str, State]] = {
    Outcome.SUCCEEDED: State("good", "succeeded"),
    Outcome.WARNED: State("warn", "warned"),
    Outcome.FAILED: State("bad", "failed"),
    Outcome.CANCELLED: State("idle", "cancelled"),
    Outcome.LOST: State("bad", "lost", "the machine or its client died under it"),
}
_FOLLOWING: Final[dict[str, State]] = {
    Following.CURRENT: State("good", "current", "runs what was issued to it"),
    Following.BEHIND: State("busy", "behind", "has not applied what was issued to it"),
    Following.REFUSED: State("bad", "refuses", "refuses what was issued to it"),
    Following.STALE: State("warn", "stale", "its desired state has expired; it goes on backing up"),
    Following.UNKNOWN: State("idle", "unknown", "nothing was issued to it, or nothing was heard of it"),
}
_PHASES: Final[dict[str, State]] = {
    Phase.PENDING: State("warn", "pending", "its key is not approved yet"),
    Phase.APPROVED: State("good", "approved"),
    Phase.REVOKED: State("bad", "revoked", "its key may not connect"),
}
_REVISIONS: Final[dict[str, State]] = {
    "published": State("good", "published"),
    "stalled": State("bad", "stalled"),
    "held": State("warn", "held"),
    "superseded": State("idle", "superseded"),
}
_CHANGES: Final[dict[str, State]] = {
    "added": State("good", "added"),
    "changed": State("busy", "changed"),
    "removed": State("warn", "removed", "its files and schedules go; no archive does"),
}
_HOLDS: Final[dict[str, tuple[str, str]]] = {
    "HistoryRewritten": (
        "It is not built upon the published revision: somebody pushed with force, or the branch was replaced.",
        "history-rewritten",
    ),
    "MassChangeHeld": (
        "So many backups at once go away by a mistake more often than by intent: a moved folder, a lost label.",
        "mass-change",
    ),
    "DangerHeld": ("It could lose data: shorter retention, a dropped source, another repository.", ""),
}
_LEVELS: Final[dict[str, State]] = {
    "critical": State("bad", "critical"),
    "error": State("bad", "error"),
    "warning": State("warn", "warning"),
    "notice": State("busy", "notice"),
}
_NEVER_BACKED_UP = "NeverBackedUp"
_PROTECTED: Final[dict[str, State]] = {"True": State("good", "protected"), "False": State("bad", "overdue")}
_UNPROTECTED: Final[dict[str, State]] = {
    "RepositoryUnavailable": State("bad", "unreadable"),
    _NEVER_BACKED_UP: State("bad", "no archive"),
    "NoObjective": State("idle", "no objective"),
    "Suspended": State("idle", "suspended"),
    "WaitingForFirstRun": State("busy", "waiting"),
}


def of_run(run: RunStatus | RunSpan) -> State:
    """Return how a run stands."""
    return of_started("running" if run.outcome is None else run.outcome)


def of_started(word: str) -> State:
    """Return how runs stand that are counted under a word: an outcome, or ``running``."""
    return State("busy", "running") if word == "running" else of_outcome(word)


def of_outcome(outcome: str) -> State:
    """Return how a run ended."""
    return _OUTCOMES.get(outcome, State("idle", outcome))


def tally(runs: Sequence[RunStatus]) -> str:
    """Return ``12 runs: 10 succeeded, 1 failed, 1 running``."""
    counts = Counter(of_run(run).word for run in runs)
    several = "1 run" if len(runs) == 1 else f"{len(runs):,} runs"
    return f"{several}: {', '.join(f'{number} {word}' for word, number in counts.most_common())}"


def of_following(following: str) -> State:
    """Return how a client stands to its desired state."""
    return _FOLLOWING.get(following, State("idle", following))


def of_phase(phase: str) -> State:
    """Return where a client is in its life."""
    return _PHASES.get(phase, State("idle", phase))


def of_revision(outcome: str) -> State:
    """Return how a revision was judged."""
    return _REVISIONS.get(outcome, State("idle", outcome))


def of_change(change: str) -> State:
    """Return what a revision did to a client."""
    return _CHANGES.get(change, State("idle", change))


class HoldReason(NamedTuple):
    """Why revisions are held, and the word that a commit message acknowledges it by."""

    why: str
    word: str


def of_hold(reason: str) -> HoldReason:
    """Return what a hold means."""
    return HoldReason(*_HOLDS.get(reason, ("", "")))


def of_level(level: str) -> State:
    """Return how urgent something is."""
    return _LEVELS.get(level, State("idle", level))


def of_connection(client: ClientStatus) -> State:
    """Return whether a client has a session."""
    if client.connected:
        return State("good", "connected")
    return State("idle", "never seen") if client.last_seen is None else State("warn", "away")


def of_protection(backup: BackupStatus) -> State:
    """Return whether a backup meets its objective."""
    condition = next((one for one in backup.conditions if one.type == "Protected"), None)
    if condition is None:
        return State("idle", "unknown")
    found = _UNPROTECTED.get(condition.reason) or _PROTECTED.get(condition.status) or State("idle", "unknown")
    return found._replace(why=condition.message)


def of_condition(condition: Condition) -> State:
    """Return a condition's state: for most True is good, for three it is not."""
    if condition.status == "Unknown":
        return State("idle", condition.reason)
    bad_when_true = condition.type in {"Stalled", "Drifted", "Reconciling"}
    if (condition.status == "True") != bad_when_true:
        return State("good", condition.reason)
    if condition.type == "Reconciling":
        return State("busy", condition.reason)
    return State("warn" if condition.type in {"Drifted", "Connected"} else "bad", condition.reason)


def of_source(source: SourceStatus) -> State:
    """Return how the source stands."""
    if source.hold is not None:
        return State("warn", "held")
    if any(problem.severity == "error" for problem in source.problems):
        return State("bad", "stalled")
    if any(one.type == "Stalled" and one.status == "True" for one in source.conditions):
        return State("bad", "stalled")
    if source.suspended:
        return State("idle", "suspended")
    if not source.revision:
        return State("idle", "nothing published")
    return State("good", "published") if source.revision == source.head else State("busy", "behind its head")


def verdict(overview: Overview) -> State:
    """Return the answer to "are we protected?" in one sentence."""
    critical = sum(one.level == "critical" for one in overview.attention)
    if overview.unprotected:
        some = "backup is" if overview.unprotected == 1 else "backups are"
        return State("bad", f"{overview.unprotected:,} {some} not protected")
    if critical:
        if not overview.protected:
            return State("bad", "Not working yet")
        which = (
            "Backups"
            if overview.protected == overview.backups
            else f"{overview.protected:,} of {overview.backups:,} backups"
        )
        return State("bad", f"{which} are protected, but something is wrong")
    if not overview.backups:
        return State("idle", "Nothing is backed up yet")
    if not overview.protected:
        return State("idle", "No backup has an archive yet" if overview.unknown else "No backup has an objective")
    if overview.protected == overview.backups:
        every = (
            "The one backup is protected"
            if overview.backups == 1
            else f"All {overview.backups:,} backups are protected"
        )
        return State("warn" if overview.attention else "good", every)
    return State(
        "warn" if overview.attention else "good",
        f"{overview.protected:,} of {overview.backups:,} backups are protected",
    )
