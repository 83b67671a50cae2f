"""The object store of one Git repository, read through libgit2: no work tree, no program, nothing of it is executed.

``source`` and ``bare`` call this. Every call opens the repository anew (50 µs), so a repack, a push or a fetch between
two calls is seen, and a value may be used from any thread. Reading in place is safe in a repository that somebody else
owns: what Git's "dubious ownership" protects from are programs named in that repository's configuration, and libgit2
runs none.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import pygit2
from pygit2.enums import ConfigLevel, FileMode, ObjectType, RepositoryOpenFlag, SortMode

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
from schema.errors import Problem, TerminalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_REVISION = re.compile(r"[0-9a-f]{40}")
NO_REVISION = "0" * 40
"""How Git writes "there is no commit", in hooks."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit. ``author`` is ``Name <address>``; of a trailer that is written twice the last one counts."""

    revision: str
    author: str
    committed: datetime
    message: str
    trailers: Mapping[str, str]
    parents: tuple[str, ...]

    @property
    def subject(self) -> str:
        return self.message.strip().partition("\n")[0]


class Damaged(TerminalError):
    """Objects that a commit needs are missing or unreadable. ``Source`` heals its own clone, and only that."""


class NotARepository(TerminalError):
    """There is no Git repository here that we can read."""


@dataclass(frozen=True, slots=True)
class _Listing:
    """What one folder holds itself. It depends on nothing but tree and path, so it is kept for the next revision."""

    files: tuple[SourceFile, ...]
    problems: tuple[Problem, ...]
    folders: tuple[tuple[str, pygit2.Oid], ...]
    entries: int
    size: int


