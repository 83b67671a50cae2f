"""The doctor finds what would keep this machine from being backed up, and says what to do."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from client import doctor
from client.doctor import Finding, Level
from client.known_repositories import KnownRepositories, KnownRepository
from client.policy import Policy
from client.settings import ClientSettings
from client.state import Enrolment, StateDirectory
from schema.desired import ssh_command
from schema.envelope import DirectorIdentity
from schema.observed import ArchivesSeen
from tests.client import machine
from tests.client.test_apply import apply
from tests.client.virtual_clock import VirtualClock


def settings(base: Path, program: str = "accepts", **changes: object) -> ClientSettings:
    return ClientSettings(
        config_directory=str(base / "etc"),
        state_directory=str(base / "var"),
        borgmatic=machine.program(program),
    ).model_copy(update=changes)


async def examine(one: ClientSettings, state=None) -> dict[str, Finding]:
    found = await doctor.examine(one, state=state, clock=VirtualClock())
    assert all(finding.hint for finding in found if finding.level is Level.ERROR and " in " not in finding.check)
    return {finding.check: finding for finding in found}


async def test_a_fresh_machine_is_told_to_enrol(tmp_path):
    found = await examine(settings(tmp_path))

    assert found["identity"].level is Level.ERROR
    assert "enroll" in found["identity"].hint
    assert found["configuration directory"].level is Level.WARNING


async def test_a_missing_borgmatic_is_found(tmp_path):
    found = await examine(settings(tmp_path, "is-not-here"))

    assert found["borgmatic"].level is Level.ERROR
    assert "install borgmatic" in found["borgmatic"].hint


async def test_an_open_key_and_a_folder_that_others_may_write_are_found(tmp_path):
    directory = StateDirectory(tmp_path / "var")
    directory.prepare()
    directory.identity()
    (tmp_path / "var/identity").chmod(0o644)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc").chmod(0o777)

    found = await examine(settings(tmp_path))

    assert found["identity"].hint == f"chmod 600 {tmp_path}/var/identity"
    assert found["configuration directory"].level is Level.ERROR


async def test_a_director_that_does_not_answer_is_found(tmp_path):
    directory = StateDirectory(tmp_path / "var")
    directory.prepare()
    directory.identity()
    key = DirectorIdentity.generate().public.text
    directory.save_enrolment(Enrolment(url="ws://127.0.0.1:1", director=key))

    found = await examine(settings(tmp_path))

    assert found["enrolment"].level is Level.OK
    assert found["director"].level is Level.ERROR


async def test_a_director_that_answers_is_found_too(tmp_path):
    directory = StateDirectory(tmp_path / "var")
    directory.prepare()
    directory.identity()
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    key = DirectorIdentity.generate().public.text
    directory.save_enrolment(Enrolment(url=f"ws://127.0.0.1:{port}", director=key))

    found = await examine(settings(tmp_path))
    server.close()
    await server.wait_closed()

    assert found["director"].level is Level.OK


async def test_a_clock_before_the_desired_state_was_issued_is_found(tmp_path):
    state = machine.state(tmp_path, files={}, revision="one")
    late = state.model_copy(update={"issued": state.issued.replace(year=2030)})

    assert (await examine(settings(tmp_path), late))["clock"].level is Level.ERROR
    assert (await examine(settings(tmp_path), state))["clock"].level is Level.OK


async def test_a_private_key_that_ssh_would_refuse_is_found(tmp_path):
    (tmp_path / "key").touch(mode=0o644)
    text = machine.config(options=f"ssh_command: {ssh_command(key_path=f'{tmp_path}/key', known_hosts=None)}\n")
    state = machine.state(tmp_path, files={"web": text})

    found = await examine(settings(tmp_path), state)

    assert found["ssh key"].hint == f"chmod 600 {tmp_path}/key"


async def test_a_repository_that_cannot_be_read_is_found(tmp_path):
    state = machine.state(tmp_path)
    await apply(tmp_path, state)

    found = await examine(settings(tmp_path, "babbles"), state)

    assert found["web in nas"].level is Level.ERROR


async def test_a_repository_that_the_first_run_makes_is_no_error(tmp_path):
    url = str(tmp_path / "nas")
    files = {"web": machine.config(repository=url)}
    state = machine.state(tmp_path, files=files, jobs=(machine.job(url=url, create=True),))
    await apply(tmp_path, state)

    found = (await examine(settings(tmp_path, "babbles"), state))["web in nas"]

    assert (found.level, found.message) == (Level.WARNING, "the first run makes the repository")
    assert found.hint == "director-client once web"


async def test_a_repository_that_is_gone_is_an_error_that_says_how_to_begin_anew(tmp_path):
    url = str(tmp_path / "nas")
    files = {"web": machine.config(repository=url)}
    state = machine.state(tmp_path, files=files, jobs=(machine.job(url=url, create=True),))
    await apply(tmp_path, state)
    known = KnownRepositories(tmp_path / "var")
    known.note(KnownRepository(url=url, name="nas", since=datetime(2026, 11, 1, tzinfo=UTC)))

    found = (await examine(settings(tmp_path, "babbles"), state))["web in nas"]

    assert found.level is Level.ERROR
    assert found.message.startswith("repository 'nas' is gone: this machine has backed up into it since 2026-11-01")
    assert found.hint.endswith("director-client forget-repository nas")


@pytest.mark.parametrize(
    "message, level",
    [("Repository ssh://nas/./web does not exist.", Level.WARNING), ("Connection closed by remote host", Level.ERROR)],
)
async def test_a_remote_repository_is_to_be_made_only_where_borg_said_that_there_is_none(tmp_path, message, level):
    job = machine.job(url="ssh://nas/./web", create=True)
    seen = ArchivesSeen(
        at=VirtualClock().now(), backup="web", repository="nas", url="ssh://nas/./web", available=False, message=message
    )

    found = await doctor._away("web in nas", job, seen, KnownRepositories(tmp_path))

    assert found.level is level


async def test_a_policy_that_lets_backups_go_anywhere_is_worth_a_word(tmp_path):
    narrow = Policy(write_repositories=("/mnt/nas/*",))

    assert (await examine(settings(tmp_path)))["policy"].level is Level.WARNING
    assert "policy" not in await examine(settings(tmp_path, policy=narrow))


@pytest.mark.parametrize(
    "version, level", [("", Level.ERROR), ("2.0.1", Level.WARNING), ("2.1.10", Level.OK), ("2.10.0", Level.OK)]
)
def test_an_old_borgmatic_is_worth_a_word(version, level):
    assert doctor._judge_borgmatic(version, "borgmatic").level is level


@pytest.mark.parametrize(
    "version, level", [("", Level.ERROR), ("1.1.9", Level.WARNING), ("1.2.4", Level.OK), ("2.0.0b1", Level.WARNING)]
)
def test_borg_is_one_of_the_tested_versions(version, level):
    assert doctor._judge_borg(version).level is level
