"""The floor of a push: a bare script that fetches, asks Git what changed, parses that, signs it and sends it.

``python -m tests.benchmarks.push_floor --keys=FILE --folder=FOLDER --source=FOLDER``, told on its standard input what
to do. It checks nothing, renders nothing and keeps nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from aiohttp import web

from schema import wire
from schema.desired import PAYLOAD_TYPE
from schema.envelope import seal_envelope
from tests.benchmarks.wire_fleet import DIRECTOR, read_keys
from tests.benchmarks.wire_floor import Bare
from tests.benchmarks.wire_programs import obey, run

if TYPE_CHECKING:
    from collections.abc import Mapping


class Pushed(Bare):
    """A bare server that follows a Git repository."""

    def __init__(self, keys: Mapping[str, str], *, clone: Path, source: str) -> None:
        super().__init__(keys, channel="")
        self._clone = clone
        self._source = source
        self._revision = ""

    async def push(self) -> Mapping[str, Any]:
        """Fetch; sign and send what changed."""
        before, self._revision = self._revision, self._fetch()
        documents = self._changed(before, self._revision) if before else []
        generation = int(time.time() * 1000)
        for document in documents:
            for name in document["spec"]["clients"]:
                state = {"audience": name, "generation": generation, "revision": self._revision, "content": document}
                sealed = seal_envelope(json.dumps(state).encode(), payload_type=PAYLOAD_TYPE, identity=DIRECTOR)
                await self._sockets[name].send_str(json.dumps({"type": "desired", "envelope": sealed.decode()}))
        return {}

    def _fetch(self) -> str:
        self._git("fetch", "--quiet", self._source, "+refs/heads/main:refs/heads/main")
        return self._git("rev-parse", "refs/heads/main").decode().strip()

    def _changed(self, before: str, after: str) -> list[Any]:
        """Return the documents that are other ones."""
        lines = self._git("diff-tree", "-r", before, after).decode().splitlines()
        blobs = "".join(line.split()[3] + "\n" for line in lines)
        content, place, found = self._git("cat-file", "--batch", text=blobs.encode()), 0, []
        while place < len(content):
            end = content.index(b"\n", place)
            size = int(content[place:end].split()[2])
            found.append(yaml.load(content[end + 1 : end + 1 + size], yaml.CSafeLoader))
            place = end + size + 2
        return found

    def _git(self, *words: str, text: bytes = b"") -> bytes:
        command = ["git", "-C", str(self._clone), *words]
        return subprocess.run(command, input=text, capture_output=True, check=True, timeout=60).stdout


async def serve(keys: Mapping[str, str], *, folder: Path, source: str) -> None:
    """Serve until nobody is there to tell what to do."""
    clone = folder / "floor.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(clone)], check=True)
    floor = Pushed(keys, clone=clone, source=source)
    await floor.push()
    application = web.Application()
    application.router.add_get(wire.PATH, floor.connect)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    await obey({"port": runner.addresses[0][1]}, {"push": floor.push})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--source")
    asked = parser.parse_args()
    run(serve(read_keys(asked.keys), folder=asked.folder, source=asked.source))
