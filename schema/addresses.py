"""Addresses of peers: which proxies are believed, who connects through them, and what counts as one source.

The clients' door (``reconciler.gateway``) and the pages' (``web_readonly.access``) ask the same.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from schema.errors import TerminalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

UNIX: Final = "unix"
"""What stands for the peer of a Unix socket: as source address, and among trusted proxies."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_loopback(host: str) -> bool:
    """Whether only this machine is meant by a host name or address."""
    if host.lower() == "localhost":
        return True
    parsed = _parse(host.removeprefix("[").removesuffix("]"))
    return parsed is not None and parsed.is_loopback


@lru_cache(4096)
def source_of(address: str) -> str:
    """Return what is locked for ``address``: itself, or the /64 of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is None:
            return str(ipaddress.ip_network((parsed, 64), strict=False))
        parsed = parsed.ipv4_mapped
    return str(parsed)


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies that are believed."""

    networks: tuple[Network, ...] = ()
    unix: bool = False

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Proxies:
        """Return the proxies of networks, addresses and the word ``unix``."""
        networks: list[Network] = []
        unix = False
        for text in texts:
            if text == UNIX:
                unix = True
                continue
            try:
                networks.append(ipaddress.ip_network(text))
            except ValueError:
                raise TerminalError(
                    f"'{text}' is not a network of trusted proxies",
                    hint="write for example 10.0.0.5, 10.0.0.0/24 or unix",
                ) from None
        return cls(tuple(networks), unix)

    def __bool__(self) -> bool:
        return bool(self.networks) or self.unix

    def trusts(self, address: str) -> bool:
        """Whether ``address`` is one of the proxies."""
        if address == UNIX:
            return self.unix
        parsed = _parse(address)
        return parsed is not None and any(parsed in network for network in self.networks)

    def source(self, peer: str, forwarded: Sequence[str]) -> str:
        """Return who really connects: ``peer``, or when it is a proxy the last forwarded address that is none.

        Everything before that address in X-Forwarded-For may have been written by the client itself.
        """
        if not self or not self.trusts(peer):
            return peer
        for text in reversed([part.strip() for header in forwarded for part in header.split(",")]):
            parsed = _parse(text)
            if parsed is None:
                break
            if not self.trusts(str(parsed)):
                return str(parsed)
        return peer


def _parse(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed
