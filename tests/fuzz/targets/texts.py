"""Texts that are shown to people: what may be secret is taken out, once and for all."""

from __future__ import annotations

from client.borgmatic_output import Scrubber
from schema.addresses import Proxies, is_loopback, source_of
from schema.errors import scrub
from schema.hiding import MAX_DIFF, diff_files, hide_secret_values
from tests.fuzz.target import Target, parts

_SECRET = "correct horse battery"


def _redaction(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    once = scrub(text)
    assert scrub(once) == once
    hidden = hide_secret_values(text)
    assert hidden.count("\n") == max(0, len(text.splitlines()) - 1)
    assert hide_secret_values(hidden).rstrip("\n") == hidden.rstrip("\n")
    before, _, after = text.partition("\x1e")
    diff = diff_files(before.encode(), after.encode(), name="a.yaml")
    assert len(diff) <= MAX_DIFF + 64
    scrubber = Scrubber([_SECRET, "line one\nline two"])
    for place in (0, len(text) // 2, len(text)):
        assert _SECRET not in scrubber(text[:place] + _SECRET + text[place:])


def _addresses(data: bytes) -> None:
    """Lines: a peer, then what X-Forwarded-For says."""
    peer, *forwarded = parts(data, b"\n")
    proxies = Proxies.parse(["10.0.0.0/8", "::ffff:192.0.2.0/120", "fd00::/8", "unix"])
    found = proxies.source(peer, forwarded)
    assert found == peer or proxies.trusts(peer)
    assert found == peer or not proxies.trusts(found)
    source = source_of(found)
    assert len(source) <= 64
    assert source_of(source) == source or "/" in source
    is_loopback(found)


TARGETS = (
    Target(
        name="redaction",
        promise="taking secrets out of a text a second time changes nothing, keeps the number of lines, leaves none of "
        "the machine's own secrets, and takes time in proportion to the text",
        check=_redaction,
        seeds=lambda: [
            b"ssh://user:secret@host/path?token=abc PGPASSWORD=x --password='a b' bd1-token.AAAA",
            b"postgresql_databases:\n  - name: x\n    password: |\n      a\n      b\nencryption_passphrase: abc\n",
            b"ntfy: {topic: x, password: y, access_token: 'z'}\n\x1eencryption_passphrase: other\n",
        ],
        words=("password", "://", "@", "token=", "key: ", "{credential file /x}", "'", '"', "|\n  ", "bd1-enroll."),
        most=65_536,
    ),
    Target(
        name="addresses",
        promise="a forwarded address counts only from a proxy that is believed, and is never such a proxy itself",
        check=_addresses,
        seeds=lambda: [
            b"10.1.2.3\n203.0.113.9, 10.0.0.1",
            b"unix\n2001:db8::1%eth0",
            b"192.0.2.7\n::ffff:192.0.2.8, x",
        ],
        separator=b"\n",
        words=("10.0.0.1", "::1", "fd00::1", "%", ", ", "::ffff:10.0.0.1", "unix", "127.0.0.1"),
        most=512,
    ),
)
