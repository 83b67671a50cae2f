"""The socket of operational commands: a real director behind it, the commands' own client before it."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
import structlog
import yaml
from click.testing import CliRunner, Result

from reconciler.admin import MAX_REQUEST, OPERATIONS, Admin, Operations
from reconciler.cli import main
from reconciler.clock import SystemClock
from reconciler.commands.output import configure_logging
from reconciler.commands.remote import Remote
from reconciler.listen import Address
from reconciler.process import Director, directing
from reconciler.settings import load_settings
from schema.envelope import ClientIdentity, EnrolmentString, hash_token
from schema.errors import TerminalError
from schema.status import PendingClient
from tests.git_repository import GitRepository
from web_readonly.answers import answer
from web_readonly.reader import Reader

HERE, OTHER = ClientIdentity.generate(), ClientIdentity.generate()
CLIENT = """\
apiVersion: borgmatic.director/v1
kind: Client
metadata: {name: web-1}
spec: {publicKey: %s}
"""
REST = """\
apiVersion: borgmatic.director/v1
kind: Repository
metadata: {name: nas}
spec: {url: "/srv/${client}", encryption: {mode: none}}
---
apiVersion: borgmatic.director/v1
kind: Backup
metadata: {name: files}
spec:
  clients: [web-1]
  repositories: [nas]
  borgmatic: {source_directories: [/etc], keep_daily: 7}
