"""Which desired states are believed."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from client.trust import HighWater, TrustedState, is_stale, open_verified
from schema.desired import MAX_DESIRED_BYTES, PAYLOAD_TYPE, Content
from schema.directories import Directories
from schema.envelope import ClientIdentity, DirectorIdentity, encode_bytes, seal_envelope
from schema.errors import TrustError
from schema.scalars import MAX_GENERATION
from tests.client.director_stub import ISSUED, desired_state

NOW = ISSUED + timedelta(hours=1)
DIRECTOR = DirectorIdentity.generate()
CLIENT = ClientIdentity.generate()
ME = CLIENT.public.text
CONTENT = Content(client="web-1", directories=Directories())
OTHER_CONTENT = Content(client="web-1", directories=Directories(), suspend=True)


def trusted(*, generation: int | None = None, payload: str = "sha256:" + "0" * 64) -> TrustedState:
    mark = generation and HighWater(director=DIRECTOR.public.text, generation=generation, payload=payload)
    return TrustedState(DIRECTOR.public, ME, mark or None)


def code_of(envelope: bytes, *, state: TrustedState | None = None, name: str | None = None) -> str:
    with pytest.raises(TrustError) as caught:
        (state or trusted()).accept(envelope, now=NOW, name=name)
    return caught.value.code


def signed(payload: bytes) -> bytes:
    return seal_envelope(payload, payload_type=PAYLOAD_TYPE, identity=DIRECTOR)


def test_a_state_signed_by_the_pinned_director_for_us_is_accepted():
    verified = trusted().accept(desired_state(DIRECTOR, ME), now=NOW, name="web-1")

    assert verified.state.generation == 100
    assert verified.state.content == CONTENT


def test_a_higher_generation_is_accepted_and_raises_the_mark():
    before = trusted(generation=99)

    after = before.advanced(before.accept(desired_state(DIRECTOR, ME), now=NOW))

    assert after.high_water is not None
    assert after.high_water.generation == 100


def test_the_same_generation_is_welcome_again_with_the_same_bytes():
    envelope = desired_state(DIRECTOR, ME)
    first = trusted()

    again = first.advanced(first.accept(envelope, now=NOW)).accept(envelope, now=NOW)

    assert again.state.generation == 100


def test_the_same_generation_with_other_content_is_refused():
    first = trusted()
    seen = first.advanced(first.accept(desired_state(DIRECTOR, ME), now=NOW))

    assert code_of(desired_state(DIRECTOR, ME, content=OTHER_CONTENT), state=seen) == "same-generation"


def test_an_older_generation_is_refused():
    assert code_of(desired_state(DIRECTOR, ME, generation=99), state=trusted(generation=100)) == "older-generation"


def test_a_state_for_another_client_is_refused():
    assert code_of(desired_state(DIRECTOR, ClientIdentity.generate().public.text)) == "wrong-audience"


def test_a_state_for_another_name_than_the_session_s_is_refused():
    assert code_of(desired_state(DIRECTOR, ME), name="web-2") == "wrong-name"


def test_a_state_signed_by_another_director_is_refused():
    assert code_of(desired_state(DirectorIdentity.generate(), ME)) == "bad-signature"


def test_a_signature_made_for_something_else_is_refused():
    envelope = json.loads(desired_state(DIRECTOR, ME))
    other = json.loads(seal_envelope(b"{}", payload_type="application/else", identity=DIRECTOR))
    envelope["signatures"] = other["signatures"]

    assert code_of(json.dumps(envelope).encode()) == "bad-signature"


def test_every_altered_byte_of_the_payload_is_noticed():
    envelope = json.loads(desired_state(DIRECTOR, ME))
    payload = envelope["payload"]
    for place in range(0, len(payload), 37):
        altered = payload[:place] + ("A" if payload[place] != "A" else "B") + payload[place + 1 :]
        assert code_of(json.dumps(envelope | {"payload": altered}).encode()) in {"bad-signature", "malformed"}


@pytest.mark.parametrize("length", [0, 1, 10, 100, 500])
def test_a_truncated_envelope_is_refused(length):
    assert code_of(desired_state(DIRECTOR, ME)[:length]) == "malformed"


@pytest.mark.parametrize(
    "envelope",
    [b"null", b"[]", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"payloadType":1,"payload":2,"signatures":3}'],
    ids=["null", "list", "empty", "binary", "deep", "types"],
)
def test_nonsense_instead_of_an_envelope_is_refused(envelope):
    assert code_of(envelope) == "malformed"


@pytest.mark.parametrize("payload", [b"", b"null", b"{}", b"not json", b'{"audience": 1}', b"[" * 10_000])
def test_signed_nonsense_is_refused(payload):
    assert code_of(signed(payload)) == "malformed"


def test_an_oversized_envelope_is_refused():
    assert code_of(b"x" * (MAX_DESIRED_BYTES * 2)) == "too-large"
    assert code_of(signed(b" " * (MAX_DESIRED_BYTES + 1))) == "too-large"


def test_a_digest_that_does_not_belong_to_the_content_is_refused():
    assert code_of(desired_state(DIRECTOR, ME, digest="sha256:" + "1" * 64)) == "wrong-digest"


def test_content_that_does_not_belong_to_the_digest_is_refused():
    payload = json.loads(open_payload(desired_state(DIRECTOR, ME)))
    payload["content"]["suspend"] = True

    assert code_of(signed(json.dumps(payload).encode())) == "wrong-digest"


def test_fields_of_a_newer_director_are_ignored_and_still_covered_by_the_digest():
    payload = json.loads(open_payload(desired_state(DIRECTOR, ME)))
    payload["content"]["invented_later"] = {"so": ["what"]}
    assert code_of(signed(json.dumps(payload).encode())) == "wrong-digest"

    import hashlib

    canonical = json.dumps(payload["content"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    payload["digest"] = "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()

    verified = trusted().accept(signed(json.dumps(payload).encode()), now=NOW)

    assert verified.state.content == CONTENT


def open_payload(envelope: bytes) -> bytes:
    from schema.envelope import decode_bytes

    return decode_bytes(json.loads(envelope)["payload"])


def test_a_state_from_the_future_is_refused_and_a_clock_that_is_an_hour_behind_is_not():
    assert code_of(desired_state(DIRECTOR, ME, issued=NOW + timedelta(days=2))) == "issued-in-future"

    ahead = NOW + timedelta(hours=1)
    assert trusted().accept(desired_state(DIRECTOR, ME, issued=ahead), now=NOW).state.issued == ahead


@pytest.mark.parametrize("generation", [MAX_GENERATION, int(NOW.timestamp() * 1000) + 11 * 366 * 86_400_000])
def test_a_generation_absurdly_far_ahead_is_refused_even_when_signed(generation):
    assert code_of(desired_state(DIRECTOR, ME, generation=generation)) == "generation-jumped"


def test_nothing_unverified_moves_the_mark():
    state = trusted(generation=100)
    poison = desired_state(DirectorIdentity.generate(), ME, generation=int(NOW.timestamp() * 1000))

    assert code_of(poison, state=state) == "bad-signature"
    assert state.accept(desired_state(DIRECTOR, ME, generation=101), now=NOW).state.generation == 101


def test_an_expired_state_is_stale_and_still_believed():
    envelope = desired_state(DIRECTOR, ME)
    much_later = NOW + timedelta(days=400)

    verified = trusted().accept(envelope, now=much_later)

    assert is_stale(verified.state, much_later)
    assert not is_stale(verified.state, NOW)


def test_a_state_from_our_own_disk_is_verified_whatever_its_age():
    envelope = desired_state(DIRECTOR, ME, generation=1)

    assert open_verified(envelope, director=DIRECTOR.public, own_key=ME).state.generation == 1
    with pytest.raises(TrustError):
        open_verified(envelope.replace(b"payload", b"qayload"), director=DIRECTOR.public, own_key=ME)


def test_a_signature_that_is_not_base64_is_refused():
    envelope = json.loads(desired_state(DIRECTOR, ME))
    envelope["signatures"][0]["sig"] = "!" * 86
    assert code_of(json.dumps(envelope).encode()) == "malformed"

    envelope["signatures"][0]["sig"] = encode_bytes(b"\0" * 64)
    assert code_of(json.dumps(envelope).encode()) == "bad-signature"
