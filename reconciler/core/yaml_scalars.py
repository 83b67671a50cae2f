"""What a plain scalar of YAML 1.2 means to ruamel.yaml, and so to borgmatic. Called by ``yaml_reader``."""

from __future__ import annotations

import math
import re
from typing import Any

WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "~", "")),
}
WORD_STARTS = frozenset(word[:1] for word in WORDS)
NUMBER_STARTS = frozenset("-+.0123456789")
KEY_STARTS = WORD_STARTS | NUMBER_STARTS
"""A scalar that begins with another character is text; the empty one begins with nothing."""

# The expressions of ruamel.yaml's resolver for YAML 1.2, in its order.
_FLOAT = re.compile(
    r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|[-+]?\.[0-9_]+(?:[eE][-+][0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_INT = re.compile(r"[-+]?0b[01_]+|[-+]?0o?[0-7_]+|[-+]?[0-9_]+|[-+]?0x[0-9a-fA-F_]+")
_BASES = {"0b": 2, "0o": 8, "0x": 16}
_MAX_INT = 2**63 - 1
_MAX_DIGITS = 100
UNFIT = object()
"""Stands for a number that JSON, or any reader of it, could not keep: infinite, not a number, or past 64 bits."""

TAGGED_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "null": (type(None),),
}
"""Standard tags that may be written out (``!!int``), and the types that they allow."""


def plain(text: str) -> Any:
    """Return what the plain scalar ``text`` means, or ``UNFIT``."""
    if text in WORDS:
        return WORDS[text]
    try:
        if _FLOAT.fullmatch(text):
            digits = text.replace("_", "").lower()
            value = math.inf if digits.endswith(("inf", "nan")) else float(digits)
            return value if math.isfinite(value) else UNFIT
        if _INT.fullmatch(text):
            return _integer(text.replace("_", ""))
    except ValueError:  # no digit but underscores
        return text
    return text


def _integer(text: str) -> Any:
    if len(text) > _MAX_DIGITS:
        return UNFIT
    sign = -1 if text[0] == "-" else 1
    digits = text.lstrip("+-")
    base = _BASES.get(digits[:2])
    value = sign * (int(digits[2:], base) if base else int(digits))
    return value if abs(value) <= _MAX_INT else UNFIT
