from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.core.enrolment import Approval
from reconciler.core.lockout import LockoutRow
from reconciler.store import EVERYTHING, Retention, Store
from reconciler.store import trust as trust_rows
from reconciler.store.changes import MAX_NOTICES, Broadcast
from reconciler.store.ingest import MAX_LOG_LINES, NOT_ONE_OUTBOX
from schema.errors import Problem, TerminalError, TransientError, TrustError
from schema.observed import (
    MAX_LINES,
    ClientEvent,
    Drift,
    DriftKind,
    JobState,
    LogLine,
    Outcome,
    Refusal,
    Report,
    RunFinished,
    RunLog,
    RunProgress,
    RunStarted,
    StateReport,
    Trigger,
)
from schema.status import Condition, ConditionType, RevisionStatus, SourceStatus, TokenStatus, Truth
from tests.reconciler import facts
from tests.reconciler.facts import EPOCH, NOW, RUN, later

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "director.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Store]:
    async with await Store.open(path) as opened:
        yield opened


@pytest.fixture
async def published(store: Store) -> Store:
    await facts.publish(
        store,
        clients=[facts.client_row(), facts.client_row("web-2")],
        backups=[facts.backup_row(), facts.backup_row("web-2")],
        issued=[facts.issued()],
    )
    return store


def rows(path: Path, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query, arguments).fetchall()
    finally:
        connection.close()


# --- The source -------------------------------------------------------------------------------------------------------


async def test_the_source_is_read_back_with_its_conditions(store):
    assert await store.source() == SourceStatus()
    condition = Condition(type=ConditionType.READY, status="True", reason="Published", last_transition_time=NOW)

    await store.set_source(SourceStatus(url="/srv/git", revision="abc", problems=(Problem(code="x", message="y"),)))
    await store.set_conditions("source", [condition])

    found = await store.source()
    assert (found.url, found.revision, found.problems[0].code) == ("/srv/git", "abc", "x")
    assert found.conditions == (condition,)


async def test_a_transition_time_moves_only_when_the_status_does(store):
    def ready(status: Truth, *, reason: str, hours: float) -> Condition:
        at = later(hours=hours)
        return Condition(type=ConditionType.READY, status=status, reason=reason, last_transition_time=at)

    await store.set_conditions("source", [ready("True", reason="Published", hours=0)])
    await store.set_conditions("source", [ready("True", reason="Unchanged", hours=1)])
    [kept] = await store.conditions("source")
    await store.set_conditions("source", [ready("False", reason="Stalled", hours=2)])
    [moved] = await store.conditions("source")

    assert (kept.reason, kept.last_transition_time) == ("Unchanged", NOW)
    assert (moved.reason, moved.last_transition_time) == ("Stalled", later(hours=2))


async def test_conditions_that_are_no_longer_given_go(store):
    given_ = [
        Condition(type=kind, status="True", reason="X", last_transition_time=NOW)
        for kind in (ConditionType.READY, ConditionType.STALLED)
    ]
    await store.set_conditions("client/web-1", given_)
    await store.set_conditions("client/web-1", given_[:1])

    assert await store.conditions("client/web-1") == given_[:1]


async def test_a_revision_that_is_judged_again_keeps_its_place(store, path):
    for outcome in ("held", "published"):
        status = RevisionStatus(revision="a" * 40, seen=NOW, outcome=outcome)
        await store.record_revision(status, problems=[Problem(code="x", message="y")])

    assert rows(path, "SELECT id, outcome FROM revisions") == [(1, "published")]


async def test_what_a_person_suspended_and_acknowledged_is_remembered(store):
    await store.set_suspended("source", actor="operator:root")
    await store.set_suspended("client/web-1", actor="operator:root")
    await store.set_suspended("client/web-1", actor=None)
    await store.set_acknowledged({"b" * 40, "a" * 40})

    assert await store.suspended() == {"source": "operator:root"}
    assert await store.acknowledged() == {"a" * 40, "b" * 40}


# --- Publishing -------------------------------------------------------------------------------------------------------


