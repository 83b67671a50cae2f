"""Attacks on the wire, against the real gateway over real sockets."""

from __future__ import annotations

import asyncio
import json

import pytest

from reconciler.store.ingest import NOT_ONE_OUTBOX
from schema import envelope, wire
from schema.errors import TrustError
from schema.wire import RefusalCode
from tests.reconciler.house import MESSAGES, event, refusal, reports
from tests.reconciler.wire_client import frame

# --- Replay ---


async def test_the_frames_of_a_recorded_handshake_let_nobody_in(house, me):
    house.commit(web_1=me)
    nonce = envelope.random_nonce()
    hello = {**MESSAGES["hello"], "key": me.public.text, "nonce": envelope.encode_bytes(nonce)}
    client = await house.dial()
    client.send(hello)
    said = transcript(await client.receive(), me, nonce=nonce)
    signature = envelope.encode_bytes(me.sign(purpose=envelope.PROOF_PURPOSE, data=said))
    client.send({"type": "proof", "signature": signature})
    assert (await client.receive())["type"] == "accepted"

    thief = await house.dial()
    thief.send(hello)
    assert (await thief.receive())["type"] == "challenge"
    thief.send({"type": "proof", "signature": signature})

    assert (await refusal(thief))["code"] == RefusalCode.BAD_SIGNATURE
    assert house.gateway.connected == {"web-1"}


async def test_the_same_machine_lets_itself_in_as_often_as_it_likes(house, me):
    house.commit(web_1=me)

    for _ in range(3):
        assert (await (await house.dial()).shake_hands(me))["type"] == "accepted"


# --- Downgrade ---


async def test_a_version_struck_out_on_the_way_fits_neither_signature(house, me):
    house.commit(web_1=me)
    challenge, said = await hello_with(house, me, sent=(1,), meant=(2, 1))
    client, answer = challenge

    with pytest.raises(TrustError):
        house.identity.public.verify(
            envelope.decode_bytes(answer["signature"]), purpose=envelope.CHALLENGE_PURPOSE, data=said
        )
    assert (await client.prove(me, said))["code"] == RefusalCode.BAD_SIGNATURE


async def test_a_newer_client_agrees_on_the_version_that_both_speak(house, me):
    house.commit(web_1=me)
    (client, answer), said = await hello_with(house, me, sent=(2, 1), meant=(2, 1))

    house.identity.public.verify(
        envelope.decode_bytes(answer["signature"]), purpose=envelope.CHALLENGE_PURPOSE, data=said
    )
    assert answer["version"] == 1
    assert (await client.prove(me, said))["type"] == "accepted"


async def hello_with(house, me, *, sent, meant):
    """Say hello with the versions ``sent``; return client and challenge, and the transcript of what was ``meant``."""
    client = await house.dial()
    nonce = envelope.random_nonce()
    hello = {**MESSAGES["hello"], "key": me.public.text, "nonce": envelope.encode_bytes(nonce), "versions": sent}
    client.send(hello)
    answer = await client.receive()
    return (client, answer), transcript(answer, me, nonce=nonce, offered=meant)


def transcript(challenge, me, *, nonce: bytes, offered=(1,)) -> bytes:
    """Return what both sides sign after that challenge."""
    return envelope.transcript(
        offered=offered,
        chosen=challenge["version"],
        name="web-1",
        client_key=me.public.text,
        director_key=challenge["key"],
        client_nonce=nonce,
        director_nonce=envelope.decode_bytes(challenge["nonce"]),
        channel="",
    )


# --- Endless and slow frames ---


async def test_a_message_that_never_ends_is_cut_off_at_a_mebibyte(house, me, other):
    house.commit(web_1=me, web_2=other)
    client = await house.enter(me)
    neighbour = await house.enter(other, "web-2")

    client.send_bytes(frame(b'{"type": "pull", "filling": "', fin=False))
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):  # noqa: PT012 - sent until it is cut off
        for _ in range(64):
            client.send_bytes(frame(b"x" * 65_536, opcode=0, fin=False))
            await client.writer.drain()
        while True:
            await client.reader.readexactly(1)

    neighbour.send(wire.Pull())
    assert (await neighbour.receive())["type"] == "current"


async def test_a_message_of_almost_a_mebibyte_is_answered(house, me):
    house.commit(web_1=me)
    client = await house.enter(me)

    client.send(json.dumps({"type": "pull", "filling": "x" * (wire.MAX_CLIENT_FRAME - 100)}))

    assert (await client.receive())["type"] == "current"


