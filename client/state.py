"""The client's state directory: who we are, whom we follow, and the last good desired state.

::

    identity          our private keys; made once, never overwritten
    enrolment.json    the director's url, its pinned key and certificate
    desired/current   the accepted envelope, exactly the bytes that were signed
    desired/applied   the digest of the last envelope whose files are all in place
    status.json       how the connection is, for people
    high-water        the newest generation we ever verified, and by whose key
    outbox.sqlite     see ``client.outbox``
    repositories/     see ``client.known_repositories``
    secrets/  known_hosts/    see ``client.apply``
    lock              held by the one agent that works here

Directories are 0700 and files 0600. What others could have written is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from client.trust import HighWater
from schema.envelope import ClientIdentity, VerifyKey, parse_director_key
from schema.errors import TerminalError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator

PRIVATE_DIRECTORY = 0o700
PRIVATE_FILE = 0o600
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Enrolment(BaseModel):
    """Whom this client follows: what ``enroll`` pinned."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    url: str
    director: str
    """The director's public key, ``bd1-director.…``."""
    certificate: str = ""
    """SHA-256 (hex) of the one TLS certificate that is accepted; empty when an authority vouches for it."""
    former_director: str = ""
    """The key before this enrolment: what it signed is followed until the new director sends something."""

    @property
    def key(self) -> VerifyKey:
        return parse_director_key(self.director)

    @property
    def known_keys(self) -> tuple[VerifyKey, ...]:
        """The keys that may have signed the desired state on disk."""
        return tuple(parse_director_key(text) for text in (self.director, self.former_director) if text)


def check_ownership(path: Path, *, what: str) -> None:
    """Refuse what somebody else than root and our own user owns, or may write."""
    status = path.stat()
    if status.st_uid not in {0, os.geteuid()}:
        raise TerminalError(f"{what} {path} belongs to somebody else", hint=f"chown root: {path}")
    if status.st_mode & _OTHERS_WRITE:
        raise TerminalError(f"{what} {path} can be written by others", hint=f"chmod go-w {path}")


def write_atomically(path: Path, content: bytes, *, mode: int = PRIVATE_FILE) -> None:
    """Replace ``path`` by ``content`` so that a crash at any instant leaves the old bytes or the new ones."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise TransientError(f"cannot write {path}: {error.strerror}") from error


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class StateDirectory:
    """The files of ``path``. ``prepare`` first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outbox = path / "outbox.sqlite"
        self._lock: int | None = None

    def prepare(self) -> None:
        """Make the directory when it is missing; refuse one that others can write."""
        try:
            self.path.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
            check_ownership(self.path, what="the state directory")
            (self.path / "desired").mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
        except OSError as error:
            hint = "run it as root, or set state_directory in client.toml"
            raise TerminalError(f"cannot use the state directory {self.path}: {error.strerror}", hint=hint) from error

    def lock(self) -> None:
        """Become the one agent here, until this process ends or ``unlock``."""
        if self._lock is not None:
            return
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            hint = f"process {holder} holds {self.path / 'lock'}" if holder else "stop the other one first"
            raise TerminalError("another director-client already runs on this state directory", hint=hint) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._lock = descriptor

    def unlock(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def identity(self) -> ClientIdentity:
        """Return this machine's identity; made at first use, and never overwritten, not even by a second process."""
        path = self.path / "identity"
        with contextlib.suppress(FileNotFoundError):
            return _read_identity(path)
        with self._alone():
            if not os.path.lexists(path):
                # One name for what is not finished: whoever comes after a kill writes over it, and no copy stays.
                write_atomically(path, ClientIdentity.generate().to_text().encode())
        return _read_identity(path)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep every other process out that would make an identity here, while this one does. Ends with the process."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def enrolment(self) -> Enrolment | None:
        """Return whom we follow, or None when we never enrolled."""
        path = self.path / "enrolment.json"
        try:
            enrolment = Enrolment.model_validate_json(path.read_bytes())
            _ = enrolment.known_keys
        except FileNotFoundError:
            return None
        except (ValidationError, TerminalError) as error:
            raise TerminalError(f"{path} is damaged", hint="enroll again: director-client enroll") from error
        return enrolment

    def save_enrolment(self, enrolment: Enrolment) -> None:
        """Follow this director from now on."""
        former = self.enrolment()
        if former is not None:
            before = former.former_director if former.director == enrolment.director else former.director
            enrolment = enrolment.model_copy(update={"former_director": before})
        write_atomically(self.path / "enrolment.json", enrolment.model_dump_json(indent=2).encode())

    def current(self) -> bytes | None:
        """Return the envelope that was accepted last."""
        return _read(self.path / "desired" / "current")

    def save_current(self, envelope: bytes) -> None:
        """Keep the accepted envelope."""
        write_atomically(self.path / "desired" / "current", envelope)

    def applied(self) -> str:
        """Return the digest of the payload whose files are all in place; empty when there is none."""
        return (_read(self.path / "desired" / "applied") or b"").decode("ascii", "replace").strip()

    def save_applied(self, digest: str) -> None:
        """Note that everything of that payload is in place."""
        write_atomically(self.path / "desired" / "applied", digest.encode())

    def save_status(self, status: dict[str, str]) -> None:
        """Note how the connection is, for ``director-client status``."""
        write_atomically(self.path / "status.json", json.dumps(status).encode())

    def status(self) -> dict[str, str]:
        """Return what ``save_status`` noted last."""
        try:
            return {
                str(key): str(value) for key, value in json.loads(_read(self.path / "status.json") or b"{}").items()
            }
        except (ValueError, AttributeError):
            return {}

    def is_locked(self) -> bool:
        """Whether an agent works here now."""
        try:
            descriptor = os.open(self.path / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    def high_water(self, director: str) -> HighWater | None:
        """Return the newest generation verified by that director's key, or None."""
        path = self.path / "high-water"
        try:
            mark = HighWater.model_validate_json(_read(path) or b"null")
        except ValidationError:
            return None  # the envelope in desired/current still says how far we came
        return mark if mark.director == director else None

    def save_high_water(self, mark: HighWater) -> None:
        """Remember how far we came."""
        write_atomically(self.path / "high-water", mark.model_dump_json().encode())


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _read_identity(path: Path) -> ClientIdentity:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "r", encoding="ascii", errors="replace") as file:
        status = os.fstat(descriptor)
        if status.st_mode & 0o077 or status.st_uid not in {0, os.geteuid()}:
            raise TerminalError(
                f"the private key {path} can be read by others", hint=f"chown root: {path} && chmod 600 {path}"
            )
        return ClientIdentity.from_text(file.read(4096))
