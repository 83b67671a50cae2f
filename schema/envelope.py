"""Keys, signed envelopes and sealed values: the one door to pynacl.

Signatures are Ed25519 over DSSE's pre-authentication encoding (PAE, https://github.com/secure-systems-lab/dsse, v1), so
that a signature made for one purpose is worth nothing for another. Sealing is libsodium's anonymous sealed box; what is
sealed carries its own name and recipient. Whatever is malformed, degenerate or made for somebody else is a
``TrustError``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Self

import nacl.bindings
import nacl.exceptions
import nacl.public
import nacl.signing
import nacl.utils
from pydantic import BaseModel, ConfigDict, ValidationError

from schema.errors import TrustError

if TYPE_CHECKING:
    from collections.abc import Sequence

NONCE_BYTES = 32
TOKEN_BYTES = 32
_KEY_BYTES = 32
_CURVE25519_PRIME = 2**255 - 19
_PADDING = 64
"""Sealed plaintexts are padded to a multiple of this, so that the length of a passphrase does not show."""


def encode_bytes(data: bytes) -> str:
    """Return URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode_bytes(text: str, *, what: str = "value") -> bytes:
    """Return the bytes of ``encode_bytes``; only the one canonical spelling is accepted."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise TrustError(f"the {what} is not base64", code="malformed") from None
    if encode_bytes(data) != text:
        raise TrustError(f"the {what} is not canonical base64", code="malformed")
    return data


def random_nonce() -> bytes:
    """Return fresh random bytes for one handshake."""
    return nacl.utils.random(NONCE_BYTES)


def _strip(text: str, prefix: str, size: int, *, what: str) -> bytes:
    if not text.startswith(prefix):
        raise TrustError(f"the {what} does not start with '{prefix}'", code="malformed")
    data = decode_bytes(text.removeprefix(prefix), what=what)
    if len(data) != size:
        raise TrustError(f"the {what} has {len(data)} bytes, not {size}", code="malformed")
    return data


def _check_signing_key(data: bytes, *, what: str) -> bytes:
    """Refuse Ed25519 points that are not canonical, not on the curve, or of small order (they verify anything)."""
    if not nacl.bindings.crypto_core_ed25519_is_valid_point(data):
        raise TrustError(f"the {what} is not a sound Ed25519 key", code="bad-key")
    return data


def _check_sealing_key(data: bytes, *, what: str) -> bytes:
    """Refuse X25519 points that are not canonical or of small order (their shared secret is known to everybody)."""
    if int.from_bytes(data, "little") >= _CURVE25519_PRIME:
        raise TrustError(f"the {what} is not a canonical X25519 key", code="bad-key")
    try:
        nacl.bindings.crypto_scalarmult(b"\x01" * _KEY_BYTES, data)
    except nacl.exceptions.CryptoError:
        raise TrustError(f"the {what} is not a sound X25519 key", code="bad-key") from None
    return data


def fingerprint(key: str) -> str:
    """Return ``SHA256:…`` of a public key's text, as people compare it by eye."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key.encode()).digest()).rstrip(b"=").decode()


# --- Keys -----------------------------------------------------------------------------------------------------------

CLIENT_PREFIX = "bd1-client."
DIRECTOR_PREFIX = "bd1-director."
ESCROW_PREFIX = "bd1-escrow."
CLIENT_SECRET_PREFIX = "bd1-client-private."  # noqa: S105 - a prefix, not a secret
DIRECTOR_SECRET_PREFIX = "bd1-director-private."  # noqa: S105
ESCROW_SECRET_PREFIX = "bd1-escrow-private."  # noqa: S105


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """A public Ed25519 key; ``text`` is how it is written and pinned."""

    text: str
    key: bytes

    def verify(self, signature: bytes, *, purpose: str, data: bytes) -> None:
        """Return when ``signature`` is this key's over ``data`` for ``purpose``; ``TrustError`` when not."""
        try:
            nacl.signing.VerifyKey(self.key).verify(_pae(purpose, data), signature)
        except (nacl.exceptions.BadSignatureError, nacl.exceptions.CryptoError, ValueError):
            raise TrustError("the signature is not right", code="bad-signature") from None


