"""The session with the director, over real sockets, with directors of every kind."""

from __future__ import annotations

import asyncio
import functools
import subprocess
from dataclasses import replace
from random import Random
from typing import Any, Self

import pytest

from client.connection import LONGEST_DELAY, Backoff, Connection, Credentials, Ended, Status, bounded, open_session
from client.dial import WebSocketDialer
from schema.envelope import ClientIdentity, DirectorIdentity, parse_director_key, random_token
from schema.errors import TransientError, TrustError
from schema.observed import RunProgress
from schema.wire import (
    CLIENT_ACCEPTS,
    Accepted,
    Acknowledged,
    Challenge,
    Current,
    Desired,
    Pending,
    Pull,
    RefusalCode,
    Refused,
    ReportItem,
    Reports,
    State,
    encode,
)
from tests.client.director_stub import ISSUED, DirectorStub, desired_state
from tests.client.virtual_clock import START, VirtualClock

TOKEN = random_token()
IDENTITY = ClientIdentity.generate()


def who(stub: DirectorStub, **changes: Any) -> Credentials:
    return replace(Credentials(IDENTITY, "web-1", stub.identity.public, TOKEN), **changes)


async def shake_hands(stub: DirectorStub, credentials: Credentials | None = None, **dialer) -> Accepted | Pending:
    socket = await WebSocketDialer(stub.url, **dialer)()
    try:
        async with asyncio.timeout(10):
            return await open_session(socket, credentials or who(stub))
    finally:
        await socket.close()


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.pull = Pull()
        self.sessions: list[Accepted] = []
        self.envelopes: list[bytes] = []
        self.acknowledgements: list[Acknowledged] = []
        self.statuses: list[Status] = []
        self.something = asyncio.Condition()

    def held(self) -> Pull:
        return self.pull

    async def opened(self, accepted: Accepted) -> None:
        self.sessions.append(accepted)
        self._notify()

    def desired(self, envelope: bytes) -> None:
        self.envelopes.append(envelope)
        self._notify()

    def acknowledged(self, message: Acknowledged) -> None:
        if message.sequence > 1000:
            raise TrustError("never sent", code=RefusalCode.MALFORMED)
        self.acknowledgements.append(message)
        self._notify()

    def changed(self, status: Status) -> None:
        self.statuses.append(status)
        self._notify()

    def _notify(self) -> None:
        async def notify() -> None:
            async with self.something:
                self.something.notify_all()

        self._task = asyncio.ensure_future(notify())

    async def until(self, condition) -> None:
        async with asyncio.timeout(20), self.something:
            await self.something.wait_for(condition)


class Running:
    """``async with Running(...) as connection``: a connection that runs, on a virtual clock."""

    def __init__(self, stub: DirectorStub, credentials: Credentials | None = None) -> None:
        self.clock = VirtualClock()
        self.heard = Heard()
        self.connection = Connection(
            dial=WebSocketDialer(stub.url),
            credentials=credentials or who(stub),
            listener=self.heard,
            clock=self.clock,
            random=Random(7),
        )

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.connection.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def until_sleeping(self) -> None:
        """Return when nothing but the delay before the next attempt is being waited for."""
        while self.connection.is_busy or not self.clock.sleeping():
            await asyncio.sleep(0)

    async def until_waiting(self) -> Status:
        await self.heard.until(lambda: self.heard.statuses and self.heard.statuses[-1].phase == "waiting")
        return self.heard.statuses[-1]


# --- The handshake --------------------------------------------------------------------------------------------------


async def test_both_sides_prove_their_keys_and_the_session_opens():
    async with DirectorStub() as director:
        answer = await shake_hands(director)

    assert isinstance(answer, Accepted)
    assert answer.name == "web-1"


async def test_the_token_is_shown_to_the_pinned_director_and_only_in_the_proof():
    async with DirectorStub(approved=False) as director:
        answer = await shake_hands(director)

        assert isinstance(answer, Pending)
        assert answer.fingerprint == IDENTITY.public.fingerprint
        assert TOKEN not in director.frames[0]
        assert TOKEN in director.frames[1]


