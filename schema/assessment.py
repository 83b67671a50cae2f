"""What the facts mean: protected, following, connected, drifted, and what needs a person first. Pure.

Used by the store (``protected_until``), the read-only pages and the command line, which all must judge alike and at the
moment they are asked: that is why it lives in ``schema`` (docs/decisions/0001-assessment-lives-in-schema.md).
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from schema.errors import Severity
from schema.observed import DriftKind, Outcome
from schema.scalars import format_duration
from schema.status import Attention, Condition, ConditionType, Following, Phase

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from schema.observed import Drift
    from schema.status import BackupStatus, ClientStatus, Evidence, PendingClient, SourceStatus, Truth

LATEST_REFUSAL = 2**53 - 1
"""A refusal that names no generation refuses them all."""


# --- Protected --------------------------------------------------------------------------------------------------------


def protected_until(evidence: Iterable[tuple[datetime | None, datetime]], *, rpo: int | None) -> datetime | None:
    """Return until when the objective holds, from (newest archive, declared since) of each repository.

    A repository that was just declared has one objective's time to receive its first archive.
    """
    since = [newest or declared for newest, declared in evidence]
    return None if rpo is None or not since else min(since) + timedelta(seconds=rpo)


def oldest_of_newest(newest: Iterable[datetime | None]) -> datetime | None:
    """Return the oldest of each repository's newest archive; None when one has none, or there is no repository."""
    times = list(newest)
    known = [time for time in times if time is not None]
    return min(known) if known and len(known) == len(times) else None


def protected(
    *, rpo: int | None, evidence: Sequence[Evidence], first_seen: datetime, suspended: bool, now: datetime
) -> Condition:
    """Return whether an archive inside the objective was seen in every repository of a backup."""
    if rpo is None:
        return _protected("Unknown", "NoObjective", "no objective is declared (objectives.rpo)", since=first_seen)
    if suspended:
        return _protected("Unknown", "Suspended", "suspended: no archives are made", since=first_seen)
    newest = oldest_of_newest(one.newest for one in evidence)
    deadlines = [(one.newest or one.declared or first_seen) + timedelta(seconds=rpo) for one in evidence]
    until = min(deadlines, default=first_seen + timedelta(seconds=rpo))
    if until < now:
        late = [one for one, deadline in zip(evidence, deadlines, strict=True) if deadline < now]
        return _unprotected(late, rpo=rpo, since=until, now=now)
    if newest is None:
        return _protected("Unknown", "WaitingForFirstRun", f"the first archive is due {_at(until)}", since=first_seen)
    age = format_duration(max(0, int((now - newest).total_seconds())))
    return _protected(
        "True", "ArchiveWithinObjective", f"every repository has an archive of the last {age}", since=newest
    )


def _unprotected(late: Sequence[Evidence], *, rpo: int, since: datetime, now: datetime) -> Condition:
    for one in late:
        if one.available is False:
            message = f"repository '{one.repository}' cannot be read: {one.message or 'no reason given'}"
            return _protected("False", "RepositoryUnavailable", message, since=since)
    seen = [(one.newest, one.repository) for one in late if one.newest is not None]
    if len(seen) < len(late) or not late:
        empty = next((f"'{one.repository}'" for one in late if one.newest is None), "any repository")
        return _protected("False", "NeverBackedUp", f"no archive was ever seen in {empty}", since=since)
    oldest, repository = min(seen)
    age = format_duration(max(0, int((now - oldest).total_seconds())))
    message = f"the newest archive in '{repository}' is {age} old; the objective is {format_duration(rpo)}"
    return _protected("False", "Overdue", message, since=since)


def _protected(status: Truth, reason: str, message: str, *, since: datetime) -> Condition:
    return Condition(
        type=ConditionType.PROTECTED, status=status, reason=reason, message=message, last_transition_time=since
    )


