"""Attacks on a client by whoever answers its call, before and after it was taken for a director."""

from __future__ import annotations

import asyncio
import hashlib
import os
import pty
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from client import dial
from client.printing import print_error
from client.settings import check_url
from schema.errors import TransientError, TrustError
from schema.wire import MAX_CLIENT_FRAME, MAX_DIRECTOR_FRAME
from tests.client.director_stub import DirectorStub
from tests.client.peer import CONTINUATION, PING, PONG, TEXT, Caller, listening

ROOT = Path(__file__).parents[2]
MEBIBYTE = 1024 * 1024
PROXIES = [
    spelt
    for name in ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "SOCKS_PROXY", "WS_PROXY", "WSS_PROXY")
    for spelt in (name, name.lower())
]
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eyou may trust me"


@pytest.fixture(autouse=True)
def in_haste(monkeypatch):
    monkeypatch.setattr(dial, "CLOSING_SECONDS", 0.05)


async def sent_until_cut_off(caller: Caller, what: bytes, *, limit: int) -> int:
    """Return how many bytes the client let us send; at most ``limit``."""
    sent = 0
    try:
        while sent < limit:
            caller.writer.write(what)
            sent += len(what)
            await caller.writer.drain()
            await asyncio.sleep(0)  # drain gives no turn to anybody while there is room
    except ConnectionError:
        pass
    return sent


# --- Before it was taken ---


