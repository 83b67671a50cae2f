"""Connections that are slow, too large, too many, or never read: each is cut off, and the others are served."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest

from schema.addresses import Proxies
from tests.web_readonly import seeded
from web_readonly import app as app_module
from web_readonly import connections
from web_readonly.app import make_app, serving
from web_readonly.connections import Connections
from web_readonly.reader import Reader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LONG_ENOUGH = 20.0
"""Seconds after which a test is given up: whatever is cut off is cut off far earlier."""


@asynccontextmanager
async def served(store: Path) -> AsyncIterator[int]:
    """Serve a dashboard as a director does; yield its port. It still answers in the end."""
    with contextlib.closing(Reader(store)) as reader:
        app = make_app(reader, now=lambda: seeded.NOW)
        async with serving(app, host="127.0.0.1", port=0) as url, asyncio.timeout(LONG_ENOUGH):
            yield int(url.rpartition(":")[2])
            async with aiohttp.ClientSession() as session, session.get(f"{url}/livez") as response:
                assert await response.text() == "ok\n"


async def pushed(port: int, start: bytes, piece: bytes, *, most: int) -> bytes:
    """Send ``start`` and then pieces until the other side has had enough; return what it said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = 0
    try:
        writer.write(start)
        while sent < most and not reader.at_eof():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)  # drain alone does not wait while there is room
            sent += len(piece)
    except ConnectionError:
        pass
    assert sent < most, "it took everything"
    said = b""
    with contextlib.suppress(ConnectionError):
        said = await reader.read()
    writer.close()
    return said


async def test_a_head_that_comes_one_byte_at_a_time_is_cut_off(store, monkeypatch):
    monkeypatch.setattr(app_module, "IDLE_SECONDS", 0.1)

    async with served(store) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nX-Slow: ")
        sent = 0
        while not reader.at_eof():
            writer.write(b"x")
            sent += 1
            with contextlib.suppress(TimeoutError, ConnectionError):
                assert await asyncio.wait_for(reader.read(1), 0.005) == b""
        writer.close()

        assert sent < 8_000, "it was cut off for its size, not for its time"


@pytest.mark.parametrize(
    "start",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Large: ",
        b"GET /",
        b"GET / HTTP/1.1\r\n",
    ],
)
async def test_a_head_of_a_hundred_megabytes_is_refused_at_its_first_kilobytes(store, start):
    async with served(store) as port:
        said = await pushed(port, start, b"x" * 4096, most=100_000_000)

        assert said == b"" or said.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))


async def test_a_thousand_headers_are_too_many(store):
    async with served(store) as port:
        start = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
        said = await pushed(port, start, b"X-Many: y\r\n" * 100, most=1_000_000)

        assert b" 200 " not in said


@pytest.mark.parametrize(
    "start",
    [
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n",
        b"POST /clients HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n",
    ],
)
async def test_a_body_that_nobody_asked_for_is_not_taken(store, monkeypatch, start):
    monkeypatch.setattr(app_module, "LINGER_SECONDS", 0.05)

    async with served(store) as port:
        said = await pushed(port, start, b"x" * 65_536, most=1_000_000_000)

        assert said == b"" or said.startswith(b"HTTP/1.1 ")


async def test_an_answer_that_is_never_read_is_given_up(store, monkeypatch):
    monkeypatch.setattr(connections, "STALLED_SECONDS", 0.05)
    monkeypatch.setattr(connections, "LOOK_SECONDS", 0.01)

    async with served(store) as port:
        loop = asyncio.get_running_loop()
        with socket.socket() as peer:
            peer.setblocking(False)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await loop.sock_connect(peer, ("127.0.0.1", port))
            questions = b"GET /static/style.css HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100_000
            with pytest.raises(ConnectionError):
                await loop.sock_sendall(peer, questions)


async def test_who_reads_slowly_gets_everything(store, monkeypatch):
    monkeypatch.setattr(connections, "LOOK_SECONDS", 0.001)

    async with served(store) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /static/style.css HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        said = b""
        while piece := await reader.read(100):
            said += piece
        writer.close()

        head, _, body = said.partition(b"\r\n\r\n")
        assert f"content-length: {len(body)}".encode() in head.lower()


async def test_connections_are_counted_and_one_too_many_is_closed_at_once(store, monkeypatch):
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 5)

    async with served(store) as port:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        said = b""
        with contextlib.suppress(ConnectionError):
            said = await reader.read()
        writer.close()
        assert said == b""

        idle[0][1].write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b"200 OK" in await idle[0][0].read()
        for _, one in idle:
            one.close()
            with contextlib.suppress(ConnectionError):
                await one.wait_closed()
        while True:  # until the others are gone on the server's side as well
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                said = await reader.read()
            writer.close()
            if said:
                break


class Wire(asyncio.Transport):
    """A transport that goes nowhere."""

    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 1)})
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True

    def get_write_buffer_size(self) -> int:
        return 0


def connected(house: Connections, address: str) -> tuple[asyncio.Protocol, Wire]:
    connection, wire = house(), Wire(address)
    connection.connection_made(wire)
    return connection, wire


async def test_one_source_has_its_share_and_a_proxy_all_it_needs():
    house = Connections(asyncio.Protocol, proxies=Proxies.parse(["10.0.0.1"]))
    limit = connections.MAX_OF_ONE_SOURCE
    mine = [connected(house, f"2001:db8:1:2::{number:x}") for number in range(limit + 3)]
    others = [connected(house, address)[1].aborted for address in ("2001:db8:1:3::1", "192.0.2.1", "::ffff:192.0.2.1")]
    proxied = [connected(house, "10.0.0.1")[1].aborted for _ in range(limit + 3)]
    here = [connected(house, "127.0.0.1")[1].aborted for _ in range(limit + 3)]

    assert [wire.aborted for _, wire in mine] == [False] * limit + [True] * 3
    assert not any([*others, *proxied, *here])

    mine[0][0].connection_lost(None)
    mine[-1][0].connection_lost(None)  # it was never let in
    assert not connected(house, "2001:db8:1:2::1")[1].aborted
    assert connected(house, "2001:db8:1:2::1")[1].aborted
    house.close()


async def test_half_of_the_files_that_may_be_open_is_left_to_the_directors_clients(monkeypatch):
    monkeypatch.setattr("web_readonly.connections.resource.getrlimit", lambda _: (20, 20))
    house = Connections(asyncio.Protocol, proxies=Proxies())

    assert [connected(house, "127.0.0.1")[1].aborted for _ in range(12)] == [False] * 10 + [True] * 2
    house.close()
