"""YAML as borgmatic reads it, and every way in which a file can be wrong."""

from __future__ import annotations

import datetime as dt
import json
import math
from typing import Any

import pytest
import ruamel.yaml
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.yaml_document import MAX_DEPTH, MAX_NODES, MAX_PROBLEMS
from reconciler.core.yaml_reader import MAX_BYTES, ReadResult, read
from schema.errors import Problem

ALIAS_BOMB = b"""a: &a [x,x,x,x,x,x,x,x,x]
b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]
c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]
d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]
e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]
f: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]
g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]
"""


def contents(result: ReadResult) -> list[Any]:
    assert result.problems == ()
    return [document.content for document in result.documents]


def content(text: str) -> Any:
    (only,) = contents(read(text.encode(), path="a.yaml"))
    return only


def problems(data: bytes) -> list[Problem]:
    return list(read(data, path="a.yaml").problems)


def problem(data: bytes) -> Problem:
    (only,) = problems(data)
    return only


# --- What is read ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, value",
    [
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("Off", "Off"),
        ("true", True),
        ("False", False),
        ("tRUE", "tRUE"),
        ("~", None),
        ("", None),
        ("Null", None),
        ("0o14", 12),
        ("014", 14),
        ("0b101", 5),
        ("0x1F", 31),
        ("-3", -3),
        ("+3", 3),
        ("1_000", 1000),
        ("1.50", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
        ("-", None),
        ("'5'", "5"),
        ('"no"', "no"),
        ("!!str 5", "5"),
        ("!!int '5'", 5),
        ("!!float 5", 5.0),
        ("! 5", 5),
        ("=", "="),
        ("0o_", "0o_"),
        ("._", "._"),
        ("26h", "26h"),
    ],
)
def test_a_scalar_means_what_borgmatic_takes_it_for(text: str, value: Any):
    actual = content(f"a: {text}" if text != "-" else "a:")["a"]

    assert (actual, type(actual)) == (value, type(value))


def test_every_key_and_item_has_its_line_and_column():
    (document,) = read(b"# c\na:\n  - x\n  - {b: [1]}\n\xc3\xa4: {c: d}\n", path="a.yaml").documents

    assert document.positions == {
        (): (2, 1),
        ("a",): (2, 1),
        ("a", 0): (3, 5),
        ("a", 1): (4, 5),
        ("a", 1, "b"): (4, 6),
        ("a", 1, "b", 0): (4, 10),
        ("ä",): (5, 1),
        ("ä", "c"): (5, 5),
    }


def test_a_file_holds_any_number_of_documents_each_at_its_own_lines():
    result = read(b"a: 1\n---\n# nothing\n---\nb: 2\n...\n---\n- c\n", path="a.yaml")

    assert contents(result) == [{"a": 1}, {"b": 2}, ["c"]]
    assert [document.positions[()][0] for document in result.documents] == [1, 5, 8]


@pytest.mark.parametrize(
    "data", [b"", b"\n\n", b"# only a comment\n", b"---\n", b"---\n# c\n---\n...\n", b"\xef\xbb\xbf"]
)
def test_a_file_without_content_has_no_documents_and_no_problems(data: bytes):
    assert read(data, path="a.yaml") == ReadResult((), ())


def test_a_byte_order_mark_moves_no_column():
    (document,) = read(b"\xef\xbb\xbfa: 1\n", path="a.yaml").documents

    assert (document.content, document.positions["a",]) == ({"a": 1}, (1, 1))


def test_windows_line_ends_are_line_ends():
    (document,) = read(b"a: 1\r\nb: 2\r\n", path="a.yaml").documents

    assert document.positions["b",] == (2, 1)


def test_an_alias_is_what_its_anchor_was():
    assert content("a: &x {b: [1]}\nc: *x\nd: &y text\ne: *y\n*y : 1") == {
        "a": {"b": [1]},
        "c": {"b": [1]},
        "d": "text",
        "e": "text",
        "text": 1,
    }


def test_an_anchor_ends_with_its_document():
    assert problem(b"a: &x 1\n---\nb: *x\n").code == "unknown-anchor"


