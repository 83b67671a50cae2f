"""Who may connect: approvals, revocations, conflicts and tokens as data, and the decisions made from them.

``reconciler.gateway`` asks twice in a handshake: ``greet`` before the director signs anything, ``admit`` after the
client has proved its key. Pure: the gateway checks signatures and tokens, and tells the outcome.

A client is approved when its public key stands in a ``Client`` of the published revision, or was approved by command.
Git wins over a command about a name, a revocation wins over both, and a name that one approved key holds is never
handed to another key.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Self

from reconciler.core import refusals
from reconciler.core.refusals import Refused
from schema import wire

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

BY_COMMIT: Final = "commit"
"""``Approval.approved_by`` of a key that stands in Git."""


@dataclass(frozen=True, slots=True)
class Approval:
    """A key that may be used under a name, and who said so."""

    public_key: str
    name: str
    approved_by: str = BY_COMMIT


@dataclass(frozen=True, slots=True)
class Registry:
    """Everything approved and revoked at one moment. Replaced as a whole when Git or the store changes."""

    approvals: Mapping[str, Approval]
    """The approvals in effect, by public key."""
    holders: Mapping[str, str]
    """Name → the one approved key that holds it."""
    revoked: frozenset[str]
    conflicting: tuple[Approval, ...] = ()
    """Approvals without effect: their name is held by another key, or their key by another name."""

    @classmethod
    def build(
        cls,
        *,
        committed: Mapping[str, str] | None = None,
        commanded: Iterable[Approval] = (),
        revoked: Iterable[str] = (),
    ) -> Self:
        """Return the registry of Git's clients (name → public key), the store's approvals and its revoked keys.

        Of approvals by command that contradict each other the first counts, so hand them over oldest first.
        """
        gone = frozenset(revoked)
        approvals: dict[str, Approval] = {}
        holders: dict[str, str] = {}
        conflicting: list[Approval] = []
        wanted = [Approval(key, name) for name, key in sorted((committed or {}).items()) if key]
        for approval in (*wanted, *commanded):
            if approval.public_key in gone:
                continue
            if approval.public_key in approvals or approval.name in holders:
                if approvals.get(approval.public_key, approval).name != approval.name or (
                    holders.get(approval.name, approval.public_key) != approval.public_key
                ):
                    conflicting.append(approval)
                continue
            approvals[approval.public_key] = approval
            holders[approval.name] = approval.public_key
        return cls(approvals, holders, gone, tuple(conflicting))


class TokenState(StrEnum):
    """What came of the connection token that a proof carried."""

    ABSENT = "absent"
    GOOD = "good"
    BAD = "bad"
    """Unknown, expired, used up or revoked; the difference is nobody's business."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """Let in, under the name that was approved (not the one that was wished for)."""

    name: str
    approved_by: str


@dataclass(frozen=True, slots=True)
class Pending:
    """Known, and waiting for a person."""

    name: str


Admission = Accepted | Pending | Refused


def choose_version(offered: Sequence[int]) -> int | Refused:
    """Return the newest protocol version that both sides speak."""
    common = set(offered) & set(wire.SUPPORTED_VERSIONS)
    if common:
        return max(common)
    return refusals.version()


def greet(registry: Registry, hello: wire.Hello, *, locked: float) -> int | Refused:
    """Return the protocol version to go on with, or a refusal before any work was done.

    ``locked`` is for how many seconds the source address is still locked out. An approved key may try nevertheless: one
    bad machine must not lock out the good ones behind the same address.
    """
    if locked > 0 and hello.key not in registry.approvals:
        return refusals.locked_out(locked)
    return choose_version(hello.versions)


def needs_token(registry: Registry, public_key: str, *, pending: bool) -> bool:
    """Say whether only a good token lets this key go on."""
    return not pending and public_key not in registry.approvals and public_key not in registry.revoked


def admit(registry: Registry, *, public_key: str, name: str, pending: bool, token: TokenState) -> Admission:
    """Decide about a client that has proved ``public_key`` and would like to be called ``name``.

    ``pending`` says that this key has shown a good token before. Whoever has shown none learns nothing about names.
    """
    if public_key in registry.revoked:
        return refusals.revoked()
    approval = registry.approvals.get(public_key)
    if approval is not None:
        return Accepted(approval.name, approval.approved_by)
    if not pending and token is TokenState.ABSENT:
        return refusals.token_required()
    if not pending and token is TokenState.BAD:
        return refusals.token_invalid()
    if name in registry.holders:
        return refusals.key_conflict(name)
    return Pending(name)
