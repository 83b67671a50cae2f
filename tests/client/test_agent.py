"""One client's life: real files, real SQLite, a real WebSocket and real programs, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

from client.agent import Agent
from client.build import build_agent
from client.outbox import Outbox
from client.settings import ClientSettings
from schema.envelope import ClientIdentity, DirectorIdentity
from schema.errors import TerminalError
from schema.wire import Desired, encode
from tests.client.director_stub import desired_state
from tests.client.machine import job, schedule
from tests.client.virtual_clock import START


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