@dataclass(frozen=True, slots=True)
class ClientKey:
    """A client's public half: one key to check its signatures, one to seal to. Written as one text."""

    text: str
    verify_key: VerifyKey
    sealing_key: bytes

    @property
    def fingerprint(self) -> str:
        """``SHA256:…``, for people."""
        return fingerprint(self.text)


@lru_cache(maxsize=65_536)  # a build checks every client's key each time, at 60 µs each; keys are few and never secret
def parse_client_key(text: str) -> ClientKey:
    """Return the parsed ``bd1-client.…``; degenerate keys are refused."""
    data = _strip(text, CLIENT_PREFIX, 2 * _KEY_BYTES, what="client key")
    signing = _check_signing_key(data[:_KEY_BYTES], what="client key")
    return ClientKey(text, VerifyKey(text, signing), _check_sealing_key(data[_KEY_BYTES:], what="client key"))


def parse_director_key(text: str) -> VerifyKey:
    """Return the parsed ``bd1-director.…``; degenerate keys are refused."""
    return VerifyKey(
        text, _check_signing_key(_strip(text, DIRECTOR_PREFIX, _KEY_BYTES, what="director key"), what="director key")
    )


def parse_escrow_key(text: str) -> bytes:
    """Return the X25519 key of ``bd1-escrow.…``; degenerate keys are refused."""
    return _check_sealing_key(_strip(text, ESCROW_PREFIX, _KEY_BYTES, what="escrow key"), what="escrow key")


class _Private:
    """Keeps private keys out of ``repr``, and so out of logs and tracebacks."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class ClientIdentity(_Private):
    """A client's private half, made on the machine and kept there (file mode 0600)."""

    def __init__(self, signing: bytes, sealing: bytes) -> None:
        self._signing = nacl.signing.SigningKey(signing)
        self._sealing = nacl.public.PrivateKey(sealing)
        public = bytes(self._signing.verify_key) + bytes(self._sealing.public_key)
        self.public = parse_client_key(CLIENT_PREFIX + encode_bytes(public))

    @classmethod
    def generate(cls) -> Self:
        """Return a fresh identity."""
        return cls(nacl.utils.random(_KEY_BYTES), nacl.utils.random(_KEY_BYTES))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the identity written by ``to_text``."""
        data = _strip(text.strip(), CLIENT_SECRET_PREFIX, 2 * _KEY_BYTES, what="private client key")
        return cls(data[:_KEY_BYTES], data[_KEY_BYTES:])

    def to_text(self) -> str:
        """Return the private key file's content."""
        return CLIENT_SECRET_PREFIX + encode_bytes(bytes(self._signing) + bytes(self._sealing)) + "\n"

    def sign(self, *, purpose: str, data: bytes) -> bytes:
        """Return the signature over ``data`` for ``purpose``."""
        return self._signing.sign(_pae(purpose, data)).signature

    def open_sealed(self, sealed: str, *, secret: str, key: str, client: str) -> bytes:
        """Return the value sealed under exactly this name for exactly this client."""
        return _open(self._sealing, sealed, secret=secret, key=key, recipient=f"client:{client}")


class DirectorIdentity(_Private):
    """The director's signing key."""

    def __init__(self, signing: bytes) -> None:
        self._signing = nacl.signing.SigningKey(signing)
        self.public = parse_director_key(DIRECTOR_PREFIX + encode_bytes(bytes(self._signing.verify_key)))

    @classmethod
    def generate(cls) -> Self:
        """Return a fresh identity."""
        return cls(nacl.utils.random(_KEY_BYTES))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the identity written by ``to_text``."""
        return cls(_strip(text.strip(), DIRECTOR_SECRET_PREFIX, _KEY_BYTES, what="private director key"))

    def to_text(self) -> str:
        """Return the private key file's content."""
        return DIRECTOR_SECRET_PREFIX + encode_bytes(bytes(self._signing)) + "\n"

    def sign(self, *, purpose: str, data: bytes) -> bytes:
        """Return the signature over ``data`` for ``purpose``."""
        return self._signing.sign(_pae(purpose, data)).signature


