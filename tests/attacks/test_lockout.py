"""Guessing tokens, and turning the answer to it against others: the real gateway, over real sockets."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.core.lockout import ATTEMPTS, MAX_SOURCES, Lockouts
from reconciler.gateway import GatewaySettings
from schema import envelope, wire
from schema.addresses import Proxies
from schema.envelope import ClientIdentity
from schema.wire import RefusalCode
from tests.reconciler.house import LOOPBACK, House, refused

FEW = 100


async def guess(house: House, *, source: str = "") -> str:
    """Show a token that nobody made."""
    client = await house.dial(**({"X-Forwarded-For": source} if source else {}))
    return await refused(client, ClientIdentity.generate(), token=envelope.random_token())


# --- From one address ---


async def test_from_one_address_ten_tokens_are_guessed_an_hour_and_no_more(house):
    codes = [await guess(house) for _ in range(ATTEMPTS + 5)]

    assert codes == [RefusalCode.TOKEN_INVALID] * ATTEMPTS + [RefusalCode.LOCKED_OUT] * 5


async def test_whoever_mistypes_a_token_nine_times_is_let_wait_with_the_right_one(house, me):
    token = await house.token()
    for _ in range(ATTEMPTS - 1):
        assert await guess(house) == RefusalCode.TOKEN_INVALID

    assert (await (await house.dial()).shake_hands(me, token=token))["type"] == "pending"


async def test_guesses_at_the_same_time_count_as_much_as_one_after_the_other(house):
    codes = await asyncio.gather(*(guess(house) for _ in range(ATTEMPTS * 4)))

    assert house.gateway.locked == ["127.0.0.1"]
    assert set(codes) <= {RefusalCode.TOKEN_INVALID, RefusalCode.LOCKED_OUT}
    assert await guess(house) == RefusalCode.LOCKED_OUT


async def test_many_new_machines_behind_one_address_are_let_wait_at_the_same_time(house):
    token = await house.token(uses=FEW)
    clients = [await house.dial() for _ in range(FEW)]

    answers = await asyncio.gather(*(one.shake_hands(ClientIdentity.generate(), token=token) for one in clients))

    assert {answer["type"] for answer in answers} == {"pending"}
    assert house.gateway.locked == []


# --- From ten thousand addresses ---


@pytest.fixture
async def behind_a_proxy(tmp_path, empty_store):
    settings = GatewaySettings(listen=(LOOPBACK,), proxies=Proxies.parse(["127.0.0.1"]))
    house = House(tmp_path, settings=settings, empty_store=empty_store)
    await house.open()
    yield house
    await house.close()


async def test_tokens_guessed_from_many_addresses_are_all_wrong_and_keep_nobody_out(behind_a_proxy, me, other):
    house = behind_a_proxy
    house.commit(web_1=me)
    token = await house.token()

    codes = {await guess(house, source=f"198.51.100.{number}") for number in range(FEW)}

    assert codes == {RefusalCode.TOKEN_INVALID}
    assert house.gateway.locked == []
    assert [one.uses_left for one in await house.store.tokens()] == [1]
    assert await house.store.pending() == []
    assert (await (await house.dial(**{"X-Forwarded-For": "203.0.113.1"})).shake_hands(me))["type"] == "accepted"
    newcomer = await house.dial(**{"X-Forwarded-For": "203.0.113.1"})
    assert (await newcomer.shake_hands(other, name="web-2", token=token))["type"] == "pending"


async def test_good_tokens_shown_from_many_addresses_let_all_of_them_wait(behind_a_proxy):
    house = behind_a_proxy
    token = await house.token(uses=FEW)
    for number in range(FEW):
        client = await house.dial(**{"X-Forwarded-For": f"198.51.100.{number}"})
        assert (await client.shake_hands(ClientIdentity.generate(), token=token))["type"] == "pending"

    assert len(await house.store.pending()) == FEW


def addresses(count: int) -> list[str]:
    return [f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(count)]


def test_ten_thousand_guessing_addresses_fill_no_memory_and_hide_no_failure_of_an_eleventh_thousand():
    table = Lockouts()
    for _ in range(ATTEMPTS):
        for address in addresses(MAX_SOURCES):
            table.failed(address, at=1.0)
    for address in addresses(MAX_SOURCES + 2_000)[-2_000:]:
        table.failed(address, at=2.0)

    assert len(table) <= MAX_SOURCES + 1
    assert all(table.remaining(address, at=2.0) > 0 for address in addresses(MAX_SOURCES + 2_000))


def test_an_address_that_never_failed_is_not_locked_while_there_is_room():
    table = Lockouts()
    for _ in range(ATTEMPTS):
        for address in addresses(MAX_SOURCES - 1):
            table.failed(address, at=1.0)

    assert table.remaining("203.0.113.1", at=2.0) == 0


# --- A lockout as a weapon ---


async def test_a_bad_machine_behind_the_same_address_locks_no_good_one_out(house, me):
    house.commit(web_1=me)
    live = await house.enter(me)
    for _ in range(ATTEMPTS + 1):
        await guess(house)
    assert house.gateway.locked == ["127.0.0.1"]

    live.send(wire.Pull())
    assert (await live.receive())["type"] == "current"
    await live.hang_up()
    again = await house.enter(me)
    again.send(wire.Pull())
    assert (await again.receive())["type"] == "current"


async def test_the_bad_machine_itself_stays_out(house, me, other):
    house.commit(web_1=me)
    token = await house.token()
    for _ in range(ATTEMPTS + 1):
        await guess(house)

    assert await refused(await house.dial(), other, token=token) == RefusalCode.LOCKED_OUT


async def test_naming_another_address_in_a_header_locks_nobody_else_out(house):
    for _ in range(ATTEMPTS):
        await guess(house, source="203.0.113.5")

    assert house.gateway.locked == ["127.0.0.1"]


async def test_behind_a_declared_proxy_the_address_that_it_names_is_locked(behind_a_proxy):
    for _ in range(ATTEMPTS):
        await guess(behind_a_proxy, source="203.0.113.5")

    assert behind_a_proxy.gateway.locked == ["203.0.113.5"]
