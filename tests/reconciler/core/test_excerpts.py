"""The lines of a file around each problem."""

from __future__ import annotations

import pytest

from reconciler.core.excerpts import MAX_EXCERPTS, MAX_WIDTH, add_excerpts
from schema.errors import Problem

FILE = b"""\
kind: Backup
metadata: {name: files}
spec:
  clients: [web-9]
  schedule: nightly
  borgmatic:
    encryption_passphrase: hunter2
    url: ssh://borg:hunter2@nas/./repo
"""


def at(line: int, *, path: str = "files.yaml") -> Problem:
    return Problem(code="x", message="wrong", path=path, line=line, column=3)


def excerpt(data: bytes, line: int) -> list[tuple[int, str]]:
    (problem,) = add_excerpts([at(line)], {"files.yaml": data})
    return [(one.number, one.text) for one in problem.excerpt]


def test_a_problem_carries_its_line_and_two_before_and_after():
    assert excerpt(FILE, 4) == [
        (2, "metadata: {name: files}"),
        (3, "spec:"),
        (4, "  clients: [web-9]"),
        (5, "  schedule: nightly"),
        (6, "  borgmatic:"),
    ]


def test_at_the_ends_of_a_file_there_is_less():
    assert [number for number, _ in excerpt(FILE, 1)] == [1, 2, 3]
    assert [number for number, _ in excerpt(FILE, 8)] == [6, 7, 8]
    assert excerpt(FILE, 99) == []


def test_what_may_be_secret_is_hidden():
    shown = str(excerpt(FILE, 7))

    assert "hunter2" not in shown
    assert "encryption_passphrase: (hidden)" in shown


@pytest.mark.parametrize(
    "line",
    [
        b"values: {shop: {clients: {web-1: hunter2}}}",
        b"kind: Secret\nspec: {values: {shop: hunter2}}",
        b"hint: use ssh://borg:hunter2@nas/./repo",
        b"command: director-client enroll bd1-enroll.hunter2hunter2",
        b"- bd1-sealed.hunter2hunter2",
        b"password: |\n  hunter2\n  hunter2",
    ],
)
def test_no_secret_of_the_file_is_in_an_excerpt(line: bytes):
    data = line if b"values" not in line else b"kind: Secret\n" + line

    assert "hunter2" not in str([excerpt(data, number) for number in (1, 2, 3)])


def test_lines_count_as_yaml_counts_them():
    assert excerpt("a: 1\r\nb: 2\rc: 3\u2028d: \x0c4\n".encode(), 3) == [
        (1, "a: 1"),
        (2, "b: 2"),
        (3, "c: 3"),
        (4, "d:  4"),
    ]


def test_a_line_of_a_megabyte_is_cut_and_a_larger_file_is_not_shown():
    ((_, text),) = excerpt(b"x" * 400_000, 1)

    assert text == "x" * (MAX_WIDTH - 1) + "…"
    assert excerpt(b"x" * 600_000, 1) == []


def test_a_problem_without_a_place_or_a_file_stays_as_it_is():
    whole, elsewhere = Problem(code="x", message="wrong", path="files.yaml"), at(1, path="gone.yaml")

    assert add_excerpts([whole, elsewhere], {"files.yaml": FILE}) == (whole, elsewhere)


def test_of_thousands_of_problems_the_first_have_excerpts():
    found = add_excerpts([at(4)] * (2 * MAX_EXCERPTS), {"files.yaml": FILE})

    assert [bool(problem.excerpt) for problem in found] == [True] * MAX_EXCERPTS + [False] * MAX_EXCERPTS


def test_what_is_no_text_is_shown_harmlessly():
    assert excerpt(b"a: \xff\xfe\n", 1) == [(1, "a: \ufffd\ufffd")]
