"""Who may look: facts of a request and the settings in, a decision out. Pure; ``web_readonly.gate`` acts on it.

The rules:

1. Only this machine can reach it, and no login is set up: it is open, to requests that come under this machine's own
   name (or another site could read it by renaming itself: DNS rebinding) and straight, not through a proxy that may
   bring the whole world.
2. Otherwise everybody says who they are: with a viewer token, a user name and password, or by a trusted proxy's header.
   Each request does, or its cookie, which a login gave.
3. A cookie is worth as much as what it was got for: it names the token or user, is signed with what is kept of that
   one's secret, and so ends with it, over a restart too, and without a table of sessions.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

from schema.addresses import Proxies, is_loopback
from schema.viewers import MAX_PASSWORD, TOKEN_PREFIX, token_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from schema.viewers import Password, Viewer

LIFETIME: Final = timedelta(days=30)
"""Of a cookie: after that a person logs in again."""
COOKIE: Final = "director"
SECURE_COOKIE: Final = "__Host-director"
"""Browsers keep this name for cookies of https and of one host: nobody else can plant one."""
MAX_CREDENTIAL: Final = 4096
MAX_NAME: Final = 256

Kind = Literal["viewer", "user", "proxy"]


@dataclass(frozen=True, slots=True)
class Access:
    """What the settings say about who may look. The default: open, for this machine only."""

    asks: bool = False
    """Whether everybody has to say who they are."""
    anywhere: bool = False
    """Whether it may listen where other machines can reach it."""
    hosts: frozenset[str] = frozenset()
    """The names it is reached by, beside this machine's own. Empty, and with a login: any."""
    users: Mapping[str, Password] = field(default_factory=dict)
    proxy_header: str = ""
    proxies: Proxies = field(default_factory=Proxies)
    open_badges: bool = False
    """Whether badges are for everybody, also inside the pages of other sites."""

    def welcomes(self, hosts: Sequence[str]) -> bool:
        """Whether a request under these names (its ``Host`` headers) is meant for this dashboard."""
        if len(hosts) != 1:
            return False
        name = _without_port(hosts[0]).lower().removesuffix(".")
        if is_loopback(name) or name in self.hosts:
            return True
        # Where everybody must log in, another name has no cookie of ours; and an address is nobody's to rename.
        return (self.asks and not self.hosts) or ((self.asks or self.anywhere) and _is_address(name))

    def takes(self, facts: Facts) -> bool:
        """Whether a request comes straight enough: nobody may be brought by a proxy to what is open."""
        return self.asks or self.anywhere or not facts.proxied


@dataclass(frozen=True, slots=True)
class Facts:
    """What a request says, and what the connection says."""

    peer: str
    forwarded_for: tuple[str, ...] = ()
    forwarded_proto: tuple[str, ...] = ()
    proxied: bool = False
    """Whether it has a header that only proxies write."""
    secure: bool = False
    """Whether the connection itself is TLS."""
    proxy_users: tuple[str, ...] = ()
    authorization: tuple[str, ...] = ()
    cookies: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Who:
    """Somebody who may look."""

    kind: Kind
    name: str
    """The id of a viewer token, the name of a user, or what the proxy calls them."""


@dataclass(frozen=True, slots=True)
class Guess:
    """A user name and a password, which only a slow computation can tell: ``gate`` asks for it."""

    name: str
    password: str


class Wrong:
    """What was given is no credential of ours."""


class Nobody:
    """Nothing was given."""


def source(access: Access, facts: Facts) -> str:
    """Return the address that a request really comes from."""
    return access.proxies.source(facts.peer, facts.forwarded_for)


def is_secure(access: Access, facts: Facts) -> bool:
    """Whether the browser speaks https: with us, or with a proxy that is believed."""
    proxied = access.proxies.trusts(facts.peer) and [one.lower() for one in facts.forwarded_proto] == ["https"]
    return facts.secure or proxied


def names_itself(access: Access, facts: Facts) -> bool:
    """Whether a request brings the proxy's header although its sender is not believed."""
    return bool(facts.proxy_users) and not access.proxies.trusts(facts.peer)


def identify(
    access: Access, facts: Facts, *, viewers: Mapping[str, Viewer], now: datetime
) -> Who | Guess | Wrong | Nobody:
    """Return who asks. ``viewers`` are the tokens by their hash."""
    # Twice the header means that one of them is not the proxy's.
    if access.proxies.trusts(facts.peer) and len(facts.proxy_users) == 1:
        name = facts.proxy_users[0].strip()
        if name and len(name) <= MAX_NAME and name.isprintable():
            return Who("proxy", name)
    if facts.authorization:
        if len(facts.authorization) > 1:
            return Wrong()
        return _of_header(facts.authorization[0], users=access.users, viewers=viewers, now=now)
    cookie = facts.cookies.get(SECURE_COOKIE if is_secure(access, facts) else COOKIE, "")
    return read_cookie(cookie, users=access.users, viewers=viewers, now=now) or Nobody()


