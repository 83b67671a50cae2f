from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from hypothesis import given, settings
from hypothesis import strategies as st

import schema.envelope
from reconciler.store import Store
from schema import assessment
from schema.errors import Problem
from schema.observed import (
    Drift,
    DriftKind,
    JobState,
    LogLine,
    Outcome,
    Refusal,
    RunLog,
    StateReport,
)
from schema.status import Following, Hold, Page, Phase, RevisionStatus, SourceStatus, TokenStatus
from tests.reconciler import facts
from tests.reconciler.facts import NOW, RUN, later
from web_readonly.reader import (
    BackupFilter,
    ClientFilter,
    EventFilter,
    InvalidQuery,
    Reader,
    RunFilter,
    StoreUnavailable,
)
from web_readonly.reader.clients import fingerprint

DIGEST = "sha256:" + "1" * 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "director.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Store]:
    async with await Store.open(path) as opened:
        yield opened


@pytest.fixture
def reader(path: Path) -> Iterator[Reader]:
    opened = Reader(path)
    yield opened
    opened.close()


@pytest.fixture
async def published(store: Store) -> Store:
    names = [f"web-{number}" for number in range(1, 6)]
    await facts.publish(
        store,
        clients=[facts.client_row(name, labels={"role": "web", "a.b/c": name}) for name in names],
        backups=[facts.backup_row(name) for name in names],
        issued=[facts.issued(name, digest=DIGEST) for name in names],
    )
    return store


async def test_all_that_is_asked_inside_one_moment_sees_the_same_store(published: Store, reader: Reader) -> None:
    with reader.moment():
        before = reader.overview(now=NOW)
        await facts.publish(published, clients=[facts.client_row("web-6")], backups=[], issued=[])
        assert reader.overview(now=NOW) == before
        assert len(reader.clients(now=NOW).items) == before.clients == 5
    assert reader.overview(now=NOW).clients == 6


async def test_a_moment_that_breaks_is_over(published: Store, reader: Reader) -> None:
    with pytest.raises(InvalidQuery), reader.moment():
        reader.clients(after="no cursor\x00", now=NOW, wanted=ClientFilter(labels={"no key": ""}))
    await facts.publish(published, clients=[facts.client_row("web-6")], backups=[], issued=[])
    assert reader.overview(now=NOW).clients == 6


def state(**fields: Any) -> StateReport:
    defaults: dict[str, Any] = {"at": NOW, "digest": DIGEST, "generation": 1, "expires": later(days=90)}
    return StateReport(**(defaults | fields))


def all_of(ask: Any, **arguments: Any) -> list[Any]:
    """Follow the cursors to the end, two at a time."""
    found: list[Any] = []
    cursor = ""
    word = "before" if ask.__name__ in {"runs", "events", "revisions", "archives"} else "after"
    while True:
        page: Page[Any] = ask(**arguments, limit=2, **{word: cursor})
        found += page.items
        cursor = page.next
        if not cursor:
            return found


# --- Overview ---------------------------------------------------------------------------------------------------------


async def test_an_empty_store_has_an_overview(store, reader):
    overview = reader.overview(now=NOW)

    assert (overview.clients, overview.backups, overview.attention) == (0, 0, ())


async def test_the_overview_counts_and_names_what_needs_a_person_first(published, reader):
    drift = Drift(kind=DriftKind.CHANGED, subject="/etc/x", message="/etc/x was edited", detected=NOW)
    refusal = Refusal(code="policy", message="commands are not allowed", hint="allow it", generation=1)
    await facts.ingest(published, state(), facts.archives(NOW), client="web-1")
    await facts.ingest(published, state(drift=(drift,)), facts.archives(later(hours=-30)), client="web-2")
    await facts.ingest(published, state(digest=None, refusal=refusal), facts.started("b" * 32), client="web-3")
    await published.connected(client="web-1", public_key=facts.key_of("web-1"), address="", now=NOW)
    hold = Hold(revision="abcdef", reason="HistoryRewritten", message="not a descendant", since=NOW)
    await published.set_source(SourceStatus(head="abcdef", hold=hold))
    await published.upsert_pending(
        public_key="new", name="web-1", address="::1", config_directory="", state_directory="", now=NOW
    )

    overview = reader.overview(now=NOW)

    assert (overview.clients, overview.connected, overview.drifted) == (5, 1, 1)
    assert overview.following == {"current": 2, "refused": 1, "unknown": 2}
    counts = (overview.backups, overview.protected, overview.unprotected, overview.unknown, overview.running)
    assert counts == (5, 1, 1, 3, 1)
    assert [(one.level, one.subject) for one in overview.attention] == [
        ("critical", "source"),
        ("critical", "backup/web-2/files"),
        ("critical", "client/web-3"),
        ("critical", "client/web-1"),
        ("warning", "client/web-2"),
    ]
    assert all(one.fix for one in overview.attention)


