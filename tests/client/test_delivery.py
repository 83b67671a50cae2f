"""Delivery: what the outbox holds arrives, whatever the director believes of it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from client.delivery import Delivery
from client.outbox import Outbox
from schema.errors import TrustError
from schema.observed import ClientEvent
from schema.wire import Acknowledged, Reports
from tests.client.virtual_clock import VirtualClock

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


class Director:
    """Takes reports as the store does: by the name of the outbox, and by number."""

    def __init__(self) -> None:
        self.stored: dict[str, int] = {}
        self.messages: list[str] = []
        self.sent = asyncio.Event()
        self.last: Reports | None = None

    async def send_reports(self, reports: Reports) -> None:
        high = self.stored.get(reports.epoch, 0)
        self.messages += [str(item.report["message"]) for item in reports.items if item.sequence > high]
        self.stored[reports.epoch] = max(high, reports.items[-1].sequence)
        self.last = reports
        self.sent.set()

    def drop(self, reason: str) -> None:
        raise AssertionError(reason)

    async def acknowledgement(self) -> Acknowledged:
        await self.sent.wait()
        self.sent.clear()
        assert self.last is not None
        return Acknowledged(epoch=self.last.epoch, sequence=self.stored[self.last.epoch])


async def test_an_outbox_whose_numbers_a_clone_has_used_takes_a_new_name_and_loses_nothing(tmp_path):
    outbox, director = Outbox(tmp_path / "outbox.sqlite", now=lambda: NOW), Director()
    delivery = Delivery(outbox=outbox, connection=director, clock=VirtualClock())
    director.stored[outbox.epoch] = 7  # the clone's
    await outbox.append(ClientEvent(at=NOW, reason="Applied", message="mine"))
    running = asyncio.create_task(delivery.run())

    with pytest.raises(TrustError, match="never sent"):
        delivery.acknowledged(await director.acknowledgement())
    delivery.opened()
    delivery.acknowledged(await director.acknowledgement())
    async with asyncio.timeout(10):
        await delivery.drained()

    assert director.messages == ["mine"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    outbox.close()