@dataclass(slots=True)
class _Cache:
    """The last revision read: listings by tree and path, files by path. A one-file commit reads one file."""

    listings: dict[tuple[pygit2.Oid, str], _Listing] = field(default_factory=dict)
    files: dict[str, SourceFile] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a folder stands in Git: its repository, the path from there, and the branch that is checked out."""

    repository: Path
    path: str
    branch: str | None


def discover(folder: Path) -> Place | None:
    """Return the place of ``folder`` in the repository around it, or None when there is none."""
    _trust_reading()
    folder = folder.resolve()
    found = pygit2.discover_repository(str(folder))
    if found is None:
        return None
    work_tree = pygit2.Repository(found).workdir
    root = Path(work_tree or found).resolve()
    path = folder.relative_to(root).as_posix() if work_tree and folder != root else ""
    return Place(root, path, GitObjects(root).checked_out())


def _trust_reading() -> None:
    """Let libgit2 read what another user owns, and no configuration outside the repository (see the module)."""
    pygit2.settings.owner_validation = False
    for level in (ConfigLevel.SYSTEM, ConfigLevel.XDG, ConfigLevel.GLOBAL):
        pygit2.settings.search_path[level] = ""


class GitObjects:
    """Reads commits and resource files. ``directory`` is a bare repository, a ``.git``, or a work tree.

    ``quarantine`` is the extra object folder that Git fills during a push, before the hook decides.
    """

    def __init__(self, directory: Path, *, quarantine: Path | None = None, bounds: Bounds | None = None) -> None:
        self.directory = directory
        self._quarantine = quarantine
        self._bounds = bounds or Bounds()
        self._cache = _Cache()

    def head(self, reference: str) -> str | None:
        """Return the revision of ``refs/…``, or None when there is no such reference."""
        try:
            target = self._open().references[reference].resolve().target
        except (KeyError, ValueError):
            return None
        except pygit2.GitError as error:
            raise self._damaged(error) from error
        return str(target)

    def branches(self) -> list[str]:
        """Return the names of all local branches, sorted."""
        return sorted(self._open().branches.local)

    def checked_out(self) -> str | None:
        """Return the branch that HEAD names, or None when HEAD is detached. It may have no commit yet."""
        target = self._open().references["HEAD"].target
        return target.removeprefix("refs/heads/") if isinstance(target, str) else None

    def resolve(self, text: str) -> str:
        """Return the revision that a person means by ``text``: a branch, a tag, ``HEAD~3``, a shortened id.

        Raises:
            TerminalError: there is no such commit, or more than one.
        """
        try:
            return str(self._open().revparse_single(text).peel(pygit2.Commit).id)
        except KeyError as error:
            near = difflib.get_close_matches(text, self.branches(), n=1)
            hint = f"did you mean '{near[0]}'?" if near else "give a branch, a tag, HEAD~1 or a commit id"
            raise TerminalError(f"there is no revision '{text}' in {self.directory}", hint=hint) from error
        except (ValueError, pygit2.GitError) as error:
            raise TerminalError(f"'{text}' does not name one commit: {error}") from error

    def commit(self, revision: str) -> Commit:
        """Return one commit.

        Raises:
            TerminalError: it is not in this repository.
        """
        return _commit(self._commit(self._open(), revision))

    def log(self, old: str | None, new: str, *, limit: int = 100) -> list[Commit]:
        """Return the commits that ``new`` has and ``old`` has not, newest first, at most ``limit``.

        Without ``old``, or when ``old`` is gone, these are simply the newest commits of ``new``.
        """
        repository = self._open()
        try:
            walk = repository.walk(self._commit(repository, new).id, SortMode.TOPOLOGICAL | SortMode.TIME)
            if old is not None and self._find(repository, old) is not None:
                walk.hide(pygit2.Oid(hex=old))
            return [_commit(commit) for _, commit in zip(range(limit), walk, strict=False)]
        except (pygit2.GitError, KeyError) as error:
            raise self._damaged(error) from error

    def is_descendant(self, revision: str, *, of: str) -> bool:
        """Whether ``revision`` is ``of`` or was built upon it, by any parent. An unknown ``of`` was rewritten away."""
        repository = self._open()
        commit = self._commit(repository, revision)
        if revision == of:
            return True
        if self._find(repository, of) is None:
            return False
        try:
            return bool(repository.descendant_of(commit.id, pygit2.Oid(hex=of)))
        except (pygit2.GitError, KeyError) as error:
            raise self._damaged(error) from error

    def files(self, revision: str, path: str = "") -> Files:
        """Return the resource files under ``path`` (a folder of the repository; "" is all of it) at ``revision``.

        Folders that did not change since the last call are not read again.

        Raises:
            TerminalError: there is no such revision, or no such folder in it.
            Damaged: the repository lost objects of it.
        """
        repository = self._open()
        commit = self._commit(repository, revision)
        try:
            tree = self._folder(commit, path)
            reading = _Reading(repository, Tally(self._bounds), self._cache)
            listings = list(reading.walk(f"{path}/" if path else "", tree.id))
        except Exceeded as reason:
            return exceeded(reason)
        except (pygit2.GitError, KeyError) as error:
            raise self._damaged(error) from error
        files = tuple(sorted((file for listing in listings for file in listing.files), key=lambda file: file.path))
        self._cache = _Cache(reading.listings, {file.path: file for file in files})
        return Files(files, tuple(problem for listing in listings for problem in listing.problems))

    def references_folder(self) -> Path:
        """Return the folder of the branches, for watching. Linked work trees share that of their repository."""
        git_directory = Path(self._open().path)
        shared = git_directory / "commondir"
        if shared.is_file():
            git_directory /= shared.read_text().strip()
        return (git_directory / "refs" / "heads").resolve()

    def setting(self, name: str) -> str | None:
        """Return a value of the repository's own configuration, as it is written."""
        config = self._open().config
        try:
            return config[name]
        except KeyError:
            return None

    def _open(self) -> pygit2.Repository:
        _trust_reading()
        try:
            repository = pygit2.Repository(str(self.directory), RepositoryOpenFlag.NO_SEARCH)
        except pygit2.GitError as error:
            raise self._not_a_repository(error) from error
        if self._quarantine is not None:
            repository.odb.add_disk_alternate(str(self._quarantine))
        return repository

    def _not_a_repository(self, error: pygit2.GitError) -> NotARepository:
        if not self.directory.exists():
            return NotARepository(f"cannot read the source: there is no folder '{self.directory}'")
        if any((self.directory / name / "objects").is_dir() for name in ("", ".git")):
            return NotARepository(
                f"cannot read the source: '{self.directory}' is a Git repository of another format ({error})",
                hint="the director reads repositories with SHA-1 object ids and files as reference storage",
            )
        return NotARepository(
            f"cannot read the source: '{self.directory}' is not a Git repository",
            hint="create one with `git init`, or with `director init --bare`",
        )

    def _find(self, repository: pygit2.Repository, revision: str) -> pygit2.Commit | None:
        if not _REVISION.fullmatch(revision) or revision == NO_REVISION:
            return None
        try:
            found = repository[pygit2.Oid(hex=revision)]
        except KeyError:
            return None
        except pygit2.GitError as error:
            raise self._damaged(error) from error
        return found.peel(pygit2.Commit) if found.type == ObjectType.COMMIT else None

    def _commit(self, repository: pygit2.Repository, revision: str) -> pygit2.Commit:
        commit = self._find(repository, revision)
        if commit is None:
            raise TerminalError(
                f"there is no commit {revision} in the source",
                hint="it may have been removed by a force-push and the clean-up after it",
            )
        return commit

    def _folder(self, commit: pygit2.Commit, path: str) -> pygit2.Tree:
        """Return the tree at ``path``, entry by entry, so that a wrong part can be named."""
        tree = commit.tree
        for depth, name in enumerate(path.split("/") if path else ()):
            names = [entry.name for entry in tree if entry.filemode == FileMode.TREE and entry.name is not None]
            if name not in names:
                above = "/".join(path.split("/")[:depth])
                near = difflib.get_close_matches(name, names, n=1)
                meant = f"did you mean '{f'{above}/' if above else ''}{near[0]}'?" if near else ""
                raise TerminalError(
                    f"there is no folder '{path}' in revision {commit.short_id} of the source",
                    hint=meant or "set the source's `path` to a folder of the repository, or leave it empty",
                )
            tree = tree[name].peel(pygit2.Tree)
        return tree

    def _damaged(self, error: Exception) -> Damaged:
        return Damaged(
            f"the Git repository '{self.directory}' is damaged: {error}",
            hint=f"`git -C '{self.directory}' fsck` says what is missing; restore it, or clone it anew",
        )