class EscrowIdentity(_Private):
    """The private half of an escrow key: opens values sealed to it, so that they can be sealed to a new client."""

    def __init__(self, sealing: bytes) -> None:
        self._sealing = nacl.public.PrivateKey(sealing)
        self.public = ESCROW_PREFIX + encode_bytes(bytes(self._sealing.public_key))

    @classmethod
    def generate(cls) -> Self:
        """Return a fresh identity."""
        return cls(nacl.utils.random(_KEY_BYTES))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the identity written by ``to_text``."""
        return cls(_strip(text.strip(), ESCROW_SECRET_PREFIX, _KEY_BYTES, what="private escrow key"))

    def to_text(self) -> str:
        """Return the private key file's content."""
        return ESCROW_SECRET_PREFIX + encode_bytes(bytes(self._sealing)) + "\n"

    def open_sealed(self, sealed: str, *, secret: str, key: str) -> bytes:
        """Return the value sealed under exactly this name for this escrow key."""
        return _open(self._sealing, sealed, secret=secret, key=key, recipient=f"escrow:{self.public}")


# --- Sealed values --------------------------------------------------------------------------------------------------

SEALED_PREFIX = "bd1-sealed."
_SEALED_PURPOSE = "borgmatic-director sealed value v1"


def seal_for_client(value: bytes, *, secret: str, key: str, client: str, to: ClientKey) -> str:
    """Return ``value`` sealed so that only ``client`` can open it, and only as ``secret``/``key``."""
    return _seal(value, secret=secret, key=key, recipient=f"client:{client}", to=to.sealing_key)


def seal_for_escrow(value: bytes, *, secret: str, key: str, to: str) -> str:
    """Return ``value`` sealed to the escrow public key text ``to``."""
    return _seal(value, secret=secret, key=key, recipient=f"escrow:{to}", to=parse_escrow_key(to))


def _seal(value: bytes, *, secret: str, key: str, recipient: str, to: bytes) -> str:
    inner = {
        "purpose": _SEALED_PURPOSE,
        "secret": secret,
        "key": key,
        "recipient": recipient,
        "value": encode_bytes(value),
    }
    plain = json.dumps(inner, sort_keys=True).encode()
    plain += b" " * (-len(plain) % _PADDING)
    return SEALED_PREFIX + encode_bytes(nacl.public.SealedBox(nacl.public.PublicKey(to)).encrypt(plain))


def _open(private: nacl.public.PrivateKey, sealed: str, *, secret: str, key: str, recipient: str) -> bytes:
    where = f"value '{key}' of secret '{secret}'"
    if not sealed.startswith(SEALED_PREFIX):
        raise TrustError(f"the {where} is not sealed", code="malformed")
    box = decode_bytes(sealed.removeprefix(SEALED_PREFIX), what=where)
    try:
        inner = json.loads(nacl.public.SealedBox(private).decrypt(box))
    except (nacl.exceptions.CryptoError, ValueError, RecursionError):
        raise TrustError(
            f"the {where} cannot be opened with this key", code="bad-seal", hint="seal it again with `director reseal`"
        ) from None
    wanted = {"purpose": _SEALED_PURPOSE, "secret": secret, "key": key, "recipient": recipient}
    if (
        not isinstance(inner, dict)
        or {name: inner.get(name) for name in wanted} != wanted
        or not isinstance(inner.get("value"), str)
    ):
        raise TrustError(f"the {where} was sealed under another name or for another machine", code="bad-seal")
    return decode_bytes(inner["value"], what=where)


# --- Signed envelopes (DSSE) ----------------------------------------------------------------------------------------


class Signature(BaseModel):
    """One signature of an envelope."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    keyid: str
    sig: str


class Envelope(BaseModel):
    """DSSE's JSON form. Nothing inside is to be believed before ``open_envelope``."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    payloadType: str  # noqa: N815 - DSSE's own spelling
    payload: str
    signatures: tuple[Signature, ...]


def _pae(payload_type: str, payload: bytes) -> bytes:
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def seal_envelope(payload: bytes, *, payload_type: str, identity: DirectorIdentity) -> bytes:
    """Return the JSON of an envelope over exactly these bytes."""
    signature = Signature(
        keyid=fingerprint(identity.public.text), sig=encode_bytes(identity.sign(purpose=payload_type, data=payload))
    )
    return (
        Envelope(payloadType=payload_type, payload=encode_bytes(payload), signatures=(signature,))
        .model_dump_json()
        .encode()
    )


