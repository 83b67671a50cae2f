"""Which files of a source are resources, and how much of them is read: one set of rules for Git and for plain folders.

``git_objects`` and ``read_folder`` follow the same rules, so that ``director validate`` of a folder and the director's
own reading of the commit made from it see the same files: ``*.yaml`` and ``*.yml``, nothing hidden, no symbolic link,
no submodule, within the bounds. Every file that is left out for another reason than its name is a problem.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from reconciler.core.catalogue import SourceFile
from schema.errors import Problem, Severity, TerminalError

if TYPE_CHECKING:
    from pathlib import Path

MEBIBYTE = 1 << 20


class Bounds(NamedTuple):
    """What a source may cost at most. Past one of the last four, nothing of it is used."""

    file_bytes: int = MEBIBYTE
    total_bytes: int = 64 * MEBIBYTE
    files: int = 50_000
    entries: int = 500_000
    """Files and folders looked at, whatever their names: a few trees that repeat each other make millions."""
    depth: int = 64


class Files(NamedTuple):
    """The resource files of one revision or folder, ordered by path, and what was left out of them."""

    files: tuple[SourceFile, ...] = ()
    problems: tuple[Problem, ...] = ()


class Exceeded(Exception):
    """A bound of the whole source is exceeded; reading stops."""


@dataclass(slots=True)
class Tally:
    """Counts what was read against the bounds."""

    bounds: Bounds
    files: int = 0
    bytes: int = 0
    entries: int = 0

    def add(self, *, files: int = 0, size: int = 0, entries: int = 0) -> None:
        self.files += files
        self.bytes += size
        self.entries += entries
        if self.files > self.bounds.files:
            raise Exceeded(f"it has more than {self.bounds.files:,} YAML files")
        if self.bytes > self.bounds.total_bytes:
            raise Exceeded(f"its YAML files are larger than {self.bounds.total_bytes // MEBIBYTE} MiB together")
        if self.entries > self.bounds.entries:
            raise Exceeded(f"it has more than {self.bounds.entries:,} files and folders")

    def check_depth(self, path: str) -> None:
        if path.count("/") >= self.bounds.depth:
            raise Exceeded(f"its folders are nested more than {self.bounds.depth} levels deep")


def is_hidden(name: str) -> bool:
    """Hidden files and folders belong to programs: ``.github``, ``.pre-commit-config.yaml``."""
    return name.startswith(".")


def is_resource(name: str) -> bool:
    """Whether a file of this name holds resources."""
    return name.endswith((".yaml", ".yml")) and not is_hidden(name)


def blob_id(data: bytes) -> str:
    """Return the object id that Git gives to ``data``."""
    return hashlib.sha1(b"blob %d\0%b" % (len(data), data), usedforsecurity=False).hexdigest()


def too_large(path: str, size: int, bounds: Bounds) -> Problem:
    return Problem(
        code="file-too-large",
        path=path,
        message=f"the file is {size:,} bytes; at most {bounds.file_bytes:,} are read",
        hint="split it into several files",
    )


def bad_name(path: str) -> Problem:
    """Return the problem of a path that is not printable UTF-8. ``path`` may hold surrogates; the problem does not."""
    return Problem(
        code="bad-file-name",
        path="".join(char if char.isprintable() else ascii(char)[1:-1] for char in path),
        message="the name of a file or folder must be printable UTF-8",
        hint="rename it",
    )


def skipped(path: str, kind: str) -> Problem:
    """Return the warning for a symbolic link or submodule: what it leads to is not part of the revision."""
    return Problem(
        severity=Severity.WARNING,
        code=f"{kind.replace(' ', '-')}-skipped",
        path=path,
        message=f"{kind}s are not followed: nothing is read from here",
        hint="put the files themselves into the source",
    )


def exceeded(reason: Exceeded) -> Files:
    """Return nothing but the problem: half a source must never look like a whole one."""
    return Files(
        problems=(
            Problem(
                code="source-too-large",
                message=f"the source is too large: {reason}",
                hint="set the source's `path` to the folder that holds the resources",
            ),
        )
    )


@dataclass(slots=True)
class _Reading:
    """Reads folders of the file system. ``path`` is where something stands, ``shown`` its name in the result."""

    tally: Tally
    files: list[SourceFile] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def walk(self, path: str, shown: str) -> None:
        self.tally.check_depth(shown)
        for entry in self.entries(path, shown):
            self.tally.add(entries=1)
            is_folder, is_link = entry.is_dir(follow_symlinks=False), entry.is_symlink()
            inner = f"{shown}/{entry.name}" if shown else entry.name
            if is_hidden(entry.name) or not (is_folder or is_link or is_resource(entry.name)):
                continue
            if not entry.name.isprintable():
                self.problems.append(bad_name(inner))
            elif is_link:
                self.problems.append(skipped(inner, "symbolic link"))
            elif is_folder and os.path.lexists(f"{entry.path}/.git"):
                self.problems.append(skipped(inner, "submodule"))
            elif is_folder:
                self.walk(entry.path, inner)
            elif entry.is_file(follow_symlinks=False):
                self.read(entry.path, inner)

    def entries(self, path: str, shown: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(path) as found:
                return sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            self.problems.append(_unreadable(shown, error))
            return []

    def read(self, path: str, shown: str) -> None:
        limit = self.tally.bounds.file_bytes
        try:
            # The file may have become a link or a pipe since it was listed: neither is followed or waited for.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as stream:  # noqa: PTH123 - a descriptor has no Path
                size = os.fstat(descriptor).st_size
                data = stream.read(limit + 1) if size <= limit else b""
        except OSError as error:
            self.problems.append(_unreadable(shown, error))
            return
        if max(size, len(data)) > limit:
            self.problems.append(too_large(shown, max(size, len(data)), self.tally.bounds))
            return
        self.tally.add(files=1, size=len(data))
        self.files.append(SourceFile(shown, blob_id(data), data))


def _unreadable(shown: str, error: OSError) -> Problem:
    return Problem(code="unreadable-file", path=shown, message=f"cannot read it: {error.strerror}")


def read_folder(path: Path, *, relative_to: Path | None = None, bounds: Bounds | None = None) -> Files:
    """Read the resource files of a plain folder (or one file) as they are now: no Git, uncommitted work included.

    Paths in the result are relative to ``relative_to`` (a folder above), by default to the folder itself. What Git
    would ignore is read.

    Raises:
        TerminalError: there is no such folder or file.
    """
    root = path.resolve()
    try:
        is_folder = stat.S_ISDIR(root.stat().st_mode)
    except OSError as error:
        reason = "no such file or folder" if error.errno in {errno.ENOENT, errno.ENOTDIR} else error.strerror
        raise TerminalError(f"cannot read '{path}': {reason}") from error
    base = relative_to.resolve() if relative_to else root if is_folder else root.parent
    shown = "" if root == base else root.relative_to(base).as_posix()
    reading = _Reading(Tally(bounds or Bounds()))
    try:
        if is_folder:
            reading.walk(str(root), shown)
        else:
            reading.read(str(root), shown)
    except Exceeded as reason:
        return exceeded(reason)
    return Files(tuple(sorted(reading.files, key=lambda file: file.path)), tuple(reading.problems))
