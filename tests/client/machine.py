"""What the tests of the client's machine share: desired states, and the programs that stand in for borgmatic."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from schema.desired import (
    Content,
    DesiredRepository,
    DesiredSchedule,
    DesiredState,
    Job,
    ManagedFile,
    SealedSecret,
)
from schema.directories import Directories

PROGRAMS = Path(__file__).parent / "programs"
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def program(name: str) -> str:
    """Return the path of a stand-in, ``hangs`` or ``accepts``."""
    return str(PROGRAMS / f"borgmatic-{name}")


def config(*, repository: str = "/mnt/nas/web", options: str = "source_directories:\n  - /etc\nkeep_daily: 7\n") -> str:
    """Return a borgmatic configuration."""
    return f"repositories:\n  - path: {repository}\n    label: nas\n    encryption: none\n{options}"


def job(backup: str = "web", *, url: str = "/mnt/nas/web", create: bool = False, **changes: Any) -> Job:
    """Return a job with one repository."""
    return Job(
        backup=backup,
        file=f"{backup}.yaml",
        schedule=None,
        actions=("create", "prune"),
        repositories=(DesiredRepository(name="nas", url=url, encryption="none", create=create),),
    ).model_copy(update=changes)


def schedule(cron: str = "30 2 * * *", **changes: Any) -> DesiredSchedule:
    """Return a schedule without jitter, in UTC."""
    return DesiredSchedule(name="nightly", cron=cron, time_zone="UTC").model_copy(update=changes)


def state(
    base: Path,
    *,
    revision: str = "one",
    files: dict[str, str] | None = None,
    secrets: tuple[str, ...] = (),
    known_hosts: str | None = None,
    **changes: Any,
) -> DesiredState:
    """Return the desired state of a machine that lives under ``base``: a configuration for each of ``files``."""
    files = {"web": config()} if files is None else files
    managed = [
        ManagedFile(place="config", path=f"{name}.yaml", origin=f"backups/{name}.yaml:1", content=text)
        for name, text in files.items()
    ]
    if known_hosts is not None:
        managed.append(ManagedFile(place="state", path="known_hosts/nas", origin="nas.yaml:1", content=known_hosts))
    content = Content(
        client="web-1",
        directories=Directories(config=str(base / "etc"), state=str(base / "var")),
        files=tuple(managed),
        jobs=tuple(job(name) for name in files),
        secrets=tuple(SealedSecret(secret=name, key="key", sealed="bd1-sealed.AAAA") for name in secrets),
    ).model_copy(update=changes)
    return DesiredState(
        audience="bd1-client.x",
        generation=1,
        revision=revision,
        issued=NOW,
        expires=NOW,
        digest=content.digest(),
        content=content,
    )
