"""Frames and handshakes that are not right, byte by byte, in every state of the protocol."""

from __future__ import annotations

import json

import pytest

from schema import envelope, wire
from schema.envelope import ClientIdentity
from schema.errors import TrustError
from schema.wire import RefusalCode, State
from tests.reconciler import wire_client
from tests.reconciler.house import (
    MESSAGES,
    everything,
    in_state,
    refusal,
    until,
)
from tests.reconciler.wire_client import Closed, frame

# --- Frames that are not right ---


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


@pytest.mark.parametrize(
    ("kind", "state"),
    [(kind, state) for state in State for kind in MESSAGES if kind not in wire.DIRECTOR_ACCEPTS[state]],
)
async def test_a_message_out_of_order_ends_the_session_in_every_state(house, me, kind, state):
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
