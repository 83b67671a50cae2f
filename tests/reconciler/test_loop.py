"""The loop with real Git, a real store and a real gateway (that does not listen); only time is virtual."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from reconciler import borgmatic_schema
from reconciler.gateway import Gateway, GatewaySettings
from reconciler.listen import Address
from reconciler.loop import LoopSettings, Reconciler
from reconciler.metrics import Metrics
from reconciler.outcome import Result
from reconciler.source import Source, SourceSettings
from reconciler.store import Store
from schema.assessment import silent_since
from schema.desired import MAX_DESIRED_BYTES, PAYLOAD_TYPE, DesiredState
from schema.envelope import ClientIdentity, DirectorIdentity, open_envelope
from schema.errors import TerminalError, TransientError
from schema.status import ClientChange
from schema.tables import definitions
from tests.git_repository import GitRepository
from web_readonly.reader import Reader

START = datetime(2026, 11, 23, 12, tzinfo=UTC)
KEYS = {name: ClientIdentity.generate().public.text for name in ("web-1", "web-2", "web-3", "web-4")}
SCHEMA = borgmatic_schema.load()

REPOSITORY = """
apiVersion: borgmatic.director/v1
kind: Repository
metadata: {name: nas}
spec: {url: "/srv/${client}", encryption: {mode: none}}
"""


def client(name: str, *, key: bool = True) -> str:
    spec = f"{{publicKey: {KEYS[name]}}}" if key else "{}"
    return f"apiVersion: borgmatic.director/v1\nkind: Client\nmetadata: {{name: {name}}}\nspec: {spec}\n"


def backup(name: str, *clients: str, source: str = "/etc") -> str:
    return f"""
apiVersion: borgmatic.director/v1
kind: Backup
metadata: {{name: {name}}}
spec:
  clients: [{", ".join(clients)}]
  repositories: [nas]
  borgmatic: {{source_directories: [{source}], keep_daily: 7}}
"""


class Time:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.at = START

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return (self.at - START).total_seconds()

    async def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


class World:
    """A Git repository and a director's parts around it."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder = folder
        self.git = GitRepository(folder / "git")
        self.store = store
        self.time = Time()
        self.identity = DirectorIdentity.generate()
        self.settings = LoopSettings()

    async def start(self, **settings: Any) -> Reconciler:
        """Return a reconciler as a starting director makes it from what the store remembers."""
        self.gateway = Gateway(
            identity=self.identity,
            store=self.store,
            clock=self.time,
            settings=GatewaySettings(listen=(Address(path=str(self.folder / "socket")),)),
            metrics=Metrics(),
        )
        return Reconciler(
            source=Source(SourceSettings(url=str(self.git.directory)), state_directory=self.folder / "state"),
            records=self.store,
            gateway=self.gateway,
            identity=self.identity,
            borgmatic_schema=SCHEMA,
            clock=self.time,
            settings=replace(self.settings, **settings),
            remembered=await self.store.source(),
            issued=await self.store.issued_all(),
            acknowledged=await self.store.acknowledged(),
            stored=await self.store.published(),
        )

    async def desired(self, name: str) -> DesiredState:
        """Return what was issued to a client, verified as the client would."""
        issued = (await self.store.issued([name]))[name]
        payload = open_envelope(
            issued.envelope, payload_type=PAYLOAD_TYPE, key=self.identity.public, limit=MAX_DESIRED_BYTES
        )
        return DesiredState.model_validate_json(payload)

    def commit_four(self) -> str:
        return self.git.commit(
            nas=REPOSITORY,
            clients="---\n".join(client(name) for name in KEYS),
            files=backup("files", *KEYS),
            web=backup("web", "web-1", source="/var/www"),
        )


@pytest.fixture
async def world(tmp_path: Path) -> Any:
    async with await Store.open(tmp_path / "store.sqlite") as store:
        yield World(tmp_path, store)


async def condition(world: World, kind: str) -> tuple[str, str]:
    found = next(one for one in await world.store.conditions("source") if one.type == kind)
    return found.status, found.reason


