from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schema import assessment
from schema.errors import Problem, Severity
from schema.observed import Drift, DriftKind, Outcome, Refusal, Trigger
from schema.status import (
    Attention,
    BackupStatus,
    ClientStatus,
    Condition,
    ConditionType,
    Evidence,
    Following,
    Hold,
    PendingClient,
    Phase,
    RunStatus,
    SourceStatus,
)

NOW = datetime(2026, 11, 23, 18, 0, tzinfo=UTC)
HOUR = 3600


def ago(hours: float) -> datetime:
    return NOW - timedelta(hours=hours)


def seen(hours: float | None = None, *, repository: str = "nas", **fields: Any) -> Evidence:
    defaults: dict[str, Any] = {"declared": ago(1000), "available": True}
    newest = None if hours is None else ago(hours)
    return Evidence(repository=repository, newest=newest, **(defaults | fields))


def protected(*evidence: Evidence, rpo: int | None = 26 * HOUR, **fields: Any) -> Condition:
    defaults: dict[str, Any] = {"first_seen": ago(1000), "suspended": False, "now": NOW}
    return assessment.protected(rpo=rpo, evidence=evidence, **(defaults | fields))


@pytest.mark.parametrize(
    "evidence,status,reason",
    [
        ([seen(25)], "True", "ArchiveWithinObjective"),
        ([seen(26)], "True", "ArchiveWithinObjective"),
        ([seen(25), seen(20, repository="b")], "True", "ArchiveWithinObjective"),
        ([seen(25, available=False)], "True", "ArchiveWithinObjective"),
        ([seen(26.01)], "False", "Overdue"),
        ([seen(1), seen(27, repository="b")], "False", "Overdue"),
        ([seen(27, available=False, message="no route")], "False", "RepositoryUnavailable"),
        ([seen()], "False", "NeverBackedUp"),
        ([seen(1), seen(repository="b")], "False", "NeverBackedUp"),
        ([seen(declared=ago(25))], "Unknown", "WaitingForFirstRun"),
        ([seen(1), seen(repository="b", declared=ago(25))], "Unknown", "WaitingForFirstRun"),
        ([seen(27), seen(repository="b", declared=ago(25))], "False", "Overdue"),
        ([], "False", "NeverBackedUp"),
    ],
)
def test_protected_means_an_archive_inside_the_objective_in_every_repository(evidence, status, reason):
    condition = protected(*evidence)

    assert (condition.status, condition.reason) == (status, reason)


def test_without_an_objective_or_suspended_nothing_is_promised():
    assert protected(seen(1), rpo=None).reason == "NoObjective"
    assert protected(seen(1), suspended=True).reason == "Suspended"


def test_an_overdue_backup_says_by_how_much_and_since_when():
    condition = protected(seen(30))

    assert condition.message == "the newest archive in 'nas' is 1d6h old; the objective is 1d2h"
    assert condition.last_transition_time == ago(4)


def test_the_objective_is_held_against_the_worst_repository():
    pairs = [(ago(3), ago(100)), (None, ago(50)), (ago(9), ago(100))]

    assert assessment.oldest_of_newest(newest for newest, _ in pairs) is None
    assert assessment.oldest_of_newest([ago(3), ago(9)]) == ago(9)
    assert assessment.oldest_of_newest([]) is None
    assert assessment.protected_until(pairs, rpo=HOUR) == ago(49)
    assert assessment.protected_until(pairs, rpo=None) is None
    assert assessment.protected_until([], rpo=HOUR) is None


@pytest.mark.parametrize(
    "changed,expected",
    [
        ({}, Following.CURRENT),
        ({"desired_digest": ""}, Following.UNKNOWN),
        ({"applied_digest": ""}, Following.UNKNOWN),
        ({"applied_digest": "", "refused": 7}, Following.REFUSED),
        ({"applied_digest": "old"}, Following.BEHIND),
        ({"applied_digest": "old", "refused": 6}, Following.BEHIND),
        ({"applied_digest": "old", "refused": assessment.LATEST_REFUSAL}, Following.REFUSED),
        ({"stale": True}, Following.STALE),
        ({"expires": ago(1)}, Following.STALE),
    ],
)
def test_following(changed, expected):
    facts: dict[str, Any] = {
        "desired_digest": "new",
        "desired_generation": 7,
        "applied_digest": "new",
        "refused": 0,
        "stale": False,
        "expires": NOW,
        "now": NOW,
    }

    assert assessment.following(**(facts | changed)) is expected


def test_connected_drifted_and_neither():
    drift = Drift(kind=DriftKind.REPOSITORY_MISSING, subject="nas", message="nas is gone", detected=ago(2))
    healed = drift.model_copy(update={"healed": True})

    assert assessment.connected(is_connected=True, last_seen=NOW, now=NOW).status == "True"
    assert assessment.connected(is_connected=False, last_seen=ago(1), now=NOW).status == "False"
    assert assessment.connected(is_connected=False, last_seen=None, now=NOW).status == "Unknown"
    found = assessment.drifted([healed, drift, drift], reported=NOW, now=NOW)
    assert (found.status, found.reason, found.message) == ("True", "RepositoryMissing", "nas is gone (and 1 more)")
    assert found.last_transition_time == ago(2)
    assert assessment.drifted([healed], reported=NOW, now=NOW).status == "False"
    assert assessment.drifted([], reported=None, now=NOW).status == "Unknown"


