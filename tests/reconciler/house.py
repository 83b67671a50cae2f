"""A director's gateway for tests, with the real store, and the hands that a person and the loop have on it."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text

from reconciler import tls
from reconciler.core.issue import Issued
from reconciler.gateway import Gateway, GatewaySettings
from reconciler.listen import Address
from reconciler.metrics import Metrics, metrics_text
from reconciler.store import Store
from schema import envelope
from schema.desired import Content
from schema.directories import Directories
from schema.envelope import ClientIdentity, DirectorIdentity
from schema.status import TokenStatus
from schema.wire import State
from tests.client.virtual_clock import VirtualClock
from tests.reconciler import wire_client
from tests.reconciler.wire_client import Closed, WireClient

LOOPBACK = Address(host="127.0.0.1")
EPOCH = "ab" * 16


@dataclass
class House:
    """A director's gateway with everything it needs, and the hands that a person and the loop have on it."""

    directory: Path
    identity: DirectorIdentity = field(default_factory=DirectorIdentity.generate)
    clock: VirtualClock = field(default_factory=VirtualClock)
    settings: GatewaySettings = field(default_factory=lambda: GatewaySettings(listen=(LOOPBACK,)))
    certificate: tls.ServerCertificate | None = None
    empty_store: Path | None = None
    """A migrated store without rows, copied instead of made."""
    ahead: list[tuple[str, int]] = field(default_factory=list)
    unready: str = ""
    git: dict[str, str] = field(default_factory=dict)

    async def open(self) -> None:
        path = self.directory / "store.sqlite"
        if self.empty_store is not None and not path.exists():
            shutil.copy(self.empty_store, path)
        self.store = await Store.open(path)
        self.metrics = Metrics()
        self.gateway = Gateway(
            identity=self.identity,
            store=self.store,
            clock=self.clock,
            settings=self.settings,
            metrics=self.metrics,
            certificate=self.certificate,
            readiness=self._readiness,
            on_ahead=lambda name, generation: self.ahead.append((name, generation)),
        )
        await self.gateway.start()
        self.gateway.set_source_clients(self.git)
        self.address = self.gateway.addresses[0]

    async def close(self) -> None:
        await self.gateway.stop()
        await self.store.close()
        await wire_client.hang_up_all()

    async def restart(self) -> None:
        await self.gateway.stop()
        await self.store.close()
        await self.open()

    async def _readiness(self) -> str:
        return self.unready

    async def dial(self, **headers: str) -> WireClient:
        return await WireClient.dial(self.address, headers=headers)

    async def enter(self, identity: ClientIdentity, name: str = "web-1") -> WireClient:
        """Return an open session of an approved client."""
        client = await self.dial()
        answer = await client.shake_hands(identity, name=name)
        assert answer["type"] == "accepted"
        return client

    def commit(self, **keys: ClientIdentity) -> None:
        """Publish a revision with these clients."""
        self.git = {name.replace("_", "-"): identity.public.text for name, identity in keys.items()}
        self.gateway.set_source_clients(self.git)

    async def token(self, *, uses: int = 1, seconds: float = 3600) -> str:
        token = envelope.random_token()
        now = self.clock.now()
        status = TokenStatus(
            id=envelope.hash_token(token)[:12], created=now, expires=now + timedelta(seconds=seconds), uses_left=uses
        )
        await self.store.create_token(status, token_hash=envelope.hash_token(token))
        return token

    async def decide(self) -> None:
        """What the admin socket does after a person's decision."""
        self.gateway.registry_changed(
            approvals=await self.store.approvals(),
            revoked=[one.public_key for one in await self.store.revocations()],
            pending=[one.public_key for one in await self.store.pending()],
        )

    async def approve(self, identity: ClientIdentity, name: str = "web-1") -> None:
        await self.store.approve(public_key=identity.public.text, name=name, by="ana", at=self.clock.now())
        await self.decide()

    async def revoke(self, identity: ClientIdentity, name: str = "web-1") -> None:
        await self.store.revoke(public_key=identity.public.text, name=name, by="ana", at=self.clock.now())
        await self.decide()

    async def issue(self, identity: ClientIdentity, *, name: str = "web-1", generation: int = 7, size: int = 10) -> str:
        """Issue and publish a desired state; return its digest."""
        content = Content(client=name, directories=Directories())
        now = self.clock.now()
        issued = Issued(
            client=name,
            audience=identity.public.text,
            generation=generation,
            digest=content.digest(),
            revision="c" * 40,
            issued=now,
            expires=now + timedelta(days=90),
            envelope=json.dumps({"generation": generation, "filling": "x" * size}).encode(),
            content=content,
        )
        await self.store.publish(
            clients=(), backups=(), issued=(issued,), removed_clients=(), removed_backups=(), at=now
        )
        await self.gateway.publish([issued])
        return content.digest()

    async def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Return what stands in the store."""
        return await self.store._read(lambda connection: [tuple(row) for row in connection.execute(text(statement))])

    async def until(self, statement: str, expected: list[tuple[Any, ...]]) -> None:
        """Wait until the store says so."""
        while await self.rows(statement) != expected:
            await asyncio.sleep(0)

    async def events(self) -> list[str]:
        return [reason for (reason,) in await self.rows("select reason from events order by id")]

    def count(self, line: str) -> float:
        """Return one number of /metrics."""
        for found in metrics_text(self.metrics).decode().splitlines():
            if found.startswith(f"borgmatic_director_{line} "):
                return float(found.rpartition(" ")[2])
        return 0.0


async def refusal(client: WireClient) -> dict[str, Any]:
    """Return the refusal that comes next, after which the connection ends."""
    answer = await client.receive()
    assert answer["type"] == "refused", answer
    await client.closed()
    return answer


async def refused(client: WireClient, identity: ClientIdentity, **arguments: Any) -> str:
    answer = await client.shake_hands(identity, **arguments)
    assert answer["type"] == "refused", answer
    await client.closed()
    return str(answer["code"])


async def everything(client: WireClient) -> list[dict[str, Any]]:
    """Return what still comes until the connection ends."""
    heard = []
    try:
        while True:
            heard.append(await client.receive())
    except Closed:
        return heard


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


def reports(*items: tuple[int, dict[str, Any]], epoch: str = EPOCH) -> dict[str, Any]:
    numbered = [{"sequence": sequence, "report": report} for sequence, report in items]
    return {"type": "reports", "epoch": epoch, "items": numbered}


def event(reason: str = "Applied") -> dict[str, Any]:
    return {"type": "event", "at": "2026-11-23T12:00:00Z", "reason": reason, "message": "well"}


MESSAGES: dict[str, dict[str, Any]] = {
    "hello": {"type": "hello", "versions": [1], "name": "web-1", "key": "bd1-client." + "A" * 86, "nonce": "A" * 43},
    "proof": {"type": "proof", "signature": "A" * 86},
    "pull": {"type": "pull"},
    "reports": reports((1, event())),
    "progress": {
        "type": "progress",
        "progress": {"at": "2026-11-23T12:00:00Z", "run": EPOCH, "backup": "files"},
    },
    "accepted": {"type": "accepted", "name": "web-1", "time": "2026-11-23T12:00:00Z"},
}


async def in_state(house: House, state: State, me: ClientIdentity) -> WireClient:
    """Return a connection whose session stands in ``state``."""
    client = await house.dial()
    match state:
        case State.CHALLENGED:
            await client.challenge(me)
        case State.PENDING:
            assert (await client.shake_hands(me, token=await house.token()))["type"] == "pending"
        case State.OPEN:
            house.commit(web_1=me)
            assert (await client.shake_hands(me))["type"] == "accepted"
    return client


def pinned(certificate: tls.ServerCertificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(certificate.certificate)
    return context
