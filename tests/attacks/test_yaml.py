"""YAML that is meant to cost more than it weighs, read by the director and by the client's own policy."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import pytest
from pydantic import JsonValue

from client.policy_file import read_options
from reconciler.core import emit
from reconciler.core.yaml_reader import read
from schema.desired import ManagedFile
from schema.errors import Severity
from tests.reconciler.core import written
from tests.reconciler.core.test_yaml_reader import ALIAS_BOMB

INNOCENT = b"".join(b"key-%02d: [x,x,x,x,x,x,x]\n" % number for number in range(len(ALIAS_BOMB) // 24))
TIMES = 5
"""A bomb of 250 bytes stands for 5 million values, which cost 100,000 times as much as this file; so this is close."""

POISON = {
    "an alias bomb": ALIAS_BOMB,
    "merge keys": b"a: &a {x: 1}\n" + b"".join(b"k%d: {<<: *a}\n" % n for n in range(20)),
    "an alias of itself": b"a: &a [*a]\n",
    "depth": b"[" * 120 + b"]" * 120,
    "depth of blocks": b"".join(b" " * n + b"a:\n" for n in range(20)) + b" " * 20 + b"- " * 60 + b"x\n",
    "a tag": b"a: !!python/object/apply:os.system [id]\n",
    "a key that is a mapping": b"? {a: 1}\n: x\n",
    "anchors on each other": b"a0: &a0 [x]\n"
    + b"".join(b"a%d: &a%d [%s]\n" % (n, n, b"*a%d," % (n - 1) * 9) for n in range(1, 9)),
}


def cost(work: Callable[[], object]) -> float:
    """Return the least processor time of a few tries: what others do on this machine does not count."""
    least = float("inf")
    for _ in range(12):
        before = time.process_time()
        work()
        least = min(least, time.process_time() - before)
    return least


def file(data: bytes) -> ManagedFile:
    return ManagedFile(place="config", path="web.yaml", origin="web.yaml:1", content=data.decode())


def refused_by_a_client(data: bytes) -> bool:
    try:
        read_options(file(data))
    except ValueError:
        return True
    return False


def test_an_alias_bomb_of_258_bytes_costs_a_director_what_an_innocent_file_of_its_size_does():
    assert len(ALIAS_BOMB) < 258

    assert [one.code for one in read(ALIAS_BOMB, path="a.yaml").problems] == ["too-many-nodes"]
    assert cost(lambda: read(ALIAS_BOMB, path="a.yaml")) < TIMES * cost(lambda: read(INNOCENT, path="a.yaml"))


def test_an_innocent_file_of_the_size_of_a_bomb_is_read_by_a_director():
    assert len(ALIAS_BOMB) - 24 < len(INNOCENT) <= len(ALIAS_BOMB)

    assert read(INNOCENT, path="a.yaml").problems == ()


def test_an_alias_bomb_of_258_bytes_costs_a_client_what_an_innocent_file_of_its_size_does():
    assert refused_by_a_client(ALIAS_BOMB)
    assert cost(lambda: refused_by_a_client(ALIAS_BOMB)) < TIMES * cost(lambda: refused_by_a_client(INNOCENT))


def test_an_innocent_file_of_the_size_of_a_bomb_is_read_by_a_client():
    assert not refused_by_a_client(INNOCENT)


@pytest.mark.parametrize("data", POISON.values(), ids=POISON.keys())
def test_a_poisoned_file_makes_its_revision_invalid_and_stops_nothing_else(data):
    found = written.built([*written.small(), written.file("poison.yaml", data.decode())])

    errors = [one for one in found.problems if one.severity is Severity.ERROR]
    assert {one.path for one in errors} == {"poison.yaml"}
    assert found.contents == {}
    assert written.built(written.small()).problems == ()


def test_a_sound_file_beside_the_others_is_built():
    found = written.built([*written.small(), written.backup("more", borgmatic=written.BLOCK)])

    assert [one for one in found.problems if one.severity is Severity.ERROR] == []
    assert sorted(one.path for one in found.contents["web-1"].files) == ["files.yaml", "more.yaml"]


@pytest.mark.parametrize("data", POISON.values(), ids=POISON.keys())
def test_a_poisoned_file_that_is_signed_is_refused_by_a_client(data):
    assert refused_by_a_client(data)


# --- Names without end ---


def names(number: int) -> dict[str, JsonValue]:
    """Return options with a name of a quarter of a mebibyte, another one for each number."""
    return {"constants": {f"{number}{'k' * 262_144}": "x"}}


def test_long_names_of_pushes_long_gone_stay_in_no_memory():
    tracemalloc.start()
    try:
        for number in range(100):
            emit.document(names(number))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept < 4 * 1024 * 1024


@pytest.mark.parametrize("value", ["x", "two\nlines\n", {}, {"a": [1]}, [], [{"b": 1}]])
@pytest.mark.parametrize("character", ["k", "<", "\x01", "é", "\u2028"])
@pytest.mark.parametrize("length", [170, 1_000, 1_025, 50_000])
def test_a_long_name_is_written_like_any_other(length, character, value):
    name = length * character
    options: dict[str, JsonValue] = {"constants": {name: value, "between": 1}, "hooks": [{name: value, "after": 2}]}

    found = read(emit.document(options).encode(), path="a.yaml")

    assert [one.content for one in found.documents] == [options]
    assert found.problems == ()
