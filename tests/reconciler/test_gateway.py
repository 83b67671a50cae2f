"""The gateway over real sockets, with the real store: sessions, desired states, reports, and its life."""

from __future__ import annotations

import asyncio
import inspect
import json
from dataclasses import replace

import pytest
import uvloop

from reconciler.gateway import GatewaySettings
from reconciler.listen import Address
from schema import wire
from schema.addresses import Proxies
from schema.envelope import ClientIdentity
from schema.wire import RefusalCode
from tests.reconciler import wire_client
from tests.reconciler.house import (
    EPOCH,
    LOOPBACK,
    MESSAGES,
    House,
    event,
    everything,
    refusal,
    refused,
    reports,
    until,
)

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
    assert {"ClientPending", "Applied", "Healed"} <= set(await house.events())
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
    await house.gateway.publish((await house.store.issued(["web-1"])).values())

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


async def test_a_hundred_clients_are_published_to(house):
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


async def test_publishing_for_clients_that_are_not_there_is_nothing(house, me, other):
    house.commit(web_1=me)

    await house.issue(me)
    await house.issue(other, name="nobody")


async def test_a_pull_that_a_publication_overtook_is_not_answered_with_the_older_state(house, me):
    house.commit(web_1=me)
    await house.issue(me, generation=7)
    client = await house.enter(me)
    has_read, goes_on, read = asyncio.Event(), asyncio.Event(), house.store.issued

    async def read_slowly(names):
        found = await read(names)
        has_read.set()
        await goes_on.wait()
        return found

    house.store.issued = read_slowly
    client.send(wire.Pull())
    await has_read.wait()
    await house.issue(me, generation=8)
    goes_on.set()

    assert '"generation": 8' in (await client.receive())["envelope"]
    assert await client.receive() == {"type": "current", "generation": 8}


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


# --- On the loop that the director runs on ---


@pytest.mark.parametrize(
    "story",
    [
        test_a_new_client_is_enrolled_approved_given_its_state_and_heard,
        test_a_client_that_does_not_read_holds_up_nobody_and_is_dropped,
        test_a_second_session_of_a_key_replaces_the_first,
        test_a_stop_sends_everybody_away_with_a_time_to_come_back,
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
