"""Keys, envelopes, sealed values, transcripts and enrolment strings: what holds, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import nacl.bindings
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema import envelope
from schema.envelope import ClientIdentity, DirectorIdentity, EnrolmentString, EscrowIdentity
from schema.errors import TrustError, scrub

CLIENT, OTHER_CLIENT = ClientIdentity.generate(), ClientIdentity.generate()
DIRECTOR, OTHER_DIRECTOR = DirectorIdentity.generate(), DirectorIdentity.generate()
ESCROW = EscrowIdentity.generate()
KIND = "application/x-test"

PRIME = 2**255 - 19
# The points of order 1, 2, 4 and 8 (https://cr.yp.to/ecdh.html#validate; RFC 8032 encodings), each verifies anything.
SMALL_ORDER_ED25519 = {
    "order 1": "0100000000000000000000000000000000000000000000000000000000000000",
    "order 2": "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "order 4": "0000000000000000000000000000000000000000000000000000000000000000",
    "order 4, negative": "0000000000000000000000000000000000000000000000000000000000000080",
    "order 8": "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "order 8, other": "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
}
UNSOUND_ED25519 = {
    **SMALL_ORDER_ED25519,
    "not canonical: the neutral element plus p": "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "not canonical: zero plus p": "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "not on the curve": "0200000000000000000000000000000000000000000000000000000000000000",
}
UNSOUND_X25519 = {
    "0": 0,
    "1": 1,
    "order 8": 325606250916557431795983626356110631294008115727848805560023387167927233504,
    "order 8, other": 39382357235489614581723060781553021112529911719440698176882885853963445705823,
    "p - 1": PRIME - 1,
    "p": PRIME,
    "p + 1": PRIME + 1,
    "bit 255 set": 2**255 + 9,
}


def client_key(*, signing: bytes = CLIENT.public.verify_key.key, sealing: bytes = CLIENT.public.sealing_key) -> str:
    return envelope.CLIENT_PREFIX + envelope.encode_bytes(signing + sealing)


def of_mixed_order() -> bytes:
    """Return a public key that has a component of small order beside a sound one."""
    small = bytes.fromhex(SMALL_ORDER_ED25519["order 8"])
    return nacl.bindings.crypto_core_ed25519_add(CLIENT.public.verify_key.key, small)


# --- Keys ---


@pytest.mark.parametrize("data", UNSOUND_ED25519.values(), ids=UNSOUND_ED25519.keys())
def test_an_unsound_signing_key_is_refused_wherever_it_enters(data):
    key = bytes.fromhex(data)

    with pytest.raises(TrustError) as client:
        envelope.parse_client_key(client_key(signing=key))
    with pytest.raises(TrustError) as director:
        envelope.parse_director_key(envelope.DIRECTOR_PREFIX + envelope.encode_bytes(key))

    assert (client.value.code, director.value.code) == ("bad-key", "bad-key")


def test_a_signing_key_outside_of_the_prime_order_group_is_refused():
    with pytest.raises(TrustError, match="sound"):
        envelope.parse_client_key(client_key(signing=of_mixed_order()))


@pytest.mark.parametrize("number", UNSOUND_X25519.values(), ids=UNSOUND_X25519.keys())
def test_an_unsound_sealing_key_is_refused_wherever_it_enters(number):
    key = number.to_bytes(32, "little")

    with pytest.raises(TrustError) as client:
        envelope.parse_client_key(client_key(sealing=key))
    with pytest.raises(TrustError) as escrow:
        envelope.parse_escrow_key(envelope.ESCROW_PREFIX + envelope.encode_bytes(key))

    assert (client.value.code, escrow.value.code) == ("bad-key", "bad-key")


DAMAGED = {
    "empty": "",
    "prefix only": "bd1-client.",
    "another prefix": "bd1-director." + CLIENT.public.text.removeprefix("bd1-client."),
    "cut": CLIENT.public.text[:-1],
    "longer": CLIENT.public.text + "A",
    "padded": CLIENT.public.text + "=",
    "with a line end": CLIENT.public.text + "\n",
    "another version": CLIENT.public.text.replace("bd1", "bd2"),
    "not ASCII": "bd1-client." + "ä" * 86,
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_key_is_refused(text):
    with pytest.raises(TrustError) as error:
        envelope.parse_client_key(text)
    assert error.value.code == "malformed"


def test_one_key_has_one_spelling():
    # 64 bytes leave four unused bits in the last character, which base64 decoders commonly ignore.
    last = CLIENT.public.text[-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    others = [char for char in alphabet if alphabet.index(char) // 16 == alphabet.index(last) // 16 and char != last]

    assert len(others) == 15
    for char in others:
        with pytest.raises(TrustError, match="canonical"):
            envelope.parse_client_key(CLIENT.public.text[:-1] + char)


@pytest.mark.parametrize("identity", [CLIENT, DIRECTOR, ESCROW])
def test_a_private_key_is_read_back_and_never_shown(identity):
    text = identity.to_text()

    assert type(identity).from_text(text).public == identity.public
    assert repr(identity) == f"<{type(identity).__name__}>"
    assert text.strip().rpartition(".")[2] not in repr(vars(identity))


# --- Signatures ---


def test_a_signature_holds_for_its_purpose_its_data_and_its_key_alone():
    signature = CLIENT.sign(purpose="a", data=b"data")
    key = CLIENT.public.verify_key

    key.verify(signature, purpose="a", data=b"data")
    for other, purpose, data in (
        (key, "b", b"data"),
        (key, "a", b"dat"),
        (OTHER_CLIENT.public.verify_key, "a", b"data"),
    ):
        with pytest.raises(TrustError) as error:
            other.verify(signature, purpose=purpose, data=data)
        assert error.value.code == "bad-signature"


@pytest.mark.parametrize("signature", [b"", b"x", bytes(63), bytes(64), bytes(65), b"\xff" * 64])
def test_bytes_that_are_no_signature_are_refused(signature):
    with pytest.raises(TrustError):
        CLIENT.public.verify_key.verify(signature, purpose="a", data=b"data")


def test_nothing_moves_between_purpose_and_data():
    signature = CLIENT.sign(purpose="ab", data=b"c")

    with pytest.raises(TrustError):
        CLIENT.public.verify_key.verify(signature, purpose="a", data=b"bc")


# --- Envelopes ---


def sealed(payload: bytes = b'{"a": 1}') -> bytes:
    return envelope.seal_envelope(payload, payload_type=KIND, identity=DIRECTOR)


def opened(data: bytes, *, kind: str = KIND, limit: int = 1000) -> bytes:
    return envelope.open_envelope(data, payload_type=kind, key=DIRECTOR.public, limit=limit)


@given(st.binary(max_size=200))
def test_what_was_signed_comes_out_byte_for_byte(payload):
    assert opened(sealed(payload)) == payload


def test_an_envelope_follows_the_dsse_specification():
    # https://github.com/secure-systems-lab/dsse/blob/master/protocol.md: PAE("http://example.com/HelloWorld", …)
    assert envelope._pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_every_changed_byte_of_an_envelope_is_noticed():
    data = sealed()

    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        try:
            assert opened(changed) == b'{"a": 1}'
        except TrustError:
            continue
        # What is left are bytes that carry no meaning: none in JSON without spaces.
        raise AssertionError(f"byte {place} could be changed")


def test_an_envelope_of_another_director_kind_or_size_is_refused():
    foreign = envelope.seal_envelope(b"{}", payload_type=KIND, identity=OTHER_DIRECTOR)

    for data, code in ((foreign, "bad-signature"), (b"", "malformed"), (b"[]", "malformed"), (b"\xff", "malformed")):
        with pytest.raises(TrustError) as error:
            opened(data)
        assert error.value.code == code
    with pytest.raises(TrustError, match="something else"):
        opened(sealed(), kind="application/x-other")
    with pytest.raises(TrustError, match="more than allowed"):
        opened(sealed(bytes(8000)), limit=100)


def test_a_key_id_is_a_hint_and_no_proof():
    forged = json.loads(envelope.seal_envelope(b"{}", payload_type=KIND, identity=OTHER_DIRECTOR))
    forged["signatures"][0]["keyid"] = envelope.fingerprint(DIRECTOR.public.text)

    with pytest.raises(TrustError, match="not right"):
        opened(json.dumps(forged).encode())


def test_one_good_signature_among_a_few_is_enough_and_among_thousands_is_not_looked_for():
    data = json.loads(sealed())
    other = {"keyid": "SHA256:other", "sig": "AA"}

    assert opened(json.dumps({**data, "signatures": [other, *data["signatures"]]}).encode(), limit=10_000)
    with pytest.raises(TrustError):
        opened(json.dumps({**data, "signatures": [other] * 4 + data["signatures"]}).encode(), limit=10_000)


# --- Sealed values ---


def test_a_sealed_value_opens_under_its_name_on_its_machine_alone():
    text = envelope.seal_for_client(b"pass phrase", secret="nas", key="passphrase", client="web-1", to=CLIENT.public)

    assert CLIENT.open_sealed(text, secret="nas", key="passphrase", client="web-1") == b"pass phrase"
    for identity, names in (
        (CLIENT, {"secret": "other", "key": "passphrase", "client": "web-1"}),
        (CLIENT, {"secret": "nas", "key": "other", "client": "web-1"}),
        (CLIENT, {"secret": "nas", "key": "passphrase", "client": "web-2"}),
        (OTHER_CLIENT, {"secret": "nas", "key": "passphrase", "client": "web-1"}),
    ):
        with pytest.raises(TrustError) as error:
            identity.open_sealed(text, **names)
        assert error.value.code == "bad-seal"


def test_the_length_of_a_passphrase_does_not_show():
    lengths = {
        len(envelope.seal_for_client(b"x" * size, secret="nas", key="k", client="web-1", to=CLIENT.public))
        for size in range(8, 20)
    }

    assert len(lengths) == 1


def test_what_is_sealed_for_escrow_opens_with_the_escrow_key_alone():
    text = envelope.seal_for_escrow(b"value", secret="nas", key="k", to=ESCROW.public)

    assert ESCROW.open_sealed(text, secret="nas", key="k") == b"value"
    with pytest.raises(TrustError):
        EscrowIdentity.generate().open_sealed(text, secret="nas", key="k")
    with pytest.raises(TrustError):
        ESCROW.open_sealed(text, secret="nas", key="other")


@pytest.mark.parametrize(
    "text", ["", "bd1-sealed.", "bd1-sealed.AAAA", "plain", "bd1-sealed.*", "bd1-sealed." + "A" * 400]
)
def test_what_is_not_sealed_is_refused(text):
    with pytest.raises(TrustError):
        CLIENT.open_sealed(text, secret="nas", key="k", client="web-1")


# --- The handshake's transcript ---

FIELDS: dict[str, Any] = {
    "offered": (1,),
    "chosen": 1,
    "name": "web-1",
    "client_key": "c",
    "director_key": "d",
    "client_nonce": b"n",
    "director_nonce": b"m",
    "channel": "",
}
CHANGED: dict[str, Any] = {
    "offered": (1, 2),
    "chosen": 2,
    "name": "web-2",
    "client_key": "x",
    "director_key": "x",
    "client_nonce": b"x",
    "director_nonce": b"x",
    "channel": "00",
}


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_of_the_handshake_is_signed(field):
    assert envelope.transcript(**FIELDS) != envelope.transcript(**{**FIELDS, field: CHANGED[field]})


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8), st.text(max_size=8))
def test_no_two_conversations_have_the_same_transcript(name, key, other_name, other_key):
    one = envelope.transcript(**{**FIELDS, "name": name, "client_key": key})
    other = envelope.transcript(**{**FIELDS, "name": other_name, "client_key": other_key})

    assert (one == other) == ((name, key) == (other_name, other_key))


# --- Tokens and enrolment strings ---


def test_a_token_is_kept_as_a_hash_and_scrubbed_from_messages():
    token = envelope.random_token()

    assert token != envelope.random_token()
    assert envelope.hash_token(token) == envelope.hash_token(token)
    assert token.removeprefix("bd1-token.") not in envelope.hash_token(token)
    assert scrub(f"wrong token {token}!") == "wrong token bd1-token.***!"


def enrolment() -> EnrolmentString:
    return EnrolmentString(url="wss://director:8440", director=DIRECTOR.public.text, token=envelope.random_token())


def test_an_enrolment_string_survives_being_folded_on_its_way():
    wanted = enrolment()
    text = wanted.to_text()

    assert EnrolmentString.from_text(f"  {text[:40]}\r\n{text[40:]}\n") == wanted


def test_a_damaged_enrolment_string_is_refused_without_being_shown():
    wanted = enrolment()
    text = wanted.to_text()

    for damaged in (text[:-3], text[:20] + text[21:], text.replace("enroll", "enrol"), "", "bd1-enroll.AAAA"):
        with pytest.raises(TrustError) as error:
            EnrolmentString.from_text(damaged)
        assert error.value.code == "malformed"
        assert wanted.token not in str(error.value)


def test_an_enrolment_string_with_a_worthless_director_key_is_refused():
    key = envelope.DIRECTOR_PREFIX + envelope.encode_bytes(bytes.fromhex(SMALL_ORDER_ED25519["order 1"]))

    with pytest.raises(TrustError, match="sound"):
        EnrolmentString.from_text(enrolment().model_copy(update={"director": key}).to_text())


# --- Base64 ---


@given(st.binary(max_size=80))
def test_bytes_survive(data):
    assert envelope.decode_bytes(envelope.encode_bytes(data)) == data


@given(st.text(max_size=40))
def test_text_that_decodes_is_the_one_spelling_of_its_bytes(text):
    try:
        data = envelope.decode_bytes(text)
    except TrustError:
        return
    assert envelope.encode_bytes(data) == text