async def test_publishing_again_keeps_when_a_backup_was_first_seen(published, path):
    await facts.publish(published, backups=[facts.backup_row(cron="@hourly")], at=later(days=3))

    kept = rows(path, "SELECT cron, first_seen FROM backups WHERE client = 'web-1'")
    assert kept == [("@hourly", "2026-11-23T18:00:00.000000Z")]


async def test_a_removed_client_takes_its_rows_along_but_not_its_generation(published, path):
    await facts.ingest(published, facts.archives(NOW))
    await published.set_conditions("backup/web-1/files", [_condition()])
    await published.set_conditions("backup/web-10/files", [_condition()])

    await facts.publish(published, removed_clients=["web-1"])

    for table, column in (("clients", "name"), ("backups", "client"), ("evidence", "client"), ("archives", "client")):
        assert rows(path, f"SELECT {column} FROM {table} WHERE {column} = 'web-1'") == []
    assert rows(path, "SELECT object FROM conditions") == [("backup/web-10/files",)]
    assert (await published.issued_all())["web-1"].generation == 1
    assert await published.published() == ({"web-2"}, {("web-2", "files")})


async def test_a_removed_backup_takes_only_its_own_rows_along(published, path):
    await facts.publish(published, backups=[facts.backup_row(backup="database")])
    await facts.publish(published, removed_backups=[("web-1", "files")])

    assert rows(path, "SELECT client, backup FROM evidence ORDER BY 1") == [("web-1", "database"), ("web-2", "files")]


async def test_evidence_of_another_url_is_no_evidence(published, path):
    await facts.ingest(published, facts.archives(NOW))
    await facts.publish(published, backups=[facts.backup_row(repositories=(facts.repository(url="/elsewhere"),))])

    assert rows(path, "SELECT url, newest FROM evidence WHERE client = 'web-1'") == [("/elsewhere", None)]
    assert rows(path, "SELECT newest_archive FROM backups WHERE client = 'web-1'") == [(None,)]
    assert rows(path, "SELECT id FROM archives") == []


async def test_a_repository_added_later_has_one_objective_s_time_for_its_first_archive(published, path):
    await facts.ingest(published, facts.archives(later(days=30)), at=later(days=30))
    both = (facts.repository(), facts.repository("offsite", "/offsite"))

    await facts.publish(published, backups=[facts.backup_row(repositories=both)], at=later(days=30))

    kept = rows(path, "SELECT newest_archive, protected_until FROM backups WHERE client = 'web-1'")
    assert kept == [(None, "2026-12-24T20:00:00.000000Z")]


async def test_an_issued_state_is_read_with_its_envelope_and_listed_without(published):
    found = await published.issued(["web-1", "nobody"])

    assert {name: one.envelope for name, one in found.items()} == {"web-1": b"{}"}
    assert await published.issued_all() == {"web-1": facts.issued().without_bulk()}


# --- Trust ------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def token(store: Store) -> str:
    status = TokenStatus(id="t1", created=NOW, expires=later(hours=1), uses_left=1)
    await store.create_token(status, token_hash="hash")
    return "hash"


async def wait(store: Store, public_key: str) -> None:
    await store.upsert_pending(
        public_key=public_key, name="web-1", address="::1", config_directory="", state_directory="", now=NOW
    )


async def test_a_token_lets_in_as_often_as_it_has_uses(store, token):
    assert await store.consume_token(token, "key-1", NOW)
    assert not await store.consume_token(token, "key-2", NOW)
    assert [one.uses_left for one in await store.tokens()] == [0]


async def enrol(store: Store, token: str, public_key: str) -> bool:
    return await store.enrol(
        token, public_key=public_key, name="web-1", address="::1", config_directory="", state_directory="", now=NOW
    )


async def test_a_use_of_a_token_and_the_key_that_used_it_are_kept_together(store, token):
    before = store._writer.commits
    assert await enrol(store, token, "key-1")
    assert store._writer.commits == before + 1

    assert not await enrol(store, token, "key-2")
    assert await enrol(store, token, "key-1")
    assert [one.public_key for one in await store.pending()] == ["key-1"]
    assert [one.uses_left for one in await store.tokens()] == [0]


