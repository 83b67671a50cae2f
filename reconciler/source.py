"""The source: the revisions of one branch of a Git repository, and their resource files. Our only way to Git.

A local repository (a path or a ``file://`` URL: work tree or bare) is read in place, committed revisions only. One
behind ``https://`` or ``ssh://`` is fetched into a bare clone of our own, never shallow and never checked out. Reading
goes through ``git_objects``, the network through ``git_process``; ``source_files`` says what a resource file is.

The clone belongs to whoever holds its lock file. Git itself inherits that lock, so a git that outlives a killed
director keeps its successor out, and a ``*.lock`` that is found while holding it has no owner and is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import fcntl
import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self
from urllib.parse import unquote, urlsplit

import structlog
import watchfiles
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from reconciler import git_process
from reconciler.git_objects import Commit, Damaged, GitObjects, Place, discover
from reconciler.source_files import Bounds, Files, read_folder
from schema.errors import TerminalError, TransientError
from schema.scalars import Duration

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

__all__ = ["Bounds", "Commit", "Files", "Place", "Source", "SourceSettings", "discover", "read_folder"]

_log = structlog.get_logger(__name__)

_OUR_BRANCH = "refs/director/branch"
"""Where a clone keeps the branch: one name for all branches, so that none can collide with an older one's folder."""

_SCP_LIKE = re.compile(r"[^/:]+:(?!:)[^/:].*|[^/:]+:/(?!/).*")
"""``git@host:path``, as git itself tells it from a path: a colon before the first slash."""


def _url(text: str) -> str:
    """Accept what cannot be an option, a remote helper or a carrier of secrets."""
    if not text or text.startswith("-") or any(char.isspace() or not char.isprintable() for char in text):
        raise ValueError("a source is an absolute path, an https:// or an ssh:// URL, without spaces")
    if "://" not in text:
        if "::" in text.partition("/")[0]:
            raise ValueError(f"'{text}' names a Git remote helper; use an absolute path, https:// or ssh://")
        if _SCP_LIKE.fullmatch(text) and text.partition(":")[0].rpartition("@")[2].startswith("-"):
            raise ValueError("the URL names no host")
        return text
    parts = urlsplit(text)
    if parts.scheme not in {"file", "https", "ssh"}:
        raise ValueError(f"a source cannot be fetched by '{parts.scheme}://': use file://, https:// or ssh://")
    if parts.password is not None or (parts.username and parts.scheme == "https"):
        raise ValueError("credentials do not belong into a URL: set `username`, and `password_file` or `token_file`")
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"}:
            raise ValueError("a file:// URL has three slashes: file:///srv/source.git")
    elif not parts.hostname or parts.netloc.startswith("-") or parts.hostname.startswith("-"):
        raise ValueError("the URL names no host")
    return text


def _branch(text: str) -> str:
    """Accept what ``git check-ref-format --branch`` accepts."""
    parts = text.split("/")
    wrong = (
        not text
        or text.startswith("-")
        or text == "@"
        or text.endswith(".")
        or ".." in text
        or "@{" in text
        or not text.isprintable()
        or any(char in " ~^:?*[\\" for char in text)
        or any(not part or part.startswith(".") or part.endswith(".lock") for part in parts)
    )
    if wrong:
        raise ValueError(f"'{text}' cannot be the name of a branch")
    return text.removeprefix("refs/heads/")


def _folder(text: str) -> str:
    parts = [part for part in text.split("/") if part not in {"", "."}]
    if text.startswith("/") or ".." in parts or not text.isprintable():
        raise ValueError(
            f"'{text}' must be a folder of the repository, written without a leading slash and without '..'"
        )
    return "/".join(parts)


class SourceSettings(BaseModel):
    """Where the resources are, and how to get there. A value that would be silently unused is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    url: Annotated[str, AfterValidator(_url)] = Field(description="A path, or a file://, https:// or ssh:// URL.")
    branch: Annotated[str, AfterValidator(_branch)] = "main"
    path: Annotated[str, AfterValidator(_folder)] = Field(
        default="", description="The folder that holds the resources."
    )
    username: str = Field(default="", description="For https; with a token most servers accept any name.")
    password_file: Path | None = None
    token_file: Path | None = None
    ca_file: Path | None = Field(default=None, description="Certificate authority of an https server of your own.")
    ssh_key: Path | None = Field(default=None, description="Private key; by default those in ~/.ssh.")
    known_hosts: Path | None = Field(
        default=None, description="Host keys that are trusted; by default ~/.ssh/known_hosts."
    )
    fetch_timeout: Duration = 120

    @property
    def local(self) -> Path | None:
        """The repository's place on this machine, or None when it is reached over the network."""
        if self.url.startswith("file://"):
            return Path(unquote(urlsplit(self.url).path))
        if "://" in self.url or _SCP_LIKE.fullmatch(self.url):
            return None
        return Path(self.url).expanduser()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.password_file and self.token_file:
            raise ValueError("give `password_file` or `token_file`, not both")
        is_https = self.url.startswith("https://")
        for name in ("username", "password_file", "token_file", "ca_file"):
            if getattr(self, name) and not is_https:
                raise ValueError(f"`{name}` is for https:// sources")
        for name in ("ssh_key", "known_hosts"):
            path = getattr(self, name)
            if path and (is_https or self.local):
                raise ValueError(f"`{name}` is for ssh:// sources")
            if path and '"' in str(path):
                raise ValueError(f"`{name}` cannot hold a quotation mark")
        return self


