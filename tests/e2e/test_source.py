"""Reading revisions and files from real Git repositories in place, and from plain folders."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from reconciler.git_objects import Damaged
from reconciler.source import Bounds, Files, Source, SourceSettings, discover, read_folder
from schema.errors import Severity, TerminalError
from tests.git_repository import GitRepository


@pytest.fixture
def repository(tmp_path: Path) -> GitRepository:
    return GitRepository(tmp_path / "repository")


def open_source(repository: GitRepository, *, bounds: Bounds | None = None, **settings: Any) -> Source:
    return Source(
        SourceSettings(url=str(repository.directory), **settings),
        state_directory=repository.directory.parent / "state",
        bounds=bounds,
    )


def paths(files: Files) -> list[str]:
    return [file.path for file in files.files]


def codes(files: Files) -> list[tuple[str, str]]:
    return [(problem.path, problem.code) for problem in files.problems]


# --- fetch ---


@pytest.mark.parametrize("bare", [False, True])
async def test_the_newest_revision_of_the_branch_is_found(repository, tmp_path, bare):
    revision = repository.commit(client="kind: Client\n")
    if bare:
        origin = GitRepository(tmp_path / "origin.git", bare=True)
        repository.push(origin.directory)
        repository = origin
    assert await open_source(repository).fetch() == revision
    assert not (tmp_path / "state").exists()


async def test_a_file_url_is_read_in_place(repository, tmp_path):
    revision = repository.commit(a="a")
    source = Source(SourceSettings(url=f"file://{repository.directory}"), state_directory=tmp_path / "state")
    assert await source.fetch() == revision


async def test_what_is_not_committed_is_not_read(repository):
    revision = repository.commit(a="committed")
    repository.write("a.yaml", "edited")
    repository.write("b.yaml", "new")
    source = open_source(repository)
    assert [file.data for file in source.files(await source.fetch()).files] == [b"committed"]
    assert await source.fetch() == revision


async def test_a_checked_out_feature_branch_changes_nothing(repository):
    revision = repository.commit(a="a")
    repository.branch("feature")
    repository.commit(a="other")
    assert await open_source(repository).fetch() == revision


async def test_a_packed_and_repacked_repository_is_read_while_it_is_open(repository):
    first = repository.commit(a="a")
    source = open_source(repository)
    source.files(await source.fetch())
    second = repository.commit(b="b")
    repository.git("gc", "--quiet", "--prune=now")
    assert await source.fetch() == second
    assert paths(source.files(second)) == ["a.yaml", "b.yaml"]
    assert source.is_descendant(second, of=first)


async def test_a_repository_of_another_owner_is_read(repository):
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    revision = repository.commit(a="a")
    for file in [repository.directory, *repository.directory.rglob("*")]:
        os.chown(file, 12345, 12345, follow_symlinks=False)
    source = open_source(repository)
    assert await source.fetch() == revision
    assert paths(source.files(revision)) == ["a.yaml"]


async def test_a_linked_work_tree_is_a_repository(repository, tmp_path):
    revision = repository.commit(a="a")
    repository.git("worktree", "add", "--quiet", "-b", "other", str(tmp_path / "linked"))
    source = Source(SourceSettings(url=str(tmp_path / "linked")), state_directory=tmp_path / "state")
    assert await source.fetch() == revision


async def test_alternates_are_followed(repository, tmp_path):
    revision = repository.commit(a="a")
    repository.git("clone", "--quiet", "--shared", ".", str(tmp_path / "shared"))
    source = Source(SourceSettings(url=str(tmp_path / "shared")), state_directory=tmp_path / "state")
    assert await source.fetch() == revision
    assert paths(source.files(revision)) == ["a.yaml"]


async def test_an_empty_repository_says_that_nothing_is_committed(repository):
    with pytest.raises(TerminalError, match="is empty: no branch has a commit yet") as caught:
        await open_source(repository).fetch()
    assert "director init" in caught.value.hint


async def test_a_branch_that_never_was_is_named_beside_those_that_are(repository):
    repository.commit()
    repository.branch("maine")
    with pytest.raises(TerminalError, match="has no branch 'mian'; its branches are: main, maine") as caught:
        await open_source(repository, branch="mian").fetch()
    assert "did you mean 'main" in caught.value.hint


async def test_a_branch_that_vanished_is_an_error_until_it_is_back(repository):
    revision = repository.commit()
    source = open_source(repository)
    await source.fetch()
    repository.branch("trunk")
    repository.git("branch", "-D", "main")
    with pytest.raises(TerminalError, match="no branch 'main'") as caught:
        await source.fetch()
    assert "did you mean 'trunk'" in caught.value.hint
    repository.branch("main")
    assert await source.fetch() == revision


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("x")])
async def test_a_place_without_a_repository_is_named(tmp_path, make):
    make(tmp_path / "there")
    source = Source(SourceSettings(url=str(tmp_path / "there")), state_directory=tmp_path / "state")
    with pytest.raises(TerminalError, match=r"cannot read the source: .*there"):
        await source.fetch()


async def test_a_repository_with_sha256_object_ids_is_read(repository):
    shutil.rmtree(repository.directory / ".git")
    repository.git("init", "--quiet", "--object-format=sha256", "--initial-branch=main")
    revision = repository.commit(a="a")
    source = open_source(repository)
    assert await source.fetch() == revision
    assert paths(source.files(revision)) == ["a.yaml"]
    assert source.is_descendant(repository.commit(), of=revision)


async def test_a_repository_of_a_later_format_is_named(repository):
    repository.git("config", "core.repositoryformatversion", "99")
    with pytest.raises(TerminalError, match="a format that this git does not know"):
        await open_source(repository).fetch()


# --- files ---


async def test_resource_files_are_those_named_yaml_outside_hidden_folders(repository):
    for path in ("b.yml", "a.yaml", "deep/er/c.yaml", ".github/ci.yaml", ".pre-commit-config.yaml", "d.json", "yaml"):
        repository.write(path, path)
    source = open_source(repository)
    files = source.files(repository.commit())
    assert paths(files) == ["a.yaml", "b.yml", "deep/er/c.yaml"]
    assert [file.data.decode() for file in files.files] == paths(files)
    assert [file.blob for file in files.files] == [repository.head(f"HEAD:{path}") for path in paths(files)]
    assert files.problems == ()


async def test_the_source_path_narrows_what_is_read_and_paths_count_from_the_root(repository):
    repository.write("fleet/backups/web.yaml", "x")
    repository.write("docker-compose.yaml", "x")
    revision = repository.commit()
    assert paths(open_source(repository, path="fleet").files(revision)) == ["fleet/backups/web.yaml"]
    assert paths(open_source(repository, path="./fleet/backups/").files(revision)) == ["fleet/backups/web.yaml"]


@pytest.mark.parametrize(
    "path, hint",
    [
        ("flet", "did you mean 'fleet'?"),
        ("fleet/back", "did you mean 'fleet/backups'?"),
        ("a.yaml", "set the source's"),
    ],
)
async def test_a_source_path_that_is_no_folder_is_an_error(repository, path, hint):
    repository.write("fleet/backups/web.yaml", "x")
    revision = repository.commit(a="a")
    with pytest.raises(TerminalError, match=f"there is no folder '{path}'") as caught:
        open_source(repository, path=path).files(revision)
    assert hint in caught.value.hint


async def test_links_and_submodules_are_left_out_with_a_warning(repository, tmp_path):
    other = GitRepository(tmp_path / "other")
    other.commit(inner="x")
    repository.write("a.yaml", "x")
    (repository.directory / "link.yaml").symlink_to("/etc/passwd")
    (repository.directory / "folder").symlink_to("..")
    repository.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other.directory), "module")
    source = open_source(repository)
    files = source.files(repository.commit())
    assert paths(files) == ["a.yaml"]
    assert codes(files) == [
        ("folder", "symbolic-link-skipped"),
        ("link.yaml", "symbolic-link-skipped"),
        ("module", "submodule-skipped"),
    ]
    assert {problem.severity for problem in files.problems} == {Severity.WARNING}
    assert read_folder(repository.directory) == files


async def test_a_file_that_is_too_large_is_a_problem_and_the_others_are_read(repository):
    repository.write("large.yaml", b"#" * (1 << 20) + b"\n")
    repository.write("fits.yaml", b"#" * (1 << 20))
    files = open_source(repository).files(repository.commit())
    assert paths(files) == ["fits.yaml"]
    assert codes(files) == [("large.yaml", "file-too-large")]
    assert "1,048,577 bytes" in files.problems[0].message
    assert read_folder(repository.directory) == files


async def test_names_that_are_not_text_are_problems(repository):
    repository.write(os.fsdecode(b"bad\xff.yaml"), "x")
    repository.write("new\nline/a.yaml", "x")
    repository.write("esc\x1b[31m.yaml", "x")
    repository.write("grün.yaml", "x")
    files = open_source(repository).files(repository.commit())
    assert paths(files) == ["grün.yaml"]
    assert sorted(codes(files)) == [
        ("bad\\udcff.yaml", "bad-file-name"),
        ("esc\\x1b[31m.yaml", "bad-file-name"),
        ("new\\nline", "bad-file-name"),
    ]
    assert sorted(codes(read_folder(repository.directory))) == sorted(codes(files))


@pytest.mark.parametrize(
    "bounds, reason",
    [
        (Bounds(files=2), "more than 2 YAML files"),
        (Bounds(total_bytes=5), "larger than 0 MiB"),
        (Bounds(entries=3), "more than 3 files and folders"),
        (Bounds(depth=1), "nested more than 1 levels"),
    ],
)
async def test_past_a_bound_nothing_is_used(repository, bounds, reason):
    for name in ("a", "b", "folder/deeper/c"):
        repository.write(f"{name}.yaml", "xx")
    files = open_source(repository, bounds=bounds).files(repository.commit())
    assert files.files == ()
    assert codes(files) == [("", "source-too-large")]
    assert reason in files.problems[0].message
    assert read_folder(repository.directory, bounds=bounds) == files


async def test_trees_that_repeat_each_other_are_counted_not_walked(repository):
    blob = repository.git("hash-object", "-w", "--stdin", data="x")
    tree = repository.git("mktree", data=f"100644 blob {blob}\tx\n")
    for _ in range(8):
        tree = repository.git("mktree", data="".join(f"040000 tree {tree}\t{name}\n" for name in range(10)))
    revision = repository.git("commit-tree", tree, "-m", "a bomb")
    files = open_source(repository, bounds=Bounds(entries=5000)).files(revision)
    assert codes(files) == [("", "source-too-large")]


async def test_a_small_commit_reads_only_what_changed(repository, monkeypatch):
    for number in range(30):
        repository.write(f"folder{number % 3}/{number}.yaml", str(number))
    source = open_source(repository)
    before = {file.path: file for file in source.files(repository.commit()).files}
    repository.write("folder1/1.yaml", "changed")
    (repository.directory / "folder2/2.yaml").rename(repository.directory / "folder0/moved.yaml")
    files = source.files(repository.commit()).files
    kept = [file.path for file in files if before.get(file.path) is file]
    assert len(files) == 30
    assert sorted(set(paths(Files(files))) - set(kept)) == ["folder0/moved.yaml", "folder1/1.yaml"]
    assert Files(files) == open_source(repository).files(repository.head())


async def test_files_of_two_revisions_can_be_read_in_turns(repository):
    old, new = repository.commit(a="1"), repository.commit(a="2")
    source = open_source(repository)
    read = [source.files(revision).files[0].data for revision in (old, new, old)]
    assert read == [b"1", b"2", b"1"]


@pytest.mark.parametrize("revision", ["1" * 40, "0" * 40, "--all", "HEAD", "", "main\n"])
async def test_a_revision_that_is_not_there_is_an_error(repository, revision):
    repository.commit()
    with pytest.raises(TerminalError, match="there is no commit"):
        open_source(repository).files(revision)


async def test_a_damaged_repository_of_somebody_else_is_named_and_left_alone(repository):
    revision = repository.commit(a="content")
    blob = repository.head("HEAD:a.yaml")
    file = repository.directory / ".git/objects" / blob[:2] / blob[2:]
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:5])
    with pytest.raises(Damaged, match="is damaged") as caught:
        open_source(repository).files(revision)
    assert "fsck" in caught.value.hint
    file.unlink()
    with pytest.raises(Damaged, match="is damaged"):
        open_source(repository).files(revision)
    assert (repository.directory / ".git").exists()


# --- history ---


async def test_a_descendant_is_found_through_either_parent_of_a_merge(repository):
    base = repository.commit("base", a="1")
    repository.branch("feature")
    feature = repository.commit("feature", b="1")
    repository.branch("main", at=base)
    main = repository.commit("main", c="1")
    merged = repository.merge("feature")
    source = open_source(repository)
    assert [source.is_descendant(merged, of=old) for old in (base, feature, main, merged)] == [True] * 4
    assert not source.is_descendant(main, of=feature)
    assert not source.is_descendant(base, of=merged)


async def test_a_force_push_is_not_a_descendant_even_after_the_old_commit_is_gone(repository):
    base = repository.commit()
    old = repository.commit("old")
    repository.reset(base)
    new = repository.commit("new")
    source = open_source(repository)
    assert not source.is_descendant(new, of=old)
    repository.git("reflog", "expire", "--expire=now", "--all")
    repository.git("gc", "--quiet", "--prune=now")
    assert not source.is_descendant(new, of=old)
    assert source.is_descendant(new, of=base)
    assert [commit.revision for commit in source.log(old, new)] == [new, base]


async def test_a_commit_is_read_with_its_trailers(repository):
    parent = repository.commit("first")
    revision = repository.commit("shorten retention\n\nWe have no room.\n\nDirector-Acknowledge: retention\nCc: b@c\n")
    commit = open_source(repository).commit(revision)
    assert commit.subject == "shorten retention"
    assert commit.author == "A Person <person@example.org>"
    assert commit.trailers == {"Director-Acknowledge": "retention", "Cc": "b@c"}
    assert commit.parents == (parent,)
    assert commit.committed.tzinfo is not None


async def test_a_commit_that_nobody_could_write_is_still_read(repository):
    repository.commit()
    tree = repository.head("HEAD^{tree}")
    raw = f"tree {tree}\nauthor \xff\x1b <> 1 +0000\ncommitter x <x> 99999999999999 +9900\n\n\xe9\n\nA: \xe9\n"
    raw_bytes = raw.encode("latin-1")
    file = repository.write("commit", raw_bytes)
    revision = repository.git("hash-object", "-t", "commit", "-w", "--literally", str(file))
    commit = open_source(repository).commit(revision)
    assert commit.committed.year == 9999
    assert commit.message.startswith("\N{REPLACEMENT CHARACTER}")


async def test_the_log_is_newest_first_and_bounded(repository):
    revisions = [repository.commit(str(number)) for number in range(6)]
    source = open_source(repository)
    assert [commit.revision for commit in source.log(revisions[2], revisions[5])] == revisions[:2:-1]
    assert [commit.revision for commit in source.log(None, revisions[5], limit=2)] == [revisions[5], revisions[4]]
    assert source.log(revisions[5], revisions[5]) == []


async def test_people_name_revisions_as_they_do_in_git(repository):
    first = repository.commit("first")
    repository.git("tag", "--annotate", "-m", "x", "v1")
    second = repository.commit("second")
    source = open_source(repository)
    resolved = [source.resolve(text) for text in ("main", "HEAD~1", "v1", second[:10], second)]
    assert resolved == [second, first, first, second, second]


@pytest.mark.parametrize("text", ["--output=/tmp/x", "-h", "", "nope", "HEAD^{tree}", "HEAD~99", "a b", "main:a.yaml"])
async def test_words_that_name_no_commit_are_an_error_and_never_an_option(repository, text):
    repository.commit(a="a")
    with pytest.raises(TerminalError):
        open_source(repository).resolve(text)


async def test_a_misspelt_branch_is_recognised(repository):
    repository.commit()
    with pytest.raises(TerminalError) as caught:
        open_source(repository).resolve("mian")
    assert caught.value.hint == "did you mean 'main'?"


# --- plain folders, watch and discover ---


def test_a_folder_and_its_commit_are_the_same_files(repository):
    for path in ("b.yml", "deep/er/c.yaml", ".hidden/x.yaml", "a-b.yaml", "a/b.yaml", "a.yaml", "notes.txt"):
        repository.write(path, path)
    assert read_folder(repository.directory) == open_source(repository).files(repository.commit())


async def test_a_commit_nudges_the_watcher(repository):
    repository.commit()
    nudges = open_source(repository).watch()
    waiting = asyncio.ensure_future(anext(nudges))
    for number in range(100):  # the first commits may come before the watch stands
        repository.commit(str(number))
        done, _ = await asyncio.wait({waiting}, timeout=0.6)
        if done:
            break
    assert waiting.done()
    await nudges.aclose()


async def test_a_remote_source_has_nothing_to_watch(tmp_path):
    source = Source(SourceSettings(url="ssh://git@localhost/x.git"), state_directory=tmp_path)
    assert [nudge async for nudge in source.watch()] == []


async def test_a_folder_finds_the_repository_around_it(repository, tmp_path):
    repository.write("fleet/web/a.yaml", "x")
    repository.branch("trunk") if repository.commit() else None
    place = discover(repository.directory / "fleet")
    assert place is not None
    assert (place.repository, place.path, place.branch) == (repository.directory, "fleet", "trunk")
    assert discover(tmp_path) is None
