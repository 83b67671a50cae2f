"""One client's life: real files, real SQLite, a real WebSocket and real programs, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from client.agent import Agent
from client.build import build_agent
from client.outbox import Outbox
from client.policy import Policy
from client.settings import ClientSettings
from client.state import Enrolment, StateDirectory
from schema.desired import Content, ManagedFile
from schema.envelope import ClientIdentity, DirectorIdentity
from schema.errors import TerminalError
from schema.resources import Directories
from schema.wire import Desired, encode
from tests.client.director_stub import DirectorStub, desired_state
from tests.client.machine import config, job, schedule
from tests.client.virtual_clock import START, VirtualClock

BORGMATIC = """#!/bin/sh
# Agrees with every configuration; a backup says a line, and takes as long as $HOME/hang exists.
case "$*" in
    *validate*|*--version*|*repo-list*|*info*) exit 0 ;;
esac
echo "$*" >> "$HOME/calls"
echo '{"type": "log_message", "message": "backing up", "levelname": "INFO", "name": "borgmatic"}' >&2
if [ -e "$HOME/hang" ]; then sleep 600 & wait; fi
"""


class Fleet:
    """One director and one machine under ``base``."""

    def __init__(self, base: Path, director: DirectorStub) -> None:
        self.base = base
        self.director = director
        self.clock = VirtualClock()
        program = base / "borgmatic"
        program.write_text(BORGMATIC)
        program.chmod(0o755)
        (base / "etc").mkdir(mode=0o755, exist_ok=True)
        self.settings = ClientSettings(
            name="web-1",
            config_directory=str(base / "etc"),
            state_directory=str(base / "var"),
            borgmatic=str(program),
            policy=Policy(minimum_kept=0),
        )
        self.directory = StateDirectory(base / "var")
        self.directory.prepare()
        self.key = self.directory.identity().public.text
        self.directory.save_enrolment(Enrolment(url=director.url, director=director.identity.public.text))
        self._tasks: list[tuple[Agent, asyncio.Task[None]]] = []

    def content(self, *, options: str = "source_directories:\n  - /etc\nkeep_daily: 7\n", **changes: Any) -> Content:
        file = ManagedFile(
            place="config",
            path="web.yaml",
            origin="backups/web.yaml:1",
            content=config(repository=str(self.base), options=options),
        )
        return Content(
            client="web-1",
            directories=Directories(config=self.settings.config_directory, state=self.settings.state_directory),
            files=(file,),
            jobs=(job("web", url=str(self.base)),),
        ).model_copy(update=changes)

    def envelope(self, content: Content | None = None, **changes: Any) -> bytes:
        return desired_state(self.director.identity, self.key, content=content or self.content(), **changes)

    @property
    def file(self) -> Path:
        return self.base / "etc" / "web.yaml"

    async def start(self) -> Agent:
        agent = build_agent(self.settings, clock=self.clock, random=Random(3))
        running = asyncio.Event()
        task = asyncio.create_task(agent.run(ready=running.set))
        self._tasks.append((agent, task))
        await running.wait()
        return agent

    async def stop(self) -> None:
        for agent, task in self._tasks:
            agent.stop()
            await asyncio.wait_for(task, 20)
        self._tasks.clear()

    def reports(self, kind: str) -> list[dict[str, Any]]:
        found = [report for _, report in sorted(self.director.reports.items(), key=lambda item: item[0][1])]
        return [report for report in found if report["type"] == kind]

    def state(self) -> dict[str, Any]:
        return (self.reports("state") or [{}])[-1]

    def events(self) -> list[str]:
        return [event["reason"] for event in self.reports("event")]

    async def until(self, condition: Callable[[], Any]) -> None:
        await self.director.until(lambda: bool(condition()))

    async def until_scheduled(self) -> None:
        """Return when the schedule is made, so that the clock may move on."""
        await self.until(lambda: self.state().get("jobs") and self.state()["jobs"][0]["next_due"])

    async def until_run(self) -> None:
        """Let half an hour pass, and ticks more for a schedule that was busy when its moment came."""
        await self.clock.advance(1800)
        async with asyncio.timeout(20):
            while not self.reports("run-started"):
                await asyncio.sleep(0.1)
                await self.clock.advance(15)

    async def until_following(self, generation: int = 100) -> None:
        await self.until(lambda: self.state().get("generation") == generation)


@pytest.fixture
async def fleet(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    async with DirectorStub() as director:
        one = Fleet(tmp_path, director)
        yield one
        await one.stop()


async def test_a_desired_state_is_applied_and_reported(fleet):
    content = fleet.content()
    fleet.director.envelope = fleet.envelope(content)
    await fleet.start()

    await fleet.until_following()

    assert fleet.file.read_bytes() == content.files[0].rendered("a" * 40)
    state = fleet.state()
    assert (state["revision"], state["digest"], state["refusal"]) == ("a" * 40, content.digest(), None)
    assert "Applied" in fleet.events()


async def test_a_state_that_local_policy_denies_changes_nothing_and_says_which_line_allows_it(fleet):
    fleet.director.envelope = fleet.envelope()
    await fleet.start()
    await fleet.until_following()
    before = fleet.file.read_bytes()

    denied = fleet.content(options="source_directories:\n  - /etc\ncommands:\n  - before: action\n    run: [id]\n")
    await fleet.director.push(encode(Desired(envelope=fleet.envelope(denied, generation=101).decode())))

    await fleet.until(lambda: fleet.state()["refusal"])
    refusal = fleet.state()["refusal"]
    assert (refusal["code"], refusal["generation"]) == ("PolicyDenied", 101)
    assert "client.toml" in refusal["hint"]
    assert fleet.state()["generation"] == 100
    assert fleet.file.read_bytes() == before


@pytest.mark.parametrize("kind", ["another client", "another director", "older", "altered", "truncated", "same"])
async def test_a_state_that_is_not_to_be_believed_changes_nothing_and_is_reported(fleet, kind):
    fleet.director.envelope = fleet.envelope()
    await fleet.start()
    await fleet.until_following()
    before = fleet.file.read_bytes()
    other = fleet.content(options="source_directories:\n  - /root\nkeep_daily: 7\n")
    good = fleet.envelope(other, generation=101)
    envelopes = {
        "another client": desired_state(
            fleet.director.identity, ClientIdentity.generate().public.text, content=other, generation=101
        ),
        "another director": desired_state(DirectorIdentity.generate(), fleet.key, content=other, generation=101),
        "older": fleet.envelope(other, generation=99),
        "altered": good.replace(b'"payload":"e', b'"payload":"f'),
        "truncated": good[:-20],
        "same": fleet.envelope(other, generation=100),
    }

    await fleet.director.push(encode(Desired(envelope=envelopes[kind].decode())))

    await fleet.until(lambda: fleet.state()["refusal"])
    assert fleet.state()["generation"] == 100
    assert fleet.file.read_bytes() == before


async def test_a_backup_runs_when_it_is_due_and_its_reports_arrive(fleet):
    content = fleet.content(jobs=(job("web", url=str(fleet.base), schedule=schedule("30 12 * * *")),))
    fleet.director.envelope = fleet.envelope(content)
    await fleet.start()
    await fleet.until_scheduled()

    await fleet.until_run()
    await fleet.until(lambda: fleet.reports("run-finished"))

    started, finished = fleet.reports("run-started"), fleet.reports("run-finished")
    assert [(one["trigger"], one["due"]) for one in started] == [("schedule", "2026-11-23T12:30:00Z")]
    assert [(one["outcome"], one["run"]) for one in finished] == [("succeeded", started[0]["run"])]
    assert "backing up" in [line["message"] for log in fleet.reports("run-log") for line in log["lines"]]
    await fleet.until(lambda: fleet.reports("archives"))


async def test_backups_go_on_without_a_director_and_after_a_restart(fleet):
    content = fleet.content(jobs=(job("web", url=str(fleet.base), schedule=schedule("30 12 * * *")),))
    fleet.director.envelope = fleet.envelope(content)
    await fleet.start()
    await fleet.until_scheduled()
    await fleet.stop()
    enrolment = fleet.directory.enrolment()
    fleet.directory.save_enrolment(enrolment.model_copy(update={"url": f"unix://{fleet.base}/nobody.sock"}))

    agent = await fleet.start()
    while not agent._starts:
        await asyncio.sleep(0)
    await fleet.clock.advance(1800)
    await has_report(agent, "run-finished")


async def test_a_moment_that_was_missed_while_stopped_is_caught_up_once(fleet):
    content = fleet.content(jobs=(job("web", url=str(fleet.base), schedule=schedule("30 12 * * *")),))
    fleet.director.envelope = fleet.envelope(content)
    await fleet.start()
    await fleet.until_scheduled()
    await fleet.stop()

    await fleet.clock.advance(3 * 86_400 + 3600)
    await fleet.start()
    await fleet.until(lambda: fleet.reports("run-finished"))
    await fleet.stop()
    await fleet.start()
    await fleet.clock.advance(60)

    assert [one["trigger"] for one in fleet.reports("run-started")] == ["catch-up"]


async def test_a_suspended_client_runs_nothing(fleet):
    jobs = (job("web", url=str(fleet.base), schedule=schedule("* * * * *")),)
    fleet.director.envelope = fleet.envelope(fleet.content(jobs=jobs, suspend=True))
    await fleet.start()
    await fleet.until_following()

    await fleet.clock.advance(3600)

    assert not (fleet.base / "calls").exists()
    assert fleet.state()["jobs"][0]["next_due"] is None


async def test_a_run_whose_process_died_is_reported_as_lost_once(fleet):
    outbox = Outbox(fleet.directory.outbox, now=fleet.clock.now)
    note = json.dumps({"backup": "web", "process": "4194304 1"})
    await outbox.append(notes={f"running.{'d' * 32}": note})
    outbox.close()

    await fleet.start()
    await fleet.until(lambda: fleet.reports("run-finished"))
    await fleet.stop()
    await fleet.start()
    await fleet.until(lambda: len(fleet.director._open) == 1)
    await fleet.stop()

    assert [(one["run"], one["outcome"]) for one in fleet.reports("run-finished")] == [("d" * 32, "lost")]


async def test_an_edited_file_is_healed_within_a_tick_and_told(fleet):
    fleet.director.envelope = fleet.envelope()
    await fleet.start()
    await fleet.until_following()
    right = fleet.file.read_bytes()
    fleet.file.write_text("edited by hand")

    await fleet.clock.advance(20)
    await fleet.until(lambda: "Healed" in fleet.events())

    assert fleet.file.read_bytes() == right
    (healed,) = (event for event in fleet.reports("event") if event["reason"] == "Healed")
    assert "+edited by hand" in healed["detail"]


async def test_an_edited_file_is_only_reported_where_that_is_wanted(fleet):
    jobs = (job("web", url=str(fleet.base), drift="report"),)
    fleet.director.envelope = fleet.envelope(fleet.content(jobs=jobs))
    await fleet.start()
    await fleet.until_following()
    fleet.file.write_text("edited by hand")

    await fleet.clock.advance(20)
    await fleet.until(lambda: fleet.state()["drift"])

    assert fleet.file.read_text() == "edited by hand"
    assert [(one["kind"], one["healed"]) for one in fleet.state()["drift"]] == [("changed", False)]


async def test_a_jump_of_the_clock_is_told_and_runs_nothing_twice(fleet):
    content = fleet.content(jobs=(job("web", url=str(fleet.base), schedule=schedule("30 12 * * *")),))
    fleet.director.envelope = fleet.envelope(content)
    await fleet.start()
    await fleet.until_scheduled()
    await fleet.clock.advance(1800)
    await fleet.until(lambda: fleet.reports("run-finished"))

    fleet.clock.jump(-3600)
    await fleet.clock.advance(7200)
    await fleet.until(lambda: "ClockJumped" in fleet.events())

    assert len(fleet.reports("run-started")) == 1


async def test_a_stop_cancels_a_running_backup_and_the_director_hears_of_it(fleet):
    (fleet.base / "hang").touch()
    content = fleet.content(jobs=(job("web", url=str(fleet.base), schedule=schedule("30 12 * * *")),))
    fleet.director.envelope = fleet.envelope(content)
    await fleet.start()
    await fleet.until_scheduled()
    await fleet.until_run()

    await fleet.stop()

    assert [one["outcome"] for one in fleet.reports("run-finished")] == ["cancelled"]
    assert fleet.state()["jobs"][0]["running"] is None


async def test_a_change_during_a_run_is_applied_at_once_and_the_run_goes_on(fleet):
    (fleet.base / "hang").touch()
    jobs = (job("web", url=str(fleet.base), schedule=schedule("30 12 * * *")),)
    fleet.director.envelope = fleet.envelope(fleet.content(jobs=jobs))
    await fleet.start()
    await fleet.until_scheduled()
    await fleet.until_run()

    other = fleet.content(jobs=jobs, options="source_directories:\n  - /root\nkeep_daily: 7\n")
    await fleet.director.push(encode(Desired(envelope=fleet.envelope(other, generation=101).decode())))

    await fleet.until_following(101)
    assert b"/root" in fleet.file.read_bytes()
    assert fleet.state()["jobs"][0]["running"] == fleet.reports("run-started")[0]["run"]
    assert fleet.reports("run-finished") == []


async def test_a_second_agent_on_one_state_directory_is_refused(fleet):
    await fleet.start()

    with pytest.raises(TerminalError, match="another director-client"):
        build_agent(fleet.settings, clock=fleet.clock)


async def test_an_agent_that_is_not_enrolled_says_what_to_do(tmp_path):
    settings = ClientSettings(state_directory=str(tmp_path / "var"))

    with pytest.raises(TerminalError, match="not enrolled") as caught:
        build_agent(settings)
    assert "director-client enroll" in caught.value.hint


async def test_an_accepted_state_that_was_not_yet_applied_is_applied_at_the_next_start(fleet):
    fleet.directory.save_current(fleet.envelope())

    await fleet.start()
    await fleet.until(fleet.file.exists)
    await fleet.until(lambda: "Applied" in fleet.events())

    assert fleet.state()["generation"] == 100


async def test_a_damaged_state_on_disk_is_told_and_replaced_by_the_director_s(fleet):
    fleet.director.envelope = fleet.envelope()
    fleet.directory.save_current(b"rubbish")

    await fleet.start()
    await fleet.until_following()

    assert "Refused" in fleet.events()
    assert fleet.state()["refusal"] is None


async def test_a_high_water_mark_survives_a_restart(fleet):
    fleet.director.envelope = fleet.envelope()
    await fleet.start()
    await fleet.until_following()
    await fleet.stop()
    fleet.director.envelope = fleet.envelope(fleet.content(suspend=True), generation=99)

    await fleet.start()

    await fleet.until(lambda: fleet.state()["refusal"])
    assert fleet.state()["refusal"]["code"] == "older-generation"


async def test_a_renamed_client_asks_again_under_its_new_name(fleet):
    agent = await fleet.start()
    await fleet.until(lambda: fleet.director.sessions == 1 and fleet.reports("state"))
    fleet.director.envelope = fleet.envelope(fleet.content(client="web-2"))
    fleet.director.name = "web-2"
    await fleet.director.push(encode(Desired(envelope=fleet.director.envelope.decode())))
    await until_waiting(agent)
    await fleet.clock.advance(10)

    await fleet.until_following()
    assert fleet.director.sessions == 2


async def test_an_expired_state_is_stale_and_backups_go_on(fleet):
    content = fleet.content(jobs=(job("web", url=str(fleet.base), schedule=schedule("30 12 * * *")),))
    fleet.director.envelope = fleet.envelope(content, expires=START + timedelta(minutes=5))
    await fleet.start()
    await fleet.until_scheduled()

    await fleet.until_run()

    await fleet.until(lambda: fleet.reports("run-finished") and fleet.state()["stale"])
    assert "Stale" in fleet.events()


async def test_a_rebuilt_director_is_told_everything_again(fleet):
    fleet.director.envelope = fleet.envelope()
    agent = await fleet.start()
    await fleet.until_following()
    await fleet.until(lambda: fleet.reports("archives"))
    fleet.director.resend = True
    fleet.director.reports.clear()

    await fleet.director.hang_up()
    await until_waiting(agent)
    await fleet.clock.advance(10)

    await fleet.until(lambda: fleet.state().get("generation") == 100 and fleet.reports("archives"))


LISTS = """#!/bin/sh
# Knows one archive; listing it takes as long as $HOME/hang exists.
case " $* " in
    *" list "*)
        touch "$HOME/listing"
        if [ -e "$HOME/hang" ]; then sleep 600 & wait; fi
        echo '{"type": "-", "path": "etc/hosts", "size": 7, "mtime": "2026-11-23T01:00:00"}' ;;
    *repo-list*)
        echo '[{"repository": {"label": "nas"}, "archives": [{"name": "a", "id": "abababab", "start":'
        echo '"2026-11-23T01:00:00"}]}]' ;;