async def test_a_backup_that_failed_needs_a_person_before_it_is_overdue(published, reader):
    await facts.ingest(
        published, facts.archives(NOW), facts.started("a" * 32), facts.finished("a" * 32, outcome=Outcome.FAILED)
    )

    def failed() -> list[tuple[str, str]]:
        return [(one.level, one.subject) for one in reader.overview(now=NOW).attention if "failed" in one.message]

    assert failed() == [("warning", "backup/web-1/files")]

    await facts.ingest(published, facts.started("b" * 32, at=later(hours=1)), facts.finished("b" * 32), first=4)
    assert failed() == []


async def test_time_alone_makes_a_backup_overdue(published, reader):
    await facts.ingest(published, facts.archives(NOW))

    assert reader.overview(now=later(hours=26)).unprotected == 0
    assert reader.overview(now=later(hours=26, seconds=1)).unprotected == 5


async def test_what_is_suspended_by_command_is_not_overdue(published, reader):
    await published.set_suspended("client/web-1", actor="root")
    await published.set_suspended("backup/web-2/files", actor="root")

    overview = reader.overview(now=later(days=9))
    shown = reader.backup(client="web-1", backup="files", now=later(days=9))

    assert (overview.unprotected, overview.unknown) == (3, 2)
    assert shown is not None
    assert (shown.suspended, shown.conditions[0].reason) == (True, "Suspended")


# --- Judged alike in SQL and in Python --------------------------------------------------------------------------------

hours = st.integers(-60, 2)
digests = st.sampled_from(["", DIGEST, "sha256:" + "2" * 64])


@settings(max_examples=30)
@given(
    issued=st.booleans(),
    digest=digests,
    refused=st.sampled_from([0, 4, 5, 6]),
    stale=st.booleans(),
    expires=st.none() | hours,
)
async def test_following_in_sql_is_following_in_python(tmp_path_factory, *, issued, digest, refused, stale, expires):
    path = tmp_path_factory.mktemp("store") / "director.db"
    until = None if expires is None else later(hours=expires)
    async with await Store.open(path) as store:
        states = [facts.issued(generation=5, digest=DIGEST)] if issued else []
        await facts.publish(store, clients=[facts.client_row()], issued=states)
        refusal = Refusal(code="x", message="y", generation=refused) if refused else None
        await facts.ingest(store, state(digest=digest or None, refusal=refusal, stale=stale, expires=until))
        reader = Reader(path)
        shown = reader.client("web-1", now=NOW)
        reader.close()

    expected = assessment.following(
        desired_digest=DIGEST if issued else "",
        desired_generation=5,
        applied_digest=digest,
        refused=refused,
        stale=stale,
        expires=until,
        now=NOW,
    )
    assert shown is not None
    assert shown.following is expected


@settings(max_examples=30)
@given(
    newest=st.lists(st.none() | hours, min_size=1, max_size=3),
    rpo=st.none() | st.integers(1, 50),
    suspended=st.booleans(),
    declared=st.integers(-60, 0),
)
async def test_protected_in_sql_is_protected_in_python(tmp_path_factory, newest, rpo, suspended, declared):
    path = tmp_path_factory.mktemp("store") / "director.db"
    repositories = tuple(facts.repository(f"r{number}", f"/r{number}") for number in range(len(newest)))
    seconds = None if rpo is None else rpo * 3600
    row = facts.backup_row(rpo=seconds, suspended=suspended, repositories=repositories)
    async with await Store.open(path) as store:
        await facts.publish(store, clients=[facts.client_row()], backups=[row], at=later(hours=declared))
        for number, hour in enumerate(newest):
            starts = [] if hour is None else [later(hours=hour)]
            await facts.ingest(store, facts.archives(*starts, repository=f"r{number}"), first=number + 1)
        reader = Reader(path)
        [shown] = reader.backups(now=NOW).items
        overview = reader.overview(now=NOW)
        reader.close()

    [condition] = shown.conditions
    expected = {"True": "protected", "False": "unprotected", "Unknown": "unknown"}[condition.status]
    if condition.reason == "NoObjective":
        expected = "without_objective"
    assert getattr(overview, expected) == 1