async def test_a_commit_becomes_a_signed_desired_state_for_each_client(world: World) -> None:
    revision = world.commit_four()
    result = await (await world.start()).reconcile()
    assert (result.outcome, result.revision, sorted(result.changed)) == ("published", revision, sorted(KEYS))
    state = await world.desired("web-1")
    assert (state.audience, state.revision) == (KEYS["web-1"], revision)
    assert state.content.digest() == state.digest
    assert [job.backup for job in state.content.jobs] == ["files", "web"]
    assert await condition(world, "Ready") == ("True", "Published")


async def test_a_broken_commit_changes_nothing_and_says_where(world: World) -> None:
    good = world.commit_four()
    loop = await world.start()
    await loop.reconcile()
    before = await world.store.issued_all()
    bad = world.git.commit(web=backup("web", "web-9") + "  schedule: nightly\n")
    result = await loop.reconcile()
    assert result.outcome == "stalled"
    assert {(one.path, one.line > 0) for one in result.problems} == {("web.yaml", True)}
    assert await world.store.issued_all() == before
    status = await world.store.source()
    assert (status.revision, status.head) == (good, bad)
    assert await condition(world, "Stalled") == ("True", "InvalidSource")


async def test_each_pass_says_when_it_was_and_by_when_the_next_is_due(world: World) -> None:
    world.commit_four()
    loop = await world.start()
    await loop.reconcile()
    world.git.commit(web="kind: [")  # also one that finds something wrong
    await loop.reconcile()
    status, now = await world.store.source(), world.time.now()
    assert status.passed == now
    assert status.expected is not None
    assert status.expected >= now + timedelta(seconds=60)
    assert silent_since(status, now=status.expected) is None
    assert silent_since(status, now=status.expected + timedelta(hours=1)) == now


async def test_the_commit_that_mends_it_is_published(world: World) -> None:
    world.commit_four()
    loop = await world.start()
    await loop.reconcile()
    world.git.commit(web="kind: [")
    assert (await loop.reconcile()).outcome == "stalled"
    mended = world.git.commit(web=backup("web", "web-1", source="/srv/www"))
    assert (await loop.reconcile()).changed == ("web-1",)
    assert (await world.store.source()).revision == mended
    assert await condition(world, "Stalled") == ("False", "Progressing")


async def test_a_change_of_one_client_issues_to_that_client_alone(world: World) -> None:
    world.commit_four()
    loop = await world.start()
    await loop.reconcile()
    before = await world.desired("web-2")
    world.git.commit(web=backup("web", "web-1", source="/srv/www"))
    assert (await loop.reconcile()).changed == ("web-1",)
    assert await world.desired("web-2") == before


async def test_a_line_that_moves_is_known_at_once_and_sends_nobody_anything(world: World) -> None:
    world.commit_four()
    loop = await world.start()
    await loop.reconcile()
    before = await world.store.issued_all()
    world.git.commit(files="# a comment\n" + backup("files", *KEYS))

    assert (await loop.reconcile()).changed == ()

    assert await world.store.issued_all() == before
    reader = Reader(world.folder / "store.sqlite")
    shown = reader.backup(client="web-2", backup="files", now=START)
    reader.close()
    assert shown is not None
    assert {one.option: one.place for one in shown.options} == {
        "repositories": "files.yaml:8",
        "repositories.0": "nas.yaml:2",
        "archive_name_format": "",
        "source_directories": "files.yaml:9",
        "source_directories.0": "files.yaml:9",
        "keep_daily": "files.yaml:9",
    }
    assert shown.retention == {"keep_daily": 7}


async def test_a_backup_that_went_is_described_no_more(world: World) -> None:
    world.commit_four()
    await (await world.start()).reconcile()
    (world.git.directory / "web.yaml").unlink()
    world.git.commit()
    await (await world.start()).reconcile()  # also when the director was down meanwhile

    kept = await world.store._read(lambda connection: connection.execute(select(definitions.c.backup)).scalars().all())
    assert kept == ["files"]


async def test_a_revision_keeps_what_it_changed_also_over_a_restart(world: World) -> None:
    world.commit_four()
    loop = await world.start()
    await loop.reconcile()
    revision = world.git.commit(web=backup("web", "web-1", source="/srv/www"))
    await loop.reconcile()
    await (await world.start()).reconcile()

    reader = Reader(world.folder / "store.sqlite")
    shown, _ = reader.revision(revision) or pytest.fail("the revision is not kept")
    listed = reader.revisions().items
    reader.close()
    assert shown.changes == (ClientChange(client="web-1", change="changed", changed=("web",)),)
    assert shown.summary == "backup web changed on web-1"
    assert [one.summary.partition(":")[0] for one in listed] == ["backup web changed on web-1", "clients added"]
    assert [one.changes for one in listed] == [(), ()]


