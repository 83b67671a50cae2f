"""Git's objects with any names and any bytes, read by the real git; and the same files in a plain folder."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import shutil
import tempfile
import zlib
from functools import cache
from pathlib import Path

from reconciler.git_objects import GitObjects, make_repository
from reconciler.source_files import Bounds, Files, read_folder
from schema.errors import DirectorError
from tests.fuzz.target import Target, refusing

_MODES = (b"100644", b"100755", b"40000", b"120000", b"160000", b"100600", b"0", b"777777")
_SMALL = Bounds(file_bytes=4_096, total_bytes=16_384, files=8, entries=40, depth=6)


@cache
def _scratch() -> Path:
    made = tempfile.TemporaryDirectory(prefix="fuzz-git-")
    atexit.register(made.cleanup)
    return Path(made.name)


@cache
def _repository() -> Path:
    path = _scratch() / "source.git"
    make_repository(path, branch="main", bare=True)
    return path


def _write(kind: str, data: bytes) -> str:
    """Write an object as git would, without asking whether it is one."""
    whole = b"%s %d\0%s" % (kind.encode(), len(data), data)
    name = hashlib.sha1(whole, usedforsecurity=False).hexdigest()
    path = _repository() / "objects" / name[:2] / name[2:]
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(zlib.compress(whole, 1))
    return name


def _commit(tree: str, author: bytes = b"A <a@example.org> 1700000000 +0000", message: bytes = b"x\n") -> str:
    return _write("commit", b"tree %s\nauthor %s\ncommitter %s\n\n%s" % (tree.encode(), author, author, message))


def _tree(entries: list[tuple[bytes, bytes, str]]) -> str:
    return _write("tree", b"".join(b"%s %s\0%s" % (mode, name, bytes.fromhex(blob)) for mode, name, blob in entries))


def _trees(data: bytes) -> None:
    """Lines: the number of a mode, the name of an entry, a tab and what is in it; all in one folder and below it."""
    _forget()
    folder: list[tuple[bytes, bytes, str]] = []
    plain: dict[bytes, bytes] = {}
    for line in data.split(b"\n")[:12]:
        head, _, content = line.partition(b"\t")
        mode = _MODES[head[0] % len(_MODES)] if head else _MODES[0]
        name = head[1:] or b"a.yaml"
        inside = (
            _write("blob", content) if mode != b"40000" else _tree([(b"100644", b"in.yaml", _write("blob", content))])
        )
        folder.append((mode, name, inside))
        if mode in {b"100644", b"100755"}:
            plain[name] = content
    folder.sort(key=lambda one: one[1] + (b"/" if one[0] == b"40000" else b""))
    outer = sorted(
        [*folder, (b"40000", b"zz", _tree(folder))], key=lambda one: one[1] + (b"/" if one[0] == b"40000" else b"")
    )
    objects = GitObjects(_repository(), bounds=_SMALL)
    with refusing(DirectorError):
        files = objects.files(_commit(_tree(outer)))
    _check(files)
    if len(plain) == len(folder):
        _as_folder(plain, files)


def _check(files: Files) -> None:
    for file in files.files:
        assert file.path.isprintable()
        assert file.path.endswith((".yaml", ".yml"))
        assert not any(part.startswith(".") for part in file.path.split("/"))
        assert len(file.data) <= _SMALL.file_bytes
        assert (
            file.blob == hashlib.sha1(b"blob %d\0%s" % (len(file.data), file.data), usedforsecurity=False).hexdigest()
        )
    for problem in files.problems:
        problem.model_dump_json()
        assert problem.path.isprintable()


def _as_folder(plain: dict[bytes, bytes], files: Files) -> None:
    """Nothing but files, whose names a file system takes: a plain folder shows the same, once and once below ``zz``."""
    if not all(_is_name(name) for name in plain) or b"zz" in plain:
        return
    root = _scratch() / "folder"
    shutil.rmtree(root, ignore_errors=True)
    for place in (os.fsencode(root), os.fsencode(root / "zz")):
        os.makedirs(place)  # noqa: PTH103 - names that are bytes
        for name, content in plain.items():
            with open(os.path.join(place, name), "wb") as file:  # noqa: PTH118, PTH123
                file.write(content)
    theirs = read_folder(root, bounds=_SMALL)
    assert {(one.path, one.blob) for one in theirs.files} == {(one.path, one.blob) for one in files.files}
    assert sorted(one.code for one in theirs.problems) == sorted(one.code for one in files.problems)


def _is_name(name: bytes) -> bool:
    return name not in {b".", b"..", b".git"} and len(name) < 250 and b"/" not in name and b"\0" not in name


def _objects(data: bytes) -> None:
    """Bytes as a commit, and as the tree of a sound one."""
    _forget()
    objects = GitObjects(_repository(), bounds=_SMALL)
    for revision in (_write("commit", data), _commit(_write("tree", data))):
        with contextlib.suppress(DirectorError):
            _check(objects.files(revision))
        with contextlib.suppress(DirectorError):
            for commit in objects.log(None, revision, limit=3):
                assert commit.revision
                commit.subject.encode()
                assert commit.committed.tzinfo is not None


def _message(data: bytes) -> None:
    """Two lines and the rest: an author, a time, a message."""
    author, _, rest = data.partition(b"\n")
    seconds, _, message = rest.partition(b"\n")
    _forget()
    with refusing(DirectorError):
        commit = GitObjects(_repository()).commit(_commit(_tree([]), b"%s %s" % (author, seconds), message))
    for text in (commit.author, commit.message, commit.subject, *commit.trailers, *commit.trailers.values()):
        text.encode()
    assert commit.committed.year <= 9999


def _forget() -> None:
    """Keep the scratch repository small."""
    for folder in (_repository() / "objects").iterdir():
        if len(folder.name) == 2:
            shutil.rmtree(folder)


TARGETS = (
    Target(
        name="git-trees",
        promise="a tree with any names is read, or refused with a DirectorError; what is read has names and contents "
        "that can be shown and are within the bounds, and is what a plain folder with the same files gives",
        check=_trees,
        seeds=lambda: [
            b"0a.yaml\ta: 1\n0b.yml\tb: 2\n0.hidden.yaml\tx\n0c.txt\ty",
            b"0a.yaml\ta: 1\n2d\tx: 1\n3link.yaml\t/etc/passwd\n4sub.yaml\t\n1e.yaml\t",
            b"0\xff\xfe.yaml\ta\n0\xe2\x80\xae.yaml\tb\n0new\x01line.yaml\tc",
        ],
        separator=b"\n",
        words=(".yaml", ".yml", ".git", "..", "/", "\t", "zz", "in.yaml", "\u202e", "A" * 300),
        most=1_024,
        seconds=20,
    ),
    Target(
        name="git-objects",
        promise="any bytes as a commit or as a tree are read, or refused with a DirectorError",
        check=_objects,
        seeds=lambda: [
            b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nx\n",
            b"100644 a.yaml\0" + bytes(20) + b"40000 b\0" + bytes(20),
        ],
        words=(
            "tree ",
            "parent ",
            "author ",
            "committer ",
            "gpgsig ",
            "encoding ISO-8859-1\n",
            "100644 a.yaml",
            "40000 ",
        ),
        most=512,
        seconds=20,
    ),
    Target(
        name="git-commits",
        promise="whatever a commit says of its author, time and message can be shown, and has a time of our calendar",
        check=_message,
        seeds=lambda: [
            b"A <a@b>\n1700000000 +0000\nsubject\n\nbody\n\nDirector-Acknowledge: retention-shortened\n",
            b"\xff <>\n99999999999999999999 -9999\n\x00\x1f",
        ],
        words=("Director-Acknowledge: ", "\n\n", "<", ">", " +0000", "-1", "\x1e", "\xff"),
        most=512,
        seconds=20,
    ),
)
