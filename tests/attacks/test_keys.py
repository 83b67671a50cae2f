"""Keys that anybody could sign for or open, wherever a key enters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from client.state import Enrolment, StateDirectory
from schema import envelope
from schema.envelope import DirectorIdentity, EnrolmentString, EscrowIdentity
from schema.errors import Severity, TerminalError, TrustError
from schema.wire import RefusalCode
from tests.reconciler.core import written
from tests.reconciler.house import refusal

PRIME = 2**255 - 19
# Of Edwards25519's eight points of small order, in every spelling; the last ones are not canonical or on no curve.
WEAK_SIGNING = [
    (0).to_bytes(32, "little"),
    (1).to_bytes(32, "little"),
    (PRIME - 1).to_bytes(32, "little"),
    PRIME.to_bytes(32, "little"),
    (PRIME + 1).to_bytes(32, "little"),
    ((1 << 255) | 1).to_bytes(32, "little"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
    b"\xff" * 32,
    (2).to_bytes(32, "little"),
]
WEAK_SEALING = [
    (0).to_bytes(32, "little"),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (PRIME - 1).to_bytes(32, "little"),
    PRIME.to_bytes(32, "little"),
    (PRIME + 1).to_bytes(32, "little"),
    b"\xff" * 32,
]
GOOD = "bd1-client.CQtyVjglHO-AxTi_cqoQYvKDW1RKSjjUi-2Z2Br502WiatyGbbbk4C2GI5MZ1HDJfLI5jDL6rrApMOSo8k86YA"
"""Somebody's; always the same, for tests are named after the keys that they try."""
HALVES = envelope.decode_bytes(GOOD.removeprefix(envelope.CLIENT_PREFIX))


def client_key(*, signing: bytes = HALVES[:32], sealing: bytes = HALVES[32:]) -> str:
    return envelope.CLIENT_PREFIX + envelope.encode_bytes(signing + sealing)


WEAK_CLIENTS = [client_key(signing=one) for one in WEAK_SIGNING] + [client_key(sealing=one) for one in WEAK_SEALING]
WEAK_DIRECTORS = [envelope.DIRECTOR_PREFIX + envelope.encode_bytes(one) for one in WEAK_SIGNING]
WEAK_ESCROWS = [envelope.ESCROW_PREFIX + envelope.encode_bytes(one) for one in WEAK_SEALING]


@pytest.mark.parametrize(
    ("parse", "key"),
    [
        *((envelope.parse_client_key, key) for key in WEAK_CLIENTS),
        *((envelope.parse_director_key, key) for key in WEAK_DIRECTORS),
        *((envelope.parse_escrow_key, key) for key in WEAK_ESCROWS),
    ],
)
def test_a_degenerate_key_is_no_key(parse: Callable[[str], Any], key: str):
    with pytest.raises(TrustError):
        parse(key)


def test_a_generated_key_is_one():
    assert envelope.parse_client_key(GOOD).text == GOOD
    director = DirectorIdentity.generate().public.text
    assert envelope.parse_director_key(director).text == director
    assert envelope.parse_escrow_key(EscrowIdentity.generate().public)


@pytest.mark.parametrize("key", WEAK_CLIENTS)
async def test_a_degenerate_key_is_refused_at_the_door(house, key):
    client = await house.dial()
    client.send({"type": "hello", "versions": [1], "name": "web-1", "nonce": "A" * 43, "key": key})

    assert (await refusal(client))["code"] == RefusalCode.BAD_KEY


async def test_a_sound_key_is_challenged_at_the_door(house):
    client = await house.dial()
    client.send({"type": "hello", "versions": [1], "name": "web-1", "nonce": "A" * 43, "key": GOOD})

    assert (await client.receive())["type"] == "challenge"


def problems(key: str) -> list[str]:
    """Return what is wrong with a source whose one client has this key."""
    found = written.built([written.client("web-1", publicKey=key)]).problems
    return [one.message for one in found if one.severity is Severity.ERROR]


@pytest.mark.parametrize("key", WEAK_CLIENTS)
def test_a_degenerate_key_in_git_makes_the_revision_invalid(key):
    assert problems(key) != []


def test_a_sound_key_in_git_is_valid():
    assert problems(GOOD) == []


@pytest.mark.parametrize("key", WEAK_DIRECTORS)
def test_a_degenerate_director_is_never_pinned(tmp_path, key):
    text = EnrolmentString(url="unix:///x", director=key, token=envelope.random_token()).to_text()
    directory = StateDirectory(tmp_path)
    directory.prepare()

    with pytest.raises(TrustError):
        EnrolmentString.from_text(text)
    (tmp_path / "enrolment.json").write_text(Enrolment(url="unix:///x", director=key).model_dump_json())
    with pytest.raises(TerminalError):
        directory.enrolment()


def test_a_sound_director_is_pinned(tmp_path):
    key = DirectorIdentity.generate().public.text
    text = EnrolmentString(url="unix:///x", director=key, token=envelope.random_token()).to_text()
    directory = StateDirectory(tmp_path)
    directory.prepare()

    directory.save_enrolment(Enrolment(url="unix:///x", director=EnrolmentString.from_text(text).director))

    enrolment = directory.enrolment()
    assert enrolment is not None
    assert enrolment.key.text == key
