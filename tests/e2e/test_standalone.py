"""Standalone mode as a new user starts it: init, commit, `director standalone`, real borgmatic, real Borg."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.director_process import CLIENT_PROGRAM, SECONDS, DirectorProcess
from tests.git_repository import GitRepository


class Machine:
    """One machine, all of it below a folder: its client.toml, its data, its source."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = folder / "backups"
        self.client_toml = folder / "client.toml"
        self.client_toml.write_text(
            f'name = "here"\n'
            f'config_directory = "{folder}/borgmatic.d"\n'
            f'state_directory = "{folder}/client-state"\n'
            f'stop_timeout = "20s"\n'
        )
        self.data = folder / "data"
        self.data.mkdir()
        (self.data / "letter.txt").write_text("dear reader\n" * 100)
        (folder / "borg").mkdir()
        self.managed = folder / "borgmatic.d" / "files.yaml"
        self.standalone = DirectorProcess(
            folder, "standalone", self.source, "--client-config", self.client_toml, BORG_BASE_DIR=str(folder / "base")
        )

    def init(self) -> GitRepository:
        """Do what the README says."""
        done = self.standalone.command(
            *("init", self.source, "--this-machine", "--client-config", self.client_toml, "--client", "here"),
            *("--repository", f"{self.folder}/borg/${{client}}", "--source", self.data),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return GitRepository(self.source)

    def once(self, backup: str) -> subprocess.CompletedProcess[str]:
        settings = {"BORGMATIC_DIRECTOR_CLIENT_CONFIG": str(self.client_toml)}
        self.standalone.environment.update(settings)
        return self.standalone.command("once", backup, program=CLIENT_PROGRAM)

    def clients(self) -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in self.standalone.read("clients", "list")}

    def follows(self) -> bool:
        here = self.clients().get("here", {})
        return bool(here.get("following") == "current" and here["connected"])


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    if hasattr(made.standalone, "process"):
        made.standalone.__exit__()


@pytest.mark.timeout(300)
def test_from_init_to_an_archive_drift_healed_and_a_broken_commit_changing_nothing(machine: Machine) -> None:
    git, director = machine.init(), machine.standalone
    git.commit("start")
    with director:
        director.log("running")
        director.until(machine.follows)
        before = machine.managed.read_bytes()
        assert str(machine.data).encode() in before

        done = machine.once("files")
        assert done.returncode == 0, done.stdout + done.stderr
        (archive,) = director.until(lambda: director.read("archives"))
        assert (archive["client"], archive["backup"], archive["repository"]) == ("here", "files", "main")
        director.until(lambda: director.read("status")["protected"] == 1)

        machine.managed.write_bytes(before + b"# by hand\n")
        drift = director.until(lambda: director.read("drift"))
        assert "+# by hand" in drift[0]["diff"]
        director.until(lambda: machine.managed.read_bytes() == before)

        git.write("backups/files.yaml", "kind: [")
        git.commit("broken")
        assert "backups/files.yaml:" in director.log("reconcile", outcome="stalled")["message"]
        assert machine.managed.read_bytes() == before
        assert machine.follows()

        for path, wanted in (("/", "here"), ("/clients/here", "files"), ("/source", "backups/files.yaml")):
            assert wanted in director.page(path)

        director.signal(signal.SIGTERM)
        code, said = director.ended()
        assert (code, "Traceback" in said) == (0, False)
    for path in ("state", "client-state"):
        assert (machine.folder / path).stat().st_mode & 0o077 == 0
        for file in (machine.folder / path).rglob("*"):
            assert file.is_dir() or file.lstat().st_mode & 0o077 == 0, file


def test_started_before_anything_is_committed_it_waits_and_says_what_to_do(machine: Machine) -> None:
    git, director = machine.init(), machine.standalone
    with director:
        said = director.log("waiting for a commit")
        assert "nothing is published yet that names a client" in said["problem"]
        assert "director init" in said["hint"]
        git.commit("start")
        director.log("reconcile", outcome="published")
        director.until(lambda: machine.managed.exists() and machine.follows())


