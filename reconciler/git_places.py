"""Which repository a folder stands in, by files alone. For commands that need no more, and ``git_objects.discover``.

``director validate`` shows paths as they are from the root of the repository. Starting git to find that root, and
loading all that reads commits, would be a tenth of its time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def candidates(folder: Path) -> Iterator[Path]:
    """Yield the folders from here upwards that look like a repository, bare or not: git knows whether they are one."""
    for root in (folder, *folder.parents):
        if (root / ".git").exists() or ((root / "HEAD").is_file() and (root / "objects").is_dir()):
            yield root


def repository_around(folder: Path) -> Path | None:
    """Return the root of the repository around ``folder``, or None when there is none."""
    for root in candidates(folder.resolve()):
        inner = root / ".git"
        # What git itself looks for. All else, such as a linked work tree or a submodule, is asked of git.
        if (inner / "HEAD").is_file() and (inner / "objects").is_dir() and (inner / "refs").is_dir():
            return root
        from reconciler.git_objects import discover  # noqa: PLC0415 - it is what is to be spared

        place = discover(root)
        return place.repository if place is not None else None
    return None
