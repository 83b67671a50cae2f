"""Reports that wait for the store: who sent them is answered meanwhile, and so is everybody else."""

from __future__ import annotations

import asyncio

from schema import wire
from schema.observed import LogLine, RunLog
from tests.reconciler.house import EPOCH
from tests.reconciler.wire_client import PING, PONG, frame


def many_lines(clock, *, sequence: int = 1) -> wire.Reports:
    """Return a frame that is heard in its turn."""
    lines = tuple(LogLine(at=clock.now(), level="info", message="x" * 80) for _ in range(100))
    report = RunLog(run="a" * 32, first=100 * sequence, lines=lines).model_dump(mode="json")
    return wire.Reports(epoch=EPOCH, items=(wire.ReportItem(sequence=sequence, report=report),))


def stalled(house) -> asyncio.Event:
    """Let nothing into the store until the event that is returned."""
    goes_on, ingest = asyncio.Event(), house.store.ingest

    async def wait(**what):
        await goes_on.wait()
        return await ingest(**what)

    house.store.ingest = wait
    return goes_on


async def test_a_heartbeat_is_answered_while_reports_wait_for_the_store(house, me):
    house.commit(web_1=me)
    client = await house.enter(me)
    goes_on = stalled(house)

    client.send(many_lines(house.clock))
    client.send_bytes(frame(b"are you there", opcode=PING))

    assert await client._frame() == (PONG, b"are you there")
    goes_on.set()
    assert (await client.receive())["sequence"] == 1


async def test_what_is_said_behind_large_reports_is_heard_after_them(house, me):
    house.commit(web_1=me)
    client = await house.enter(me)
    goes_on = stalled(house)

    client.send(many_lines(house.clock))
    client.send(many_lines(house.clock, sequence=2))
    client.send(wire.Pull())
    goes_on.set()

    heard = [await client.receive() for _ in range(3)]
    assert [one["type"] for one in heard] == ["acknowledged", "acknowledged", "current"]
    assert [one.get("sequence") for one in heard] == [1, 2, None]


async def test_reports_are_stored_although_the_client_left_meanwhile(house, me):
    house.commit(web_1=me)
    client = await house.enter(me)
    goes_on = stalled(house)

    client.send(many_lines(house.clock))
    client.send_bytes(frame(b"", opcode=PING))
    await client._frame()
    await client.hang_up()
    goes_on.set()

    await house.until("select count(*) from run_logs", [(100,)])


async def test_large_reports_that_nobody_can_read_end_the_session(house, me):
    house.commit(web_1=me)
    client = await house.enter(me)

    client.send('{"type": "reports", "filling": "' + "x" * 5_000 + '"}')

    assert (await client.receive())["code"] == "malformed"
