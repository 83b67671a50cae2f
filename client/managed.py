"""The files that we own on this machine: reading and writing them safely, and the inventory of what we wrote.

Used by ``apply`` and ``drift``. Everything happens through directory descriptors and without following symbolic links,
so that nobody who may write beside our files can lead us elsewhere. A write is a new file, synced, and a rename.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from schema.errors import DirectorError, TerminalError, TransientError

if TYPE_CHECKING:
    from types import TracebackType

Place = Literal["config", "state"]
ManagedPath = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,200}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,200})?$")
]
"""As ``schema.desired.RelativePath``, with room for ``secrets/<secret>.<key>``."""

MAX_FILE_BYTES = 4 * 1024 * 1024
_TRY_AGAIN = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR}
_TEMPORARY = ".new"


class Entry(BaseModel):
    """One file that we wrote: SHA-256 of its bytes, and of what is below its header."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    place: Place
    path: ManagedPath
    digest: str
    body: str = ""
    mode: int = Field(default=0o600, ge=0, le=0o777)


class Inventory(BaseModel):
    """Everything that we wrote and that is ours to change and to prune."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    entries: tuple[Entry, ...] = ()

    def find(self, place: Place, path: str) -> Entry | None:
        """Return the entry of a file that we wrote."""
        return next((entry for entry in self.entries if (entry.place, entry.path) == (place, path)), None)


@dataclass(frozen=True, slots=True)
class Found:
    """A file as it is on disk. ``content`` is None for what is not a regular file of a size that could be ours."""

    content: bytes | None
    mode: int
    owner: int


def digest(content: bytes) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    return hashlib.sha256(content).hexdigest()


def failed(error: OSError, *, doing: str) -> DirectorError:
    """Return what ``error`` means: a full disk passes, a forbidden directory does not."""
    reason = error.strerror or type(error).__name__
    if error.errno in _TRY_AGAIN:
        hint = "make room on that filesystem" if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG} else ""
        return TransientError(f"cannot {doing}: {reason}", hint=hint)
    return TerminalError(
        f"cannot {doing}: {reason}", hint="run the client as root, and see the permissions of that path"
    )


class Folder:
    """An opened directory; names are plain file names in it."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def open(cls, path: Path, *, create: bool = False, mode: int = 0o700) -> Self:
        """Open ``path``, made before when ``create``. Refuses one that others could write to."""
        if create:
            path.mkdir(mode=mode, parents=True, exist_ok=True)
        folder = cls(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        try:
            folder.check_ownership()
        except TerminalError:
            folder.close()
            raise
        return folder

    def check_ownership(self) -> None:
        """Refuse a directory in which somebody else could exchange our files."""
        status = os.fstat(self._descriptor)
        if status.st_uid not in {0, os.geteuid()}:
            raise TerminalError(f"the folder {self.path} belongs to somebody else", hint=f"chown root: {self.path}")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX:
            raise TerminalError(f"the folder {self.path} can be written by others", hint=f"chmod go-w {self.path}")

    def below(self, name: str) -> Self:
        """Open the directory ``name`` in here, made when missing, private; never through a link."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=self._descriptor)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        return type(self)(self.path / name, os.open(name, flags, dir_fd=self._descriptor))

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def names(self) -> list[str]:
        """Return the names in here, sorted."""
        return sorted(os.listdir(self._descriptor))  # noqa: PTH208 - a descriptor has no path

    def status(self, name: str) -> os.stat_result | None:
        """Return the status of what ``name`` is itself, were it a link; None when it is not there."""
        try:
            return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def read(self, name: str) -> Found | None:
        """Return what is at ``name``; None when nothing is."""
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=self._descriptor)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.EMLINK, errno.ENXIO}:
                return Found(None, 0, -1)
            raise
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            mode = stat.S_IMODE(status.st_mode)
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
                return Found(None, mode, status.st_uid)
            return Found(file.read(MAX_FILE_BYTES + 1), mode, status.st_uid)

    def create(self, name: str, content: bytes, *, mode: int) -> None:
        """Write a new file and sync it. What was left there by a crash is replaced."""
        self.remove(name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=self._descriptor)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)

    def replace(self, name: str, content: bytes, *, mode: int) -> None:
        """Put ``content`` at ``name`` so that a crash at any instant leaves the old bytes or the new ones."""
        temporary = f".{name}{_TEMPORARY}"
        try:
            self.create(temporary, content, mode=mode)
            self.take(name, temporary, of=self)
        except OSError:
            with contextlib.suppress(OSError):
                self.remove(temporary)
            raise
        self.sync()

    def take(self, name: str, other: str, *, of: Folder) -> bool:
        """Move ``other`` of another folder to ``name``, over what is there. Returns whether there was one."""
        try:
            os.rename(other, name, src_dir_fd=of._descriptor, dst_dir_fd=self._descriptor)
        except FileNotFoundError:
            return False
        return True

    def remove(self, name: str) -> None:
        """Remove the file or link ``name``, when it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._descriptor)

    def clear(self, name: str) -> None:
        """Remove the directory ``name`` with the files in it, when it is there."""
        status = self.status(name)
        if status is None:
            return
        if not stat.S_ISDIR(status.st_mode):
            self.remove(name)
            return
        with self.below(name) as folder:
            for inside in folder.names():
                folder.clear(inside)
        os.rmdir(name, dir_fd=self._descriptor)

    def sync(self) -> None:
        """Make renames and removals in here last."""
        os.fsync(self._descriptor)


class Places:
    """The two directories: borgmatic's, and our state."""

    def __init__(self, *, config: Path, state: Path) -> None:
        self.config = config
        self.state = state

    def open(self, place: Place, path: str, *, create: bool = False) -> tuple[Folder, str]:
        """Return the opened folder of a managed file, and the file's name in it."""
        root = Folder.open(
            self.config if place == "config" else self.state, create=create, mode=0o755 if place == "config" else 0o700
        )
        below, _, name = path.rpartition("/")
        if not below:
            return root, name
        with root:
            if not create and root.status(below) is None:
                raise FileNotFoundError(errno.ENOENT, "no such folder", below)
            return root.below(below), name

    def read(self, place: Place, path: str) -> Found | None:
        """Return the managed file as it is on disk; None when it is not there."""
        try:
            folder, name = self.open(place, path)
        except FileNotFoundError:
            return None
        with folder:
            return folder.read(name)

    def status(self, place: Place, path: str) -> os.stat_result | None:
        """Return the status of a managed file; None when it is not there."""
        try:
            folder, name = self.open(place, path)
        except FileNotFoundError:
            return None
        with folder:
            return folder.status(name)

    def inventory(self) -> Inventory:
        """Return what we wrote; nothing when that is not known, so that nothing would be pruned or overwritten."""
        found = self.read("state", "inventory.json")
        try:
            return Inventory.model_validate_json((found and found.content) or b"{}")
        except ValidationError:
            return Inventory()

    def save_inventory(self, inventory: Inventory) -> None:
        """Write down what we wrote."""
        with Folder.open(self.state, create=True) as folder:
            folder.replace("inventory.json", inventory.model_dump_json(indent=1).encode(), mode=0o600)
