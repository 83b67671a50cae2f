"""The object store of one Git repository, read where it is by git's plumbing: no work tree, no network, nothing run.

``source`` and ``bare`` call this, from any thread; a call costs a few milliseconds for each git that it starts. Only
commands that run nothing of the repository's own (no hook, no filter, no pager, no lazy fetch) are used. So reading is
safe in a repository that somebody else owns, and each git is told where the repository is instead of discovering it:
then it neither finds another one around it nor refuses one for its owner.

Why not libgit2: up to 1.9 at least it loops for ever, holding the interpreter's lock, on a loose object that is cut
off; which is what a power failure leaves behind.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypedDict

from reconciler.git_files import ResourceFiles
from reconciler.git_places import candidates
from reconciler.source_files import Bounds, Files
from schema.errors import DirectorError, TerminalError, TransientError, scrub

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_REVISION = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SECONDS = 120
"""How long one git may read. Reached only on a file system that hangs."""

_PASSED_ON = ("PATH", "TMPDIR", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH")

_ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    "HOME": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    # Replacement references would show other contents than those whose id was asked for.
    "GIT_NO_REPLACE_OBJECTS": "1",
    # A partial clone would fetch what it lacks, by whatever its configuration says.
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
}

_LOG_FORMAT = "%x00%H%x00%P%x00%an <%ae>%x00%ct%x00%B%x00%(trailers:only,unfold)%x00"
"""Seven fields for each commit, of which the first is the line that rev-list always prints."""

_NO_REPOSITORY = re.compile(r"not a git repository|invalid gitfile format|error opening '.*'")
_OTHER_FORMAT = re.compile(r"repository extension|Expected git repo version|unknown repository")


def is_revision(text: str) -> bool:
    """Whether ``text`` is a whole object id; the one of zeros, by which hooks say "none", is not."""
    return bool(_REVISION.fullmatch(text)) and bool(text.strip("0"))


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
class Place:
    """Where a folder stands in Git: its repository, the path from there, and the branch that is checked out."""

    repository: Path
    path: str
    branch: str | None


def discover(folder: Path) -> Place | None:
    """Return the place of ``folder`` in the repository around it, or None when there is none."""
    folder = folder.resolve()
    for root in candidates(folder):
        path = folder.relative_to(root).as_posix() if (root / ".git").exists() and folder != root else ""
        with contextlib.suppress(NotARepository):
            return Place(root, path, GitObjects(root).checked_out())
    return None


class GitObjects:
    """Reads commits and resource files. ``directory`` is a bare repository, a ``.git``, or the root of a work tree.

    ``environment`` may hold what Git gives to hooks, so that objects in quarantine are seen.
    """

    def __init__(
        self, directory: Path, *, environment: Mapping[str, str] = os.environ, bounds: Bounds | None = None
    ) -> None:
        self.directory = directory
        self._environment = {name: environment[name] for name in _PASSED_ON if name in environment} | _ENVIRONMENT
        self._files = ResourceFiles(self, bounds or Bounds())

    def head(self, reference: str) -> str | None:
        """Return the revision of ``refs/…``, or None when there is no such reference."""
        return self._ask("rev-parse", "--verify", "--quiet", f"{reference}^{{commit}}") or None

    def branches(self) -> list[str]:
        """Return the names of all local branches, sorted."""
        listed = self._ask("for-each-ref", "--format=%(refname)", "refs/heads/").splitlines()
        return [line.removeprefix("refs/heads/") for line in listed]

    def checked_out(self) -> str | None:
        """Return the branch that HEAD names, or None when HEAD is detached. It may have no commit yet."""
        return self._ask("symbolic-ref", "--quiet", "HEAD").removeprefix("refs/heads/") or None

    def resolve(self, text: str) -> str:
        """Return the revision that a person means by ``text``: a branch, a tag, ``HEAD~3``, a shortened id.

        Raises:
            TerminalError: there is no such commit, or more than one.
        """
        can_be_one = text.isprintable() and not text.startswith("-")
        found = self._ask("rev-parse", "--verify", "--quiet", f"{text}^{{commit}}") if can_be_one else ""
        if not is_revision(found):
            near = difflib.get_close_matches(text, self.branches(), n=1)
            raise TerminalError(
                f"there is no revision '{text}' in {self.directory}",
                hint=f"did you mean '{near[0]}'?" if near else "give a branch, a tag, HEAD~1 or a commit id",
            )
        return found

    def commit(self, revision: str) -> Commit:
        """Return one commit.

        Raises:
            TerminalError: it is not in this repository.
        """
        return self.log(None, revision, limit=1)[0]

    def log(self, old: str | None, new: str, *, limit: int = 100) -> list[Commit]:
        """Return the commits that ``new`` has and ``old`` has not, newest first, at most ``limit``.

        Without ``old``, or when ``old`` is gone, these are simply the newest commits of ``new``.
        """
        order = ["--topo-order", f"--max-count={limit}", f"--format={_LOG_FORMAT}"]
        if not is_revision(new):
            self._require(new)
        until = [f"^{old}"] if old is not None and is_revision(old) else []
        try:
            output = self.read("rev-list", *order, new, *until, "--")
        except Damaged:  # or one of them is not there
            self._require(new)
            if old is None or self._has(old):
                raise
            output = self.read("rev-list", *order, new, "--")
        fields = output.decode("utf-8", "replace").split("\0")
        return [_commit(fields[start + 1 : start + 7]) for start in range(0, len(fields) - 7, 7)]

    def is_descendant(self, revision: str, *, of: str) -> bool:
        """Whether ``revision`` is ``of`` or was built upon it, by any parent. An unknown ``of`` was rewritten away."""
        self._require(revision)
        if not self._has(of):
            return False
        done = self._run(("merge-base", "--is-ancestor", of, revision), b"")
        if done.returncode not in {0, 1} or _complains(done.stderr):
            raise self._explained(done.returncode, done.stderr)
        return done.returncode == 0

    def files(self, revision: str, path: str = "") -> Files:
        """Return the resource files under ``path`` (a folder of the repository; "" is all of it) at ``revision``.

        Files that did not change since the last call are not read again.

        Raises:
            TerminalError: there is no such revision, or no such folder in it.
            Damaged: the repository lost objects of it.
        """
        if not is_revision(revision):
            self._require(revision)
        try:
            return self._files.read(revision, path)
        except DirectorError:
            self._require(revision)
            raise

    def set(self, name: str, value: str) -> None:
        """Write a value into the repository's own configuration."""
        self.read("config", "--local", name, value)

    def setting(self, name: str, *, kind: str = "path") -> str | None:
        """Return a value of the repository's own configuration. ``kind`` is one of git's types, such as ``bool``."""
        return self._ask("config", "--local", f"--type={kind}", "--get", name) or None

    def references_folder(self) -> Path:
        """Return the folder of the branches, for watching. Linked work trees share that of their repository."""
        return Path(self._ask("rev-parse", "--git-path", "refs/heads"))

    # --- Git ----------------------------------------------------------------------------------------------------------

    def _has(self, revision: str) -> bool:
        if not is_revision(revision):
            return False
        answer = self.read("cat-file", "--batch-check=%(objecttype)", data=f"{revision}\n".encode())
        return answer.strip() == b"commit"

    def _require(self, revision: str) -> None:
        if not self._has(revision):
            raise TerminalError(
                f"there is no commit {revision} in the source",
                hint="it may have been removed by a force-push and the clean-up after it",
            )

    def read(self, *arguments: str, data: bytes = b"") -> bytes:
        """Run git on objects that must be there: failing, or as much as complaining, means damage."""
        done = self._run(arguments, data)
        if done.returncode != 0 or _complains(done.stderr):
            raise self._explained(done.returncode, done.stderr)
        return done.stdout

    def _ask(self, *arguments: str) -> str:
        """Run git on what may be missing: an empty answer then. That there is no repository is still an error."""
        done = self._run(arguments, b"")
        errors = done.stderr.decode("utf-8", "replace")
        if done.returncode < 0 or _NO_REPOSITORY.search(errors) or _OTHER_FORMAT.search(errors):
            raise self._explained(done.returncode, done.stderr)
        return os.fsdecode(done.stdout).rstrip("\n") if done.returncode == 0 else ""

    def _run(self, arguments: Sequence[str], data: bytes) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                ["git", *arguments],
                input=data,
                capture_output=True,
                check=False,
                timeout=_SECONDS,
                **self._place(),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _not_started(error) from error

    @contextlib.contextmanager
    def stream(self, *arguments: str) -> Iterator[Iterator[bytes]]:
        """Run git and hand over what it prints as it comes; whoever has enough leaves, and git ends."""
        with contextlib.ExitStack() as stack:
            complaints = stack.enter_context(tempfile.TemporaryFile())
            try:
                process = stack.enter_context(
                    subprocess.Popen(
                        ["git", *arguments],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE,
                        stderr=complaints,
                        **self._place(),
                    )
                )
            except OSError as error:
                raise _not_started(error) from error
            stack.callback(process.kill)
            if process.stdout is None:
                raise RuntimeError("the process was started with a pipe")
            yield iter(partial(process.stdout.read, 1 << 16), b"")
            process.wait(_SECONDS)
            complaints.seek(0)
            complaint = complaints.read()
            if process.returncode != 0 or _complains(complaint):
                raise self._explained(process.returncode, complaint)

    def _place(self) -> _Place:
        """Name the repository itself: git must not go and find another one around it. Ctrl-C is not for readers."""
        inner = self.directory / ".git"
        repository = (inner if inner.exists() else self.directory).absolute()
        return {"cwd": "/", "env": self._environment | {"GIT_DIR": str(repository)}, "start_new_session": True}

    def _explained(self, code: int, errors: bytes) -> DirectorError:
        text = scrub(errors.decode("utf-8", "replace").strip())[:500]
        if code < 0:
            return TransientError(f"reading the source was interrupted: git ended by signal {-code}")
        if not self.directory.exists():
            return NotARepository(f"cannot read the source: there is no folder '{self.directory}'")
        if _NO_REPOSITORY.search(text):
            return NotARepository(
                f"cannot read the source: '{self.directory}' is not a Git repository",
                hint="create one with `git init`, or with `director init --bare`",
            )
        if _OTHER_FORMAT.search(text):
            return NotARepository(
                f"cannot read the source: '{self.directory}' has a format that this git does not know",
                hint=f"upgrade git; it says: {text}",
            )
        return self.damaged(text.replace("\n", "; "))

    def damaged(self, reason: str) -> Damaged:
        """Return the error of a repository that lost objects."""
        return Damaged(
            f"the Git repository '{self.directory}' is damaged: {reason}",
            hint=f"`git -C '{self.directory}' fsck` says what is missing; restore it, or clone it anew",
        )


