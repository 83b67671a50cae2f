"""What is signed, sealed or typed in as a key: believed only when it is right, and then for what it is."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from functools import cache

import nacl.public

from client.trust import TrustedState
from schema.desired import MAX_DESIRED_BYTES, PAYLOAD_TYPE, Content
from schema.envelope import (
    SEALED_PREFIX,
    ClientIdentity,
    DirectorIdentity,
    EnrolmentString,
    EscrowIdentity,
    encode_bytes,
    open_envelope,
    parse_client_key,
    parse_director_key,
    parse_escrow_key,
    seal_envelope,
    seal_for_client,
)
from schema.errors import TrustError
from tests.fuzz import samples
from tests.fuzz.target import Target, parts, refusing

NOW = datetime(2026, 11, 23, 18, tzinfo=UTC)


@cache
def _client() -> ClientIdentity:
    return ClientIdentity(b"\1" * 32, b"\2" * 32)


@cache
def _director() -> DirectorIdentity:
    return DirectorIdentity(b"\3" * 32)


_EVER_SIGNED = (b"{}", b"")


def _envelope(data: bytes) -> None:
    """Bytes as the envelope itself: what nobody signed is not believed, whatever it looks like."""
    with refusing(TrustError):
        payload = open_envelope(data, payload_type=PAYLOAD_TYPE, key=_director().public, limit=MAX_DESIRED_BYTES)
    assert payload in _EVER_SIGNED


def _signed(payload: bytes) -> bytes:
    return seal_envelope(payload, payload_type=PAYLOAD_TYPE, identity=_director())


def _desired(data: bytes) -> None:
    """A payload that the director did sign, whatever made it do so."""
    try:
        value = json.loads(data)
        content = json.dumps(value["content"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        if value.get("digest") == "DIGEST":
            value["digest"] = "sha256:" + hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
            data = json.dumps(value).encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    sealed = _signed(data)
    trusted = TrustedState(_director().public, _client().public.text)
    with refusing(TrustError):
        verified = trusted.accept(sealed, now=NOW, name="web-1")
    after = trusted.advanced(verified)
    assert after.accept(sealed, now=NOW, name="web-1") == verified
    assert Content.model_validate_json(verified.state.content.model_dump_json()) == verified.state.content
    for file in verified.state.content.files:
        file.rendered(verified.state.revision)


def _keys(data: bytes) -> None:
    """A text as each kind of key and as an enrolment string, and as a sealed value."""
    text = data.decode("utf-8", "replace")
    for parse in (parse_client_key, parse_director_key, parse_escrow_key, EnrolmentString.from_text):
        try:
            found = parse(text)
        except TrustError as error:
            str(error).encode()
            continue
        if isinstance(found, EnrolmentString):
            assert EnrolmentString.from_text(found.to_text()) == found
    for identity in (ClientIdentity, DirectorIdentity, EscrowIdentity):
        try:
            private = identity.from_text(text)
        except TrustError as error:
            str(error).encode()
            continue
        assert identity.from_text(private.to_text()).to_text() == private.to_text()
        assert private.to_text().strip() == text.strip()
    with refusing(TrustError):
        _client().open_sealed(text, secret="nas", key="passphrase", client="web-1")


def _sealed(data: bytes) -> None:
    """What somebody sealed to the client's public key, which everybody has: opened only under its own name."""
    said_inside = [*parts(data, b"\n"), "nas", "passphrase", "web-1"]
    inside, names = said_inside[0], said_inside[1:]
    box = nacl.public.SealedBox(nacl.public.PublicKey(_client().public.sealing_key)).encrypt(inside.encode())
    secret, key, client = names[:3]
    with refusing(TrustError):
        value = _client().open_sealed(SEALED_PREFIX + encode_bytes(box), secret=secret, key=key, client=client)
    said = json.loads(inside)
    assert (said["secret"], said["key"], said["recipient"]) == (secret, key, f"client:{client}")
    assert encode_bytes(value) == said["value"]


def _enrolment() -> EnrolmentString:
    return EnrolmentString(
        url="wss://d.example", director=_director().public.text, token="bd1-token." + "A" * 43, certificate="ab" * 32
    )


def _state() -> dict[str, object]:
    return {
        "audience": _client().public.text,
        "generation": 7,
        "revision": "c" * 40,
        "issued": samples.AT,
        "expires": "2027-02-23T18:00:00Z",
        "digest": "DIGEST",
        "content": samples.CONTENT,
    }


_INNER = {
    "purpose": "borgmatic-director sealed value v1",
    "secret": "nas",
    "key": "passphrase",
    "recipient": "client:web-1",
    "value": "eA",
}

TARGETS = (
    Target(
        name="envelopes",
        promise="bytes are an envelope of the pinned director only when it signed exactly that payload",
        check=_envelope,
        seeds=lambda: [
            *map(_signed, _EVER_SIGNED),
            json.dumps({**json.loads(_signed(b"{}")), "signatures": []}).encode(),
        ],
        words=("payload", "payloadType", "signatures", "keyid", "sig", "e30", "e30=", PAYLOAD_TYPE),
    ),
    Target(
        name="desired-states",
        promise="whatever the director signed is refused with a TrustError, or is a state whose digest is right, which "
        "is accepted again and is written and read back equal",
        check=_desired,
        seeds=lambda: [samples.lines(_state())],
        most=8_192,
        words=(*samples.WORDS, "DIGEST", "known_hosts/x", "config", "heal", "web-1", "26h", "bd1-sealed.AAAA"),
    ),
    Target(
        name="keys",
        promise="a text is a key, an enrolment string or a sealed value, or a TrustError; keys are written and read "
        "back the same",
        check=_keys,
        seeds=lambda: [
            _client().public.text.encode(),
            _director().public.text.encode(),
            _client().to_text().encode(),
            _director().to_text().encode(),
            _enrolment().to_text().encode(),
            seal_for_client(b"x", secret="nas", key="passphrase", client="web-1", to=_client().public).encode(),
        ],
        words=("bd1-escrow.", "bd1-escrow-private.", "bd1-client-private.", "A" * 43, "A" * 86, "=", "+", "/", "\n"),
    ),
    Target(
        name="sealed-values",
        promise="a sealed value is opened only under exactly its own names, else TrustError",
        check=_sealed,
        seeds=lambda: [samples.lines(_INNER), samples.lines(_INNER) + b"\nnas\npassphrase\nweb-1"],
        separator=b"\n",
        words=("client:web-1", "client:web-2", "escrow:", "nas", "passphrase", "web-1"),
        most=1_024,
    ),
)