async def test_a_director_with_another_key_is_left_before_the_token_is_shown():
    async with DirectorStub() as director:
        pinned = DirectorIdentity.generate().public
        with pytest.raises(TrustError, match="another key") as caught:
            await shake_hands(director, who(director, director=pinned))

        await director.until(lambda: director.sessions == 1 and not director._open)
        assert caught.value.code == "wrong-director"
        assert len(director.frames) == 1
        assert TOKEN not in "".join(director.frames)


def steal_identity(pinned: DirectorIdentity):
    return lambda challenge: challenge.model_copy(update={"key": pinned.public.text})


@pytest.mark.parametrize(
    "tamper",
    [
        lambda challenge: challenge.model_copy(update={"signature": "A" * 86}),
        lambda challenge: challenge.model_copy(update={"nonce": "A" * 43}),
        lambda challenge: challenge.model_copy(update={"version": 2}),
        lambda challenge: challenge.model_copy(update={"key": "bd1-director." + "A" * 43}),
    ],
    ids=["signature", "nonce", "version", "degenerate key"],
)
async def test_an_altered_challenge_is_refused_before_the_token_is_shown(tamper):
    async with DirectorStub() as director:
        director.tamper = tamper
        with pytest.raises(TrustError):
            await shake_hands(director)

        await director.until(lambda: not director._open)
        assert len(director.frames) == 1


async def test_who_only_claims_the_pinned_key_is_refused_before_the_token_is_shown():
    pinned = DirectorIdentity.generate()
    async with DirectorStub() as impostor:
        impostor.tamper = steal_identity(pinned)
        with pytest.raises(TrustError, match="signature is not right"):
            await shake_hands(impostor, who(impostor, director=pinned.public))

        await impostor.until(lambda: not impostor._open)
        assert TOKEN not in "".join(impostor.frames)


async def test_a_signature_over_another_channel_is_a_man_in_the_middle():
    async with DirectorStub() as director:
        director.binding = "ab" * 32
        with pytest.raises(TrustError, match="not right for this connection"):
            await shake_hands(director)

        await director.until(lambda: not director._open)
        assert len(director.frames) == 1


async def test_a_refusal_carries_its_reason_and_when_to_come_back():
    async with DirectorStub() as director:
        director.refuse = Refused(code="locked-out", message="too many failures", hint="wait", retry_after=3600)
        with pytest.raises(Ended, match="too many failures") as caught:
            await shake_hands(director)

    assert (caught.value.code, caught.value.retry_after) == ("locked-out", 3600)


async def test_an_unproved_director_cannot_send_us_away_for_longer_than_an_hour():
    async with DirectorStub() as director:
        director.instead[State.START] = encode(Refused(code="busy", message="go away", retry_after=1e300))
        with pytest.raises(Ended) as caught:
            await shake_hands(director)

    assert caught.value.retry_after == 3600


CHALLENGE = Challenge(version=1, nonce="A" * 43, key=DirectorIdentity.generate().public.text, signature="A" * 86)
FRAMES = {
    "challenge": encode(CHALLENGE),
    "accepted": encode(Accepted(name="web-1", time=ISSUED)),
    "pending": encode(Pending(fingerprint="x", retry_after=1)),
    "desired": encode(Desired(envelope="{}")),
    "current": encode(Current()),
    "acknowledged": encode(Acknowledged(epoch="0" * 32, sequence=5000)),
}
HOSTILE = {
    "empty": "",
    "not json": "hello",
    "list": "[]",
    "unknown type": '{"type":"reboot"}',
    "deep": "[" * 10_000,
    "binary": b"\x00\xff",
    "truncated": FRAMES["challenge"][:50],
    "huge": '{"type":"pending","message":"' + "x" * 100_000 + '"}',
    "client's own": encode(Pull()),
}
OUT_OF_ORDER = [
    (state, FRAMES[kind]) for state, allowed in CLIENT_ACCEPTS.items() for kind in FRAMES if kind not in allowed
]


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("frame", HOSTILE.values(), ids=list(HOSTILE))
async def test_a_hostile_frame_ends_the_session_in_every_state(state, frame):
    await assert_ends(state, frame)


