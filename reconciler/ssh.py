"""SSH as people meet it when they set up a repository: host keys to put into ``knownHosts``, and a test of the way.

The command line calls this; backups themselves go through Borg's own ``ssh``. Nothing of the user's SSH configuration
takes part, so the answer is the one that a client with the same key and host keys would get.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import asyncssh

from schema.errors import DirectorError, TerminalError, TransientError

if TYPE_CHECKING:
    from pathlib import Path

_HOST_KEY_TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512")
"""One per family, the best first. A server shows one key in one connection, so each is asked for on its own."""


@dataclass(frozen=True, slots=True)
class HostKey:
    """A host key as the server showed it: worth as much as the network it came through, until a person compares it."""

    line: str
    """For a known hosts file, and for ``knownHosts`` of a ``Repository``."""
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Connection:
    """A login that worked. ``borg`` is what ``borg --version`` answered; empty behind a forced command."""

    host: str
    borg: str


async def host_keys(host: str, *, port: int = 22, time_limit: float = 15) -> list[HostKey]:
    """Ask a server for its host keys.

    Raises:
        TransientError: nobody answers there, or not with SSH.
    """
    found: list[HostKey] = []
    lost: Exception | None = None
    name = host if port == 22 else f"[{host}]:{port}"
    for kind in _HOST_KEY_TYPES:
        try:
            async with asyncio.timeout(time_limit):
                key = await asyncssh.get_server_host_key(host, port, server_host_key_algs=[kind], config=None)
        except (asyncssh.KeyExchangeFailed, asyncssh.ConnectionLost, ConnectionResetError) as error:
            lost = error  # how servers say, politely or not, that they have no key of this kind
            continue
        except (OSError, TimeoutError, asyncssh.Error) as error:
            raise _unreachable(host, port, error) from error
        if key is not None:
            public = key.export_public_key("openssh").decode().split()
            found.append(HostKey(f"{name} {public[0]} {public[1]}", key.get_fingerprint()))
    if not found and lost is not None:
        raise _unreachable(host, port, lost) from lost
    return found


async def check(
    url: str, *, key_file: Path | None, known_hosts: Path, borg: str = "borg", time_limit: float = 20
) -> Connection:
    """Log in to the server of an ``ssh://`` repository as a client would, and ask for its Borg.

    Raises:
        TransientError: the server cannot be reached.
        TerminalError: it can, and a person must act: host key, login, or no Borg there.
    """
    parts = urlsplit(url)
    if parts.scheme != "ssh" or not parts.hostname:
        raise TerminalError(f"only ssh:// repositories have a connection to test, not {url}")
    try:
        async with (
            asyncio.timeout(time_limit),
            asyncssh.connect(
                parts.hostname,
                parts.port or 22,
                username=parts.username or (),
                client_keys=[str(key_file)] if key_file else None,
                known_hosts=str(known_hosts),
                agent_path=None,
                config=None,
                password_auth=False,
                kbdint_auth=False,
            ) as connection,
        ):
            answer = await connection.run(
                f"{borg} --version", stdin=asyncssh.DEVNULL, encoding="utf-8", errors="replace"
            )
    except (OSError, TimeoutError, asyncssh.Error, ValueError) as error:
        raise _explained(parts.hostname, parts.port or 22, error) from error
    if answer.exit_status == 127:
        raise TerminalError(
            f"{parts.hostname} lets us in, but has no program '{borg}'", hint="install borgbackup there"
        )
    text = str(answer.stdout or "").strip()
    return Connection(parts.hostname, text if text.startswith("borg ") else "")


def _explained(host: str, port: int, error: Exception) -> DirectorError:
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return TerminalError(
            f"the host key of {host} is not one of those in the known hosts",
            hint="compare the server's key with what its administrator says before you add or replace a line",
        )
    if isinstance(error, asyncssh.PermissionDenied):
        return TerminalError(
            f"{host} refused the login: {error.reason}", hint="add the public key to authorized_keys of that user"
        )
    if isinstance(error, (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, FileNotFoundError, ValueError)):
        return TerminalError(f"cannot use the key or the known hosts: {error}", hint="the key must have no passphrase")
    return _unreachable(host, port, error)


def _unreachable(host: str, port: int, error: Exception) -> TransientError:
    reason = "no answer in time" if isinstance(error, TimeoutError) else str(error)
    return TransientError(
        f"cannot reach {host} on port {port}: {reason}", hint="check the name, the port and firewalls"
    )
