"""The list of an archive, folded: whatever is read, the numbers are right, the size is bounded, the names are shown."""

from __future__ import annotations

import json
import tracemalloc
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.archive_tree import MAX_PATH_BYTES, UNKNOWN, ArchiveTree
from client.borgmatic_output import Scrubber
from client.outbox import MAX_ITEM
from schema.observed import MAX_DIRECTORIES, MAX_LARGEST, Archive, ArchiveContents
from tests.client.machine import NOW


def line(path: str, size: Any = 1, *, kind: str = "-", mtime: str = "2026-11-23T01:00:00.5") -> bytes:
    return json.dumps({"type": kind, "path": path, "size": size, "mtime": mtime}).encode()


def tree(*lines: bytes, **options: Any) -> ArchiveTree:
    one = ArchiveTree(**options)
    for each in lines:
        one.read(each)
    return one


def shown(one: ArchiveTree) -> dict[str, tuple[int, int]]:
    return {row.path: (row.files, row.size) for row in one.directories()}


def test_a_directory_has_everything_below_it():
    one = tree(line("var/www/a", 5), line("var/www/cache/b", 7), line("var/c", 1), line("etc/d", 2))

    assert shown(one) == {"etc": (1, 2), "var": (3, 13), "var/www": (2, 12), "var/www/cache": (1, 7)}
    assert (one.files, one.size) == (4, 15)


def test_directories_are_in_the_order_of_their_paths_and_an_empty_one_is_there():
    one = tree(line("a-b/x"), line("a", kind="d"), line("a/z", kind="d"))

    assert [row.path for row in one.directories()] == ["a", "a/z", "a-b"]
    assert one.directory_count == 2
    assert one.files == 1


def test_links_and_devices_are_files_without_a_size():
    one = tree(line("a/link", 9, kind="l"), line("a/hard", 9, kind="h"), line("a/null", 9, kind="c"), line("a/x", 4))

    assert shown(one) == {"a": (4, 4)}


def test_the_first_and_the_last_change_are_of_files_alone():
    one = tree(
        line("a", kind="d", mtime="1990-01-01T00:00:00"),
        line("a/b", mtime="2020-01-01T00:00:00"),
        line("a/c", mtime="2020-01-01T00:00:00.000001"),
        line("a/d", mtime="never"),
    )

    assert one.oldest == datetime(2020, 1, 1, tzinfo=UTC)
    assert one.newest == datetime(2020, 1, 1, microsecond=1, tzinfo=UTC)


def test_the_largest_files_are_named_the_largest_first():
    one = tree(*[line(f"d/{number}", number) for number in range(100)])

    assert [(file.path, file.size) for file in one.largest()] == [
        (f"d/{n}", n) for n in range(99, 99 - MAX_LARGEST, -1)
    ]


def test_of_a_level_that_does_not_fit_the_largest_are_told():
    lines = [line(f"home/u{number}/file", number) for number in range(MAX_DIRECTORIES * 2)]

    one = tree(*lines, line("home/u1/below/file", 10_000_000))

    found = shown(one)
    assert len(found) == MAX_DIRECTORIES
    assert found["home"] == (len(lines) + 1, one.size)
    assert {"home/u1", "home/u999"} <= found.keys()
    assert "home/u2" not in found
    assert "home/u1/below" not in found


def test_when_too_many_are_told_apart_the_lowest_level_goes_and_the_numbers_stay_right():
    before = [line(f"a/b{number}/c/d", 1) for number in range(10)]
    after = [line(f"a/b{number}/c/e", 1) for number in range(10)]

    one = tree(*before, *after, most=15)

    assert shown(one) == {"a": (20, 20)} | {f"a/b{number}": (2, 2) for number in range(10)}


def test_more_directories_at_the_top_than_can_be_told_apart_count_for_the_totals():
    one = tree(*[line(f"{number}/file", 1) for number in range(100)], line("0/more", 5), most=10)

    found = shown(one)
    assert len(found) == 11
    assert found["0"] == (2, 6)
    assert (one.files, one.size) == (101, 105)


