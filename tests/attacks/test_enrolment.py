"""Stolen tokens and a director in the middle: the real enrolment against the real gateway, or against the wrong one."""

from __future__ import annotations

import asyncio

import pytest

from client.enrol import enrol
from client.settings import ClientSettings
from client.state import StateDirectory
from reconciler.gateway import GatewaySettings
from reconciler.listen import Address
from schema.envelope import ClientIdentity, DirectorIdentity, EnrolmentString, random_token
from schema.errors import DirectorError
from schema.wire import RefusalCode
from tests.client.director_stub import DirectorStub
from tests.client.virtual_clock import VirtualClock
from tests.reconciler.house import House, refused


@pytest.fixture
async def house(tmp_path, empty_store):
    folder = tmp_path / "director"
    folder.mkdir()
    settings = GatewaySettings(listen=(Address.parse(f"unix://{tmp_path}/director.sock"),))
    one = House(folder, settings=settings, empty_store=empty_store)
    await one.open()
    yield one
    await one.close()


def machine(tmp_path, name: str) -> tuple[ClientSettings, StateDirectory]:
    """Return a machine that has never enrolled."""
    directory = StateDirectory(tmp_path / name)
    directory.prepare()
    return ClientSettings(name=name, state_directory=str(tmp_path / name)), directory


async def enrols(tmp_path, name: str, text: str) -> bool:
    """Enrol a new machine; whether its key waits for a person now."""
    settings, directory = machine(tmp_path, name)
    try:
        await enrol(text, settings=settings, directory=directory, clock=VirtualClock())
    except DirectorError:
        return False
    return directory.enrolment() is not None


# --- A stolen token ---


async def test_a_token_that_was_used_lets_no_thief_wait(house, tmp_path):
    text = EnrolmentString(
        url=f"unix://{tmp_path}/director.sock", director=house.identity.public.text, token=await house.token()
    ).to_text()
    assert await enrols(tmp_path, "web-1", text)

    assert not await enrols(tmp_path, "thief", text)

    assert [one.name for one in await house.store.pending()] == ["web-1"]


async def test_a_token_of_two_uses_lets_two_machines_wait(house, tmp_path):
    text = EnrolmentString(
        url=f"unix://{tmp_path}/director.sock", director=house.identity.public.text, token=await house.token(uses=2)
    ).to_text()

    assert await enrols(tmp_path, "web-1", text)
    assert await enrols(tmp_path, "web-2", text)

    assert sorted(one.name for one in await house.store.pending()) == ["web-1", "web-2"]


async def test_a_token_raced_for_by_its_owner_and_a_thief_lets_one_of_them_wait(house):
    token = await house.token()
    both = [await house.dial(), await house.dial()]

    answers = await asyncio.gather(
        *(one.shake_hands(ClientIdentity.generate(), name=f"web-{n}", token=token) for n, one in enumerate(both))
    )

    assert sorted(answer["type"] for answer in answers) == ["pending", "refused"]
    assert len(await house.store.pending()) == 1


async def test_two_tokens_used_at_once_let_two_machines_wait(house):
    both = [(await house.dial(), await house.token()) for _ in range(2)]

    answers = await asyncio.gather(
        *(one.shake_hands(ClientIdentity.generate(), name=f"web-{n}", token=t) for n, (one, t) in enumerate(both))
    )

    assert [answer["type"] for answer in answers] == ["pending", "pending"]


async def test_a_thief_who_was_first_waits_and_is_given_nothing(house, me):
    token = await house.token()
    thief = await house.dial()
    assert (await thief.shake_hands(me, token=token))["type"] == "pending"
    await house.issue(me)

    thief.send({"type": "pull"})

    assert (await thief.receive())["code"] == RefusalCode.MALFORMED
    assert await refused(await house.dial(), ClientIdentity.generate(), token=token) == RefusalCode.TOKEN_INVALID


async def test_a_machine_that_a_person_approved_is_given_its_state(house, me):
    client = await house.dial()
    assert (await client.shake_hands(me, token=await house.token()))["type"] == "pending"

    await house.approve(me)
    assert (await client.receive())["type"] == "accepted"
    await house.issue(me)

    assert (await client.receive())["type"] == "desired"


# --- A man in the middle ---


async def test_a_director_in_the_middle_is_shown_no_token_and_enrols_nobody(tmp_path):
    token, real = random_token(), DirectorIdentity.generate()
    async with DirectorStub(approved=False) as middle:
        text = EnrolmentString(url=middle.url, director=real.public.text, token=token).to_text()

        assert not await enrols(tmp_path, "web-1", text)

        assert [frame for frame in middle.frames if '"proof"' in frame or token in frame] == []
        assert StateDirectory(tmp_path / "web-1").enrolment() is None


async def test_a_director_in_the_middle_that_claims_the_real_key_is_shown_no_token(tmp_path):
    token, real = random_token(), DirectorIdentity.generate()
    async with DirectorStub(approved=False) as middle:
        middle.tamper = lambda challenge: challenge.model_copy(update={"key": real.public.text})
        text = EnrolmentString(url=middle.url, director=real.public.text, token=token).to_text()

        assert not await enrols(tmp_path, "web-1", text)

        assert [frame for frame in middle.frames if '"proof"' in frame or token in frame] == []


async def test_the_director_that_made_the_string_is_shown_the_token_and_enrols(tmp_path):
    token = random_token()
    async with DirectorStub(approved=False) as director:
        text = EnrolmentString(url=director.url, director=director.identity.public.text, token=token).to_text()

        assert await enrols(tmp_path, "web-1", text)

        assert [token in frame for frame in director.frames] == [False, True]