async def test_a_token_used_by_many_at_once_is_used_once(store, token):
    answers = await asyncio.gather(*(store.consume_token(token, f"key-{number}", NOW) for number in range(20)))

    assert sum(answers) == 1


async def test_a_retry_of_a_waiting_key_uses_nothing(store, token):
    assert await store.consume_token(token, "key-1", NOW)
    await wait(store, "key-1")

    assert await store.consume_token(token, "key-1", NOW)
    assert not await store.consume_token("another", "key-1", NOW)


async def test_a_revoked_an_expired_and_an_unknown_token_let_nobody_in(store, token):
    assert not await store.consume_token("unknown", "key-1", NOW)
    assert not await store.consume_token(token, "key-1", later(hours=1))
    assert await store.revoke_token("t1")
    assert not await store.consume_token(token, "key-1", NOW)
    assert not await store.revoke_token("t2")


async def test_approving_ends_waiting(store):
    await wait(store, "key-1")
    await store.approve(public_key="key-1", name="web-1", by="operator:root", at=NOW)

    assert await store.pending() == []
    assert await store.approvals() == [Approval("key-1", "web-1", "operator:root")]


async def test_a_name_is_never_given_to_another_key(store):
    await store.approve(public_key="key-1", name="web-1", by="root", at=NOW)

    with pytest.raises(TerminalError) as caught:
        await store.approve(public_key="key-2", name="web-1", by="root", at=NOW)

    assert caught.value.hint == ("if the machine was rebuilt, revoke the old key first: director clients revoke web-1")


async def test_a_revoked_key_stays_out(store):
    await store.approve(public_key="key-1", name="web-1", by="root", at=NOW)
    await store.revoke(public_key="key-1", name="web-1", by="root", at=NOW)

    assert await store.approvals() == []
    assert [one.public_key for one in await store.revocations()] == ["key-1"]
    with pytest.raises(TerminalError, match="this key was revoked"):
        await store.approve(public_key="key-1", name="web-1", by="root", at=NOW)
    assert await store.unrevoke("key-1")
    await store.approve(public_key="key-1", name="web-1", by="root", at=NOW)


async def test_lockouts_are_bounded_and_locks_go_last(store, monkeypatch):
    monkeypatch.setattr(trust_rows, "MAX_LOCKOUTS", 3)
    locked = LockoutRow("locked", 10, later(hours=-9), later(hours=1))
    await store.save_lockouts([locked, *(LockoutRow(f"a{n}", 1, later(hours=n), None) for n in range(4))])
    await store.save_lockouts([], removed=["a2"])

    assert [row.address for row in await store.lockouts()] == ["locked", "a3"]


# --- Reports ----------------------------------------------------------------------------------------------------------


async def test_a_whole_run_ends_on_the_backup_s_row(published, path):
    high = await facts.ingest(
        published,
        facts.started(),
        facts.log(),
        facts.finished(log_lines=3, statistics=(facts.statistics(repository_size=77),)),
        facts.archives(NOW),
    )

    assert high == 4
    columns = "running, last_run, last_outcome, last_success, newest_archive, protected_until"
    at = "2026-11-23T18:00:00.000000Z"
    expected = ("", RUN, "succeeded", at, at, "2026-11-24T20:00:00.000000Z")
    assert rows(path, f"SELECT {columns} FROM backups WHERE client = 'web-1'") == [expected]
    assert rows(path, "SELECT log_lines, outcome, progress FROM runs") == [(3, "succeeded", None)]
    assert rows(path, "SELECT message FROM run_logs") == [("line 0",), ("line 1",), ("line 2",)]
    assert rows(path, "SELECT repository_size FROM samples") == [(77,)]


async def test_a_failed_run_keeps_the_last_success(published, path):
    await facts.ingest(published, facts.started(), facts.finished())
    await facts.ingest(published, facts.finished("b" * 32, outcome=Outcome.FAILED, at=later(hours=1)), first=3)

    kept = rows(path, "SELECT last_outcome, last_success FROM backups WHERE client = 'web-1'")
    assert kept == [("failed", "2026-11-23T18:00:00.000000Z")]