def _at(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")


# --- Clients ----------------------------------------------------------------------------------------------------------


def following(
    *,
    desired_digest: str,
    desired_generation: int,
    applied_digest: str,
    refused: int,
    stale: bool,
    expires: datetime | None,
    now: datetime,
) -> Following:
    """Return how a client stands to its desired state.

    ``refused`` is the generation it refuses (0: none, ``LATEST_REFUSAL``: whatever it is sent); ``stale`` and
    ``expires`` are of what it applied. The same content under a new signature is not "behind".
    ``web_readonly.reader`` says the same in SQL, and a test compares the two.
    """
    if not desired_digest or not (applied_digest or refused):
        return Following.UNKNOWN
    if refused >= desired_generation:
        return Following.REFUSED
    if applied_digest != desired_digest:
        return Following.BEHIND
    if stale or (expires is not None and expires < now):
        return Following.STALE
    return Following.CURRENT


def connected(*, is_connected: bool, last_seen: datetime | None, now: datetime) -> Condition:
    """Return whether a client has a session with the director."""
    status: Truth
    if is_connected:
        status, reason, message = "True", "SessionOpen", "connected"
    elif last_seen is None:
        status, reason, message = "Unknown", "NeverSeen", "never connected"
    else:
        status, reason, message = "False", "NoSession", f"last seen {_at(last_seen)}"
    return Condition(
        type=ConditionType.CONNECTED,
        status=status,
        reason=reason,
        message=message,
        last_transition_time=last_seen or now,
    )


def drifted(drift: Sequence[Drift], *, reported: datetime | None, now: datetime) -> Condition:
    """Return whether something on a client differs from what is desired."""
    status: Truth
    since = reported or now
    open_drift = unhealed(drift)
    if reported is None:
        status, reason, message = "Unknown", "NeverReported", "the client has not reported yet"
    elif open_drift:
        status, reason = "True", "".join(part.title() for part in open_drift[0].kind.split("-"))
        message = _and_more(open_drift)
        since = min(one.detected for one in open_drift)
    else:
        status, reason, message = "False", "AsDesired", "nothing differs"
    return Condition(
        type=ConditionType.DRIFTED, status=status, reason=reason, message=message, last_transition_time=since
    )


def unhealed(drift: Sequence[Drift]) -> list[Drift]:
    """Return the differences that are still there."""
    return [one for one in drift if not one.healed]


def _and_more(drift: Sequence[Drift]) -> str:
    return drift[0].message + (f" (and {len(drift) - 1} more)" if len(drift) > 1 else "")


# --- What needs a person, most urgent first ---------------------------------------------------------------------------

_LEVELS = {"critical": 0, "warning": 1, "notice": 2}


def in_order(attention: Iterable[Attention]) -> tuple[Attention, ...]:
    """Return the most urgent first; within a level the given order stays."""
    return tuple(sorted(attention, key=lambda one: _LEVELS[one.level]))


def source_attention(source: SourceStatus) -> list[Attention]:
    """Return what of the source needs a person."""
    found = []
    errors = [problem for problem in source.problems if problem.severity is Severity.ERROR]
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        found.append(
            Attention(
                level="critical",
                subject="source",
                message=f"revision {source.head[:12]} is not published: {errors[0].message}{more}",
                fix=f"{errors[0].place or 'source'}{': ' + errors[0].hint if errors[0].hint else ''}",
                link="/source",
            )
        )
    if source.hold is not None:
        found.append(
            Attention(
                level="critical",
                subject="source",
                message=f"revision {source.hold.revision[:12]} is held ({source.hold.reason}): {source.hold.message}",
                fix=f"director acknowledge {source.hold.revision}",
                link="/source",
            )
        )
    for condition in source.conditions:
        if condition.type is ConditionType.STALLED and condition.status == "True" and not found:
            message, _, hint = condition.message.partition("\n")
            found.append(
                Attention(
                    level="critical",
                    subject="source",
                    message=message or condition.reason,
                    fix=hint.strip() or "director reconcile",
                    link="/source",
                )
            )
    if source.suspended:
        found.append(
            Attention(
                level="notice",
                subject="source",
                message="reconciling is suspended",
                fix="director resume",
                link="/source",
            )
        )
    return found


SLACK = timedelta(minutes=10)
"""What a pass may take: a slow network, a large source."""


def silent_since(source: SourceStatus, *, now: datetime) -> datetime | None:
    """Return since when the director has not written although it should have; None while all is well, or unknown."""
    return source.passed if source.expected is not None and now > source.expected + SLACK else None


FAILURES = frozenset({Outcome.FAILED, Outcome.LOST})
"""A run that ended so left no archive that can be relied on."""


def backup_attention(backup: BackupStatus, condition: Condition) -> Attention | None:
    """Return what a backup needs that is unprotected, or that will be: its last run failed."""
    last = backup.last_run
    is_unprotected, has_failed = condition.status == "False", last is not None and last.outcome in FAILURES
    if not is_unprotected and (backup.suspended or not has_failed):
        return None
    message, fix = condition.message, f"director runs --client {backup.client} --backup {backup.backup}"
    if last is not None and has_failed:
        failure = f"the last run {'was lost' if last.outcome == 'lost' else 'failed'}: {last.error or 'see its log'}"
        message = f"{message}; {failure}" if is_unprotected else failure
        fix = last.hint or f"director runs --run {last.id[:12]}"
    elif condition.reason == "RepositoryUnavailable":
        fix = f"on {backup.client}: director-client doctor"
    return Attention(
        level="critical" if is_unprotected else "warning",
        subject=f"backup/{backup.client}/{backup.backup}",
        message=message,
        fix=fix,
        link=f"/backups/{backup.client}/{backup.backup}",
    )


def client_attention(client: ClientStatus) -> list[Attention]:
    """Return what a client needs: a refusal, an expired desired state, drift, or somebody to look why it is away."""
    subject, link = f"client/{client.name}", f"/clients/{client.name}"
    if client.phase is Phase.REVOKED:
        return [_revoked(subject, link)] if client.in_source else []
    found = []
    if client.following is Following.REFUSED and client.refusal is not None:
        found.append(
            Attention(
                level="critical",
                subject=subject,
                message=f"refuses its desired state: {client.refusal.message}",
                fix=client.refusal.hint or f"on {client.name}: director-client doctor",
                link=link,
            )
        )
    if client.following is Following.STALE:
        found.append(
            Attention(
                level="warning",
                subject=subject,
                message="its desired state has expired; it goes on backing up",
                fix=f"on {client.name}: director-client doctor",
                link=link,
            )
        )
    if not client.connected and client.last_seen is not None:
        found.append(
            Attention(
                level="warning",
                subject=subject,
                message=f"not connected since {_at(client.last_seen)}",
                fix=f"on {client.name}: director-client doctor",
                link=link,
            )
        )
    if open_drift := unhealed(client.drift):
        found.append(
            Attention(
                level="warning",
                subject=subject,
                message=_and_more(open_drift),
                fix=_drift_fix(client.name, open_drift[0]),
                link=link,
            )
        )
    return found


def _revoked(subject: str, link: str) -> Attention:
    """Return what a shut-out client needs: nothing of its machine, which may be lost or stolen, but a commit."""
    return Attention(
        level="warning",
        subject=subject,
        message="its key is revoked, and still stands in Git",
        fix="remove its Client from Git, or put the key of its successor there",
        link=link,
    )


def _drift_fix(client: str, drift: Drift) -> str:
    if drift.kind is DriftKind.SOURCE_MISSING:
        return f"on {client}: make or mount it; or take it out of source_directories"
    return f"director drift --client {client}"


def pending_attention(pending: PendingClient) -> Attention:
    """Return how to let a client in, or why not."""
    if pending.conflict:
        return Attention(
            level="critical",
            subject=f"client/{pending.name}",
            message=f"another key asks to be '{pending.name}' (from {pending.address or 'an unknown address'})",
            fix=f"if the machine was rebuilt, revoke its old key: director clients revoke {pending.name}",
            link="/clients",
        )
    return Attention(
        level="warning",
        subject=f"client/{pending.name}",
        message=f"'{pending.name}' asks to be let in: `director-client fingerprint` there says {pending.fingerprint}?",
        fix=f"director clients approve {pending.fingerprint}",
        link="/clients",
    )
