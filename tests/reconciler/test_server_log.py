"""Whoever reaches a port cannot write into the log: requests that nobody can read are answered, and are no news."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING

import pytest
import structlog
from aiohttp import web

from reconciler.commands import server_log
from reconciler.commands.output import configure_logging

if TYPE_CHECKING:
    from collections.abc import Iterator

UNREADABLE = [
    b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer bd1-viewer.secret\x01\r\n\r\n",
    b"nonsense\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
    b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 20_000 + b"\r\n\r\n",
]


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    logger = logging.getLogger("aiohttp")
    handlers, propagate = logger.handlers, logger.propagate
    yield
    logger.handlers, logger.propagate = handlers, propagate
    structlog.reset_defaults()


@pytest.mark.parametrize("request_", UNREADABLE)
async def test_a_request_that_nobody_can_read_writes_no_line(
    request_: bytes, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    configure_logging()

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response()

    runner = web.ServerRunner(web.Server(answer, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])
        writer.write(request_)
        writer.write_eof()
        async with asyncio.timeout(10):
            await reader.read()
        writer.close()
    finally:
        await runner.cleanup()

    captured = capsys.readouterr()
    assert captured.out + captured.err + caplog.text == ""


def test_what_is_the_servers_own_fault_is_one_line_of_our_log_without_secrets(capsys: pytest.CaptureFixture[str]):
    configure_logging()
    error = RuntimeError("https://ada:hunter2@example.org")
    logging.getLogger("aiohttp.server").error("Unhandled %s", "thing", exc_info=error)

    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert (said["level"], said["message"]) == ("error", "Unhandled thing")
    assert "RuntimeError" in said["exception"]
    assert "hunter2" not in line


def test_taking_over_twice_says_nothing_twice():
    server_log.take_over()
    server_log.take_over()

    assert len(logging.getLogger("aiohttp").handlers) == 1