async def test_the_newest_archive_of_a_backup_is_that_of_its_worst_repository(published, path):
    both = (facts.repository(), facts.repository("offsite", "/offsite"))
    await facts.publish(published, backups=[facts.backup_row(repositories=both)])

    async def newest() -> Any:
        return rows(path, "SELECT newest_archive FROM backups WHERE client = 'web-1'")[0][0]

    await facts.ingest(published, facts.archives(NOW))
    assert await newest() is None
    await facts.ingest(published, facts.archives(later(hours=-5), repository="offsite"), first=2)
    assert await newest() == "2026-11-23T13:00:00.000000Z"
    await facts.ingest(published, facts.archives(repository="offsite"), first=3)
    assert await newest() is None


async def test_an_unreadable_repository_keeps_what_was_known(published, path):
    await facts.ingest(published, facts.archives(NOW), facts.archives(available=False, message="no route"))

    kept = rows(path, "SELECT available, message, newest, archives FROM evidence WHERE client = 'web-1'")
    assert kept == [(0, "no route", "2026-11-23T18:00:00.000000Z", 1)]
    assert len(rows(path, "SELECT id FROM archives")) == 1


async def test_the_set_of_archives_is_replaced_and_known_sizes_are_kept(published, path):
    first, second = later(hours=-48), later(hours=-24)
    kept_id = facts.archives(second).archives[0].id
    finished = facts.finished(statistics=(facts.statistics(archive_id=kept_id, original_size=42),))

    await facts.ingest(published, finished, facts.archives(second, first), facts.archives(NOW, second))

    found = rows(path, "SELECT name, original_size FROM archives ORDER BY start")
    assert found == [("archive-2026-11-22", 42), ("archive-2026-11-23", 0)]


async def test_an_archive_from_the_future_protects_nobody(published, path):
    await facts.ingest(published, facts.archives(later(days=3650), later(hours=-30)))

    kept = rows(path, "SELECT newest_archive FROM backups WHERE client = 'web-1'")
    assert kept == [("2026-11-22T12:00:00.000000Z",)]


async def test_a_clock_far_ahead_does_not_head_the_list_of_runs(published, path):
    await facts.ingest(published, facts.started(at=later(days=3650)))

    assert rows(path, "SELECT started FROM runs") == [("2026-11-23T18:00:00.000000Z",)]


async def test_evidence_for_what_is_not_declared_is_passed_over(published, path):
    await facts.ingest(published, facts.archives(NOW, backup="mine"), facts.archives(NOW, repository="other"))

    assert rows(path, "SELECT DISTINCT backup, repository FROM evidence") == [("files", "nas")]
    assert rows(path, "SELECT id FROM archives") == []


async def test_the_newest_state_by_sequence_wins_whatever_its_clock_says(published, path):
    def state(**fields: Any) -> StateReport:
        return StateReport(**fields)

    drift = Drift(kind=DriftKind.CHANGED, subject="/etc/x", message="edited", detected=NOW)
    healed = drift.model_copy(update={"healed": True})
    await facts.ingest(
        published,
        state(at=later(days=1), revision="new"),
        state(
            at=later(days=-9),
            revision="newest",
            drift=(drift, healed),
            refusal=Refusal(code="policy", message="no", generation=7),
            jobs=(JobState(backup="files", next_due=later(hours=9), running=RUN), JobState(backup="unknown")),
        ),
    )

    assert rows(path, "SELECT revision, drifted, refused FROM observed") == [("newest", 1, 7)]
    due = rows(path, "SELECT next_due, running FROM backups WHERE client = 'web-1'")
    assert due == [("2026-11-24T03:00:00.000000Z", RUN)]


async def test_a_client_event_is_an_event_of_that_client(published, path):
    await facts.ingest(published, ClientEvent(at=NOW, reason="Healed", message="rewrote files.yaml", backup="files"))

    found = rows(path, "SELECT reason, actor, client, backup, message FROM events")
    assert found == [("Healed", "client:web-1", "web-1", "files", "rewrote files.yaml")]


