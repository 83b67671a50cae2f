"""The messages: what each side may say in which state, and what becomes of everything else."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema import envelope, wire
from schema.envelope import ClientIdentity, DirectorIdentity
from schema.errors import TrustError
from schema.observed import RunProgress
from schema.wire import CLIENT_ACCEPTS, DIRECTOR_ACCEPTS, RefusalCode, State

NOW = datetime(2026, 11, 23, 18, 0, tzinfo=UTC)
CLIENT = ClientIdentity.generate().public.text
DIRECTOR = DirectorIdentity.generate().public.text
NONCE = envelope.encode_bytes(bytes(32))
SIGNATURE = envelope.encode_bytes(bytes(64))
EPOCH = "ab" * 16

FROM_CLIENT: dict[str, wire.FromClient] = {
    "hello": wire.Hello(versions=(1,), name="web-1", key=CLIENT, nonce=NONCE),
    "proof": wire.Proof(signature=SIGNATURE, token=envelope.random_token()),
    "pull": wire.Pull(generation=7, digest="sha256:" + "0" * 64),
    "reports": wire.Reports(epoch=EPOCH, items=(wire.ReportItem(sequence=1, report={"type": "event"}),)),
    "progress": wire.Progress(progress=RunProgress(at=NOW, run=EPOCH, backup="files")),
}
FROM_DIRECTOR: dict[str, wire.FromDirector] = {
    "challenge": wire.Challenge(version=1, nonce=NONCE, key=DIRECTOR, signature=SIGNATURE),
    "accepted": wire.Accepted(name="web-1", time=NOW),
    "pending": wire.Pending(fingerprint="SHA256:x", retry_after=60),
    "refused": wire.Refused(code=RefusalCode.REVOKED, message="this key was revoked"),
    "desired": wire.Desired(envelope="{}"),
    "current": wire.Current(generation=7),
    "acknowledged": wire.Acknowledged(epoch=EPOCH, sequence=9),
}
HOSTILE = {
    "empty": "",
    "no JSON": "{",
    "a number": "1",
    "null": "null",
    "a list": "[]",
    "no type": "{}",
    "an unknown type": '{"type": "shutdown"}',
    "a type that is no text": '{"type": ["pull"]}',
    "nothing but depth": "[" * 10_000,
    "a lone surrogate": '{"type": "pull", "x": "\\ud800"}',
    "a number of a thousand digits": '{"type": "pull", "generation": ' + "9" * 1000 + "}",
    "a negative generation": '{"type": "pull", "generation": -1}',
    "not a number": '{"type": "pull", "generation": NaN}',
}


def is_malformed(error: pytest.ExceptionInfo[TrustError]) -> bool:
    return error.value.code == RefusalCode.MALFORMED


# --- Order ---


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("kind", FROM_CLIENT)
def test_the_director_takes_from_a_client_exactly_what_the_table_lists(kind, state):
    message = FROM_CLIENT[kind]

    if kind in DIRECTOR_ACCEPTS[state]:
        assert wire.decode_from_client(wire.encode(message), state=state) == message
    else:
        with pytest.raises(TrustError, match="out of order") as error:
            wire.decode_from_client(wire.encode(message), state=state)
        assert is_malformed(error)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("kind", FROM_DIRECTOR)
def test_a_client_takes_from_the_director_exactly_what_the_table_lists(kind, state):
    message = FROM_DIRECTOR[kind]

    if kind in CLIENT_ACCEPTS[state]:
        assert wire.decode_from_director(wire.encode(message), state=state) == message
    else:
        with pytest.raises(TrustError, match="out of order"):
            wire.decode_from_director(wire.encode(message), state=state)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("kind", FROM_DIRECTOR)
def test_what_a_director_says_is_never_taken_from_a_client(kind, state):
    with pytest.raises(TrustError) as error:
        wire.decode_from_client(wire.encode(FROM_DIRECTOR[kind]), state=state)
    assert is_malformed(error)


def test_the_tables_name_every_message_and_no_other():
    assert set().union(*DIRECTOR_ACCEPTS.values()) == set(FROM_CLIENT)
    assert set().union(*CLIENT_ACCEPTS.values()) == set(FROM_DIRECTOR)


# --- Form ---


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("frame", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_malformed_frame_is_refused_in_every_state_on_both_sides(frame, state):
    for decode in (wire.decode_from_client, wire.decode_from_director):
        with pytest.raises(TrustError) as error:
            decode(frame, state=state)
        assert is_malformed(error)


@pytest.mark.parametrize("state", State)
def test_a_binary_frame_is_refused_in_every_state(state):
    with pytest.raises(TrustError, match="frames are text"):
        wire.decode_from_client(b'{"type": "hello"}', state=state)


@pytest.mark.parametrize("state", State)
def test_a_frame_is_measured_before_it_is_parsed(state):
    limit = wire.MAX_CLIENT_FRAME if state is State.OPEN else wire.MAX_HANDSHAKE_FRAME

    with pytest.raises(TrustError) as error:
        wire.decode_from_client("[" * (limit + 1), state=state)
    assert error.value.code == RefusalCode.TOO_LARGE


def test_the_refusal_of_a_malformed_frame_does_not_repeat_what_was_sent():
    token = envelope.random_token()
    frame = json.dumps({"type": "proof", "signature": token, "token": token + "!"})

    with pytest.raises(TrustError) as error:
        wire.decode_from_client(frame, state=State.CHALLENGED)

    assert token not in str(error.value)
    assert "signature" in str(error.value)


def test_a_token_is_not_shown_when_a_message_is():
    proof = FROM_CLIENT["proof"]

    assert isinstance(proof, wire.Proof)
    assert proof.token is not None
    assert proof.token not in repr(proof)


def test_unknown_fields_of_a_newer_peer_are_passed_over():
    frame = json.dumps({"type": "pull", "generation": 3, "colour": "green"})

    assert wire.decode_from_client(frame, state=State.OPEN) == wire.Pull(generation=3)


@pytest.mark.parametrize("versions", [[], [0], [-1], [65_536], list(range(1, 18)), ["x"], 1, None])
def test_a_hello_offers_one_to_sixteen_sensible_versions(versions):
    frame = {**FROM_CLIENT["hello"].model_dump(), "versions": versions}

    with pytest.raises(TrustError):
        wire.decode_from_client(json.dumps(frame), state=State.START)


@pytest.mark.parametrize("name", ["", "Web", "../etc", "a/b", "a.b", "a\n", "a" * 64, "-a", "ä"])
def test_a_name_that_is_no_name_is_refused(name):
    frame = {**FROM_CLIENT["hello"].model_dump(), "name": name}

    with pytest.raises(TrustError):
        wire.decode_from_client(json.dumps(frame), state=State.START)


@pytest.mark.parametrize(
    "items",
    [
        [],
        [{"sequence": 0, "report": {}}],
        [{"sequence": 2**63, "report": {}}],
        [{"sequence": 1, "report": []}],
        [{"sequence": 1, "report": {}}] * (wire.MAX_REPORTS + 1),
    ],
    ids=["none", "before the first", "beyond 63 bits", "not an object", "too many"],
)
def test_a_frame_of_reports_has_bounds(items):
    frame = {"type": "reports", "epoch": EPOCH, "items": items}

    with pytest.raises(TrustError):
        wire.decode_from_client(json.dumps(frame), state=State.OPEN)


def test_a_report_that_nobody_knows_does_not_spoil_the_frame_it_came_in():
    items = [{"sequence": 1, "report": {"type": "future"}}, {"sequence": 2, "report": event()}]
    frame = wire.decode_from_client(json.dumps({"type": "reports", "epoch": EPOCH, "items": items}), state=State.OPEN)

    assert isinstance(frame, wire.Reports)
    with pytest.raises(TrustError, match="unreadable report"):
        wire.parse_report(frame.items[0].report)
    assert wire.parse_report(frame.items[1].report).type == "event"


def event() -> dict[str, Any]:
    return {"type": "event", "at": "2026-11-23T18:00:00Z", "reason": "Applied", "message": "generation 7"}


@given(st.text() | st.binary(), st.sampled_from(State))
def test_no_frame_at_all_raises_anything_but_a_trust_error(frame, state):
    for decode in (wire.decode_from_client, wire.decode_from_director):
        with contextlib.suppress(TrustError):
            decode(frame, state=state)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(list(FROM_CLIENT)), st.dictionaries(st.sampled_from(["name", "key", "items", "token"]), _JSON))
def test_no_field_at_all_raises_anything_but_a_trust_error(kind, fields):
    frame = json.dumps({**FROM_CLIENT[kind].model_dump(mode="json"), **fields})

    for state in State:
        with contextlib.suppress(TrustError):
            wire.decode_from_client(frame, state=state)


@given(st.dictionaries(st.text(max_size=8), _JSON, max_size=5), st.sampled_from(["state", "run-finished", "archives"]))
def test_no_report_at_all_raises_anything_but_a_trust_error(fields, kind):
    with contextlib.suppress(TrustError):
        wire.parse_report({**fields, "type": kind})


@pytest.mark.parametrize("field", ["drift", "jobs"])
def test_a_million_wrong_entries_stop_at_the_first(field):
    with pytest.raises(TrustError) as refused:
        wire.parse_report({"type": "state", "at": "2026-11-23T18:00:00Z", field: [{}] * 100_000})
    assert str(refused.value).count("\n") == 0
    assert f"state.{field}.0" in str(refused.value)


def test_a_frame_of_empty_items_is_refused_by_its_first():
    frame = json.dumps({"type": "reports", "epoch": "0" * 32, "items": [{}] * 100_000})
    with pytest.raises(TrustError, match="reports.items.0"):
        wire.decode_from_client(frame, state=wire.State.OPEN)
