"""The client's state directory: one identity for a machine, whatever happens while it is made."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from client.state import StateDirectory
from schema.errors import TerminalError


@pytest.fixture
def directory(tmp_path: Path) -> StateDirectory:
    directory = StateDirectory(tmp_path / "var")
    directory.prepare()
    return directory


def test_an_identity_is_made_once_and_only_its_owner_may_read_it(directory):
    key = directory.identity().public

    assert directory.identity().public == key
    assert (directory.path / "identity").stat().st_mode & 0o777 == 0o600
    assert directory.path.stat().st_mode & 0o777 == 0o700


def test_many_that_make_an_identity_at_once_have_the_same(directory):
    together = threading.Barrier(8)

    def make(_: int) -> str:
        together.wait()
        return StateDirectory(directory.path).identity().public.text

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(make, range(8)))) == 1


@pytest.mark.parametrize("written", [b"", b"half of a key", b"a whole key that nobody has seen\n" * 20])
def test_a_key_whose_making_was_cut_off_is_made_anew_and_leaves_no_copy(directory, written):
    unfinished = directory.path / ".identity.new"
    unfinished.touch(mode=0o600)
    unfinished.write_bytes(written)

    key = directory.identity().public

    assert sorted(path.name for path in directory.path.iterdir()) == ["desired", "identity"]
    assert directory.identity().public == key


def test_an_identity_that_cannot_be_read_is_never_overwritten(directory):
    identity = directory.path / "identity"
    identity.touch(mode=0o600)
    identity.write_text("what was here before")

    with pytest.raises(TerminalError):
        directory.identity()
    identity.chmod(0o644)
    with pytest.raises(TerminalError, match="can be read by others"):
        directory.identity()

    assert identity.read_text() == "what was here before"