# --- Attention --------------------------------------------------------------------------------------------------------


def test_the_most_urgent_comes_first():
    given = [Attention(level=level, subject=level, message="") for level in ("notice", "critical", "warning")]

    assert [one.level for one in assessment.in_order(given)] == ["critical", "warning", "notice"]


def test_a_source_says_where_it_is_wrong_and_what_would_let_it_through():
    problem = Problem(code="x", message="unknown kind", hint="did you mean Backup?", path="a.yaml", line=3, column=1)
    warning = Problem(severity=Severity.WARNING, code="x", message="y")
    hold = Hold(revision="abc", reason="MassChangeHeld", message="half is gone", since=NOW)

    found = assessment.source_attention(SourceStatus(problems=(warning, problem), hold=hold, suspended=True))

    assert [one.fix for one in found] == [
        "a.yaml:3:1: did you mean Backup?",
        "director acknowledge abc",
        "director resume",
    ]
    assert assessment.source_attention(SourceStatus(problems=(warning,))) == []


def test_an_unprotected_backup_says_why_its_last_run_failed():
    run = RunStatus(
        id="a" * 32,
        client="web-1",
        backup="files",
        trigger=Trigger.SCHEDULE,
        started=NOW,
        outcome=Outcome.FAILED,
        error="connection refused",
        hint="is the nas on?",
    )
    backup = BackupStatus(client="web-1", backup="files", last_run=run)

    found = assessment.backup_attention(backup, protected(seen(30)))

    assert found is not None
    assert found.message.endswith("the last run failed: connection refused")
    assert found.fix == "is the nas on?"


def test_a_failed_run_needs_a_person_before_the_backup_is_overdue():
    run = RunStatus(id="a" * 32, client="web-1", backup="files", trigger=Trigger.SCHEDULE, started=NOW)

    def found(outcome: Outcome | None, *, suspended: bool = False) -> Attention | None:
        ended = run.model_copy(update={"outcome": outcome, "error": "no space left"})
        backup = BackupStatus(client="web-1", backup="files", last_run=ended, suspended=suspended)
        return assessment.backup_attention(backup, protected(seen(1)))

    failed, lost = found(Outcome.FAILED), found(Outcome.LOST)
    assert failed is not None
    assert lost is not None
    assert (failed.level, failed.message) == ("warning", "the last run failed: no space left")
    assert failed.fix == "director runs --run aaaaaaaaaaaa"
    assert lost.message == "the last run was lost: no space left"
    assert found(Outcome.SUCCEEDED) is None
    assert found(Outcome.FAILED, suspended=True) is None


def test_a_source_that_cannot_be_used_says_what_to_do_not_only_where_to_look():
    message = "the source is empty\ncommit your first resources"
    stalled = Condition(
        type=ConditionType.STALLED, status="True", reason="SourceUnusable", message=message, last_transition_time=NOW
    )

    [found] = assessment.source_attention(SourceStatus(conditions=(stalled,)))

    assert (found.message, found.fix) == ("the source is empty", "commit your first resources")


def test_a_missing_source_directory_is_not_mended_by_a_diff():
    drift = Drift(kind=DriftKind.SOURCE_MISSING, subject="/srv", message="/srv does not exist", detected=NOW)

    [found] = assessment.client_attention(
        ClientStatus(name="web-1", connected=True, phase=Phase.APPROVED, following=Following.CURRENT, drift=(drift,))
    )

    assert found.fix == "on web-1: make or mount it; or take it out of source_directories"


def test_a_client_says_what_it_refuses_and_how_it_differs():
    drift = Drift(kind=DriftKind.CHANGED, subject="/etc/x", message="/etc/x was edited", detected=NOW)
    client = ClientStatus(
        name="web-1",
        phase=Phase.APPROVED,
        following=Following.REFUSED,
        refusal=Refusal(code="policy", message="commands are not allowed", hint="allow them in client.toml"),
        drift=(drift,),
        last_seen=ago(5),
    )

    found = assessment.client_attention(client)

    assert [(one.level, one.fix) for one in found] == [
        ("critical", "allow them in client.toml"),
        ("warning", "on web-1: director-client doctor"),
        ("warning", "director drift --client web-1"),
    ]
    quiet = client.model_copy(update={"following": Following.CURRENT, "drift": (), "connected": True})
    assert assessment.client_attention(quiet) == []


def test_a_revoked_client_is_nagged_about_only_while_it_stands_in_git():
    client = ClientStatus(name="web-1", phase=Phase.REVOKED, following=Following.CURRENT, last_seen=ago(5))

    [found] = assessment.client_attention(client)

    assert (found.message, found.fix) == (
        "its key is revoked, and still stands in Git",
        "remove its Client from Git, or put the key of its successor there",
    )
    assert assessment.client_attention(client.model_copy(update={"in_source": False})) == []


def test_a_waiting_client_says_how_to_let_it_in_or_why_not():
    waiting = PendingClient(name="web-1", public_key="k", fingerprint="SHA256:x", first_seen=NOW, last_seen=NOW)

    assert assessment.pending_attention(waiting).fix == "director clients approve SHA256:x"
    conflict = assessment.pending_attention(waiting.model_copy(update={"conflict": True}))
    assert (conflict.level, "revoke" in conflict.fix) == ("critical", True)