async def test_an_event_keeps_what_there_is_to_unfold(published, path):
    await facts.ingest(published, ClientEvent(at=NOW, reason="Healed", message="put back", detail="-keep_daily: 7"))
    await facts.ingest(published, ClientEvent(at=NOW, reason="Applied", message="of an older client"), first=2)

    assert rows(path, "SELECT detail FROM events") == [("-keep_daily: 7",), ("",)]


async def test_a_run_whose_start_was_lost_gets_a_row_in_its_place(published, path):
    await facts.ingest(published, facts.log(first=7, lines=1))
    await facts.ingest(published, facts.finished(log_lines=8), first=2)

    assert rows(path, "SELECT client, outcome, log_lines FROM runs") == [("web-1", "succeeded", 8)]


async def test_nobody_touches_the_run_of_another_client(published, path):
    await facts.ingest(published, facts.started(), facts.log())

    reports: list[Report] = [facts.started(), facts.log(first=3), facts.finished()]
    for number, report in enumerate(reports, 1):
        high = await facts.ingest(published, report, client="web-2", first=number)
        assert high == number

    assert rows(path, "SELECT client, outcome, log_lines FROM runs") == [("web-1", None, 3)]
    assert rows(path, "SELECT last_run, running FROM backups WHERE client = 'web-2'") == [("", "")]
    refused = rows(path, "SELECT DISTINCT reason, client FROM events")
    assert refused == [("ReportRefused", "web-2")]


async def test_hostile_numbers_are_bounded(published, path):
    high = await facts.ingest(
        published,
        RunLog(run=RUN, first=MAX_LINES, lines=(LogLine(at=NOW, level="info", message="x"),)),
        RunLog(run=RUN, first=MAX_LOG_LINES - 1, lines=(LogLine(at=NOW, level="info", message="\0" * 8192),) * 3),
        facts.finished(
            exit_code=-255,
            log_lines=MAX_LINES,
            statistics=(facts.statistics(duration=1e308, repository_size=2**63 - 1, archive_id="x" * 1024),),
        ),
        StateReport(at=NOW, refusal=Refusal(code="x", message="y", generation=2**53 - 1), revision="r" * 1024),
    )

    assert high == 4
    assert rows(path, "SELECT number FROM run_logs") == [(MAX_LOG_LINES - 1,)]
    assert rows(path, "SELECT exit_code, log_lines FROM runs") == [(-255, MAX_LOG_LINES)]
    assert rows(path, "SELECT refused FROM observed") == [(2**53 - 1,)]


async def test_an_endless_duration_is_no_number(published, path):
    one = facts.statistics().model_copy(update={"duration": float("inf")})
    await facts.ingest(
        published, RunFinished(at=NOW, run=RUN, backup="files", outcome=Outcome.FAILED, statistics=(one,))
    )

    assert rows(path, "SELECT duration FROM samples") == [(0.0,)]


# --- Exactly once -----------------------------------------------------------------------------------------------------


async def test_what_is_stored_already_is_passed_over(published, path):
    event = ClientEvent(at=NOW, reason="Healed", message="x")
    assert await facts.ingest(published, event, event) == 2
    assert await facts.ingest(published, event, event, event) == 3
    assert await facts.ingest(published, event) == 3

    assert rows(path, "SELECT count(*) FROM events") == [(3,)]


async def test_reports_out_of_order_are_refused_whole(published, path):
    event = ClientEvent(at=NOW, reason="Healed", message="x")

    with pytest.raises(TrustError, match="out of order"):
        await published.ingest(
            client="web-1", public_key="k", epoch=EPOCH, items=[(2, event), (1, event)], through=2, received=NOW
        )

    assert rows(path, "SELECT count(*) FROM events") == [(0,)]


async def test_what_nobody_could_read_counts_as_stored(published):
    high = await published.ingest(client="web-1", public_key="k", epoch=EPOCH, items=[], through=9, received=NOW)

    assert high == 9


