"""Hundreds of real agents in one process, each on its own state directory: ``python clients.py FOLDER enrol|run``.

FOLDER/machines.json names them: ``{"c0001": "/path/to/borgmatic", …}``. ``enrol`` takes the enrolment string from
stdin and prints the public keys as JSON. ``run`` lives until SIGTERM; meanwhile connections break, are given up in good
order, and agents end and begin anew, one at a time.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from random import Random
from typing import Final

from websockets.asyncio.client import ClientConnection

from client import log
from client.agent import Agent
from client.build import build_agent
from client.clock import SystemClock
from client.enrol import enrol
from client.settings import ClientSettings
from client.state import StateDirectory
from tests.soak import census

ENROL_AT_ONCE: Final = 10
BEGIN_SECONDS: Final = 0.02
TROUBLE_SECONDS: Final = 2.0
"""Between two troubles. Each is one client's: a broken line, a session given up, an agent that begins anew."""


def settings_of(folder: Path, name: str, program: str) -> ClientSettings:
    """Return the settings of one machine."""
    return ClientSettings.model_validate(
        {
            "name": name,
            "config_directory": str(folder / name / "etc"),
            "state_directory": str(folder / name / "var"),
            "borgmatic": program,
            "stop_timeout": "20s",
            "policy": {"minimum_kept": 0},
        }
    )


async def enrol_all(machines: list[ClientSettings], string: str) -> dict[str, str]:
    """Enrol every machine and return their public keys."""
    places = asyncio.Semaphore(ENROL_AT_ONCE)

    async def one(settings: ClientSettings) -> tuple[str, str]:
        directory = StateDirectory(Path(settings.state_directory))
        directory.prepare()
        async with places:
            done = await enrol(string, settings=settings, directory=directory, clock=SystemClock())
        return settings.name, done.public_key

    return dict(await asyncio.gather(*map(one, machines)))


class Clients:
    """The agents of all machines."""

    def __init__(self, machines: list[ClientSettings]) -> None:
        self._machines = machines
        self._random = Random(20261124)
        self._agents: dict[str, Agent] = {}
        self._lives: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Live until SIGTERM."""
        stopping = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
        trouble = asyncio.create_task(self._make_trouble())
        for settings in self._machines:
            self._begin(settings)
            await asyncio.sleep(BEGIN_SECONDS)
        await stopping.wait()
        trouble.cancel()
        await asyncio.gather(trouble, return_exceptions=True)
        for agent in self._agents.values():
            agent.stop()
        await asyncio.gather(*self._lives.values())

    def _begin(self, settings: ClientSettings) -> None:
        agent = self._agents[settings.name] = build_agent(settings)
        self._lives[settings.name] = asyncio.create_task(agent.run())

    async def _make_trouble(self) -> None:
        kinds = (self._break, self._give_up, self._begin_anew)
        number = 0
        while True:
            await asyncio.sleep(TROUBLE_SECONDS)
            settings = self._random.choice(self._machines)
            if settings.name in self._agents:
                await kinds[number % len(kinds)](settings)
                number += 1

    async def _break(self, settings: ClientSettings) -> None:
        """Cut the line: no goodbye."""
        connection = self._agents[settings.name]._connection
        socket = connection._socket if connection else None
        line = getattr(socket, "_line", None)
        if isinstance(line, ClientConnection):
            line.transport.abort()

    async def _give_up(self, settings: ClientSettings) -> None:
        """End the session and come back."""
        connection = self._agents[settings.name]._connection
        if connection is not None:
            connection.drop("the soak wants it to come back")

    async def _begin_anew(self, settings: ClientSettings) -> None:
        """Stop the service and start it."""
        self._agents[settings.name].stop()
        await self._lives[settings.name]
        self._begin(settings)


def main() -> None:
    folder, command = Path(sys.argv[1]), sys.argv[2]
    programs = json.loads((folder / "machines.json").read_text())
    machines = [settings_of(folder, name, program) for name, program in programs.items()]
    log.configure("warning")
    if command == "enrol":
        sys.stdout.write(json.dumps(asyncio.run(enrol_all(machines, sys.stdin.read().strip()))))
        return
    census.write_for_ever(folder / "clients.census")
    asyncio.run(Clients(machines).run())


if __name__ == "__main__":
    main()
