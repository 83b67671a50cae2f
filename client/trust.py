"""Whether to believe a desired state. Pure: bytes in, verified object out; ``client.agent`` keeps what it decides.

After python-tuf's ``TrustedMetadataSet``. The rules, in the order in which they are checked:

1. the signature of the pinned director over the exact bytes, before anything inside is parsed;
2. size, shape, and that we are the audience;
3. the content's digest, recomputed; the name, when the session told us one;
4. not issued more than a day ahead of our clock, and no generation more than ten years ahead of it: one signed by
   mistake would shut out every later one;
5. the generation is above the high-water mark. The same generation is welcome again only with the same bytes.

Past its expiry a state is ``stale``: that is shown loudly, and never stops a backup.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict, ValidationError

from schema.desired import MAX_DESIRED_BYTES, PAYLOAD_TYPE, DesiredState
from schema.envelope import VerifyKey, open_envelope
from schema.errors import TrustError
from schema.scalars import Digest, Generation

MAX_CLOCK_AHEAD = timedelta(days=1)
MAX_GENERATION_AHEAD = timedelta(days=3653)


class HighWater(BaseModel):
    """The newest generation that was verified, by whose key, and which bytes it had."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    director: str
    generation: Generation
    payload: Digest


@dataclass(frozen=True, slots=True)
class Verified:
    """A desired state that the pinned director signed for us, and that is not older than any we saw."""

    state: DesiredState
    envelope: bytes
    payload: Digest
    """Digest of the signed bytes: what "the same bytes" means."""

    @property
    def mark(self) -> tuple[int, str]:
        return self.state.generation, self.payload


@dataclass(frozen=True, slots=True)
class TrustedState:
    """What we trust: the director's key, our own (its text is the audience), and how far we came."""

    director: VerifyKey
    own_key: str
    high_water: HighWater | None = None

    def accept(self, envelope: bytes, *, now: datetime, name: str | None = None) -> Verified:
        """Return the verified state in ``envelope``; ``TrustError`` when one of the rules does not hold."""
        verified = open_verified(envelope, director=self.director, own_key=self.own_key)
        state = verified.state
        if name is not None and state.content.client != name:
            raise TrustError(
                f"the desired state is for '{state.content.client}', and the director calls this client '{name}'",
                code="wrong-name",
            )
        if state.issued > now + MAX_CLOCK_AHEAD:
            raise TrustError(
                f"the desired state was issued in the future, at {state.issued.isoformat(timespec='seconds')}",
                code="issued-in-future",
                hint="compare the clocks of this machine and of the director",
            )
        if state.generation > (now + MAX_GENERATION_AHEAD).timestamp() * 1000:
            raise TrustError(f"generation {state.generation} is absurdly far ahead", code="generation-jumped")
        self._check_order(verified)
        return verified

    def _check_order(self, verified: Verified) -> None:
        mark = self.high_water
        if mark is None or verified.state.generation > mark.generation:
            return
        if verified.state.generation < mark.generation:
            raise TrustError(
                f"generation {verified.state.generation} is older than {mark.generation}, which this client has seen",
                code="older-generation",
                hint="was the director restored from an old backup? its next revision will be accepted",
            )
        if verified.payload != mark.payload:
            raise TrustError(
                f"generation {mark.generation} was sent before with other content",
                code="same-generation",
                hint="was the director copied?",
            )

    def advanced(self, verified: Verified) -> TrustedState:
        """Return what we trust after having verified that state: nothing older will do."""
        mark = HighWater(director=self.director.text, generation=verified.state.generation, payload=verified.payload)
        return replace(self, high_water=mark)


def open_verified(envelope: bytes, *, director: VerifyKey, own_key: str) -> Verified:
    """Return the state that ``director`` signed for us, whatever its age; ``TrustError`` otherwise.

    Alone, this is for the envelope that was accepted before and comes from our own disk.
    """
    payload = open_envelope(envelope, payload_type=PAYLOAD_TYPE, key=director, limit=MAX_DESIRED_BYTES)
    if len(payload) > MAX_DESIRED_BYTES:
        raise TrustError(f"the desired state has {len(payload)} bytes, more than allowed", code="too-large")
    try:
        state = DesiredState.model_validate_json(payload)
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
        hint = "is this client older than the director?"
        raise TrustError(f"the desired state is malformed at '{place}'", code="malformed", hint=hint) from None
    if state.audience != own_key:
        raise TrustError("the desired state is for another client", code="wrong-audience")
    if _digest_as_sent(payload) != state.digest:
        hint = "is this client older than the director?"
        raise TrustError("the desired state's digest does not match its content", code="wrong-digest", hint=hint)
    return Verified(state, envelope, "sha256:" + hashlib.sha256(payload).hexdigest())


def _digest_as_sent(payload: bytes) -> Digest:
    """Return ``Content.digest()`` over what was sent: with a newer director's fields, which our models leave out."""
    content = json.loads(payload)["content"]
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def is_stale(state: DesiredState, now: datetime) -> bool:
    """Whether ``state`` is past its expiry: nobody has confirmed it for too long."""
    return now > state.expires