@given(
    st.lists(st.tuples(st.lists(st.sampled_from("abc"), max_size=5), st.integers(0, 9)), max_size=60),
    st.integers(1, 30),
)
def test_whatever_comes_every_row_is_the_sum_of_the_files_below_it(files, most):
    paths = [("/".join([*parts, f"file{number}"]), size) for number, (parts, size) in enumerate(files)]

    one = tree(*[line(path, size) for path, size in paths], most=most)

    assert (one.files, one.size) == (len(paths), sum(size for _, size in paths))
    for row in one.directories():
        below = [size for path, size in paths if path.startswith(row.path + "/")]
        assert (row.files, row.size) == (len(below), sum(below))


def test_millions_of_directories_take_bounded_memory():
    one = ArchiveTree(most=2_000)
    tracemalloc.start()
    for number in range(60_000):
        one.read(line(f"srv/{number % 300}/{number}/{number}/file-{number}"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 4_000_000
    assert len(one.directories()) == 301


# --- Names that a stranger chose --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["\x1b[2J", "\u202e", "\n", "\x00", "\udcff", "\u200b", "\u2028"])
def test_what_cannot_be_shown_is_replaced(bad):
    one = tree(line(f"home/a{bad}b/c{bad}"))

    paths = [*shown(one), *(file.path for file in one.largest())]
    assert all(path.isprintable() for path in paths)
    assert f"home/a{UNKNOWN}" in paths[1]


def test_a_directory_with_a_path_that_is_too_long_counts_for_the_one_above():
    long = "/".join(["x" * 200] * 20)

    one = tree(line(f"a/{long}/file", 3), line("é" * 100_000 + "/b", 1))

    assert shown(one)["a"] == (1, 3)
    assert all(len(path.encode()) <= MAX_PATH_BYTES for path in shown(one))
    assert all(len(file.path) <= 1_000 and (len(file.path) < 999 or UNKNOWN in file.path) for file in one.largest())


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"nas: Listing archive x",
        b"{",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"{}",
        b'{"path": 7}',
        b'{"path": null, "type": "-"}',
        b'{"message": "{}"}',
        b'{"message": "not json"}',
        b'{"type": "log_message", "message": 5}',
        b"\xff\xfe",
        b'{"path": "x", "size": ' + b"9" * 10_000 + b"}",
    ],
)
def test_lines_that_describe_no_file_are_passed_over(raw):
    one = tree(raw)

    assert (one.files, one.directories(), one.largest()) == (0, (), ())


@pytest.mark.parametrize("size", [-1, None, "7", 1.5, True, [], 10**30])
def test_a_size_that_makes_no_sense_breaks_nothing(size):
    one = tree(line("a/b", size), line("a/c", 2**63 - 1))

    assert one.files == 2
    assert 0 <= one.size <= 2**63 - 1


def test_a_borgmatic_that_wraps_the_lines_is_understood():
    wrapped = json.dumps({"type": "log_message", "message": line("a/b", 3).decode(), "levelname": "ANSWER"}).encode()

    assert shown(tree(wrapped)) == {"a": (1, 3)}


def test_a_secret_of_this_machine_in_a_name_does_not_leave_it():
    one = tree(line("srv/hunter2-hunter2/file", 3))
    scrub = Scrubber(["hunter2-hunter2"])

    told = [*(row.path for row in one.directories(scrub)), *(file.path for file in one.largest(scrub))]

    assert not any("hunter2" in path for path in told)
    assert told[1] == f"srv/***{UNKNOWN}"


def test_the_worst_that_names_can_be_fits_into_one_report():
    worst = '"' * 180
    lines = [line(f"{worst}/{number:03d}{worst}/x{worst}{'é' * 2_000}", 2**40) for number in range(MAX_DIRECTORIES * 2)]
    one = tree(*lines)

    report = ArchiveContents(
        at=NOW,
        backup="web",
        repository="nas",
        archive=Archive(id="ff" * 32, name="é" * 1_024, start=NOW),
        listed=True,
        directories=one.directories(),
        largest=one.largest(),
    )

    assert len(report.directories) == MAX_DIRECTORIES
    assert len(report.model_dump_json().encode()) <= MAX_ITEM