@pytest.mark.parametrize("theirs", [[4], [4, 5], [4, 5, 6]])
async def test_two_machines_with_one_outbox_are_told_so_and_lose_nothing_in_silence(published, path, theirs):
    async def report(whose: str, *numbers: int, at: datetime = NOW) -> int:
        items = [(one, RunStarted(at=at, run=whose * 32, backup="files", trigger=Trigger.SCHEDULE)) for one in numbers]
        found: int = await published.ingest(
            client="web-1", public_key="k", epoch=EPOCH, items=items, through=numbers[-1], received=NOW
        )
        return found

    assert await report("a", 1, 2, 3) == 3  # before it was cloned
    assert await report("b", *theirs) == theirs[-1]

    assert await report("a", 4, 5, 6, at=later(hours=1)) == NOT_ONE_OUTBOX
    assert await report("b", *theirs) == theirs[-1]  # what is sent again is known again
    assert rows(path, "SELECT sequence FROM outboxes") == [(theirs[-1],)]


async def test_a_client_may_have_a_new_outbox_but_not_endlessly_many(published, path):
    event = ClientEvent(at=NOW, reason="Healed", message="x")
    for number in range(20):
        assert await facts.ingest(published, event, epoch=f"{number:032x}", at=later(seconds=number)) == 1

    assert len(rows(path, "SELECT epoch FROM outboxes")) == 8
    assert len(rows(path, "SELECT id FROM events")) == 20


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    frames=st.lists(
        st.tuples(st.sampled_from(["web-1", "web-2"]), st.integers(1, 12), st.integers(1, 5)), min_size=1, max_size=15
    )
)
async def test_any_frames_in_any_order_store_each_report_once(tmp_path_factory, frames):
    path = tmp_path_factory.mktemp("store") / "director.db"
    highs = {"web-1": 0, "web-2": 0}
    expected = set()
    async with await Store.open(path) as store:
        for client, first, count in frames:
            items = [
                (number, ClientEvent(at=NOW, reason="Healed", message=f"{client}/{number}"))
                for number in range(first, first + count)
            ]
            expected |= {report.message for number, report in items if number > highs[client]}
            highs[client] = max(highs[client], items[-1][0])
            high = await store.ingest(
                client=client, public_key=client, epoch=EPOCH, items=items, through=items[-1][0], received=NOW
            )
            assert high == highs[client]

    found = [message for (message,) in rows(path, "SELECT message FROM events")]
    assert sorted(found) == sorted(expected)


# --- One writer -------------------------------------------------------------------------------------------------------


async def test_a_bad_call_does_not_fail_the_calls_beside_it(published, path):
    event = ClientEvent(at=NOW, reason="Healed", message="x")
    bad = ClientEvent.model_construct(at=NOW, reason="Healed", message="\ud800")

    calls = [facts.ingest(published, bad if n == 5 else event, client=f"c{n}") for n in range(10)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)

    assert [outcome for n, outcome in enumerate(outcomes) if n != 5] == [1] * 9
    assert isinstance(outcomes[5], UnicodeEncodeError)
    assert rows(path, "SELECT count(*) FROM events") == [(9,)]


async def test_waiting_calls_share_a_commit(published):
    await asyncio.gather(*(facts.ingest(published, facts.archives(NOW), client=f"c{n}") for n in range(300)))
    before = published._writer.commits

    await asyncio.gather(*(facts.ingest(published, facts.archives(NOW), client=f"c{n}", first=2) for n in range(300)))

    assert published._writer.commits - before < 100


async def test_a_caller_who_goes_away_does_not_undo_its_call(published, path):
    task = asyncio.ensure_future(facts.ingest(published, ClientEvent(at=NOW, reason="Healed", message="x")))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await published.event(reason="Next", message="", at=NOW)

    assert [reason for (reason,) in rows(path, "SELECT reason FROM events ORDER BY id")] == ["Healed", "Next"]


async def test_closing_writes_what_waits_and_refuses_what_comes_later(path):
    store = await Store.open(path)
    writing = [asyncio.ensure_future(store.event(reason="Kept", message=str(n), at=NOW)) for n in range(50)]
    await asyncio.sleep(0)

    await store.close()

    await asyncio.gather(*writing)
    assert rows(path, "SELECT count(*) FROM events") == [(50,)]
    with pytest.raises(TransientError, match="the store is closed"):
        await store.event(reason="Late", message="", at=NOW)


