"""The messages between director and client, as JSON text frames on a WebSocket at ``/v1/connect``.

The order of a session, as tables (``DIRECTOR_ACCEPTS``, ``CLIENT_ACCEPTS``): a message that its state does not list
ends the session. No I/O here; ``reconciler.gateway`` and ``client.connection`` carry the frames.

::

    client                      director
    hello          ──────────▶
                   ◀──────────  challenge          (or refused)
    proof          ──────────▶
                   ◀──────────  accepted           (or pending … accepted, or refused)
    pull           ──────────▶                     what have you newer than this?
                   ◀──────────  desired | current  desired also comes unasked
    reports        ──────────▶
                   ◀──────────  acknowledged
    progress       ──────────▶                     never acknowledged

Changes of ``PROTOCOL_VERSION``, newest first:

* 1 (2026-11-23) the first one.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import FailFast, Field, JsonValue, StringConstraints, TypeAdapter, ValidationError

from schema.desired import MAX_DESIRED_BYTES, Sent
from schema.errors import TrustError
from schema.observed import Report, RunProgress, Short, Text
from schema.scalars import MAX_GENERATION, AbsolutePath, Digest, Moment, Name

PROTOCOL_VERSION: Final = 1
SUPPORTED_VERSIONS: Final = (1,)
PATH: Final = "/v1/connect"

MAX_CLIENT_FRAME: Final = 1024 * 1024
MAX_DIRECTOR_FRAME: Final = MAX_DESIRED_BYTES * 2
MAX_HANDSHAKE_FRAME: Final = 16 * 1024
HANDSHAKE_SECONDS: Final = 15
HEARTBEAT_SECONDS: Final = 30
MAX_REPORTS: Final = 200

Version = Annotated[int, Field(ge=1, le=65_535)]
Bytes32 = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$")]
SignatureText = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{86}$")]


class RefusalCode(StrEnum):
    """Why a session is refused or ended."""

    MALFORMED = "malformed"
    TOO_LARGE = "too-large"
    VERSION = "version-unsupported"
    BAD_KEY = "bad-key"
    BAD_SIGNATURE = "bad-signature"
    TOKEN_REQUIRED = "token-required"  # noqa: S105
    TOKEN_INVALID = "token-invalid"  # noqa: S105
    KEY_CONFLICT = "key-conflict"
    REVOKED = "revoked"
    LOCKED_OUT = "locked-out"
    BUSY = "busy"
    REPLACED = "replaced"
    TIMEOUT = "timeout"
    SHUTTING_DOWN = "shutting-down"


class Hello(Sent):
    """First message of the client. The name is only a wish until the key is approved under it."""

    type: Literal["hello"] = "hello"
    versions: Annotated[tuple[Version, ...], FailFast(), Field(min_length=1, max_length=16)]
    name: Name
    key: Annotated[str, StringConstraints(pattern=r"^bd1-client\.[A-Za-z0-9_-]{86}$")]
    nonce: Bytes32
    client_version: Short = ""
    config_directory: AbsolutePath | None = None
    state_directory: AbsolutePath | None = None


class Challenge(Sent):
    """The director proves its key."""

    type: Literal["challenge"] = "challenge"
    version: int
    nonce: Bytes32
    key: Annotated[str, StringConstraints(pattern=r"^bd1-director\.[A-Za-z0-9_-]{43}$")]
    signature: SignatureText


class Proof(Sent):
    """The client proves its key and, on first contact, shows the token."""

    type: Literal["proof"] = "proof"
    signature: SignatureText
    token: Annotated[str, StringConstraints(pattern=r"^bd1-token\.[A-Za-z0-9_-]{43}$")] | None = Field(
        default=None, repr=False
    )


class Accepted(Sent):
    """The session is open. ``name`` is what the director calls this key."""

    type: Literal["accepted"] = "accepted"
    name: Name
    time: Moment
    heartbeat: float = HEARTBEAT_SECONDS
    resync: float = 300.0
    """How often, in seconds and with jitter, the client should pull although nothing was pushed."""
    resend: bool = False
    """The director knows nothing of this client's outbox (new, or rebuilt): report state and archives again."""


class Pending(Sent):
    """Known, but a person has not approved the key yet. The session stays open and becomes accepted, or ends."""

    type: Literal["pending"] = "pending"
    fingerprint: Short
    retry_after: float = Field(ge=0)
    message: Text = ""


class Refused(Sent):
    """The session is over. ``retry_after`` in seconds; the client does not come back earlier."""

    type: Literal["refused"] = "refused"
    code: Short
    message: Text
    hint: Text = ""
    retry_after: float | None = Field(default=None, ge=0)


class Pull(Sent):
    """Ask for anything newer than what the client holds."""

    type: Literal["pull"] = "pull"
    generation: int = Field(default=0, ge=0, le=MAX_GENERATION)
    digest: Digest | None = None


