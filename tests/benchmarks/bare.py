"""The floor of the pages: a bare aiohttp server that answers ready bodies, compressed in a thread, and nothing else.

``python -m tests.benchmarks.bare PORT FOLDER``: ``FOLDER/index.json`` says which file answers which target.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import uvloop
from aiohttp import web

from web_readonly.answering import THREADS
from web_readonly.caching import GZIP_LEVEL

_HEADERS: Final = {"Content-Encoding": "gzip", "Cache-Control": "no-store"}


async def serve(port: int, bodies: dict[str, bytes]) -> None:
    """Answer until ended."""
    threads = ThreadPoolExecutor(THREADS)

    async def answer(request: web.Request) -> web.Response:
        body = bodies.get(request.path_qs, b"ok\n")
        packed = await asyncio.get_running_loop().run_in_executor(threads, partial(gzip.compress, body, GZIP_LEVEL))
        return web.Response(body=packed, content_type="text/html", charset="utf-8", headers=_HEADERS)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    _folder = Path(sys.argv[2])
    _index = json.loads((_folder / "index.json").read_text(encoding="utf-8"))
    uvloop.run(serve(int(sys.argv[1]), {target: (_folder / name).read_bytes() for target, name in _index.items()}))
