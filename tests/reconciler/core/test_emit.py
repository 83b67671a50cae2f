"""Data as YAML text: what is written is read back equal by every reader that may meet it."""

from __future__ import annotations

import math
from io import StringIO
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from reconciler.core import emit

STRINGS = st.one_of(
    st.text(),
    st.text(alphabet="ab \n\t-#:{}[]&*!|>'\"%@`,?~=.0123456789_\\"),
    st.sampled_from(
        ["yes", "No", "ON", "null", "~", "", "1e3", "0x1f", "0o17", "1:30", "2026-01-01", "<<", "=", "-", "?"]
    ),
    st.sampled_from(
        [".inf", "nan", "!include x", "{secret a}", "${HOME}", "a: b", "a #b", " a", "a ", "a\n", "a\n\nb"]
    ),
)
SCALARS = st.one_of(STRINGS, st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False))
DATA = st.dictionaries(
    STRINGS,
    st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(STRINGS, inner, max_size=4)),
    max_size=5,
)


def read_as_borgmatic(text: str) -> Any:
    return YAML(typ="safe").load(StringIO(text))


def same(first: Any, second: Any) -> bool:
    """Equal in value and in type, all the way down, and in order."""
    if isinstance(first, dict) and isinstance(second, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same, first, second))
    return type(first) is type(second) and first == second


@given(DATA)
@example({"a": "x\x85y"})
@example({"a": "\ufeffx"})
@example({"a": "line\n  more\n"})
@example({"a": "line\n\nmore\u2028"})
@example({"a": "line\n\u2029more\n"})
@example({"a": ["x\n", ["y", {"z": [{}]}]]})
def test_what_is_written_is_read_back_equal_by_borgmatics_reader_and_by_yaml_1_1(data: Any):
    text = emit.document(data)

    assert same(read_as_borgmatic(text) or {}, data)
    assert same(yaml.safe_load(text) or {}, data)
    assert same(yaml.load(text, yaml.CSafeLoader) or {}, data)


@pytest.mark.parametrize(
    "text",
    ["yes", "Off", "null", "~", "12", "1.5", "0755", "1:30", "2026-01-01", ".inf", "", "a: b", "- a", "{x}", "*"],
)
def test_a_string_that_some_reader_takes_for_something_else_is_quoted(text: str):
    assert emit.scalar(text) == f'"{text}"'


@pytest.mark.parametrize(
    "text", ["/etc", "repokey-blake2", "ssh://borg@nas.example:22/./web", "auto,zstd", "two words"]
)
def test_an_ordinary_string_stands_plain(text: str):
    assert emit.scalar(text) == text


def test_a_script_stays_readable():
    assert emit.document({"run": ["set -e\nsync\n"]}) == "run:\n  - |\n    set -e\n    sync\n"


def test_lists_of_mappings_and_of_lists_are_indented_as_people_write_them():
    data: dict[str, Any] = {"checks": [{"name": "data", "only": ["a"]}, {}], "deep": [[1, [2]], []]}

    assert emit.document(data) == (
        "checks:\n  - name: data\n    only:\n      - a\n  - {}\ndeep:\n  - - 1\n    - - 2\n  - []\n"
    )


def test_numbers_that_yaml_1_1_would_take_for_text_get_a_point_and_a_sign():
    assert [emit.scalar(value) for value in (1e16, 1e-7, -math.inf, math.nan)] == [
        "1.0e+16",
        "1.0e-07",
        "-.inf",
        ".nan",
    ]
