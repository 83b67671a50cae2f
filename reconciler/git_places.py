"""What looks like a Git repository, by files alone. For commands that need no more, and ``git_objects.discover``."""

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


def is_usual(root: Path) -> bool:
    """Whether ``root`` holds what git itself looks for. Linked work trees, submodules and bare repositories do not."""
    inner = root / ".git"
    return (inner / "HEAD").is_file() and (inner / "objects").is_dir() and (inner / "refs").is_dir()
