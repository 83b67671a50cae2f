"""Viewers: who may look at the dashboard, by a token or by a password. Pure; only hashes are ever kept.

The director's commands make them (``reconciler.viewers``), the pages check them (``web_readonly.access``).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

TOKEN_PREFIX: Final = "bd1-viewer."  # noqa: S105 - a prefix, not a secret
TOKEN_BYTES: Final = 32
"""256 random bits: nobody guesses one, so a plain hash of it is enough, and a limit on guesses is a courtesy."""
MAX_VIEWERS: Final = 1000
MAX_NOTE: Final = 200
MAX_PASSWORD: Final = 1024

_COST, _BLOCK, _PARALLEL = 15, 8, 1
"""scrypt with 2^15, 8, 1: 32 MiB and about a tenth of a second for each guess."""
_SALT_BYTES, _HASH_BYTES = 16, 32

Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Viewer(BaseModel):
    """One token, as it is kept."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    hash: Hash
    """SHA-256 of the token's text."""
    note: Annotated[str, StringConstraints(max_length=MAX_NOTE)] = ""
    created: AwareDatetime
    expires: AwareDatetime | None = None

    @property
    def id(self) -> str:
        """What people call it by."""
        return self.hash[:12]


class Viewers(BaseModel):
    """The file ``viewers.json`` of a state directory."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    viewers: Annotated[tuple[Viewer, ...], Field(max_length=MAX_VIEWERS)] = ()


def token_text(random: bytes) -> str:
    """Return the token of some random bytes."""
    return TOKEN_PREFIX + base64.urlsafe_b64encode(random).decode().rstrip("=")


def token_hash(text: str) -> str:
    """Return what is kept of a token."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(frozen=True, slots=True)
class Password:
    """What is kept of a password: ``scrypt:15:8:1:SALT:HASH``."""

    cost: int
    block: int
    parallel: int
    salt: bytes
    hash: bytes

    @classmethod
    def make(cls, password: str, *, salt: bytes) -> Password:
        """Return what to keep of a password; ``salt`` is random."""
        made = cls(_COST, _BLOCK, _PARALLEL, salt, b"")
        return cls(_COST, _BLOCK, _PARALLEL, salt, made.derive(password))

    @classmethod
    def parse(cls, text: str) -> Password:
        """Return a password of its text; ``ValueError`` says what is wrong with it."""
        parts = text.split(":")
        if len(parts) != 6 or parts[0] != "scrypt":
            raise ValueError("is not the hash of a password: `director viewer password` prints one")
        try:
            cost, block, parallel = (int(part) for part in parts[1:4])
            salt, kept = (base64.b64decode(part, validate=True) for part in parts[4:])
        except (ValueError, binascii.Error):
            raise ValueError("is a damaged hash of a password: `director viewer password` prints a new one") from None
        # A guess must cost something, and no settings file may make each request cost gigabytes.
        if not (14 <= cost <= 18 and block == _BLOCK and 1 <= parallel <= 4 and len(salt) >= 8 and len(kept) >= 32):
            raise ValueError("is a hash of a password with other costs than `director viewer password` gives")
        return cls(cost, block, parallel, salt, kept)

    def __str__(self) -> str:
        salt, kept = (base64.b64encode(part).decode() for part in (self.salt, self.hash))
        return f"scrypt:{self.cost}:{self.block}:{self.parallel}:{salt}:{kept}"

    def derive(self, password: str) -> bytes:
        """Return the hash of ``password`` with this salt and cost. Slow: not for an event loop."""
        return hashlib.scrypt(
            password.encode("utf-8", "surrogateescape"),
            salt=self.salt,
            n=2**self.cost,
            r=self.block,
            p=self.parallel,
            maxmem=2 * 128 * self.block * 2**self.cost,
            dklen=len(self.hash) or _HASH_BYTES,
        )

    def fits(self, password: str) -> bool:
        """Whether it is this password. Slow: not for an event loop."""
        return hmac.compare_digest(self.derive(password), self.hash)


NOBODY: Final = Password(_COST, _BLOCK, _PARALLEL, bytes(_SALT_BYTES), bytes(_HASH_BYTES))
"""Whose password nobody knows: to take as long over a name that does not exist as over one that does."""
