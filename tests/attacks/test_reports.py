"""What an approved client that lies may report: the real gateway and the real store."""

from __future__ import annotations

import json
from typing import Any

import pytest

from schema import wire
from schema.envelope import ClientIdentity
from schema.wire import RefusalCode
from tests.reconciler.house import EPOCH, House, event, refusal, reports
from tests.reconciler.wire_client import WireClient

AT = "2026-11-23T12:00:00Z"
RUN = "ab" * 16
PATHS = ["../../etc/passwd", "/etc/passwd", "..", "a/b", "a\x00b", "-rf", "con.", "w\u0435b-files", "A", "a\u202eb"]


def started(**changes: Any) -> dict[str, Any]:
    return {"type": "run-started", "at": AT, "run": RUN, "backup": "files", "trigger": "schedule", **changes}


def log(**changes: Any) -> dict[str, Any]:
    line = {"at": AT, "level": "info", "message": "well"}
    return {"type": "run-log", "run": RUN, "first": 0, "lines": [line], **changes}


def finished(**changes: Any) -> dict[str, Any]:
    return {"type": "run-finished", "at": AT, "run": RUN, "backup": "files", "outcome": "succeeded", **changes}


async def told(house: House, me: ClientIdentity, *items: dict[str, Any]) -> WireClient:
    """Report all that, and hear that it was taken; the session is still open."""
    house.commit(web_1=me)
    client = await house.enter(me)
    client.send(reports(*enumerate(items, start=1)))
    assert await client.receive() == {"type": "acknowledged", "epoch": EPOCH, "sequence": len(items)}
    return client


# --- Names that are paths ---


@pytest.mark.parametrize("name", PATHS)
async def test_a_name_that_is_a_path_or_looks_like_another_is_stored_nowhere(house, me, name):
    jobs = [{"backup": name}]
    await told(
        house,
        me,
        started(backup=name),
        finished(backup=name),
        {"type": "archives", "at": AT, "backup": "files", "repository": name, "url": "/x", "available": True},
        {"type": "state", "at": AT, "jobs": jobs},
        {**event(), "backup": name},
        started(run=name),
        event("Told"),
    )

    assert await house.rows("select count(*) from runs") == [(0,)]
    assert [reason for reason in await house.events() if reason in {"Told", "Applied"}] == ["Told"]


async def test_names_that_are_names_are_stored(house, me):
    await told(house, me, started(), log(), finished(), event("Told"))

    assert await house.rows("select id, client, backup, outcome from runs") == [(RUN, "web-1", "files", "succeeded")]
    assert "Told" in await house.events()


# --- Fields without end ---


HUGE = {
    "a message": {**event(), "message": "x" * 100_000},
    "a reason": event("A" * 1_000),
    "a url": {
        "type": "archives",
        "at": AT,
        "backup": "files",
        "repository": "nas",
        "url": "x" * 5_000,
        "available": True,
    },
    "a line": log(lines=[{"at": AT, "level": "info", "message": "x" * 100_000}]),
    "lines": log(lines=[{"at": AT, "level": "info", "message": ""}] * 501),
    "a number of lines": log(first=2**62),
    "a number": finished(log_lines=2**70),
    "an exit code": finished(exit_code=2**40),
    "statistics": finished(statistics=[{"repository": "nas"}] * 101),
    "jobs": {"type": "state", "at": AT, "jobs": [{"backup": "files"}] * 2_001},
    "versions": {"type": "state", "at": AT, "versions": {"borg": "x" * 10_000}},
    "a time": {**event(), "at": "9" * 10_000},
    "nesting": {**event(), "message": json.loads("[" * 90 + "]" * 90)},
}


@pytest.mark.parametrize("report", HUGE.values(), ids=HUGE.keys())
async def test_a_field_without_end_is_not_stored_and_holds_up_nothing(house, me, report):
    client = await told(house, me, report, event("Told"))

    assert await house.rows("select count(*) from runs") == [(0,)]
    assert [reason for reason in await house.events() if reason != "ReportRefused"] == ["Told"]
    assert house.count("reports_refused_total") == 1
    client.send(wire.Pull())
    assert (await client.receive())["type"] == "current"


