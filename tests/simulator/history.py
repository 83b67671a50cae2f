"""Git without Git: a branch of commits with real file bytes, which people push to, force-push, and break.

Implements ``reconciler.process.WatchedSource``. What a commit means, ``fleet`` says.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from datetime import datetime
from random import Random

from reconciler.core.catalogue import SourceFile
from reconciler.source import Commit
from reconciler.source_files import Files
from schema.errors import TransientError


@dataclass(frozen=True, slots=True)
class Pushed:
    """One commit and all its files."""

    commit: Commit
    files: Files


class History:
    """The branch."""

    def __init__(self, random: Random, *, base: str) -> None:
        """``base`` is where the world is: a revision's name does not depend on it."""
        self._random = random
        self._base = base
        self._commits: dict[str, Pushed] = {}
        self._moved: list[asyncio.Event] = []
        self.head = ""
        self.is_away = False
        """Whether nothing can be fetched."""

    # --- People -------------------------------------------------------------------------------------------------------

    def push(self, files: Mapping[str, str], *, message: str, at: datetime, onto: str | None = None) -> str:
        """Move the branch to a new commit upon ``onto`` (by default the head: no force) and return its revision."""
        parent = self.head if onto is None else onto
        text = f"{parent}\0{message}\0{sorted(files.items())}\0{at.isoformat()}".replace(self._base, "")
        revision = hashlib.sha1(text.encode()).hexdigest()
        commit = Commit(
            revision=revision,
            author="A Person <person@example.org>",
            committed=at,
            message=message,
            trailers={},
            parents=(parent,) if parent else (),
        )
        content = tuple(
            SourceFile(path=path, blob=hashlib.sha1(text.encode()).hexdigest(), data=text.encode())
            for path, text in sorted(files.items())
        )
        self._commits[revision] = Pushed(commit, Files(content))
        self.head = revision
        for event in self._moved:
            event.set()
        return revision

    def forget(self) -> None:
        """Let go of the oldest commits, as far as nobody can ask for them."""
        kept = self.log(None, self.head, limit=30)
        self._commits = {one.revision: self._commits[one.revision] for one in kept}

    # --- The director -------------------------------------------------------------------------------------------------

    async def fetch(self) -> str:
        await asyncio.sleep(self._random.uniform(0.01, 0.5))
        if self.is_away:
            raise TransientError("cannot fetch: the server is away")
        return self.head

    def files(self, revision: str) -> Files:
        return self._commits[revision].files

    def commit(self, revision: str) -> Commit:
        return self._commits[revision].commit

    def log(self, old: str | None, new: str, *, limit: int = 100) -> list[Commit]:
        found: list[Commit] = []
        revision = new
        while revision in self._commits and revision != old and len(found) < limit:
            commit = self.commit(revision)
            found.append(commit)
            revision = commit.parents[0] if commit.parents else ""
        return found

    def is_descendant(self, revision: str, *, of: str) -> bool:
        while revision:
            if revision == of:
                return True
            parents = self._commits[revision].commit.parents if revision in self._commits else ()
            revision = parents[0] if parents else ""
        return False

    async def watch(self) -> AsyncGenerator[None]:
        """Yield when the branch moved."""
        moved = asyncio.Event()
        self._moved = [*self._moved[-3:], moved]
        while True:
            await moved.wait()
            moved.clear()
            yield