def test_started_with_a_broken_source_it_waits_for_the_commit_that_mends_it(machine: Machine) -> None:
    git, director = machine.init(), machine.standalone
    git.write("zzz.yaml", "kind: [")
    git.commit("broken")
    with director:
        director.log("waiting for a commit")
        assert "zzz.yaml:2:1" in director.page("/source")
        git.git("rm", "--quiet", "zzz.yaml")
        git.commit("mended")
        director.until(lambda: machine.managed.exists() and machine.follows())


def test_a_source_that_means_other_machines_is_waited_for_too(machine: Machine) -> None:
    git, director = machine.init(), machine.standalone
    whole = {path: (machine.source / path).read_text() for path in ("clients/here.yaml", "backups/files.yaml")}
    for path in whole:
        (machine.source / path).unlink()
    for name in ("elsewhere", "there"):
        git.write(
            f"{name}.yaml", f"apiVersion: borgmatic.director/v1\nkind: Client\nmetadata: {{name: {name}}}\nspec: {{}}\n"
        )
    git.commit("others only")
    with director:
        said = director.log("waiting for a commit")
        assert said["problem"] == (
            "the source does not say which client this machine is; its clients are: elsewhere, there"
        )
        for path, text in whole.items():
            git.write(path, text)
        git.commit("and this one")
        director.until(lambda: machine.managed.exists() and machine.follows())


def test_the_key_of_another_machine_is_never_taken_for_ours(machine: Machine) -> None:
    git, director = machine.init(), machine.standalone
    git.commit("start")
    director.words += ["--client", "here"]
    (machine.folder / "client-state" / "identity").unlink()
    with director:
        said = director.log("waiting for a commit")
        assert said["problem"] == "client 'here' has another public key in the source than this machine"
        assert not machine.managed.exists()


def test_directories_that_differ_from_the_source_s_are_named(machine: Machine) -> None:
    git, director = machine.init(), machine.standalone
    file = machine.source / "clients" / "here.yaml"
    file.write_text(file.read_text().replace(f"{machine.folder}/borgmatic.d", "/somewhere/else"))
    git.commit("start")
    with director:
        said = director.log("waiting for a commit")
        assert "cannot keep its files where the source says: in /somewhere/else" in said["problem"]
        assert f'directories: {{config: "{machine.folder}/borgmatic.d"' in said["hint"]


@pytest.mark.parametrize("text, message", [("nonsense = 1\n", "unknown key"), ("[", "is not TOML")])
def test_a_client_toml_that_no_commit_mends_ends_it(machine: Machine, text: str, message: str) -> None:
    machine.init().commit("start")
    machine.client_toml.write_text(text)
    with machine.standalone as director:
        code, said = director.ended()
    assert (code, message in said, "Traceback" in said) == (2, True, False)


def test_another_agent_on_this_machine_ends_it(machine: Machine) -> None:
    machine.init().commit("start")
    with machine.standalone as director:
        director.log("running")
        director.until(machine.follows)
        elsewhere = {"BORGMATIC_DIRECTOR_STATE_DIRECTORY": str(machine.folder / "second")}
        with DirectorProcess(machine.folder, *director.words[1:], **elsewhere) as second:
            code, said = second.ended()
        assert code == 2
        assert "another director-client already runs on this state directory" in said
        assert machine.follows()


def test_outside_of_git_it_says_what_to_do(machine: Machine) -> None:
    machine.source.mkdir()
    with machine.standalone as director:
        code, said = director.ended()
    assert (code, "is not in a Git repository" in said, "git init" in said) == (2, True, True)


def test_after_kill_9_it_goes_on(machine: Machine) -> None:
    git, director = machine.init(), machine.standalone
    git.commit("start")
    with director:
        director.log("running")
        director.until(machine.follows)
        director.process.kill()
        director.process.wait(SECONDS)
        director.start()
        director.log("running")
        director.until(machine.follows)
