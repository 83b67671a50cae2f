"""The gate before every page: asks ``web_readonly.access`` who it is, answers those who may not look, takes logins.

The login form (``POST /login``) is the only thing here that is not a question; it changes nothing but the browser's
cookie, and works without JavaScript. The log tells who logged in and how often somebody failed, never with what.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import secrets
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

import structlog
from aiohttp import hdrs, web

from schema.addresses import UNIX, source_of
from schema.viewers import NOBODY
from web_readonly import access as rules
from web_readonly.access import Access, Facts, Guess, Nobody, Who, Wrong
from web_readonly.attempts import Attempts
from web_readonly.views import API

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from typing import Protocol

    from aiohttp.typedefs import Handler

    from schema.viewers import Viewer
    from web_readonly.pages import Pages

    class Refuse(Protocol):
        """``Answering.error``: what went wrong as a page, or as JSON below ``/api``."""

        def __call__(self, request: web.Request, status: int, title: str, message: str, hint: str) -> web.Response: ...


_log = structlog.get_logger(__name__)

MAX_FORM: Final = 16_384
"""Bytes of a login form."""
FORM_SECONDS: Final = 5.0
COMPUTED_AT_ONCE: Final = 2
"""Passwords: each takes 32 MiB and a tenth of a second of a core."""
MAX_WAITING: Final = 16
MAX_REMEMBERED: Final = 100
_PROXIES_WRITE: Final = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP")
_OPEN: Final = frozenset({"/livez", "/login", "/static/{name}"})
"""Routes that tell nothing. Routes, not paths: what counts is what the router found, however it was written."""
_REALM: Final = 'realm="borgmatic-director"'


class _Busy(Exception):
    """Too many passwords wait to be computed."""


class Gate:
    """Lets those through who may look."""

    def __init__(
        self,
        access: Access,
        *,
        viewers: Callable[[], Mapping[str, Viewer]],
        pages: Pages,
        refuse: Refuse,
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._access = access
        self._viewers = viewers
        self._pages = pages
        self._refuse = refuse
        self._now = now
        self._monotonic = monotonic
        self._key = secrets.token_bytes(32)
        self._attempts = Attempts(key=self._key)
        self._right: OrderedDict[bytes, None] = OrderedDict()
        """Keyed digests of passwords that were right: so that not each request of a program computes for so long."""
        self._computing = asyncio.Semaphore(COMPUTED_AT_ONCE)
        self._waiting = 0
        self._told_of_header = False

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let a request through, or say what is missing."""
        place = _place(request)
        if place in _OPEN:
            return await handler(request)
        facts = self._facts(request)
        if not self._access.takes(facts):
            return self._refuse(
                request,
                403,
                "This came through a proxy",
                "the dashboard is open to this machine only, and a proxy may bring others",
                'say in director.toml how they log in, [web] login = "always", or that the proxy asks them: "never"',
            )
        if not self._access.asks or (self._access.open_badges and place.startswith("/badge/")):
            return await handler(request)
        if rules.names_itself(self._access, facts) and not self._told_of_header:
            self._told_of_header = True
            _log.warning(
                "web.header-ignored",
                header=self._access.proxy_header,
                address=facts.peer,
                hint="only proxies in [web] proxy_addresses are believed; told once",
            )
        try:
            who = await self._known(
                facts, rules.identify(self._access, facts, viewers=self._viewers(), now=self._now())
            )
        except _Busy:
            return self._busy(request)
        return await handler(request) if isinstance(who, Who) else self._turn_away(request, facts, who)

    async def form(self, request: web.Request) -> web.StreamResponse:
        """``GET /login``: the form, or to whom it is open already."""
        facts = self._facts(request)
        who = rules.identify(self._access, facts, viewers=self._viewers(), now=self._now())
        return self._page(status=200, who=who if isinstance(who, Who) else None)

    async def login(self, request: web.Request) -> web.StreamResponse:
        """``POST /login``: a cookie for who knows a secret; or its end."""
        if not rules.is_same_origin(
            host=request.host,
            origin=request.headers.get(hdrs.ORIGIN),
            fetch_site=request.headers.get("Sec-Fetch-Site"),
        ):
            return self._refuse(request, 403, "Not from here", "another site sent this form", "log in at /login")
        form = await _read_form(request)
        if "logout" in form:
            return _without_cookie("/login")
        facts, now = self._facts(request), self._now()
        secret, then = form.get("secret", ""), rules.local_path(form.get("next", ""))
        found = rules.of_form(
            name=form.get("name", ""), secret=secret, users=self._access.users, viewers=self._viewers(), now=now
        )
        try:
            who = await self._known(facts, found, guess=secret)
        except _Busy:
            return self._busy(request)
        if not isinstance(who, Who):
            return self._form_again(facts, who, then=then)
        _log.info("web.login", kind=who.kind, name=who.name, address=self._source(facts))
        cookie = rules.make_cookie(who, users=self._access.users, viewers=self._viewers(), now=now)
        secure = rules.is_secure(self._access, facts)
        response = _see_other(then)
        response.set_cookie(
            rules.SECURE_COOKIE if secure else rules.COOKIE,
            cookie,
            max_age=int(rules.LIFETIME.total_seconds()),
            path="/",
            httponly=True,
            samesite="Strict",
            secure=secure,
        )
        return response

    # --- Who it is ----------------------------------------------------------------------------------------------------

    def _facts(self, request: web.Request) -> Facts:
        headers, header = request.headers, self._access.proxy_header
        return Facts(
            peer=request.remote or UNIX,
            forwarded_for=tuple(headers.getall("X-Forwarded-For", [])),
            forwarded_proto=tuple(headers.getall("X-Forwarded-Proto", [])),
            proxied=any(name in headers for name in _PROXIES_WRITE),
            secure=request.secure,
            proxy_users=tuple(headers.getall(header, [])) if header else (),
            authorization=tuple(headers.getall(hdrs.AUTHORIZATION, [])),
            cookies=request.cookies,
        )

    def _source(self, facts: Facts) -> str:
        return source_of(rules.source(self._access, facts))

    async def _known(
        self, facts: Facts, found: Who | Guess | Wrong | Nobody, *, guess: str = ""
    ) -> Who | Wrong | Nobody:
        """Return who it is after all: passwords are computed, and what is wrong is counted."""
        source = self._source(facts)
        if isinstance(found, Guess):
            return await self._compute(found, source=source)
        if isinstance(found, Wrong):
            self._failed(source, (guess or repr(facts.authorization)).encode("utf-8", "surrogateescape"), kind="token")
        return found

    async def _compute(self, guess: Guess, *, source: str) -> Who | Wrong:
        text = f"{guess.name}\0{guess.password}".encode("utf-8", "surrogateescape")
        digest = hashlib.blake2b(text, key=self._key).digest()
        if self._is_hopeless(source, text):
            return Wrong()
        if digest not in self._right:
            if self._waiting >= MAX_WAITING:
                raise _Busy
            self._waiting += 1
            try:
                async with self._computing:
                    if self._is_hopeless(source, text):  # by what was computed meanwhile
                        return Wrong()
                    password = self._access.users.get(guess.name, NOBODY)
                    fits = await asyncio.to_thread(password.fits, guess.password)
            finally:
                self._waiting -= 1
            if not fits or password is NOBODY:
                self._failed(source, text, kind="password")
                return Wrong()
            self._right[digest] = None
        self._right.move_to_end(digest)
        while len(self._right) > MAX_REMEMBERED:
            self._right.popitem(last=False)
        return Who("user", guess.name)

    def _is_hopeless(self, source: str, text: bytes) -> bool:
        at = self._monotonic()
        return self._attempts.remaining(source, at=at) > 0 or self._attempts.is_known(source, text, at=at)

    def _failed(self, source: str, guess: bytes, *, kind: str) -> None:
        at = self._monotonic()
        if self._attempts.remaining(source, at=at) or self._attempts.is_known(source, guess, at=at):
            return  # nothing new; the log would only grow
        locked = self._attempts.failed(source, guess, at=at)
        _log.warning("web.login-failed", kind=kind, address=source)
        if locked:
            _log.warning("web.locked", address=source, seconds=round(self._attempts.remaining(source, at=at)))

    # --- Answers ------------------------------------------------------------------------------------------------------

    def _turn_away(self, request: web.Request, facts: Facts, who: Wrong | Nobody) -> web.Response:
        locked = self._attempts.remaining(self._source(facts), at=self._monotonic()) if isinstance(who, Wrong) else 0.0
        status = 429 if locked else 401
        if not locked and request.method in {"GET", "HEAD"} and "text/html" in request.headers.get(hdrs.ACCEPT, ""):
            # The cookie is not sent when a link of another site leads here (SameSite=Strict), but is when we do.
            again = request.headers.get("Sec-Fetch-Site") == "cross-site"
            return self._page(status=401, then=rules.local_path(request.path_qs), again=again)
        message, hint = _words(locked)
        if request.path.startswith(API):
            response = self._refuse(request, status, "Log in first", message, hint)
        else:
            text = f"{message}: {hint}\n"
            response = web.Response(status=status, text=text, headers={hdrs.CACHE_CONTROL: "no-store"})
        if locked:
            response.headers[hdrs.RETRY_AFTER] = str(math.ceil(locked))
        else:
            response.headers.add(hdrs.WWW_AUTHENTICATE, f"Bearer {_REALM}")
            if self._access.users:
                response.headers.add(hdrs.WWW_AUTHENTICATE, f'Basic {_REALM}, charset="UTF-8"')
        return response

    def _form_again(self, facts: Facts, who: Wrong | Nobody, *, then: str) -> web.Response:
        locked = self._attempts.remaining(self._source(facts), at=self._monotonic()) if isinstance(who, Wrong) else 0.0
        problem = "Type it in first." if isinstance(who, Nobody) else "That is not right."
        if locked:
            problem = f"Too many failed logins from your address. Passwords are looked at again in {_minutes(locked)}."
        response = self._page(status=429 if locked else 401, then=then, problem=problem)
        if locked:
            response.headers[hdrs.RETRY_AFTER] = str(math.ceil(locked))
        return response

    def _page(
        self, *, status: int, then: str = "/", problem: str = "", again: bool = False, who: Who | None = None
    ) -> web.Response:
        body = self._pages.login(
            now=self._now(), then=then, problem=problem, again=again, who=who, users=bool(self._access.users)
        )
        response = web.Response(status=status, body=body, content_type="text/html", charset="utf-8")
        response.headers[hdrs.CACHE_CONTROL] = "no-store"
        if status == web.HTTPUnauthorized.status_code:
            response.headers[hdrs.WWW_AUTHENTICATE] = f"Bearer {_REALM}"  # Basic would bring up the browser's own form
        return response

    def _busy(self, request: web.Request) -> web.Response:
        response = self._refuse(
            request, 503, "Too many logins at once", "other logins are being checked", "try again in a moment"
        )
        response.headers[hdrs.RETRY_AFTER] = "2"
        return response


def _place(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else ""


async def _read_form(request: web.Request) -> dict[str, str]:
    if request.content_type != "application/x-www-form-urlencoded":
        raise web.HTTPUnsupportedMediaType
    try:
        async with asyncio.timeout(FORM_SECONDS):
            body = await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=8))
    except ValueError:
        raise web.HTTPBadRequest from None


def _see_other(place: str) -> web.Response:
    return web.Response(status=303, headers={hdrs.LOCATION: place, hdrs.CACHE_CONTROL: "no-store"})


def _without_cookie(place: str) -> web.Response:
    response = _see_other(place)
    response.del_cookie(rules.COOKIE, path="/", httponly=True, samesite="Strict")
    response.del_cookie(rules.SECURE_COOKIE, path="/", httponly=True, samesite="Strict", secure=True)
    return response


def _words(locked: float) -> tuple[str, str]:
    if locked:
        return "too many failed logins from your address", f"passwords are looked at again in {_minutes(locked)}"
    return "nobody may look without a login", "send a viewer token: 'Authorization: Bearer bd1-viewer.…'"


def _minutes(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    return "a minute" if minutes == 1 else f"{minutes} minutes"