async def test_a_handshake_of_one_byte_a_second_is_cut_off(house, me):
    house.commit(web_1=me)
    client = await house.dial()
    await house.clock.until_somebody_sleeps(1.0)
    for byte in hello_frame(me)[: wire.HANDSHAKE_SECONDS]:
        client.send_bytes(bytes([byte]))
        await house.clock.advance(1)

    assert (await refusal(client))["code"] == RefusalCode.TIMEOUT


async def test_a_handshake_in_single_bytes_within_its_time_goes_on(house, me):
    house.commit(web_1=me)
    client = await house.dial()
    await house.clock.until_somebody_sleeps(1.0)

    for byte in hello_frame(me):
        client.send_bytes(bytes([byte]))
    await house.clock.advance(wire.HANDSHAKE_SECONDS - 1)

    assert (await client.receive())["type"] == "challenge"


def hello_frame(me) -> bytes:
    nonce = envelope.encode_bytes(envelope.random_nonce())
    return frame(json.dumps({**MESSAGES["hello"], "key": me.public.text, "nonce": nonce}).encode())


# --- Impersonation ---


async def test_an_approved_client_cannot_speak_for_another(house, me, other):
    house.commit(web_1=me, web_2=other)
    client = await house.dial()
    assert (await client.shake_hands(me, name="web-2"))["name"] == "web-1"

    pretended = {"client": "web-2", "name": "web-2", "key": other.public.text, "public_key": other.public.text}
    report = {**event("Impersonated"), **pretended}
    client.send({**reports((1, report)), **pretended})
    await client.receive()

    assert await house.rows("select client from events where reason = 'Impersonated'") == [("web-1",)]


async def test_an_approved_client_speaks_for_itself(house, me, other):
    house.commit(web_1=me, web_2=other)
    client = await house.enter(other, "web-2")

    client.send(reports((1, event("Told"))))
    await client.receive()

    assert await house.rows("select client from events where reason = 'Told'") == [("web-2",)]


async def test_an_approved_client_cannot_prove_the_key_of_another(house, me, other):
    house.commit(web_1=me, web_2=other)
    client = await house.dial()
    _, said = await client.challenge(other, name="web-2")

    assert (await client.prove(me, said))["code"] == RefusalCode.BAD_SIGNATURE
    assert house.gateway.connected == frozenset()


async def test_each_approved_client_proves_its_own_key(house, me, other):
    house.commit(web_1=me, web_2=other)

    await house.enter(me, "web-1")
    await house.enter(other, "web-2")

    assert house.gateway.connected == {"web-1", "web-2"}


# --- A cloned client ---


async def test_a_cloned_client_does_not_listen_beside_the_real_one(house, me):
    house.commit(web_1=me)
    real = await house.enter(me)
    clone = await house.enter(me)

    assert (await refusal(real))["code"] == RefusalCode.REPLACED
    await house.issue(me)
    assert (await clone.receive())["type"] == "desired"
    assert house.gateway.connected == {"web-1"}


async def test_two_machines_with_keys_of_their_own_listen_side_by_side(house, me, other):
    house.commit(web_1=me, web_2=other)
    first, second = await house.enter(me), await house.enter(other, "web-2")

    await house.issue(me)
    await house.issue(other, name="web-2")

    assert [(await one.receive())["type"] for one in (first, second)] == ["desired", "desired"]


async def test_a_clone_cannot_write_over_what_the_real_client_reported(house, me):
    house.commit(web_1=me)
    real = await house.enter(me)
    real.send(reports((1, event("Real"))))
    await real.receive()

    clone = await house.enter(me)
    clone.send(reports((1, event("Cloned"))))
    assert (await clone.receive())["sequence"] == NOT_ONE_OUTBOX

    assert [reason for reason in await house.events() if reason in {"Real", "Cloned"}] == ["Real"]


async def test_a_client_that_lost_its_outbox_is_heard_under_a_new_epoch(house, me):
    house.commit(web_1=me)
    client = await house.enter(me)
    client.send(reports((1, event("Real"))))
    await client.receive()

    client.send(reports((1, event("Again")), epoch="cd" * 16))
    await client.receive()

    assert [reason for reason in await house.events() if reason in {"Real", "Again"}] == ["Real", "Again"]
