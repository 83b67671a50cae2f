"""The client's one WebSocket, with peers that are no director: whatever breaks in it ends it, and nothing else."""

from __future__ import annotations

import asyncio
import struct

import pytest

from client import dial
from client.dial import WebSocketDialer
from schema.errors import TransientError
from schema.wire import MAX_DIRECTOR_FRAME
from tests.client.peer import CLOSE, CONTINUATION, PING, TEXT, Caller, listening


@pytest.fixture(autouse=True)
def in_haste(monkeypatch):
    monkeypatch.setattr(dial, "CLOSING_SECONDS", 0.05)


# --- Opening ----------------------------------------------------------------------------------------------------------


async def test_the_request_names_the_place_and_offers_no_compression(tmp_path):
    callers = []

    async def accept(caller: Caller) -> None:
        callers.append(caller)
        await caller.accept()
        await caller.until_gone()

    async with listening(tmp_path, accept) as dialer:
        await (await dialer()).close()

    first, *headers = callers[0].request.decode().split("\r\n")
    names = {one.partition(":")[0].lower() for one in headers if one}
    assert first == "GET /v1/connect HTTP/1.1"
    assert "Host: director" in headers
    assert names == {
        "host",
        "upgrade",
        "connection",
        "sec-websocket-key",
        "sec-websocket-version",
        "user-agent",
    }


async def test_a_redirect_is_not_followed(tmp_path):
    async def redirect(caller: Caller) -> None:
        await caller.hear_request()
        caller.say("HTTP/1.1 302 Found", "Location: ws://localhost:1/v1/connect", "Content-Length: 0")

    async with listening(tmp_path, redirect) as dialer:
        with pytest.raises(TransientError, match="redirect") as caught:
            await dialer()

    assert "enroll with the address" in caught.value.hint


async def test_an_answer_that_is_no_websocket_is_told_by_its_status(tmp_path):
    async def refuse(caller: Caller) -> None:
        await caller.hear_request()
        caller.say("HTTP/1.1 503 Service Unavailable", "Content-Length: 4")
        caller.writer.write(b"busy")

    async with listening(tmp_path, refuse) as dialer:
        with pytest.raises(TransientError, match="it answered 503, and not as a WebSocket"):
            await dialer()


async def test_who_hangs_up_as_soon_as_it_took_us_is_tried_again_like_any_other(tmp_path):
    async def hang_up(caller: Caller) -> None:
        await caller.hear_request()

    async with listening(tmp_path, hang_up) as dialer:
        with pytest.raises(TransientError, match="it hung up at once"):
            await dialer()


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n" + b"x: y\r\n" * 1_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
        b"\x00" * 100_000,
    ],
    ids=["ssh", "no proof", "many headers", "long header", "zeros"],
)
async def test_who_does_not_speak_our_protocol_is_no_director(tmp_path, said):
    async def talk(caller: Caller) -> None:
        await caller.hear_request()
        caller.writer.write(said)
        await caller.until_gone()

    async with listening(tmp_path, talk) as dialer:
        with pytest.raises(TransientError, match="cannot reach the director at unix"):
            await dialer()


async def test_an_accepted_connection_that_says_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(dial, "HANDSHAKE_SECONDS", 0.05)

    async def say_nothing(caller: Caller) -> None:
        await caller.until_gone()

    async with listening(tmp_path, say_nothing) as dialer:
        with pytest.raises(TransientError, match=r"no answer within 0\.05 seconds"):
            await dialer()


async def test_nobody_there_is_told_with_the_reason(tmp_path):
    with pytest.raises(TransientError, match="cannot reach the director at unix.*No such file"):
        await WebSocketDialer(f"unix://{tmp_path}/nobody.sock")()


# --- Open -------------------------------------------------------------------------------------------------------------


async def test_what_is_larger_than_a_frame_may_be_is_refused_before_it_came(tmp_path):
    ends = []

    async def announce(caller: Caller) -> None:
        await caller.accept()
        caller.send(TEXT, b"x", size=MAX_DIRECTOR_FRAME + 1)
        ends.append(await caller.receive())
        await caller.until_gone()

    async with listening(tmp_path, announce) as dialer:
        socket = await dialer()
        receives = asyncio.ensure_future(socket.receive())
        while not ends:
            await asyncio.sleep(0)
        await socket.close()
        assert await receives is None

    kind, content = ends[0]
    assert (kind, content[:2]) == (CLOSE, struct.pack("!H", 1009))


