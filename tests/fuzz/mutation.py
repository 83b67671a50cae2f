"""Changes to inputs that are made of JSON: what stays well-formed gets past the first check.

Plain bytes do not: of a million flips in a frame hardly one is a frame. ``change`` is given to libFuzzer as its own way
of changing an input, beside the usual one, and drives the short properties of ``make test``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

EDGES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 59, 60, 255, 65_536, 2**31, 2**53, 2**53 - 1, 2**63 - 1, 2**63, -(2**63), 10**30,
    0.5, -0.0, 1e16, 1e308, 5e-324, "", " ", "\n", "\x00", "\x1b[2J", "\u202e", "\ud800", "\ufeff", "\u2028", "\x85",
    "..", "../x", "/", "-", "-x", "~", "*", "{", "${client}", "{secret x}", "{credential file /x}", "%", "%s", "'", '"',
    "\\", "<script>", "null", "no", "0x10", "1e5", "2026-01-01", "2026-11-23T12:00:00Z", "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00:00+23:59", "٣", "a" * 64, "x" * 1_100, [], {}, [[]], {"": ""}, [None],
)  # fmt: skip
_DEEP = 40


def change(
    data: bytes,
    *,
    random: Random,
    separator: bytes,
    words: Sequence[str] = (),
    pool: Sequence[bytes] = (),
    text: Callable[[str], str] | None = None,
) -> bytes | None:
    """Return ``data`` with one to three changes to its parts; None when no part of it is JSON.

    ``pool`` holds other inputs, from which parts and values are borrowed; ``text`` changes a text as text.
    """
    parts = data.split(separator)
    for _ in range(random.randint(1, 3)):
        number = random.randrange(len(parts))
        kind = random.randrange(12)
        if kind == 0 and len(parts) > 1:
            del parts[number]
        elif kind == 1:
            parts.insert(random.randrange(len(parts) + 1), parts[number])
        elif kind == 2 and len(parts) > 1:
            parts.append(parts.pop(number))
        elif kind == 3 and pool:
            parts.insert(number, random.choice(random.choice(pool).split(separator)))
        else:
            changed = _part(parts[number], _Change(random, words, pool, separator, text))
            if changed is None:
                return None
            parts[number] = changed
    return separator.join(parts)


def _part(part: bytes, how: _Change) -> bytes | None:
    try:
        value = json.loads(part)
    except (ValueError, RecursionError):
        return None
    return json.dumps(how.value(value), ensure_ascii=bool(how.random.randrange(3))).encode("utf-8", "surrogatepass")


class _Change:
    """One change somewhere in a value."""

    def __init__(
        self,
        random: Random,
        words: Sequence[str],
        pool: Sequence[bytes],
        separator: bytes,
        text: Callable[[str], str] | None,
    ) -> None:
        self.random = random
        self._words = words
        self._pool = pool
        self._separator = separator
        self._text = text

    def value(self, value: Any, depth: int = 0) -> Any:
        """Return ``value`` with something in it changed."""
        inside = isinstance(value, (dict, list)) and value and depth < _DEEP
        if not inside or self.random.randrange(6) == 0:
            return self._replaced(value)
        if isinstance(value, dict):
            return self._mapping(value, depth)
        return self._list(list(value), depth)

    def _mapping(self, value: dict[str, Any], depth: int) -> dict[str, Any]:
        changed = dict(value)
        key = self.random.choice(list(changed))
        match self.random.randrange(10):
            case 0:
                del changed[key]
            case 1:
                changed[self._word()] = changed[key]
            case 2:
                changed[self._word()] = self._fresh()
            case 3:
                changed[key] = changed[self.random.choice(list(changed))]
            case _:
                changed[key] = self.value(changed[key], depth + 1)
        return changed

    def _list(self, value: list[Any], depth: int) -> list[Any]:
        number = self.random.randrange(len(value))
        match self.random.randrange(10):
            case 0:
                del value[number]
            case 1:
                value.insert(number, value[number])
            case 2:
                value.insert(number, self._fresh())
            case 3:
                value += value[: self.random.choice((1, 8, 64))]
            case _:
                value[number] = self.value(value[number], depth + 1)
        return value

    def _replaced(self, value: Any) -> Any:
        if isinstance(value, str) and self.random.randrange(3):
            return self._changed_text(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and self.random.randrange(2):
            return self.random.choice((value + 1, value - 1, -value, value * 2, value // 2))
        if self.random.randrange(8) == 0:
            return [value] if self.random.randrange(2) else {self._word(): value}
        return self._fresh()

    def _changed_text(self, text: str) -> str:
        place = self.random.randrange(len(text) + 1)
        match self.random.randrange(6):
            case 0:
                return text[:place] + self._word() + text[place:]
            case 1:
                return text[:place] + text[place + self.random.randint(1, 4) :]
            case 2:
                return text[:place] + text[: self.random.choice((1, 8, 64))] + text[place:]
            case 3:
                return self._word()
            case 4 if self._text is not None:
                return self._text(text)
            case _:
                return text[:place] + chr(self.random.choice((0, 9, 10, 13, 32, 34, 39, 46, 47, 0x2D, 0x7F, 0x301)))

    def _word(self) -> str:
        if self._words and self.random.randrange(3):
            return self.random.choice(self._words)
        return str(self.random.choice(EDGES))

    def _fresh(self) -> Any:
        """Return a value from nowhere: an edge, a word, or a part of another input."""
        kind = self.random.randrange(4)
        if kind == 0 and self._words:
            return self.random.choice(self._words)
        if kind == 1 and self._pool:
            return self._borrowed()
        return self.random.choice(EDGES)

    def _borrowed(self) -> Any:
        part = self.random.choice(self.random.choice(self._pool).split(self._separator))
        try:
            value = json.loads(part)
        except (ValueError, RecursionError):
            return part.decode("utf-8", "replace")
        while isinstance(value, (dict, list)) and value and self.random.randrange(4):
            value = self.random.choice(list(value.values()) if isinstance(value, dict) else value)
        return value