def of_token(text: str, *, viewers: Mapping[str, Viewer], now: datetime) -> Who | Wrong:
    """Return whose token it is. What is compared is a hash, which tells no time that helps to guess the text."""
    viewer = viewers.get(token_hash(text)) if len(text) <= MAX_CREDENTIAL else None
    return Who("viewer", viewer.id) if viewer is not None and _is_good(viewer, now=now) else Wrong()


def of_form(
    *, name: str, secret: str, users: Mapping[str, Password], viewers: Mapping[str, Viewer], now: datetime
) -> Who | Guess | Wrong | Nobody:
    """Return who fills in the login form: with a token, or with a name and a password."""
    if not secret:
        return Nobody()
    if secret.strip().startswith(TOKEN_PREFIX):
        return of_token(secret.strip(), viewers=viewers, now=now)
    return _guess(name.strip(), secret) if name.strip() and users else Wrong()


def _of_header(
    header: str, *, users: Mapping[str, Password], viewers: Mapping[str, Viewer], now: datetime
) -> Who | Guess | Wrong:
    scheme, _, value = header.partition(" ")
    value = value.strip()
    if len(value) > MAX_CREDENTIAL:
        return Wrong()
    match scheme.lower():
        case "bearer":
            return of_token(value, viewers=viewers, now=now)
        case "basic":
            try:
                name, separator, password = base64.b64decode(value, validate=True).decode().partition(":")
            except (binascii.Error, ValueError):
                return Wrong()
            if password.startswith(TOKEN_PREFIX):  # for programs that know nothing but a name and a password
                return of_token(password, viewers=viewers, now=now)
            return _guess(name, password) if separator and users else Wrong()
        case _:
            return Wrong()


def _guess(name: str, password: str) -> Guess | Wrong:
    return Guess(name, password) if len(name) <= MAX_NAME and len(password) <= MAX_PASSWORD else Wrong()


# --- Cookies ----------------------------------------------------------------------------------------------------------


def make_cookie(who: Who, *, users: Mapping[str, Password], viewers: Mapping[str, Viewer], now: datetime) -> str:
    """Return a cookie for somebody who has just logged in."""
    expires = int((now + LIFETIME).timestamp())
    name = base64.urlsafe_b64encode(who.name.encode()).decode().rstrip("=")
    signed = f"{who.kind}.{name}.{expires}"
    key = _key(who, users=users, viewers=viewers, now=now)
    return f"{signed}.{_signature(key, signed)}" if key else ""


def read_cookie(
    text: str, *, users: Mapping[str, Password], viewers: Mapping[str, Viewer], now: datetime
) -> Who | None:
    """Return whose cookie it is: None when it is forged, over, or of somebody who may not look any more."""
    signed, _, signature = text.rpartition(".")
    parts = signed.split(".")
    if len(text) > MAX_CREDENTIAL or len(parts) != 3 or not text.isascii():
        return None
    try:
        name = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)).decode()
        expires = datetime.fromtimestamp(int(parts[2]), UTC)
    except (binascii.Error, ValueError, OverflowError, OSError):
        return None
    kind: Kind = "viewer" if parts[0] == "viewer" else "user"
    who = Who(kind, name)
    key = _key(who, users=users, viewers=viewers, now=now)
    good = bool(key) and hmac.compare_digest(_signature(key, signed), signature) and parts[0] == kind
    return who if good and now < expires <= now + LIFETIME else None


def _key(who: Who, *, users: Mapping[str, Password], viewers: Mapping[str, Viewer], now: datetime) -> bytes:
    """Return what signs somebody's cookies. Who can read it (it is in no file of others) can read the store as well."""
    if who.kind == "user":
        return str(users[who.name]).encode() if who.name in users else b""
    found = next((one for one in viewers.values() if one.id == who.name and _is_good(one, now=now)), None)
    return found.hash.encode() if found is not None else b""


def _signature(key: bytes, signed: str) -> str:
    return hmac.new(key, b"dashboard cookie\0" + signed.encode(), hashlib.sha256).hexdigest()


# --- Small ------------------------------------------------------------------------------------------------------------


def by_hash(viewers: Iterable[Viewer]) -> dict[str, Viewer]:
    """Return tokens by what a request's token is looked up with."""
    return {one.hash: one for one in viewers}


def _is_good(viewer: Viewer, *, now: datetime) -> bool:
    return viewer.expires is None or now < viewer.expires


def _without_port(host: str) -> str:
    name, separator, port = host.rpartition(":")
    return name if separator and port.isascii() and port.isdigit() else host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def is_same_origin(*, host: str, origin: str | None, fetch_site: str | None) -> bool:
    """Whether a form was sent by a page of ours. Browsers always say where from; what says nothing is no browser."""
    if fetch_site is not None:
        return fetch_site == "same-origin"
    # Schemes may differ where a proxy ends TLS.
    return origin is None or origin.partition("://")[2].lower() == host.lower()


def local_path(text: str) -> str:
    """Return where to go after the login: a path of ours, or the overview. Never another site."""
    fine = text.startswith("/") and text[1:2] not in {"/", "\\"} and len(text) <= MAX_CREDENTIAL
    return text if fine and all("!" <= letter <= "~" for letter in text) and not text.startswith("/login") else "/"
