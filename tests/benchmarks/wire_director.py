"""The director of the wire under load: its real store, gateway and signatures, without a source and its loop.

``python -m tests.benchmarks.wire_director --keys=FILE --folder=FOLDER [--tls=FOLDER] [--port=NUMBER]``, told on its
standard input what to do. What it publishes is made beforehand, as for the floor: what Git costs is measured elsewhere.
"""

from __future__ import annotations

import argparse
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from reconciler import tls
from reconciler.clock import SystemClock
from reconciler.core.issue import ClientRow, Issued
from reconciler.garbage import look_seldom
from reconciler.gateway import Gateway, GatewaySettings
from reconciler.listen import Address
from reconciler.metrics import Metrics
from reconciler.store import Store
from schema.desired import PAYLOAD_TYPE
from schema.envelope import seal_envelope
from tests.benchmarks.wire_fleet import DIRECTOR, LATER, MOMENT, REVISION, desired_state, read_keys
from tests.benchmarks.wire_programs import obey, run

if TYPE_CHECKING:
    from collections.abc import Mapping


class Loop:
    """What the reconcile loop does at the end of a pass: sign, keep, and tell the gateway."""

    def __init__(self, store: Store, gateway: Gateway, keys: Mapping[str, str]) -> None:
        self._store = store
        self._gateway = gateway
        self._keys = keys
        self._states: list[tuple[Issued, bytes]] = []

    async def prepare(self) -> Mapping[str, Any]:
        """Have what is to be sent ready, unsigned."""
        generation = int(time.time() * 1000)
        self._states.clear()
        for name, key in self._keys.items():
            content, payload = desired_state(name, key, generation=generation)
            issued = Issued(name, key, generation, content.digest(), REVISION, MOMENT, LATER, content=content)
            self._states.append((issued, payload))
        return {"generation": generation}

    async def publish(self) -> Mapping[str, Any]:
        """Sign each client's state, keep them, and have them sent."""
        started = time.perf_counter()
        signed = [
            replace(issued, envelope=seal_envelope(payload, payload_type=PAYLOAD_TYPE, identity=DIRECTOR))
            for issued, payload in self._states
        ]
        made = time.perf_counter()
        await self._store.publish(
            clients=(), backups=(), issued=signed, removed_clients=(), removed_backups=(), at=MOMENT
        )
        kept = time.perf_counter()
        await self._gateway.publish(signed)
        return {"signed": made - started, "kept": kept - made}


async def serve(keys: Mapping[str, str], *, folder: Path, port: int, encrypted: str) -> None:
    """Serve until nobody is there to tell what to do."""
    clock = SystemClock()
    certificate = tls.self_signed_certificate(Path(encrypted), names=["127.0.0.1"], now=MOMENT) if encrypted else None
    async with await Store.open(folder / "store.sqlite") as store:
        if not await store.committed_keys():
            rows = [ClientRow(name, key, {}, "clients.yaml", suspended=False) for name, key in keys.items()]
            await store.publish(
                clients=rows, backups=(), issued=(), removed_clients=(), removed_backups=(), at=clock.now()
            )
        settings = GatewaySettings(listen=(Address(host="127.0.0.1", port=port),))
        gateway = Gateway(
            identity=DIRECTOR, store=store, clock=clock, settings=settings, metrics=Metrics(), certificate=certificate
        )
        gateway.set_source_clients(await store.committed_keys())
        await gateway.start()
        try:
            loop = Loop(store, gateway, keys)
            found = {"port": gateway.addresses[0].port, "fingerprint": certificate.fingerprint if certificate else ""}
            await obey(found, {"prepare": loop.prepare, "publish": loop.publish})
        finally:
            await gateway.stop()


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tls", default="")
    asked = parser.parse_args()
    look_seldom()
    run(serve(read_keys(asked.keys), folder=asked.folder, port=asked.port, encrypted=asked.tls))
