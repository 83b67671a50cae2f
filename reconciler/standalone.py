"""One machine, no network: a director and its client in one process, meeting on a Unix socket. The embedded default.

The same parts as everywhere: the client is pinned to the director's key, verifies, applies, runs and reports as it
would over the network. Only the approval is implied, for who starts this process owns both.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from client.settings import read_settings
from client.state import Enrolment, StateDirectory
from reconciler.admin import refresh_registry
from schema.errors import TerminalError
from schema.resources import Directories

if TYPE_CHECKING:
    from client.settings import ClientSettings
    from reconciler.process import Director
    from schema.envelope import ClientIdentity


@dataclass(frozen=True, slots=True)
class ThisMachine:
    """This machine as a client."""

    public_key: str
    directories: Directories


def default_directories() -> Directories:
    """Return the client's directories: the system's for root, the user's own for everybody else."""
    if os.geteuid() == 0:
        return Directories()
    home = Path.home()
    return Directories(
        config=str(home / ".config" / "borgmatic.d"), state=str(home / ".local" / "state" / "borgmatic-director-client")
    )


def default_state_directory() -> Path:
    """Return the director's state directory: the system's for root, the user's own for everybody else."""
    if os.geteuid() == 0:
        return Path("/var/lib/borgmatic-director")
    return Path.home() / ".local" / "state" / "borgmatic-director"


def this_machine() -> ThisMachine:
    """Return this machine's key, made on the first call, and where it keeps things."""
    directories = default_directories()
    return ThisMachine(_identity(directories).public.text, directories)


def _identity(directories: Directories) -> ClientIdentity:
    state = StateDirectory(Path(directories.state))
    state.prepare()
    return state.identity()


async def enrol_here(director: Director, *, name: str | None, config: Path | None) -> ClientSettings:
    """Make this machine's client one of ``director``'s, and return its settings.

    The client is the one called ``name``; without a name the one that holds this machine's key, or the only one.

    Raises:
        TerminalError: the source does not say which of its clients this machine is.
    """
    await director.reconciler.reconcile()
    settings = read_settings(config)
    clients = director.reconciler.clients()
    key = _identity(settings.directories).public.text
    chosen = name or next((one.name for one in clients if one.spec.public_key == key), None)
    if chosen is None and len(clients) == 1:
        chosen = clients[0].name
    client = next((one for one in clients if one.name == chosen), None)
    if client is None:
        known = ", ".join(one.name for one in clients) or "none"
        problem = f"there is no client '{name}'" if name else "the source does not say which client this machine is"
        raise TerminalError(
            f"{problem}; its clients are: {known}", hint="give --client NAME, or look at `director validate`"
        )
    # Here the machine's owner and the source's are one, so that the directories need not be said twice.
    directories = client.spec.directories
    settings = settings.model_copy(
        update={"name": client.name, "config_directory": directories.config, "state_directory": directories.state}
    )
    state = StateDirectory(Path(directories.state))
    state.prepare()
    key = state.identity().public.text
    if client.spec.public_key not in {None, key}:
        raise TerminalError(
            f"client '{client.name}' has another public key in the source than this machine",
            hint=f"this machine's is {key}; put it there, or name another client with --client",
        )
    if director.gateway.audience(client.name) != key:
        now = director.clock.now()
        await director.store.approve(public_key=key, name=client.name, by="standalone", at=now)
        await refresh_registry(director.store, director.gateway)
    address = director.gateway.addresses[0]
    enrolment = Enrolment(url=f"unix://{address.path}", director=director.identity.public.text)
    if state.enrolment() != enrolment:
        state.save_enrolment(enrolment)
    director.reconciler.trigger()
    return settings