# --- Clients ----------------------------------------------------------------------------------------------------------


async def test_clients_are_filtered_and_paged_by_name(published, reader):
    await facts.ingest(published, state(), client="web-2")

    names = [client.name for client in all_of(reader.clients, now=NOW)]

    def named(**fields: Any) -> list[str]:
        return [client.name for client in reader.clients(ClientFilter(**fields), now=NOW).items]

    assert names == ["web-1", "web-2", "web-3", "web-4", "web-5"]
    assert named(text="b-3") == ["web-3"]
    assert named(text="%") == []
    assert named(text="_") == []
    assert named(labels={"role": "web", "a.b/c": "web-4"}) == ["web-4"]
    assert named(labels={"role": "db"}) == []
    assert named(following=Following.CURRENT) == ["web-2"]
    assert named(phase=Phase.REVOKED) == []
    assert named(connected=True) == []
    assert named(drifted=True) == []
    with pytest.raises(InvalidQuery, match="not the key of a label"):
        named(labels={'x"]': "y"})


async def test_the_life_of_a_client(published, reader):
    await facts.publish(published, clients=[facts.client_row("new", public_key="")])
    await published.approve(public_key="by-command", name="extra", by="operator:root", at=NOW)
    await published.revoke(public_key=facts.key_of("web-1"), name="web-1", by="operator:root", at=NOW)

    found = {client.name: client for client in reader.clients(now=NOW).items}

    assert {name: client.phase.value for name, client in found.items() if name[:3] != "web" or name == "web-1"} == {
        "extra": "approved",
        "new": "pending",
        "web-1": "revoked",
    }
    assert (found["extra"].in_source, found["extra"].approved_by) == (False, "operator:root")
    assert (found["web-2"].in_source, found["web-2"].approved_by) == (True, "commit")


async def test_one_client_with_all_that_is_known_of_it(published, reader):
    await facts.ingest(published, state(jobs=(JobState(backup="files", next_due=later(hours=9)),)))
    await published.connected(client="web-1", public_key=facts.key_of("web-1"), address="192.0.2.1", now=NOW)

    client = reader.client("web-1", now=NOW)
    content = reader.content("web-1")

    assert client is not None
    assert content is not None
    assert (client.connected, client.address, client.desired_digest, client.backups) == (True, "192.0.2.1", DIGEST, 1)
    assert [condition.type.value for condition in client.conditions] == ["Connected", "Drifted"]
    assert content.client == "web-1"
    assert reader.client("nobody", now=NOW) is None
    assert reader.content("nobody") is None
    assert reader.state("nobody") is None


async def test_a_report_of_another_version_hides_no_client(published, reader, path):
    await facts.ingest(published, state())
    connection = sqlite3.connect(path)
    connection.execute("""UPDATE observed SET state = '{"at": "yesterday"}'""")
    connection.commit()
    connection.close()

    assert len(reader.clients(now=NOW).items) == 5
    assert reader.state("web-1") is None


async def test_a_waiting_key_is_a_conflict_when_its_name_is_taken(published, reader):
    for key, name in (("a", "web-1"), ("b", "fresh"), (facts.key_of("web-2"), "web-2")):
        await published.upsert_pending(
            public_key=key, name=name, address="::1", config_directory="/c", state_directory="/s", now=NOW
        )

    assert {one.name: one.conflict for one in reader.pending()} == {"web-1": True, "fresh": False, "web-2": False}


@pytest.mark.parametrize("key", ["", "bd1-client.x", "ü"])
def test_a_fingerprint_is_what_the_envelope_says(key):
    assert fingerprint(key) == (schema.envelope.fingerprint(key) if key else "")


# --- Backups, repositories, archives ----------------------------------------------------------------------------------


