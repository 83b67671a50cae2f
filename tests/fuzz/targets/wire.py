"""Frames of both directions in every state, the client's handshake, and reports one by one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from client.connection import Credentials, Ended, open_session
from schema import wire
from schema.envelope import CHALLENGE_PURPOSE, ClientIdentity, DirectorIdentity, decode_bytes, encode_bytes, transcript
from schema.errors import TrustError
from schema.observed import Report
from schema.wire import State
from tests.fuzz import samples
from tests.fuzz.target import Target, parts, refusing

_SEPARATOR = b"\n"
_REPORT: TypeAdapter[Report] = TypeAdapter(Report)


def _frames(decode: Callable[..., Any], accepts: dict[State, frozenset[str]]) -> Callable[[bytes], None]:
    """Return the check of one direction: a frame is refused with a ``TrustError``, or means the same when sent on."""

    def check(data: bytes) -> None:
        for text in parts(data, _SEPARATOR):
            for state in State:
                for frame in (text, text.encode()):
                    try:
                        message = decode(frame, state=state)
                    except TrustError as error:
                        _is_fair(error)
                        continue
                    assert message.type in accepts[state]
                    assert decode(wire.encode(message), state=State(state)) == message
                    if isinstance(message, wire.Reports):
                        _reports(message)

    return check


def _is_fair(refused: TrustError) -> None:
    assert refused.code in {*wire.RefusalCode}
    assert len(refused.message) < 400


def _reports(message: wire.Reports) -> None:
    for item in message.items:
        try:
            report = wire.parse_report(item.report)
        except TrustError as error:
            str(error).encode()
            continue
        sent = report.model_dump(mode="json")
        assert wire.parse_report(sent) == report


def _report(data: bytes) -> None:
    """One report as the store keeps it."""
    for text in parts(data, _SEPARATOR):
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if not isinstance(raw, dict):
            continue
        try:
            report = wire.parse_report(raw)
        except TrustError as error:
            str(error).encode()
            continue
        json.dumps(report.model_dump(mode="json"), allow_nan=False).encode()
        assert _REPORT.validate_json(report.model_dump_json()) == report


# --- The handshake, as the client sees it -----------------------------------------------------------------------------


@cache
def _keys() -> tuple[ClientIdentity, DirectorIdentity]:
    return ClientIdentity(b"\1" * 32, b"\2" * 32), DirectorIdentity(b"\3" * 32)


class _Peer:
    """A director that says what it was told to, and signs its challenge when it is asked to."""

    channel = "ab" * 32

    def __init__(self, frames: list[str]) -> None:
        self._frames = frames
        self._hello: dict[str, Any] = {}

    async def send(self, frame: str) -> None:
        message = json.loads(frame)
        if message["type"] == "hello":
            self._hello = message

    async def receive(self) -> str | bytes | None:
        frame = self._frames.pop(0) if self._frames else None
        if frame is None or not self._hello or '"SIGN"' not in frame:
            return frame
        return frame.replace('"SIGN"', json.dumps(self._signature(frame)))

    async def close(self) -> None:
        """The connection is over."""

    def _signature(self, frame: str) -> str:
        _, director = _keys()
        try:
            nonce = decode_bytes(json.loads(frame)["nonce"])
        except (ValueError, KeyError, TypeError, TrustError, AttributeError, RecursionError):
            nonce = b""
        said = transcript(
            offered=self._hello["versions"],
            chosen=1,
            name=self._hello["name"],
            client_key=self._hello["key"],
            director_key=director.public.text,
            client_nonce=decode_bytes(self._hello["nonce"]),
            director_nonce=nonce,
            channel=self.channel,
        )
        return encode_bytes(director.sign(purpose=CHALLENGE_PURPOSE, data=said))


def _handshake(data: bytes) -> None:
    client, director = _keys()
    credentials = Credentials(identity=client, name="web-1", director=director.public)
    frames = parts(data, _SEPARATOR)
    with refusing(Ended, TrustError):
        answer = asyncio.run(open_session(_Peer(frames), credentials))
    assert isinstance(answer, (wire.Accepted, wire.Pending))


def _handshake_seeds() -> list[bytes]:
    _, director = _keys()
    challenge = {
        "type": "challenge",
        "version": 1,
        "nonce": "A" * 43,
        "key": director.public.text,
        "signature": "SIGN",
    }
    ends = (samples.ACCEPTED, samples.PENDING, samples.REFUSED)
    return [samples.lines(challenge, end) for end in ends] + [samples.lines(samples.REFUSED)]


TARGETS = (
    Target(
        name="frames-from-client",
        promise="in every state a frame is refused with a TrustError, or read, and means the same when it is sent on; "
        "each report in it likewise",
        check=_frames(wire.decode_from_client, wire.DIRECTOR_ACCEPTS),
        seeds=lambda: [samples.lines(one) for one in samples.FROM_CLIENT],
        separator=_SEPARATOR,
        words=samples.WORDS,
    ),
    Target(
        name="frames-from-director",
        promise="in every state a frame is refused with a TrustError, or read, and means the same when it is sent on",
        check=_frames(wire.decode_from_director, wire.CLIENT_ACCEPTS),
        seeds=lambda: [samples.lines(one) for one in samples.FROM_DIRECTOR],
        separator=_SEPARATOR,
        words=samples.WORDS,
    ),
    Target(
        name="handshake",
        promise="whatever a director answers, the client's handshake ends accepted, pending, or with Ended or "
        "TrustError",
        check=_handshake,
        seeds=_handshake_seeds,
        separator=_SEPARATOR,
        words=(*samples.WORDS, "SIGN"),
    ),
    Target(
        name="reports",
        promise="a report is refused with a TrustError, or can be written as JSON and read back equal",
        check=_report,
        seeds=lambda: [samples.lines(one) for one in samples.REPORTS],
        separator=_SEPARATOR,
        words=samples.WORDS,
    ),
)