def open_envelope(data: bytes, *, payload_type: str, key: VerifyKey, limit: int) -> bytes:
    """Return the signed bytes, unparsed, once size, type and signature are right; ``TrustError`` otherwise."""
    if len(data) > limit * 4 // 3 + 4096:
        raise TrustError(f"the envelope has {len(data)} bytes, more than allowed", code="too-large")
    try:
        envelope = Envelope.model_validate_json(data)
    except ValidationError:
        raise TrustError("the envelope is malformed", code="malformed") from None
    if envelope.payloadType != payload_type:
        raise TrustError("the envelope holds something else than expected", code="malformed")
    payload = decode_bytes(envelope.payload, what="payload")
    wanted = fingerprint(key.text)
    for signature in envelope.signatures[:4]:
        if signature.keyid == wanted:
            key.verify(decode_bytes(signature.sig, what="signature"), purpose=payload_type, data=payload)
            return payload
    raise TrustError(
        "the envelope is not signed by the pinned director",
        code="bad-signature",
        hint="was the director's key replaced? enrol again",
    )


# --- Handshake ------------------------------------------------------------------------------------------------------

CHALLENGE_PURPOSE = "borgmatic-director/v1/challenge"
PROOF_PURPOSE = "borgmatic-director/v1/proof"


def transcript(
    *,
    offered: Sequence[int],
    chosen: int,
    name: str,
    client_key: str,
    director_key: str,
    client_nonce: bytes,
    director_nonce: bytes,
    channel: str,
) -> bytes:
    """Return what both sides sign: everything said so far, unambiguous by length prefixes.

    ``channel`` is the SHA-256 (hex) of the TLS certificate that the client saw, or ``""`` without TLS: a man in the
    middle who ends the TLS himself cannot pass the signatures on. Behind a declared proxy both sides use ``""``.
    """
    fields = [
        ",".join(str(version) for version in offered).encode(),
        str(chosen).encode(),
        name.encode(),
        client_key.encode(),
        director_key.encode(),
        client_nonce,
        director_nonce,
        channel.encode(),
    ]
    return b"".join(len(field).to_bytes(4, "big") + field for field in fields)


# --- Tokens and enrolment strings -----------------------------------------------------------------------------------

TOKEN_PREFIX = "bd1-token."  # noqa: S105
ENROLMENT_PREFIX = "bd1-enroll."


def random_token() -> str:
    """Return a fresh connection token of 256 random bits."""
    return TOKEN_PREFIX + encode_bytes(nacl.utils.random(TOKEN_BYTES))


def hash_token(token: str) -> str:
    """Return what the store keeps of a token. A token has 256 random bits, so a plain hash cannot be searched."""
    return hashlib.sha256(token.encode()).hexdigest()


class EnrolmentString(BaseModel):
    """What `director token create` prints: where the director is, how to know it, and the token."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)
    url: str
    director: str
    """The director's public key, ``bd1-director.…``: pinned before anything is revealed."""
    token: str
    certificate: str = ""
    """SHA-256 (hex) of a self-signed TLS certificate to pin; empty when an authority vouches for it."""

    def to_text(self) -> str:
        """Return the one string that a person copies to the machine."""
        return ENROLMENT_PREFIX + encode_bytes(self.model_dump_json().encode())

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the parsed string; ``TrustError`` when it was cut or changed on the way."""
        text = "".join(text.split())
        if not text.startswith(ENROLMENT_PREFIX):
            raise TrustError(f"an enrolment string starts with '{ENROLMENT_PREFIX}'", code="malformed")
        try:
            parsed = cls.model_validate_json(decode_bytes(text.removeprefix(ENROLMENT_PREFIX), what="enrolment string"))
        except (ValidationError, TrustError):
            raise TrustError(
                "the enrolment string is damaged", code="malformed", hint="copy the whole string again"
            ) from None
        parse_director_key(parsed.director)
        return parsed
