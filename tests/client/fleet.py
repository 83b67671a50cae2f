"""One director that misbehaves at will, and one whole machine: real files, real SQLite, a real WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from client.agent import Agent
from client.build import build_agent
from client.policy import Policy
from client.settings import ClientSettings
from client.state import Enrolment, StateDirectory
from schema.desired import Content, ManagedFile
from schema.directories import Directories
from tests.client.director_stub import DirectorStub, desired_state
from tests.client.machine import config, job
from tests.client.virtual_clock import VirtualClock

BORGMATIC = """#!/bin/sh
# Agrees with every configuration; a backup says a line, and takes as long as $HOME/hang exists.
case "$*" in
    *validate*|*--version*|*repo-list*|*info*) exit 0 ;;
esac
echo "$*" >> "$HOME/calls"
echo '{"type": "log_message", "message": "backing up", "levelname": "INFO", "name": "borgmatic"}' >&2
if [ -e "$HOME/hang" ]; then sleep 600 & wait; fi
"""


class Fleet:
    """One director and one machine under ``base``."""

    def __init__(self, base: Path, director: DirectorStub) -> None:
        self.base = base
        self.director = director
        self.clock = VirtualClock()
        program = base / "borgmatic"
        program.write_text(BORGMATIC)
        program.chmod(0o755)
        (base / "etc").mkdir(mode=0o755, exist_ok=True)
        self.settings = ClientSettings(
            name="web-1",
            config_directory=str(base / "etc"),
            state_directory=str(base / "var"),
            borgmatic=str(program),
            policy=Policy(minimum_kept=0),
        )
        self.directory = StateDirectory(base / "var")
        self.directory.prepare()
        self.key = self.directory.identity().public.text
        self.directory.save_enrolment(Enrolment(url=director.url, director=director.identity.public.text))
        self._tasks: list[tuple[Agent, asyncio.Task[None]]] = []

    def content(self, *, options: str = "source_directories:\n  - /etc\nkeep_daily: 7\n", **changes: Any) -> Content:
        file = ManagedFile(
            place="config",
            path="web.yaml",
            origin="backups/web.yaml:1",
            content=config(repository=str(self.base), options=options),
        )
        return Content(
            client="web-1",
            directories=Directories(config=self.settings.config_directory, state=self.settings.state_directory),
            files=(file,),
            jobs=(job("web", url=str(self.base)),),
        ).model_copy(update=changes)

    def envelope(self, content: Content | None = None, **changes: Any) -> bytes:
        return desired_state(self.director.identity, self.key, content=content or self.content(), **changes)

    @property
    def file(self) -> Path:
        return self.base / "etc" / "web.yaml"

    async def start(self) -> Agent:
        agent = build_agent(self.settings, clock=self.clock, random=Random(3))
        running = asyncio.Event()
        task = asyncio.create_task(agent.run(ready=running.set))
        self._tasks.append((agent, task))
        await running.wait()
        return agent

    async def stop(self) -> None:
        for agent, task in self._tasks:
            agent.stop()
            await asyncio.wait_for(task, 20)
        self._tasks.clear()

    def reports(self, kind: str) -> list[dict[str, Any]]:
        found = [report for _, report in sorted(self.director.reports.items(), key=lambda item: item[0][1])]
        return [report for report in found if report["type"] == kind]

    def state(self) -> dict[str, Any]:
        return (self.reports("state") or [{}])[-1]

    def events(self) -> list[str]:
        return [event["reason"] for event in self.reports("event")]

    async def until(self, condition: Callable[[], Any]) -> None:
        await self.director.until(lambda: bool(condition()))

    async def until_scheduled(self) -> None:
        """Return when the schedule is made, so that the clock may move on."""
        await self.until(lambda: self.state().get("jobs") and self.state()["jobs"][0]["next_due"])

    async def until_run(self) -> None:
        """Let half an hour pass, and ticks more for a schedule that was busy when its moment came."""
        await self.clock.advance(1800)
        async with asyncio.timeout(20):
            while not self.reports("run-started"):
                await asyncio.sleep(0.1)
                await self.clock.advance(15)

    async def until_following(self, generation: int = 100) -> None:
        await self.until(lambda: self.state().get("generation") == generation)
