"""The resource files of one revision after the other. Used by ``git_objects``, which runs the git that this asks for.

The first revision is listed whole. Of each later one Git is asked for the difference to the one before: two trees of
one name are one tree to it, so that a commit of one file costs one file among any number. ``source_files`` has the
rules.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from reconciler.core.catalogue import SourceFile
from reconciler.source_files import (
    Bounds,
    Exceeded,
    Files,
    Tally,
    bad_name,
    exceeded,
    is_hidden,
    is_resource,
    skipped,
    too_large,
)
from schema.errors import DirectorError, Problem, TerminalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

_NOTHING: Final = "000000"
"""The mode of what is not there."""
_FOLDER: Final = "040000"
_MANY: Final = 20_000
"""Changes, after which listing the whole revision is no slower than following them."""


class Git(Protocol):
    """One repository."""

    def read(self, *arguments: str, data: bytes = b"") -> bytes:
        """Run git on objects that must be there and return what it prints."""

    def stream(self, *arguments: str) -> AbstractContextManager[Iterator[bytes]]:
        """Run git and hand over what it prints as it comes."""

    def damaged(self, reason: str) -> DirectorError:
        """Return the error of a repository that lost objects."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file, folder, link or submodule, by its path from the root of the repository."""

    mode: str
    blob: str
    path: str


@dataclass(slots=True)
class _Listing:
    """What was found in one revision."""

    revision: str
    path: str
    entries: int = 0
    size: int = 0
    files: dict[str, SourceFile] = field(default_factory=dict)
    """In the order of their paths, once ``settle`` was called."""
    problems: dict[str, Problem] = field(default_factory=dict)
    _removed: set[str] = field(default_factory=set)
    _is_sorted: bool = True

    @property
    def count(self) -> int:
        """How many files there are."""
        return len(self.files) - len(self._removed)

    def remove(self, path: str) -> None:
        """Forget what stood at a path. Its place in the order is kept for a file that takes it."""
        self.problems.pop(path, None)
        if path in self.files and path not in self._removed:
            self._removed.add(path)
            self.size -= len(self.files[path].data)

    def add(self, file: SourceFile) -> None:
        """Take a file in."""
        self._is_sorted = self._is_sorted and file.path in self.files
        self._removed.discard(file.path)
        self.files[file.path] = file
        self.size += len(file.data)

    def settle(self) -> None:
        """Bring the files into order."""
        for path in self._removed:
            del self.files[path]
        if not self._is_sorted:
            self.files = {path: self.files[path] for path in sorted(self.files)}
        self._removed, self._is_sorted = set(), True