@pytest.mark.parametrize(
    "opening",
    [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"],
    ids=["headers", "body", "announced body"],
)
async def test_an_answer_without_end_is_left_and_not_kept(tmp_path, opening):
    taken = []

    async def talk(caller: Caller) -> None:
        await caller.hear_request()
        caller.writer.write(opening)
        taken.append(await sent_until_cut_off(caller, b"X: " + b"x" * 4_000 + b"\r\n", limit=1_000 * MEBIBYTE))

    async with listening(tmp_path, talk) as dialer:
        with pytest.raises(TransientError, match="cannot reach the director at unix"):
            await dialer()

    assert taken[0] < 8 * MEBIBYTE


async def test_an_answer_of_one_byte_at_a_time_is_left_when_its_time_is_over(tmp_path, monkeypatch):
    monkeypatch.setattr(dial, "HANDSHAKE_SECONDS", 0.2)

    async def trickle(caller: Caller) -> None:
        await caller.hear_request()
        caller.writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not caller.reader.at_eof():
            caller.writer.write(b"x")
            await caller.writer.drain()
            await asyncio.sleep(0.01)

    async with listening(tmp_path, trickle) as dialer:
        with pytest.raises(TransientError, match="no answer within"):
            await dialer()


@pytest.mark.parametrize(
    "header",
    [
        "Sec-WebSocket-Extensions: permessage-deflate",
        "Sec-WebSocket-Protocol: another",
        "Sec-WebSocket-Accept: twice",
    ],
)
async def test_what_was_not_asked_for_is_not_accepted(tmp_path, header):
    async def offer(caller: Caller) -> None:
        await caller.accept(header)
        await caller.until_gone()

    async with listening(tmp_path, offer) as dialer:
        with pytest.raises(TransientError, match="cannot reach the director at unix"):
            await dialer()


async def test_an_answer_with_headers_that_mean_nothing_to_us_is_one(tmp_path):
    async def accept(caller: Caller) -> None:
        await caller.accept("Server: hers", "Set-Cookie: a=b", "X-Padding: " + "x" * 4_000)
        await caller.until_gone()

    async with listening(tmp_path, accept) as dialer:
        await (await dialer()).close()


# --- The way there ---


@pytest.fixture
def proxies(monkeypatch):
    """Name a proxy for everything."""
    for name in PROXIES:
        monkeypatch.setenv(name, "http://somebody:secret@127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)


async def test_a_proxy_in_the_environment_leads_nobody_away(proxies):
    asked = await request_over_tcp()

    assert asked.startswith("GET /v1/connect HTTP/1.1\r\n")
    assert "authorization" not in asked.lower()


async def test_without_a_proxy_in_the_environment_the_director_is_asked_the_same(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)

    assert (await request_over_tcp()).startswith("GET /v1/connect HTTP/1.1\r\n")


async def request_over_tcp() -> str:
    """Return what a client asks of who listens at the director's address."""
    asked: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set_result((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.close()

    async with asyncio.timeout(20), await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(TransientError, match="it hung up at once"):
            await dial.WebSocketDialer(url)()
        return await asked


@pytest.mark.parametrize(
    "url", ["wss://me:secret@director", "wss://me@director", "wss://@director", "ws://127.0.0.1@director"]
)
def test_an_address_with_credentials_is_none_of_a_director(url):
    with pytest.raises(ValueError, match="no user and no password"):
        check_url(url)


@pytest.mark.parametrize("url", ["wss://director", "wss://director:8443/behind/a/proxy", "ws://127.0.0.1:8440"])
def test_an_address_without_credentials_may_be_one_of_a_director(url):
    assert check_url(url) == url


# --- Under another's certificate ---


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Return the director's certificate and its key, in files."""
    return certificate(tmp_path_factory.mktemp("director"), "localhost")


def certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """Make a certificate that vouches for itself; return it and its key, in files."""
    shown, key = folder / "certificate.pem", folder / "key.pem"
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"]
    subprocess.run(["openssl", *words, *names, "-out", shown, "-keyout", key], check=True, capture_output=True)
    return shown, key


async def test_the_pinned_certificate_behind_ones_own_is_not_ones_own(pair, tmp_path):
    shown, key = certificate(tmp_path, "localhost")
    shown.write_text(shown.read_text() + pair[0].read_text())

    async with DirectorStub(certificate=(shown, key)) as director:
        with pytest.raises(TrustError, match="another certificate than the pinned one"):
            await dial.WebSocketDialer(director.url, certificate=digest(pair[0]))()

    assert director.sessions == 0


async def test_the_pinned_certificate_before_others_is_the_pinned_one(pair, tmp_path):
    other, _ = certificate(tmp_path, "localhost")
    chain = tmp_path / "chain.pem"
    chain.write_text(pair[0].read_text() + other.read_text())

    async with DirectorStub(certificate=(chain, pair[1])) as director:
        socket = await dial.WebSocketDialer(director.url, certificate=digest(pair[0]))()
        assert socket.channel == digest(pair[0])
        await socket.close()


def digest(shown: Path) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(shown.read_text())).hexdigest()


async def test_the_certificate_of_another_host_is_refused_whoever_vouches_for_it(tmp_path):
    elsewhere = certificate(tmp_path, "elsewhere.example")

    async with DirectorStub(certificate=elsewhere) as director:
        with pytest.raises(TransientError, match="certificate"):
            await dial.WebSocketDialer(director.url, ca_file=str(elsewhere[0]))()

    assert director.sessions == 0


async def test_the_certificate_of_the_host_is_accepted_when_somebody_vouches_for_it(pair):
    async with DirectorStub(certificate=pair) as director:
        await (await dial.WebSocketDialer(director.url, ca_file=str(pair[0]))()).close()
        assert director.sessions == 1


# --- After it was taken ---


async def test_pings_whose_answers_are_never_taken_fill_no_memory(tmp_path):
    taken = []

    async def ping(caller: Caller) -> None:
        await caller.accept()
        pings = (bytes([0x80 | PING, 125]) + b"x" * 125) * 500
        taken.append(await sent_until_cut_off(caller, pings, limit=64 * MEBIBYTE))

    async with listening(tmp_path, ping) as dialer:
        socket = await dialer()
        assert await socket.receive() is None
        await socket.close()

    assert taken[0] < 8 * MEBIBYTE


async def test_pings_whose_answers_are_taken_late_are_all_answered_behind_what_is_large(tmp_path):
    answers = []

    async def ping(caller: Caller) -> None:
        await caller.accept()
        kind_and_length = await caller.reader.readexactly(2)
        assert kind_and_length == bytes([0x80 | TEXT, 0x80 | 127])
        size = int.from_bytes(await caller.reader.readexactly(8))
        for number in range(1_000):
            caller.send(PING, number.to_bytes(2))
        await caller.writer.drain()
        await caller.reader.readexactly(4 + size)
        answers.extend([await caller.receive() for _ in range(1_000)])
        caller.send(TEXT, b"well done", size=9)
        await caller.until_gone()

    async with listening(tmp_path, ping) as dialer:
        socket = await dialer()
        sends = asyncio.ensure_future(socket.send("x" * MAX_CLIENT_FRAME))
        assert await socket.receive() == "well done"
        await sends
        await socket.close()

    assert answers == [(PONG, number.to_bytes(2)) for number in range(1_000)]


async def test_pieces_of_nothing_without_end_are_cut_off(tmp_path):
    taken = []

    async def trickle(caller: Caller) -> None:
        await caller.accept()
        caller.writer.write(bytes([TEXT, 0]))
        taken.append(await sent_until_cut_off(caller, bytes([CONTINUATION, 0]) * 10_000, limit=64 * MEBIBYTE))

    async with listening(tmp_path, trickle) as dialer:
        socket = await dialer()
        assert await socket.receive() is None
        await socket.close()

    assert taken[0] < 64 * MEBIBYTE


async def test_a_state_in_a_thousand_pieces_is_one_frame(tmp_path):
    piece = b"x" * (MAX_DIRECTOR_FRAME // 1_000)

    async def talk(caller: Caller) -> None:
        await caller.accept()
        for number in range(1_000):
            caller.send(CONTINUATION if number else TEXT, piece, last=number == 999)
        await caller.until_gone()

    async with listening(tmp_path, talk) as dialer:
        socket = await dialer()
        assert await socket.receive() == (piece * 1_000).decode()
        await socket.close()


# --- The terminal of who enrols ---


def test_a_refusal_cannot_steer_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")

    print_error(f"the director refused: {HOSTILE}", HOSTILE)

    said = capsys.readouterr().err
    assert said.count("you may trust me") == 2
    assert all(line.isprintable() for line in said.splitlines())


def test_a_refusal_is_shown_in_the_directors_words_and_lines(capsys):
    print_error("the director refused: «läuft nicht»", "first this\nthen that")

    assert capsys.readouterr().err == "error: the director refused: «läuft nicht»\nhint: first this\nthen that\n"


def test_what_a_director_says_cannot_steer_the_terminal_of_who_reads_the_log():
    word = HOSTILE.replace(" ", "")
    said = said_at_a_terminal(f"said.warning('director waiting', reason={HOSTILE!r}, hint={word!r})")

    assert said.count("you") == 2
    assert said.rstrip("\r\n").isprintable()


def test_a_traceback_keeps_its_lines_on_a_terminal():
    said = said_at_a_terminal("try: 1 / 0\nexcept ZeroDivisionError: said.exception('a loop stopped')")

    first, *_, last = said.splitlines()
    assert "a loop stopped" in first
    assert last == "ZeroDivisionError: division by zero"


def said_at_a_terminal(lines: str) -> str:
    """Return what a client's service shows when its log is a terminal."""
    code = f"from client import log\nlog.configure('info')\nsaid = log.get_logger()\n{lines}"
    ours, theirs = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, stderr=theirs, env={**os.environ, "NO_COLOR": "1"}, check=True
        )
        os.set_blocking(ours, False)
        return os.read(ours, 65_536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
