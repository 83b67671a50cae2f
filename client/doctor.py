"""What could keep this machine from being backed up, looked for before it does. Called by ``director-client doctor``.

Reads, asks and connects, and changes nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import platform
import re
import shlex
import ssl
import stat
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from client import borgmatic, borgmatic_output, policy, readiness
from client.inventory import Inventories
from client.known_repositories import KnownRepositories
from client.state import StateDirectory, check_ownership
from client.turns import Turns
from schema.errors import DirectorError, TerminalError
from schema.observed import Versions
from schema.scalars import format_duration

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from client.borgmatic import Start
    from client.clock import Clock
    from client.settings import ClientSettings
    from schema.desired import DesiredState, Job
    from schema.observed import ArchivesSeen

_SECONDS = 20.0
_EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)
"""A clock before our own release is wrong."""
_TESTED_BORGMATIC = (2, 1, 10)
_OLDEST_BORG = (1, 2)


class Level(StrEnum):
    """``error`` keeps something from working; ``warning`` is worth a look."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: str
    level: Level
    message: str
    hint: str = ""


async def examine(settings: ClientSettings, *, state: DesiredState | None, clock: Clock) -> list[Finding]:
    """Look at everything; ``state`` is the desired state that this machine follows, when it has one."""
    found = [
        *await _programs(settings),
        *_directories(settings),
        *_identity(settings),
        *_policy(settings),
        *_clock(state, clock),
    ]
    found += [finding async for finding in _director(settings)]
    if state is not None:
        found += list(_ssh_keys(state))
        found += [finding async for finding in _repositories(settings, state, clock)]
    return found


async def versions(program: str, *, start: Start = borgmatic.start) -> Versions:
    """Return the versions of what is installed; empty where it is not there."""
    return Versions(
        client=_own_version(),
        borgmatic=await _version(borgmatic.find(program), start=start),
        borg=(await _version("borg", start=start)).removeprefix("borg "),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
    )


def _own_version() -> str:
    try:
        return metadata.version("borgmatic-director")
    except metadata.PackageNotFoundError:
        return ""


async def _version(program: str, *, start: Start) -> str:
    try:
        ended = await borgmatic.call(
            [program, "--version"], environment=borgmatic.environment(os.environ), timeout=_SECONDS, start=start
        )
    except DirectorError:
        return ""
    lines = ended.stdout.decode("utf-8", "replace").splitlines()
    return lines[0].strip()[:200] if ended.exit_code == 0 and lines else ""


async def _programs(settings: ClientSettings) -> list[Finding]:
    found = await versions(settings.borgmatic)
    return [
        _judge_borgmatic(found.borgmatic, settings.borgmatic),
        _judge_borg(found.borg),
        Finding("python", Level.OK, f"Python {found.python}, {sys.executable}"),
    ]


def _judge_borgmatic(version: str, program: str) -> Finding:
    if not version:
        hint = borgmatic.BorgmaticMissing(program).hint
        return Finding("borgmatic", Level.ERROR, f"'{program}' cannot be started", hint)
    if _numbers(version) < _TESTED_BORGMATIC:
        tested = ".".join(map(str, _TESTED_BORGMATIC))
        hint = "options that the director allows may be refused here: upgrade borgmatic"
        return Finding("borgmatic", Level.WARNING, f"borgmatic {version} is older than {tested}", hint)
    return Finding("borgmatic", Level.OK, f"borgmatic {version}")


