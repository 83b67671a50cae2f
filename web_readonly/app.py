"""The dashboard over HTTP: GET and HEAD, nothing else. ``reconciler.cli`` makes it and runs it.

Here the parts are put together and served: ``answering`` (questions), static files, metrics.
"""

from __future__ import annotations

import asyncio
import ipaddress
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web

from schema.errors import TerminalError, TransientError
from web_readonly.answering import Answering
from web_readonly.live import Live
from web_readonly.metrics import CONTENT_TYPE, StoreMetrics
from web_readonly.pages import Pages, load_assets
from web_readonly.views import VIEWS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime

    from web_readonly.pages import Asset
    from web_readonly.reader import Reader

_log = structlog.get_logger(__name__)

IDLE_SECONDS: Final = 30.0
"""Also the only limit on a connection that never finishes the head of its request."""

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; script-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_ALLOW_REMOTE: Final = web.AppKey("allow_remote", bool)
_IN_THREAD: Final = 64 * 1024
"""Bytes from which a thread compresses."""
_TEXT: Final = "text/plain; charset=utf-8"


def make_app(
    reader: Reader,
    *,
    now: Callable[[], datetime],
    metrics: StoreMetrics | None = None,
    allow_remote: bool = False,
) -> web.Application:
    """Return the application. ``metrics`` adds the director's own numbers to those of its store.

    Unless ``allow_remote``, it answers only to names of this machine, so that no site can reach it by renaming itself
    (DNS rebinding), and ``serving`` listens on loopback only.
    """
    assets = load_assets()
    dashboard = Answering(reader, now=now, pages=Pages(assets), welcome=lambda one: allow_remote or _is_ours(one))
    app = web.Application(middlewares=[dashboard.guard], client_max_size=1)
    app[_ALLOW_REMOTE] = allow_remote
    for view in VIEWS:
        if view.template:
            app.router.add_get(view.path, dashboard.page(view))
        if view.api:
            app.router.add_get(view.api_path, dashboard.twin(view))
    live = Live(reader.version)
    app.router.add_get("/live", live.stream)
    app.on_shutdown.append(live.close)
    app.router.add_get("/static/{name}", partial(_static, assets))
    app.router.add_get("/livez", _livez)
    app.router.add_get("/metrics", partial(_metrics, metrics or StoreMetrics(reader, now=now)))
    app.on_response_prepare.append(_put_headers)
    app.on_cleanup.append(dashboard.close)
    return app


@asynccontextmanager
async def serving(app: web.Application, *, host: str, port: int) -> AsyncIterator[str]:
    """Listen, yield the dashboard's URL, and stop listening.

    Raises:
        TerminalError: the address can be reached from elsewhere, and the application was not made for that.
        TransientError: the address is in use, or is not ours.
    """
    if not app[_ALLOW_REMOTE] and not is_loopback(host):
        raise TerminalError(
            f"cannot serve the dashboard at {host or 'all addresses'}: other machines can reach it, and it asks nobody "
            "who they are yet",
            hint="serve it at 127.0.0.1 behind a proxy that asks for a login or through an SSH tunnel, or allow it",
        )
    runner = web.AppRunner(
        app,
        access_log=None,
        keepalive_timeout=IDLE_SECONDS,
        lingering_time=1.0,
        shutdown_timeout=2.0,
        max_line_size=8190,
        max_field_size=8190,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        bound = runner.addresses[0]
        yield f"http://{_in_url(bound[0])}:{bound[1]}"
    except OSError as error:
        raise TransientError(
            f"cannot serve the dashboard at {host}:{port}: {error.strerror or error}",
            hint="is another dashboard running?",
        ) from None
    finally:
        await runner.cleanup()


async def serve(app: web.Application, *, host: str, port: int) -> None:
    """Serve until cancelled."""
    async with serving(app, host=host, port=port) as url:
        _log.info("web.serving", url=url)
        await asyncio.Event().wait()


def is_loopback(host: str) -> bool:
    """Whether only this machine is meant by a host name or address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _is_ours(request: web.Request) -> bool:
    hosts = request.headers.getall("Host", [])
    return len(hosts) == 1 and is_loopback(_without_port(hosts[0]))


def _without_port(host: str) -> str:
    name, separator, port = host.rpartition(":")
    return name if separator and port.isascii() and port.isdigit() else host


async def _put_headers(_: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers[name] = value
    response.headers.pop("Server", None)


# --- What needs no store ----------------------------------------------------------------------------------------------


async def _static(assets: dict[str, Asset], request: web.Request) -> web.Response:
    asset = assets.get(request.match_info["name"])
    if asset is None:
        raise web.HTTPNotFound
    # Its address holds its digest, so that a new one has a new address.
    response = web.Response(body=asset.content, content_type=asset.type, charset="utf-8")
    known = request.query_string == asset.digest
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if known else "no-cache"
    response.enable_compression()
    return response


async def _livez(_: web.Request) -> web.Response:
    return web.Response(body=b"ok\n", headers={"Content-Type": _TEXT, "Cache-Control": "no-store"})


async def _metrics(metrics: StoreMetrics, _: web.Request) -> web.Response:
    headers = {"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"}
    response = web.Response(body=await metrics.text(), headers=headers, zlib_executor_size=_IN_THREAD)
    response.enable_compression()
    return response