esac
"""


async def test_the_newest_archive_is_looked_into_and_its_contents_arrive(fleet):
    (fleet.base / "borgmatic").write_text(LISTS)
    fleet.director.envelope = fleet.envelope()

    await fleet.start()

    await fleet.until(lambda: fleet.reports("contents"))
    (told,) = fleet.reports("contents")
    assert (told["archive"]["name"], told["listed"], told["size"]) == ("a", True, 7)
    assert [one["path"] for one in told["directories"]] == ["etc"]


async def test_a_backup_that_comes_due_does_not_wait_until_an_archive_is_listed(fleet):
    (fleet.base / "borgmatic").write_text(LISTS)
    (fleet.base / "hang").touch()
    content = fleet.content(jobs=(job("web", url=str(fleet.base), schedule=schedule("30 12 * * *")),))
    fleet.director.envelope = fleet.envelope(content)
    await fleet.start()
    await fleet.until_scheduled()
    while not (fleet.base / "listing").exists():
        await asyncio.sleep(0.01)

    await fleet.until_run()

    await fleet.until(lambda: fleet.reports("run-finished"))
    assert fleet.reports("contents") == []
    (fleet.base / "hang").unlink()  # it is tried again after the run; what it hangs on by now, the stop ends


async def until_waiting(agent: Agent) -> None:
    """Return when the connection waits before its next attempt."""
    assert agent._connection is not None
    while agent._connection.is_busy:
        await asyncio.sleep(0)


async def has_report(agent: Agent, kind: str) -> None:
    """Return when such a report waits in the outbox."""
    async with asyncio.timeout(20):
        while True:
            batch = await agent._outbox.batch()
            if batch and any(item.report["type"] == kind for item in batch.items):
                return
            await asyncio.sleep(0)
