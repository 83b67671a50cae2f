"""Questions over HTTP: each runs in a thread with the rendering of its answer; what goes wrong is a page that helps.

The event loop, which a director may share, only moves bytes.
"""

from __future__ import annotations

import asyncio
import difflib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web

from schema.errors import DirectorError
from schema.status import Page
from web_readonly import badges
from web_readonly.asking import Asked, NotFound
from web_readonly.caching import Body, Cache, make_body
from web_readonly.pages import as_json, dump
from web_readonly.reader import InvalidQuery, StoreUnavailable
from web_readonly.turns import Turns
from web_readonly.views import API, VIEWS

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from aiohttp.typedefs import Handler

    from web_readonly.pages import Pages
    from web_readonly.reader import Reader
    from web_readonly.views import View

_log = structlog.get_logger(__name__)

_OK: Final = 200
_NUMBERS: Final = {"limit", "days"}
"""Filters that no form sends: empty is no way of saying \"any\"."""
THREADS: Final = 4
ANSWER_SECONDS: Final = 10.0
"""A question that takes longer is given up: the store is locked, or far too large for this machine."""
MAX_FILTER: Final = 500
"""Characters of one filter."""


class Answering:
    """The handlers that ask the reader."""

    def __init__(
        self, reader: Reader, *, now: Callable[[], datetime], pages: Pages, welcome: Callable[[web.Request], bool]
    ) -> None:
        self._reader = reader
        self._welcome = welcome
        self._now = now
        self._pages = pages
        self._threads = ThreadPoolExecutor(THREADS, "dashboard")
        self._cache = Cache(reader.version)
        self._turns = Turns()

    async def close(self, _: web.Application) -> None:
        """End the threads; the reader belongs to whoever made it."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def page(self, view: View) -> Handler:
        """Return the handler of a page."""

        def answer(asked: Asked) -> Body:
            with self._reader.moment():
                content = self._pages.page(view, view.question(self._reader, asked), asked)
            return make_body(content)

        return partial(self.answer, view.path, view.filters, answer, "text/html")

    def twin(self, view: View) -> Handler:
        """Return the handler of a page's JSON twin."""

        def answer(asked: Asked) -> Body:
            found = view.question(self._reader, asked)
            return make_body(as_json(found), following=found.main.next if isinstance(found.main, Page) else "")

        return partial(self.answer, view.path, view.api_filters, answer, "application/json")

    def document(self, content: bytes) -> Handler:
        """Return the handler of a JSON document that does not change."""
        body = make_body(content)

        async def answer(request: web.Request) -> web.Response:
            read_request(request, filters=(), now=self._now())
            return as_kept(request, body, "application/json", seconds=0.0)

        return answer

    def badge(self, path: str) -> Handler:
        """Return the handler of a badge: of what its path names, or of everything."""

        def draw(asked: Asked) -> Body:
            client, backup = asked.path.get("client", ""), asked.path.get("backup", "")
            standings = self._reader.standings(client=client, backup=backup, now=asked.now)
            if not backup:
                return make_body(badges.draw(badges.of_all(standings)))
            found = badges.of_backup(backup, standings)
            return make_body(badges.draw(found or badges.unknown(backup)), status=200 if found else 404)

        async def answer(request: web.Request) -> web.Response:
            response = await self.answer(path, (), draw, badges.CONTENT_TYPE, request)
            response.headers["Cache-Control"] = f"private, max-age={badges.FRESH_SECONDS}"
            return response

        return answer

    async def answer(
        self,
        path: str,
        filters: tuple[str, ...],
        answer: Callable[[Asked], Body],
        content_type: str,
        request: web.Request,
    ) -> web.Response:
        """Answer a request with what ``answer`` makes of it in a thread; with 304 to who has it. ``path`` names it."""
        asked = read_request(request, filters=filters, now=self._now())
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def make() -> Body:
            async with self._turns.mine():
                return await loop.run_in_executor(self._threads, answer, asked)

        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                body = await self._cache.get(f"{content_type} {path}", asked, make)
        except TimeoutError:
            raise StoreUnavailable(
                f"the store did not answer within {ANSWER_SECONDS:.0f} seconds", hint="try again in a moment"
            ) from None
        return as_kept(request, body, content_type, seconds=loop.time() - began)

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse foreign names, and turn what goes wrong into an answer that helps."""
        if not self._welcome(request):
            return self.error(
                request,
                421,
                "This is not a name of the dashboard",
                "it is served to this machine only, and was asked for under another name",
                "open it as http://localhost or http://127.0.0.1, with its port",
            )
        try:
            return await handler(request)
        except NotFound as error:
            return self.error(request, 404, "Not found", error.message, error.hint)
        except InvalidQuery as error:
            return self.error(request, 400, "This question makes no sense", error.message, error.hint)
        except StoreUnavailable as error:
            return self.error(request, 503, "The store cannot be read", error.message, error.hint)
        except DirectorError as error:
            return self.error(request, 503, "This cannot be answered now", error.message, error.hint)
        except web.HTTPMethodNotAllowed:
            response = self.error(
                request,
                405,
                "Nothing can be changed here",
                f"the dashboard answers GET and HEAD, not {request.method[:20]}",
                "what is backed up is changed by a commit, and everything else by the director command",
            )
            response.headers["Allow"] = "GET, HEAD"
            return response
        except web.HTTPNotFound:
            return self.error(
                request, 404, "Not found", f"there is no page at {request.path[:200]}", _meant(request.path)
            )
        except web.HTTPException as error:
            return self.error(request, error.status, error.reason, "the request cannot be answered", "")
        except Exception:  # noqa: BLE001 - whatever it is, the answer names no detail, and the log all
            _log.exception("web.failed", path=request.path[:200])
            return self.error(
                request, 500, "Something is wrong with the dashboard", "backups are not concerned", "see its log"
            )

    def error(self, request: web.Request, status: int, title: str, message: str, hint: str) -> web.Response:
        """Return what went wrong as a page, or as JSON below ``/api``."""
        if request.path.startswith("/api/"):
            body = dump({"error": {"status": status, "message": message, "hint": hint}})
            return as_response(body, "application/json", status=status)
        body = self._pages.error(status=status, title=title, message=message, hint=hint, now=self._now())
        return as_response(body, "text/html", status=status)


def _meant(path: str) -> str:
    """Return which page may have been meant by a path that leads nowhere."""
    prefix = API if path.startswith(API) else ""
    word = path.removeprefix(prefix).strip("/").partition("/")[0][:40]
    known = {view.path.split("/")[1] for view in VIEWS} - {""}
    close = difflib.get_close_matches(word, sorted(known - {word}), n=1, cutoff=0.7)
    if close:
        return f"did you mean {prefix}/{close[0]}?"
    return f"start at {API}/overview" if prefix else "start at the overview: /"


def read_request(request: web.Request, *, filters: tuple[str, ...], now: datetime) -> Asked:
    """Return what was asked; ``InvalidQuery`` when a filter is not one of the page's, or far too long."""
    query: dict[str, tuple[str, ...]] = {}
    for name in dict.fromkeys(request.query):
        if name not in filters:
            known = f"its filters are: {', '.join(filters)}" if filters else "it has none"
            raise InvalidQuery(f"this page has no filter '{name[:80]}'", hint=known)
        given = request.query.getall(name)
        values = tuple(value for value in given if value)
        if any(len(value) > MAX_FILTER for value in values) or len(given) > 20:
            raise InvalidQuery(f"the filter '{name}' is too long", hint=f"at most {MAX_FILTER} characters")
        if values:
            query[name] = values
        elif name in _NUMBERS:
            raise InvalidQuery(f"'{name}' cannot be empty", hint="leave it out, or give a number")
    return Asked(now=now, path=dict(request.match_info), query=query)


