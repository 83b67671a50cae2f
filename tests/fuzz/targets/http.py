"""HTTP as it comes from the wire: the dashboard, the clients' door, and the socket of commands, each as it really runs.

aiohttp's own parser and server, our middlewares and handlers, a real store; only the socket is missing.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import re
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from aiohttp import web

from reconciler import admin
from schema import wire
from schema.envelope import ClientIdentity
from schema.viewers import TOKEN_PREFIX, Password, Viewer, token_hash
from tests.fuzz import samples, target
from tests.fuzz.memory_wire import connect, hang_up, settle
from tests.fuzz.target import Target
from tests.reconciler import wire_client
from tests.reconciler.house import House
from tests.web_readonly import seeded
from web_readonly import app as dashboard
from web_readonly.access import Access
from web_readonly.answers import answer
from web_readonly.reader import Reader
from web_readonly.views import VIEWS

_STATUS = re.compile(rb"HTTP/\d\.\d (\d{3}) ")
_TOKEN = TOKEN_PREFIX + "A" * 43


@dataclass
class _World:
    """Everything that answers, on one loop."""

    loop: asyncio.AbstractEventLoop
    faults: list[Any]
    open_pages: Any
    asking_pages: Any
    commands: Any
    house: House
    me: ClientIdentity

    def run(self, coroutine: Any) -> Any:
        """Run to the end; what the loop could not tell anybody is a fault."""
        target.REPORTED.clear()
        result = self.loop.run_until_complete(coroutine)
        assert not self.faults, self.faults
        assert not target.REPORTED, target.REPORTED
        return result


class _Operations:
    """Every operation, without its deed: what comes before it is what is fuzzed."""

    def __getattr__(self, name: str) -> Any:
        async def done(request: Any, *, actor: str) -> dict[str, Any]:
            return {"asked": request.model_dump(mode="json"), "actor": actor}

        return done


@cache
def _world() -> _World:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    faults: list[Any] = []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    scratch = tempfile.TemporaryDirectory(prefix="fuzz-")
    folder = Path(scratch.name)
    atexit.register(scratch.cleanup)
    return loop.run_until_complete(_make(loop, faults, folder))


async def _make(loop: asyncio.AbstractEventLoop, faults: list[Any], folder: Path) -> _World:
    await seeded.seed(folder / "store.db")
    reader = Reader(folder / "store.db")
    viewer = Viewer(hash=token_hash(_TOKEN), created=seeded.NOW)
    users = {"ana": Password.make("x", salt=b"salt-and-pepper!")}
    asks = Access(asks=True, anywhere=True, users=users, open_badges=True)
    commands = admin.Admin(
        folder / "director.sock",
        operations=_Operations(),  # type: ignore[arg-type]
        read=lambda question, **arguments: answer(reader, question, arguments, now=seeded.NOW),
        store=None,  # type: ignore[arg-type]
    )
    await commands.start()
    house = House(folder / "house")
    house.directory.mkdir()
    await house.open()
    me = ClientIdentity(b"\1" * 32, b"\2" * 32)
    house.commit(web_1=me)
    assert commands._runner is not None
    return _World(
        loop=loop,
        faults=faults,
        open_pages=await _server(dashboard.make_app(reader, now=lambda: seeded.NOW)),
        asking_pages=await _server(
            dashboard.make_app(reader, now=lambda: seeded.NOW, access=asks, viewers=lambda: {viewer.hash: viewer})
        ),
        commands=commands._runner.server,
        house=house,
        me=me,
    )


async def _server(app: web.Application) -> Any:
    """Return what ``web_readonly.app.serving`` listens with."""
    runner = web.AppRunner(app, access_log=None, max_line_size=8190, max_field_size=8190, max_headers=64)
    await runner.setup()
    return runner.server


# --- Requests ---------------------------------------------------------------------------------------------------------


async def _exchange(server: Any, data: bytes) -> bytes:
    protocol, transport = connect(server)
    for piece in (data[: len(data) // 2], data[len(data) // 2 :]):
        if not transport.is_closing():
            protocol.data_received(piece)
            await asyncio.sleep(0)
    await settle(transport)
    await hang_up(transport)
    return bytes(transport.said)


def _pages(data: bytes) -> None:
    """Bytes of a connection to the dashboard that is open, and to the one where everybody logs in."""
    world = _world()
    for server in (world.open_pages, world.asking_pages):
        said = world.run(_exchange(server, data))
        _answered(said)
        if said.startswith(b"HTTP/1.1 2") and b"\r\nSet-Cookie" not in said:
            head = said.partition(b"\r\n\r\n")[0]
            assert b"X-Content-Type-Options: nosniff" in head
            assert b"Content-Security-Policy: default-src 'none'" in head


def _query(data: bytes) -> None:
    """JSON: a path and its parameters, of pages and their twins, sent as a browser would."""
    try:
        path, arguments = json.loads(data)
        query = "&".join(f"{_escaped(str(name))}={_escaped(str(value))}" for name, value in arguments.items())
        line = f"GET {_escaped(str(path), keep='/')}?{query} HTTP/1.1\r\n"
    except (ValueError, TypeError, AttributeError, RecursionError):
        return
    if len(line) > 8_000:
        return
    world = _world()
    said = world.run(_exchange(world.open_pages, line.encode() + b"Host: localhost\r\nConnection: close\r\n\r\n"))
    status = _answered(said)
    assert status in {200, 304, 400, 404, 405, 421, 503} or not said, (status, line)


def _escaped(text: str, keep: str = "") -> str:
    safe = set(f"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~{keep}")
    return "".join(chr(one) if chr(one) in safe else f"%{one:02X}" for one in text.encode("utf-8", "surrogatepass"))


def _commands(data: bytes) -> None:
    """Bytes of a connection to the socket of commands."""
    world = _world()
    _answered(world.run(_exchange(world.commands, data)))


def _answered(said: bytes) -> int:
    """Whatever was asked, it is no fault of ours: return the status of the first answer, 0 for none."""
    match = _STATUS.match(said)
    assert not said or match, said[:100]
    status = int(match[1]) if match else 0
    # A machine that stops for ten seconds is no fault of ours either; an input that does is one of libFuzzer's.
    assert status not in {500, 503} or b"did not answer within" in said, said[:4_000]
    return status


# --- The clients' door ------------------------------------------------------------------------------------------------


def _door(data: bytes) -> None:
    """Parts: how far to shake hands, then frames; or raw bytes of a connection."""
    world = _world()
    world.run(_session(world, data.split(b"\n---\n")))
    assert world.house.gateway.connected == frozenset()


class _Writer:
    """Writes into the protocol, for ``WireClient``."""

    def __init__(self, protocol: asyncio.Protocol, transport: Any) -> None:
        self._protocol = protocol
        self.transport = transport

    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self._protocol.data_received(data)


async def _session(world: _World, parts: list[bytes]) -> None:
    listeners = world.house.gateway._listeners
    protocol, transport = connect(listeners._server)
    how, *frames = parts
    if how in {b'"start"', b'"challenged"', b'"open"'}:
        transport.reader = asyncio.StreamReader()
        client = wire_client.WireClient(transport.reader, _Writer(protocol, transport))  # type: ignore[arg-type]
        client.send_bytes(_UPGRADE)
        await transport.reader.readuntil(b"\r\n\r\n")
        if how == b'"challenged"':
            await client.challenge(world.me)
        elif how == b'"open"':
            assert (await client.shake_hands(world.me))["type"] == "accepted"
        for frame in frames:
            raw = frame.startswith(b"\x00")
            client.send_bytes(frame[1:] if raw else wire_client.frame(frame))
            await asyncio.sleep(0)
    else:
        protocol.data_received(b"\n---\n".join(parts))
    await settle(transport)
    for message in _messages(bytes(transport.said)):
        assert message["type"] in {"challenge", "accepted", "pending", "refused", "desired", "current", "acknowledged"}
    await hang_up(transport)
    for _ in range(1_000):
        if not world.house.gateway.connected and not world.house.gateway._sessions:
            break
        await asyncio.sleep(0.001)
    world.house.gateway.unlock("127.0.0.1")


def _messages(said: bytes) -> list[dict[str, Any]]:
    """Return the JSON messages among what a server said."""
    found = []
    for match in re.finditer(rb'\{"type":"[a-z]+"', said):
        value, _ = json.JSONDecoder().raw_decode(said[match.start() :].decode("utf-8", "replace"))
        found.append(value)
    return found


_UPGRADE = (
    f"GET {wire.PATH} HTTP/1.1\r\nHost: director\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Key: {'A' * 22}==\r\nSec-WebSocket-Version: 13\r\n\r\n"
).encode()


# --- Seeds ------------------------------------------------------------------------------------------------------------


def _get(path: str, *headers: str, method: str = "GET", body: str = "") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join([*lines, "", ""]) + body).encode()


def _place(path: str) -> str:
    run = seeded.run_id("web-1", "system", 0)
    named = {
        "client": "web-1",
        "backup": "system",
        "run": run,
        "revision": seeded.REVISIONS[5][:12],
        "repository": "nas",
    }
    return re.sub(r"\{(\w+)[^}]*\}", lambda match: named.get(match[1], "x"), path)


def _page_seeds() -> list[bytes]:
    form = "application/x-www-form-urlencoded"
    found = [_get(_place(view.path)) for view in VIEWS[::3]]
    found += [
        _get("/api/v1/overview", f"Authorization: Bearer {_TOKEN}"),
        _get("/", "Cookie: director=user.YW5h.1800000000.abc; __Host-director=x", "Accept: text/html"),
        _get("/login", f"Content-Type: {form}", method="POST", body=f"secret={_TOKEN}&next=/clients"),
        _get("/login", f"Content-Type: {form}", "Sec-Fetch-Site: cross-site", method="POST", body="logout=1"),
        _get("/", "X-Forwarded-For: 10.0.0.1", "X-Forwarded-Proto: https"),
        _get("/", "If-None-Match: *", "Accept-Encoding: gzip, br", "Range: bytes=0-5"),
        _get("/livez", method="HEAD") + _get("/static/x.css?y"),
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ]
    return found


def _query_seeds() -> list[bytes]:
    found = [[_place(view.path), dict.fromkeys(set(view.filters) - _STRICT, "")] for view in VIEWS if view.template]
    found += [[_place(view.api_path), {"limit": "5"} if "limit" in view.api_filters else {}] for view in VIEWS]
    return [json.dumps(one).encode() for one in found]


_STRICT = {"limit", "days"}
"""Filters that have no empty value."""


_ASKED = (
    _get("/v1/read/clients?limit=5"),
    _get("/v1/read/backups"),
    _get("/v1/read/runs?client=web-1&limit=1"),
    _get("/v1/token_create", method="POST", body='{"note": "x", "lifetime": "1d", "uses": 3}'),
    _get("/v1/client_approve", method="POST", body='{"text": "web-1", "name": "web-1"}'),
    _get("/v1/reconcile", method="POST", body="{}"),
    _get("/v1/nope", method="POST"),
)


def _door_seeds() -> list[bytes]:
    hello, proof, pull, reports, progress = (samples.lines(one) for one in samples.FROM_CLIENT)
    return [
        b"\n---\n".join(parts)
        for parts in (
            [b'"start"', hello],
            [b'"challenged"', proof],
            [b'"open"', pull, reports, progress],
            [b'"open"', samples.lines(samples.FROM_CLIENT[2]), b"\x00\x89\x80\0\0\0\0", b"\x00\x88\x80\0\0\0\0"],
            *(
                [b'"open"', samples.lines({**samples.FROM_CLIENT[3], "items": [{"sequence": 1, "report": one}]})]
                for one in samples.REPORTS
            ),
            [_UPGRADE + wire_client.frame(hello)],
            [_get("/readyz") + _get("/metrics")],
        )
    ]


_FILTERS = tuple({name for view in VIEWS for name in (*view.filters, *view.api_filters)})

TARGETS = (
    Target(
        name="http-dashboard",
        promise="whatever comes over a connection is answered without a fault of ours, and no page without its headers",
        check=_pages,
        seeds=_page_seeds,
        words=(
            "HTTP/1.1",
            "\r\n",
            "Host: ",
            "Cookie: director=",
            "%00",
            "%ff",
            "%2e%2e%2f",
            "Basic ",
            "chunked",
            "Expect: 100-continue",
            _TOKEN,
        ),
        seconds=20,
    ),
    Target(
        name="http-questions",
        promise="every page and every answer of the API, with any filters, is an answer or says what is wrong with "
        "the question",
        check=_query,
        seeds=_query_seeds,
        most=2_048,
        words=(
            *_FILTERS,
            "web-1",
            "system",
            "nas",
            "failed",
            "500",
            "2026-11-23T18:00:00+00:00",
            "2026-11-23",
            "~",
            "1~",
            "9" * 30,
        ),
        seconds=20,
    ),
    Target(
        name="http-commands",
        promise="whatever comes over the socket of commands is answered without a fault of ours",
        check=_commands,
        seeds=lambda: list(_ASKED),
        words=(*admin.OPERATIONS, "limit=", "client=", "\r\n", "Content-Length: ", '"uses": ', "question="),
        seconds=20,
    ),
    Target(
        name="http-door",
        promise="in every state of a session any frame, and any bytes before one, end it with a refusal or go on; "
        "nothing stays behind when the connection is over",
        check=_door,
        seeds=_door_seeds,
        most=8_192,
        words=(*samples.WORDS, "start", "challenged", "open", "\x81\xfe", "\x81\xff", "\x01", "\x80"),
        seconds=20,
    ),
)