# --- What is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data, place, code, message",
    [
        (b"a: b: c", "a.yaml:1:5", "yaml-syntax", "cannot read the YAML: a ':' cannot stand here"),
        (b"a:\n\t- b\n", "a.yaml:2:1", "yaml-syntax", "cannot read the YAML: a tab cannot stand here"),
        (b"a: @b", "a.yaml:1:4", "yaml-syntax", "cannot read the YAML: '@' cannot stand here"),
        (b"a: [1, 2\n", "a.yaml:2:1", "yaml-syntax", "cannot read the YAML: a ',' or ']' is missing"),
        (b"a:\n  b: 1\n c: 2\n", "a.yaml:3:2", "yaml-syntax", "cannot read the YAML: did not find expected key"),
        (
            b"- *.log\n",
            "a.yaml:1:4",
            "yaml-syntax",
            "cannot read the YAML: a value that begins with '*' must be quoted",
        ),
        (b'a: "b\n', "a.yaml:2:1", "yaml-syntax", "cannot read the YAML: the file ends inside a quoted text"),
        (b"a: 1\na: 2\n", "a.yaml:2:1", "duplicate-key", "the key 'a' stands twice in this mapping (first in line 1)"),
        (b"1: a\n", "a.yaml:1:1", "key-not-text", "the key '1' is not text"),
        (b"true: a\n", "a.yaml:1:1", "key-not-text", "the key 'true' is not text"),
        (b"? [a]\n: b\n", "a.yaml:1:3", "key-not-text", "a key must be text, not a mapping or a list"),
        (b"a: {{ b }}\n", "a.yaml:1:5", "key-not-text", "a key must be text, not a mapping or a list"),
        (b"a: !include b.yaml\n", "a.yaml:1:4", "unsupported-tag", "the tag '!include' is not supported"),
        (b"a: !!binary aGk=\n", "a.yaml:1:4", "unsupported-tag", "the tag '!!binary' is not supported"),
        (b"a: !!python/object:os.system {}\n", "a.yaml:1:4", "unsupported-tag", "the tag '!!python/object:os.system'"),
        (b"a: !!int x\n", "a.yaml:1:4", "wrong-tag", "this is not what its tag '!!int' says"),
        (b"a: *b\n", "a.yaml:1:4", "unknown-anchor", "there is no anchor '&b' above this alias"),
        (b"a: &a [*a]\n", "a.yaml:1:8", "endless-alias", "the alias '*a' stands inside what it refers to"),
        (b"a: &a {b: 1}\n<<: *a\n", "a.yaml:2:1", "merge-key", "the merge key '<<' is not supported"),
        (b"a: .nan\n", "a.yaml:1:4", "number-too-large", "this number is infinite, not a number, or too large"),
        (b"a: -.inf\n", "a.yaml:1:4", "number-too-large", "this number is infinite, not a number, or too large"),
        (b"a: 1e400\n", "a.yaml:1:4", "number-too-large", "this number is infinite, not a number, or too large"),
        (
            b"a: 9223372036854775808\n",
            "a.yaml:1:4",
            "number-too-large",
            "this number is infinite, not a number, or too large",
        ),
        (b"%YAML 1.1\n---\na: 1\n", "a.yaml:1:1", "yaml-version", "YAML 1.1 is not supported"),
        (b"a: b\n\xff\n", "a.yaml:2:1", "not-utf-8", "the file is not UTF-8 here"),
        ("ä: \x07".encode(), "a.yaml:1:4", "control-character", "the control character U+0007 is not allowed"),
        (b"a: 1\nb: \x00\x01", "a.yaml:2:4", "binary-file", "the file holds a zero byte: it is binary, not YAML"),
        ("a: 1".encode("utf-16"), "a.yaml", "not-utf-8", "the file is UTF-16, not UTF-8"),
        (b"a: 1\n...\nb\n", "a.yaml:3:1", "yaml-syntax", "cannot read the YAML: there is something after the end"),
    ],
)
def test_what_is_wrong_is_said_at_its_place(data: bytes, place: str, code: str, message: str):
    found = problem(data)

    assert (found.place, found.code, found.message[: len(message)]) == (place, code, message)


@pytest.mark.parametrize(
    "tag, hint",
    [("!include x", "a Profile and `profiles: [name]`"), ("!retain [x]", "`layering: {OPTION: replace}`")],
)
def test_borgmatics_own_tags_are_answered_with_what_to_write_instead(tag: str, hint: str):
    assert hint in problem(f"a: {tag}\n".encode()).hint


def test_a_zero_byte_is_named_before_any_other_fault_of_a_binary_file():
    assert problem(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR").code == "binary-file"


def test_all_problems_of_a_file_are_found_in_one_pass():
    data = b"a: 1\na: 2\nb: !include c\n---\nd: [\n---\n1: e\n---\nf: 'g\n---\nh: *i\n"

    assert [(one.code, one.line) for one in problems(data)] == [
        ("duplicate-key", 2),
        ("unsupported-tag", 3),
        ("yaml-syntax", 6),
        ("key-not-text", 7),
        ("yaml-syntax", 10),
        ("unknown-anchor", 11),
    ]


def test_documents_after_a_broken_one_are_still_read():
    result = read(b"a: [\n---\nb: 1\n", path="a.yaml")

    assert [document.content for document in result.documents] == [{"b": 1}]


def test_a_document_says_when_it_could_not_be_read_as_written():
    first, second = read(b"a: 1\na: 2\n---\nb: 1\n", path="a.yaml").documents

    assert (first.intact, second.intact) == (False, True)


# --- Limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b"[" * 1_000_000,
        b"{a: " * 250_000,
        b"- " * 500_000,
        b"".join(b" " * i + b"a:\n" for i in range(999)),
    ],
    ids=["a hundred thousand brackets", "a million brackets", "mappings", "lists in one line", "indented"],
)
@pytest.mark.timeout(5)
def test_deep_nesting_is_refused_before_it_costs_anything(data: bytes):
    assert problem(data).code == "too-deep"


