"""A fleet on the wire: ten thousand keys and what each client must have, the same for the same number.

``wire_clients`` connects it, ``wire_director`` and ``wire_floor`` let it in.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from schema.desired import Content, DesiredState, ManagedFile
from schema.directories import Directories
from schema.envelope import ClientIdentity, DirectorIdentity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

STATE_BYTES: Final = 4096
"""How large a signed desired state is."""
MOMENT: Final = datetime(2026, 11, 24, tzinfo=UTC)
LATER: Final = MOMENT + timedelta(days=90)
REVISION: Final = "c" * 40
DIRECTOR: Final = DirectorIdentity(hashlib.sha256(b"the director").digest())


@dataclass(frozen=True, slots=True)
class Member:
    """One client of the fleet."""

    name: str
    identity: ClientIdentity

    @property
    def public_key(self) -> str:
        """The text of its public key."""
        return self.identity.public.text


def members(count: int) -> Sequence[Member]:
    """Return the fleet."""
    return [Member(f"client-{number:05}", ClientIdentity(*_seeds(number))) for number in range(count)]


def _seeds(number: int) -> tuple[bytes, bytes]:
    return hashlib.sha256(f"sign {number}".encode()).digest(), hashlib.sha256(f"seal {number}".encode()).digest()


def write_keys(fleet: Sequence[Member], path: Path) -> None:
    """Keep names and public keys for the programs that let the fleet in."""
    path.write_text(json.dumps({one.name: one.public_key for one in fleet}), encoding="utf-8")


def read_keys(path: Path) -> Mapping[str, str]:
    """Return public keys by name."""
    keys: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return keys


def desired_state(name: str, public_key: str, *, generation: int) -> tuple[Content, bytes]:
    """Return what a client must have, and the exact bytes that are signed: as many for each."""
    _, empty = _state(name, public_key, generation=generation, filling="")
    # Each line break of the file travels as two bytes.
    lines, rest = divmod(STATE_BYTES - len(empty), 66)
    filling = "".join(f"# {name} {'x' * (61 - len(name))}\n" for _ in range(lines)) + "y" * rest
    content, payload = _state(name, public_key, generation=generation, filling=filling)
    if len(payload) != STATE_BYTES:
        raise ValueError(f"a desired state of {len(payload)} bytes")
    return content, payload


def _state(name: str, public_key: str, *, generation: int, filling: str) -> tuple[Content, bytes]:
    file = ManagedFile(place="config", path="files.yaml", origin="clients.yaml", content=filling)
    content = Content(client=name, directories=Directories(), files=(file,))
    state = DesiredState(
        audience=public_key,
        generation=generation,
        revision=REVISION,
        issued=MOMENT,
        expires=LATER,
        digest=content.digest(),
        content=content,
    )
    return content, state.model_dump_json().encode()
