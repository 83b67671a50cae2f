"""The dashboard over HTTP: GET and HEAD, nothing else. ``reconciler.cli`` makes it and runs it.

Every question runs in a thread with the rendering of its answer, so that the event loop, which a director may share,
only moves bytes.
"""

from __future__ import annotations

import asyncio
import ipaddress
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web

from schema.errors import DirectorError, TerminalError, TransientError
from web_readonly.pages import Pages, as_json, dump, load_assets
from web_readonly.questions import Asked, NotFound
from web_readonly.reader import InvalidQuery, StoreUnavailable
from web_readonly.views import API, VIEWS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime

    from aiohttp.typedefs import Handler

    from web_readonly.pages import Asset
    from web_readonly.reader import Reader
    from web_readonly.views import View

_log = structlog.get_logger(__name__)

THREADS: Final = 4
ANSWER_SECONDS: Final = 10.0
"""A question that takes longer is given up: the store is locked, or far too large for this machine."""
IDLE_SECONDS: Final = 30.0
"""Also the only limit on a connection that never finishes the head of its request."""
MAX_FILTER: Final = 500
"""Characters of one filter."""

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
_TEXT: Final = "text/plain; charset=utf-8"
_PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"


def make_app(
    reader: Reader,
    *,
    now: Callable[[], datetime],
    metrics: Callable[[], bytes] | None = None,
    allow_remote: bool = False,
) -> web.Application:
    """Return the application. ``metrics`` gives Prometheus' text format, or there is no ``/metrics``.

    Unless ``allow_remote``, it answers only to names of this machine, so that no site can reach it by renaming itself
    (DNS rebinding), and ``serving`` listens on loopback only.
    """
    assets = load_assets()
    dashboard = _Dashboard(reader, now=now, pages=Pages(assets))
    app = web.Application(middlewares=[dashboard.guard], client_max_size=1)
    app[_ALLOW_REMOTE] = allow_remote
    for view in VIEWS:
        if view.template:
            app.router.add_get(view.path, dashboard.page(view))
        if view.api:
            app.router.add_get(view.api_path, dashboard.twin(view))
    app.router.add_get("/static/{name}", partial(_static, assets))
    app.router.add_get("/livez", _livez)
    if metrics is not None:
        app.router.add_get("/metrics", partial(_metrics, metrics))
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


# --- Answering --------------------------------------------------------------------------------------------------------


class _Dashboard:
    """The handlers that ask the reader."""

    def __init__(self, reader: Reader, *, now: Callable[[], datetime], pages: Pages) -> None:
        self._reader = reader
        self._now = now
        self._pages = pages
        self._threads = ThreadPoolExecutor(THREADS, "dashboard")

    async def close(self, _: web.Application) -> None:
        """End the threads; the reader belongs to whoever made it."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def page(self, view: View) -> Handler:
        """Return the handler of a page."""

        def answer(asked: Asked) -> bytes:
            return self._pages.page(view, view.question(self._reader, asked), asked)

        return partial(self._answer, view, answer, "text/html")

    def twin(self, view: View) -> Handler:
        """Return the handler of a page's JSON twin."""

        def answer(asked: Asked) -> bytes:
            return as_json(view.question(self._reader, asked))

        return partial(self._answer, view, answer, "application/json")

    async def _answer(
        self, view: View, answer: Callable[[Asked], bytes], content_type: str, request: web.Request
    ) -> web.StreamResponse:
        asked = read_request(request, filters=view.filters, now=self._now())
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                body = await loop.run_in_executor(self._threads, answer, asked)
        except TimeoutError:
            raise StoreUnavailable(
                f"the store did not answer within {ANSWER_SECONDS:.0f} seconds", hint="try again in a moment"
            ) from None
        return _response(body, content_type)

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse foreign names, and turn what goes wrong into an answer that helps."""
        if not request.app[_ALLOW_REMOTE] and not _is_ours(request):
            return self._error(
                request,
                421,
                "This is not a name of the dashboard",
                "it is served to this machine only, and was asked for under another name",
                "open it as http://localhost or http://127.0.0.1, with its port",
            )
        try:
            return await handler(request)
        except NotFound as error:
            return self._error(request, 404, "Not found", error.message, error.hint)
        except InvalidQuery as error:
            return self._error(request, 400, "This question makes no sense", error.message, error.hint)
        except StoreUnavailable as error:
            return self._error(request, 503, "The store cannot be read", error.message, error.hint)
        except DirectorError as error:
            return self._error(request, 503, "This cannot be answered now", error.message, error.hint)
        except web.HTTPMethodNotAllowed:
            response = self._error(
                request,
                405,
                "Nothing can be changed here",
                f"the dashboard answers GET and HEAD, not {request.method[:20]}",
                "what is backed up is changed by a commit, and everything else by the director command",
            )
            response.headers["Allow"] = "GET, HEAD"
            return response
        except web.HTTPNotFound:
            hint = "start at the overview: /" if not request.path.startswith(API) else f"start at {API}/overview"
            return self._error(request, 404, "Not found", f"there is no page at {request.path[:200]}", hint)
        except web.HTTPException as error:
            return self._error(request, error.status, error.reason, "the request cannot be answered", "")
        except Exception:  # noqa: BLE001 - whatever it is, the answer names no detail, and the log all
            _log.exception("web.failed", path=request.path[:200])
            return self._error(
                request, 500, "Something is wrong with the dashboard", "backups are not concerned", "see its log"
            )

    def _error(self, request: web.Request, status: int, title: str, message: str, hint: str) -> web.Response:
        if request.path.startswith("/api/"):
            body = dump({"error": {"status": status, "message": message, "hint": hint}})
            return _response(body, "application/json", status=status)
        body = self._pages.error(status=status, title=title, message=message, hint=hint, now=self._now())
        return _response(body, "text/html", status=status)


def read_request(request: web.Request, *, filters: tuple[str, ...], now: datetime) -> Asked:
    """Return what was asked; ``InvalidQuery`` when a filter is not one of the page's, or far too long."""
    query: dict[str, tuple[str, ...]] = {}
    for name in dict.fromkeys(request.query):
        if name not in filters:
            known = f"its filters are: {', '.join(filters)}" if filters else "it has none"
            raise InvalidQuery(f"this page has no filter '{name[:80]}'", hint=known)
        values = tuple(value for value in request.query.getall(name) if value)
        if any(len(value) > MAX_FILTER for value in values) or len(values) > 20:
            raise InvalidQuery(f"the filter '{name}' is too long", hint=f"at most {MAX_FILTER} characters")
        if values:
            query[name] = values
    return Asked(now=now, path=dict(request.match_info), query=query)


def _is_ours(request: web.Request) -> bool:
    hosts = request.headers.getall("Host", [])
    return len(hosts) == 1 and is_loopback(_without_port(hosts[0]))


def _without_port(host: str) -> str:
    name, separator, port = host.rpartition(":")
    return name if separator and port.isascii() and port.isdigit() else host


def _response(body: bytes, content_type: str, *, status: int = 200) -> web.Response:
    response = web.Response(body=body, status=status, content_type=content_type, charset="utf-8")
    response.headers["Cache-Control"] = "no-store"
    response.enable_compression()
    return response


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


async def _metrics(metrics: Callable[[], bytes], _: web.Request) -> web.Response:
    return web.Response(body=metrics(), headers={"Content-Type": _PROMETHEUS, "Cache-Control": "no-store"})