async def test_a_full_disk_refuses_loses_nothing_and_recovers(published, path):
    def limit(connection: Any) -> None:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + extra}")

    big = ClientEvent(at=NOW, reason="Healed", message="x" * 8000)
    extra = 4
    await published._writer.submit(limit)

    acknowledged = []
    refusals = []
    for number in range(1, 20):
        try:
            acknowledged.append(await facts.ingest(published, big, first=number))
        except TransientError as error:
            refusals.append(error)
    extra = 10_000
    await published._writer.submit(limit)
    last = await facts.ingest(published, big, first=20)

    assert "the disk is full" in refusals[0].message
    assert refusals[0].hint
    assert last == 20
    assert rows(path, "SELECT count(*) FROM events") == [(len(acknowledged) + 1,)]


KILLED = """
import asyncio, sys
from pathlib import Path
from reconciler.store import Store
from schema.observed import ClientEvent
from tests.reconciler.facts import NOW, ingest

async def client(store, name):
    for number in range(1, 100_000):
        high = await ingest(store, ClientEvent(at=NOW, reason="Healed", message=str(number)), client=name, first=number)
        print(name, high, flush=True)

async def main():
    store = await Store.open(Path(sys.argv[1]))
    await asyncio.gather(*(client(store, f"c{number}") for number in range(8)))

asyncio.run(main())
"""