class ResourceFiles:
    """Reads resource files, and remembers those of the last revision."""

    def __init__(self, git: Git, bounds: Bounds) -> None:
        self._git = git
        self._bounds = bounds
        self._last: _Listing | None = None

    def read(self, revision: str, path: str) -> Files:
        """Return the resource files under ``path`` at ``revision``, an existing commit.

        Raises:
            TerminalError: there is no such folder in it.
        """
        last, self._last = self._last, None
        try:
            listing = self._followed(last, revision) if last is not None and last.path == path else None
            if listing is None:
                listing = self._listed(revision, path, known=last.files if last is not None else {})
        except Exceeded as reason:
            return exceeded(reason)
        self._last = listing
        files = tuple(listing.files.values())
        return Files(files, tuple(listing.problems[name] for name in sorted(listing.problems)))

    # --- A whole revision ---------------------------------------------------------------------------------------------

    def _listed(self, revision: str, path: str, *, known: dict[str, SourceFile]) -> _Listing:
        if path:
            self._require_folder(revision, path)
        listing, tally = _Listing(revision, path), Tally(self._bounds)
        wanted: list[_Entry] = []
        for entry in self._entries(revision, path):
            tally.add(entries=1)
            tally.check_depth(entry.path)
            wanted += self._judge(entry, listing)
        listing.entries = tally.entries
        self._take(listing, wanted, known=known)
        return listing

    def _entries(self, revision: str, path: str) -> Iterator[_Entry]:
        """List everything below ``path``, folders too: they count, or trees that repeat each other would not end."""
        prefix = f"{path}/" if path else ""
        with self._git.stream("ls-tree", "-r", "-t", "-z", "--full-tree", f"{revision}:{path}") as chunks:
            for line in _lines(chunks):
                head, _, name = line.partition(b"\t")
                mode, _, blob = head.decode().split(" ")
                yield _Entry(mode, blob, prefix + name.decode("utf-8", "surrogateescape"))

    # --- The next revision --------------------------------------------------------------------------------------------

    def _followed(self, last: _Listing, revision: str) -> _Listing | None:
        """Return ``last`` brought to ``revision``; None when Git cannot say what differs, or it is too much."""
        if revision == last.revision:
            return last
        try:
            changes = self._changes(last, revision)
        except DirectorError:
            return None  # the former revision is gone, or the folder; listing all tells
        if changes is None:
            return None
        last.revision, tally = revision, Tally(self._bounds)
        wanted: list[_Entry] = []
        for before, after in changes:
            last.remove(after.path)
            last.entries += (after.mode != _NOTHING) - (before != _NOTHING)
            if after.mode != _NOTHING:
                tally.check_depth(after.path)
                wanted += self._judge(after, last)
        tally.add(entries=last.entries)
        self._take(last, wanted, known={})
        return last

    def _changes(self, last: _Listing, revision: str) -> list[tuple[str, _Entry]] | None:
        """Return former mode and new entry of everything that differs; None when that is too much to follow."""
        prefix = f"{last.path}/" if last.path else ""
        trees = (f"{each}:{last.path}" for each in (last.revision, revision))
        found: list[tuple[str, _Entry]] = []
        with self._git.stream("diff-tree", "-r", "-t", "-z", "--no-renames", *trees) as chunks:
            lines = _lines(chunks)
            for head in lines:
                before, mode, _, blob, _ = head.decode().removeprefix(":").split(" ")
                path = prefix + next(lines).decode("utf-8", "surrogateescape")
                found.append((before, _Entry(mode, blob, path)))
                if len(found) > _MANY:
                    return None
        return found

    # --- Files --------------------------------------------------------------------------------------------------------

    def _judge(self, entry: _Entry, listing: _Listing) -> Iterator[_Entry]:
        """Yield a resource file; note what looks like one and is none."""
        inner = entry.path[len(listing.path) + 1 :] if listing.path else entry.path
        *folders, name = inner.split("/")
        if is_hidden(name) or any(is_hidden(folder) or not folder.isprintable() for folder in folders):
            return
        is_file = entry.mode in {"100644", "100755", "100664"}
        if is_file and not is_resource(name):
            return
        if not name.isprintable():
            listing.problems[entry.path] = bad_name(entry.path)
        elif is_file:
            yield entry
        elif entry.mode != _FOLDER:
            kind = "submodule" if entry.mode == "160000" else "symbolic link"
            listing.problems[entry.path] = skipped(entry.path, kind)

    def _take(self, listing: _Listing, wanted: Sequence[_Entry], *, known: dict[str, SourceFile]) -> None:
        """Read files into ``listing``; those of ``known`` that did not change are there already."""
        unread = []
        for entry in wanted:
            file = known.get(entry.path)
            if file is not None and file.blob == entry.blob:
                listing.add(file)
            else:
                unread.append(entry)
        tally = Tally(self._bounds)
        tally.add(files=listing.count, size=listing.size)
        for file in self._contents(self._fitting(unread, tally, listing)):
            listing.add(file)
        listing.settle()

    def _fitting(self, entries: Sequence[_Entry], tally: Tally, listing: _Listing) -> list[_Entry]:
        """Return the files that are small enough, by their sizes alone."""
        fitting: list[_Entry] = []
        if not entries:
            return fitting
        blobs = "".join(f"{entry.blob}\n" for entry in entries)
        output = self._git.read("cat-file", "--batch-check=%(objecttype) %(objectsize)", data=blobs.encode())
        for entry, line in zip(entries, output.decode().splitlines(), strict=True):
            kind, _, size = line.partition(" ")
            if kind != "blob":
                raise self._git.damaged(f"{entry.path}: {line}")
            if int(size) > tally.bounds.file_bytes:
                listing.problems[entry.path] = too_large(entry.path, int(size), tally.bounds)
                continue
            tally.add(files=1, size=int(size))
            fitting.append(entry)
        return fitting

    def _contents(self, entries: Sequence[_Entry]) -> list[SourceFile]:
        if not entries:
            return []
        data = "".join(f"{entry.blob}\n" for entry in entries).encode()
        output = self._git.read("cat-file", "--batch", data=data)
        files = []
        place = 0
        for entry in entries:
            end = output.find(b"\n", place)
            blob, kind, *size = output[place:end].decode(errors="replace").split(" ")
            if blob != entry.blob or kind != "blob":
                raise self._git.damaged(f"{entry.path}: {kind}")
            place = end + 1 + int(size[0])
            files.append(SourceFile(entry.path, entry.blob, output[end + 1 : place]))
            place += 1
        return files

    def _require_folder(self, revision: str, path: str) -> None:
        """Check ``path`` name by name, so that a wrong part can be named."""
        above = ""
        for name in path.split("/"):
            listed = self._git.read("ls-tree", "-d", "-z", "--full-tree", f"{revision}:{above}")
            folders = [os.fsdecode(line.partition(b"\t")[2]) for line in listed.split(b"\0") if line[:6] == b"040000"]
            if name not in folders:
                near = difflib.get_close_matches(name, folders, n=1)
                meant = f"did you mean '{f'{above}/' if above else ''}{near[0]}'?" if near else ""
                raise TerminalError(
                    f"there is no folder '{path}' in revision {revision[:12]} of the source",
                    hint=meant or "set the source's `path` to a folder of the repository, or leave it empty",
                )
            above = f"{above}/{name}" if above else name


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Cut chunks into what stands before each NUL."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\0")
        yield from lines
