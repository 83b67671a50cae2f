"""The director's TLS: a given certificate, or one made at the first start and pinned by the enrolment string.

Called by ``reconciler.cli``; ``reconciler.gateway`` listens with it and binds every handshake to its fingerprint. The
only user of ``cryptography``. A self-signed certificate is pinned by clients, so it lives as long as the director's
key does: replacing it means enrolling again.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import ipaddress
import os
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from schema.errors import TerminalError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

VALIDITY: Final = dt.timedelta(days=20 * 366)
"""Pinned, so its end protects nobody and would only stop every client on one day."""
COMMON_NAME: Final = "borgmatic-director"


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """Certificate chain and key, as files."""

    certificate: Path
    key: Path
    fingerprint: str
    """SHA-256 (hex) of the leaf certificate: the channel of every handshake, and the pin of a self-signed one."""
    self_signed: bool = False

    def context(self) -> ssl.SSLContext:
        """Return what to listen with: TLS 1.2 with forward secrecy, or better."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise TerminalError(
                f"cannot use the certificate {self.certificate} with the key {self.key}: {_reason(error)}",
                hint="is it the key of that certificate, unencrypted, both in PEM?",
            ) from None
        return context


def load_certificate(certificate: Path, key: Path) -> ServerCertificate:
    """Return given files, checked: they belong together and nobody else can read the key.

    Raises:
        TerminalError: the files cannot be used.
    """
    try:
        pem = certificate.read_bytes()
        mode = key.stat().st_mode
    except OSError as error:
        raise TerminalError(f"cannot read {error.filename}: {error.strerror}") from None
    if mode & 0o007:
        raise TerminalError(f"everybody can read the private key {key}", hint=f"chmod o-rwx {key}")
    try:
        leaf = x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise TerminalError(f"{certificate} holds no certificate in PEM") from None
    found = ServerCertificate(certificate, key, _fingerprint(leaf), self_signed=leaf.issuer == leaf.subject)
    found.context()
    return found


def self_signed_certificate(directory: Path, *, names: Iterable[str], now: dt.datetime) -> ServerCertificate:
    """Return the director's own certificate in ``directory``, made there on the first call for the host ``names``.

    Raises:
        TerminalError: what is there cannot be used.
        TransientError: the disk refused to keep a new one.
    """
    certificate, key = directory / "tls.crt", directory / "tls.key"
    if certificate.exists():
        _finish(key)
    if not (certificate.exists() and key.exists()):
        if certificate.exists() or key.exists():
            present, missing = (certificate, key) if certificate.exists() else (key, certificate)
            raise TerminalError(
                f"{present} is there, but {missing} is not",
                hint="restore it from a backup; with a new certificate every client has to enrol again",
            )
        _create(certificate, key, names=names, now=now)
    if key.stat().st_mode & 0o077:
        raise TerminalError(f"others can read the private key {key}", hint=f"chmod 0600 {key}")
    return load_certificate(certificate, key)


def _fingerprint(certificate: x509.Certificate) -> str:
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def _create(certificate: Path, key: Path, *, names: Iterable[str], now: dt.datetime) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, COMMON_NAME)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        # A client whose clock is a little behind must not refuse the new certificate.
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + VALIDITY)
        .add_extension(x509.SubjectAlternativeName(_alternative_names(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(private, hashes.SHA256())
    )
    text = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        # Both are whole on the disk before either has its name, and the key is the last to get it. Whenever the first
        # start is killed, the next one starts over or finishes; half of a pair is only ever what somebody removed.
        for path, content in ((certificate, made.public_bytes(serialization.Encoding.PEM)), (key, text)):
            _unfinished(path).unlink(missing_ok=True)
            _write(_unfinished(path), content)
        _unfinished(certificate).replace(certificate)
        _finish(key)
    except OSError as error:
        raise TransientError(f"cannot write the certificate into {certificate.parent}: {error.strerror}") from None


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _finish(key: Path) -> None:
    """Give the key its name, when the certificate has its own and a kill came between the two."""
    if not key.exists():
        with contextlib.suppress(FileNotFoundError):
            _unfinished(key).replace(key)


def _alternative_names(names: Iterable[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in dict.fromkeys((*names, "localhost", "127.0.0.1", "::1")):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            with contextlib.suppress(ValueError, UnicodeError):
                found.append(x509.DNSName(name.encode("idna").decode()))
    return found


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
