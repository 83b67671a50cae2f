"""First contact: pins the director's key, shows it the token, and waits until the director knows this machine.

Called by ``director-client enroll``. Nothing is kept before the director has proved the key in the enrolment string.
"""

from __future__ import annotations

from dataclasses import dataclass

from client.build import credentials, dialer
from client.clock import Clock, within
from client.connection import Ended, open_session
from client.settings import ClientSettings, check_url
from client.state import Enrolment, StateDirectory
from schema.envelope import EnrolmentString
from schema.errors import TransientError, TrustError
from schema.wire import HANDSHAKE_SECONDS, Accepted

_AGAIN = "run the same command again: a string that this machine has used works for it, and is not used twice"
"""True, because the director keeps the use of a token and the key that used it together."""


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What came of it."""

    fingerprint: str
    public_key: str
    name: str
    """What the director calls us; empty while a person has to approve."""
    url: str
    message: str = ""

    @property
    def is_approved(self) -> bool:
        return bool(self.name)


async def enrol(text: str, *, settings: ClientSettings, directory: StateDirectory, clock: Clock) -> Enrolled:
    """Enrol with the director that made the string; ``TrustError`` or ``Ended`` when it will not have us."""
    string = EnrolmentString.from_text(text)
    try:
        check_url(string.url)
    except ValueError as error:
        raise TrustError(f"the enrolment string names a bad address: {error}", code="malformed") from None
    enrolment = Enrolment(url=string.url, director=string.director, certificate=string.certificate)
    identity = directory.identity()
    try:
        socket = await dialer(settings, enrolment)()
        try:
            who = credentials(settings, identity, enrolment, token=string.token)
            answer = await within(clock, HANDSHAKE_SECONDS, open_session(socket, who))
        finally:
            await socket.close()
    except TimeoutError:
        raise TransientError(f"the director at {string.url} does not answer", hint=_AGAIN) from None
    except Ended as ended:
        if ended.code:
            raise
        raise TransientError(ended.message, hint=_AGAIN) from None
    directory.save_enrolment(enrolment)
    return Enrolled(
        fingerprint=identity.public.fingerprint,
        public_key=identity.public.text,
        name=answer.name if isinstance(answer, Accepted) else "",
        url=settings.url or string.url,
        message="" if isinstance(answer, Accepted) else answer.message,
    )