@pytest.mark.parametrize("state, frame", OUT_OF_ORDER, ids=lambda one: one if isinstance(one, State) else one[9:18])
async def test_a_frame_that_is_out_of_order_ends_the_session(state, frame):
    await assert_ends(state, frame)


async def test_an_acknowledgement_of_what_was_never_sent_ends_the_session():
    await assert_ends(State.OPEN, FRAMES["acknowledged"])


async def assert_ends(state: State, frame: str | bytes) -> None:
    async with DirectorStub() as director:
        director.instead[state] = frame
        async with Running(director) as running:
            status = await running.until_waiting()

            assert status.code in {RefusalCode.MALFORMED, RefusalCode.TOO_LARGE}
            assert not running.connection.is_open
            assert running.heard.envelopes == []
            assert TOKEN not in "".join(director.frames) or state is not State.START


# --- TLS and other ways ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    pair = folder / "certificate.pem", folder / "key.pem"
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", *words, *names, "-out", str(pair[0]), "-keyout", str(pair[1])]
    subprocess.run(command, check=True, capture_output=True)
    return pair


async def test_a_pinned_certificate_is_accepted_and_bound_to_the_signatures(certificate):
    async with DirectorStub(certificate=certificate) as director:
        seen = director.channel
        assert isinstance(await shake_hands(director, certificate=seen), Accepted)

        director.binding = ""
        with pytest.raises(TrustError) as caught:
            await shake_hands(director, certificate=seen)
    assert "behind_proxy" in caught.value.hint


async def test_behind_a_declared_proxy_the_certificate_is_not_part_of_the_signatures(certificate):
    async with DirectorStub(certificate=certificate) as director:
        seen, director.binding = director.channel, ""

        answer = await shake_hands(director, who(director, behind_proxy=True), certificate=seen)

        assert isinstance(answer, Accepted)


async def test_another_certificate_than_the_pinned_one_is_refused_before_a_word_is_said(certificate):
    async with DirectorStub(certificate=certificate) as director:
        with pytest.raises(TrustError, match="another certificate") as caught:
            await shake_hands(director, certificate="ab" * 32)

    assert caught.value.code == "bad-certificate"
    assert director.frames == []


async def test_an_unknown_authority_is_refused_and_a_given_one_accepted(certificate):
    async with DirectorStub(certificate=certificate) as director:
        with pytest.raises(TransientError, match="certificate"):
            await shake_hands(director)
        assert director.frames == []

        assert isinstance(await shake_hands(director, ca_file=str(certificate[0])), Accepted)


async def test_a_unix_socket_needs_no_tls(tmp_path):
    async with DirectorStub(socket_path=tmp_path / "director.sock") as director:
        assert isinstance(await shake_hands(director), Accepted)


async def test_a_missing_director_is_a_transient_error(tmp_path):
    with pytest.raises(TransientError, match="cannot reach"):
        await WebSocketDialer(f"unix://{tmp_path}/nobody.sock")()


# --- The loop -------------------------------------------------------------------------------------------------------


async def test_an_open_session_pulls_and_hears_the_desired_state():
    async with DirectorStub() as director:
        director.envelope = desired_state(director.identity, IDENTITY.public.text)
        async with Running(director) as running:
            await running.heard.until(lambda: running.heard.envelopes)

    assert running.heard.envelopes == [director.envelope]


async def test_a_client_pulls_again_on_a_jittered_timer():
    async with DirectorStub() as director, Running(director) as running:
        await director.until(lambda: pulls(director) == 1)
        await running.clock.until_somebody_sleeps(149)
        await running.clock.advance(450)

        await director.until(lambda: pulls(director) >= 2)


def pulls(director: DirectorStub) -> int:
    return sum('"pull"' in frame for frame in director.frames)


async def test_a_pending_client_is_let_in_once_it_is_approved_without_coming_back():
    async with DirectorStub(approved=False) as director, Running(director) as running:
        await running.heard.until(lambda: any(one.phase == "pending" for one in running.heard.statuses))
        assert running.heard.sessions == []

        director.approved.set()

        await running.heard.until(lambda: running.heard.sessions)
        assert director.sessions == 1


