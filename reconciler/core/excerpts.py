"""The lines of a file around each problem, so that pages and terminals can show them. Called by the loop.

A secret that a person typed into Git stands in the file, and must not stand in the store: values are hidden as in the
diffs of clients, passwords in urls as everywhere, and of a file with a Secret nothing is shown, for there any key may
hold one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from schema.errors import ExcerptLine, scrub
from schema.hiding import hide_secret_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from schema.errors import Problem

MAX_EXCERPTS: Final = 100
"""Problems that get one; beyond, a person reads the file anyway."""
MAX_FILE: Final = 512 * 1024
MAX_WIDTH: Final = 240
AROUND: Final = 2
"""Lines before, and lines after."""

_LINE_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
"""Where YAML begins a new line."""
_OTHER_BREAK = re.compile("[\v\f\x1c-\x1e]")
"""What Python takes for a line's end beside them."""
_OF_SECRETS = re.compile(rb"\bSecret\b")
_KEY_OR_SEALED = re.compile(r"\b(?P<prefix>bd1-[a-z-]+\.)[A-Za-z0-9_=.-]{8,}")


def add_excerpts(problems: Iterable[Problem], files: Mapping[str, bytes]) -> tuple[Problem, ...]:
    """Return the problems, the first of them with the lines of their files; ``files`` is path → content."""
    shown: dict[str, Sequence[str]] = {}
    found: list[Problem] = []
    for problem in problems:
        data = files.get(problem.path, b"") if problem.line and len(found) < MAX_EXCERPTS else b""
        if not data or len(data) > MAX_FILE or _OF_SECRETS.search(data):
            found.append(problem)
            continue
        if problem.path not in shown:
            shown[problem.path] = _lines(data)
        found.append(problem.model_copy(update={"excerpt": _excerpt(shown[problem.path], problem.line)}))
    return tuple(found)


def _lines(data: bytes) -> Sequence[str]:
    lines = _LINE_BREAK.split(data.decode("utf-8", "replace"))
    text = "\n".join(_OTHER_BREAK.sub(" ", line) for line in lines)
    return [_KEY_OR_SEALED.sub(r"\g<prefix>…", scrub(line)) for line in hide_secret_values(text).split("\n")]


def _excerpt(lines: Sequence[str], line: int) -> tuple[ExcerptLine, ...]:
    first, last = max(1, line - AROUND), min(len(lines), line + AROUND)
    return tuple(ExcerptLine(number=number, text=_cut(lines[number - 1])) for number in range(first, last + 1))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_WIDTH else text[: MAX_WIDTH - 1] + "…"