@dataclass(slots=True)
class _Reading:
    """One pass over the folders of a revision, against the bounds and with the memory of the pass before."""

    repository: pygit2.Repository
    tally: Tally
    before: _Cache
    listings: dict[tuple[pygit2.Oid, str], _Listing] = field(default_factory=dict)

    def walk(self, prefix: str, tree: pygit2.Oid) -> Iterator[_Listing]:
        self.tally.check_depth(prefix)
        listing = self.before.listings.get((tree, prefix)) or self.read(prefix, tree)
        self.listings[tree, prefix] = listing
        self.tally.add(files=len(listing.files), size=listing.size, entries=listing.entries)
        yield listing
        for name, folder in listing.folders:
            yield from self.walk(f"{prefix}{name}/", folder)

    def read(self, prefix: str, tree: pygit2.Oid) -> _Listing:
        files: list[SourceFile] = []
        problems: list[Problem] = []
        folders: list[tuple[str, pygit2.Oid]] = []
        # Counted while listing too: one flat folder may hold all the bytes that are too many.
        tally = Tally(self.tally.bounds)
        for entry in self._entries(tree):
            tally.add(entries=1)
            name = (entry.raw_name or b"").decode("utf-8", "surrogateescape")
            path, mode, oid = prefix + name, entry.filemode, entry.id
            is_file = mode in {FileMode.BLOB, FileMode.BLOB_EXECUTABLE} and is_resource(name)
            if is_hidden(name) or (mode not in {FileMode.TREE, FileMode.LINK, FileMode.COMMIT} and not is_file):
                continue
            if not path.isprintable():
                problems.append(bad_name(path))
            elif mode == FileMode.TREE:
                folders.append((name, oid))
            elif is_file:
                self._file(path, oid, tally, into=(files, problems))
            else:
                problems.append(skipped(path, "symbolic link" if mode == FileMode.LINK else "submodule"))
        return _Listing(tuple(files), tuple(problems), tuple(folders), tally.entries, tally.bytes)

    def _entries(self, tree: pygit2.Oid) -> Iterable[pygit2.Object]:
        found = self.repository[tree]
        if found.type != ObjectType.TREE:
            raise KeyError(f"object {tree} should be a tree")
        return found.peel(pygit2.Tree)

    def _file(self, path: str, oid: pygit2.Oid, tally: Tally, *, into: tuple[list[SourceFile], list[Problem]]) -> None:
        files, problems = into
        blob = str(oid)
        known = self.before.files.get(path)
        if known is None or known.blob != blob:
            kind, size = self.repository.odb.read_header(oid)
            if kind != ObjectType.BLOB:
                raise KeyError(f"object {oid} should be a file")
            if size > tally.bounds.file_bytes:
                problems.append(too_large(path, size, tally.bounds))
                return
            known = SourceFile(path, blob, self.repository.odb.read(oid)[1])
        tally.add(files=1, size=len(known.data))
        files.append(known)


def _commit(commit: pygit2.Commit) -> Commit:
    return Commit(
        revision=str(commit.id),
        author=f"{_text(commit.author.raw_name)} <{_text(commit.author.raw_email)}>",
        committed=_moment(commit.commit_time),
        message=_text(commit.raw_message),
        trailers=MappingProxyType({_printable(key): _printable(value) for key, value in _trailers(commit)}),
        parents=tuple(str(parent) for parent in commit.parent_ids),
    )


def _trailers(commit: pygit2.Commit) -> Sequence[tuple[str, str]]:
    try:
        return tuple(commit.message_trailers.items())
    except UnicodeDecodeError:  # a message in another encoding: what it says is for people, not for us
        return ()


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", "replace")


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _moment(seconds: int) -> datetime:
    """Return a commit's time; commits may claim any 64-bit number, so what no calendar has becomes its nearest end."""
    year_9999 = 253_402_300_799
    return datetime.fromtimestamp(min(max(seconds, 0), year_9999), tz=UTC)