async def test_a_held_revision_says_what_it_would_change(world: World) -> None:
    world.commit_four()
    loop = await world.start()
    await loop.reconcile()
    revision = world.git.commit(files=backup("files", "web-1"))
    assert (await loop.reconcile()).outcome == "held"

    reader = Reader(world.folder / "store.sqlite")
    shown, _ = reader.revision(revision) or pytest.fail("the revision is not kept")
    reader.close()
    assert [(one.client, one.removed) for one in shown.changes] == [
        (name, ("files",)) for name in ("web-2", "web-3", "web-4")
    ]


async def test_problems_are_kept_with_the_lines_around_them(world: World) -> None:
    world.commit_four()
    loop = await world.start()
    await loop.reconcile()
    bad = world.git.commit(web=backup("web", "web-9"))
    await loop.reconcile()

    reader = Reader(world.folder / "store.sqlite")
    _, (problem,) = reader.revision(bad) or pytest.fail("the revision is not kept")
    source = reader.source()
    reader.close()
    assert [(one.number, one.text) for one in problem.excerpt] == [
        (4, "metadata: {name: web}"),
        (5, "spec:"),
        (6, "  clients: [web-9]"),
        (7, "  repositories: [nas]"),
        (8, "  borgmatic: {source_directories: [/etc], keep_daily: 7}"),
    ]
    assert source.problems == (problem,)


async def test_generations_rise_even_when_the_clock_goes_back(world: World) -> None:
    world.commit_four()
    loop = await world.start()
    await loop.reconcile()
    first = (await world.desired("web-1")).generation
    world.time.at -= timedelta(days=400)
    world.git.commit(web=backup("web", "web-1", source="/srv/www"))
    await loop.reconcile()
    assert (await world.desired("web-1")).generation == first + 1


async def test_rewritten_history_is_held_until_a_person_acknowledges_it(world: World) -> None:
    world.git.commit(nas=REPOSITORY)
    published = world.commit_four()
    loop = await world.start()
    await loop.reconcile()
    world.git.git("reset", "--quiet", "--hard", "HEAD~1")
    rewritten = world.git.commit(clients=client("web-1"), files=backup("files", "web-1"))
    result = await loop.reconcile()
    assert (result.outcome, result.reason) == ("held", "HistoryRewritten")
    assert (await world.store.source()).revision == published
    assert (await world.store.source()).hold is not None
    with pytest.raises(TerminalError, match="no held revision"):
        await loop.acknowledge("0000000", actor="operator:test")
    done = await acknowledged(loop, rewritten[:12])
    assert (done.outcome, done.revision) == ("published", rewritten)


async def acknowledged(loop: Reconciler, revision: str) -> Result:
    running = asyncio.create_task(loop.run())
    try:
        return await loop.acknowledge(revision, actor="operator:test")
    finally:
        loop.stop()
        await running


async def test_a_mass_change_is_held_and_a_trailer_lets_it_through(world: World) -> None:
    published = world.commit_four()
    loop = await world.start()
    await loop.reconcile()
    world.git.commit(files=backup("files", "web-1"))
    result = await loop.reconcile()
    assert (result.outcome, result.reason) == ("held", "MassChangeHeld")
    assert "3 of 5" in result.message
    assert (await world.store.source()).revision == published
    meant = world.git.commit("It is meant\n\nDirector-Acknowledge: mass-change")
    assert (await loop.reconcile()).outcome == "published"
    assert (await world.store.source()).revision == meant


async def test_an_emptied_source_is_held(world: World) -> None:
    world.commit_four()
    loop = await world.start()
    await loop.reconcile()
    for name in ("nas", "clients", "files", "web"):
        (world.git.directory / f"{name}.yaml").unlink()
    world.git.commit()
    assert (await loop.reconcile()).reason == "MassChangeHeld"


