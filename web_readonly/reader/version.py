"""Which moment of the store would be read now: a text that is another one after every write, and costs next to nothing.

``web_readonly.live`` asks it to tell viewers that something changed, ``web_readonly.caching`` to know whether an answer
still holds. It is SQLite's own ``data_version``, which counts what *other* connections commit: so all who compare two
of these texts must have them from one ``StoreVersion``.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from pathlib import Path


class StoreVersion:
    """One read-only connection that only ever asks for the version. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._opening = ""
        """Versions of two connections cannot be compared, not even with those of a process that was here before."""

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._close()

    def read(self) -> str:
        """Return the version; empty when the store cannot be read at this moment. Blocks for no lock of others."""
        with self._lock:
            try:
                (number,) = self._current().execute("PRAGMA data_version").fetchone()
            except (OSError, sqlite3.Error):
                self._close()
                return ""
            return f"{self._opening}-{number}"

    def _current(self) -> sqlite3.Connection:
        """Return the connection; a new one when another file took the path."""
        found = self._path.stat()
        file = (found.st_dev, found.st_ino)
        if self._connection is not None and self._file == file:
            return self._connection
        self._close()
        address = f"file:{quote(str(self._path.absolute()))}?mode=ro"
        self._connection = sqlite3.connect(address, uri=True, timeout=0, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA query_only = ON")
        self._file, self._opening = file, secrets.token_hex(4)
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._file = None
