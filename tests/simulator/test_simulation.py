"""The simulator itself: it tells one story for one seed, and it notices when a promise is broken."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from schema.desired import PAYLOAD_TYPE
from schema.envelope import seal_envelope
from tests.simulator.network import Weather
from tests.simulator.oracle import Violation
from tests.simulator.simulation import Outcome, Story, simulate
from tests.simulator.world import World

ROOT = Path(__file__).parent.parent.parent
FRESH = 12
"""A seed whose clients begin to run within minutes."""


def broken(story: Any, seed: int = FRESH) -> Outcome:
    """Return what the oracle says of another story than the usual."""
    return simulate(seed, story, clients=2)


async def begun(world: World) -> Story:
    """Return a fleet that follows its first revision, and runs."""
    world.begin()
    for backup in world.people.backups.values():
        backup.cron, backup.jitter, backup.suspended = "*/2 * * * *", 0, False
    world.people.suspended.clear()
    world.push()
    story = Story(world)
    await story.converge()
    return story


async def look(world: World, story: Story, seconds: float) -> None:
    """Let time pass until somebody objects."""
    await story.until(world.loop.time() + seconds)


def test_the_same_seed_is_the_same_story_in_every_process():
    stories = [
        subprocess.run(
            [sys.executable, "-m", "tests.simulator", "--timeline", "--start", "41"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": number},
            capture_output=True,
            check=True,
        ).stdout
        for number in ("1", "2")
    ]
    assert stories[0] == stories[1]
    assert stories[0].count(b"\n") > 20


def test_a_quiet_life_is_one_that_nobody_objects_to():
    async def story(world: World) -> None:
        await (await begun(world)).recover()

    outcome = broken(story)
    assert outcome.ok, outcome.report()
    assert outcome.executions > 2


def test_it_notices_a_client_that_forgets_how_far_it_came():
    async def story(world: World) -> None:
        following = await begun(world)
        machine = world.fleet.clients["web-1"]
        before = (machine.folder / "var" / "high-water").read_bytes()
        world.people.backups["backup-0"].source += 1
        world.push()
        await following.converge()
        await look(world, following, 1.0)
        (machine.folder / "var" / "high-water").write_bytes(before)
        await look(world, following, 30.0)

    assert "high-water mark fell" in broken(story).violations[-1]


def test_it_notices_a_director_that_issues_a_lower_generation():
    async def story(world: World) -> None:
        following = await begun(world)
        world.oracle.learn()
        told = max(world.oracle.told["web-1"].values(), key=lambda one: one.generation)
        older = told.state.model_copy(update={"generation": told.generation - 1})
        envelope = seal_envelope(older.model_dump_json().encode(), payload_type=PAYLOAD_TYPE, identity=world.identity)
        with closing(sqlite3.connect(world.store)) as sql, sql:
            sql.execute(
                "UPDATE issued SET generation = ?, envelope = ? WHERE client = 'web-1'", (older.generation, envelope)
            )
        world.oracle.learn()
        await look(world, following, 1.0)

    assert "web-1 was issued generation" in broken(story).violations[-1]


def test_it_notices_a_run_of_what_nobody_issued():
    async def story(world: World) -> None:
        following = await begun(world)
        machine = world.fleet.clients["web-1"]
        for _ in range(400):
            file = machine.folder / "etc" / "backup-0.yaml"
            file.write_text(file.read_text().replace("/srv/", "/root/"))
            await look(world, following, 1.0)

    assert any("which no state that was issued to it says" in one for one in broken(story).violations)


def test_it_notices_reports_that_are_lost():
    async def story(world: World) -> None:
        following = await begun(world)
        machine = world.fleet.clients["web-1"]
        while not any(one.machine == "web-1" and one.ended is None for one in world.executions):
            await look(world, following, 0.5)
        world.fleet.director.hold_down(held=True)
        world.cut_power(world.fleet.director)
        await look(world, following, 60.0)
        world.cut_power(machine)
        with closing(sqlite3.connect(machine.folder / "var" / "outbox.sqlite")) as sql, sql:
            sql.execute("DELETE FROM reports")
        await following.recover()

    assert any("has no end" in one or "is in no run" in one or "instead of" in one for one in broken(story).violations)


def test_it_notices_reports_that_are_doubled():
    async def story(world: World) -> None:
        following = await begun(world)
        await look(world, following, 30.0)
        with closing(sqlite3.connect(world.store)) as sql, sql:
            sql.execute(
                "INSERT INTO events (at, reason, actor, client, backup, message, detail)"
                " SELECT at, reason, actor, client, backup, message, detail"
                " FROM events WHERE actor = 'client:web-1' LIMIT 1"
            )
        await following.recover()

    assert any("is stored 2 times" in one for one in broken(story).violations)


def test_it_notices_a_backup_that_does_not_run():
    async def story(world: World) -> None:
        following = await begun(world)
        now = world.fleet.director.clock.now
        since = now()
        world.cut_power(world.fleet.clients["web-1"])
        world.fleet.clients["web-1"].hold_down(held=True)
        await look(world, following, 300.0)
        state = max(world.oracle.told["web-1"].values(), key=lambda one: one.generation).state
        world.oracle.judge_schedule("web-1", state.content.jobs, since=since, until=now())
        await look(world, following, 1.0)

    assert "and did not run" in broken(story).violations[-1]


def test_it_notices_a_client_that_does_not_come_back():
    async def story(world: World) -> None:
        following = await begun(world)
        world.calm()
        world.network.set_weather("web-1", Weather(refused=1.0))
        world.network.cut("web-1", silently=False)
        await look(world, following, 60.0)
        await following.converge()

    assert broken(story).violations[-1] == "after 1800 quiet seconds: web-1 is not connected"


def test_it_notices_a_program_that_spins():
    async def story(world: World) -> None:
        def spin() -> None:
            world.loop.call_soon(spin)

        spin()
        await world.loop.create_future()

    assert broken(story).violations == ["the simulator does not let time pass"]


def test_a_report_says_how_to_replay_it():
    async def story(world: World) -> None:
        world.tell("people", "break something")
        raise Violation("something broke")

    report = broken(story, seed=77).report()
    assert "something broke" in report
    assert "break something" in report
    assert report.endswith("make simulate SEEDS=1 SEED_START=77")


@pytest.mark.parametrize("seed", [3, 4])
def test_nothing_is_left_of_a_world(seed):
    simulate(seed)
    before = {path.resolve() for path in Path("/proc/self/fd").iterdir()}
    simulate(seed)
    assert len({path.resolve() for path in Path("/proc/self/fd").iterdir()}) <= len(before) + 1