class Source:
    """One branch of one repository. ``fetch`` finds the newest revision; all else reads a revision that was fetched.

    Every method but ``fetch`` and ``watch`` blocks while it reads local objects, for milliseconds; ``files`` of a large
    source for tenths of a second. They may run in any thread.
    """

    def __init__(self, settings: SourceSettings, *, state_directory: Path, bounds: Bounds | None = None) -> None:
        self.settings = settings
        digest = hashlib.sha256(settings.url.encode()).hexdigest()[:16]
        self._state = state_directory / "source"
        self._clone = self._state / f"{digest}.git"
        self._is_damaged = False
        self._fetching = asyncio.Lock()
        self._objects = GitObjects(settings.local or self._clone, bounds=bounds)

    async def fetch(self) -> str:
        """Return the revision at the head of the branch, with everything that reading it needs.

        Raises:
            TransientError: the server or the disk does not let us, now.
            TerminalError: a person must act: credentials, host key, branch, no commit yet, no Git.
        """
        if self.settings.local is not None:
            return self._head(f"refs/heads/{self.settings.branch}")
        async with self._fetching:
            access = self._access()
            with self._lock() as lock:
                try:
                    return await self._fetch_clone(access, lock)
                except Damaged as damage:
                    _log.warning("source.clone-damaged", problem=damage.message, action="cloning it anew")
                    self._is_damaged = True
                try:
                    return await self._fetch_clone(access, lock)
                except Damaged as damage:
                    raise TransientError(
                        f"the clone of the source was damaged, and a new one is damaged too: {damage.message}",
                        hint="check the disk of the director's state directory, and `git fsck` on the server",
                    ) from damage

    def files(self, revision: str) -> Files:
        """Return the resource files of ``revision``. Paths count from the root of the repository.

        Raises:
            TerminalError: no such revision, or the source's path does not exist in it.
            TransientError: our clone is damaged; the next ``fetch`` makes a new one.
        """
        with self._healing():
            return self._objects.files(revision, self.settings.path)

    def commit(self, revision: str) -> Commit:
        """Return one commit. Raises like ``files``."""
        with self._healing():
            return self._objects.commit(revision)

    def log(self, old: str | None, new: str, *, limit: int = 100) -> list[Commit]:
        """Return the commits that ``new`` has and ``old`` has not, newest first. Raises like ``files``."""
        with self._healing():
            return self._objects.log(old, new, limit=limit)

    def is_descendant(self, revision: str, *, of: str) -> bool:
        """Whether ``revision`` is built upon ``of``; if not, history was rewritten. Raises like ``files``."""
        with self._healing():
            return self._objects.is_descendant(revision, of=of)

    def resolve(self, text: str) -> str:
        """Return the revision that a person's words (``HEAD~1``, a branch, a tag, a short id) mean."""
        with self._healing():
            if self.settings.local is None and text in {self.settings.branch, "HEAD"}:
                return self._head(_OUR_BRANCH)
            return self._objects.resolve(text)

    async def watch(self) -> AsyncGenerator[None]:
        """Yield when a branch of a local repository may have moved; end at once for one behind the network.

        A nudge, not a promise: network file systems announce nothing, and polling goes on. Every commit, push and reset
        writes a file below ``refs/heads``; packing references moves no branch.
        """
        if self.settings.local is None:
            return
        folder = self._objects.references_folder()
        with contextlib.suppress(FileNotFoundError):
            async for _ in watchfiles.awatch(
                folder, watch_filter=lambda _, path: not path.endswith(".lock"), debounce=400, step=50
            ):
                yield

    # --- The clone ----------------------------------------------------------------------------------------------------

    async def _fetch_clone(self, access: git_process.Access, lock: int) -> str:
        self._clear()
        try:
            if not self._clone.exists():
                await self._git(access, lock, "init", "--bare", "--quiet", "--template=", "--", str(self._clone))
            printed = await self._git(
                access,
                lock,
                f"--git-dir={self._clone}",
                "fetch",
                "--quiet",
                "--force",
                "--no-tags",
                "--no-recurse-submodules",
                "--no-write-fetch-head",
                "--",
                access.url,
                f"+refs/heads/{self.settings.branch}:{_OUR_BRANCH}",
            )
        except git_process.GitFailed as failed:
            if git_process.means_missing_branch(failed.output):
                raise await self._missing_remote_branch(access, lock) from failed
            if git_process.means_damage(failed.output):
                raise Damaged(failed.output.strip()) from failed
            raise git_process.explain(access, failed.output) from failed
        if git_process.means_damage(printed.errors):  # it could go on, by fetching again what it found unreadable
            raise Damaged(printed.errors.strip())
        revision = self._head(_OUR_BRANCH)
        await asyncio.to_thread(self._check, revision)
        return revision

    def _clear(self) -> None:
        """Remove what a former fetch left behind: locks without an owner, or a clone that cannot be used."""
        if self._is_damaged:
            shutil.rmtree(self._clone)
            self._is_damaged = False
        for lock in self._clone.rglob("*.lock"):
            _log.warning("source.stale-lock-removed", lock=str(lock))
            lock.unlink(missing_ok=True)

    def _check(self, revision: str) -> None:
        """Read what ``files`` will read, so that damage shows while it can be healed; all else shows there."""
        try:
            self._objects.files(revision, self.settings.path)
        except Damaged:
            raise
        except TerminalError:
            return

    async def _git(self, access: git_process.Access, lock: int, *arguments: str) -> git_process.Printed:
        return await git_process.run(
            *arguments,
            environment=git_process.environment(access, home=self._state, inherited=os.environ),
            directory=self._state,
            time_limit=self.settings.fetch_timeout,
            inherit=(lock,),
        )

    @contextlib.contextmanager
    def _lock(self) -> Iterator[int]:
        """Hold the clone for this process and the git that it starts. Yields the descriptor to inherit."""
        try:
            self._state.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self._clone.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise TransientError(f"cannot write to the state directory '{self._state}': {error.strerror}") from error
        try:
            if not _locked(descriptor):
                raise TransientError(
                    "cannot fetch the source: another director, or a git it left behind, is using the clone",
                    hint="each director needs a state directory of its own",
                )
            yield descriptor
        except OSError as error:
            raise TransientError(f"cannot fetch the source into '{self._clone}': {error.strerror}") from error
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _healing(self) -> Iterator[None]:
        """A damaged clone of ours is replaced by the next fetch; somebody else's repository is left alone."""
        try:
            yield
        except Damaged as damage:
            if self.settings.local is not None:
                raise
            self._is_damaged = True
            raise TransientError(
                f"the clone of the source is damaged: {damage.message}", hint="the next fetch clones it anew"
            ) from damage

    # --- The branch ---------------------------------------------------------------------------------------------------

    def _head(self, reference: str) -> str:
        revision = self._objects.head(reference)
        if revision is not None:
            return revision
        if self.settings.local is None:
            raise Damaged(f"the clone has no {reference}")
        raise self._missing_branch(self._objects.branches())

    async def _missing_remote_branch(self, access: git_process.Access, lock: int) -> TerminalError:
        try:
            listed = await self._git(access, lock, "ls-remote", "--heads", "--", access.url)
        except git_process.GitFailed as failed:
            raise git_process.explain(access, failed.output) from failed
        return self._missing_branch([line.partition("refs/heads/")[2] for line in listed.output.splitlines()])

    def _missing_branch(self, present: list[str]) -> TerminalError:
        branch = self.settings.branch
        if not present:
            return TerminalError(
                f"the source {self.settings.url} is empty: no branch has a commit yet",
                hint=f"commit your first resources to '{branch}' (`director init` writes a start)",
            )
        near = difflib.get_close_matches(branch, present, n=1)
        listed = ", ".join(present[:10]) + (f" and {len(present) - 10} more" if len(present) > 10 else "")
        only = present[0] if len(present) == 1 else None
        meant = near[0] if near else only
        return TerminalError(
            f"the source {self.settings.url} has no branch '{branch}'; its branches are: {listed}",
            hint=f"did you mean '{meant}'? Set it as the source's `branch`" if meant else "set the source's `branch`",
        )

    # --- Credentials --------------------------------------------------------------------------------------------------

    def _access(self) -> git_process.Access:
        """Read the credentials: each time anew, so that a rotated token needs no restart."""
        settings = self.settings
        for path in (settings.ssh_key, settings.known_hosts, settings.ca_file):
            if path is not None:
                _readable(path)
        secret = settings.password_file or settings.token_file
        return git_process.Access(
            url=settings.url,
            username=settings.username or "git",
            password=_secret(secret) if secret else "",
            ca_file=settings.ca_file and settings.ca_file.absolute(),
            ssh_key=settings.ssh_key and settings.ssh_key.absolute(),
            known_hosts=settings.known_hosts and settings.known_hosts.absolute(),
        )


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _readable(path: Path) -> None:
    try:
        with path.open("rb"):
            return
    except OSError as error:
        raise TerminalError(f"cannot read '{path}', which the source needs: {error.strerror}") from error


def _secret(path: Path) -> str:
    _readable(path)
    text = path.read_text(encoding="utf-8", errors="replace").strip("\r\n")
    if not text or not text.isprintable():
        raise TerminalError(f"'{path}' must hold the source's password or token on one line, and nothing else")
    return text