async def test_dangers_are_held_where_the_settings_say_so(world: World) -> None:
    world.commit_four()
    loop = await world.start(hold_dangers=True)
    await loop.reconcile()
    world.git.commit(web=backup("web", "web-1", source="/var/www").replace("keep_daily: 7", "keep_daily: 3"))
    result = await loop.reconcile()
    assert (result.outcome, result.reason) == ("held", "DangerHeld")
    assert "retention-shortened" in result.message
    world.git.commit("Keep less\n\nDirector-Acknowledge: retention-shortened")
    assert (await loop.reconcile()).outcome == "published"


async def test_a_client_without_an_approved_key_is_issued_nothing_until_it_is_approved(world: World) -> None:
    world.git.commit(nas=REPOSITORY, clients=client("web-1", key=False), files=backup("files", "web-1"))
    loop = await world.start()
    assert (await loop.reconcile()).changed == ()
    await world.store.approve(public_key=KEYS["web-1"], name="web-1", by="operator:test", at=START)
    world.gateway.registry_changed(approvals=await world.store.approvals(), revoked=())
    assert (await loop.reconcile()).changed == ("web-1",)
    assert (await world.desired("web-1")).audience == KEYS["web-1"]


async def test_a_desired_state_is_renewed_when_half_of_its_validity_is_gone(world: World) -> None:
    world.commit_four()
    loop = await world.start(validity=100.0)
    await loop.reconcile()
    first = await world.desired("web-1")
    world.time.at += timedelta(seconds=49)
    assert (await loop.reconcile()).changed == ()
    world.time.at += timedelta(seconds=2)
    assert sorted((await loop.reconcile()).changed) == sorted(KEYS)
    renewed = await world.desired("web-1")
    assert (renewed.digest, renewed.revision) == (first.digest, first.revision)
    assert renewed.expires > first.expires
    assert renewed.generation > first.generation


async def test_what_was_issued_by_a_clock_that_was_ahead_is_issued_anew_once_it_is_right(world: World) -> None:
    world.commit_four()
    loop = await world.start()
    world.time.at += timedelta(days=3)
    await loop.reconcile()
    early = await world.desired("web-1")
    world.time.at -= timedelta(days=3)
    assert sorted((await loop.reconcile()).changed) == sorted(KEYS)
    renewed = await world.desired("web-1")
    assert (renewed.issued, renewed.generation > early.generation) == (world.time.at, True)
    assert (await loop.reconcile()).changed == ()


async def test_a_restarted_director_issues_nothing_anew_and_still_weighs(world: World) -> None:
    world.commit_four()
    await (await world.start()).reconcile()
    before = await world.store.issued_all()
    loop = await world.start()
    assert (await loop.reconcile()).outcome == "unchanged"
    assert await world.store.issued_all() == before
    world.git.commit(files=backup("files", "web-1"))
    assert (await (await world.start()).reconcile()).reason == "MassChangeHeld"


async def test_what_a_director_wrote_before_it_died_is_put_right_by_the_next(world: World) -> None:
    def labels() -> list[tuple[str]]:
        with closing(sqlite3.connect(world.folder / "store.sqlite")) as sql:
            return sql.execute("SELECT labels FROM clients WHERE name = 'web-2'").fetchall()

    world.commit_four()
    await (await world.start()).reconcile()
    former, as_it_was = await world.store.source(), labels()
    world.git.commit(clients="---\n".join(client(name).replace("{name:", "{labels: {a: b}, name:") for name in KEYS))
    await (await world.start()).reconcile()
    assert labels() != as_it_was
    await world.store.set_source(former)  # so it is when the director dies between the two transactions

    world.commit_four()
    await (await world.start()).reconcile()

    assert labels() == as_it_was


async def test_what_was_removed_while_the_director_was_down_is_forgotten(world: World) -> None:
    world.commit_four()
    await (await world.start()).reconcile()
    (world.git.directory / "web.yaml").unlink()
    world.git.commit()
    await (await world.start()).reconcile()
    assert await world.store.published() == (frozenset(KEYS), frozenset((name, "files") for name in KEYS))


async def test_a_suspended_source_publishes_nothing_until_it_is_resumed(world: World) -> None:
    world.commit_four()
    loop = await world.start()
    loop.suspend(suspended=True)
    assert (await loop.reconcile()).outcome == "suspended"
    assert await world.store.issued_all() == {}
    loop.suspend(suspended=False)
    assert (await loop.reconcile()).outcome == "published"