async def test_backups_are_filtered_and_paged(published, reader):
    await facts.ingest(published, facts.started(), facts.finished(), facts.archives(NOW))

    keys = [(one.client, one.backup) for one in all_of(reader.backups, now=NOW)]
    [protected] = reader.backups(BackupFilter(state="protected"), now=NOW).items

    assert keys == [(f"web-{number}", "files") for number in range(1, 6)]
    assert (protected.client, protected.last_run.id, protected.evidence[0].archives) == ("web-1", RUN, 1)
    assert protected.rpo == facts.RPO
    assert len(reader.backups(BackupFilter(backup="files", repository="nas"), now=NOW).items) == 5
    assert reader.backups(BackupFilter(running=True), now=NOW).items == ()
    assert reader.backup(client="web-1", backup="nothing", now=NOW) is None


async def test_a_run_that_another_client_claims_is_not_shown_as_its_own(published, reader):
    await facts.ingest(published, facts.started(), facts.finished())
    connection = sqlite3.connect(reader._database._path)
    connection.execute("UPDATE backups SET last_run = ? WHERE client = 'web-2'", [RUN])
    connection.commit()
    connection.close()

    shown = reader.backup(client="web-2", backup="files", now=NOW)
    assert shown is not None
    assert shown.last_run is None


async def test_a_repository_is_one_url_with_all_its_users(published, reader):
    huge = facts.statistics(repository_size=2**63 - 1)
    for number in range(1, 6):
        seen = facts.archives(later(hours=-number), count=2**63 - 1, at=later(hours=-number))
        await facts.ingest(
            published, facts.finished(f"{number:032x}", statistics=(huge,)), seen, client=f"web-{number}"
        )
    own = facts.backup_row("web-1", "own", repositories=(facts.repository("own", "/own"),))
    await facts.publish(published, backups=[own])

    found = all_of(reader.repositories)

    assert [(one.name, one.url, len(one.users)) for one in found] == [("nas", "/mnt/nas", 5), ("own", "/own", 1)]
    assert (found[0].newest, found[0].available, found[0].encryption) == (later(hours=-1), True, "repokey-blake2")
    assert found[0].size == 2**63 - 1
    assert reader.repositories(name="nas", url="/mnt/nas").items == (found[0],)


async def test_archives_are_newest_first_over_all_clients(published, reader):
    for number in (1, 2):
        await facts.ingest(
            published, facts.archives(later(hours=-number), later(hours=-9), NOW), client=f"web-{number}"
        )

    found = all_of(reader.archives)

    assert [one.start for one in found] == [
        NOW,
        NOW,
        later(hours=-1),
        later(hours=-2),
        later(hours=-9),
        later(hours=-9),
    ]
    assert len(set(found)) == 6
    assert len(all_of(reader.archives, client="web-1", backup="files", repository="nas")) == 3
    named = {"client": "web-1", "backup": "files", "repository": "nas"}
    assert reader.archive(**named, archive="archive-2026-11-23") is not None
    assert reader.archive(**named, archive=found[0].id) is not None
    assert reader.archive(**named, archive="nothing") is None


async def test_sizes_over_time_are_oldest_first(published, reader):
    for number in range(3):
        report = facts.finished(f"{number:032x}", at=later(hours=number), statistics=(facts.statistics(),))
        await facts.ingest(published, report, first=number + 1, at=later(hours=number))

    found = reader.samples(client="web-1", backup="files", since=later(hours=1))

    assert [one.at for one in found] == [later(hours=1), later(hours=2)]


# --- Runs -------------------------------------------------------------------------------------------------------------


async def test_runs_that_share_a_moment_are_all_found(published, reader):
    for number in range(7):
        outcome = Outcome.FAILED if number % 2 else Outcome.SUCCEEDED
        run = f"{number:032x}"
        await facts.ingest(published, facts.started(run), facts.finished(run, outcome=outcome), first=number * 2 + 1)
    await facts.ingest(published, facts.started("f" * 32, at=later(hours=-1)), client="web-2")

    found = all_of(reader.runs)

    def ids(**fields: Any) -> list[str]:
        return [run.id for run in reader.runs(RunFilter(**fields)).items]

    assert [run.id for run in found] == [*(f"{number:032x}" for number in reversed(range(7))), "f" * 32]
    assert len(ids(outcome=Outcome.FAILED)) == 3
    assert ids(outcome="running") == ["f" * 32]
    assert ids(client="web-2", backup="files") == ["f" * 32]
    assert reader.run("0" * 32) is not None
    assert reader.run("nothing") is None


