"""YAML: what people write, read as borgmatic reads it; and what we write, read back by everybody."""

from __future__ import annotations

import json
import math
import re
import warnings
from io import StringIO
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from reconciler.core import emit, yaml_reader
from reconciler.core.yaml_document import MAX_PROBLEMS
from tests.fuzz.target import Target

_OTHERWISE = re.compile(rb"\d\d\d\d-\d|\.(?:inf|Inf|INF)|%YAML|!|\d:\d|\xef\xbb\xbf")
"""Where we mean to differ from borgmatic, and what the old library reads in ways of its own: dates and infinity are
text to us, tags are refused."""


def _places(result: yaml_reader.ReadResult, lines: int) -> None:
    assert len(result.problems) <= MAX_PROBLEMS
    for problem in result.problems:
        assert problem.message
        assert 0 <= problem.line <= lines + 1, problem
        problem.model_dump_json()
    for document in result.documents:
        json.dumps(document.content, allow_nan=False)
        for line, column in document.positions.values():
            assert 1 <= line <= lines + 1
            assert column >= 1


def _read(data: bytes) -> None:
    result = yaml_reader.read(data, path="a.yaml")
    _places(
        result,
        data.decode("utf-8", "replace").count("\n")
        + len(re.findall("[\r\x85\u2028\u2029]", str(data, "utf-8", "replace")))
        + 1,
    )
    again = yaml_reader.read(data, path="a.yaml")
    assert json.dumps([one.content for one in again.documents]) == json.dumps([one.content for one in result.documents])
    if not result.problems and len(data) < 2_048 and not _OTHERWISE.search(data):
        _same_as_borgmatic(data, result)


def _same_as_borgmatic(data: bytes, result: yaml_reader.ReadResult) -> None:
    """What we read without a complaint is what borgmatic's own parser reads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            theirs = list(YAML(typ="safe").load_all(data.decode()))
        except (YAMLError, ValueError, RecursionError, AttributeError, TypeError):
            return
    ours = [one.content for one in result.documents]
    theirs = [one for one in theirs if one is not None]
    assert same(ours, theirs), (ours, theirs)


def same(first: Any, second: Any) -> bool:
    """Equal in value, in type and in order, all the way down."""
    if isinstance(first, dict) and isinstance(second, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, float) and isinstance(second, float):
        return first == second or (math.isnan(first) and math.isnan(second))
    return type(first) is type(second) and first == second


def _write(data: bytes) -> None:
    """JSON in, YAML out, and the same data back from three readers."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(value, dict) or not _is_tame(value):
        return
    text = emit.document(value)
    assert same(YAML(typ="safe").load(StringIO(text)) or {}, value), text
    assert same(yaml.load(text, yaml.CSafeLoader) or {}, value), text
    assert same(yaml.safe_load(text) or {}, value), text


def _is_tame(value: Any, depth: int = 0) -> bool:
    """Whether the loader would have let it through: of bounded depth, and text that is Unicode."""
    if depth > 30:
        return False
    if isinstance(value, dict):
        return all(_is_tame(key) and _is_tame(below, depth + 1) for key, below in value.items())
    if isinstance(value, list):
        return all(_is_tame(below, depth + 1) for below in value)
    if isinstance(value, str):
        return not re.search("[\ud800-\udfff]", value) and len(value) < 1_000
    return not isinstance(value, int) or abs(value) < 2**63


_YAML = (
    b"a: 1\nb: [x, 'y', \"z\\n\"]\nc: {d: null, e: ~}\n",
    b"- 0o14\n- 014\n- 0x1f\n- 1_000\n- 1e3\n- -.5\n- yes\n- no\n- 1:30\n",
    b"a: &x [1, 2]\nb: *x\nc: !!str 5\n---\nd: |\n  text\n  more\ne: >-\n  folded\n  text\n",
    b"# comment\n? key\n: value\n'a b': \"\\x41\\u00e9\\U0001F600\"\n...\n---\n- - - x\n",
    b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n",
    b"a: b: c\n---\nx: [1\n---\nok: true\n",
    b"a: 1\r\nb: 2\r\na: 3\r\n<<: {c: 4}\n5: six\n",
)

TARGETS = (
    Target(
        name="yaml",
        promise="reading any bytes as YAML raises nothing; every problem has a place within the file; what is read "
        "without a problem is what borgmatic's parser reads",
        check=_read,
        seeds=lambda: list(_YAML),
        words=("&a ", "*a", "!!int ", "- ", ": ", "? ", "---\n", "...\n", "|-\n", ">+2\n", "%YAML 1.2\n", "<<", '"\\x'),
    ),
    Target(
        name="emit",
        promise="data written as YAML is read back equal by ruamel.yaml and both of PyYAML's readers",
        check=_write,
        seeds=lambda: [
            b'{"a": "yes", "b": ["x: y", "# no", " lead", "trail ", "multi\\nline\\n", ""], "c": {"d": [[], {}]}}',
            b'{"n": [1, -2.5, 1e16, 1e-7, true, null], "s": ["0x1f", "1:30", "2026-01-01", "=", "<<", "-", "?"]}',
        ],
        words=("yes", "1_0", "\n", "|", ">", "\t", ": ", " #", "\u2028", "\x85", "\ufeff", "'", "---", "...", "a\n\nb"),
        most=1_024,
    ),
)
