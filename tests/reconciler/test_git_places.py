"""Which repository a folder stands in, found without starting git. Real Git made them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from reconciler.commands.source import repository_around
from reconciler.git_objects import discover
from tests.git_repository import GitRepository


@pytest.fixture
def repository(tmp_path: Path) -> GitRepository:
    return GitRepository(tmp_path / "git")


def test_the_root_of_the_repository_is_found_from_any_folder_below_it(repository):
    repository.write("fleet/web/a.yaml", "x")

    assert repository_around(repository.directory) == repository.directory
    assert repository_around(repository.directory / "fleet" / "web") == repository.directory


def test_there_may_be_none(tmp_path):
    assert repository_around(tmp_path) is None


def test_the_git_program_is_not_asked_about_a_usual_repository(repository, monkeypatch):
    monkeypatch.setenv("PATH", "")

    assert repository_around(repository.directory) == repository.directory


def test_a_linked_work_tree_is_a_repository_of_its_own(repository, tmp_path):
    repository.commit()
    subprocess.run(["git", "worktree", "add", "-q", tmp_path / "linked"], cwd=repository.directory, check=True)
    (tmp_path / "linked" / "fleet").mkdir()

    assert repository_around(tmp_path / "linked" / "fleet") == tmp_path / "linked"


def test_what_only_looks_like_a_repository_is_passed_over(repository):
    for name in ("empty", "file"):
        (repository.directory / name / "inner").mkdir(parents=True)
    (repository.directory / "empty" / ".git").mkdir()
    (repository.directory / "file" / ".git").write_text("gitdir: nowhere\n")

    assert repository_around(repository.directory / "empty" / "inner") == repository.directory
    assert repository_around(repository.directory / "file" / "inner") == repository.directory


@pytest.mark.parametrize("folder", ["", "fleet", "bare.git", "bare.git/objects"])
def test_it_is_the_repository_that_git_discovers(repository, folder):
    repository.write("fleet/a.yaml", "x")
    subprocess.run(["git", "init", "-q", "--bare", repository.directory / "bare.git"], check=True)
    place = discover(repository.directory / folder)

    assert place is not None
    assert repository_around(repository.directory / folder) == place.repository