"""


class House:
    """A director with its loop and its socket, in this process; commands run in a thread."""

    def __init__(self, git: GitRepository, director: Director, reader: Reader) -> None:
        self.git = git
        self.director = director
        self.reader = reader
        self.state = director.settings.state_directory

    @property
    def socket(self) -> Path:
        return self.director.settings.socket_path

    async def ask(self, question: str, **arguments: object) -> Any:
        return await asyncio.to_thread(Remote(self.socket).read, question, **arguments)

    async def tell(self, operation: str, **arguments: object) -> Any:
        return await asyncio.to_thread(Remote(self.socket).operate, operation, **arguments)

    async def command(self, *words: object) -> Result:
        """Run a command as a person would. It never ends with a traceback."""
        arguments = ["--state-directory", str(self.state), *map(str, words)]
        done = await asyncio.to_thread(CliRunner().invoke, main, arguments, prog_name="director")
        assert done.exception is None or isinstance(done.exception, SystemExit), (done.output, repr(done.exception))
        return done

    async def send(self, request: bytes) -> tuple[int, Any]:
        """Send raw bytes; return the status and the JSON of the answer."""
        reader, writer = await asyncio.open_unix_connection(str(self.socket))
        writer.write(request)
        with closing(writer):
            async with asyncio.timeout(20):
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(one.split(b":")[1]) for one in head.lower().split(b"\r\n") if b"content-length" in one
                )
                return int(head.split()[1]), json.loads(await reader.readexactly(length))

    async def post(self, operation: str, body: bytes) -> tuple[int, Any]:
        head = f"POST /v1/{operation} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        return await self.send(head.encode() + body)

    async def wait_for(self, name: str) -> PendingClient:
        """Let a stranger knock."""
        identity, now = OTHER, datetime.now(UTC)
        await self.director.store.upsert_pending(
            public_key=identity.public.text,
            name=name,
            address="192.0.2.7",
            config_directory="/etc/borgmatic.d",
            state_directory="/var/lib/x",
            now=now,
        )
        (pending,) = await self.ask("pending")
        return PendingClient.model_validate(pending)

    async def events(self) -> list[tuple[str, str]]:
        return [(one["reason"], one["actor"]) for one in await self.ask("events", limit=50)]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    git = GitRepository(tmp_path / "source")
    git.commit("start", client=CLIENT % HERE.public.text, rest=REST)
    settings = load_settings(
        state_directory=tmp_path / "state",
        source={"url": str(git.directory), "interval": "1h"},
    )
    configure_logging()  # to stderr: what a command prints is its own
    async with directing(settings, clock=SystemClock(), listen=[Address(path=f"{tmp_path}/clients")]) as director:
        with closing(Reader(settings.store_path)) as reader:
            async with _serving(director, reader):
                made = House(git, director, reader)
                await made.tell("reconcile")
                yield made
    structlog.reset_defaults()


class _serving:  # noqa: N801 - used as a function
    def __init__(self, director: Director, reader: Reader) -> None:
        self.director = director
        self.admin = Admin(
            director.settings.socket_path,
            operations=Operations(
                store=director.store,
                gateway=director.gateway,
                reconciler=director.reconciler,
                enrolment=director.enrolment,
                clock=director.clock,
            ),
            read=lambda question, **words: answer(reader, question, words, now=datetime.now(UTC)),
            store=director.store,
        )

    async def __aenter__(self) -> None:
        await self.admin.start()
        self.looping = asyncio.create_task(self.director.reconciler.run())

    async def __aexit__(self, *_: object) -> None:
        self.director.reconciler.stop()
        await self.looping
        await self.admin.close()


ME = f"operator:{getpass.getuser()}"


# --- The socket -------------------------------------------------------------------------------------------------------


async def test_the_socket_is_its_user_s_alone(house: House) -> None:
    assert house.socket.stat().st_mode & 0o777 == 0o600
    assert house.state.stat().st_mode & 0o777 == 0o700


async def test_a_socket_that_a_killed_director_left_is_replaced(house: House, tmp_path: Path) -> None:
    path = tmp_path / "left.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    admin = _serving(house.director, house.reader).admin
    admin._path = path
    await admin.start()
    assert path.stat().st_mode & 0o777 == 0o600
    await admin.close()
    assert not path.exists()


async def test_a_second_director_is_refused_before_it_touches_anything(house: House) -> None:
    with pytest.raises(TerminalError, match="another director is running with the state directory") as raised:
        async with directing(house.director.settings, clock=SystemClock()):
            pass
    assert f"process {os.getpid()}" in raised.value.hint
    assert (await house.tell("reconcile"))["ok"]


async def test_a_socket_that_somebody_answers_on_is_left_alone(house: House) -> None:
    with pytest.raises(TerminalError, match="another director is running"):
        await _serving(house.director, house.reader).admin.start()
    assert (await house.tell("reconcile"))["ok"]


async def test_something_else_in_the_socket_s_place_is_never_removed(house: House, tmp_path: Path) -> None:
    admin = _serving(house.director, house.reader).admin
    admin._path = tmp_path / "precious"
    admin._path.write_text("mine")
    with pytest.raises(TerminalError, match="is in the way"):
        await admin.start()
    assert admin._path.read_text() == "mine"


async def test_a_path_too_long_for_a_socket_is_an_error_in_words(house: House, tmp_path: Path) -> None:
    admin = _serving(house.director, house.reader).admin
    admin._path = tmp_path / ("x" * 120)
    with pytest.raises(TerminalError, match="cannot make the socket of the director's commands"):
        await admin.start()


# --- Operations -------------------------------------------------------------------------------------------------------


async def test_a_token_is_shown_once_and_kept_as_a_hash(house: House) -> None:
    done = await house.command("token", "create", "--uses", "3", "--note", "web fleet", "--lifetime", "2d")
    assert done.exit_code == 0, done.output
    made = EnrolmentString.from_text(done.stdout.strip())
    assert made.director == house.director.identity.public.text
    (kept,) = await house.ask("tokens")
    assert (kept["note"], kept["usesLeft"], kept["id"]) == ("web fleet", 3, hash_token(made.token)[:12])
    assert made.token not in json.dumps(kept)
    for file in house.state.glob("store.sqlite*"):
        assert made.token.encode() not in file.read_bytes()
    assert ("TokenCreated", ME) in await house.events()


async def test_a_revoked_token_is_worthless_and_an_unknown_one_is_named(house: House) -> None:
    identifier = (await house.tell("token_create"))["id"]
    assert (await house.command("token", "revoke", identifier)).exit_code == 0
    (kept,) = await house.ask("tokens")
    assert kept["revoked"]
    done = await house.command("token", "revoke", "nonsense")
    assert (done.exit_code, "there is no token 'nonsense'" in done.output) == (2, True)
    assert ("TokenRevoked", ME) in await house.events()


async def test_a_token_that_cannot_be_made_is_refused(house: House) -> None:
    for words in (["--uses", "0"], ["--uses", "many"], ["--lifetime", "soon"], ["--lifetime", ""]):
        assert (await house.command("token", "create", *words)).exit_code == 2
    assert await house.ask("tokens") == []


@pytest.mark.parametrize("by", ["name", "fingerprint", "bare fingerprint", "key"])
async def test_a_pending_client_is_approved_by_whatever_names_it(house: House, by: str) -> None:
    pending = await house.wait_for("db-1")
    text = {
        "name": "db-1",
        "fingerprint": pending.fingerprint,
        "bare fingerprint": pending.fingerprint.removeprefix("SHA256:"),
        "key": pending.public_key,
    }[by]
    done = await house.command("clients", "approve", text)
    assert (done.exit_code, done.output) == (0, f"approved {pending.fingerprint} as 'db-1'\n")
    assert house.director.gateway.audience("db-1") == OTHER.public.text
    assert ("ClientApproved", ME) in await house.events()


async def test_a_client_can_be_approved_under_another_name(house: House) -> None:
    await house.wait_for("localhost")
    assert (await house.command("clients", "approve", "localhost", "--name", "db-9")).exit_code == 0
    assert house.director.gateway.audience("db-9") == OTHER.public.text
    bad = await house.command("clients", "approve", "localhost", "--name", "../x")
    assert bad.exit_code == 2


async def test_the_snippet_of_a_pending_client_is_what_approves_it(house: House) -> None:
    await house.wait_for("db-1")
    output = (await house.command("clients", "pending")).output
    start = output.index("    apiVersion")
    snippet = "\n".join(line[4:] for line in output[start:].split("\n\n")[0].splitlines())
    house.git.commit("approve", **{"db-1": snippet})
    assert (await house.tell("reconcile"))["ok"]
    assert house.director.gateway.audience("db-1") == OTHER.public.text


async def test_nobody_waiting_is_no_error_and_an_unknown_client_is(house: House) -> None:
    assert (await house.command("clients", "pending")).output == "nobody is waiting\n"
    for word in ("approve", "revoke"):
        done = await house.command("clients", word, "nobody")
        assert (done.exit_code, "'nobody'" in done.output) == (2, True)


async def test_a_revoked_client_is_out_at_once_although_it_stands_in_git(house: House) -> None:
    assert house.director.gateway.audience("web-1") == HERE.public.text
    done = await house.command("clients", "revoke", "web-1")
    assert (done.exit_code, done.output) == (0, f"revoked {HERE.public.fingerprint} of 'web-1'\n")
    assert house.director.gateway.audience("web-1") is None
    assert (await house.tell("reconcile"))["ok"]
    assert house.director.gateway.audience("web-1") is None
    assert ("ClientRevoked", ME) in await house.events()


async def test_unlocking_an_address_that_is_not_locked_says_so(house: House) -> None:
    done = await house.command("clients", "unlock", "203.0.113.7")
    assert (done.exit_code, "is not locked out" in done.output) == (2, True)
    assert (await house.command("clients", "unlock", "no address")).exit_code == 2
    assert "no address is locked out" in (await house.command("clients", "list", "--locked")).output


async def test_reconcile_waits_and_tells_how_the_pass_ended(house: House) -> None:
    house.git.commit("broken", rest=REST.replace("[nas]", "[nsa]"))
    done = await house.command("reconcile", "--wait")
    assert done.exit_code == 1
    assert "rest.yaml:11:18: error: there is no Repository 'nsa'\n" in done.output
    assert "\n  >   11 |   repositories: [nsa]\n" in done.output
    assert "\n  hint: did you mean 'nas'?" in done.output
    house.git.commit("mended", rest=REST)
    done = await house.command("reconcile", "--wait", "-o", "json")
    assert (done.exit_code, json.loads(done.stdout)["revision"]) == (0, house.git.head())


async def test_reconcile_while_suspended_says_so_and_how_to_go_on(house: House) -> None:
    assert (await house.command("suspend")).exit_code == 0
    house.git.commit("more", rest=REST.replace("/etc", "/srv"))
    done = await house.command("reconcile", "--wait")
    assert (done.exit_code, "suspended" in done.output, "director resume" in done.output) == (1, True, True)
    assert (await house.ask("source"))["suspended"]
    assert (await house.command("resume")).exit_code == 0
    assert (await house.tell("reconcile"))["revision"] == house.git.head()
    assert [reason for reason, actor in await house.events() if actor == ME] == ["Resumed", "Suspended"]


async def test_a_held_revision_is_acknowledged_and_nothing_else_is(house: House) -> None:
    done = await house.command("acknowledge", "0123456789ab")
    assert (done.exit_code, "no held revision '0123456789ab'; held is: none" in done.output) == (2, True)
    before = house.git.head()
    house.git.write("rest.yaml", REST.partition("---")[0])
    revision = house.git.commit("nothing left")
    held = await house.command("reconcile", "--wait")
    assert (held.exit_code, f"director acknowledge {revision[:12]}" in held.output) == (1, True)
    assert (await house.ask("source"))["revision"] == before
    assert (await house.command("acknowledge", before)).exit_code == 2
    assert (await house.command("acknowledge", revision[:5])).exit_code == 2
    assert (await house.command("acknowledge", revision[:12])).exit_code == 0
    assert (await house.ask("source"))["revision"] == revision
    assert await house.director.store.acknowledged() == {revision}
    assert ("Acknowledged", ME) in await house.events()


async def test_a_hold_survives_a_pass_that_cannot_look_at_the_source(house: House) -> None:
    house.git.write("rest.yaml", REST.partition("---")[0])
    revision = house.git.commit("nothing left")
    await house.tell("reconcile")
    await house.tell("suspend")
    await house.tell("reconcile")
    assert (await house.ask("source"))["hold"]["revision"] == revision


# --- Questions and tables ---------------------------------------------------------------------------------------------

LISTS = (
    ["status"], ["drift"], ["runs"], ["archives"], ["backups"], ["events"],
    ["clients", "list"], ["clients", "list", "--locked"], ["clients", "pending"], ["token", "list"],
)  # fmt: skip


async def test_whatever_is_listed_is_a_table_json_and_yaml_without_colours_in_a_pipe(house: House) -> None:
    for words in LISTS:
        printed = {output: await house.command(*words, "-o", output) for output in ("table", "json", "yaml")}
        for done in printed.values():
            assert done.exit_code in {0, 1}, done.output
            assert "\x1b" not in done.output
        found = json.loads(printed["json"].stdout)
        assert type(yaml.safe_load(printed["yaml"].stdout)) is type(found)


async def test_status_says_by_its_exit_code_whether_a_person_is_needed(house: House) -> None:
    assert (await house.command("status")).exit_code == 0
    house.git.commit("broken", rest=REST.replace("[nas]", "[nsa]"))
    await house.tell("reconcile")
    done = await house.command("status")
    assert (done.exit_code, "there is no Repository 'nsa'" in done.output) == (1, True)


async def test_questions_without_an_answer_end_with_2(house: House) -> None:
    for words, message in (
        (["drift", "--client", "nobody"], "there is no client 'nobody'"),
        (["runs", "--run", "nonsense"], "there is no run 'nonsense'"),
        (["runs", "--outcome", "great"], "'great' is not an outcome; write one of succeeded, "),
        (["runs", "--limit", "0"], "--limit"),
        (["archives", "--limit", "99999"], "--limit"),
    ):
        done = await house.command(*words)
        assert (done.exit_code, message in done.output) == (2, True), done.output


async def test_hostile_words_of_a_client_do_not_reach_a_terminal(house: House) -> None:
    await house.director.store.event(
        reason="Odd", message="\x1b]0;owned\x07\nfaked  line \u202e", actor="web-1", at=datetime.now(UTC)
    )
    for output in ("table", "json", "yaml"):
        done = await house.command("events", "-o", output)
        assert all(char.isprintable() or char == "\n" for char in done.output), output


async def test_backups_are_listed_of_one_client_or_one_name(house: House) -> None:
    every = json.loads((await house.command("backups", "-o", "json")).stdout)
    one = every[0]

    of_client = json.loads((await house.command("backups", "--client", one["client"], "-o", "json")).stdout)
    of_name = json.loads((await house.command("backups", "--backup", one["backup"], "-o", "json")).stdout)

    assert [(row["client"], row["backup"]) for row in of_client] == [
        (row["client"], row["backup"]) for row in every if row["client"] == one["client"]
    ]
    assert {row["backup"] for row in of_name} == {one["backup"]}


async def test_a_misspelt_client_is_not_taken_for_one_without_runs(house: House) -> None:
    for question in ("runs", "archives", "backups", "events"):
        done = await house.command(question, "--client", "nope")
        assert (done.exit_code, done.output) == (2, "error: there is no client 'nope'\n"), question


async def test_following_ends_when_the_director_stops(house: House) -> None:
    seen: list[str] = []
    began = threading.Event()

    def follow() -> None:
        changes = Remote(house.socket).changes()
        began.set()
        seen.extend(changes)

    following = asyncio.create_task(asyncio.to_thread(follow))
    await asyncio.to_thread(began.wait, 10)
    readers = house.director.store._broadcast.readers
    async with asyncio.timeout(20):
        while not readers:
            await asyncio.sleep(0)
        await house.director.store.event(reason="X", message="", actor="", at=datetime.now(UTC))
        for reader in list(readers):
            reader.close()
        await following
    assert "events" in seen


# --- Requests of nobody we know ---------------------------------------------------------------------------------------


async def test_only_what_stands_in_the_table_can_be_called(house: House) -> None:
    for name in ("_suspend", "__init__", "_event", "nonsense", "client_approve%00", "..%2fsuspend"):
        status, said = await house.post(name, b"{}")
        assert (status, "there is no operation" in said["error"]) == (422, True), name
    assert set(OPERATIONS) <= {name for name in dir(Operations) if not name.startswith("_")}


async def test_a_request_that_is_none_is_refused_in_words(house: House) -> None:
    bodies = [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"text": 1}', b'{"text": ""}', b'{"nonsense": 1}']
    for body in (*bodies, b'{"text": "' + b"x" * 300 + b'"}', b"[" * 50_000):
        status, said = await house.post("client_approve", body)
        assert (status, bool(said["error"])) == (422, True), body
    assert (await house.tell("reconcile"))["ok"]


async def test_a_huge_request_is_refused_before_it_is_kept(house: House) -> None:
    status, said = await house.post("client_approve", b"x" * (MAX_REQUEST + 1))
    assert (status, bool(said["error"])) == (413, True)
    assert (await house.tell("reconcile"))["ok"]


async def test_any_other_request_gets_its_own_error(house: House) -> None:
    for path, status in (
        ("/v1/read/nonsense", 422),
        ("/v1/read/client", 422),
        ("/v1/read/run", 422),
        ("/v1/read/run_log", 422),
        ("/v1/read/runs?limit=x", 422),
        ("/v1/read/runs?limit=-1", 422),
        ("/v1/read/runs?limit=99999999999999999999", 200),
        ("/v1/read/runs?question=events&self=1&reader=x", 200),
        ("/v1/read/client?name=%00%ff", 422),
        ("/nonsense", 404),
        ("/v1/suspend", 405),
    ):
        found, said = await house.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert found == status, (path, said)


async def test_what_answers_but_is_no_director_is_said(tmp_path: Path) -> None:
    async def answer_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        writer.close()

    server = await asyncio.start_unix_server(answer_nonsense, str(tmp_path / "director.sock"))
    with pytest.raises(click.ClickException, match="is not a director"):
        await asyncio.to_thread(Remote(tmp_path / "director.sock").read, "overview")
    server.close()
    await server.wait_closed()


async def test_an_operation_that_waits_when_the_director_stops_is_told(house: House) -> None:
    waiting = asyncio.create_task(house.tell("reconcile"))
    async with asyncio.timeout(20):
        while not house.director.reconciler._rhythm._waiters and not waiting.done():
            await asyncio.sleep(0)
        house.director.reconciler.stop()
        await asyncio.wait([waiting])
        error = waiting.exception()
        assert "outcome" in waiting.result() if error is None else str(error) == "the director is stopping"
        with pytest.raises(click.ClickException, match="the director is stopping"):
            await house.tell("reconcile")
