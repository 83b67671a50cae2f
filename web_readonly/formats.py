"""Values as people read them: sizes, times, spans, differences, and text that a stranger may have written. Pure.

``shown`` is the door of all text into a page: ``web_readonly.pages`` puts every value of every template through it, so
that nobody has to remember to. Escaping is Jinja's part; this is about what escaping leaves alone.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Literal, NamedTuple
from unicodedata import east_asian_width

from schema.errors import scrub

MAX_SHOWN: Final = 4_096
"""Characters of one value that a page shows; what follows is counted."""

MAX_DIFF_LINES: Final = 300
"""Lines of one difference that a page shows: each is an element, and a rogue client can say a line in two bytes."""

_BEYOND: Final = 2_048
_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_STEPS: Final = ((86_400 * 365, "y"), (86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_KEPT: Final = frozenset("\n\t")
_MAX_REMEMBERED: Final = 10_000


# --- Text -------------------------------------------------------------------------------------------------------------


def shown(text: str, limit: int = MAX_SHOWN) -> str:
    """Return foreign text fit to be seen: no secret in a url, nothing that hides or reorders, and bounded."""
    rest = len(text) - limit
    if "://" in text or "bd1-" in text or "=" in text:
        # Before it is cut, so that a password is known by what follows it; within bounds, for text may be long.
        text = scrub(text[: limit + _BEYOND])
    clipped = text[:limit]
    if not clipped.isprintable():
        clipped = clipped.translate(_VISIBLE)
    return f"{clipped}… ({rest:,} more characters)" if rest > 0 else clipped


class _Visible(dict[int, str]):
    """What each character is shown as, once it was met: a page may hold millions of them."""

    def __missing__(self, code: int) -> str:
        if len(self) >= _MAX_REMEMBERED:
            self.clear()
        self[code] = found = _visible(chr(code))
        return found


_VISIBLE: Final = _Visible()


def _visible(character: str) -> str:
    """Return a character, or a picture of one that cannot be seen or changes how its neighbours are read."""
    if character.isprintable() or character in _KEPT:
        return character
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    return " " if character.isspace() and code > 0xFF and code not in {0x2028, 0x2029} else f"⟨U+{code:04X}⟩"


def middle(text: str, limit: int) -> str:
    """Return a long name without its middle: names of machines differ at their ends."""
    half = (limit - 1) // 2
    return text if len(text) <= limit else f"{text[:half]}…{text[-(limit - 1 - half) :]}"


def short(digest: str) -> str:
    """Return the first twelve characters of a revision or digest: enough to recognise it."""
    return digest.removeprefix("sha256:")[:12]


def plural(number: int, one: str, many: str = "") -> str:
    """Return ``1 client``, ``2 clients``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


# --- Numbers ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4_096)
def size(count: int) -> str:
    """Return bytes in the decimal units that Borg uses: ``1.25 GB``."""
    number, unit = float(count), _UNITS[0]
    for unit in _UNITS:
        if number < 999.5 or unit == _UNITS[-1]:
            break
        number /= 1000
    if unit == "B":
        return f"{count} B"
    return f"{number:.{2 if number < 9.995 else 1 if number < 99.95 else 0}f} {unit}"


def percent(part: float, whole: float) -> str:
    """Return the share of a whole; never 100 % of less than all, nor 0 % of something."""
    if whole <= 0:
        return "–"
    share = 100 * part / whole
    if 0 < part < whole:
        share = min(max(share, 1), 99)
    return f"{share:.0f} %"


def brief(count: int) -> str:
    """Return a count in at most four characters: ``940``, ``1.2k``, ``20k``."""
    if count < 1000:
        return str(count)
    thousands = count / 1000
    return f"{thousands:.1f}k" if thousands < 9.95 else f"{min(thousands, 999):.0f}k"


def change(first: float, last: float) -> str:
    """Return how much something grew or shrank: ``+3.2 %``; as a multiple when it is more than fivefold."""
    share = last / first - 1
    if share > 4:
        return f"×{last / first:,.0f}"
    return f"{100 * share:+.{1 if abs(share) < 0.1 else 0}f} %".replace("-", "\N{MINUS SIGN}")


# --- Time -------------------------------------------------------------------------------------------------------------


def span(seconds: float) -> str:
    """Return a length of time in its two largest units: ``1 h 5 min``."""
    rest = max(0, round(seconds))
    parts: list[str] = []
    for length, unit in _STEPS:
        count, rest = divmod(rest, length)
        if count:
            parts.append(f"{count} {unit}")
        elif parts:
            break
        if len(parts) == 2:
            break
    return " ".join(parts) or ("0 s" if seconds <= 0 else "under 1 s")


def relative(moment: datetime, now: datetime) -> str:
    """Return how far a moment is from now, in its largest unit: ``5 min ago``, ``in 3 h``."""
    seconds = (now - moment).total_seconds()
    distance = abs(seconds)
    if distance < 5:
        return "just now" if seconds >= 0 else "in a moment"
    length, unit = next((step for step in _STEPS if distance >= step[0]), _STEPS[-1])
    text = f"{distance / length:.0f} {unit}" if length > 1 else f"{int(distance)} s"
    return f"{text} ago" if seconds >= 0 else f"in {text}"


_SECONDS: Final = len("2026-11-23 07:40:00")
"""Of what ``isoformat`` gives in a tenth of the time of ``strftime``."""


def absolute(moment: datetime) -> str:
    """Return a moment to the second, in UTC."""
    return f"{moment.astimezone(UTC).isoformat(' ', 'seconds')[:_SECONDS]} UTC"


def machine(moment: datetime) -> str:
    """Return a moment for ``<time datetime>``."""
    return f"{moment.astimezone(UTC).isoformat('T', 'seconds')[:_SECONDS]}Z"


def clock(moment: datetime) -> str:
    """Return the time of day, for lines of one log."""
    return moment.astimezone(UTC).strftime("%H:%M:%S")


def under(line: str, column: int) -> str:
    """Return what puts a caret under a column of a line, tabs and wide characters of the line kept in step."""
    head = line[: max(0, column - 1)]
    return "".join(one if one == "\t" else "\u3000" if _is_wide(one) else " " for one in head) + "^"


def _is_wide(character: str) -> bool:
    return east_asian_width(character) in {"F", "W"}


# --- Differences ------------------------------------------------------------------------------------------------------

_HUNK: Final = re.compile(r"^@@ -\d")


class DiffLine(NamedTuple):
    """One line of a unified diff."""

    kind: Literal["added", "removed", "place", "same"]
    text: str


def diff_lines(diff: str) -> list[DiffLine]:
    """Return the first lines of a unified diff, its file names left out: the page says them."""
    lines: list[DiffLine] = []
    every = diff.split("\n")
    for number, line in enumerate(every[:MAX_DIFF_LINES]):
        if number < 2 and line.startswith(("--- ", "+++ ")):
            continue
        if _HUNK.match(line):
            lines.append(DiffLine("place", line))
        elif line.startswith("+"):
            lines.append(DiffLine("added", line))
        elif line.startswith("-"):
            lines.append(DiffLine("removed", line))
        else:
            lines.append(DiffLine("same", line))
    if len(every) > MAX_DIFF_LINES:
        lines.append(DiffLine("place", f"… {plural(len(every) - MAX_DIFF_LINES, 'more line')}"))
    return lines
