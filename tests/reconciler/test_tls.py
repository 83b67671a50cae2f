"""The director's certificate: made once, kept to itself, and refused when it cannot be trusted."""

from __future__ import annotations

import hashlib
import ssl
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconciler import tls
from schema.errors import TerminalError, TransientError

NOW = datetime(2026, 11, 23, 18, 0, tzinfo=UTC)


def made(directory: Path, *names: str) -> tls.ServerCertificate:
    return tls.self_signed_certificate(directory, names=names or ("director.example",), now=NOW)


def test_the_first_start_makes_a_certificate_and_the_next_ones_keep_it(tmp_path):
    first = made(tmp_path)

    assert made(tmp_path, "another.example") == first
    assert first.self_signed


def test_only_the_director_can_read_its_key(tmp_path):
    certificate = made(tmp_path)

    assert stat.S_IMODE(certificate.key.stat().st_mode) == 0o600


def test_the_fingerprint_is_the_hash_of_the_certificate_that_clients_see(tmp_path):
    certificate = made(tmp_path)
    der = ssl.PEM_cert_to_DER_cert(certificate.certificate.read_text())

    assert certificate.fingerprint == hashlib.sha256(der).hexdigest()


def test_the_certificate_names_its_hosts_and_outlives_its_pins(tmp_path):
    text = made(tmp_path, "director.example", "192.0.2.7", "::1").certificate
    decoded = ssl._ssl._test_decode_cert(str(text))  # type: ignore[attr-defined]

    names = {name for _, name in decoded["subjectAltName"]}
    assert {"director.example", "192.0.2.7", "localhost", "127.0.0.1"} <= names
    assert decoded["notAfter"].endswith("2046 GMT")


@pytest.mark.parametrize("name", ["", "a" * 300, "..", "*", "ä.example"])
def test_a_strange_host_name_stops_nothing(tmp_path, name):
    assert isinstance(made(tmp_path, name).context(), ssl.SSLContext)


def test_a_key_that_others_can_read_is_refused(tmp_path):
    made(tmp_path).key.chmod(0o640)

    with pytest.raises(TerminalError, match="chmod 0600"):
        made(tmp_path)


@pytest.mark.parametrize("lost", ["tls.key", "tls.crt"])
def test_half_a_certificate_is_never_replaced_silently(tmp_path, lost):
    made(tmp_path)
    (tmp_path / lost).unlink()

    with pytest.raises(TerminalError, match="enrol again"):
        made(tmp_path)


def test_a_full_disk_leaves_nothing_half_made(tmp_path):
    tmp_path.chmod(0o500)
    if (tmp_path / "probe").parent.stat().st_uid == 0 and _root_may_write(tmp_path):
        tmp_path.chmod(0o700)
        blocked = tmp_path / "missing"
    else:
        blocked = tmp_path

    with pytest.raises(TransientError, match="cannot write"):
        made(blocked)
    tmp_path.chmod(0o700)
    assert list(tmp_path.iterdir()) == []


def _root_may_write(directory: Path) -> bool:
    try:
        (directory / "probe").touch()
    except OSError:
        return False
    (directory / "probe").unlink()
    return True


# --- Given files ---


def test_given_files_are_used(tmp_path):
    own = made(tmp_path)

    assert tls.load_certificate(own.certificate, own.key) == own


def test_given_files_that_do_not_belong_together_are_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    one, other = made(tmp_path / "a"), made(tmp_path / "b")

    with pytest.raises(TerminalError, match="is it the key of that certificate"):
        tls.load_certificate(one.certificate, other.key)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\x00", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_file_that_is_no_certificate_is_refused(tmp_path, content):
    own = made(tmp_path)
    own.certificate.write_bytes(content)

    with pytest.raises(TerminalError, match="no certificate in PEM"):
        tls.load_certificate(own.certificate, own.key)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TerminalError, match=r"missing\.crt"):
        tls.load_certificate(tmp_path / "missing.crt", tmp_path / "missing.key")


def test_a_given_key_that_everybody_can_read_is_refused(tmp_path):
    own = made(tmp_path)
    own.key.chmod(0o644)

    with pytest.raises(TerminalError, match="everybody can read"):
        tls.load_certificate(own.certificate, own.key)


# --- What is spoken ---


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> str | None:
    """Let both sides talk in memory, and return the version they agree on."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="director.example"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[0].version()


def trusting(certificate: tls.ServerCertificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificate.certificate)
    return context


def test_a_client_that_trusts_the_certificate_gets_the_newest_tls(tmp_path):
    certificate = made(tmp_path)

    assert handshake(certificate.context(), trusting(certificate)) == "TLSv1.3"


def test_tls_1_2_is_spoken_with_forward_secrecy(tmp_path):
    certificate = made(tmp_path)
    client = trusting(certificate)
    client.maximum_version = ssl.TLSVersion.TLSv1_2

    assert handshake(certificate.context(), client) == "TLSv1.2"
    assert certificate.context().minimum_version == ssl.TLSVersion.TLSv1_2
    suites = {suite["name"] for suite in certificate.context().get_ciphers()}
    assert all(name.startswith(("TLS_", "ECDHE-")) for name in suites)