async def test_fields_as_large_as_they_may_be_are_stored(house, me):
    line = {"at": AT, "level": "info", "message": "x" * 800}
    await told(house, me, started(), log(lines=[line] * 500), finished(log_lines=500), event("A" * 64))

    assert await house.rows("select count(*) from run_logs") == [(500,)]
    assert await house.events() == ["A" * 64]


async def test_more_reports_than_a_frame_may_hold_end_the_session(house, me):
    house.commit(web_1=me)
    client = await house.enter(me)

    client.send(reports(*((number, event()) for number in range(1, wire.MAX_REPORTS + 2))))

    assert (await refusal(client))["code"] == RefusalCode.MALFORMED
    assert await house.events() == []


async def test_as_many_reports_as_a_frame_may_hold_are_stored(house, me):
    await told(house, me, *(event() for _ in range(wire.MAX_REPORTS)))

    assert len(await house.events()) == wire.MAX_REPORTS


# --- Runs of others ---


async def test_the_run_of_another_client_cannot_be_ended_or_written_into(house, me, other):
    house.commit(web_1=me, web_2=other)
    good = await house.enter(other, "web-2")
    good.send(reports((1, started())))
    await good.receive()
    rogue = await house.enter(me)

    rogue.send(reports((1, started(backup="mine")), (2, log()), (3, finished(outcome="failed"))))
    await rogue.receive()

    assert await house.rows("select client, backup, outcome from runs") == [("web-2", "files", None)]
    assert await house.rows("select count(*) from run_logs") == [(0,)]
    assert "ReportRefused" in await house.events()


async def test_a_run_of_ones_own_is_ended_and_written_into(house, me, other):
    house.commit(web_1=me, web_2=other)
    good = await house.enter(other, "web-2")

    good.send(reports((1, started()), (2, log()), (3, finished(outcome="failed"))))
    await good.receive()

    assert await house.rows("select client, backup, outcome from runs") == [("web-2", "files", "failed")]
    assert await house.rows("select count(*) from run_logs") == [(1,)]


# --- Numbers of reports ---


async def test_a_report_with_the_last_number_of_all_hurts_nobody_but_its_sender(house, me, other):
    house.commit(web_1=me, web_2=other)
    rogue, good = await house.enter(me), await house.enter(other, "web-2")
    rogue.send(reports((2**63 - 1, event("Rogue"))))
    assert (await rogue.receive())["sequence"] == 2**63 - 1

    rogue.send(reports((1, event("Later"))))
    assert (await rogue.receive())["sequence"] == 2**63 - 1
    good.send(reports((1, event("Good"))))
    assert (await good.receive())["sequence"] == 1

    assert await house.events() == ["Rogue", "Good"]


async def test_reports_with_rising_numbers_are_all_stored(house, me):
    await told(house, me, event("First"), event("Second"))

    assert await house.events() == ["First", "Second"]


# --- What a client says that it holds ---


async def test_a_client_that_lies_about_what_it_holds_cannot_keep_the_loop_at_work(house, me):
    house.commit(web_1=me)
    await house.issue(me, generation=7)
    client = await house.enter(me)
    for generation in range(8, 28):
        client.send(wire.Pull(generation=generation))
        await client.receive()

    assert house.ahead == [("web-1", 8)]


async def test_each_client_that_is_ahead_is_told_on_and_again_a_minute_later(house, me, other):
    house.commit(web_1=me, web_2=other)
    await house.issue(me, generation=7)
    await house.issue(other, name="web-2", generation=7)
    first, second = await house.enter(me), await house.enter(other, "web-2")
    for client in (first, second):
        client.send(wire.Pull(generation=8))
        await client.receive()
    await house.clock.advance(60)
    first.send(wire.Pull(generation=9))
    await first.receive()

    assert house.ahead == [("web-1", 8), ("web-2", 8), ("web-1", 9)]