async def test_a_lost_director_is_found_again_and_each_reason_told_once():
    async with DirectorStub() as director, Running(director) as running:
        await running.heard.until(lambda: running.heard.sessions)
        for session in range(2, 5):
            await director.hang_up()
            await running.until_waiting()
            await running.clock.wake_next()
            await running.heard.until(lambda wanted=session: len(running.heard.sessions) == wanted)

        phases = [one.phase for one in running.heard.statuses]
        assert phases == ["connected", "waiting"] * 3 + ["connected"]


def has_sessions(director: DirectorStub, count: int) -> bool:
    return director.sessions == count


async def test_the_same_reason_is_told_once():
    async with DirectorStub() as director:
        director.refuse = Refused(code="busy", message="later")
        async with Running(director) as running:
            await running.until_waiting()
            for attempt in range(2, 5):
                await running.until_sleeping()
                await running.clock.wake_next()
                await director.until(functools.partial(has_sessions, director, attempt))

            assert len(running.heard.statuses) == 1


async def test_a_client_does_not_come_back_earlier_than_it_was_told():
    async with DirectorStub() as director:
        director.refuse = Refused(code="locked-out", message="no", retry_after=3600)
        async with Running(director) as running:
            await running.until_waiting()
            await running.clock.until_somebody_sleeps(3600)
            await running.clock.advance(3599)
            assert director.sessions == 1

            await running.clock.wake_next()
            await director.until(lambda: director.sessions == 2)


async def test_a_wrong_director_is_tried_again_only_slowly():
    async with DirectorStub() as director:
        pinned = parse_director_key(DirectorIdentity.generate().public.text)
        async with Running(director, who(director, director=pinned)) as running:
            status = await running.until_waiting()
            await running.clock.until_somebody_sleeps(150)
            await running.clock.advance(149)

            assert director.sessions == 1
            assert (status.code, "enroll again" in status.hint) == ("wrong-director", True)


async def test_a_director_that_says_nothing_is_left_after_fifteen_seconds():
    async with DirectorStub() as director:
        silent = asyncio.Event()

        async def say_nothing(socket, state) -> bool:
            await silent.wait()
            return True

        director._misbehave = say_nothing  # type: ignore[method-assign]
        async with Running(director) as running:
            await running.clock.until_somebody_sleeps(14)
            await director.until(lambda: director.frames)
            await running.clock.advance(16)
            status = await running.until_waiting()

            assert status.code == RefusalCode.TIMEOUT
            silent.set()


async def test_reports_are_acknowledged_and_progress_arrives():
    async with DirectorStub() as director, Running(director) as running:
        with pytest.raises(TransientError):
            await running.connection.send_reports(batch())
        await running.heard.until(lambda: running.heard.sessions)
        await running.connection.send_reports(batch())
        running.connection.send_progress(RunProgress(at=START, run="a" * 32, backup="web", files=1))

        await running.heard.until(lambda: running.heard.acknowledgements)
        await director.until(lambda: director.progress)

        assert director.reports["0" * 32, 1] == {"type": "event"}


async def test_progress_without_a_session_is_dropped_and_unsent_progress_is_replaced_by_the_next():
    async with DirectorStub() as director, Running(director) as running:
        running.connection.send_progress(RunProgress(at=START, run="a" * 32, backup="web", files=1))
        await running.heard.until(lambda: running.heard.sessions)
        for files in range(2, 2000):
            running.connection.send_progress(RunProgress(at=START, run="a" * 32, backup="web", files=files))

        await director.until(lambda: director.progress)

        assert [one.progress.files for one in director.progress] == [1999]


def batch() -> Reports:
    return Reports(epoch="0" * 32, items=(ReportItem(sequence=1, report={"type": "event"}),))


def test_delays_grow_with_full_jitter_and_are_bounded():
    backoff = Backoff(Random(1))
    delays = [backoff.delay() for _ in range(200)]

    assert all(delay <= 2**number for number, delay in enumerate(delays[:9]))
    assert max(delays) <= LONGEST_DELAY
    assert min(delays[20:]) < 20
    backoff.succeeded()
    assert backoff.delay() <= 8


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), -5.0])
def test_numbers_that_are_none_are_the_lowest(value):
    assert bounded(value, 10, 20) == 10
    assert bounded(float("inf"), 10, 20) == 20
