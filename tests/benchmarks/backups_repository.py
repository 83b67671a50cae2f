"""The source of ``backups_source`` as a bare Git repository, written with ``git fast-import``, which takes seconds."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

from tests.benchmarks import backups_source
from tests.git_repository import GitRepository

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_WHO: Final = b"A Person <person@example.org> 1790000000 +0000"


class BackupsRepository:
    """A repository of so many backups. ``url`` is its path."""

    def __init__(self, folder: Path, *, backups: int) -> None:
        self._git = GitRepository(folder, bare=True)
        self.url = str(folder)
        self.backups = backups
        self._commit(backups_source.texts(backups), "all backups", parent=None)

    def change(self, number: int, *, level: int) -> str:
        """Commit another compression level for one backup and return the revision."""
        return self._commit([backups_source.backup(number, level=level)], f"change {number}", parent="refs/heads/main")

    def _commit(self, texts: Iterable[tuple[str, str]], message: str, *, parent: str | None) -> str:
        words = message.encode()
        lines = [b"commit refs/heads/main\ncommitter %b\ndata %d\n%b\n" % (_WHO, len(words), words)]
        if parent is not None:
            lines.append(b"from %b^0\n" % parent.encode())
        for path, text in texts:
            data = text.encode()
            lines.append(b"M 100644 inline %b\ndata %d\n%b\n" % (path.encode(), len(data), data))
        subprocess.run(
            ["git", "-C", self.url, "fast-import", "--quiet"], input=b"".join(lines), check=True, timeout=120
        )
        return self._git.head("refs/heads/main")