async def test_a_client_that_is_ahead_is_issued_a_still_newer_generation(world: World) -> None:
    world.commit_four()
    loop = await world.start()
    await loop.reconcile()
    ahead = (await world.desired("web-1")).generation + 5_000
    loop.ahead("web-1", ahead)
    assert (await loop.reconcile()).changed == ("web-1",)
    assert (await world.desired("web-1")).generation > ahead
    loop.ahead("web-1", 2**53 - 1)
    assert (await loop.reconcile()).changed == ()


async def test_a_source_that_cannot_be_read_keeps_what_is_published(world: World) -> None:
    revision = world.commit_four()
    loop = await world.start()
    await loop.reconcile()
    world.git.directory.rename(world.folder / "elsewhere")
    result = await loop.reconcile()
    assert result.outcome in {"failed", "stalled"}
    assert (await world.store.source()).revision == revision
    (world.folder / "elsewhere").rename(world.git.directory)
    assert (await loop.reconcile()).ok


async def test_no_secret_is_kept_in_the_revision_s_record(world: World) -> None:
    world.commit_four()
    await (await world.start()).reconcile()
    status = await world.store.source()
    assert "bd1-" not in json.dumps(status.model_dump(mode="json"))


async def test_an_approval_by_commit_ends_the_waiting_and_is_an_event(world: World) -> None:
    world.git.commit(nas=REPOSITORY)
    loop = await world.start()
    await loop.reconcile()
    await world.store.upsert_pending(
        public_key=KEYS["web-1"], name="web-1", address="", config_directory="", state_directory="", now=START
    )
    world.commit_four()
    await loop.reconcile()
    assert await world.store.pending() == []
    reader = Reader(world.folder / "store.sqlite")
    approved = [(one.client, one.actor) for one in reader.events().items if one.reason == "ClientApproved"]
    reader.close()
    assert approved == [("web-1", "git")]


# --- Asking, waiting, stopping ----------------------------------------------------------------------------------------


async def test_whoever_waits_when_the_loop_stops_is_told(world: World) -> None:
    world.commit_four()
    loop = await world.start()
    running = asyncio.create_task(loop.run())
    waiting = [asyncio.ensure_future(loop.reconciled()) for _ in range(3)]
    looking = loop.passed()
    await asyncio.sleep(0)
    loop.stop()
    await running
    async with asyncio.timeout(10):
        ended = await asyncio.gather(*waiting, looking, return_exceptions=True)
    assert all(isinstance(one, (Result, TransientError)) for one in ended)
    with pytest.raises(TransientError, match="the director is stopping"):
        await loop.reconciled()


async def test_a_loop_that_is_cancelled_strands_nobody_and_records_nothing(world: World) -> None:
    world.commit_four()
    loop = await world.start()
    running = asyncio.create_task(loop.run())
    waiting = asyncio.ensure_future(loop.reconciled())
    while not loop._rhythm._asked.is_set():
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    running.cancel()
    async with asyncio.timeout(10):
        await asyncio.wait([running, waiting])
    assert isinstance(waiting.exception(), TransientError)
    assert await world.store.conditions("source") == []


async def test_a_person_who_asks_gets_a_pass_that_began_afterwards(world: World) -> None:
    world.commit_four()
    loop = await world.start()
    running = asyncio.create_task(loop.run())
    first = asyncio.ensure_future(loop.reconciled())
    await asyncio.sleep(0)
    revision = world.git.commit(web=backup("web", "web-1", source="/srv/www"))
    assert (await loop.reconciled()).revision == revision
    assert (await first).ok
    loop.stop()
    await running


async def test_an_acknowledgement_during_a_pass_is_not_overlooked(world: World) -> None:
    world.commit_four()
    loop = await world.start()
    await loop.reconcile()
    held = world.git.commit(files=backup("files", "web-1"))
    assert (await loop.reconcile()).outcome == "held"
    running = asyncio.create_task(loop.run())  # a pass begins, that finds it held still
    await asyncio.sleep(0)
    assert (await loop.acknowledge(held[:12], actor="operator:test")).outcome == "published"
    loop.stop()
    await running


