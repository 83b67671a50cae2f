"""One machine, no network: a director and its client in one process, meeting on a Unix socket. The embedded default.

The same parts as everywhere: the client is pinned to the director's key, verifies, applies, runs and reports as it
would over the network. Only the approval is implied, for who starts this process owns both.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from client import log
from client.build import build_agent
from client.settings import read_settings
from client.state import Enrolment, StateDirectory
from reconciler.admin import refresh_registry
from schema.directories import Directories
from schema.errors import TerminalError
from schema.resources import Client

if TYPE_CHECKING:
    from collections.abc import Sequence

    from client.agent import Agent
    from client.settings import ClientSettings
    from reconciler.process import Director
    from schema.envelope import ClientIdentity

_log = structlog.get_logger(__name__)


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


_PLACES = ("config_directory", "state_directory")


def this_machine(config: Path | None) -> ThisMachine:
    """Return this machine's key, made on the first call, and where it keeps things."""
    directories = _machine(read_settings(config)).directories
    return ThisMachine(_identity(directories).public.text, directories)


def _machine(settings: ClientSettings) -> ClientSettings:
    """Return the settings with this user's own directories, where client.toml names none."""
    default = default_directories()
    unsaid = set(_PLACES) - settings.model_fields_set
    places = dict(zip(_PLACES, (default.config, default.state), strict=True))
    return settings.model_copy(update={name: places[name] for name in unsaid})


def _identity(directories: Directories) -> ClientIdentity:
    state = StateDirectory(Path(directories.state))
    state.prepare()
    return state.identity()


async def follow_here(director: Director, *, name: str | None, config: Path | None) -> None:
    """Be this machine's client until cancelled: as soon as the source says which of its clients this machine is.

    Until then it waits and says what to do, for that is mended by a commit.

    Raises:
        TerminalError: the machine's own settings cannot be used, or another agent runs here: no commit mends that.
    """
    log.through_structlog()
    agent = build_agent(await _enrolled(director, name=name, config=config))
    running = asyncio.create_task(agent.run())
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await _stop(agent, running)
        raise


async def _stop(agent: Agent, running: asyncio.Task[None]) -> None:
    """Let the agent end what runs and report it; cancelled once more, it ends at once."""
    agent.stop()
    try:
        await running
    finally:
        running.cancel()


async def _enrolled(director: Director, *, name: str | None, config: Path | None) -> ClientSettings:
    """Wait for a source in which this machine is a client; approve its key, pin the director's, return its settings."""
    said = ""
    settings = read_settings(config)
    while True:
        # Asked for before looking, so that a pass that ends meanwhile is not missed.
        passed = director.reconciler.passed()
        if director.reconciler.ready:
            try:
                client = choose(director.reconciler.clients(), name=name, key=_key(settings))
                settings_here = here(client, settings)
                identity = _identity(settings_here.directories)
                check_key(client, identity.public.text)
            except TerminalError as problem:
                if said != problem.message:
                    _log.warning("waiting for a commit", problem=problem.message, hint=problem.hint)
                    said = problem.message
            else:
                await _approve(director, client.name, identity.public.text)
                _pin(director, settings_here)
                return settings_here
        await passed


def _key(settings: ClientSettings) -> str:
    """Return this machine's public key where it has one already; nothing is made before a client is chosen."""
    state = StateDirectory(Path(_machine(settings).state_directory))
    return state.identity().public.text if (state.path / "identity").exists() else ""


def choose(clients: Sequence[Client], *, name: str | None, key: str) -> Client:
    """Return the client called ``name``; without a name the one that holds this machine's ``key``, or the only one.

    Raises:
        TerminalError: the source does not say which one is meant.
    """
    wanted = name or next((one.name for one in clients if key and one.spec.public_key == key), None)
    if wanted is None and len(clients) == 1:
        wanted = clients[0].name
    chosen = next((one for one in clients if one.name == wanted), None)
    if chosen is not None:
        return chosen
    if not clients:
        raise TerminalError(
            "nothing is published yet that names a client",
            hint="commit a Client and what it backs up (`director init` writes a start, `director validate` checks it)",
        )
    problem = f"there is no client '{name}'" if name else "the source does not say which client this machine is"
    known = ", ".join(one.name for one in clients)
    raise TerminalError(f"{problem}; its clients are: {known}", hint="give --client NAME, or commit this machine's key")


def here(client: Client, settings: ClientSettings) -> ClientSettings:
    """Return the settings of ``client`` here: its directories are the source's, unless client.toml names some.

    Raises:
        TerminalError: they name different ones; what is rendered would point to the wrong place.
    """
    said = client.spec.directories
    own = _machine(settings).directories if settings.model_fields_set & set(_PLACES) else said
    if own != said or (said == Directories() and os.geteuid() != 0):
        wanted = own if own != said else default_directories()
        raise TerminalError(
            f"client '{client.name}' cannot keep its files where the source says: in {said.config} and {said.state}",
            hint=f'commit in its spec: directories: {{config: "{wanted.config}", state: "{wanted.state}"}}',
        )
    return settings.model_copy(
        update={"name": client.name, "config_directory": said.config, "state_directory": said.state}
    )


def check_key(client: Client, key: str) -> None:
    """Refuse a client that is another machine."""
    if client.spec.public_key not in {None, key}:
        raise TerminalError(
            f"client '{client.name}' has another public key in the source than this machine",
            hint=f"this machine's is {key}; commit that, or name another client with --client",
        )


async def _approve(director: Director, name: str, key: str) -> None:
    if director.gateway.audience(name) != key:
        now = director.clock.now()
        await director.store.approve(public_key=key, name=name, by="standalone", at=now)
        await refresh_registry(director.store, director.gateway)
        director.reconciler.trigger()


def _pin(director: Director, settings: ClientSettings) -> None:
    state = StateDirectory(Path(settings.state_directory))
    url = f"unix://{director.gateway.addresses[0].path}"
    before, key = state.enrolment(), director.identity.public.text
    if before is None or (before.url, before.director) != (url, key):
        state.save_enrolment(Enrolment(url=url, director=key))