def _judge_borg(version: str) -> Finding:
    if not version:
        return Finding("borg", Level.ERROR, "Borg is not on PATH", "install the package borgbackup")
    if not _OLDEST_BORG <= _numbers(version)[:2] < (2,):
        return Finding("borg", Level.WARNING, f"Borg {version} is not tested", "use Borg 1.2 or 1.4")
    return Finding("borg", Level.OK, f"Borg {version}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _directories(settings: ClientSettings) -> Iterator[Finding]:
    for what, path in (
        ("configuration directory", Path(settings.config_directory)),
        ("state directory", Path(settings.state_directory)),
    ):
        try:
            check_ownership(path, what=f"the {what}")
        except FileNotFoundError:
            hint = "it is made when the first desired state is applied"
            yield Finding(what, Level.WARNING, f"{path} does not exist yet", hint)
        except OSError as error:
            yield Finding(what, Level.ERROR, f"{path}: {error.strerror}", "run it as root")
        except TerminalError as error:
            yield Finding(what, Level.ERROR, error.message, error.hint)
        else:
            writable = os.access(path, os.W_OK)
            level = Level.OK if writable else Level.ERROR
            yield Finding(
                what, level, f"{path}{'' if writable else ' cannot be written'}", "" if writable else "run it as root"
            )


def _identity(settings: ClientSettings) -> Iterator[Finding]:
    directory = StateDirectory(Path(settings.state_directory))
    key = directory.path / "identity"
    try:
        status = key.stat()
    except OSError:
        yield Finding("identity", Level.ERROR, f"this machine has no key yet ({key})", "director-client enroll -")
        return
    if stat.S_IMODE(status.st_mode) & 0o077:
        yield Finding("identity", Level.ERROR, f"{key} can be read by others", f"chmod 600 {key}")
    else:
        yield Finding("identity", Level.OK, f"{key}")
    try:
        enrolment = directory.enrolment()
    except DirectorError as error:
        yield Finding("enrolment", Level.ERROR, error.message, error.hint)
        return
    if enrolment is None:
        yield Finding("enrolment", Level.ERROR, "this machine follows no director", "director-client enroll -")
    else:
        yield Finding("enrolment", Level.OK, f"follows {enrolment.url}")


def _policy(settings: ClientSettings) -> Iterator[Finding]:
    own = settings.policy
    if "*" in own.write_repositories:
        yield Finding(
            "policy",
            Level.WARNING,
            "the director may name any repository to back up to",
            "list yours in client.toml, so that a stolen director cannot send backups elsewhere: "
            'policy.write_repositories = ["ssh://borg@nas.example/*"]',
        )
    if own.options:
        names = ", ".join(own.options)
        yield Finding("policy", Level.OK, f"the director may also use these options: {names}")


def _clock(state: DesiredState | None, clock: Clock) -> Iterator[Finding]:
    now = clock.now()
    if now < _EARLIEST or (state is not None and now < state.issued):
        yield Finding(
            "clock",
            Level.ERROR,
            f"the clock says {now:%Y-%m-%d %H:%M} UTC: too early",
            "is NTP running? timedatectl",
        )
    else:
        yield Finding("clock", Level.OK, f"{now:%Y-%m-%d %H:%M} UTC")


async def _director(settings: ClientSettings) -> AsyncIterator[Finding]:
    """Try the way to the director: a connection, and TLS where it is used. Who it is, the handshake judges."""
    try:
        enrolment = StateDirectory(Path(settings.state_directory)).enrolment()
    except DirectorError:
        return
    url = settings.url or (enrolment.url if enrolment else None)
    if url is None:
        return
    parts = urlsplit(url)
    secure = parts.scheme in {"wss", "https"}
    if parts.scheme == "unix" or not parts.hostname:
        return
    context = ssl.create_default_context()
    # Only whether somebody answers: a self-signed certificate is judged by its pinned fingerprint when we connect.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    port = parts.port or (443 if secure else 80)
    try:
        async with asyncio.timeout(_SECONDS):
            _, writer = await asyncio.open_connection(parts.hostname, port, ssl=context if secure else None)
        writer.close()
    except (OSError, TimeoutError) as error:
        reason = str(error) or "no answer"
        hint = "is the director running, and does a firewall let this machine reach it?"
        yield Finding("director", Level.ERROR, f"cannot reach {parts.hostname}:{port}: {reason}", hint)
    else:
        yield Finding("director", Level.OK, f"{parts.hostname}:{port} answers{' with TLS' if secure else ''}")


def _ssh_keys(state: DesiredState) -> Iterator[Finding]:
    """Look at the private keys that the configurations name: ssh does not use one that others can read."""
    keys: set[str] = set()
    for file in state.content.files:
        if file.place == "config":
            keys |= set(_keys_in(file.content))
    for key in sorted(keys):
        try:
            mode = stat.S_IMODE(Path(key).stat().st_mode)
        except OSError as error:
            yield Finding("ssh key", Level.ERROR, f"{key}: {error.strerror}", "is the secret sealed to this client?")
            continue
        if mode & 0o077:
            yield Finding(
                "ssh key", Level.ERROR, f"{key} can be read by others, and ssh refuses it", f"chmod 600 {key}"
            )
        else:
            yield Finding("ssh key", Level.OK, key)


def _keys_in(content: str) -> Iterator[str]:
    for line in content.splitlines():
        if "ssh_command:" in line:
            try:
                words = shlex.split(line.split("ssh_command:", 1)[1].strip().strip("\"'"))
            except ValueError:
                continue
            yield from (after for word, after in itertools.pairwise(words) if word == "-i")


async def _repositories(settings: ClientSettings, state: DesiredState, clock: Clock) -> AsyncIterator[Finding]:
    """Ask every repository for its archives, and hold the newest against the objective."""
    try:
        policy.check(state.content, settings.policy, state.content.directories)
    except DirectorError as error:
        yield Finding("policy", Level.ERROR, error.message, error.hint)
    inventories = Inventories(
        program=settings.borgmatic,
        config_directory=Path(settings.config_directory),
        state_directory=Path(settings.state_directory),
        turns=Turns(state_directory=Path(settings.state_directory), clock=clock),
        pass_on=settings.policy.environment,
    )
    known = KnownRepositories(Path(settings.state_directory))
    for job in state.content.jobs:
        for seen in await inventories.inventory(job, clock.now()):
            name = f"{job.backup} in {seen.repository}"
            if not seen.available:
                yield await _away(name, job, seen, known)
            elif not seen.archives:
                yield Finding(name, Level.WARNING, "there is no archive yet", f"director-client once {job.backup}")
            else:
                age = int((clock.now() - seen.archives[0].start).total_seconds())
                late = job.rpo is not None and age > job.rpo
                promise = f", and at most {format_duration(job.rpo)} are promised" if late and job.rpo else ""
                level = Level.WARNING if late else Level.OK
                yield Finding(
                    name, level, f"{seen.count} archives, the newest {format_duration(max(age, 0))} old{promise}"
                )


async def _away(name: str, job: Job, seen: ArchivesSeen, known: KnownRepositories) -> Finding:
    """Say of a repository that cannot be read what the next run would: lost, still to be made, or why not."""
    repository = next(one for one in job.repositories if one.name == seen.repository)
    looked = await readiness.look_at(repository)
    if looked.failure is not None:
        return Finding(name, Level.ERROR, looked.failure.error, looked.failure.hint)
    if not looked.absent and not (repository.create and borgmatic_output.is_missing(seen.message, repository.url)):
        return Finding(name, Level.ERROR, seen.message, "")
    before = known.find(repository.url)
    if before is None:
        return Finding(name, Level.WARNING, "the first run makes the repository", f"director-client once {job.backup}")
    lost = readiness.gone(repository, before)
    return Finding(name, Level.ERROR, lost.error, lost.hint)
