"""A real scratch Git repository for tests, driven by the git program: nothing of the person's own Git takes part."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "A Person",
    "GIT_AUTHOR_EMAIL": "person@example.org",
    "GIT_COMMITTER_NAME": "A Person",
    "GIT_COMMITTER_EMAIL": "person@example.org",
    "LC_ALL": "C.UTF-8",
}


class PushRefused(Exception):
    """The other side did not take a push; ``str()`` is what the pusher's terminal shows."""


class GitRepository:
    """A work tree, or with ``bare=True`` a bare repository. ``directory`` is made when it is not there."""

    def __init__(self, directory: Path, *, bare: bool = False, branch: str = "main") -> None:
        self.directory = directory
        if not directory.exists() or not any(directory.iterdir()):
            directory.mkdir(parents=True, exist_ok=True)
            kind = ["--bare"] if bare else []
            self.git("init", "--quiet", "--template=", f"--initial-branch={branch}", *kind)

    def git(self, *arguments: str, data: str | bytes = b"") -> str:
        """Run git here and return what it prints; fails the test with git's own words."""
        done = self.attempt(*arguments, data=data)
        if done.returncode:
            raise AssertionError(f"git {' '.join(arguments)}: {done.stderr}")
        return done.stdout.strip()

    def attempt(self, *arguments: str, data: str | bytes = b"") -> subprocess.CompletedProcess[str]:
        """Run git here, whatever comes of it."""
        text = data.decode() if isinstance(data, bytes) else data
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.directory), **_ENVIRONMENT}
        return subprocess.run(
            ["git", *arguments],
            cwd=self.directory,
            env=environment,
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=60,
        )

    def write(self, path: str, text: str | bytes) -> Path:
        """Write a file into the work tree; it is not committed yet."""
        file = self.directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return file

    def commit(self, message: str = "a change", **files: str) -> str:
        """Commit all of the work tree (also no change) and return the revision. ``name="text"`` writes name.yaml."""
        for name, text in files.items():
            self.write(f"{name}.yaml", text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", f"--message={message}")
        return self.head()

    def head(self, reference: str = "HEAD") -> str:
        return self.git("rev-parse", "--verify", reference)

    def branch(self, name: str, *, at: str = "HEAD") -> None:
        """Create or move a branch and check it out."""
        self.git("checkout", "--quiet", "-B", name, at)

    def merge(self, name: str) -> str:
        self.git("merge", "--quiet", "--no-ff", "--no-edit", name)
        return self.head()

    def reset(self, revision: str) -> None:
        self.git("reset", "--quiet", "--hard", revision)

    def push(self, to: Path | str, *refspecs: str, force: bool = False) -> str:
        """Push and return what the pusher's terminal shows.

        Raises:
            PushRefused: the other side did not take it.
        """
        options = ["--force"] if force else []
        done = self.attempt("push", *options, str(to), *(refspecs or ("HEAD",)))
        if done.returncode:
            raise PushRefused(done.stderr)
        return done.stderr
