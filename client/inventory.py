"""Which archives are really there: the evidence behind "protected". Called by ``agent`` after runs and now and then.

One borgmatic for all repositories of a job lists the archives (those of the job, by its archive names) and asks for the
size. When that fails, one for each repository, so that one that is away hides no other. Borg prints times without an
offset, in the zone that it runs in: here it runs in UTC.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from client import borgmatic, borgmatic_output, ssh
from client.borgmatic_output import Lines, Reader, Scrubber
from schema.errors import DirectorError
from schema.observed import MAX_TEXT, Archive, ArchivesSeen

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from client.borgmatic import Start
    from client.turns import Turns
    from schema.desired import DesiredRepository, Job

MAX_ARCHIVES = 2_000
_SECONDS = 1_800.0


class Inventories:
    """Asks repositories for their archives."""

    def __init__(
        self,
        *,
        program: str,
        config_directory: Path,
        state_directory: Path,
        turns: Turns,
        environment: Mapping[str, str] = os.environ,
        pass_on: tuple[str, ...] = (),
        start: Start = borgmatic.start,
    ) -> None:
        self._program = borgmatic.find(program)
        self._config = config_directory
        self._state = state_directory
        self._turns = turns
        self._start = start
        self._environment = {**borgmatic.environment(environment, also=pass_on), "TZ": "UTC"}

    async def inventory(self, job: Job, now: datetime) -> tuple[ArchivesSeen, ...]:
        """Return what is in each repository of ``job``; one that cannot be read says why."""
        urls = [repository.url for repository in job.repositories]
        try:
            async with self._turns.hold(urls, waiting=lambda _: None) as locks:
                values, message = await self._ask(job, now, locks)
                seen = {one.name: self._seen(job, one, values, now=now) for one in job.repositories}
                for repository in job.repositories if len(job.repositories) > 1 else ():
                    if seen[repository.name] is None:
                        values, message = await self._ask(job, now, locks, only=repository.name)
                        seen[repository.name] = self._seen(job, repository, values, now=now) or _away(
                            job, repository, message, now=now
                        )
        except DirectorError as error:
            return tuple(_away(job, repository, error.message, now=now) for repository in job.repositories)
        return tuple(
            seen[repository.name] or _away(job, repository, message, now=now) for repository in job.repositories
        )

    async def _ask(
        self, job: Job, now: datetime, locks: tuple[int, ...], *, only: str | None = None
    ) -> tuple[list[dict[str, Any]], str]:
        """Return borgmatic's JSON, and why there is none."""
        words = ["repo-list", "--json", "repo-info", "--json"]
        words += [] if only is None else ["--repository", only]
        ended = await borgmatic.call(
            [self._program, "--config", str(self._config / job.file), "--log-json", *words],
            environment=self._environment,
            timeout=_SECONDS,
            inherited=locks,
            start=self._start,
        )
        if ended.timed_out:
            return [], f"borgmatic did not answer within {_SECONDS:.0f} seconds"
        if ended.exit_code == 0:
            return borgmatic_output.json_list(ended.stdout), "borgmatic said nothing about it"
        scrub = Scrubber(borgmatic.opened_secrets(self._state))
        reader = Reader(on_line=lambda _: None, on_progress=lambda _: None, now=lambda: now, scrub=scrub)
        lines = Lines()
        for line in (*lines.feed(ended.stderr), lines.rest()):
            reader.stderr(line)
        await ssh.explain(reader, job, config=self._config, environment=self._environment, only=only)
        reason, hint = reader.reason(ended.exit_code)
        return [], f"{reason} ({hint})" if hint else reason

    def _seen(
        self, job: Job, repository: DesiredRepository, values: list[dict[str, Any]], *, now: datetime
    ) -> ArchivesSeen | None:
        """Return what ``values`` say about ``repository``; None when they do not list its archives."""
        mine = [value for value in values if _is_about(value, repository)]
        listing = next((value["archives"] for value in mine if isinstance(value.get("archives"), list)), None)
        if listing is None:
            return None
        archives = sorted(filter(None, map(_archive, listing)), key=lambda archive: archive.start, reverse=True)
        described = [value.get("repository") for value in mine]
        repository_ids = [str(one["id"])[:1024] for one in described if isinstance(one, dict) and "id" in one]
        modes = [mode for value in mine if isinstance(mode := value.get("encryption"), dict)]
        return ArchivesSeen(
            at=now,
            backup=job.backup,
            repository=repository.name,
            url=repository.url[:1024],
            available=True,
            repository_id=next(iter(repository_ids), ""),
            encryption=next((str(mode.get("mode") or "")[:1024] for mode in modes), ""),
            count=len(listing),
            archives=tuple(archives[:MAX_ARCHIVES]),
            total_size=max((borgmatic_output.total_size(value) for value in mine), default=0),
            unique_size=max((borgmatic_output.repository_size(value) for value in mine), default=0),
        )


def _is_about(value: dict[str, Any], repository: DesiredRepository) -> bool:
    described = value.get("repository")
    if not isinstance(described, dict):
        return False
    label = described.get("label")
    return label == repository.name if label else described.get("location") == repository.url


def _archive(value: Any) -> Archive | None:
    if not isinstance(value, dict):
        return None
    start = borgmatic_output.utc(value.get("start") or value.get("time"))
    name = value.get("name") or value.get("archive")
    if start is None or not isinstance(name, str):
        return None
    try:
        return Archive(id=str(value.get("id")), name=name.encode("utf-8", "replace").decode()[:1024], start=start)
    except ValidationError:
        return None


def _away(job: Job, repository: DesiredRepository, message: str, *, now: datetime) -> ArchivesSeen:
    return ArchivesSeen(
        at=now,
        backup=job.backup,
        repository=repository.name,
        url=repository.url[:1024],
        available=False,
        message=message[:MAX_TEXT],
    )
