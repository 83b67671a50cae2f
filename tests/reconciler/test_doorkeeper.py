"""Who is let in: tokens, names, keys and lockouts, over real sockets with the real store."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.gateway import GatewaySettings
from schema import envelope, wire
from schema.addresses import Proxies
from schema.envelope import ClientIdentity
from schema.wire import RefusalCode, State
from tests.reconciler.house import (
    LOOPBACK,
    House,
    event,
    in_state,
    refusal,
    refused,
    reports,
)

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


async def test_before_the_first_revision_is_known_a_stranger_is_asked_to_come_back_soon(house, me, other):
    house.gateway.await_source()
    client = await house.dial()
    refusal = await client.shake_hands(me)
    assert (refusal["code"], refusal["retry_after"] <= 20.0) == (RefusalCode.BUSY, True)
    assert (await (await house.dial()).shake_hands(other, token=await house.token()))["type"] == "pending"

    house.commit(web_1=me)

    assert (await (await house.dial()).shake_hands(me))["type"] == "accepted"
    assert await refused(await house.dial(), ClientIdentity.generate()) == RefusalCode.TOKEN_REQUIRED


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
    await house.until("select reason from events", [("KeyConflict",)])
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
