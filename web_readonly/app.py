"""The dashboard over HTTP: GET and HEAD, nothing else. ``reconciler.cli`` makes it and runs it.

Here the parts are put together and served: ``answering`` (questions), static files, metrics.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web

from schema.addresses import is_loopback
from schema.errors import TerminalError, TransientError
from web_readonly import openapi
from web_readonly.access import Access
from web_readonly.answering import Answering
from web_readonly.connections import Connections
from web_readonly.gate import MAX_FORM, Gate
from web_readonly.live import Live
from web_readonly.metrics import CONTENT_TYPE, StoreMetrics
from web_readonly.pages import Pages, dump, load_assets
from web_readonly.views import VIEWS

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Mapping
    from datetime import datetime

    from schema.viewers import Viewer
    from web_readonly.pages import Asset
    from web_readonly.reader import Reader

_log = structlog.get_logger(__name__)

IDLE_SECONDS: Final = 30.0
"""Also the only limit on a connection that never finishes the head of its request."""
LINGER_SECONDS: Final = 1.0
"""For how long a body that nobody asked for is taken, so that its sender still reads the answer."""
HANDSHAKE_SECONDS: Final = 10.0
"""Of TLS."""
BACKLOG: Final = 256
SWITCH_SECONDS: Final = 0.0005
"""For how long a thread that renders a dear page may keep the others waiting each time that they come back from SQLite;
by itself Python lets them wait for ten times as long."""

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; script-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not "no-referrer": with that, browsers do not say which site sent a form.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_ACCESS: Final = web.AppKey("access", Access)
_PAGES: Final = web.AppKey("pages", Pages)
_IN_THREAD: Final = 64 * 1024
"""Bytes from which a thread compresses."""
_TEXT: Final = "text/plain; charset=utf-8"


def make_app(
    reader: Reader,
    *,
    now: Callable[[], datetime],
    metrics: StoreMetrics | None = None,
    access: Access | None = None,
    viewers: Callable[[], Mapping[str, Viewer]] = dict,
) -> web.Application:
    """Return the application. ``metrics`` adds the director's own numbers to those of its store.

    Without ``access`` it is open, and for this machine only. ``viewers`` gives the tokens that are good, by their hash.
    """
    access = access or Access()
    assets = load_assets()
    pages = Pages(assets, asks=access.asks)
    dashboard = Answering(reader, now=now, pages=pages, welcome=partial(_welcomes, access))
    gate = Gate(access, viewers=viewers, pages=pages, refuse=dashboard.error, now=now)
    app = web.Application(middlewares=[dashboard.guard, gate.guard], client_max_size=MAX_FORM)
    app[_ACCESS] = access
    app[_PAGES] = pages
    if access.asks:
        app.router.add_get("/login", gate.form)
        app.router.add_post("/login", gate.login)
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
    app.router.add_get(openapi.PATH, dashboard.document(dump(openapi.document())))
    for path in openapi.BADGES:
        app.router.add_get(path, dashboard.badge(path))
    app.router.add_get("/metrics", partial(_metrics, metrics or StoreMetrics(reader, now=now)))
    app.on_response_prepare.append(_put_headers)
    app.on_cleanup.append(dashboard.close)
    return app


@asynccontextmanager
async def serving(
    app: web.Application, *, host: str, port: int, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Listen, yield the dashboard's URL, and stop listening.

    Raises:
        TerminalError: the address can be reached from elsewhere, and the application was not made for that.
        TransientError: the address is in use, or is not ours.
    """
    access = app[_ACCESS]
    if not (access.asks or access.anywhere or is_loopback(host)):
        raise TerminalError(
            f"cannot serve the dashboard at {host or 'all addresses'}: other machines can reach it, and it would ask "
            "nobody who they are",
            hint="serve it at 127.0.0.1, or set up a login: docs/how-to/expose-the-dashboard.md",
        )
    runner = web.AppRunner(
        app,
        access_log=None,
        keepalive_timeout=IDLE_SECONDS,
        lingering_time=LINGER_SECONDS,
        shutdown_timeout=2.0,
        max_line_size=8190,
        max_field_size=8190,
        max_headers=64,
    )
    await runner.setup()
    assert runner.server is not None  # noqa: S101 - setup made it
    connections = Connections(runner.server, proxies=access.proxies)
    listener: asyncio.AbstractServer | None = None
    try:
        listener = await asyncio.get_running_loop().create_server(
            connections,
            host or None,
            port,
            ssl=tls,
            ssl_handshake_timeout=HANDSHAKE_SECONDS if tls else None,
            backlog=BACKLOG,
        )
        bound = listener.sockets[0].getsockname()
        yield f"{'https' if tls else 'http'}://{_in_url(bound[0])}:{bound[1]}"
    except OSError as error:
        raise TransientError(
            f"cannot serve the dashboard at {host}:{port}: {error.strerror or error}",
            hint="is another dashboard running? `--web`, or `address` of [web] in director.toml, moves this one",
        ) from None
    finally:
        if listener is not None:
            listener.close()
        connections.close()
        await runner.cleanup()


async def serve(app: web.Application, *, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
    """Serve until cancelled."""
    async with serving(app, host=host, port=port, tls=tls) as url:
        _log.info("web.serving", url=url)
        await asyncio.to_thread(app[_PAGES].load)
        # What is here now stays: whoever looks for garbage need not walk over it again, a tenth of a second each time
        # in which no page is answered.
        gc.collect()
        gc.freeze()
        sys.setswitchinterval(SWITCH_SECONDS)
        await asyncio.Event().wait()


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _welcomes(access: Access, request: web.Request) -> bool:
    # Who only asks whether it lives, a container's host perhaps, knows no name of it.
    return request.path == "/livez" or access.welcomes(request.headers.getall("Host", []))


async def _put_headers(request: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers[name] = value
    if request.path.startswith("/badge/") and request.app[_ACCESS].open_badges:
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
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
