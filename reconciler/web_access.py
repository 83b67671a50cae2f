"""Who may look at the dashboard, from the settings to what the pages are given. Called by ``reconciler.cli``.

What would let strangers look, or nobody at all, is refused at start; what is risky and meant is said aloud.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from reconciler import tls
from reconciler.viewers import FILE
from schema.addresses import Proxies
from schema.errors import TerminalError
from schema.viewers import Password
from web_readonly.access import Access
from web_readonly.viewers import ViewersFile

if TYPE_CHECKING:
    import ssl

    from reconciler.listen import Address
    from reconciler.settings import DirectorSettings, WebTable

_log = structlog.get_logger(__name__)


def prepare(settings: DirectorSettings, address: Address) -> tuple[Access, ViewersFile, ssl.SSLContext | None]:
    """Return who may look, the viewers' tokens, and what to serve https with.

    Raises:
        TerminalError: nobody could log in, or the certificate cannot be used.
    """
    if address.path:
        raise TerminalError(
            f"cannot serve the dashboard at {address}: browsers need a host and a port", hint="write 127.0.0.1:8441"
        )
    web, file = settings.web, settings.state_directory / FILE
    asks = _asks(web, address)
    # A file without a good token may be meant for a while; without any file, nobody has set up a login at all.
    if asks and not (web.users or web.proxy_header or file.exists()):
        raise TerminalError(
            f"cannot serve the dashboard at {address}: it would ask for a login, and nobody has one",
            hint="make a token with `director viewer create --note WHOM`; docs/how-to/expose-the-dashboard.md "
            "tells of passwords and proxies",
        )
    context = _context(web)
    if not asks and not address.is_local:
        _log.warning("web.open-to-all", address=str(address), hint='[web] login = "never": whoever reaches it may look')
    if asks and not address.is_local and context is None and not web.proxy_addresses:
        _log.warning(
            "web.unencrypted",
            address=str(address),
            hint="logins can be read on the way: set [web] certificate_file and key_file, or put a proxy in front",
        )
    access = Access(
        asks=asks,
        anywhere=web.login == "never",
        hosts=frozenset(web.hosts),
        users={name: Password.parse(text) for name, text in web.users.items()},
        proxy_header=web.proxy_header,
        proxies=Proxies.parse(web.proxy_addresses),
        open_badges=web.open_badges,
    )
    return access, ViewersFile(file), context


def _asks(web: WebTable, address: Address) -> bool:
    if web.login == "auto":
        return not address.is_local or bool(web.users or web.proxy_header or web.proxy_addresses or web.hosts)
    return web.login == "always"


def _context(web: WebTable) -> ssl.SSLContext | None:
    if web.certificate_file is None or web.key_file is None:
        return None
    return tls.load_certificate(web.certificate_file, web.key_file).context()
