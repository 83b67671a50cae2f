"""Empties the outbox towards the director, one batch at a time, again until it is acknowledged. Used by ``agent``."""

from __future__ import annotations

import asyncio
from typing import Protocol

from client.clock import Clock, woken
from client.log import get_logger
from client.outbox import Outbox
from schema.errors import TransientError, TrustError
from schema.wire import Acknowledged, RefusalCode, Reports

ACKNOWLEDGE_SECONDS = 120.0
RETRY_SECONDS = 30.0
LOOK_SECONDS = 5.0
"""How often an empty outbox is looked into, for what `director-client once` wrote: a query of microseconds."""

log = get_logger()


class Sends(Protocol):
    """What delivery wants of ``client.connection.Connection``."""

    async def send_reports(self, reports: Reports) -> None:
        """Send a batch; ``TransientError`` when no session is open."""

    def drop(self, reason: str) -> None:
        """End the session and come back."""


class Delivery:
    """Sends while a session is open; ``opened`` and ``acknowledged`` come from the connection's listener."""

    def __init__(self, *, outbox: Outbox, connection: Sends, clock: Clock) -> None:
        self._outbox = outbox
        self._connection = connection
        self._clock = clock
        self._session = 0
        self._moved = asyncio.Event()
        self._acknowledged: tuple[str, int] = ("", 0)
        self._stored = asyncio.Event()
        self._is_shared = False
        """Whether somebody else reports under our outbox's name."""

    def opened(self) -> None:
        """A session is open: what was on its way before is sent again."""
        self._session += 1
        self._moved.set()

    def acknowledged(self, message: Acknowledged) -> None:
        """Take the director's word for what it has stored, if it can have stored it.

        What we never sent, another one did: a clone of this machine, or this machine before its state was restored from
        a backup. The director takes our next numbers for theirs, so that ours have to go under another name.
        """
        if message.epoch != self._outbox.epoch:
            return
        if message.sequence and not self._outbox.was_sent(message.epoch, message.sequence):
            self._is_shared = True
            raise TrustError(
                "the director acknowledged reports that were never sent",
                code=RefusalCode.MALFORMED,
                hint="was this machine cloned, or its state restored from a backup? its reports are sent once more",
            )
        self._acknowledged = (message.epoch, message.sequence)
        self._moved.set()

    async def run(self) -> None:
        """Send for ever."""
        while True:
            try:
                batch = await self._next()
            except TransientError as error:
                log.warning("the outbox cannot be read", reason=error.message)
                await self._clock.sleep(RETRY_SECONDS)
                continue
            session = self._session
            try:
                await self._send(batch)
            except TransientError:
                while self._session == session:
                    self._moved.clear()
                    await self._moved.wait()

    async def drained(self) -> None:
        """Return when the director has stored everything."""
        while await self._outbox.waiting():
            await self._stored.wait()
            self._stored.clear()

    async def _next(self) -> Reports:
        """Return the oldest reports, once there are some."""
        while True:
            self._outbox.arrived.clear()
            await self._outbox.try_flush()
            if self._is_shared:
                log.warning("somebody else reports as this outbox; it takes a new name")
                await self._outbox.rename()
                self._is_shared = False
            batch = await self._outbox.batch()
            if batch is not None:
                return batch
            # Not for ever: `director-client once` may write, too, and a disk may have room again.
            await woken(self._clock, self._outbox.arrived, LOOK_SECONDS)

    async def _send(self, batch: Reports) -> None:
        """Send a batch and wait for its acknowledgement; return early when another session opened."""
        self._moved.clear()
        await self._connection.send_reports(batch)
        if not await woken(self._clock, self._moved, ACKNOWLEDGE_SECONDS):
            self._connection.drop("the director does not acknowledge reports")
        epoch, sequence = self._acknowledged
        if epoch == batch.epoch and sequence >= batch.items[0].sequence:
            await self._outbox.acknowledge(epoch, sequence)
            self._stored.set()
