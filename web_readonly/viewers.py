"""The viewers' tokens as the director's commands keep them: a file that is read again whenever it changed.

``web_readonly.gate`` asks at each request that needs it, so that a revoked token is worth nothing at once. What cannot
be read lets nobody in.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import structlog
from pydantic import ValidationError

from schema.viewers import Viewers
from web_readonly.access import by_hash

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from schema.viewers import Viewer

_log = structlog.get_logger(__name__)

_MOST_BYTES: Final = 1_000_000


class ViewersFile:
    """The tokens in a file, by their hash."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._known: Mapping[str, Viewer] = {}

    def __call__(self) -> Mapping[str, Viewer]:
        """Return who is known now."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._seen, self._known = None, {}
            return self._known
        except OSError as error:
            self._refuse(str(error.strerror))
            return self._known
        seen = (status.st_ino, status.st_size, status.st_mtime_ns)
        if seen != self._seen:
            self._seen = seen
            self._read()
        return self._known

    def _read(self) -> None:
        try:
            with self._path.open("rb") as stream:
                if os.fstat(stream.fileno()).st_mode & 0o022:
                    self._refuse("others may write to it")
                    return
                self._known = by_hash(Viewers.model_validate_json(stream.read(_MOST_BYTES)).viewers)
        except OSError as error:
            self._refuse(str(error.strerror))
        except ValidationError:
            self._refuse("it is damaged")

    def _refuse(self, reason: str) -> None:
        """Nobody is known until the file changes."""
        if self._known or self._seen is not None:
            _log.error("web.viewers-unreadable", path=str(self._path), reason=reason, hint="no token lets anybody in")
        self._known = {}
