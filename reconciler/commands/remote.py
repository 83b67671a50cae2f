"""Talks to a running director through its Unix socket. Synchronous and small, so that commands start fast."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from reconciler.commands.output import CouldNotRun

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MOST_BYTES = 64 * 1024 * 1024
_TIMEOUT_SECONDS = 330.0  # longer than the slowest reconcile


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("director", timeout=_TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Remote:
    """One director's socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, question: str, **arguments: object) -> Any:
        """Return the JSON answer to a question."""
        wanted = {name: str(value) for name, value in arguments.items() if value is not None and value != ""}
        return self._request("GET", f"/v1/read/{question}" + (f"?{urlencode(wanted)}" if wanted else ""))

    def operate(self, operation: str, **arguments: object) -> Any:
        """Carry out an operation and return its JSON result."""
        wanted = {name: value for name, value in arguments.items() if value is not None}
        return self._request("POST", f"/v1/{operation}", json.dumps(wanted))

    def changes(self) -> Iterator[str]:
        """Yield notices of what changed, until the director stops (also when it dies)."""
        connection, response = self._open("GET", "/v1/changes", None)
        connection.sock.settimeout(None)
        with connection.sock, contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            for line in response:
                yield json.loads(line)

    def _request(self, method: str, path: str, body: str | None = None) -> Any:
        connection, response = self._open(method, path, body)
        try:
            data = response.read(_MOST_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise CouldNotRun(f"the director did not finish its answer: {error}") from error
        finally:
            connection.close()
        try:
            answer = json.loads(data)
        except ValueError:
            raise CouldNotRun(f"what answers on {self._path} is not a director: {response.status}") from None
        if response.status != http.client.OK:
            raise CouldNotRun(
                answer.get("error", f"the director answered {response.status}"), hint=answer.get("hint", "")
            )
        return answer

    def _open(
        self, method: str, path: str, body: str | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = _UnixConnection(self._path)
        try:
            connection.request(method, path, body=body, headers={"Content-Type": "application/json"})
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._explained(error) from None

    def _explained(self, error: Exception) -> CouldNotRun:
        if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
            return CouldNotRun(
                f"no director is running (nobody answers on {self._path})",
                hint="start it (`director run`, `director standalone`), or say which: --state-directory or --config",
            )
        if isinstance(error, PermissionError):
            return CouldNotRun(
                f"you may not use {self._path}",
                hint="operational commands are for the director's own user: use sudo -u",
            )
        return CouldNotRun(f"the director does not answer on {self._path}: {error}")
