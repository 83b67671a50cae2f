"""The public keys of clients: sound, and one for each machine; those of escrow: sound. Called by ``validate``.

``schema.envelope`` is imported where there is a key to look at: it brings pynacl, and a source that is begun has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from schema.errors import TrustError
from schema.resources import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.core.catalogue import Catalogue, Located, Pointer
    from schema.errors import Problem
    from schema.resources import Secret

_POINTER: Pointer = ("spec", "publicKey")


def bad_key(client: Located[Client]) -> Problem | None:
    """Return why a client's key is refused, or None."""
    key = client.resource.spec.public_key
    if key is None:
        return None
    from schema import envelope  # noqa: PLC0415

    try:
        envelope.parse_client_key(key)
    except TrustError as error:
        hint = f"copy again what `director-client fingerprint` prints on {client.resource.name}"
        return client.problem(_POINTER, f"the publicKey is refused: {error.message}", code="bad-key", hint=hint)
    return None


def bad_escrow_keys(secret: Located[Secret]) -> Iterator[Problem]:
    """Yield why escrow keys of a Secret are refused."""
    if not secret.resource.spec.escrow:
        return
    from schema import envelope  # noqa: PLC0415

    for name, key in secret.resource.spec.escrow.items():
        try:
            envelope.parse_escrow_key(key)
        except TrustError as error:
            yield secret.problem(
                ("spec", "escrow", name), f"the escrow key is refused: {error.message}", code="bad-key"
            )


class SharedKeys:
    """Which clients have which key."""

    def __init__(self) -> None:
        self._key_of: dict[str, str] = {}
        self._owners: dict[str, set[str]] = {}
        self._shared: set[str] = set()

    def put(self, client: str, key: str | None) -> None:
        """Note the key of a client; None when it has none, or is gone."""
        former = self._key_of.pop(client, None)
        if former is not None:
            owners = self._owners[former]
            owners.discard(client)
            if not owners:
                del self._owners[former]
            if len(owners) < 2:
                self._shared.discard(former)
        if key is not None:
            self._key_of[client] = key
            owners = self._owners.setdefault(key, set())
            owners.add(client)
            if len(owners) > 1:
                self._shared.add(key)

    def problems(self, catalogue: Catalogue) -> Iterator[Problem]:
        """Yield an error for each client whose key another one had first, in the order of the files."""
        clients = catalogue.all(Client)
        for key in self._shared:
            first, *others = sorted(
                (clients[name] for name in self._owners[key]), key=lambda one: (one.path, one.position())
            )
            for client in others:
                yield client.problem(
                    _POINTER,
                    f"client '{client.resource.name}' has the same publicKey as client '{first.resource.name}' "
                    f"({first.origin})",
                    code="duplicate-key-of-client",
                    hint="each machine has a key of its own: run `director-client fingerprint` there",
                )