def test_the_deepest_nesting_that_is_allowed_is_read():
    assert problems(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH) == []
    assert problem(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1)).code == "too-deep"


def test_aliases_count_towards_the_depth_of_what_they_stand_for():
    chain = b"a0: &a0 [[[[[[[[[[x]]]]]]]]]]\n" + b"".join(b"a%d: &a%d [*a%d]\n" % (i, i, i - 1) for i in range(1, 80))

    assert problem(chain).code == "too-deep"


@pytest.mark.timeout(5)
def test_an_alias_bomb_is_defused_by_counting_what_each_alias_stands_for():
    assert len(ALIAS_BOMB) < 258
    assert problem(ALIAS_BOMB).code == "too-many-nodes"


def test_a_file_may_hold_as_many_values_as_the_limit_says_and_not_one_more():
    assert problems(b"- x\n" * (MAX_NODES - 1)) == []
    assert problem(b"- x\n" * MAX_NODES).code == "too-many-nodes"


def test_the_values_of_all_documents_of_a_file_count_together():
    document = b"---\n" + b"- x\n" * (MAX_NODES // 3)

    assert problem(document * 3).code == "too-many-nodes"


def test_a_large_file_is_not_looked_into():
    assert problem(b"a: 1\n" + b"#" * MAX_BYTES).code == "file-too-large"


@pytest.mark.timeout(5)
def test_a_number_of_a_million_digits_costs_nothing():
    assert problem(b"a: " + b"9" * 900_000).code == "number-too-large"


@pytest.mark.timeout(5)
@pytest.mark.parametrize("line", [b"1: a\n", b"---\n[\n", b"---\na: *b\n"], ids=["keys", "documents", "aliases"])
def test_the_problems_of_one_file_are_limited(line: bytes):
    assert len(problems(line * 20_000)) == MAX_PROBLEMS


# --- Properties -----------------------------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_no_bytes_whatever_make_the_reader_raise(data: bytes):
    result = read(data, path="a.yaml")

    assert all(one.path == "a.yaml" and one.message for one in result.problems)


@given(st.text(st.sampled_from("ab:-? \n'\"[]{},#&*!|>%@`~\t0123.e_<="), max_size=60))
def test_no_text_makes_the_reader_raise_and_what_it_reads_is_json(text: str):
    for document in read(text.encode(), path="a.yaml").documents:
        json.dumps(document.content, allow_nan=False)


def as_json(value: Any) -> Any:
    """Return ruamel's value where the two readers agree on purpose; raise ``TypeError`` where they do not."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("a key is not text")
        return {key: as_json(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [as_json(inner) for inner in value]
    if isinstance(value, (dt.date, bytes, set)):
        raise TypeError("not JSON")
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError("not JSON")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise TypeError("too large")
    return value


def agrees_with_ruamel(text: str) -> None:
    result = read(text.encode(), path="a.yaml")
    try:
        expected = as_json(ruamel.yaml.YAML(typ="safe", pure=False).load(text))
    except (ruamel.yaml.error.YAMLError, ValueError, TypeError, NotImplementedError):
        return  # what borgmatic cannot read, we may take for text; what is no JSON, we refuse
    if result.problems:
        assert {one.code for one in result.problems} <= {"merge-key", "unknown-anchor", "unsupported-tag"}
        return
    assert repr([document.content for document in result.documents]) == repr([] if expected is None else [expected])


@given(st.text(st.sampled_from("+-.0123456789eExXob_aAfFnNtTrRuUlLsSyYiI~:"), min_size=1, max_size=8))
def test_every_plain_scalar_is_what_ruamel_takes_it_for(text: str):
    agrees_with_ruamel(f"a: {text}\n")


@given(st.text(st.sampled_from("ab1:- \n'\"[]{},#|>~"), max_size=40))
def test_what_both_can_read_both_read_alike(text: str):
    agrees_with_ruamel(text)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=6), JSON, min_size=1, max_size=4))
def test_json_is_read_as_json(value: dict[str, Any]):
    text = json.dumps(value)  # escaped, so that no character is in doubt
    if "\\ud8" in text or "\\ud9" in text or "\\uda" in text or "\\udb" in text:
        return  # JSON's surrogate pairs are no YAML

    assert content(text) == value