def make_repository(directory: Path, *, branch: str, bare: bool) -> None:
    """Make ``directory`` a repository without hooks, whose first branch will be ``branch``."""
    objects = GitObjects(directory if bare else directory / ".git")
    objects.directory.mkdir(parents=True, exist_ok=True)
    # Git would look for the work tree where it is started; made bare, ".git" belongs to the folder around it.
    objects.read("init", "--bare", "--quiet", "--template=", f"--initial-branch={branch}")
    if not bare:
        objects.set("core.bare", "false")
        objects.set("core.logAllRefUpdates", "true")


class _Place(TypedDict):
    cwd: str
    env: dict[str, str]
    start_new_session: bool


def _complains(errors: bytes) -> bool:
    return bool(re.search(rb"^(error|fatal): ", errors, re.MULTILINE))


def _not_started(error: Exception) -> DirectorError:
    if isinstance(error, FileNotFoundError):
        return TerminalError("cannot read the source: there is no `git` program", hint="install git")
    return TransientError(f"cannot read the source: {error}")


def _commit(fields: Sequence[str]) -> Commit:
    revision, parents, author, seconds, message, trailers = fields
    pairs = (line.partition(":") for line in trailers.splitlines())
    return Commit(
        revision=revision,
        author=author,
        committed=_moment(int(seconds or 0)),
        message=message,
        trailers=MappingProxyType({key.strip(): value.strip() for key, _, value in pairs}),
        parents=tuple(parents.split()),
    )


def _moment(seconds: int) -> datetime:
    """Return a commit's time. A commit may claim any number: what no calendar has becomes its nearest end."""
    end_of_9999 = 253_402_300_799
    return datetime.fromtimestamp(min(max(seconds, 0), end_of_9999), tz=UTC)