async def test_pieces_are_together_no_larger_than_a_frame(tmp_path):
    ends = []

    async def trickle(caller: Caller) -> None:
        await caller.accept()
        caller.send(TEXT, b"x" * (MAX_DIRECTOR_FRAME // 2), last=False)
        caller.send(CONTINUATION, b"x" * (MAX_DIRECTOR_FRAME // 2), last=False)
        caller.send(CONTINUATION, b"x", size=1, last=True)
        ends.append(await caller.receive())
        await caller.until_gone()

    async with listening(tmp_path, trickle) as dialer:
        socket = await dialer()
        receives = asyncio.ensure_future(socket.receive())
        while not ends:
            await asyncio.sleep(0)
        await socket.close()
        assert await receives is None

    assert ends[0][1][:2] == struct.pack("!H", 1009)


@pytest.mark.parametrize("frame", [b"\xc1\x00", b"\x81\x82\x00\x00\x00\x00ab", b"\x83\x00", b"\x81\x02\xff\xfe"])
async def test_what_is_no_frame_ends_the_connection(tmp_path, frame):
    async def talk(caller: Caller) -> None:
        await caller.accept()
        caller.writer.write(frame)
        await caller.receive()

    async with listening(tmp_path, talk) as dialer:
        socket = await dialer()
        assert await socket.receive() is None
        await socket.close()


async def test_a_broken_line_is_the_end_of_the_connection_and_an_error_to_who_sends(tmp_path):
    async def break_off(caller: Caller) -> None:
        await caller.accept()
        await caller.writer.drain()
        caller.writer.transport.abort()

    async with listening(tmp_path, break_off) as dialer:
        socket = await dialer()
        assert await socket.receive() is None
        with pytest.raises(TransientError, match="the connection broke"):
            await socket.send("hello")
        await socket.close()


async def test_an_end_without_goodbye_is_not_waited_for(tmp_path):
    gone = asyncio.Event()

    async def go_on(caller: Caller) -> None:
        await caller.accept()
        await caller.until_gone()
        gone.set()

    async with listening(tmp_path, go_on) as dialer:
        await (await dialer()).close()
        await gone.wait()


# --- Signs of life ----------------------------------------------------------------------------------------------------


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(dial, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(dial, "PONG_SECONDS", 0.05)


async def test_who_is_silent_is_asked_and_then_left(tmp_path, hasty):
    asked = []

    async def say_nothing(caller: Caller) -> None:
        await caller.accept()
        asked.append(await caller.receive())
        await caller.until_gone()

    async with listening(tmp_path, say_nothing) as dialer:
        socket = await dialer()
        assert await socket.receive() is None
        await socket.close()

    assert asked[0][0] == PING


async def test_whatever_comes_is_a_sign_of_life(tmp_path, hasty):
    async def answer(caller: Caller) -> None:
        await caller.accept()
        for _ in range(5):
            kind, _ = await caller.receive()
            assert kind == PING
            caller.send(TEXT, b"x", size=100_000, last=False)  # a part of a large frame
            caller.writer.write(b"x" * 99_999)
            caller.send(CONTINUATION, b"x")

    async with listening(tmp_path, answer) as dialer:
        socket = await dialer()
        assert [len(await socket.receive() or "") for _ in range(5)] == [100_001] * 5
        await socket.close()


async def test_a_peer_that_takes_nothing_is_left_too(tmp_path, hasty):
    left = asyncio.Event()

    async def take_nothing(caller: Caller) -> None:
        await caller.accept()
        await left.wait()
        caller.writer.transport.abort()

    async with listening(tmp_path, take_nothing) as dialer:
        socket = await dialer()
        sends = asyncio.ensure_future(socket.send("x" * 10_000_000))
        assert await socket.receive() is None
        await sends
        with pytest.raises(TransientError, match="the connection broke"):
            await socket.send("more")
        await socket.close()
        left.set()


async def test_a_connection_that_was_closed_leaves_nothing_behind(tmp_path):
    async def accept(caller: Caller) -> None:
        await caller.accept()
        assert (await caller.receive())[0] == CLOSE
        caller.send(CLOSE)

    async with listening(tmp_path, accept) as dialer:
        before = asyncio.all_tasks()
        socket = await dialer()
        ours = {task for task in asyncio.all_tasks() - before if "_WebSocket" in repr(task.get_coro())}
        await socket.close()
        await socket.close()
        await asyncio.wait(ours)

    assert [task.cancelled() for task in ours] == [True]