class Desired(Sent):
    """A signed desired state: the JSON of a DSSE envelope, as text."""

    type: Literal["desired"] = "desired"
    envelope: str = Field(max_length=MAX_DIRECTOR_FRAME)


class Current(Sent):
    """The answer to ``pull`` when there is nothing newer (or nothing at all yet)."""

    type: Literal["current"] = "current"
    generation: int = Field(default=0, ge=0, le=MAX_GENERATION)


class ReportItem(Sent):
    """A numbered report; validated one by one, so that one that cannot be read does not hold up the others."""

    sequence: int = Field(ge=1, le=2**63 - 1)
    report: dict[str, JsonValue]


class Reports(Sent):
    """Reports in order. ``epoch`` names the outbox: a new one after the old was lost."""

    type: Literal["reports"] = "reports"
    epoch: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    items: Annotated[tuple[ReportItem, ...], FailFast(), Field(min_length=1, max_length=MAX_REPORTS)]


class Acknowledged(Sent):
    """Everything up to ``sequence`` of that outbox is stored."""

    type: Literal["acknowledged"] = "acknowledged"
    epoch: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    sequence: int = Field(ge=0, le=2**63 - 1)


class Progress(Sent):
    """Where a running backup stands."""

    type: Literal["progress"] = "progress"
    progress: RunProgress


FromClient = Hello | Proof | Pull | Reports | Progress
FromDirector = Challenge | Accepted | Pending | Refused | Desired | Current | Acknowledged


class State(StrEnum):
    """Where a session stands; the same names on both sides."""

    START = "start"
    CHALLENGED = "challenged"
    PENDING = "pending"
    OPEN = "open"


DIRECTOR_ACCEPTS: Final[dict[State, frozenset[str]]] = {
    State.START: frozenset({"hello"}),
    State.CHALLENGED: frozenset({"proof"}),
    State.PENDING: frozenset(),
    State.OPEN: frozenset({"pull", "reports", "progress"}),
}
CLIENT_ACCEPTS: Final[dict[State, frozenset[str]]] = {
    State.START: frozenset({"challenge", "refused"}),
    State.CHALLENGED: frozenset({"accepted", "pending", "refused"}),
    State.PENDING: frozenset({"accepted", "refused"}),
    State.OPEN: frozenset({"desired", "current", "acknowledged", "refused"}),
}

_FROM_CLIENT: TypeAdapter[FromClient] = TypeAdapter(Annotated[FromClient, Field(discriminator="type")])
_FROM_DIRECTOR: TypeAdapter[FromDirector] = TypeAdapter(Annotated[FromDirector, Field(discriminator="type")])
_REPORT: TypeAdapter[Report] = TypeAdapter(Report)


def encode(message: FromClient | FromDirector) -> str:
    """Return the text frame of a message."""
    return message.model_dump_json()


def decode_from_client(frame: str | bytes, *, state: State) -> FromClient:
    """Return the message in ``frame`` when a client may send it now; ``TrustError`` otherwise."""
    limit = MAX_CLIENT_FRAME if state is State.OPEN else MAX_HANDSHAKE_FRAME
    message: FromClient = _decode(frame, adapter=_FROM_CLIENT, limit=limit)
    if message.type not in DIRECTOR_ACCEPTS[state]:
        raise TrustError(f"a '{message.type}' message is out of order here", code=RefusalCode.MALFORMED)
    return message


def decode_from_director(frame: str | bytes, *, state: State) -> FromDirector:
    """Return the message in ``frame`` when the director may send it now; ``TrustError`` otherwise."""
    limit = MAX_DIRECTOR_FRAME if state is State.OPEN else MAX_HANDSHAKE_FRAME
    message: FromDirector = _decode(frame, adapter=_FROM_DIRECTOR, limit=limit)
    if message.type not in CLIENT_ACCEPTS[state]:
        raise TrustError(f"a '{message.type}' message is out of order here", code=RefusalCode.MALFORMED)
    return message


def _decode(frame: str | bytes, *, adapter: TypeAdapter[Any], limit: int) -> Any:
    if len(frame) > limit:
        raise TrustError(f"a frame of {len(frame)} bytes is too large here", code=RefusalCode.TOO_LARGE)
    if isinstance(frame, bytes):
        raise TrustError("frames are text", code=RefusalCode.MALFORMED)
    try:
        return adapter.validate_json(frame)
    except ValidationError as error:
        # Only places and kinds of errors: the input may hold a token.
        places = ", ".join(
            ".".join(str(part) for part in one["loc"]) + " " + one["type"]
            for one in error.errors(include_input=False)[:3]
        )
        raise TrustError(f"malformed message ({places[:200]})", code=RefusalCode.MALFORMED) from None


def parse_report(raw: dict[str, JsonValue]) -> Report:
    """Return the report in one item; ``TrustError`` when it is none that this side knows."""
    try:
        return _REPORT.validate_python(raw)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise TrustError(
            f"unreadable report ({'.'.join(map(str, first['loc']))}: {first['msg']})", code=RefusalCode.MALFORMED
        ) from None
