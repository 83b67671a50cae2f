"""What a large fleet looks like, as numbers and names: the same for the same seed. Pure; ``seed`` writes it.

Each client has four backups, one of them its own sort, which is also kept in a second repository that fifty clients
share. Runs are nightly, and almost all of them succeed.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from schema.observed import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    Place = tuple[str, str]

BACKUPS: Final = ("system", "home", "logs")
OWN: Final = {"web": "sites", "db": "postgresql", "app": "uploads", "mail": "mailboxes", "file": "shares"}
ROLES: Final = tuple(OWN)
SITES: Final = ("berlin", "lagos", "lima", "oslo", "osaka", "porto", "quito", "turin")
SHARED: Final = 50
"""Clients that share one second repository."""
VAULT, OFFSITE = "vault", "offsite"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Run(NamedTuple):
    """One nightly run, before it is a row."""

    id: str
    client: str
    backup: str
    number: int
    """Of its backup, from 0."""
    night: int
    """How many nights ago, from 1."""
    started: datetime
    seconds: int
    outcome: Outcome | None


@dataclass(frozen=True)
class Fleet:
    """A fleet at one moment."""

    moment: datetime
    clients: int = 5_000
    runs: int = 1_000_000
    seed: int = 1

    @cached_property
    def names(self) -> list[str]:
        """Names of the clients: ``web-0000``, ``db-0001`` and so on."""
        return [f"{ROLES[number % len(ROLES)]}-{number:04}" for number in range(self.clients)]

    @cached_property
    def places(self) -> list[Place]:
        """Each backup on each client."""
        return [(client, backup) for client in self.names for backup in backups_of(client)]

    @property
    def nights(self) -> int:
        """How many nights of runs there are."""
        return max(1, self.runs // len(self.places))

    def nightly(self) -> Iterator[Run]:
        """Yield the runs from the oldest to the newest; the last one of a hundred still runs."""
        chance = random.Random(self.seed)
        step = 8 * HOUR / len(self.places)
        finished = len(self.places) * 99 // 100
        for night in range(self.nights, 0, -1):
            start = self.moment - night * DAY + 16 * HOUR
            for number, (client, backup) in enumerate(self.places):
                identity, seconds, luck = f"{chance.getrandbits(128):032x}", chance.randrange(1_500), chance.random()
                outcome = None if night == 1 and number >= finished else _outcome(luck)
                yield Run(identity, client, backup, number, night, start + number * step, 30 + seconds, outcome)


@lru_cache(maxsize=8_192)
def backups_of(client: str) -> tuple[str, ...]:
    """Return the names of a client's backups."""
    return (*BACKUPS, OWN[client.partition("-")[0]])


@lru_cache(maxsize=32_768)
def repositories_of(client: str, backup: str) -> dict[str, str]:
    """Return the repositories of a backup: name → url."""
    number = int(client.rpartition("-")[2])
    found = {VAULT: f"ssh://borg@vault-{number % 8}.example:2222/./fleet/{client}"}
    if backup not in BACKUPS:
        found[OFFSITE] = f"ssh://borg@offsite.example/./shared/{number // SHARED:03}"
    return found


def labels_of(client: str) -> dict[str, str]:
    """Return a client's labels."""
    role, _, number = client.partition("-")
    return {"role": role, "site": SITES[int(number) % len(SITES)], "stage": "test" if number.endswith("7") else "live"}


@lru_cache(maxsize=32_768)
def size_of(client: str, backup: str) -> int:
    """Return how large a backup is: one to eighty gigabytes."""
    return 1_000_000_000 + int.from_bytes(_hash(client, backup)[:5], "big") % 80_000_000_000


@lru_cache(maxsize=8_192)
def revision_of(number: int) -> str:
    """Return the revision that is this old; 1 is the newest."""
    return _hash("revision", str(number)).hex()[:40]


def _hash(*parts: str) -> bytes:
    return hashlib.sha256("/".join(parts).encode()).digest()


def _outcome(luck: float) -> Outcome:
    if luck < 0.965:
        return Outcome.SUCCEEDED
    if luck < 0.982:
        return Outcome.WARNED
    return Outcome.FAILED if luck < 0.995 else Outcome.LOST if luck < 0.998 else Outcome.CANCELLED
