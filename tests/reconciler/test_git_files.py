"""Going from one revision to the next finds the same files as listing each of them whole. Real Git."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import pytest

from reconciler.git_objects import GitObjects
from reconciler.source_files import Bounds
from schema.errors import TerminalError
from tests.git_repository import GitRepository

FOLDERS = ["", "clients/", "clients/web/", ".hidden/", "clients/.git-crypt/", "odd\x07name/", "source/", "source/deep/"]
NAMES = ["a.yaml", "b.yml", "c.yaml", "notes.txt", ".d.yaml", "bad\x1bname.yaml", "large.yaml"]
BOUNDS = Bounds(file_bytes=200, total_bytes=3_000, files=12, entries=60)


@pytest.fixture
def repository(tmp_path: Path) -> GitRepository:
    return GitRepository(tmp_path / "git")


def edit(repository: GitRepository, dice: Random) -> None:
    """Change something in the work tree."""
    path = dice.choice(FOLDERS) + dice.choice(NAMES)
    place = repository.directory / path
    above = next((folder for folder in reversed(place.parents) if folder.is_file() or folder.is_symlink()), None)
    if above is not None:
        above.unlink()
    what = dice.choice(["write", "write", "write", "remove", "link", "to-folder", "remove-folder", "executable"])
    if what in {"write", "executable", "link"} and place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    if what == "write":
        place.unlink(missing_ok=True)
        repository.write(path, f"text: {dice.randrange(5)}\n" * (40 if "large" in path else 1))
    elif what == "executable" and place.exists():
        place.chmod(0o755)
    elif what == "remove":
        shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink(missing_ok=True)
    elif what == "link":
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.symlink_to("elsewhere")
    elif what == "to-folder" and place.is_file():
        place.unlink()
        repository.write(f"{path}/inner.yaml", "inner: 1\n")
    elif what == "remove-folder" and place.parent != repository.directory:
        shutil.rmtree(place.parent, ignore_errors=True)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("path", ["", "source"])
def test_following_revisions_finds_what_listing_them_finds(repository: GitRepository, seed: int, path: str):
    dice = Random(seed)
    following = GitObjects(repository.directory, bounds=BOUNDS)
    seen = []
    for _ in range(12):
        repository.write("source/always.yaml", "there: 1\n")
        for _ in range(dice.randrange(1, 5)):
            edit(repository, dice)
        repository.write("source/always.yaml", "there: 1\n")
        seen.append(repository.commit())
        # Also back to one from before, as after a force-push.
        for revision in (seen[-1], dice.choice(seen)):
            assert following.files(revision, path) == GitObjects(repository.directory, bounds=BOUNDS).files(
                revision, path
            )


def test_a_folder_that_went_is_named_also_when_it_was_there_before(repository: GitRepository):
    repository.write("source/a.yaml", "a: 1\n")
    first = repository.commit()
    shutil.rmtree(repository.directory / "source")
    second = repository.commit(other="b: 1\n")
    reading = GitObjects(repository.directory)

    assert [file.path for file in reading.files(first, "source").files] == ["source/a.yaml"]
    with pytest.raises(TerminalError, match="there is no folder 'source'"):
        reading.files(second, "source")


def test_a_former_revision_that_is_gone_hinders_nobody(repository: GitRepository):
    reading = GitObjects(repository.directory)
    reading.files(repository.commit(a="a: 1\n"))
    shutil.rmtree(repository.directory)
    anew = GitRepository(repository.directory)
    revision = anew.commit(b="b: 1\n")

    assert [file.path for file in reading.files(revision).files] == ["b.yaml"]