def as_kept(request: web.Request, body: Body, content_type: str, *, seconds: float) -> web.Response:
    """Return an answer, or 304 when the viewer has just these bytes.

    The browser may keep it (``private``: no proxy may), and has to ask before each use (``no-cache``), which is when
    access is decided: without it there is neither 304 nor 200. Pages hold no secret that a disk must not hold.
    """
    packs = bool(body.packed) and "gzip" in request.headers.get("Accept-Encoding", "").lower()
    # Other bytes have another tag; either says that the content is the same.
    tags = {True: f"{body.digest}-gzip", False: body.digest}
    headers = {
        "ETag": f'"{tags[packs]}"',
        "Cache-Control": "private, no-cache",
        # Cookie and Authorization: what one who has logged in may see is not for who comes to this browser next.
        "Vary": "Accept-Encoding, Authorization, Cookie",
    }
    if body.following:
        more = request.rel_url.update_query(after=body.following)
        headers["Link"] = f'<{more}>; rel="next"'
    if body.version:
        # The only header that a page can read of itself: by it live.js knows which event tells it something new, and
        # how hard the director worked.
        headers["Server-Timing"] = f'store;desc="{body.version}";dur={1000 * seconds:.1f}'
    if body.status == _OK and any(known.value in {*tags.values(), "*"} for known in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    if packs:
        headers["Content-Encoding"] = "gzip"
    return web.Response(
        body=body.packed if packs else body.content,
        status=body.status,
        content_type=content_type,
        charset="utf-8",
        headers=headers,
    )


def as_response(body: bytes, content_type: str, *, status: int = 200) -> web.Response:
    """Return an answer that no cache keeps."""
    response = web.Response(body=body, status=status, content_type=content_type, charset="utf-8")
    response.headers["Cache-Control"] = "no-store"
    response.enable_compression()
    return response
