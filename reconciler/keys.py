"""The director's state directory and the signing key in it: made once, mode 0600, never overwritten."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import tempfile
from typing import TYPE_CHECKING

from schema.envelope import DirectorIdentity
from schema.errors import TerminalError, TransientError, TrustError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def prepare_directory(directory: Path) -> None:
    """Make the state directory (0700). One that others may write to is refused: it will hold the signing key."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
    except OSError as error:
        raise TerminalError(
            f"cannot use the state directory {directory}: {error.strerror}",
            hint="set state_directory in director.toml, or give --state-directory",
        ) from None
    if status.st_uid not in {0, os.geteuid()}:
        raise TerminalError(
            f"the state directory {directory} belongs to another user: {(owner := _name_of(status.st_uid))}",
            hint=f"run the director as {owner}, or chown -R {os.geteuid()} {directory}",
        )
    if status.st_mode & 0o022:
        raise TerminalError(
            f"other users may write to the state directory {directory}",
            hint=f"chmod 0700 {directory}, and look who changed it",
        )


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


@contextlib.contextmanager
def only_director(directory: Path) -> Iterator[None]:
    """Be the one director of a state directory. The lock ends with the process, however it ends.

    Raises:
        TerminalError: another director is running with it.
    """
    place = directory / "lock"
    try:
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise TerminalError(
            f"cannot write to the state directory {directory}: {error.strerror}",
            hint="it must belong to the director's user, on a disk that is not mounted read-only",
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise TerminalError(
            f"another director is running with the state directory {directory}",
            hint=f"it is process {holder}; one director per state directory" if holder else "stop the other one first",
        ) from None
    try:
        # Only told to people: on a full disk the lock holds all the same.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        # Of a first start that was killed: a copy of the key that nobody needs.
        for unfinished in directory.glob(".identity.*"):
            unfinished.unlink(missing_ok=True)
        yield
    finally:
        os.close(descriptor)


def load_identity(path: Path) -> DirectorIdentity:
    """Return the key in ``path``, made there on the first call.

    Raises:
        TerminalError: the file is damaged, or others can read it.
        TransientError: the disk refused to keep a new one.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return _create(path)
    except OSError as error:
        raise TerminalError(f"cannot read the director's key {path}: {error.strerror}") from None
    with os.fdopen(descriptor, encoding="ascii", errors="replace") as stream:
        if os.fstat(stream.fileno()).st_mode & 0o077:
            raise TerminalError(
                f"others can read the director's key {path}", hint=f"chmod 0600 {path}; if it was read, replace it"
            )
        text = stream.read(4096)
    try:
        return DirectorIdentity.from_text(text)
    except TrustError as error:
        raise TerminalError(
            f"the director's key {path} is damaged: {error.message}",
            hint="restore the file from a backup; with a new key every client has to enrol again",
        ) from None


def _create(path: Path) -> DirectorIdentity:
    identity = DirectorIdentity.generate()
    try:
        # Made for us alone (0600), under a name that no other has and no crash can leave in the way.
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", encoding="ascii") as stream:
            stream.write(identity.to_text())
            stream.flush()
            os.fsync(stream.fileno())
            # A link, unlike a rename, never replaces a key that another process has just made.
            os.link(stream.name, path)
    except FileExistsError:
        return load_identity(path)
    except OSError as error:
        raise TransientError(f"cannot write the director's key {path}: {error.strerror}") from None
    return identity
