"""``director init``: what it writes is valid at once, is a person's from then on, and never overwrites anything."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from reconciler.cli import main
from reconciler.commands.source import build_files, read_path
from schema.envelope import ClientIdentity, EscrowIdentity
from tests.git_repository import GitRepository

KEY = ClientIdentity.generate().public.text


def director(*arguments: object) -> Result:
    done = CliRunner().invoke(main, [str(one) for one in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done


def machine(folder: Path) -> Path:
    """Write a client.toml for this machine, all of it below ``folder``."""
    file = folder / "client.toml"
    file.write_text(
        f'name = "here"\nconfig_directory = "{folder}/borgmatic.d"\nstate_directory = "{folder}/client-state"\n'
    )
    return file


def test_the_starting_source_is_valid_without_a_warning(tmp_path: Path) -> None:
    done = director("init", tmp_path / "backups", "--client", "web-1", "--public-key", KEY)
    assert done.exit_code == 0, done.output
    built = build_files(read_path(tmp_path / "backups"))
    assert [str(problem) for problem in built.problems] == []
    assert [job.backup for job in built.contents["web-1"].jobs] == ["files"]


def test_it_is_a_git_repository_on_the_branch_that_was_asked_for(tmp_path: Path) -> None:
    director("init", tmp_path / "backups", "--branch", "trunk", "--client", "web-1")
    git = GitRepository(tmp_path / "backups")
    revision = git.commit("start")
    assert git.git("symbolic-ref", "HEAD") == "refs/heads/trunk"
    assert git.git("rev-parse", "--show-toplevel") == str(tmp_path / "backups")
    assert "clients/web-1.yaml" in git.git("ls-tree", "-r", "--name-only", revision)
    assert git.git("status", "--porcelain") == ""


def test_every_file_has_a_modeline_that_leads_to_the_schema(tmp_path: Path) -> None:
    director("init", tmp_path, "--client", "web-1")
    files = [file for file in tmp_path.rglob("*.yaml") if ".github" not in file.parts and file.name[0] != "."]
    assert len(files) == 5
    for file in files:
        place = file.read_text().splitlines()[0].partition("$schema=")[2]
        assert (file.parent / place).resolve() == tmp_path / ".schema" / "all.json"


def test_the_workflow_and_the_hook_are_yaml_and_run_validate(tmp_path: Path) -> None:
    director("init", tmp_path, "--client", "web-1")
    for name in (".github/workflows/validate.yaml", ".pre-commit-config.yaml"):
        text = (tmp_path / name).read_text()
        assert yaml.safe_load(text)
        assert "director validate" in text


@pytest.mark.parametrize("there", ["README.md", "clients/web-1.yaml", ".pre-commit-config.yaml"])
def test_nothing_that_is_there_is_overwritten(tmp_path: Path, there: str) -> None:
    file = tmp_path / there
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    done = director("init", tmp_path, "--client", "web-1")
    assert (done.exit_code, f"{file} is already there, and nothing is overwritten" in done.output) == (2, True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]
    assert file.read_text() == "mine"


@pytest.mark.parametrize("name", ["Web", "../web", "a.b", "-", "x" * 64, "web 1", "wéb", ""])
def test_a_name_that_is_none_writes_nothing(tmp_path: Path, name: str) -> None:
    done = director("init", tmp_path / "backups", "--client", name)
    if name:
        assert (done.exit_code, "cannot be the name of a client" in done.output) == (2, True)
        assert not (tmp_path / "backups").exists()


def test_a_bad_key_writes_nothing(tmp_path: Path) -> None:
    assert director("init", tmp_path / "backups", "--public-key", "bd1-client.nonsense").exit_code == 2
    assert not (tmp_path / "backups").exists()


def test_values_are_written_as_yaml_whatever_they_hold(tmp_path: Path) -> None:
    sources = ["/with space", '/quote"', "/colon: x", "/hash #", "/ünï"]
    done = director("init", tmp_path, "--client", "web-1", *(word for one in sources for word in ("--source", one)))
    assert done.exit_code == 0, done.output
    backup = yaml.safe_load((tmp_path / "backups" / "files.yaml").read_text())
    assert backup["spec"]["borgmatic"]["source_directories"] == sources


def test_what_makes_it_invalid_is_said_at_once(tmp_path: Path) -> None:
    done = director("init", tmp_path, "--client", "web-1", "--repository", "ftp://nowhere")
    assert (done.exit_code, "repositories/main.yaml:" in done.output) == (1, True)


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = director("init", tmp_path / "file" / "backups", "--client", "web-1")
    assert (done.exit_code, "cannot write the starting source" in done.output) == (2, True)


def test_this_machine_gets_a_sealed_passphrase_that_it_and_the_escrow_key_can_open(tmp_path: Path) -> None:
    done = director("init", tmp_path / "backups", "--this-machine", "--client-config", machine(tmp_path))
    assert done.exit_code == 0, done.output
    built = build_files(read_path(tmp_path / "backups"))
    assert [str(problem) for problem in built.problems] == []
    key = tmp_path / "backups-escrow.key"
    assert key.stat().st_mode & 0o777 == 0o600
    value = yaml.safe_load((tmp_path / "backups" / "secrets" / "borg.yaml").read_text())["spec"]["values"]["passphrase"]
    identity = ClientIdentity.from_text((tmp_path / "client-state" / "identity").read_text())
    (client,) = value["clients"]
    mine = identity.open_sealed(value["clients"][client], secret="borg", key="passphrase", client=client)
    escrow = EscrowIdentity.from_text(key.read_text())
    assert mine == escrow.open_sealed(value["escrow"]["owner"], secret="borg", key="passphrase")
    assert len(mine) >= 32
    assert mine.decode() not in done.output


def test_an_escrow_key_is_never_written_where_a_commit_would_publish_it(tmp_path: Path) -> None:
    director("init", tmp_path / "mono", "--client", "web-1")
    config = machine(tmp_path)
    inside = tmp_path / "mono" / "nested"
    done = director("init", inside, "--this-machine", "--client-config", config)
    assert (done.exit_code, "would be written into a Git repository" in done.output) == (2, True)
    own = tmp_path / "own"
    done = director("init", own, "--this-machine", "--client-config", config, "--escrow-key-file", own / "escrow.key")
    assert (done.exit_code, "would be written into a Git repository" in done.output) == (2, True)
    assert not inside.exists()
    assert not own.exists()
    done = director("init", inside, "--this-machine", "--client-config", config, "--escrow-key-file", tmp_path / "key")
    assert done.exit_code == 0, done.output


def test_an_escrow_key_that_is_there_stops_it_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "backups-escrow.key").write_text("precious")
    done = director("init", tmp_path / "backups", "--this-machine", "--client-config", machine(tmp_path))
    assert (done.exit_code, "keys are never overwritten" in done.output) == (2, True)
    assert not (tmp_path / "backups").exists()
    assert (tmp_path / "backups-escrow.key").read_text() == "precious"


def test_the_current_folder_can_be_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "backups").mkdir()
    monkeypatch.chdir(tmp_path / "backups")
    done = director("init", ".", "--this-machine", "--client-config", machine(tmp_path))
    assert done.exit_code == 0, done.output
    assert (tmp_path / "backups-escrow.key").exists()
    assert not list((tmp_path / "backups").glob("*.key"))
