"""Whether a run may use a repository, or make it. Used by ``runner``.

Only what this machine can see for itself; Borg judges the rest.
"""

from __future__ import annotations

import asyncio
import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from client.known_repositories import KnownRepository
    from schema.desired import DesiredRepository


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a repository, or the whole run, failed."""

    error: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Readiness:
    """What is to be done with a repository before a run: use it, make it, or leave it alone."""

    failure: Failure | None = None
    absent: bool = False
    """It is not there, and nothing speaks against making it."""


READY = Readiness()


async def look_at(repository: DesiredRepository) -> Readiness:
    """Look whether a local repository is there, and whether its disk is."""
    if not repository.url.startswith("/"):
        return READY
    mountpoint = repository.mountpoint
    if mountpoint is not None and not await asyncio.to_thread(os.path.ismount, mountpoint):
        return _failed(
            f"nothing is mounted at {mountpoint}, where repository '{repository.name}' is",
            f"mount it: mount {mountpoint}",
        )
    if not await asyncio.to_thread(_is_absent, Path(repository.url)):
        return READY
    if not repository.create:
        return _failed(
            f"repository '{repository.name}' does not exist at {repository.url}",
            "if it should be made, say `create: true` in the Repository; if not, is its disk mounted?",
        )
    parent = Path(repository.url).parent
    if mountpoint is None and not await asyncio.to_thread(parent.is_dir):
        return _failed(
            f"repository '{repository.name}' is not made, for there is no folder {parent}: is its disk mounted?",
            f"make the folder (mkdir {parent}), or name the `mountpoint` in the Repository",
        )
    return Readiness(absent=True)


def gone(repository: DesiredRepository, known: KnownRepository) -> Failure:
    """Return why a repository that held this machine's archives is not made anew."""
    return Failure(
        f"repository '{repository.name}' is gone: this machine has backed up into it since "
        f"{known.since:%Y-%m-%d}, and there is none at {repository.url} any more",
        "is its disk mounted, was it moved or deleted? bring it back; or, to begin a new and empty one, run on "
        f"this machine: director-client forget-repository {repository.name}",
    )


def _failed(error: str, hint: str) -> Readiness:
    return Readiness(Failure(error, hint))


def _is_absent(path: Path) -> bool:
    """Whether there is certainly nothing at ``path``. An empty folder is nothing; what cannot be seen is not."""
    try:
        with os.scandir(path) as entries:
            return next(entries, None) is None
    except FileNotFoundError:
        return True
    except OSError as error:
        return error.errno == errno.ENOENT