async def test_what_was_judged_is_judged_again_only_for_a_person(world: World) -> None:
    world.commit_four()
    loop = await world.start()
    await loop.reconcile()
    world.git.commit(web="kind: [")
    assert (await loop.reconcile()).outcome == "stalled"
    judged = loop._judged
    assert (await loop.reconcile()).outcome == "stalled"
    assert loop._judged is not None
    assert judged is not None
    assert loop._judged[1].problems is judged[1].problems  # what was found before, not found anew
    loop._judge_anew = True
    assert (await loop.reconcile()).problems == judged[1].problems
    assert loop._judged[1].problems is not judged[1].problems


async def test_a_hold_is_kept_while_the_source_cannot_be_reached(world: World) -> None:
    world.commit_four()
    loop = await world.start()
    await loop.reconcile()
    held = world.git.commit(files=backup("files", "web-1"))
    await loop.reconcile()
    hold = loop.status.hold
    assert hold is not None
    loop.suspend(suspended=True)
    world.time.at += timedelta(hours=1)
    await loop.reconcile()
    assert loop.status.hold == hold
    loop.suspend(suspended=False)
    assert (await loop.reconcile()).outcome == "held"
    assert loop.status.hold == hold  # held since then, not since now
    assert (await acknowledged(loop, held[:12])).ok


async def test_suspended_clients_do_not_grow_stale_and_approved_ones_get_what_is_published(world: World) -> None:
    world.git.commit(
        nas=REPOSITORY,
        clients=client("web-1") + "---\n" + client("web-2", key=False),
        files=backup("files", "web-1", "web-2"),
    )
    await (await world.start(validity=100.0)).reconcile()
    loop = await world.start(validity=100.0)
    world.gateway.set_source_clients(await world.store.committed_keys())  # as a starting director does
    loop.suspend(suspended=True)
    world.time.at += timedelta(seconds=60)
    result = await loop.reconcile()
    assert (result.outcome, result.changed) == ("suspended", ("web-1",))
    await world.store.approve(public_key=KEYS["web-2"], name="web-2", by="operator:test", at=START)
    world.gateway.registry_changed(approvals=await world.store.approvals(), revoked=())
    assert (await loop.reconcile()).changed == ("web-2",)


async def test_a_pass_that_ended_makes_ready_even_when_nothing_could_be_read(world: World) -> None:
    loop = await world.start()
    assert not loop.ready
    assert (await loop.reconcile()).reason == "SourceUnusable"
    assert loop.ready


async def test_a_store_that_takes_nothing_ends_no_loop_and_what_it_missed_is_told_later(world: World) -> None:
    world.commit_four()
    loop = await world.start()
    (world.folder / "store.sqlite").rename(world.folder / "kept.sqlite")
    await world.store.close()
    assert (await loop.reconcile()).outcome == "failed"
    (world.folder / "kept.sqlite").rename(world.folder / "store.sqlite")
    async with await Store.open(world.folder / "store.sqlite") as again:
        loop._records = again
        assert (await loop.reconcile()).outcome == "published"
        assert len(await again.issued_all()) == len(KEYS)


class WatchedTime(Time):
    """Notes how long the loop wants to sleep, and wakes when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: asyncio.Queue[float] = asyncio.Queue()
        self.wake = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.asked.put_nowait(seconds)
        await self.wake.wait()
        self.wake.clear()


async def test_the_timer_is_jittered_and_failures_back_off_up_to_a_limit(world: World) -> None:
    world.commit_four()
    world.time = time = WatchedTime()
    loop = await world.start(interval=100.0)
    running = asyncio.create_task(loop.run())
    async with asyncio.timeout(30):
        waits = set()
        for _ in range(5):
            waits.add(await time.asked.get())
            time.wake.set()
        assert len(waits) > 1
        assert all(90 <= seconds <= 110 for seconds in waits)
        await time.asked.get()
        world.store._broadcast.close()
        await world.store.close()  # from now on everything fails
        loop._judged = None
        for failure in range(12):
            time.wake.set()
            assert 0.1 <= await time.asked.get() <= min(300.0, 2.0 * 2**failure)
        loop.stop()
        await running


async def test_each_pass_is_counted_with_how_it_ended(world: World) -> None:
    world.commit_four()
    passes: list[str] = []
    loop = await world.start()
    loop._on_pass = lambda outcome, seconds: passes.append(f"{outcome} {seconds >= 0}")
    await loop.reconcile()
    world.git.commit(web="kind: [")
    await loop.reconcile()
    assert passes == ["published True", "stalled True"]
