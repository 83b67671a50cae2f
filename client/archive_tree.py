"""Millions of files become a few hundred directories: Borg's list of an archive, folded as it comes. Pure.

``contents`` feeds the lines. Directories form a tree of bounded size: when it grows too large, the whole lowest level
is folded into the one above, and nothing that deep is told apart from then on. So a directory that is left has
everything below it, whatever came before or after. Of names only what is fit to be shown gets in.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from client import borgmatic_output
from schema.observed import MAX_DIRECTORIES, MAX_LARGEST, DirectoryContents, LargeFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

MAX_NODES: Final = 20_000
"""Directories told apart while reading: some megabytes."""
MAX_DEPTH: Final = 24
MAX_PATH_BYTES: Final = 380
"""A directory whose path is longer counts for the one above. 500 of these fit into one report."""
UNKNOWN: Final = "\ufffd"
"""Stands for what cannot be shown: control and bidirectional characters, and bytes that are no UTF-8."""
_MAX_FILE_PATH: Final = 1_000
_LARGEST_NUMBER: Final = 2**63 - 1
_MAX_TIME: Final = 32


_Row = tuple[tuple[str, ...], int, int]
"""The parts of a path, files, size."""


@dataclass(slots=True)
class _Directory:
    """A directory; the numbers are of the files in it and of what was folded into it."""

    depth: int = 0
    length: int = 0
    """Of its path, in bytes."""
    files: int = 0
    size: int = 0
    below: dict[str, _Directory] = field(default_factory=dict)


@dataclass(slots=True)
class ArchiveTree:
    """What is in one archive. Feed lines, then ask."""

    most: int = MAX_NODES
    files: int = 0
    size: int = 0
    directory_count: int = 0
    _root: _Directory = field(default_factory=_Directory)
    _levels: Counter[int] = field(default_factory=Counter)
    """How many directories are told apart, by depth."""
    _count: int = 0
    _deepest: int = MAX_DEPTH
    _full: bool = False
    _last: tuple[str, _Directory] | None = None
    _largest: list[tuple[int, str]] = field(default_factory=list)
    _oldest: str = ""
    _newest: str = ""

    def read(self, line: bytes) -> None:
        """Take one line of ``borg list --json-lines``, or of a borgmatic that wraps it; others are passed over."""
        entry = _entry(line)
        path = entry.get("path")
        if not isinstance(path, str):
            return
        kind = entry.get("type")
        if kind == "d":
            self.directory_count += 1
            self._directory(path)
            return
        size = entry.get("size")
        # What a hard link points to is listed and counted as a file of its own.
        self._file(path, size if kind == "-" and isinstance(size, int) and size > 0 else 0)
        if kind == "-":
            self._changed(entry.get("mtime"))

    @property
    def oldest(self) -> datetime | None:
        """When the file that is longest unchanged was changed last."""
        return borgmatic_output.utc(self._oldest) if self._oldest else None

    @property
    def newest(self) -> datetime | None:
        """When a file was changed last."""
        return borgmatic_output.utc(self._newest) if self._newest else None

    def directories(self, scrub: Callable[[str], str] = str) -> tuple[DirectoryContents, ...]:
        """Return directories with all that is below them, in the order of their paths: level by level from the top.

        Of a level that does not fit any more the largest are returned, and none of the levels below.
        """
        levels: dict[int, list[_Row]] = {}
        _gather(self._root, (), levels)
        chosen: list[_Row] = []
        for _, level in sorted(levels.items()):
            room = MAX_DIRECTORIES - len(chosen)
            chosen += heapq.nlargest(room, level, key=lambda one: (one[2], one[1]))
            if len(level) >= room:
                break
        return tuple(
            DirectoryContents(path=_scrubbed("/".join(path), scrub), files=files, size=size)
            for path, files, size in sorted(chosen)
        )

    def largest(self, scrub: Callable[[str], str] = str) -> tuple[LargeFile, ...]:
        """Return the largest files, the largest first."""
        found = sorted(self._largest, key=lambda one: (-one[0], one[1]))
        return tuple(LargeFile(path=_scrubbed(_whole_path(path), scrub), size=size) for size, path in found)

    # --- Growing ------------------------------------------------------------------------------------------------------

    def _file(self, path: str, size: int) -> None:
        size = min(size, _LARGEST_NUMBER - self.size)
        self.files += 1
        self.size += size
        above = self._directory(path.rpartition("/")[0])
        above.files += 1
        above.size += size
        if len(self._largest) < MAX_LARGEST:
            heapq.heappush(self._largest, (size, path[-4 * _MAX_FILE_PATH :]))
        elif size > self._largest[0][0]:
            heapq.heapreplace(self._largest, (size, path[-4 * _MAX_FILE_PATH :]))

    def _directory(self, path: str) -> _Directory:
        """Return the directory at ``path``, or the nearest above that is told apart."""
        if self._last is not None and self._last[0] == path:
            return self._last[1]
        here = self._root
        for part in path.split("/", MAX_DEPTH + 1)[: MAX_DEPTH + 1]:
            if part in {"", "."}:
                continue
            name = shown(part)
            below = here.below.get(name) or self._make(here, name)
            if below is None:
                break
            here = below
        if self._count > self.most:
            self._prune()
            return self._directory(path)
        self._last = (path, here)
        return here

    def _make(self, above: _Directory, name: str) -> _Directory | None:
        length = above.length + len(name.encode()) + 1
        if above.depth >= self._deepest or self._full or length > MAX_PATH_BYTES:
            return None
        above.below[name] = made = _Directory(depth=above.depth + 1, length=length)
        self._levels[made.depth] += 1
        self._count += 1
        return made

    def _prune(self) -> None:
        """Fold the lowest level into the one above, until there is room again."""
        self._last = None
        while self._count > self.most:
            lowest = max(self._levels)
            if lowest == 1:
                self._full, self.most = True, self._count  # what comes next counts for the totals alone
                return
            self._deepest = lowest - 1
            self._count -= self._levels.pop(lowest)
            for above in list(_at(self._root, lowest - 1)):
                for folded in above.below.values():
                    above.files += folded.files
                    above.size += folded.size
                above.below = {}

    def _changed(self, mtime: object) -> None:
        """Keep the first and the last time: Borg's are of one form, so that text sorts as time."""
        if not isinstance(mtime, str) or not 19 <= len(mtime) <= _MAX_TIME:
            return
        self._newest = max(self._newest, mtime)
        self._oldest = min(self._oldest or mtime, mtime)