async def test_a_log_is_read_in_parts_by_level_and_by_text(published, reader):
    lines = tuple(
        LogLine(at=NOW, level="error" if number == 3 else "info", message=f"100%_{number}") for number in range(5)
    )
    await facts.ingest(published, facts.started(), RunLog(run=RUN, first=0, lines=lines))

    first = reader.run_log(RUN, limit=3)
    rest = reader.run_log(RUN, limit=3, after=int(first.next))

    assert [line.number for line in (*first.items, *rest.items)] == [0, 1, 2, 3, 4]
    assert rest.next == ""
    assert [line.number for line in reader.run_log(RUN, level="warning").items] == [3]
    assert [line.number for line in reader.run_log(RUN, text="%_4").items] == [4]


# --- Source, events, tokens, lockouts ---------------------------------------------------------------------------------


async def test_revisions_events_and_tokens(store, reader):
    for number in range(5):
        status = RevisionStatus(revision=f"{number}" * 40, seen=NOW, outcome="published")
        await store.record_revision(status, problems=[Problem(code="x", message="y")])
        await store.event(reason=f"R{number}", message="", client="web-1" if number else "", at=NOW)
    await store.create_token(TokenStatus(id="t", created=NOW, expires=NOW, uses_left=1), token_hash="secret-hash")

    assert [one.revision[0] for one in all_of(reader.revisions)] == ["4", "3", "2", "1", "0"]
    found = reader.revision("3" * 7)
    assert found is not None
    assert (found[0].revision, found[1][0].code) == ("3" * 40, "x")
    assert reader.revision("3") is None
    assert [one.reason for one in all_of(reader.events, wanted=EventFilter(client="web-1"))] == ["R4", "R3", "R2", "R1"]
    assert [one.id for one in reader.tokens()] == ["t"]
    assert "secret-hash" not in repr(reader.tokens())
    assert reader.lockouts(now=NOW) == ()


async def test_events_are_in_the_order_in_which_they_happened_and_found_by_who_what_and_when(store, reader):
    late, early = NOW, NOW - timedelta(days=2)
    await store.event(reason="B", message="told last", actor="operator:ada", client="web-1", at=late)
    await store.event(reason="A", message="told later, happened before", actor="client:web-1", client="web-1", at=early)
    await store.event(reason="A", message="", actor="director", at=early)

    def reasons(**wanted: Any) -> list[str]:
        return [one.message for one in all_of(reader.events, wanted=EventFilter(**wanted))]

    assert reasons() == ["told last", "", "told later, happened before"]
    assert reasons(reason="A", client="web-1") == ["told later, happened before"]
    assert reasons(actor="operator:ada") == ["told last"]
    assert reasons(since=late) == ["told last"]
    assert reasons(until=late) == ["", "told later, happened before"]
    assert reasons(since=late, until=late) == []
    assert [tuple(one) for one in reader.reasons()] == [("A", 2), ("B", 1)]


async def test_facets_and_facts_of_an_empty_store_are_empty(store, reader):
    assert (reader.labels(), reader.reasons()) == ((), ())
    assert (reader.facts().oldest_run, reader.facts().oldest_event) == (None, None)
    assert reader.facts().size > 0
    assert reader.known_revisions(["", "x"]) == frozenset()


async def test_labels_are_counted_and_names_that_are_near_found(published, reader):
    facets = reader.labels()

    assert all(one.number >= 1 and "=" in one.value for one in facets)
    assert set(reader.neighbours("client", "web-0")) <= {one.name for one in reader.clients(now=NOW).items}


@pytest.mark.parametrize("cursor", ["~", "x~y", "2026-11-23~a", "9" * 40, "a\0b", "0001-01-01T00:00:00+23:00~a"])
async def test_a_cursor_that_makes_no_sense_is_refused(store, reader, cursor):
    with pytest.raises(InvalidQuery):
        reader.runs(before=cursor)


@pytest.mark.parametrize("limit", [0, -1, 501])
async def test_a_limit_that_makes_no_sense_is_refused(store, reader, limit):
    with pytest.raises(InvalidQuery, match="limit is 1 to 500"):
        reader.runs(limit=limit)


# --- The file ---------------------------------------------------------------------------------------------------------


