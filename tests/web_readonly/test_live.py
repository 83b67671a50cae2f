"""The stream that tells open pages that the store changed, over real sockets and with a real writer."""

from __future__ import annotations

import asyncio
import itertools
import re
import socket
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from reconciler.store import Store
from schema.status import SourceStatus
from tests.web_readonly import seeded
from web_readonly import live as live_module
from web_readonly.app import make_app, serving
from web_readonly.live import Live
from web_readonly.reader import Reader

_ID = re.compile(rb"id: (.*)")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(live_module, "LOOK_SECONDS", 0.01)


class Counter:
    """A store whose version a test sets, and that knows how often it was asked."""

    def __init__(self) -> None:
        self.version = "1"
        self.asked = 0

    def read(self) -> str:
        self.asked += 1
        return self.version


@asynccontextmanager
async def streaming(version):
    live = Live(version)
    app = web.Application()
    app.router.add_get("/live", live.stream)
    app.on_shutdown.append(live.close)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=60)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield live, f"http://127.0.0.1:{runner.addresses[0][1]}/live"
    finally:
        await runner.cleanup()


async def next_event(response: aiohttp.ClientResponse) -> str:
    while line := await response.content.readline():
        if found := _ID.match(line):
            return found[1].decode()
    raise EOFError


async def becomes(condition) -> None:
    while not condition():
        await asyncio.sleep(0)


# --- What viewers are told --------------------------------------------------------------------------------------------


async def test_a_viewer_hears_of_the_store_as_it_is_and_of_every_write(store):
    reader = Reader(store)
    app = make_app(reader, now=lambda: seeded.NOW)
    async with serving(app, host="127.0.0.1", port=0) as url, aiohttp.ClientSession() as session:
        async with session.get(f"{url}/live") as response, await Store.open(store) as director:
            heard = [await next_event(response)]
            for branch in ("one", "two"):
                await director.set_source(SourceStatus(url="https://example.org/a.git", branch=branch))
                heard.append(await next_event(response))

        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert response.headers["Cache-Control"] == "no-store"
        assert "Content-Encoding" not in response.headers
    assert len(set(heard)) == 3


async def test_what_an_event_says_is_no_more_than_that_something_changed():
    async with streaming(Counter().read) as (_, url), aiohttp.ClientSession() as session, session.get(url) as response:
        lines = [await response.content.readline() for _ in range(5)]

    assert re.fullmatch(rb"retry: \d{4}\n", lines[0])
    assert lines[1:] == [b"\n", b"id: 1\n", b"event: changed\n", b"data: 1\n"]


async def test_a_store_that_goes_away_and_comes_back_is_told_as_well(tmp_path):
    path = tmp_path / "store.db"
    reader = Reader(path)
    async with streaming(reader.version) as (_, url), aiohttp.ClientSession() as session, session.get(url) as response:
        missing = await next_event(response)
        async with await Store.open(path):
            there = await next_event(response)
    reader.close()

    assert missing == ""
    assert there


async def test_a_new_process_has_other_versions_so_that_everybody_looks_again(store):
    first, second = Reader(store), Reader(store)

    assert first.version() != second.version()
    first.close()
    second.close()


async def test_a_slow_viewer_hears_only_of_the_newest():
    counter = Counter()
    async with streaming(counter.read) as (_, url), aiohttp.ClientSession() as session, session.get(url) as response:
        await next_event(response)
        counter.version = "2"
        counter.version = "3"

        assert await next_event(response) == "3"


async def test_two_hundred_viewers_are_told_by_one_look():
    counter = Counter()
    async with streaming(counter.read) as (live, url), AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        responses = [await stack.enter_async_context(session.get(url)) for _ in range(200)]
        first = {await next_event(response) for response in responses}
        before = counter.asked
        counter.version = "2"
        second = {await next_event(response) for response in responses}

        assert (first, second, live.viewers) == ({"1"}, {"2"}, 200)
        assert counter.asked - before < 200


async def test_a_quiet_stream_is_kept_alive(monkeypatch):
    monkeypatch.setattr(live_module, "HEARTBEAT_SECONDS", 0.01)
    async with streaming(Counter().read) as (_, url), aiohttp.ClientSession() as session, session.get(url) as response:
        await next_event(response)
        lines = [await response.content.readline() for _ in range(7)]

    assert lines[3:] == [b":\n", b"\n"] * 2


# --- What it costs ----------------------------------------------------------------------------------------------------


async def test_without_viewers_nobody_looks_at_the_store():
    counter = Counter()
    async with streaming(counter.read) as (live, url), aiohttp.ClientSession() as session:
        asked_before, looked_before = counter.asked, live.looks
        async with session.get(url) as response:
            await next_event(response)
            looked = live.looks
        await becomes(lambda: live.viewers == 0)

        assert (asked_before, looked_before, looked, live.looks) == (0, False, True, False)


async def test_one_viewer_too_many_is_told_when_to_come_again(monkeypatch):
    monkeypatch.setattr(live_module, "MAX_VIEWERS", 1)
    async with streaming(Counter().read) as (live, url), aiohttp.ClientSession() as session:
        async with session.get(url) as first:
            await next_event(first)
            async with session.get(url) as second:
                assert (second.status, second.headers["Retry-After"]) == (503, "60")
        await becomes(lambda: live.viewers == 0)
        async with session.get(url) as third:
            assert third.status == 200


async def test_a_viewer_who_never_reads_is_dropped(monkeypatch):
    monkeypatch.setattr(live_module, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(live_module, "SLOW_SECONDS", 0.05)
    numbers = itertools.count()
    async with streaming(lambda: f"{next(numbers)}".rjust(2_000, "0")) as (live, url):
        port = int(url.rpartition("/")[0].rpartition(":")[2])
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_024)
            deaf.connect(("127.0.0.1", port))
            deaf.sendall(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await becomes(lambda: live.viewers == 1)
            await becomes(lambda: live.viewers == 0)


async def test_after_a_while_a_viewer_has_to_come_again_and_say_who_it_is(monkeypatch):
    monkeypatch.setattr(live_module, "LIFE_SECONDS", 0.05)
    monkeypatch.setattr(live_module, "HEARTBEAT_SECONDS", 0.01)
    async with streaming(Counter().read) as (_, url), aiohttp.ClientSession() as session, session.get(url) as response:
        everything = await response.read()

    assert everything.startswith(b"retry: ")


async def test_a_director_that_stops_ends_the_streams_itself():
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        async with streaming(Counter().read) as (live, url):
            response = await stack.enter_async_context(session.get(url))
            await next_event(response)

        # Not cut off: the stream has a proper end, so that it was not the patience of the server that ended it.
        assert await response.read() == b"event: changed\ndata: 1\n\n"
        assert live.viewers == 0


async def test_head_says_what_get_would_and_does_not_stay():
    async with streaming(Counter().read) as (live, url), aiohttp.ClientSession() as session:
        async with session.head(url) as response:
            assert (response.status, response.content_type) == (200, "text/event-stream")
        assert live.viewers == 0
