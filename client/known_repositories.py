"""The repositories into which this machine has backed up: one that is gone is never made anew by itself.

``create: true`` means "on first use". A repository that held archives and is not there any more is a loss that a
person must hear of; an empty one in its place would look protected. ``runner`` asks and notes; a person lets it begin
anew with ``director-client forget-repository``.

One file for each url, so that the service and ``director-client once`` never overwrite each other's notes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from client.state import PRIVATE_DIRECTORY, write_atomically
from schema.errors import TransientError


class KnownRepository(BaseModel):
    """A repository that holds archives of this machine, or did."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    url: str
    name: str
    since: datetime
    """When this machine first made an archive in it."""


@dataclass(frozen=True, slots=True)
class KnownRepositories:
    """The notes in ``state_directory/repositories``."""

    state_directory: Path

    def find(self, url: str) -> KnownRepository | None:
        """Return the repository at ``url`` if this machine has backed up into it."""
        return _read(self._file(url))

    def note(self, repository: KnownRepository) -> None:
        """Remember a repository; the first note of a url stays.

        Raises:
            TransientError: the disk does not take it.
        """
        file = self._file(repository.url)
        if _read(file) is not None:
            return
        try:
            file.parent.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        except OSError as error:
            raise TransientError(f"cannot make {file.parent}: {error.strerror}") from error
        write_atomically(file, repository.model_dump_json().encode())

    def all(self) -> list[KnownRepository]:
        """Return the repositories that are remembered, by name and url."""
        found = (_read(file) for file in (self.state_directory / "repositories").glob("*.json"))
        return sorted((one for one in found if one is not None), key=lambda one: (one.name, one.url))

    def forget(self, repository: KnownRepository) -> None:
        """Let ``repository`` be made anew when it is gone. Touches nothing but the note."""
        self._file(repository.url).unlink(missing_ok=True)

    def _file(self, url: str) -> Path:
        return self.state_directory / "repositories" / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"


def _read(file: Path) -> KnownRepository | None:
    try:
        return KnownRepository.model_validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
