"""Pushing to a bare repository with our hooks: real git, and a director that is only the gate."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from reconciler.bare import init_bare, pre_receive
from reconciler.source import Commit, Files
from schema.errors import Problem, Severity, TerminalError, TransientError
from tests.git_repository import GitRepository, PushRefused

# What `director hook pre-receive` does, with a build that knows two words.
DIRECTOR = """
import os, sys
sys.path.insert(0, {root!r})
from tests.e2e.test_bare import build, plan
from reconciler.bare import pre_receive

if sys.argv[1:] == ["hook", "pre-receive"]:
    verdict = pre_receive(sys.stdin, os.environ, build=build, plan=plan)
    sys.stderr.write(verdict.text)
    sys.exit(verdict.exit_code)
if sys.argv[1:] == ["reconcile", "--nudge"]:
    with open({nudged!r}, "w") as pipe:
        pipe.write("nudged")
    sys.exit(2)
sys.exit(f"unknown: {{sys.argv[1:]}}")
"""


@dataclass
class Built:
    words: set[str]
    problems: list[Problem] = field(default_factory=list)


def build(files: Files) -> Built:
    built = Built({file.data.decode().strip() for file in files.files})
    for file in files.files:
        if b"broken" in file.data:
            built.problems.append(
                Problem(code="x", path=file.path, line=3, column=7, message="unknown field", hint="did you mean")
            )
        if b"odd" in file.data:
            built.problems.append(Problem(severity=Severity.WARNING, code="y", path=file.path, message="is odd"))
    return built


def plan(before: Built, after: Built, commits: Sequence[Commit]) -> str:
    changes = sorted(before.words ^ after.words)
    return f"plan: {', '.join(changes)} changes in {len(commits)} commits"


@pytest.fixture
def director(tmp_path: Path) -> list[str]:
    script = tmp_path / "a director.py"
    os.mkfifo(tmp_path / "nudged")
    root = str(Path(__file__).parents[2])
    script.write_text(DIRECTOR.format(root=root, nudged=str(tmp_path / "nudged")))
    return [sys.executable, str(script)]


@pytest.fixture
def bare(tmp_path: Path, director: list[str]) -> GitRepository:
    directory = tmp_path / "fleet.git"
    assert init_bare(directory, director_command=director)
    return GitRepository(directory)


@pytest.fixture
def work(tmp_path: Path) -> GitRepository:
    return GitRepository(tmp_path / "work")


def push(work: GitRepository, bare: GitRepository, *refspecs: str, force: bool = False) -> str:
    """Push, read the nudge that every accepted push makes, and return what the pusher saw."""
    seen = work.push(bare.directory, *refspecs, force=force)
    assert (bare.directory.parent / "nudged").read_text() == "nudged"
    return seen


def refused(work: GitRepository, bare: GitRepository, *refspecs: str, force: bool = False) -> str:
    with pytest.raises(PushRefused) as caught:
        work.push(bare.directory, *refspecs, force=force)
    return str(caught.value)


def test_a_first_push_is_admitted_with_its_plan_and_nudges_the_director(work, bare):
    revision = work.commit(a="web")
    assert "remote: plan: web changes in 1 commits" in push(work, bare)
    assert bare.head("main") == revision


def test_an_invalid_push_is_refused_with_file_line_and_column_and_changes_nothing(work, bare):
    good = work.commit(a="web")
    push(work, bare)
    work.write("fleet/b.yaml", "broken")
    work.commit()
    seen = refused(work, bare)
    assert "remote: refused: 1 error in " in seen
    assert "remote: fleet/b.yaml:3:7: error: unknown field" in seen
    assert "hint: did you mean" in seen
    assert "pre-receive hook declined" in seen
    assert bare.head("main") == good


def test_a_mistake_corrected_by_a_later_commit_of_the_same_push_is_admitted(work, bare):
    work.commit(a="web")
    push(work, bare)
    work.commit(b="broken")
    work.commit(b="mail")
    assert "plan: mail changes in 2 commits" in push(work, bare)


def test_warnings_are_shown_and_pass(work, bare):
    work.commit(a="odd")
    assert "remote: a.yaml: warning: is odd" in push(work, bare)


def test_what_the_source_itself_leaves_out_is_a_problem_too(work, bare):
    work.write("large.yaml", "#" * ((1 << 20) + 1))
    work.commit()
    assert "large.yaml: error: the file is 1,048,577 bytes" in refused(work, bare)


def test_a_long_list_of_problems_is_cut(work, bare):
    for number in range(60):
        work.write(f"{number}.yaml", "broken")
    work.commit()
    seen = refused(work, bare)
    assert "refused: 60 errors" in seen
    assert "… and 10 more" in seen


def test_the_watched_branch_cannot_be_deleted(work, bare):
    revision = work.commit(a="web")
    push(work, bare)
    assert "it cannot be deleted" in refused(work, bare, ":refs/heads/main")
    assert bare.head("main") == revision


def test_a_force_push_is_refused_until_somebody_allows_it_on_the_server(work, bare):
    base = work.commit(a="web")
    work.commit(b="mail")
    push(work, bare)
    work.reset(base)
    new = work.commit(c="files")
    seen = refused(work, bare, force=True)
    assert "would rewrite the history of 'main'" in seen
    assert "receive.denyNonFastForwards" in seen
    bare.git("config", "receive.denyNonFastForwards", "false")
    assert f"director acknowledge {new[:12]}" in push(work, bare, force=True)


def test_other_branches_are_not_checked(work, bare):
    work.commit(a="broken")
    push(work, bare, "HEAD:refs/heads/draft")


def test_one_refused_reference_refuses_the_whole_push(work, bare):
    work.commit(a="broken")
    refused(work, bare, "HEAD:refs/heads/draft", "HEAD:refs/heads/main")
    assert bare.attempt("rev-parse", "--verify", "--quiet", "refs/heads/draft").returncode != 0


def test_after_an_invalid_revision_a_push_is_admitted_without_a_plan(work, bare):
    work.commit(a="broken")
    hook = bare.directory / "hooks/pre-receive"
    hook.rename(bare.directory / "aside")
    push(work, bare)
    (bare.directory / "aside").rename(hook)
    work.commit(a="web")
    assert "there is no plan, because the revision before was not valid" in push(work, bare)


def test_another_branch_and_folder_can_be_watched(tmp_path, work, director):
    init_bare(tmp_path / "other.git", director_command=director, branch="trunk", path="fleet")
    other = GitRepository(tmp_path / "other.git")
    work.write("docker-compose.yaml", "broken")
    work.write("fleet/a.yaml", "web")
    work.commit()
    assert "plan: web changes" in push(work, other, "HEAD:refs/heads/trunk")
    assert other.git("symbolic-ref", "HEAD") == "refs/heads/trunk"


def test_a_push_that_moves_the_watched_folder_away_is_refused(tmp_path, work, director):
    init_bare(tmp_path / "other.git", director_command=director, path="fleet")
    other = GitRepository(tmp_path / "other.git")
    work.write("flet/a.yaml", "web")
    work.commit()
    assert "there is no folder 'fleet'" in refused(work, other, "HEAD:refs/heads/main")


def test_a_director_that_does_not_start_refuses_pushes(tmp_path, work):
    init_bare(tmp_path / "other.git", director_command=["/nowhere/director"])
    work.commit(a="web")
    assert "/nowhere/director" in refused(work, GitRepository(tmp_path / "other.git"))


def test_hooks_of_a_source_that_cannot_be_read_refuse(tmp_path):
    verdict = pre_receive(
        [f"{'0' * 40} {'1' * 40} refs/heads/main\n"],
        {"GIT_DIR": str(GitRepository(tmp_path / "x", bare=True).directory)},
        build=build,
        plan=plan,
    )
    assert verdict.exit_code == 1
    assert "there is no commit" in verdict.text


# --- init ---


def test_init_again_updates_the_hooks_and_keeps_what_a_person_set(work, bare):
    work.commit(a="web")
    push(work, bare)
    bare.git("config", "receive.denyNonFastForwards", "false")
    (bare.directory / "hooks/pre-receive").chmod(0o600)
    assert not init_bare(bare.directory, director_command=["/opt/new director/bin/director", "--config", "/etc/x"])
    hook = (bare.directory / "hooks/pre-receive").read_text()
    assert "exec '/opt/new director/bin/director' --config /etc/x hook pre-receive" in hook
    assert (bare.directory / "hooks/pre-receive").stat().st_mode & 0o777 == 0o755
    assert bare.git("config", "receive.denyNonFastForwards") == "false"
    assert bare.git("config", "receive.denyDeletes") == "true"
    assert bare.head("main")


def test_a_folder_that_holds_something_else_is_refused(tmp_path, director):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("x")
    for directory in (tmp_path / "full", tmp_path / "full/file", GitRepository(tmp_path / "work").directory):
        with pytest.raises(TerminalError, match="it is not empty"):
            init_bare(directory, director_command=director)
    foreign = GitRepository(tmp_path / "foreign.git", bare=True).directory
    with pytest.raises(TerminalError, match="it is not empty"):
        init_bare(foreign, director_command=director)
    assert not (foreign / "hooks/pre-receive").exists()


def test_an_empty_folder_is_taken(tmp_path, director):
    (tmp_path / "empty").mkdir()
    assert init_bare(tmp_path / "empty", director_command=director)


def test_a_hook_of_somebody_else_is_left_as_it_is(bare, director):
    hook = bare.directory / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\nexec /usr/local/bin/mine\n")
    with pytest.raises(TerminalError, match="was not written by us"):
        init_bare(bare.directory, director_command=director)
    assert "mine" in hook.read_text()


def test_a_place_that_cannot_be_written_is_named(tmp_path, director):
    (tmp_path / "file").write_text("x")
    with pytest.raises(TransientError, match="cannot write the bare repository"):
        init_bare(tmp_path / "file/inside", director_command=director)


def test_hooks_need_an_absolute_command(tmp_path):
    with pytest.raises(TerminalError, match="absolute path"):
        init_bare(tmp_path / "x", director_command=["director"])
