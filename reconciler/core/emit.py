"""Data as YAML text: block style, the order of the data, and never a string that some reader takes for something else.

Called by ``render`` for every borgmatic file. Our own because it is twenty times as fast as a YAML library's
representer, and because each choice it makes (quotes, blocks) must stay as it is: a changed byte is a changed machine.
What it writes is read back equal by YAML 1.1 and 1.2 readers (ruamel.yaml, which borgmatic uses, and PyYAML).
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import JsonValue

_PLAIN = re.compile(r"[A-Za-z/_](?:[A-Za-z0-9_./@+=,-]|[ :](?=[A-Za-z0-9_./@+=,-]))*")
_SPECIAL_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
"""What YAML 1.1 or 1.2 reads as a boolean or null; numbers and dates begin with characters that ``_PLAIN`` refuses."""

_QUOTED: Final = json.JSONEncoder(ensure_ascii=False).encode
_UNPRINTABLE = "[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]"
_INK = "!-~\xa1-\u2027\u202a-\ud7ff"
_LITERAL = f"(?:[{_INK}][ {_INK}]*\n)(?:[ {_INK}]*\n)*(?:[ {_INK}]*[{_INK}]\n?)"
"""Several lines that a literal block keeps exactly: no leading space, printable, at most one newline at the end, and
none of Unicode's own line ends, which readers take for one. Compiled by re where it is first asked: 10 ms, and few
sources have such a text."""


def document(options: Mapping[str, JsonValue]) -> str:
    """Return ``options`` as one YAML document without markers; empty for no options."""
    lines: list[str] = []
    _mapping(lines, options, 0)
    return "".join(f"{line}\n" for line in lines)


def scalar(value: str | float | None) -> str:
    """Return one scalar on one line."""
    if isinstance(value, str):
        return _string(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else _float(value)


def _string(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _SPECIAL_WORDS:
        return text
    quoted = _QUOTED(text)
    if quoted.isascii() and quoted.isprintable():
        return quoted
    return re.sub(_UNPRINTABLE, lambda match: f"\\u{ord(match[0]):04x}", quoted)


_LONGEST_PLAIN_KEY: Final = 1_000
"""YAML takes what is longer than 1,024 characters for a key only behind a question mark."""
_LONGEST_KEPT: Final = 64
_kept: Final = lru_cache(maxsize=1_024)(_string)
"""Keys are borgmatic's options, the same few in every file. Others are kept by nobody: one may have a mebibyte."""


def _key(text: str) -> str:
    return _kept(text) if len(text) <= _LONGEST_KEPT else _string(text)


def _float(value: float) -> str:
    if value != value:  # noqa: PLR0124 - the one number that is not itself
        return ".nan"
    text = repr(value)
    if text.endswith("inf"):
        return text.replace("inf", ".inf")
    mantissa, e, exponent = text.partition("e")
    # YAML 1.1 wants a point and a signed exponent: 1e16 would be text.
    mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
    return f"{mantissa}e{exponent if exponent[0] in '+-' else '+' + exponent}" if e else mantissa


def _mapping(lines: list[str], mapping: Mapping[str, JsonValue], indent: int) -> None:
    margin = " " * indent
    for key, value in mapping.items():
        written = _key(key)
        if len(written) <= _LONGEST_PLAIN_KEY:
            _value(lines, f"{margin}{written}:", value, indent)
        else:
            lines.append(f"{margin}? {written}")
            _value(lines, f"{margin}:", value, indent)


def _sequence(lines: list[str], items: Sequence[JsonValue], indent: int) -> None:
    margin = " " * indent
    for item in items:
        if isinstance(item, (dict, list)) and item:
            first = len(lines)
            _value(lines, "", item, indent)
            del lines[first]
            lines[first] = f"{margin}- {lines[first][indent + 2 :]}"
        else:
            _value(lines, f"{margin}-", item, indent)


def _value(lines: list[str], head: str, value: JsonValue, indent: int) -> None:
    if isinstance(value, dict):
        lines.append(head if value else f"{head} {{}}")
        _mapping(lines, value, indent + 2)
    elif isinstance(value, list):
        lines.append(head if value else f"{head} []")
        _sequence(lines, value, indent + 2)
    elif isinstance(value, str) and "\n" in value and re.fullmatch(_LITERAL, value):
        lines.append(f"{head} {'|' if value.endswith(chr(10)) else '|-'}")
        margin = " " * (indent + 2)
        lines += [f"{margin}{line}" if line else "" for line in value.removesuffix("\n").split("\n")]
    else:
        lines.append(f"{head} {scalar(value)}")
