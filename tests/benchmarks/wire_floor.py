"""The floor of the wire: a bare aiohttp WebSocket server on uvloop, with the same signatures and checks, and no more.

``python -m tests.benchmarks.wire_floor --keys=FILE [--tls=FOLDER]``, told on its standard input what to do. It knows
nothing of a store, of slow clients, of strangers, or of what a client had before.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from reconciler import tls
from schema import wire
from schema.desired import PAYLOAD_TYPE
from schema.envelope import (
    CHALLENGE_PURPOSE,
    PROOF_PURPOSE,
    decode_bytes,
    encode_bytes,
    parse_client_key,
    random_nonce,
    seal_envelope,
    transcript,
)
from tests.benchmarks.wire_fleet import DIRECTOR, MOMENT, desired_state, read_keys
from tests.benchmarks.wire_programs import obey, run

if TYPE_CHECKING:
    from collections.abc import Mapping


class Bare:
    """Everything there is."""

    def __init__(self, keys: Mapping[str, str], *, channel: str) -> None:
        self._names = {key: name for name, key in keys.items()}
        self._channel = channel
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._states: dict[str, bytes] = {}
        self._holds: dict[str, int] = {}

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """Carry one client from its first to its last frame."""
        socket = web.WebSocketResponse(
            heartbeat=float(wire.HEARTBEAT_SECONDS), compress=False, max_msg_size=wire.MAX_CLIENT_FRAME
        )
        await socket.prepare(request)
        name = await self._shake_hands(socket)
        self._sockets[name] = socket
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await self._hear(socket, name, json.loads(message.data))
        finally:
            del self._sockets[name]
        return socket

    async def _shake_hands(self, socket: web.WebSocketResponse) -> str:
        hello = json.loads(await socket.receive_str())
        key = parse_client_key(hello["key"])
        nonce = random_nonce()
        said = transcript(
            offered=hello["versions"],
            chosen=1,
            name=hello["name"],
            client_key=hello["key"],
            director_key=DIRECTOR.public.text,
            client_nonce=decode_bytes(hello["nonce"]),
            director_nonce=nonce,
            channel=self._channel,
        )
        challenge = {
            "type": "challenge",
            "version": 1,
            "nonce": encode_bytes(nonce),
            "key": DIRECTOR.public.text,
            "signature": encode_bytes(DIRECTOR.sign(purpose=CHALLENGE_PURPOSE, data=said)),
        }
        await socket.send_str(json.dumps(challenge))
        proof = json.loads(await socket.receive_str())
        key.verify_key.verify(decode_bytes(proof["signature"]), purpose=PROOF_PURPOSE, data=said)
        name = self._names[key.text]
        accepted = {"type": "accepted", "name": name, "time": "2026-11-24T00:00:00Z", "heartbeat": 30, "resync": 300}
        await socket.send_str(json.dumps(accepted))
        return name

    async def _hear(self, socket: web.WebSocketResponse, name: str, message: dict[str, Any]) -> None:
        item = message["items"][-1]
        self._holds[name] = item["report"]["generation"]
        answer = {"type": "acknowledged", "epoch": message["epoch"], "sequence": item["sequence"]}
        await socket.send_str(json.dumps(answer))

    async def prepare(self) -> Mapping[str, Any]:
        """Have what is to be sent ready, unsigned."""
        generation = int(time.time() * 1000)
        self._states = {name: desired_state(name, key, generation=generation)[1] for key, name in self._names.items()}
        return {"generation": generation}

    async def publish(self) -> Mapping[str, Any]:
        """Sign each client's state and send it."""
        started = time.perf_counter()
        for name, payload in self._states.items():
            sealed = seal_envelope(payload, payload_type=PAYLOAD_TYPE, identity=DIRECTOR)
            await self._sockets[name].send_str(json.dumps({"type": "desired", "envelope": sealed.decode()}))
        return {"sent": time.perf_counter() - started}


async def serve(keys: Mapping[str, str], folder: str) -> None:
    """Serve until nobody is there to tell what to do."""
    certificate = tls.self_signed_certificate(Path(folder), names=["127.0.0.1"], now=MOMENT) if folder else None
    fingerprint = certificate.fingerprint if certificate else ""
    bare = Bare(keys, channel=fingerprint)
    application = web.Application()
    application.router.add_get(wire.PATH, bare.connect)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    context = certificate.context() if certificate else None
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096, ssl_context=context).start()
    port = runner.addresses[0][1]
    await obey({"port": port, "fingerprint": fingerprint}, {"prepare": bare.prepare, "publish": bare.publish})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=Path)
    parser.add_argument("--folder", type=Path, help="not needed: a floor keeps nothing")
    parser.add_argument("--tls", default="")
    asked = parser.parse_args()
    run(serve(read_keys(asked.keys), asked.tls))
