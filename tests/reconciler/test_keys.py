"""The state directory and the signing key in it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from reconciler.keys import load_identity, only_director, prepare_directory
from schema.envelope import DirectorIdentity
from schema.errors import TerminalError


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_missing_directory_is_made_for_us_alone(tmp_path: Path) -> None:
    prepare_directory(tmp_path / "a" / "b")
    assert mode(tmp_path / "a" / "b") == 0o700


@pytest.mark.parametrize("bits", [0o770, 0o702, 0o777])
def test_a_directory_that_others_can_write_is_refused(tmp_path: Path, bits: int) -> None:
    tmp_path.chmod(bits)
    with pytest.raises(TerminalError, match="other users may write to the state directory"):
        prepare_directory(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 54_321, 54_321)
    with pytest.raises(TerminalError, match="belongs to another user: 54321") as refused:
        prepare_directory(tmp_path)
    assert refused.value.hint == f"run the director as 54321, or chown -R 0 {tmp_path}"


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(TerminalError, match="cannot use the state directory .*: File exists"):
        prepare_directory(tmp_path / "state")


def test_a_key_is_made_once_and_only_we_can_read_it(tmp_path: Path) -> None:
    first = load_identity(tmp_path / "identity")
    assert mode(tmp_path / "identity") == 0o600
    assert load_identity(tmp_path / "identity").public.text == first.public.text
    assert [file.name for file in tmp_path.iterdir()] == ["identity"]


def test_many_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    found: list[str] = []
    begin = threading.Barrier(8)

    def start() -> None:
        begin.wait(10)
        found.append(load_identity(tmp_path / "identity").public.text)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["identity"]


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o666])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, bits: int) -> None:
    load_identity(tmp_path / "identity")
    (tmp_path / "identity").chmod(bits)
    with pytest.raises(TerminalError, match="others can read the director's key"):
        load_identity(tmp_path / "identity")


@pytest.mark.parametrize("content", [b"", b"\xff\x00" * 40, b"bd1-director-secret.x\n", b"x" * 100_000])
def test_a_damaged_key_is_never_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "identity"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(TerminalError, match="is damaged") as raised:
        load_identity(path)
    assert "restore the file from a backup" in raised.value.hint
    assert path.read_bytes() == content


def test_a_link_is_not_followed_to_a_key(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(DirectorIdentity.generate().to_text())
    elsewhere.chmod(0o600)
    (tmp_path / "identity").symlink_to(elsewhere)
    with pytest.raises(TerminalError, match="cannot read the director's key"):
        load_identity(tmp_path / "identity")


def test_a_state_directory_has_one_director_at_a_time(tmp_path: Path) -> None:
    with only_director(tmp_path):
        with pytest.raises(TerminalError, match="another director is running") as raised, only_director(tmp_path):
            pass
        assert f"process {os.getpid()}" in raised.value.hint
    with only_director(tmp_path):
        pass
