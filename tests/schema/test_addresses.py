"""Addresses of peers: believed proxies, sources, this machine."""

from __future__ import annotations

import pytest

from schema.addresses import Proxies, is_loopback, source_of
from schema.errors import TerminalError

# --- Proxies ---


@pytest.mark.parametrize("text_", ["", "proxy.example", "10.0.0.5/24", "10.0.0.0/99", "*"])
def test_a_proxy_that_is_no_network_is_refused(text_):
    with pytest.raises(TerminalError, match="trusted proxies"):
        Proxies.parse([text_])


@pytest.mark.parametrize(
    ("peer", "forwarded", "source"),
    [
        ("198.51.100.1", ["203.0.113.5"], "198.51.100.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.5"], "203.0.113.5"),
        ("10.0.0.1", ["192.0.2.66", "203.0.113.5, 10.0.0.2"], "203.0.113.5"),
        ("10.0.0.1", ["203.0.113.5, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["2001:db8::5"], "2001:db8::5"),
        ("unix", ["203.0.113.5"], "203.0.113.5"),
    ],
)
def test_only_the_last_address_that_a_proxy_wrote_is_believed(peer, forwarded, source):
    assert Proxies.parse(["10.0.0.0/8", "unix"]).source(peer, forwarded) == source


# --- Sources ---


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("unix", "unix"),
        ("x" * 500, "x" * 64),
    ],
)
def test_what_is_locked_is_an_ipv4_address_or_the_64_of_an_ipv6_address(address, source):
    assert source_of(address) == source


# --- This machine ---


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("a.b", False),
        ("", False),
    ],
)
def test_only_this_machine_is_loopback(host, expected):
    assert is_loopback(host) is expected
