"""Git repositories that are traps, read by the director's own git processes; and history that is taken back."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from reconciler.source import Source, SourceSettings
from schema.errors import DirectorError, TerminalError
from tests.git_repository import GitRepository

pytestmark = pytest.mark.e2e

TEXT = "apiVersion: borgmatic.director/v1\nkind: Client\nmetadata: {name: web-1}\n"


@pytest.fixture
def repository(tmp_path: Path) -> GitRepository:
    return GitRepository(tmp_path / "repository")


@pytest.fixture
def sprung(tmp_path: Path) -> Path:
    """Where a program that was run leaves its mark."""
    return tmp_path / "sprung"


def trap(tmp_path: Path, sprung: Path) -> Path:
    """Return a program that leaves a mark when anybody runs it."""
    program = tmp_path / "trap.sh"
    program.write_text(f"#!/bin/sh\necho sprung >> {sprung}\nexit 1\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def set_traps(repository: GitRepository, program: Path) -> None:
    """Name the program wherever the configuration, the hooks and the attributes of a repository can name one."""
    options = {
        "core.fsmonitor": program,
        "core.sshCommand": program,
        "core.pager": program,
        "core.editor": program,
        "core.askPass": program,
        "core.gitProxy": program,
        "core.alternateRefsCommand": program,
        "credential.helper": f"!{program}",
        "diff.external": program,
        "diff.evil.textconv": program,
        "diff.evil.command": program,
        "filter.evil.smudge": program,
        "filter.evil.clean": program,
        "filter.evil.process": program,
        "merge.evil.driver": program,
        "gpg.program": program,
        "gpg.ssh.program": program,
        "log.showSignature": "true",
        "uploadpack.packObjectsHook": program,
        "remote.origin.url": "ssh://nobody@localhost/x",
        "remote.origin.uploadpack": program,
        "remote.origin.vcs": "evil",
        "remote.origin.promisor": "true",
        "remote.origin.partialclonefilter": "blob:none",
        "url.ssh://evil/.insteadOf": "/",
        "alias.cat-file": f"!{program}",
        "alias.log": f"!{program}",
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
    }
    for name, value in options.items():
        repository.git("config", name, str(value))
    hooks = repository.directory / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("post-checkout", "pre-receive", "update", "post-update", "reference-transaction", "post-index-change"):
        (hooks / name).write_text(program.read_text())
        (hooks / name).chmod(0o755)


def source(repository: GitRepository, tmp_path: Path, **settings: Any) -> Source:
    return Source(SourceSettings(url=str(repository.directory), **settings), state_directory=tmp_path / "state")


async def read_all(source: Source) -> list[str]:
    """Do with a source all that a director does, and return the paths of its files."""
    revision = await source.fetch()
    files = source.files(revision)
    source.commit(revision)
    source.log(None, revision, limit=5)
    return [file.path for file in files.files]


async def test_a_repository_full_of_traps_springs_none(repository, tmp_path, sprung):
    repository.write(".gitattributes", "* filter=evil diff=evil merge=evil\n")
    repository.commit(client=TEXT)
    set_traps(repository, trap(tmp_path, sprung))

    assert await read_all(source(repository, tmp_path)) == ["client.yaml"]

    assert not sprung.exists()


async def test_a_repository_without_traps_is_read_alike(repository, tmp_path):
    repository.write(".gitattributes", "* text\n")
    repository.commit(client=TEXT)

    assert await read_all(source(repository, tmp_path)) == ["client.yaml"]


async def test_a_partial_clone_that_lacks_a_file_runs_nothing_to_get_it(repository, tmp_path, sprung):
    revision = repository.commit(client=TEXT)
    set_traps(repository, trap(tmp_path, sprung))
    blob = repository.git("rev-parse", f"{revision}:client.yaml")
    (repository.directory / ".git" / "objects" / blob[:2] / blob[2:]).unlink()

    with pytest.raises(DirectorError):
        await read_all(source(repository, tmp_path))

    assert not sprung.exists()


def test_these_traps_are_sprung_by_whoever_trusts_the_repository(repository, tmp_path, sprung):
    revision = repository.commit(client=TEXT)
    set_traps(repository, trap(tmp_path, sprung))
    repository.git("config", "--unset", "remote.origin.vcs")
    blob = repository.git("rev-parse", f"{revision}:client.yaml")
    (repository.directory / ".git" / "objects" / blob[:2] / blob[2:]).unlink()

    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    command = ["git", "-C", str(repository.directory), "cat-file", "-p", blob]
    subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60)

    assert sprung.exists()


# --- Where a source may be ---


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c touch% /tmp/pwned",
        "fd::17",
        "-oProxyCommand=evil",
        "--upload-pack=evil",
        "ssh://-oProxyCommand=evil/x",
        "ssh://git@-oProxyCommand=evil/x",
        "git@-oProxyCommand=evil:x",
        "http://plain.example/x",
        "git://plain.example/x",
        "ftp://plain.example/x",
    ],
)
def test_an_address_that_would_run_something_or_can_be_changed_on_its_way_is_refused(url, tmp_path):
    with pytest.raises((TerminalError, ValueError)):
        Source(SourceSettings(url=url), state_directory=tmp_path)


@pytest.mark.parametrize("url", ["https://git.example/x.git", "ssh://git@git.example/x", "git@git.example:x"])
def test_an_address_of_https_or_ssh_is_taken(url, tmp_path):
    Source(SourceSettings(url=url), state_directory=tmp_path)


@pytest.mark.parametrize("branch", ["--output=/tmp/pwned", "-x", "a..b", "a b", "@{-1}", "refs/../../x", "main^{tree}"])
def test_a_branch_that_is_an_option_or_an_expression_is_refused(branch, tmp_path):
    with pytest.raises((TerminalError, ValueError)):
        Source(SourceSettings(url="https://git.example/x.git", branch=branch), state_directory=tmp_path)


@pytest.mark.parametrize("branch", ["main", "team/backups", "v1.2"])
def test_a_branch_with_an_ordinary_name_is_taken(branch, tmp_path):
    Source(SourceSettings(url="https://git.example/x.git", branch=branch), state_directory=tmp_path)


# --- Files that lead elsewhere ---


async def test_links_and_odd_names_in_a_commit_lead_nowhere(repository, tmp_path):
    repository.commit(client=TEXT)
    (repository.directory / "link.yaml").symlink_to("/etc/passwd")
    (repository.directory / "folder").symlink_to("/etc")
    repository.write(".hidden/x.yaml", TEXT)
    repository.write("a\nb.yaml", TEXT)
    repository.commit()

    files = source(repository, tmp_path).files(repository.head())

    assert b"root:" not in b"".join(file.data for file in files.files)
    assert "link.yaml" not in [file.path for file in files.files]
    assert "folder/passwd" not in [file.path for file in files.files]


async def test_folders_and_files_of_ordinary_names_are_read(repository, tmp_path):
    repository.write("clients/web-1.yaml", TEXT)
    repository.write("überall/ä.yaml", TEXT)
    repository.commit()

    files = source(repository, tmp_path).files(repository.head())

    assert sorted(file.path for file in files.files) == ["clients/web-1.yaml", "überall/ä.yaml"]
