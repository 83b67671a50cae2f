"""The gateway over real sockets, with the real store: every test talks to it byte by byte, as a stranger could."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop
from sqlalchemy import text

from reconciler import tls
from reconciler.core.issue import Issued
from reconciler.gateway import Gateway, GatewaySettings
from reconciler.listen import Address, Proxies
from reconciler.metrics import Metrics, metrics_text
from reconciler.store import Store
from schema import envelope, wire
from schema.desired import Content
from schema.envelope import ClientIdentity, DirectorIdentity
from schema.errors import TerminalError, TransientError, TrustError
from schema.resources import Directories
from schema.status import TokenStatus
from schema.wire import RefusalCode, State
from tests.client.virtual_clock import VirtualClock
from tests.reconciler import wire_client
from tests.reconciler.wire_client import Closed, WireClient, frame

LOOPBACK = Address(host="127.0.0.1")
EPOCH = "ab" * 16


@dataclass
class House:
    """A director's gateway with everything it needs, and the hands that a person and the loop have on it."""

    directory: Path
    identity: DirectorIdentity = field(default_factory=DirectorIdentity.generate)
    clock: VirtualClock = field(default_factory=VirtualClock)
    settings: GatewaySettings = field(default_factory=lambda: GatewaySettings(listen=(LOOPBACK,)))
    certificate: tls.ServerCertificate | None = None
    ahead: list[tuple[str, int]] = field(default_factory=list)
    unready: str = ""
    git: dict[str, str] = field(default_factory=dict)

    async def open(self) -> None:
        self.store = await Store.open(self.directory / "store.sqlite")
        self.metrics = Metrics()
        self.gateway = Gateway(
            identity=self.identity,
            store=self.store,
            clock=self.clock,
            settings=self.settings,
            metrics=self.metrics,
            certificate=self.certificate,
            readiness=self._readiness,
            on_ahead=lambda name, generation: self.ahead.append((name, generation)),
        )
        await self.gateway.start()
        self.gateway.set_source_clients(self.git)
        self.address = self.gateway.addresses[0]

    async def close(self) -> None:
        await self.gateway.stop()
        await self.store.close()
        await wire_client.hang_up_all()

    async def restart(self) -> None:
        await self.gateway.stop()
        await self.store.close()
        await self.open()

    async def _readiness(self) -> str:
        return self.unready

    async def dial(self, **headers: str) -> WireClient:
        return await WireClient.dial(self.address, headers=headers)

    async def enter(self, identity: ClientIdentity, name: str = "web-1") -> WireClient:
        """Return an open session of an approved client."""
        client = await self.dial()
        answer = await client.shake_hands(identity, name=name)
        assert answer["type"] == "accepted"
        return client

    def commit(self, **keys: ClientIdentity) -> None:
        """Publish a revision with these clients."""
        self.git = {name.replace("_", "-"): identity.public.text for name, identity in keys.items()}
        self.gateway.set_source_clients(self.git)

    async def token(self, *, uses: int = 1, seconds: float = 3600) -> str:
        token = envelope.random_token()
        now = self.clock.now()
        status = TokenStatus(
            id=envelope.hash_token(token)[:12], created=now, expires=now + timedelta(seconds=seconds), uses_left=uses
        )
        await self.store.create_token(status, token_hash=envelope.hash_token(token))
        return token

    async def decide(self) -> None:
        """What the admin socket does after a person's decision."""
        self.gateway.registry_changed(
            approvals=await self.store.approvals(),
            revoked=[one.public_key for one in await self.store.revocations()],
            pending=[one.public_key for one in await self.store.pending()],
        )

    async def approve(self, identity: ClientIdentity, name: str = "web-1") -> None:
        await self.store.approve(public_key=identity.public.text, name=name, by="ana", at=self.clock.now())
        await self.decide()

    async def revoke(self, identity: ClientIdentity, name: str = "web-1") -> None:
        await self.store.revoke(public_key=identity.public.text, name=name, by="ana", at=self.clock.now())
        await self.decide()

    async def issue(self, identity: ClientIdentity, *, name: str = "web-1", generation: int = 7, size: int = 10) -> str:
        """Issue and publish a desired state; return its digest."""
        content = Content(client=name, directories=Directories())
        now = self.clock.now()
        issued = Issued(
            client=name,
            audience=identity.public.text,
            generation=generation,
            digest=content.digest(),
            revision="c" * 40,
            issued=now,
            expires=now + timedelta(days=90),
            envelope=json.dumps({"generation": generation, "filling": "x" * size}).encode(),
            content=content,
        )
        await self.store.publish(
            clients=(), backups=(), issued=(issued,), removed_clients=(), removed_backups=(), at=now
        )
        await self.gateway.publish([name])
        return content.digest()

    async def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Return what stands in the store."""
        return await self.store._read(lambda connection: [tuple(row) for row in connection.execute(text(statement))])

    async def until(self, statement: str, expected: list[tuple[Any, ...]]) -> None:
        """Wait until the store says so."""
        while await self.rows(statement) != expected:
            await asyncio.sleep(0)

    async def events(self) -> list[str]:
        return [reason for (reason,) in await self.rows("select reason from events order by id")]

    def count(self, line: str) -> float:
        """Return one number of /metrics."""
        for found in metrics_text(self.metrics).decode().splitlines():
            if found.startswith(f"borgmatic_director_{line} "):
                return float(found.rpartition(" ")[2])
        return 0.0


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def me() -> ClientIdentity:
    return ClientIdentity.generate()


@pytest.fixture
def other() -> ClientIdentity:
    return ClientIdentity.generate()


async def refusal(client: WireClient) -> dict[str, Any]:
    """Return the refusal that comes next, after which the connection ends."""
    answer = await client.receive()
    assert answer["type"] == "refused", answer
    await client.closed()
    return answer


async def refused(client: WireClient, identity: ClientIdentity, **arguments: Any) -> str:
    answer = await client.shake_hands(identity, **arguments)
    assert answer["type"] == "refused", answer
    await client.closed()
    return str(answer["code"])


async def everything(client: WireClient) -> list[dict[str, Any]]:
    """Return what still comes until the connection ends."""
    heard = []
    try:
        while True:
            heard.append(await client.receive())
    except Closed:
        return heard


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


def reports(*items: tuple[int, dict[str, Any]], epoch: str = EPOCH) -> dict[str, Any]:
    numbered = [{"sequence": sequence, "report": report} for sequence, report in items]
    return {"type": "reports", "epoch": epoch, "items": numbered}


def event(reason: str = "Applied") -> dict[str, Any]:
    return {"type": "event", "at": "2026-11-23T12:00:00Z", "reason": reason, "message": "well"}


# --- The whole way ---


async def test_a_new_client_is_enrolled_approved_given_its_state_and_heard(house, me):
    client = await house.dial()

    answer = await client.shake_hands(me, token=await house.token())
    assert (answer["type"], answer["fingerprint"]) == ("pending", me.public.fingerprint)
    assert [key.name for key in await house.store.pending()] == ["web-1"]

    house.commit(web_1=me)
    answer = await client.receive()
    assert (answer["type"], answer["name"], answer["resend"]) == ("accepted", "web-1", True)
    assert house.gateway.audience("web-1") == me.public.text

    client.send(wire.Pull())
    assert await client.receive() == {"type": "current", "generation": 0}
    digest = await house.issue(me)
    desired = await client.receive()
    assert desired["type"] == "desired"
    assert json.loads(desired["envelope"])["generation"] == 7
    client.send(wire.Pull(generation=7, digest=digest))
    assert await client.receive() == {"type": "current", "generation": 7}

    client.send(reports((1, event()), (2, event("Healed"))))
    assert await client.receive() == {"type": "acknowledged", "epoch": EPOCH, "sequence": 2}
    assert {"Applied", "Healed"} <= set(await house.events())
    assert house.ahead == []


async def test_a_client_comes_back_and_is_asked_to_resend_nothing(house, me):
    house.commit(web_1=me)
    client = await house.enter(me)
    client.send(reports((1, event())))
    await client.receive()
    await client.hang_up()

    answer = await (await house.dial()).shake_hands(me)

    assert answer["resend"] is False


async def test_a_person_approves_by_command(house, me):
    client = await house.dial()
    await client.shake_hands(me, token=await house.token())

    await house.approve(me, "db-1")

    assert (await client.receive())["name"] == "db-1"


async def test_what_is_published_while_a_session_opens_comes_after_it_was_accepted(house, me):
    await house.issue(me)
    client = await house.dial()
    _, said = await client.challenge(me)
    house.commit(web_1=me)
    answering = asyncio.ensure_future(client.prove(me, said))
    await until(lambda: house.gateway.connected == {"web-1"})
    await house.gateway.publish(["web-1"])

    assert (await answering)["type"] == "accepted"
    assert (await client.receive())["type"] == "desired"


async def test_the_presence_of_a_client_is_kept(house, me):
    house.commit(web_1=me)
    client = await house.enter(me)
    await house.until("select client, connected from observed", [("web-1", 1)])

    await client.hang_up()

    await house.until("select client, connected from observed", [("web-1", 0)])
    assert house.gateway.connected == frozenset()


async def test_a_unix_socket_serves_its_user_alone(tmp_path, me):
    path = tmp_path / "director.sock"
    house = House(tmp_path, settings=GatewaySettings(listen=(Address(path=str(path)),)))
    await house.open()
    house.commit(web_1=me)

    assert path.stat().st_mode & 0o777 == 0o600
    client = await house.enter(me)
    await house.close()
    assert (await client.receive())["code"] == RefusalCode.SHUTTING_DOWN
    assert not path.exists()


# --- Tokens ---


async def test_an_unknown_key_needs_a_token(house, me):
    assert await refused(await house.dial(), me) == RefusalCode.TOKEN_REQUIRED
    assert await house.store.pending() == []


async def test_a_token_has_counted_uses(house, me, other):
    token = await house.token(uses=1)

    assert (await (await house.dial()).shake_hands(me, token=token))["type"] == "pending"
    assert await refused(await house.dial(), other, token=token) == RefusalCode.TOKEN_INVALID


async def test_one_token_shown_by_many_at_once_lets_in_as_many_as_it_may(house):
    token = await house.token(uses=3)
    clients = [await house.dial() for _ in range(8)]

    answers = await asyncio.gather(*(one.shake_hands(ClientIdentity.generate(), token=token) for one in clients))

    assert sorted(answer["type"] for answer in answers) == ["pending"] * 3 + ["refused"] * 5


async def test_a_key_that_waits_needs_no_token_again_not_even_after_a_restart(house, me):
    await (await house.dial()).shake_hands(me, token=await house.token())

    assert (await (await house.dial()).shake_hands(me))["type"] == "pending"
    await house.restart()
    assert (await (await house.dial()).shake_hands(me))["type"] == "pending"


async def test_an_expired_token_is_worth_nothing(house, me):
    token = await house.token(seconds=60)
    await house.clock.advance(61)

    assert await refused(await house.dial(), me, token=token) == RefusalCode.TOKEN_INVALID


async def test_a_revoked_token_is_worth_nothing(house, me):
    token = await house.token()
    await house.store.revoke_token((await house.store.tokens())[0].id)

    assert await refused(await house.dial(), me, token=token) == RefusalCode.TOKEN_INVALID


async def test_a_token_is_not_spent_by_an_approved_client(house, me):
    house.commit(web_1=me)
    token = await house.token(uses=1)

    assert (await (await house.dial()).shake_hands(me, token=token))["type"] == "accepted"
    assert (await house.store.tokens())[0].uses_left == 1


async def test_a_token_is_not_spent_without_a_good_signature(house, me, other):
    token = await house.token(uses=1)
    client = await house.dial()
    _, said = await client.challenge(me)

    assert (await client.prove(other, said, token=token))["code"] == RefusalCode.BAD_SIGNATURE
    assert (await house.store.tokens())[0].uses_left == 1


# --- Names and keys ---


async def test_another_key_is_never_given_an_approved_name(house, me, other):
    house.commit(web_1=me)
    mine = await house.enter(me)

    assert await refused(await house.dial(), other, token=await house.token()) == RefusalCode.KEY_CONFLICT

    mine.send(wire.Pull())
    assert (await mine.receive())["type"] == "current"
    assert "KeyConflict" in await house.events()
    assert await house.store.pending() == []


async def test_whoever_resolved_a_conflict_needs_no_second_token(house, me, other):
    house.commit(web_1=me)
    await refused(await house.dial(), other, token=await house.token())
    await house.revoke(me)

    assert (await (await house.dial()).shake_hands(other))["type"] == "pending"


async def test_an_approved_key_is_called_as_it_was_approved(house, me):
    house.commit(db_1=me)
    client = await house.dial()

    assert (await client.shake_hands(me, name="web-1"))["name"] == "db-1"


async def test_no_message_says_who_a_session_is(house, me, other):
    house.commit(web_1=me, web_2=other)
    client = await house.enter(me)

    client.send({**reports((1, event("Impersonated"))), "client": "web-2", "name": "web-2", "key": other.public.text})
    await client.receive()

    found = await house.rows("select client from events where reason = 'Impersonated'")
    assert found == [("web-1",)]


async def test_a_client_is_given_its_own_state_only(house, me, other):
    house.commit(web_1=me, web_2=other)
    await house.issue(other, name="web-2")
    client = await house.enter(me)

    client.send({"type": "pull", "name": "web-2", "client": "web-2"})

    assert await client.receive() == {"type": "current", "generation": 0}


async def test_a_state_that_was_issued_to_another_key_of_the_name_is_not_sent(house, me, other):
    house.commit(web_1=me)
    await house.issue(other)
    client = await house.enter(me)

    client.send(wire.Pull())

    assert await client.receive() == {"type": "current", "generation": 0}


@pytest.mark.parametrize("half", ["signing", "sealing"])
async def test_a_key_of_small_order_is_refused(house, me, half):
    raw = envelope.decode_bytes(me.public.text.removeprefix("bd1-client."))
    weak = (1).to_bytes(32, "little")
    key = weak + raw[32:] if half == "signing" else raw[:32] + weak
    client = await house.dial()
    hello = {"type": "hello", "versions": [1], "name": "web-1", "nonce": envelope.encode_bytes(bytes(32))}

    client.send({**hello, "key": "bd1-client." + envelope.encode_bytes(key)})

    assert (await refusal(client))["code"] == RefusalCode.BAD_KEY


# --- Revocation ---


async def test_a_revoked_key_loses_its_live_session_at_once_and_stays_out(house, me):
    house.commit(web_1=me)
    client = await house.enter(me)

    await house.revoke(me)

    assert (await refusal(client))["code"] == RefusalCode.REVOKED
    assert house.gateway.audience("web-1") is None
    assert await refused(await house.dial(), me) == RefusalCode.REVOKED
    await house.restart()
    assert await refused(await house.dial(), me) == RefusalCode.REVOKED


async def test_what_a_revoked_session_still_sends_is_not_heard(house, me):
    house.commit(web_1=me)
    client = await house.enter(me)
    client.send(wire.Pull())
    await client.receive()

    await house.store.revoke(public_key=me.public.text, name="web-1", by="ana", at=house.clock.now())
    decided = asyncio.ensure_future(house.decide())
    client.send(reports((1, event("TooLate"))))
    await decided
    client.send(reports((2, event("FarTooLate"))))

    await everything(client)
    assert "FarTooLate" not in await house.events()


async def test_a_client_that_was_removed_from_git_loses_its_session(house, me):
    house.commit(web_1=me)
    client = await house.enter(me)

    house.commit()

    assert (await refusal(client))["code"] == RefusalCode.REVOKED
    assert await refused(await house.dial(), me) == RefusalCode.TOKEN_REQUIRED


async def test_a_renamed_client_comes_back_under_its_new_name(house, me):
    house.commit(web_1=me)
    client = await house.enter(me)

    house.commit(web_9=me)

    answer = await refusal(client)
    assert answer["retry_after"] <= 1
    await house.enter(me)
    assert house.gateway.connected == {"web-9"}


async def test_a_waiting_key_that_is_revoked_is_sent_away(house, me):
    client = await house.dial()
    await client.shake_hands(me, token=await house.token())

    await house.revoke(me)

    assert (await refusal(client))["code"] == RefusalCode.REVOKED


async def test_a_waiting_key_whose_name_goes_to_another_is_told_so(house, me, other):
    client = await house.dial()
    await client.shake_hands(me, token=await house.token())

    house.commit(web_1=other)

    assert (await refusal(client))["code"] == RefusalCode.KEY_CONFLICT


# --- Frames that are not right ---


async def in_state(house: House, state: State, me: ClientIdentity) -> WireClient:
    """Return a connection whose session stands in ``state``."""
    client = await house.dial()
    match state:
        case State.CHALLENGED:
            await client.challenge(me)
        case State.PENDING:
            assert (await client.shake_hands(me, token=await house.token()))["type"] == "pending"
        case State.OPEN:
            house.commit(web_1=me)
            assert (await client.shake_hands(me))["type"] == "accepted"
    return client


MESSAGES: dict[str, dict[str, Any]] = {
    "hello": {"type": "hello", "versions": [1], "name": "web-1", "key": "bd1-client." + "A" * 86, "nonce": "A" * 43},
    "proof": {"type": "proof", "signature": "A" * 86},
    "pull": {"type": "pull"},
    "reports": reports((1, event())),
    "progress": {
        "type": "progress",
        "progress": {"at": "2026-11-23T12:00:00Z", "run": EPOCH, "backup": "files"},
    },
    "accepted": {"type": "accepted", "name": "web-1", "time": "2026-11-23T12:00:00Z"},
}
BAD_FRAMES = {
    "no JSON": frame(b"{"),
    "empty": frame(b""),
    "binary": frame(b'{"type": "pull"}', opcode=wire_client.BINARY),
    "no UTF-8": frame(b"\xff\xfe"),
    "a reserved bit": frame(b"{}", reserved=0x40),
    "an unknown opcode": frame(b"{}", opcode=5),
    "a continuation of nothing": frame(b"{}", opcode=0),
    "a text within a text": frame(b"{", fin=False) + frame(b"}"),
    "a long ping": frame(b"x" * 200, opcode=wire_client.PING),
    "a bad close": frame(b"\x00", opcode=wire_client.CLOSE),
    "a length of nine exabytes": b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0",
    "deep nesting": frame(b'{"type":' + b"[" * 5000),
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("kind", MESSAGES)
async def test_a_message_out_of_order_ends_the_session_in_every_state(house, me, kind, state):
    if kind in wire.DIRECTOR_ACCEPTS[state]:
        pytest.skip("in order here")
    client = await in_state(house, state, me)

    client.send(MESSAGES[kind])

    assert (await refusal(client))["code"] == RefusalCode.MALFORMED
    await until(lambda: house.gateway.connected == frozenset())


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("data", BAD_FRAMES.values(), ids=BAD_FRAMES.keys())
async def test_a_bad_frame_ends_the_session_in_every_state_and_nobody_elses(house, me, other, data, state):
    client = await in_state(house, state, me)
    house.commit(web_1=me, web_2=other)
    if state is State.PENDING:
        await client.receive()
    neighbour = await house.enter(other, "web-2")

    client.send_bytes(data)

    assert {message["type"] for message in await everything(client)} <= {"refused"}
    neighbour.send(wire.Pull())
    assert (await neighbour.receive())["type"] == "current"


@pytest.mark.parametrize("state", [State.START, State.CHALLENGED])
async def test_a_stranger_is_cut_off_before_a_large_frame_has_come(house, me, state):
    client = await in_state(house, state, me)

    client.send_bytes(frame(b" " * wire.MAX_CLIENT_FRAME)[:100_000])

    assert (await refusal(client))["code"] == RefusalCode.TOO_LARGE
    await house.until("select failures from lockouts", [(1,)])


@pytest.mark.parametrize("state", [State.START, State.CHALLENGED])
async def test_a_handshake_frame_is_small(house, me, state):
    client = await in_state(house, state, me)

    client.send(json.dumps({**MESSAGES["hello"], "filling": "x" * wire.MAX_HANDSHAKE_FRAME}))

    assert (await refusal(client))["code"] == RefusalCode.TOO_LARGE


async def test_a_frame_beyond_a_mebibyte_ends_an_open_session(house, me):
    house.commit(web_1=me)
    client = await house.enter(me)

    client.send_bytes(frame(b" " * (wire.MAX_CLIENT_FRAME + 1)))

    with pytest.raises(Closed) as closed:
        await client.receive()
    assert closed.value.code in {1009, 0}


async def test_a_message_in_a_thousand_fragments_is_one_message(house, me):
    house.commit(web_1=me)
    client = await house.enter(me)
    message = json.dumps({"type": "pull", "filling": "x" * 1000}).encode()
    pieces = [message[place : place + 1] for place in range(len(message))]

    client.send_bytes(frame(pieces[0], fin=False))
    for piece in pieces[1:-1]:
        client.send_bytes(frame(piece, opcode=0, fin=False))
    client.send_bytes(frame(pieces[-1], opcode=0))

    assert (await client.receive())["type"] == "current"


@pytest.mark.parametrize("state", State)
async def test_a_frame_cut_off_in_the_middle_leaves_nothing_behind(house, me, state):
    client = await in_state(house, state, me)

    client.send_bytes(frame(b'{"type": "pull"}')[:9])
    await client.hang_up()

    await until(lambda: house.gateway.connected == frozenset())
    await until(lambda: not house.gateway._sessions and not house.gateway._waiting)


# --- Handshakes that are not right ---


async def test_a_proof_made_for_another_challenge_is_worth_nothing(house, me):
    house.commit(web_1=me)
    first, second = await house.dial(), await house.dial()
    _, said = await first.challenge(me)
    await second.challenge(me)

    assert (await second.prove(me, said))["code"] == RefusalCode.BAD_SIGNATURE


async def test_a_recorded_handshake_cannot_be_played_again(house, me):
    house.commit(web_1=me)
    nonce = envelope.encode_bytes(envelope.random_nonce())
    hello = {**MESSAGES["hello"], "key": me.public.text, "nonce": nonce}
    challenges = []
    for _ in range(2):
        client = await house.dial()
        client.send(hello)
        challenges.append((await client.receive())["nonce"])

    assert challenges[0] != challenges[1]


async def test_a_signature_for_another_purpose_is_worth_nothing(house, me):
    house.commit(web_1=me)
    client = await house.dial()
    _, said = await client.challenge(me)

    signature = me.sign(purpose=envelope.CHALLENGE_PURPOSE, data=said)
    client.send({"type": "proof", "signature": envelope.encode_bytes(signature)})

    assert (await refusal(client))["code"] == RefusalCode.BAD_SIGNATURE


async def test_nobody_enters_with_the_key_of_another(house, me, other):
    house.commit(web_1=me)
    client = await house.dial()
    _, said = await client.challenge(me)

    assert (await client.prove(other, said))["code"] == RefusalCode.BAD_SIGNATURE


async def test_offered_versions_that_were_changed_on_the_way_do_not_fit_the_proof(house, me):
    house.commit(web_1=me)
    client = await house.dial()
    nonce = envelope.random_nonce()
    # The client offered 2 and 1; somebody on the way struck out the 2.
    client.send({**MESSAGES["hello"], "key": me.public.text, "nonce": envelope.encode_bytes(nonce), "versions": [1]})
    challenge = await client.receive()
    said = envelope.transcript(
        offered=(2, 1),
        chosen=challenge["version"],
        name="web-1",
        client_key=me.public.text,
        director_key=challenge["key"],
        client_nonce=nonce,
        director_nonce=envelope.decode_bytes(challenge["nonce"]),
        channel="",
    )
    signature = envelope.decode_bytes(challenge["signature"])

    with pytest.raises(TrustError):
        house.identity.public.verify(signature, purpose=envelope.CHALLENGE_PURPOSE, data=said)
    assert (await client.prove(me, said))["code"] == RefusalCode.BAD_SIGNATURE


async def test_a_client_of_an_unknown_version_is_refused_and_not_counted(house, me):
    for _ in range(12):
        client = await house.dial()
        answer, _ = await client.challenge(me, versions=(7,))
        assert answer["code"] == RefusalCode.VERSION
        await client.closed()

    assert house.gateway.locked == []


@pytest.mark.parametrize("said", ["nothing", "half a frame", "hello only"])
async def test_an_endless_handshake_is_cut_off(house, me, said):
    client = await house.dial()
    if said == "half a frame":
        client.send_bytes(frame(b'{"type": "hello"}')[:5])
    if said == "hello only":
        await client.challenge(me)
    await house.clock.until_somebody_sleeps(1.0)

    await house.clock.advance(wire.HANDSHAKE_SECONDS)

    assert (await refusal(client))["code"] == RefusalCode.TIMEOUT
    assert house.gateway.locked == []


async def test_frames_that_trickle_in_do_not_lengthen_a_handshake(house):
    client = await house.dial()
    await house.clock.until_somebody_sleeps(1.0)
    for byte in frame(b'{"type": "hello"')[: wire.HANDSHAKE_SECONDS - 1]:
        client.send_bytes(bytes([byte]))
        await house.clock.advance(1)

    await house.clock.advance(1)

    assert (await refusal(client))["code"] == RefusalCode.TIMEOUT


async def test_who_does_not_close_after_a_refusal_is_cut_off(house, me):
    client = await house.dial()
    _, said = await client.challenge(me)
    await client.prove(ClientIdentity.generate(), said)

    await house.clock.advance(10)

    while await client.reader.read(1000):
        pass


# --- Lockout ---


async def lock(house: House) -> None:
    """Fail ten times, with wrong tokens."""
    for _ in range(10):
        client = await house.dial()
        assert await refused(client, ClientIdentity.generate(), token=envelope.random_token()) == "token-invalid"


async def test_ten_wrong_tokens_lock_the_address_out_over_a_restart_and_for_an_hour(house, me):
    await lock(house)
    good = await house.token(seconds=10_000)

    assert house.gateway.locked == ["127.0.0.1"]
    assert await refused(await house.dial(), me, token=good) == RefusalCode.LOCKED_OUT
    assert house.count("lockouts_total") == 1
    await house.restart()
    assert await refused(await house.dial(), me, token=good) == RefusalCode.LOCKED_OUT
    assert (await house.events()).count("LockedOut") == 1

    await house.clock.advance(3601)
    assert (await (await house.dial()).shake_hands(me, token=good))["type"] == "pending"


async def test_a_locked_address_is_refused_before_the_director_signs_anything(house, me):
    await lock(house)
    client = await house.dial()

    answer, _ = await client.challenge(me)

    assert (answer["type"], answer["code"]) == ("refused", RefusalCode.LOCKED_OUT)
    assert 0 < answer["retry_after"] <= 3600


async def test_a_good_client_behind_a_locked_address_still_gets_in(house, me, other):
    house.commit(web_1=me)
    live = await house.enter(me)
    await lock(house)

    live.send(wire.Pull())
    assert (await live.receive())["type"] == "current"
    await house.enter(me)
    await house.restart()
    await house.enter(me)


async def test_the_name_of_an_approved_key_alone_opens_no_locked_address(house, me, other):
    house.commit(web_1=me)
    await lock(house)
    client = await house.dial()
    _, said = await client.challenge(me)

    assert (await client.prove(other, said))["code"] == RefusalCode.BAD_SIGNATURE


async def test_approved_keys_cannot_be_used_to_keep_the_director_signing_from_a_locked_address(house, me, other):
    house.commit(web_1=me)
    await lock(house)
    codes = []
    for _ in range(25):
        answer, _ = await (await house.dial()).challenge(me)
        codes.append(answer.get("code", "challenge"))

    assert codes == ["challenge"] * 20 + [RefusalCode.BUSY] * 5


async def test_a_person_unlocks(house, me):
    await lock(house)

    assert house.gateway.unlock("127.0.0.1")
    assert not house.gateway.unlock("127.0.0.1")

    token = await house.token()
    assert (await (await house.dial()).shake_hands(me, token=token))["type"] == "pending"
    await house.restart()
    assert house.gateway.locked == []


@pytest.mark.parametrize("state", [State.START, State.CHALLENGED])
async def test_malformed_handshakes_count_and_malformed_sessions_do_not(house, me, state):
    for _ in range(10):
        client = await in_state(house, state, me)
        client.send("{")
        await refusal(client)
    assert house.gateway.locked == ["127.0.0.1"]

    house.gateway.unlock("127.0.0.1")
    for _ in range(10):
        client = await in_state(house, State.OPEN, me)
        client.send("{")
        await refusal(client)
    assert house.gateway.locked == []


async def test_waiting_and_busy_clients_are_never_locked_out(house, me):
    await (await house.dial()).shake_hands(me, token=await house.token())
    for _ in range(12):
        await (await house.dial()).shake_hands(me)
        await refused(await house.dial(), ClientIdentity.generate())

    assert house.gateway.locked == []


async def test_a_jump_of_the_clock_ends_no_lock(house, me):
    await lock(house)
    for jump in (86_400.0, -864_000.0):
        house.clock.jump(jump)
        assert await refused(await house.dial(), me) == RefusalCode.LOCKED_OUT

    await house.clock.advance(3601)
    assert house.gateway.locked == []


async def test_a_proxy_is_believed_about_addresses_and_nobody_else_is(tmp_path, me):
    settings = GatewaySettings(listen=(LOOPBACK,), proxies=Proxies.parse(["127.0.0.1", "10.0.0.0/8"]))
    house = House(tmp_path, settings=settings)
    await house.open()
    for _ in range(10):
        client = await house.dial(**{"X-Forwarded-For": "192.0.2.99, 203.0.113.5, 10.1.1.1"})
        await refused(client, ClientIdentity.generate(), token=envelope.random_token())

    assert house.gateway.locked == ["203.0.113.5"]
    assert await refused(await house.dial(**{"X-Forwarded-For": "203.0.113.5"}), me) == RefusalCode.LOCKED_OUT
    assert await refused(await house.dial(), me) == RefusalCode.TOKEN_REQUIRED
    await house.close()


async def test_without_a_declared_proxy_a_forwarded_address_is_nothing(house, me):
    for number in range(10):
        client = await house.dial(**{"X-Forwarded-For": f"192.0.2.{number}"})
        await refused(client, ClientIdentity.generate(), token=envelope.random_token())

    assert house.gateway.locked == ["127.0.0.1"]


# --- Many, slow, and twice ---


async def test_a_second_session_of_a_key_replaces_the_first(house, me):
    house.commit(web_1=me)
    first = await house.enter(me)

    second = await house.enter(me)

    answer = await refusal(first)
    assert answer["code"] == RefusalCode.REPLACED
    assert answer["retry_after"] >= 60
    second.send(wire.Pull())
    assert (await second.receive())["type"] == "current"
    await house.until("select connected from observed", [(1,)])


async def test_too_many_handshakes_at_once_are_sent_away_spread_over_time(tmp_path, me):
    house = House(tmp_path, settings=GatewaySettings(listen=(LOOPBACK,), max_handshakes=4))
    await house.open()
    house.commit(web_1=me)
    idle = [await house.dial() for _ in range(2)]
    for client in idle:
        await client.challenge(ClientIdentity.generate())

    answers = [await refusal(await house.dial()) for _ in range(5)]

    assert {answer["code"] for answer in answers} == {RefusalCode.BUSY}
    assert len({answer["retry_after"] for answer in answers}) > 1
    await idle[0].hang_up()
    await until(lambda: house.gateway._door.handshakes == 1)
    await house.enter(me)
    await house.close()


async def test_too_many_waiting_clients_are_kept_in_mind_but_not_held(tmp_path, me, other):
    house = House(tmp_path, settings=GatewaySettings(listen=(LOOPBACK,), max_pending=1))
    await house.open()
    token = await house.token(uses=5)
    await (await house.dial()).shake_hands(me, token=token)

    assert await refused(await house.dial(), other, token=token) == RefusalCode.BUSY
    assert len(await house.store.pending()) == 2
    await house.close()


async def test_a_client_that_does_not_read_holds_up_nobody_and_is_dropped(house, me, other):
    house.commit(web_1=me, web_2=other)
    slow, quick = await house.enter(me), await house.enter(other, "web-2")
    slow.writer.transport.pause_reading()

    for generation in range(1, 6):
        await house.issue(me, generation=generation, size=4_000_000)
        await house.issue(other, name="web-2", generation=generation)
        assert json.loads((await quick.receive())["envelope"])["generation"] == generation
    assert house.gateway.connected == {"web-1", "web-2"}

    await house.clock.until_somebody_sleeps(1.0)
    await house.clock.advance(31)
    await until(lambda: house.gateway.connected == {"web-2"})


async def test_only_the_newest_of_many_states_is_sent_to_a_busy_session(house, me):
    house.commit(web_1=me)
    client = await house.enter(me)

    for generation in range(1, 50):
        await house.issue(me, generation=generation)
    generations = [0]
    while generations[-1] < 49:
        generations.append(json.loads((await client.receive())["envelope"])["generation"])

    assert generations == sorted(set(generations))


async def test_a_thousand_clients_are_published_to(house):
    identities = [ClientIdentity.generate() for _ in range(100)]
    names = {f"web-{number}": identity for number, identity in enumerate(identities)}
    house.git = {name: identity.public.text for name, identity in names.items()}
    house.gateway.set_source_clients(house.git)
    clients = {name: await house.enter(identity, name) for name, identity in names.items()}
    for name, identity in names.items():
        await house.issue(identity, name=name)

    assert {(await client.receive())["type"] for client in clients.values()} == {"desired"}


async def test_a_flood_of_frames_is_paced_and_not_punished(house, me):
    house.commit(web_1=me)
    client = await house.enter(me)
    for _ in range(450):
        client.send(wire.Pull())
    for _ in range(400):
        assert (await client.receive())["type"] == "current"
    for _ in range(50):
        await house.clock.until_somebody_sleeps(0.001)
        await house.clock.advance(0.02)
        assert (await client.receive())["type"] == "current"


# --- Desired states ---


async def test_a_client_that_holds_the_generation_but_lost_the_content_is_sent_it_again(house, me):
    house.commit(web_1=me)
    await house.issue(me, generation=7)
    client = await house.enter(me)

    client.send(wire.Pull(generation=7))

    assert (await client.receive())["type"] == "desired"


@pytest.mark.parametrize(("generation", "digest"), [(9, "sha256:" + "0" * 64), (7, "sha256:" + "0" * 64), (9, None)])
async def test_a_client_that_is_ahead_of_a_restored_director_is_told_on(house, me, generation, digest):
    house.commit(web_1=me)
    await house.issue(me, generation=7)
    client = await house.enter(me)

    client.send(wire.Pull(generation=generation, digest=digest))

    assert await client.receive() == {"type": "current", "generation": 7}
    assert house.ahead == [("web-1", generation)]


async def test_publishing_for_clients_that_are_not_there_is_nothing(house, me):
    house.commit(web_1=me)

    await house.gateway.publish(["web-1", "nobody"])


# --- Reports ---


async def test_reports_are_stored_once_however_often_they_are_sent(house, me):
    house.commit(web_1=me)
    client = await house.enter(me)

    for _ in range(3):
        client.send(reports((1, event("Once"))))
        assert (await client.receive())["sequence"] == 1
    await client.hang_up()
    client = await house.enter(me)
    client.send(reports((1, event("Once")), (2, event("Twice"))))
    assert (await client.receive())["sequence"] == 2

    assert [(await house.events()).count(reason) for reason in ("Once", "Twice")] == [1, 1]


async def test_a_report_that_cannot_be_read_holds_up_nothing(house, me):
    house.commit(web_1=me)
    client = await house.enter(me)
    future = {"type": "quantum-state", "at": "2026-11-23T12:00:00Z"}

    client.send(reports((1, future), (2, event("Readable")), (3, {}), (4, {"type": "event", "reason": "x" * 5000})))

    assert (await client.receive())["sequence"] == 4
    assert "Readable" in await house.events()
    await house.until("select count(*) from events where reason = 'ReportRefused'", [(1,)])
    assert house.count("reports_refused_total") == 3


@pytest.mark.parametrize("numbers", [(2, 1), (1, 1), (3, 5, 4)])
async def test_reports_out_of_order_end_the_session_and_store_nothing(house, me, numbers):
    house.commit(web_1=me)
    client = await house.enter(me)

    client.send(reports(*((number, event("Unordered")) for number in numbers)))

    assert (await refusal(client))["code"] == RefusalCode.MALFORMED
    assert "Unordered" not in await house.events()


async def test_many_frames_of_reports_are_acknowledged_in_their_order(house, me):
    house.commit(web_1=me)
    client = await house.enter(me)

    for number in range(1, 50):
        client.send(reports((number, event())))

    assert [(await client.receive())["sequence"] for _ in range(1, 50)] == list(range(1, 50))


async def test_progress_is_kept_and_never_answered(house, me):
    house.commit(web_1=me)
    client = await house.enter(me)
    started = {"type": "run-started", "at": "2026-11-23T12:00:00Z", "run": EPOCH, "backup": "files"}

    client.send(reports((1, {**started, "trigger": "person"})))
    client.send(MESSAGES["progress"])
    client.send(wire.Pull())

    assert [(await client.receive())["type"] for _ in range(2)] == ["acknowledged", "current"]


async def test_a_store_that_cannot_write_loses_nothing_and_blames_nobody(house, me):
    house.commit(web_1=me)
    client = await house.enter(me)
    await house.store._writer.close()

    client.send(reports((1, event())))

    answer = await refusal(client)
    assert answer["code"] == RefusalCode.BUSY
    assert answer["retry_after"] >= 15
    assert await refused(await house.dial(), me) == RefusalCode.BUSY
    assert house.gateway.locked == []


# --- Life ---


async def test_a_stop_sends_everybody_away_with_a_time_to_come_back(house):
    identities = {f"web-{number}": ClientIdentity.generate() for number in range(30)}
    house.git = {name: identity.public.text for name, identity in identities.items()}
    house.gateway.set_source_clients(house.git)
    clients = [await house.enter(identity, name) for name, identity in identities.items()]
    waiting = await house.dial()
    await waiting.shake_hands(ClientIdentity.generate(), name="new", token=await house.token())
    greeting = await house.dial()
    await greeting.challenge(ClientIdentity.generate())

    await house.restart()

    answers = [await refusal(client) for client in (*clients, waiting, greeting)]
    assert {answer["code"] for answer in answers} == {RefusalCode.SHUTTING_DOWN}
    assert all(answer["retry_after"] > 0 for answer in answers)
    assert len({answer["retry_after"] for answer in answers}) > 5
    for name, identity in identities.items():
        await house.enter(identity, name)
    assert house.gateway.connected == set(identities)


async def test_reports_that_are_being_stored_at_a_stop_are_stored(house, me):
    house.commit(web_1=me)
    client = await house.enter(me)
    client.send(reports(*((number, event("Last")) for number in range(1, 100))))
    await until(lambda: client.writer.transport.get_write_buffer_size() == 0)

    await house.restart()

    acknowledged = [answer for answer in await everything(client) if answer["type"] == "acknowledged"]
    stored = (await house.events()).count("Last")
    assert stored in {0, 99}
    assert not acknowledged or stored == 99


async def test_live_and_ready_are_told_apart(house):
    house.unready = "the first reconcile is not done yet"
    assert await wire_client.get(house.address, "/livez") == (200, "ok\n")
    assert await wire_client.get(house.address, "/readyz") == (503, "the first reconcile is not done yet\n")

    house.unready = ""
    assert await wire_client.get(house.address, "/readyz") == (200, "ok\n")

    await asyncio.to_thread(house.store._reader.shutdown)
    assert (await wire_client.get(house.address, "/readyz"))[0] == 503
    assert await wire_client.get(house.address, "/livez") == (200, "ok\n")


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/", 404), ("POST", "/v1/connect", 405), ("GET", "/v1/connect", 400)]
)
async def test_nothing_else_is_served(house, method, path, status):
    assert (await wire_client.get(house.address, path, method=method))[0] == status


async def test_numbers_are_served_beside_it_on_loopback_without_a_proxy_only(house, tmp_path, me):
    house.commit(web_1=me)
    await house.enter(me)
    status, body = await wire_client.get(house.address, "/metrics")
    assert status == 200
    assert 'borgmatic_director_connections{state="open"} 1.0' in body
    assert me.public.text not in body
    assert "web-1" not in body

    proxied = House(tmp_path / "proxied", settings=replace(house.settings, proxies=Proxies.parse(["127.0.0.1"])))
    proxied.directory.mkdir()
    await proxied.open()
    assert (await wire_client.get(proxied.address, "/metrics"))[0] == 404
    await proxied.close()


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", ":0", "192.0.2.7:8440", "director.example:8440"])
async def test_without_tls_the_director_does_not_start_where_others_can_listen(tmp_path, listen):
    house = House(tmp_path, settings=GatewaySettings(listen=(Address.parse(listen),)))

    with pytest.raises(TerminalError, match="without TLS"):
        await house.open()
    await house.store.close()


@pytest.mark.parametrize("text_", ["", "8440", "host", "host:port", "host:99999", "unix:relative", "1.2.3.4:-1"])
def test_an_address_that_is_none_is_refused(text_):
    with pytest.raises(TerminalError, match="cannot listen"):
        Address.parse(text_)


@pytest.mark.parametrize("text_", ["127.0.0.1:1", "[::1]:8440", "unix:/run/director.sock", "0.0.0.0:0"])
def test_an_address_is_written_as_it_is_read(text_):
    assert str(Address.parse(text_)) == text_


async def test_an_address_in_use_is_said_so(house, tmp_path):
    second = House(tmp_path / "second", settings=replace(house.settings, listen=(house.address,)))
    second.directory.mkdir()

    with pytest.raises(TransientError, match="is another director running"):
        await second.open()
    await second.store.close()


async def test_the_socket_of_a_killed_director_is_taken_over_and_a_file_is_not(tmp_path, me):
    path = tmp_path / "director.sock"
    house = House(tmp_path, settings=GatewaySettings(listen=(Address(path=str(path)),)))
    path.write_text("precious")
    with pytest.raises(TerminalError, match="something else"):
        await house.open()
    await house.store.close()
    path.unlink()

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        with pytest.raises(TransientError, match="somebody already does"):
            await house.open()
        await house.store.close()

    await house.open()
    house.commit(web_1=me)
    await house.enter(me)
    await house.close()


# --- TLS ---


def pinned(certificate: tls.ServerCertificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(certificate.certificate)
    return context


async def test_over_tls_the_handshake_is_bound_to_the_certificate(tmp_path, me):
    certificate = tls.self_signed_certificate(tmp_path, names=["127.0.0.1"], now=VirtualClock().now())
    house = House(tmp_path, certificate=certificate)
    await house.open()
    house.commit(web_1=me)
    client = await WireClient.dial(house.address, tls=pinned(certificate))

    assert client.channel == certificate.fingerprint
    assert (await client.shake_hands(me))["type"] == "accepted"
    await house.close()


async def test_a_man_in_the_middle_who_ends_tls_himself_cannot_pass_signatures_on(tmp_path, me):
    certificate = tls.self_signed_certificate(tmp_path, names=["127.0.0.1"], now=VirtualClock().now())
    house = House(tmp_path, certificate=certificate)
    await house.open()
    house.commit(web_1=me)
    client = await WireClient.dial(house.address, tls=pinned(certificate))
    client.channel = hashlib.sha256(b"the certificate of the man in the middle").hexdigest()

    with pytest.raises(TrustError, match="signature"):
        await client.challenge(me)
    await house.close()


async def test_plain_bytes_on_a_tls_port_hurt_nobody(tmp_path, me):
    certificate = tls.self_signed_certificate(tmp_path, names=["127.0.0.1"], now=VirtualClock().now())
    house = House(tmp_path, certificate=certificate)
    await house.open()
    house.commit(web_1=me)

    reader, writer = await wire_client.open_stream(house.address)
    writer.write(b"GET /livez HTTP/1.1\r\n\r\n")
    await reader.read()
    writer.close()

    client = await WireClient.dial(house.address, tls=pinned(certificate))
    assert (await client.shake_hands(me))["type"] == "accepted"
    await house.close()


# --- On the loop that the director runs on ---


@pytest.mark.parametrize(
    "story",
    [
        test_a_new_client_is_enrolled_approved_given_its_state_and_heard,
        test_a_client_that_does_not_read_holds_up_nobody_and_is_dropped,
        test_ten_wrong_tokens_lock_the_address_out_over_a_restart_and_for_an_hour,
        test_a_stop_sends_everybody_away_with_a_time_to_come_back,
        test_over_tls_the_handshake_is_bound_to_the_certificate,
    ],
)
def test_all_this_holds_on_uvloop_too(story, tmp_path):
    async def tell() -> None:
        house = House(tmp_path)
        await house.open()
        given = {
            "house": house,
            "me": ClientIdentity.generate(),
            "other": ClientIdentity.generate(),
            "tmp_path": tmp_path,
        }
        try:
            await story(**{name: given[name] for name in inspect.signature(story).parameters})
        finally:
            await house.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(tell())