async def test_nothing_can_be_written(store, reader):
    with reader._database.read() as connection, pytest.raises(sqlalchemy.exc.OperationalError, match="readonly"):
        connection.exec_driver_sql("DELETE FROM clients")


def test_a_missing_store_says_who_makes_it(reader):
    with pytest.raises(StoreUnavailable, match="No such file") as caught:
        reader.check()

    assert "first start" in caught.value.hint


def test_what_is_no_store_is_said_to_be_none(path, reader):
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreUnavailable, match="damaged or no store"):
        reader.check()
    path.write_bytes(b"")
    with pytest.raises(StoreUnavailable, match="it is empty"):
        reader.check()


@pytest.mark.parametrize(
    ("version", "age", "hint"), [("9999", "newer", "restart the dashboard"), ("0001", "older", "it migrates the store")]
)
@pytest.mark.usefixtures("store")
async def test_a_store_of_another_version_is_not_read(reader, path, version, age, hint):
    reader.check()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
    connection.commit()
    connection.close()

    with pytest.raises(StoreUnavailable, match=f"it is {age} than this program: its schema is '{version}'") as caught:
        reader.check()

    assert hint in caught.value.hint


async def test_a_store_made_anew_at_the_same_path_is_followed(path, reader):
    async with await Store.open(path) as old:
        await facts.publish(old, clients=[facts.client_row()])
    assert reader.overview(now=NOW).clients == 1
    for file in path.parent.iterdir():
        file.unlink()

    await (await Store.open(path)).close()

    assert reader.overview(now=NOW).clients == 0


async def test_reading_goes_on_while_the_store_is_written(published, reader):
    async def read() -> None:
        for _ in range(20):
            assert (await asyncio.to_thread(reader.overview, now=NOW)).clients == 5

    writing = [facts.ingest(published, facts.archives(NOW), client=f"web-{number}") for number in range(1, 6)]
    await asyncio.gather(read(), read(), *writing)


# --- No page walks through history ------------------------------------------------------------------------------------

BIG = {"runs", "run_logs", "samples", "events", "archives"}


async def test_no_question_scans_or_sorts_history(published, reader):
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    sqlalchemy.event.listen(reader._database._engine, "before_cursor_execute", note)
    reader.overview(now=NOW)
    cursor: Any = "2026-11-23T18:00:00.000000Z~a"
    for wanted in (
        RunFilter(),
        RunFilter(client="web-1"),
        RunFilter(backup="files"),
        RunFilter(outcome=Outcome.FAILED),
        RunFilter(outcome="running"),
        RunFilter(client="web-1", backup="files"),
    ):
        reader.runs(wanted)
        reader.runs(wanted, before=cursor)
    reader.run(RUN)
    reader.run_log(RUN, after=5, level="error", text="x")
    for fields in ({}, {"client": "a"}, {"backup": "a"}, {"repository": "a"}):
        reader.archives(**fields)
        reader.archives(**fields, before=f"{cursor}~b~c~d")
    reader.events()
    for events in (EventFilter(client="a"), EventFilter(reason="a"), EventFilter(actor="a", since=NOW, until=NOW)):
        reader.events(events)
        reader.events(events, before="2026-11-23T00:00:00Z~9")
    reader.labels()
    reader.reasons()
    reader.facts()
    reader.former("a", digest="b")
    reader.options("a")
    reader.known_revisions(["a"])
    reader.samples(client="a", backup="b", since=NOW)
    reader.backups(now=NOW)
    reader.repositories()
    reader.clients(now=NOW)

    with reader._database.read() as connection:
        plans = [
            (statement, step[3])
            for statement, parameters in asked
            if statement.startswith("SELECT") and any(f"FROM {table}" in statement for table in BIG)
            for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]

    # A scan by an index is in its order, and ends with the page.
    bad = [(statement, step) for statement, step in plans if step.startswith("SCAN") and "INDEX" not in step]
    bad = [(statement, step) for statement, step in bad if not step.startswith(("SCAN events", "SCAN newest"))]
    sorts = {statement for statement, step in plans if step == "USE TEMP B-TREE FOR ORDER BY"}
    assert bad == []
    # What one client has in its repositories, and the sizes of one backup, are sorted: there is not much of them.
    assert [one for one in sorts if "archives.client = ?" not in one and "samples.backup = ?" not in one] == []
