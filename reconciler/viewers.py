"""The tokens of viewers, in ``viewers.json`` of the state directory: made, listed and revoked by ``director viewer``.

A file and not the store, because it must be there before the first start and may be changed while the director runs
or does not. The pages read it anew whenever it changed, so what is done here is effective at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from typing import TYPE_CHECKING

from pydantic import ValidationError

from reconciler.keys import prepare_directory
from schema.errors import TerminalError
from schema.viewers import MAX_VIEWERS, TOKEN_BYTES, Viewer, Viewers, token_hash, token_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime, timedelta
    from pathlib import Path

FILE = "viewers.json"
_MOST_BYTES = 1_000_000


def read(directory: Path) -> tuple[Viewer, ...]:
    """Return the viewers of a state directory.

    Raises:
        TerminalError: the file cannot be read, or is damaged.
    """
    path = directory / FILE
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise TerminalError(f"cannot read {path}: {error.strerror}", hint="run it as the director's user") from None
    with os.fdopen(descriptor, "rb") as stream:
        text = stream.read(_MOST_BYTES)
    try:
        return Viewers.model_validate_json(text).viewers
    except ValidationError:
        raise TerminalError(
            f"{path} is damaged", hint="remove it, and make new tokens with `director viewer create`"
        ) from None


def create(directory: Path, *, note: str, lifetime: timedelta | None, now: datetime) -> tuple[Viewer, str]:
    """Make a token; return what is kept of it, and its text, which is known to nobody afterwards."""
    text = token_text(secrets.token_bytes(TOKEN_BYTES))
    made = Viewer(hash=token_hash(text), note=note, created=now, expires=now + lifetime if lifetime else None)
    with _changing(directory):
        known = [one for one in read(directory) if one.expires is None or one.expires > now]
        if len(known) >= MAX_VIEWERS:
            raise TerminalError(f"there are {MAX_VIEWERS} viewers already", hint="revoke some: director viewer list")
        _write(directory, (*known, made))
    return made, text


def revoke(directory: Path, identifier: str) -> Viewer:
    """Make a token worthless, and every session that was begun with it.

    Raises:
        TerminalError: nobody is called so.
    """
    with _changing(directory):
        known = read(directory)
        meant = [one for one in known if one.id == identifier]
        if not meant:
            raise TerminalError(f"there is no viewer '{identifier[:80]}'", hint="director viewer list shows them")
        _write(directory, tuple(one for one in known if one not in meant))
    return meant[0]


@contextlib.contextmanager
def _changing(directory: Path) -> Iterator[None]:
    """Let nobody else change the file meanwhile."""
    if os.geteuid() != 0 or not directory.exists():  # root may help the director's user, whose directory it is
        prepare_directory(directory)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(directory: Path, viewers: tuple[Viewer, ...]) -> None:
    """Replace the file in one step: whoever reads it finds the old one or the new one."""
    new = directory / ".viewers.new"
    try:
        with contextlib.suppress(FileNotFoundError):
            new.unlink()
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(Viewers(viewers=viewers).model_dump_json(indent=1) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
            if os.geteuid() == 0:  # or the director's own user could not read it
                owner = directory.stat()
                os.fchown(stream.fileno(), owner.st_uid, owner.st_gid)
        new.replace(directory / FILE)
    except OSError as error:
        raise TerminalError(f"cannot write {directory / FILE}: {error.strerror}") from None