async def test_what_was_acknowledged_is_there_after_a_kill(path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged: dict[str, int] = {}
    for _ in range(400):
        words = process.stdout.readline().split()
        acknowledged[words[0]] = int(words[1])
    process.kill()
    for line in process.stdout.read().splitlines():
        if len(parts := line.split()) == 2:
            acknowledged[parts[0]] = int(parts[1])
    process.wait()
    process.stdout.close()

    async with await Store.open(path) as store:
        for name, high in acknowledged.items():
            messages = [int(m) for (m,) in rows(path, "SELECT message FROM events WHERE client = ? ORDER BY id", name)]
            assert messages == list(range(1, len(messages) + 1))
            assert len(messages) >= high
            assert await facts.ingest(store, facts.archives(NOW), client=name) == len(messages)


# --- Facts of the moment ----------------------------------------------------------------------------------------------


async def test_a_session_is_kept_and_ends_with_the_key_that_began_it(published, path):
    async def connect(key: str) -> bool:
        known: bool = await published.connected(client="web-1", public_key=key, address="::1", now=NOW)
        return known

    assert not await connect(facts.key_of("web-1"))
    await facts.ingest(published, facts.archives(NOW))
    assert await connect(facts.key_of("web-1"))
    await published.disconnected(client="web-1", public_key="an older key", now=NOW)
    assert rows(path, "SELECT connected FROM observed") == [(1,)]
    await published.disconnected(client="web-1", public_key=facts.key_of("web-1"), now=later(hours=1))
    assert rows(path, "SELECT connected, last_seen FROM observed") == [(0, "2026-11-23T19:00:00.000000Z")]
    await connect(facts.key_of("web-1"))
    await published.disconnect_all()
    assert rows(path, "SELECT connected FROM observed") == [(0,)]


async def test_heartbeats_and_progress_are_written_by_the_close_at_the_latest(path):
    async with await Store.open(path) as store:
        await store.connected(client="web-1", public_key="k", address="", now=NOW)
        await facts.ingest(store, facts.started())
        for second in range(3):
            await store.seen(client="web-1", now=later(seconds=second))
            progress = RunProgress(at=NOW, run=RUN, backup="files", files=second)
            await store.progress(client="web-1", progress=progress)
            await store.progress(client="web-2", progress=progress.model_copy(update={"run": "c" * 32}))

    assert rows(path, "SELECT last_seen FROM observed") == [("2026-11-23T18:00:02.000000Z",)]
    assert rows(path, "SELECT json_extract(progress, '$.files') FROM runs") == [(2,)]


async def test_progress_of_another_s_or_an_ended_run_is_passed_over(path):
    async with await Store.open(path) as store:
        await facts.ingest(store, facts.started(), facts.started("b" * 32), facts.finished("b" * 32))
        for client, run in (("web-2", RUN), ("web-1", "b" * 32)):
            await store.progress(client=client, progress=RunProgress(at=NOW, run=run, backup="files"))

    assert rows(path, "SELECT progress FROM runs") == [(None,), (None,)]


# --- Notices ----------------------------------------------------------------------------------------------------------


async def test_who_waits_hears_what_changed_once(published):
    with published.changes() as changes:
        await facts.ingest(published, facts.started())
        await facts.ingest(published, facts.log(), first=2)
        await published.close()
        heard = [notice async for notice in changes]

    assert sorted(heard) == ["client/web-1", f"run/{RUN}"]


async def test_who_is_too_slow_hears_that_everything_may_have_changed():
    broadcast = Broadcast()
    with broadcast.changes() as changes:
        for number in range(MAX_NOTICES + 1):
            broadcast.publish([f"run/{number}"])
        broadcast.close()

        assert [notice async for notice in changes] == [EVERYTHING]


# --- History ----------------------------------------------------------------------------------------------------------


async def test_history_is_forgotten_by_age_and_current_state_is_kept(published, path):
    for days in range(50):
        run = f"{days:032x}"
        at = later(days=days)
        reports = (
            facts.started(run, at=at),
            facts.log(run),
            facts.finished(run, at=at, statistics=(facts.statistics(),)),
        )
        await facts.ingest(published, *reports, first=days * 3 + 1, at=at)
        await published.event(reason="Tick", message="", at=at)

    retention = Retention(runs=30, logs=10, events=20, samples=40)
    gone = await published.trim(now=later(days=50), retention=retention)

    assert gone | {"growth": 0} == {
        "logs": 40,
        "runs": 20,
        "samples": 10,
        "growth": 0,
        "revisions": 0,
        "events": 30,
        "clients": 0,
    }
    assert rows(path, "SELECT count(*) FROM runs") == [(30,)]
    assert rows(path, "SELECT count(DISTINCT run) FROM run_logs") == [(10,)]
    assert rows(path, "SELECT last_run FROM backups WHERE client = 'web-1'") == [(f"{49:032x}",)]
    assert await published.trim(now=later(days=50), retention=retention) == dict.fromkeys(gone, 0)


async def test_old_revisions_are_forgotten_but_what_is_published_and_the_head(published, path):
    for days in range(10):
        seen = later(days=days)
        await published.record_revision(RevisionStatus(revision=f"{days:040x}", seen=seen, outcome="superseded"))
    await published.set_source(SourceStatus(revision=f"{1:040x}", head=f"{2:040x}"))

    gone = await published.trim(now=later(days=25), retention=Retention(events=20))

    assert gone["revisions"] == 3
    assert rows(path, "SELECT CAST(revision AS INTEGER) FROM revisions") == [(n,) for n in (1, 2, 5, 6, 7, 8, 9)]


async def test_the_sizes_of_old_days_are_forgotten_a_day_at_a_time(published, path):
    # What the fixture published is counted when that is due; no time passes here, so the days are written by hand.
    await published.close()
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM growth")
    days = [(f"2026-11-{day:02}", name) for day in range(1, 11) for name in ("", "nas")]
    connection.executemany("INSERT INTO growth VALUES (?, ?, '', 0, 0, 0, 0, 0)", days)
    connection.commit()
    connection.close()

    async with await Store.open(path) as store:
        gone = await store.trim(now=NOW, retention=Retention(samples=18))

    assert gone["growth"] == 8
    assert rows(path, "SELECT min(day), count(*) FROM growth") == [("2026-11-05", 12)]


async def test_a_generation_is_forgotten_when_its_client_is_gone_and_it_has_expired(published):
    await facts.publish(published, removed_clients=["web-1"])

    await published.trim(now=later(days=89))
    assert set(await published.issued_all()) == {"web-1"}
    await published.trim(now=later(days=91))
    assert set(await published.issued_all()) == set()


def _condition() -> Condition:
    return Condition(
        type=ConditionType.PROTECTED, status="True", reason="X", last_transition_time=datetime(2026, 1, 1, tzinfo=UTC)
    )
