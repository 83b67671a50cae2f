"""Sealed values where they do not belong, opened by the client's own applier, with real keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.apply import Applier
from client.policy import Policy
from schema.desired import SealedSecret
from schema.directories import Directories
from schema.envelope import ClientIdentity, EscrowIdentity, seal_for_client, seal_for_escrow
from schema.errors import TrustError
from tests.client import machine

ME = ClientIdentity.generate()
THEM = ClientIdentity.generate()
VALUE = b"correct horse"


def unseal(secret: SealedSecret, client: str) -> bytes:
    """As ``client.build`` does it."""
    return ME.open_sealed(secret.sealed, secret=secret.secret, key=secret.key, client=client)


async def apply(base: Path, sealed: str, *, secret: str = "borg", key: str = "passphrase") -> None:
    directories = Directories(config=str(base / "etc"), state=str(base / "var"))
    applier = Applier(program=machine.program("accepts"), directories=directories, policy=Policy(), unseal=unseal)
    secrets = (SealedSecret.model_construct(secret=secret, key=key, sealed=sealed),)  # as if no model had looked
    state = machine.state(base)
    content = state.content.model_copy(update={"secrets": secrets})
    await applier.apply(state.model_copy(update={"content": content}), persist=lambda: None)


def sealed(*, secret: str = "borg", key: str = "passphrase", client: str = "web-1", to: ClientIdentity = ME) -> str:
    return seal_for_client(VALUE, secret=secret, key=key, client=client, to=to.public)


MOVED = {
    "of another client, sealed to its key": sealed(client="web-2", to=THEM),
    "of another client, sealed to our key": sealed(client="web-2"),
    "of our name, sealed to another's key": sealed(to=THEM),
    "of another secret": sealed(secret="database"),
    "of another key of it": sealed(key="token"),
    "with both names in one": sealed(secret="borg/passphrase", key=""),
    "of a name in other letters": sealed(secret="b\u043erg"),
    "of escrow": seal_for_escrow(VALUE, secret="borg", key="passphrase", to=EscrowIdentity.generate().public),
    "cut": sealed()[:-4],
    "lengthened": sealed() + "AAAA",
    "not sealed at all": "correct horse",
    "empty": "bd1-sealed.",
}


@pytest.mark.parametrize("text", MOVED.values(), ids=MOVED.keys())
async def test_a_sealed_value_that_was_moved_is_not_opened_and_nothing_is_applied(tmp_path, text):
    with pytest.raises(TrustError) as caught:
        await apply(tmp_path, text)

    assert "correct horse" not in f"{caught.value} {caught.value.hint}"
    assert not (tmp_path / "etc/web.yaml").exists()
    assert not (tmp_path / "var/secrets/borg.passphrase").exists()


async def test_a_sealed_value_in_its_place_is_opened_and_applied(tmp_path):
    await apply(tmp_path, sealed())

    assert (tmp_path / "var/secrets/borg.passphrase").read_bytes() == VALUE
    assert (tmp_path / "etc/web.yaml").exists()


@pytest.mark.parametrize("place", range(0, 120, 7))
async def test_a_sealed_value_with_one_other_character_is_not_opened(tmp_path, place):
    whole = sealed()
    at = len("bd1-sealed.") + place
    text = whole[:at] + ("A" if whole[at] != "A" else "B") + whole[at + 1 :]

    with pytest.raises(TrustError):
        await apply(tmp_path, text)


async def test_a_value_sealed_twice_is_two_texts_that_both_open(tmp_path):
    first, second = sealed(), sealed()
    assert first != second

    for text in (first, second):
        await apply(tmp_path, text)
        assert (tmp_path / "var/secrets/borg.passphrase").read_bytes() == VALUE