def shown(name: str) -> str:
    """Return a name fit to be shown: one line, nothing that hides or reorders."""
    return name if name.isprintable() else "".join(one if one.isprintable() else UNKNOWN for one in name)


def _whole_path(path: str) -> str:
    """Return the path of a file, of bounded length."""
    path = shown(path)
    if len(path) <= _MAX_FILE_PATH:
        return path
    half = _MAX_FILE_PATH // 2
    return f"{path[:half]}{UNKNOWN}{path[-half + 1 :]}"


def _scrubbed(path: str, scrub: Callable[[str], str]) -> str:
    clean = scrub(path)
    # The path is another one now: nobody should ask Borg for it.
    return path if clean == path else f"{clean}{UNKNOWN}"[:1_024]


def _entry(line: bytes) -> dict[str, Any]:
    value = _object(line)
    message = value.get("message")
    # borgmatic wraps the lines of Borg when its configuration says `log_json: true`.
    return _object(message) if isinstance(message, str) and "path" not in value else value


def _object(text: str | bytes) -> dict[str, Any]:
    if text[:1] not in {"{", b"{"}:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _at(here: _Directory, depth: int) -> Iterator[_Directory]:
    if here.depth == depth:
        yield here
        return
    for one in here.below.values():
        yield from _at(one, depth)


def _gather(here: _Directory, path: tuple[str, ...], into: dict[int, list[_Row]]) -> tuple[int, int]:
    """Put every directory into the list of its level, with all that is below it; return the numbers of this one."""
    files, size = here.files, here.size
    for name, below in here.below.items():
        more_files, more_size = _gather(below, (*path, name), into)
        files += more_files
        size += more_size
    if path:
        into.setdefault(len(path), []).append((path, files, size))
    return files, size
