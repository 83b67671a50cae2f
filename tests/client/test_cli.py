"""The commands as a person runs them: real processes for what outlives a call, click's runner for the rest."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from client.cli import main
from client.known_repositories import KnownRepositories, KnownRepository
from client.printing import size_text
from client.settings import read_settings
from client.state import StateDirectory
from schema.desired import Content, ManagedFile
from schema.directories import Directories
from schema.envelope import DirectorIdentity, EnrolmentString, random_token
from schema.wire import Refused
from tests.client.director_stub import DirectorStub, desired_state
from tests.client.fleet import BORGMATIC
from tests.client.machine import NOW, config, job

ROOT = Path(__file__).parent.parent.parent
COMMANDS = ["enroll", "run", "once", "status", "fingerprint", "doctor", "forget-repository", "completion"]


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "etc").mkdir(mode=0o755)
    program = tmp_path / "borgmatic"
    program.write_text(BORGMATIC)
    program.chmod(0o755)
    file = tmp_path / "client.toml"
    lines = {"config_directory": tmp_path / "etc", "state_directory": tmp_path / "var", "borgmatic": program}
    text = 'name = "web-1"\n' + "".join(f'{key} = "{value}"\n' for key, value in lines.items())
    file.write_text(text + "[policy]\nminimum_kept = 0\n")
    return file


def call(settings: Path, *words: str, text: str | None = None) -> Result:
    return CliRunner().invoke(main, ["--config", str(settings), *words], input=text)


async def process(settings: Path, *words: str, text: str = "", **environment: str) -> tuple[int, str, str]:
    """Run the command in a process of its own."""
    child = await start(settings, *words, **environment)
    out, err = await asyncio.wait_for(child.communicate(text.encode()), 30)
    return child.returncode or 0, out.decode(), err.decode()


async def start(settings: Path, *words: str, **environment: str) -> asyncio.subprocess.Process:
    code = "import sys; from client.cli import main; sys.argv[0] = 'director-client'; main()"
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", code, "--config", str(settings), *words),
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def string_for(stub: DirectorStub, **changes: str) -> str:
    values = {"url": stub.url, "director": stub.identity.public.text, "token": random_token()} | changes
    return EnrolmentString(**values).to_text()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(settings, command):
    result = call(settings, command, "--help")

    assert result.exit_code == 0
    assert f"director-client {command}" in result.output


def test_a_fingerprint_is_made_once_and_can_be_read_by_machines(settings):
    table = call(settings, "fingerprint").output.split()
    as_json = json.loads(call(settings, "fingerprint", "-o", "json").output)
    as_yaml = yaml.safe_load(call(settings, "fingerprint", "-o", "yaml").output)

    assert as_json == as_yaml == {"fingerprint": table[0], "publicKey": table[1]}
    assert table[0].startswith("SHA256:")


def test_run_without_enrolment_says_exactly_what_to_do(settings):
    result = call(settings, "run")

    assert result.exit_code == 2
    assert "error: this client is not enrolled" in result.stderr
    assert "director token create" in result.stderr
    assert "director-client enroll" in result.stderr


def test_a_wrong_settings_file_is_told_without_a_traceback(settings):
    settings.write_text('stat_directory = "/x"\n')

    result = call(settings, "status")

    assert result.exit_code == 2
    assert "hint: did you mean 'state_directory'?" in result.stderr


async def test_enroll_pins_the_director_and_says_what_happens_next(settings, tmp_path):
    async with DirectorStub(approved=False) as director:
        code, out, err = await process(settings, "enroll", "-", text=string_for(director))

    state = StateDirectory(tmp_path / "var")
    assert (code, err) == (0, "")
    assert state.identity().public.fingerprint in out
    assert "director clients approve web-1" in out
    enrolment = state.enrolment()
    assert enrolment is not None
    assert enrolment.director == director.identity.public.text
    assert "bd1-token" not in (tmp_path / "var" / "enrolment.json").read_text()


async def test_the_string_may_come_from_the_environment(settings):
    async with DirectorStub(name="web-9") as director:
        code, out, _ = await process(settings, "enroll", BORGMATIC_DIRECTOR_ENROLMENT=string_for(director))

    assert code == 0
    assert "'web-9'" in out


async def test_a_director_in_the_middle_gets_no_token_and_nothing_is_kept(settings, tmp_path):
    async with DirectorStub() as director:
        text = string_for(director, director=DirectorIdentity.generate().public.text)
        code, _, err = await process(settings, "enroll", "-", text=text)

        assert code == 2
        assert "another key than the pinned one" in err
        assert "bd1-token" not in "".join(director.frames)
    assert StateDirectory(tmp_path / "var").enrolment() is None


async def test_a_used_token_is_told_in_the_directors_words(settings, tmp_path):
    async with DirectorStub() as director:
        director.refuse = Refused(code="token-invalid", message="this token is used up", hint="make another one")
        code, _, err = await process(settings, "enroll", "-", text=string_for(director))

    assert code == 2
    assert "this token is used up" in err
    assert "hint: make another one" in err
    assert StateDirectory(tmp_path / "var").enrolment() is None


@pytest.mark.parametrize("text", ["", "rubbish", "bd1-enroll.AAAA", "bd1-enroll.e30"])
def test_a_damaged_enrolment_string_is_refused(settings, text):
    result = call(settings, "enroll", "-", text=text)

    assert result.exit_code == 2
    assert "enrolment string" in result.stderr


def test_a_string_that_names_an_unencrypted_address_is_refused(settings):
    identity = DirectorIdentity.generate().public.text
    text = EnrolmentString(url="ws://director.example", director=identity, token=random_token()).to_text()

    result = call(settings, "enroll", "-", text=text)

    assert result.exit_code == 2
    assert "write wss://" in result.stderr


async def test_the_service_follows_and_reports_and_ends_in_good_order(settings, tmp_path):
    notifications = tmp_path / "notify.sock"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(notifications))
    listener.settimeout(20)
    async with DirectorStub() as director:
        await process(settings, "enroll", "-", text=string_for(director))
        key = StateDirectory(tmp_path / "var").identity().public.text
        director.envelope = desired_state(director.identity, key, content=content(tmp_path))
        service = await start(settings, "run", NOTIFY_SOCKET=str(notifications), WATCHDOG_USEC="60000000")
        await director.until(lambda: any(one.get("generation") == 100 for one in director.reports.values()))

        said = {await asyncio.to_thread(listener.recv, 100), await asyncio.to_thread(listener.recv, 100)}
        code, out, _ = await process(settings, "status", "-o", "json")
        status = json.loads(out)
        once = await process(settings, "once", "web")
        unknown = await process(settings, "once", "wbe")
        second = await process(settings, "run")
        service.send_signal(signal.SIGTERM)
        out_of_service, log = await asyncio.wait_for(service.communicate(), 30)
        listener.close()

    assert said == {b"READY=1", b"WATCHDOG=1"}
    assert (code, status["connection"], status["revision"]) == (0, "connected", "a" * 40)
    assert status["jobs"][0]["backup"] == "web"
    assert (once[0], once[1].splitlines()[0]) == (0, "web: succeeded")
    assert "backing up" in once[2]
    assert unknown[0] == 2
    assert "its backups are: web" in unknown[2]
    assert second[0] == 2
    assert "another director-client already runs" in second[2]
    assert service.returncode == 0
    assert out_of_service == b""
    assert all(json.loads(line)["event"] for line in log.decode().splitlines())
    assert any(one["type"] == "run-finished" for one in director.reports.values())


def content(base: Path) -> Content:
    text = config(repository=str(base), options="source_directories:\n  - /etc\nkeep_daily: 7\n")
    file = ManagedFile(place="config", path="web.yaml", origin="web.yaml:1", content=text)
    return Content(
        client="web-1",
        directories=Directories(config=str(base / "etc"), state=str(base / "var")),
        files=(file,),
        jobs=(job("web", url=str(base)),),
    )


def test_status_tells_what_is_wrong_and_exits_with_1(settings):
    result = call(settings, "status")

    assert result.exit_code == 1
    assert "not enrolled" in result.stdout
    assert "not running" in result.stdout


def test_doctor_finds_that_we_are_not_enrolled(settings):
    result = call(settings, "doctor", "-o", "json")

    assert result.exit_code == 1
    assert any(one["level"] == "error" for one in json.loads(result.stdout))


def test_a_known_repository_is_shown_and_forgotten_by_its_name(settings):
    known = KnownRepositories(Path(read_settings(settings).state_directory))
    known.note(KnownRepository(url="/srv/a", name="nas", since=NOW))
    known.note(KnownRepository(url="/srv/b", name="offsite", since=NOW))

    shown = call(settings, "forget-repository")
    unknown = call(settings, "forget-repository", "naz")
    forgotten = call(settings, "forget-repository", "nas")

    assert shown.stdout.splitlines()[0] == "nas  since 2026-11-23  /srv/a"
    assert unknown.exit_code == 2
    assert "it knows: nas, offsite" in unknown.stderr
    assert forgotten.exit_code == 0
    assert [one.name for one in known.all()] == ["offsite"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed(settings, shell):
    result = call(settings, "completion", shell)

    assert result.exit_code == 0
    assert "_DIRECTOR_CLIENT_COMPLETE" in result.stdout


def test_what_a_command_does_is_never_cut_off_in_the_overview():
    shown = CliRunner().invoke(main, ["--help"], terminal_width=80).output

    assert [line for line in shown.splitlines() if line.startswith("  ") and line.endswith("...")] == []


@pytest.mark.parametrize("size, shown", [(999, "999 B"), (1_996_000, "2.0 MB"), (3_000_000_000_000, "3.0 TB")])
def test_sizes_are_those_that_the_director_and_borg_print(size, shown):
    assert size_text(size) == shown
