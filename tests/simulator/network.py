"""Connections that carry bytes in order, as TCP does, until something happens to them.

What can happen: they are slow, they break at any byte, they fall silent in one direction or both (half-open), nobody
listens, nobody answers. And what only somebody in the middle of an unencrypted line could do: leave out, double and
exchange what is written at once, which mostly is a frame.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.simulator.process import PROCESS, Process

HIGH_WATER = 64 * 1024


@dataclass(slots=True)
class Weather:
    """What happens to whatever is written now. Probabilities are for each write."""

    latency: tuple[float, float] = (0.0005, 0.03)
    breaks: float = 0.0
    silent: float = 0.0
    """The line falls silent for good: the other side is never told."""
    lost: float = 0.0
    doubled: float = 0.0
    swapped: float = 0.0
    refused: float = 0.0
    """By dial."""
    unanswered: float = 0.0


FAIR = Weather()


class End(asyncio.Transport):
    """One end of a line, as the protocol on it sees it."""

    def __init__(self, network: Network, process: Process | None, context: Context) -> None:
        super().__init__()
        self._network = network
        self.process = process
        self.context = context
        self.protocol: Any = None
        self.peer: End
        self.silent = False
        self._held: tuple[bytes, ...] = ()
        self._arrival = 0.0
        self._stuck = 0
        self._closing = self._lost = self._is_paused = False
        self._waiting: list[bytes | None] = []

    # --- What a protocol calls ----------------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return "" if name == "peername" else default

    def is_closing(self) -> bool:
        return self._closing

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_write_buffer_size(self) -> int:
        return self._stuck

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Ours are good for everybody."""

    def is_reading(self) -> bool:
        return not self._is_paused

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            self._network.soon(self, self._arrive, data)

    def write(self, data: Any) -> None:
        if self._closing or not data:
            return
        self._network.carry(self, bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._network.hang_up(self)
            self._network.soon(self, self._lose, None)

    def abort(self) -> None:
        if not self._closing:
            self._closing = True
            self._network.reset(self)
        self._network.soon(self, self._lose, None)

    # --- What the network does ----------------------------------------------------------------------------------------

    def stick(self, size: int) -> None:
        """What was written goes nowhere, and fills the buffer."""
        before, self._stuck = self._stuck, self._stuck + size
        if before <= HIGH_WATER < self._stuck and self.protocol is not None:
            self._network.soon(self, self._pause)

    def _pause(self) -> None:
        if not self._lost:
            self.protocol.pause_writing()

    def _arrive(self, data: bytes | None) -> None:
        """Take what the peer wrote; None is its end."""
        if self._lost or self._closing:
            return
        if self._is_paused:
            self._waiting.append(data)
        elif data is not None:
            self.protocol.data_received(data)
        else:
            self.protocol.eof_received()
            self.close()

    def _break(self) -> None:
        self._closing = True
        self._lose(ConnectionResetError(104, "Connection reset by peer"))

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = self._closing = True
            self._network.forget(self)
            self.protocol.connection_lost(error)


class Listener:
    """An address that is listened on."""

    def __init__(self, network: Network, path: str, factory: Callable[[], Any]) -> None:
        self._network, self._path = network, path
        self.factory = factory
        self.context = copy_context()
        self.process = PROCESS.get(None)
        self.sockets: tuple[()] = ()

    def close(self) -> None:
        """Listen no more."""
        self._network.stop_listening(self._path, self)

    async def wait_closed(self) -> None:
        """It is."""


class Network:
    """All lines of one world."""

    def __init__(self, loop: asyncio.AbstractEventLoop, random: Random) -> None:
        self._loop = loop
        self._random = random
        self._listeners: dict[str, Listener] = {}
        self._ends: dict[End, None] = {}
        self._weather: dict[str, Weather] = {}
        self.dials = 0

    # --- Weather ------------------------------------------------------------------------------------------------------

    def set_weather(self, name: str, weather: Weather) -> None:
        """Let this be the weather for the machine ``name``."""
        self._weather[name] = weather

    def cut(self, name: str, *, silently: bool) -> None:
        """End every line of a machine: with a reset, or without a word."""
        for end in [one for one in self._ends if one.process is not None and one.process.name == name]:
            if silently:
                end.silent = end.peer.silent = True
            else:
                self._soon_after(end, end._break)
                self._soon_after(end.peer, end.peer._break)

    def died(self, process: Process, *, silently: bool) -> None:
        """A process is gone: its kernel says so, unless the machine is gone as well."""
        for path, listener in list(self._listeners.items()):
            if listener.process is process:
                del self._listeners[path]
        for end in [one for one in self._ends if one.process is process]:
            del self._ends[end]
            end._lost = end._closing = True
            if silently:
                end.peer.silent = True
            elif not end.silent:
                self._soon_after(end.peer, end.peer._break)

    @property
    def open_lines(self) -> int:
        """How many ends are open."""
        return len(self._ends)

    # --- Dialling -----------------------------------------------------------------------------------------------------

    def listen(self, factory: Callable[[], Any], path: str) -> Listener:
        """Listen on ``path``."""
        if path in self._listeners:
            raise OSError(98, "Address already in use")
        listener = self._listeners[path] = Listener(self, path, factory)
        return listener

    def stop_listening(self, path: str, listener: Listener) -> None:
        """Listen no more on ``path``."""
        if self._listeners.get(path) is listener:
            del self._listeners[path]

    async def dial(self, factory: Callable[[], Any], path: str) -> tuple[End, Any]:
        """Return a line to whoever listens on ``path``."""
        process = PROCESS.get(None)
        weather = self._of(process)
        self.dials += 1
        await asyncio.sleep(self._latency(weather))
        if self._random.random() < weather.unanswered:
            await asyncio.sleep(3_600.0)
        listener = self._listeners.get(path)
        if listener is None or self._random.random() < weather.refused:
            raise ConnectionRefusedError(111, "Connection refused")
        near = End(self, process, copy_context())
        far = End(self, listener.process, listener.context)
        near.peer, far.peer = far, near
        self._ends[near] = self._ends[far] = None
        near.protocol = factory()
        far.protocol = listener.context.run(listener.factory)
        near.protocol.connection_made(near)
        self.soon(far, far.protocol.connection_made, far)
        return near, near.protocol

    # --- Carrying -----------------------------------------------------------------------------------------------------

    def soon(self, end: End, call: Callable[..., None], *arguments: Any) -> None:
        """Call in the context of the process that holds ``end``."""
        self._loop.call_soon(call, *arguments, context=end.context)

    def forget(self, end: End) -> None:
        """The end is closed."""
        self._ends.pop(end, None)

    def carry(self, end: End, data: bytes) -> None:
        """Bring ``data`` to the other end, if the weather allows."""
        client = end if end.process is None or end.process.name != "director" else end.peer
        weather = self._of(client.process)
        if end.silent or self._happens(weather.silent):
            end.silent = True
            end.stick(len(data))
            return
        if self._happens(weather.breaks):
            part = data[: self._random.randint(0, len(data))]
            if part:
                self._deliver(end, part, weather)
            self._later(end.peer, end.peer._break, at=end._arrival)
            self._soon_after(end, end._break)
            return
        if self._happens(weather.lost):
            return
        parts: tuple[bytes, ...] = (data, data) if self._happens(weather.doubled) else (data,)
        if end._held:
            parts, end._held = (*parts, *end._held), ()
        elif self._happens(weather.swapped):
            end._held = parts
            self._loop.call_later(5.0, self._let_go, end, context=end.context)
            return
        for part in parts:
            self._deliver(end, part, weather)

    def _let_go(self, end: End) -> None:
        held, end._held = end._held, ()
        for part in held:
            self._deliver(end, part, FAIR)

    def hang_up(self, end: End) -> None:
        """Tell the other end, after what was written before."""
        if not end.silent:
            self._later(end.peer, end.peer._arrive, None, at=max(end._arrival, self._loop.time()) + 0.0001)

    def reset(self, end: End) -> None:
        """Tell the other end at once."""
        if not end.silent:
            self._soon_after(end.peer, end.peer._break)

    def _deliver(self, end: End, data: bytes, weather: Weather) -> None:
        end._arrival = max(end._arrival + 1e-6, self._loop.time() + self._latency(weather))
        self._later(end.peer, end.peer._arrive, data, at=end._arrival)

    def _soon_after(self, end: End, call: Callable[[], None]) -> None:
        self._later(end, call, at=self._loop.time() + self._random.uniform(0.0001, 0.01))

    def _later(self, end: End, call: Callable[..., None], *arguments: Any, at: float) -> None:
        self._loop.call_at(at, call, *arguments, context=end.context)

    def _of(self, process: Process | None) -> Weather:
        return FAIR if process is None else self._weather.get(process.name, FAIR)

    def _latency(self, weather: Weather) -> float:
        return self._random.uniform(*weather.latency)

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self._random.random() < probability
