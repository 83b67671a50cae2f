"""Puts the client together from its settings: where its parts meet. Used by ``client.cli`` and by standalone mode."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from client import borgmatic, doctor, drift
from client.agent import Agent, Stopping
from client.apply import Applier
from client.clock import Clock, SystemClock
from client.connection import Credentials
from client.contents import Listings
from client.dial import WebSocketDialer
from client.follower import Follower
from client.inventory import Inventories
from client.outbox import Outbox
from client.runner import Runner
from client.state import Enrolment, StateDirectory
from client.turns import Turns
from schema.errors import DirectorError, TerminalError

if TYPE_CHECKING:
    from datetime import datetime

    from client.borgmatic import Start
    from client.settings import ClientSettings
    from schema.desired import DesiredState, Job, SealedSecret
    from schema.envelope import ClientIdentity
    from schema.observed import Archive, ArchiveContents, ArchivesSeen, Drift, Versions


@dataclass(frozen=True, slots=True)
class ThisMachine:
    """The real ``client.agent.Machine``."""

    runner: Runner
    applier: Applier
    watch: drift.Watch
    inventories: Inventories
    listings: Listings
    program: str
    start: Start

    async def drift(self, state: DesiredState, now: datetime) -> tuple[Drift, ...]:
        found = self.watch.detect(state, now=now)
        return self.watch.heal(state, found, applier=self.applier) if found else ()

    async def inventory(self, job: Job, now: datetime) -> tuple[ArchivesSeen, ...]:
        return await self.inventories.inventory(job, now)

    async def contents(self, job: Job, repository: str, archive: Archive, now: datetime) -> ArchiveContents:
        return await self.listings.contents(job, repository, archive, now)

    async def versions(self) -> Versions:
        return await doctor.versions(self.program, start=self.start)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the agent and ``director-client once`` share."""

    settings: ClientSettings
    clock: Clock
    directory: StateDirectory
    identity: ClientIdentity
    enrolment: Enrolment | None
    machine: ThisMachine
    follower: Follower


def build_parts(settings: ClientSettings, *, clock: Clock, start: Start = borgmatic.start) -> Parts:
    """Return the parts that need neither the outbox nor the director. Makes the state directory when it is missing."""
    directory = StateDirectory(Path(settings.state_directory))
    directory.prepare()
    identity = directory.identity()
    enrolment = directory.enrolment()

    def unseal(secret: SealedSecret, client: str) -> bytes:
        return identity.open_sealed(secret.sealed, secret=secret.secret, key=secret.key, client=client)

    applier = Applier(
        program=settings.borgmatic,
        directories=settings.directories,
        policy=settings.policy,
        unseal=unseal,
        start=start,
    )
    config, state = Path(settings.config_directory), Path(settings.state_directory)
    turns = Turns(state_directory=state, clock=clock)
    passed = settings.policy.environment
    machine = ThisMachine(
        runner=Runner(
            program=settings.borgmatic,
            config_directory=config,
            state_directory=state,
            clock=clock,
            turns=turns,
            pass_on=passed,
            start=start,
        ),
        applier=applier,
        watch=drift.Watch(applier.places),
        inventories=Inventories(
            program=settings.borgmatic,
            config_directory=config,
            state_directory=state,
            turns=turns,
            pass_on=passed,
            start=start,
        ),
        listings=Listings(
            program=settings.borgmatic,
            config_directory=config,
            state_directory=state,
            turns=turns,
            allowed=settings.policy.contents != "none",
            pass_on=passed,
            start=start,
        ),
        program=settings.borgmatic,
        start=start,
    )
    follower = Follower(
        directory=directory, own_key=identity.public.text, enrolment=enrolment, applier=applier, clock=clock
    )
    return Parts(settings, clock, directory, identity, enrolment, machine, follower)


def build_agent(
    settings: ClientSettings,
    *,
    clock: Clock | None = None,
    random: Random | None = None,
    start: Start = borgmatic.start,
) -> Agent:
    """Return this machine's agent; ``await agent.run()`` lives until ``agent.stop()``.

    The simulator hands in its own time, dice and way of starting programs.

    Raises:
        TerminalError: the client follows no director yet, or its state directory is not to be trusted.
    """
    clock = clock or SystemClock()
    parts = build_parts(settings, clock=clock, start=start)
    if parts.enrolment is None:
        raise TerminalError(
            "this client is not enrolled",
            hint="on the director: director token create; then here: director-client enroll -",
        )
    # Before the outbox is opened: two agents would send one outbox twice.
    parts.directory.lock()
    try:
        outbox = Outbox(parts.directory.outbox, now=clock.now)
    except DirectorError:
        parts.directory.unlock()
        raise
    return Agent(
        directory=parts.directory,
        follower=parts.follower,
        outbox=outbox,
        machine=parts.machine,
        clock=clock,
        random=random or Random(),
        director=(
            dialer(settings, parts.enrolment),
            credentials(settings, parts.identity, parts.enrolment),
        ),
        stopping=Stopping(settings.stop, float(settings.stop_timeout)),
    )


def dialer(settings: ClientSettings, enrolment: Enrolment) -> WebSocketDialer:
    """Return what dials the director, where the settings or the enrolment say that it is."""
    return WebSocketDialer(settings.url or enrolment.url, enrolment.certificate, settings.ca_file)


def credentials(
    settings: ClientSettings, identity: ClientIdentity, enrolment: Enrolment, *, token: str | None = None
) -> Credentials:
    """Return who we are and whom we accept."""
    return Credentials(
        identity=identity,
        name=settings.name,
        director=enrolment.key,
        token=token,
        client_version=client_version(),
        config_directory=settings.config_directory,
        state_directory=settings.state_directory,
        behind_proxy=settings.behind_proxy,
    )


def client_version() -> str:
    """Return the version of this program."""
    try:
        return metadata.version("borgmatic-director")
    except metadata.PackageNotFoundError:
        return ""
