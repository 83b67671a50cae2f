"""Every way in which the director turns a client away: the code, the sentence, what to do, and when to come back.

Pure values, used by ``enrolment`` and by the gateway. ``failed`` says what counts towards the lockout of an address:
what a person guessing or probing would cause, never what an honest client cannot help (pending, busy, another
version).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from schema import wire
from schema.errors import TrustError
from schema.wire import RefusalCode

LATER: Final = 3600.0
"""Seconds until a refused client may ask again, when only a person can change the answer."""
AFTER_FAILURE: Final = 600.0
"""So long that one machine with a spent token never reaches the lockout: six failures an hour, and ten lock."""
SOON: Final = 60.0
WITHDRAWN: Final = 120.0
"""Who was approved a moment ago may be again with the next commit."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Turned away. ``failed`` counts towards the lockout of the source address."""

    code: RefusalCode
    message: str
    hint: str = ""
    retry_after: float | None = None
    failed: bool = False


def version() -> Refused:
    """The two sides speak no common protocol version."""
    ours = ", ".join(map(str, wire.SUPPORTED_VERSIONS))
    return Refused(
        RefusalCode.VERSION,
        f"no common protocol version: this director speaks {ours}",
        hint="upgrade the older of the two programs",
        retry_after=LATER,
    )


def locked_out(seconds: float) -> Refused:
    """The source address failed too often."""
    return Refused(
        RefusalCode.LOCKED_OUT,
        "too many failed attempts from this address",
        hint="wait, or ask for `director clients unlock` with this address",
        retry_after=seconds,
    )


def bad_signature() -> Refused:
    """The proof does not fit the challenge."""
    return Refused(
        RefusalCode.BAD_SIGNATURE,
        "the proof is not signed by the key that was named",
        hint="is there a proxy in between that the director does not know of?",
        retry_after=AFTER_FAILURE,
        failed=True,
    )


def unreadable(error: TrustError) -> Refused:
    """A frame, or a key in it, is not sound."""
    code = RefusalCode(error.code) if error.code in set(RefusalCode) else RefusalCode.MALFORMED
    return Refused(code, error.message, hint=error.hint, retry_after=AFTER_FAILURE, failed=True)


def too_much() -> Refused:
    """A stranger sends more than a handshake needs."""
    return Refused(
        RefusalCode.TOO_LARGE, "more was sent than a handshake needs", retry_after=AFTER_FAILURE, failed=True
    )


def too_slow() -> Refused:
    """The handshake did not end in time."""
    return Refused(
        RefusalCode.TIMEOUT, f"the handshake took longer than {wire.HANDSHAKE_SECONDS} seconds", retry_after=SOON
    )


def revoked() -> Refused:
    """The key was revoked by a person."""
    return Refused(
        RefusalCode.REVOKED,
        "this key was revoked",
        hint="make a new key on the machine and enrol it",
        retry_after=LATER,
    )


def withdrawn() -> Refused:
    """The key of an open session is no longer approved."""
    return Refused(
        RefusalCode.REVOKED,
        "this key is no longer approved",
        hint="its Client was removed from the source, or its approval was withdrawn",
        retry_after=WITHDRAWN,
    )


def token_required() -> Refused:
    """An unknown key came without a token. No failure: nothing was guessed."""
    return Refused(
        RefusalCode.TOKEN_REQUIRED,
        "this key is not known here, and no connection token was shown",
        hint="run `director token create`, and enrol with the string that it prints",
        retry_after=AFTER_FAILURE,
    )


def token_invalid() -> Refused:
    """The token is worth nothing; why is nobody's business."""
    return Refused(
        RefusalCode.TOKEN_INVALID,
        "the connection token is not valid: unknown, expired, used up or revoked",
        hint="run `director token create`, and enrol with the new string",
        retry_after=AFTER_FAILURE,
        failed=True,
    )


def key_conflict(name: str) -> Refused:
    """Another approved key holds the name."""
    return Refused(
        RefusalCode.KEY_CONFLICT,
        f"'{name}' is approved with another key",
        hint="when the machine was installed anew, revoke the old key first; otherwise choose another name",
        retry_after=LATER,
    )


def busy(message: str, *, retry_after: float) -> Refused:
    """Not now; ``retry_after`` is spread by the caller so that not all come back together."""
    return Refused(RefusalCode.BUSY, message, retry_after=retry_after)


def shutting_down(*, retry_after: float) -> Refused:
    """The director stops."""
    return Refused(RefusalCode.SHUTTING_DOWN, "the director stops", retry_after=retry_after)


def replaced(*, retry_after: float) -> Refused:
    """A second session of the same key is there."""
    return Refused(
        RefusalCode.REPLACED,
        "the same key connected again",
        hint="when this happens time and again, two machines share one key: enrol one of them anew",
        retry_after=retry_after,
    )


def renamed(name: str) -> Refused:
    """The key belongs to another name now; the next session has it."""
    return Refused(RefusalCode.SHUTTING_DOWN, f"this key is approved as '{name}' now", retry_after=1.0)
