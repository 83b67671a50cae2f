"""The client against the director's own gateway and store: what each believes of the other is what the other does."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from random import Random

import pytest

from client.agent import Agent
from client.build import build_agent
from client.clock import SystemClock
from client.enrol import enrol
from client.policy import Policy
from client.settings import ClientSettings
from client.state import StateDirectory
from reconciler.core.issue import Issued
from reconciler.gateway import GatewaySettings
from reconciler.listen import Address
from schema.desired import Content, ManagedFile
from schema.directories import Directories
from schema.envelope import EnrolmentString
from tests.client.director_stub import desired_state
from tests.client.fleet import BORGMATIC
from tests.client.machine import config, job
from tests.reconciler.house import House


@pytest.fixture
async def house(tmp_path):
    folder = tmp_path / "director"
    folder.mkdir()
    settings = GatewaySettings(listen=(Address.parse(f"unix://{tmp_path}/director.sock"),))
    one = House(folder, settings=settings)
    await one.open()
    yield one
    await one.close()


async def publish(house: House, agent_key: str, content: Content, *, generation: int) -> None:
    now = house.clock.now()
    issued = Issued(
        client="web-1",
        audience=agent_key,
        generation=generation,
        digest=content.digest(),
        revision="a" * 40,
        issued=now,
        expires=now + timedelta(days=90),
        envelope=desired_state(house.identity, agent_key, content=content, generation=generation, issued=now),
        content=content,
    )
    await house.store.publish(clients=(), backups=(), issued=(issued,), removed_clients=(), removed_backups=(), at=now)
    await house.gateway.publish([issued])


async def test_from_a_token_to_a_followed_revision_and_its_report_in_the_store(house, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    program = tmp_path / "borgmatic"
    program.write_text(BORGMATIC)
    program.chmod(0o755)
    (tmp_path / "etc").mkdir(mode=0o755)
    directories = Directories(config=str(tmp_path / "etc"), state=str(tmp_path / "var"))
    settings = ClientSettings(
        name="web-1",
        config_directory=directories.config,
        state_directory=directories.state,
        borgmatic=str(program),
        policy=Policy(minimum_kept=0),
    )
    directory = StateDirectory(tmp_path / "var")
    directory.prepare()
    text = EnrolmentString(
        url=f"unix://{tmp_path}/director.sock", director=house.identity.public.text, token=await house.token()
    ).to_text()

    enrolled = await enrol(text, settings=settings, directory=directory, clock=SystemClock())
    assert not enrolled.is_approved
    identity = directory.identity()
    agent = build_agent(settings, clock=house.clock, random=Random(1))
    task = asyncio.create_task(agent.run())
    await house.approve(identity)
    file = ManagedFile(place="config", path="web.yaml", origin="web.yaml:1", content=config(repository=str(tmp_path)))
    content = Content(client="web-1", directories=directories, files=(file,), jobs=(job("web", url=str(tmp_path)),))
    await publish(house, identity.public.text, content, generation=8)

    await until_delivered(agent, generation=8)
    assert (tmp_path / "etc" / "web.yaml").read_bytes() == file.rendered("a" * 40)
    agent.stop()
    await asyncio.wait_for(task, 20)


async def until_delivered(agent: Agent, *, generation: int) -> None:
    """Return when the agent follows that generation, and the director has stored all that it said."""
    async with asyncio.timeout(20):
        while agent._reported is None or agent._reported.generation != generation or await agent._outbox.waiting():
            await asyncio.sleep(0)
