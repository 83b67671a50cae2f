"""Badges: one small picture that says how a backup stands, for a README or a wiki. ``web_readonly.app`` serves them.

Each is an SVG document of its own, without style, script or font: presentation attributes only, which every policy
allows. What it says stands in its title, for those who do not see it; the colour says nothing that the words do not.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple
from xml.sax.saxutils import escape

from web_readonly import formats

if TYPE_CHECKING:
    from collections.abc import Iterable

    from web_readonly.reader.numbers import Standing

CONTENT_TYPE: Final = "image/svg+xml"
FRESH_SECONDS: Final = 60
MAX_LABEL: Final = 64

# White on each of them has a contrast of at least 4.5 to 1.
GOOD, BAD, WAITING, GREY = "#1a7f37", "#b42318", "#8a5300", "#57606a"
_LEFT: Final = "#3a424c"

# Tenths of a pixel of DejaVu Sans and Verdana at 11 pixels, which are nearly as wide as each other. What is not listed
# is taken for wide. The text is then fitted into exactly this (textLength), so that another font spoils nothing.
_WIDTHS: Final = {
    **dict.fromkeys("ijl'|", 31),
    **dict.fromkeys("I.,:; !", 38),
    **dict.fromkeys("ft()[]/-r", 44),
    **dict.fromkeys("csJz", 58),
    **dict.fromkeys("aegknopqbduhvxy0123456789_#*FLST", 69),
    **dict.fromkeys("ABCDEGHKNOPQRUVXYZ&+=<>~w", 80),
    **dict.fromkeys("mMW@%", 105),
}
_WIDE: Final = 110
_HEIGHT, _PAD = 20, 7


class Badge(NamedTuple):
    """What a badge says."""

    label: str
    words: str
    colour: str


def of_backup(name: str, standings: Iterable[Standing]) -> Badge | None:
    """Return the badge of a backup on one client or on all; None when there is no such backup."""
    found = list(standings)
    total = sum(one.number for one in found)
    if not total:
        return None
    late = _count(found, "unprotected")
    if late:
        empty = sum(one.number for one in found if one.state == "unprotected" and not one.has_archive)
        words = "overdue" if empty < late else "no archive"
        return Badge(name, words if total == 1 else f"{words} on {late} of {total}", BAD)
    unknown, without = _count(found, "unknown"), _count(found, "without-objective")
    if unknown:
        return Badge(name, "unknown" if total == 1 else f"unknown on {unknown} of {total}", WAITING)
    if without:
        return Badge(name, "no objective" if without == total else f"no objective on {without} of {total}", GREY)
    return Badge(name, "protected", GOOD)


def of_all(standings: Iterable[Standing]) -> Badge:
    """Return the badge of everything."""
    found = list(standings)
    total, late, protected = sum(one.number for one in found), _count(found, "unprotected"), _count(found, "protected")
    if late:
        return Badge("backups", f"{late:,} of {total:,} unprotected", BAD)
    if not total:
        return Badge("backups", "none yet", GREY)
    if protected == total:
        return Badge("backups", "all protected", GOOD)
    return Badge("backups", f"{protected:,} of {total:,} protected", WAITING if protected else GREY)


def unknown(name: str) -> Badge:
    """Return the badge of a backup that is not there."""
    return Badge(name, "unknown backup", GREY)


def _count(standings: Iterable[Standing], state: str) -> int:
    return sum(one.number for one in standings if one.state == state)


def width(text: str) -> int:
    """Return about how wide a text is, in pixels."""
    return -(-sum(_WIDTHS.get(character, _WIDE) for character in text) // 10)


def draw(badge: Badge) -> bytes:
    """Return the picture."""
    # Cut again: what cannot be seen is shown by its name, which is longer.
    label, words = (formats.shown(text, MAX_LABEL)[:MAX_LABEL] for text in (badge.label, badge.words))
    left, right = width(label) + 2 * _PAD, width(words) + 2 * _PAD
    whole, title = left + right, escape(f"{label}: {words}")
    # Two badges in one page must not share the name of a clip path.
    clip = "c" + hashlib.sha256(title.encode("utf-8", "replace")).hexdigest()[:8]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{whole}" height="{_HEIGHT}" viewBox="0 0 {whole} {_HEIGHT}" '
        f'role="img" aria-labelledby="{clip}t"><title id="{clip}t">{title}</title>'
        f'<clipPath id="{clip}"><rect width="{whole}" height="{_HEIGHT}" rx="4"/></clipPath>'
        f'<g clip-path="url(#{clip})"><rect width="{left}" height="{_HEIGHT}" fill="{_LEFT}"/>'
        f'<rect x="{left}" width="{right}" height="{_HEIGHT}" fill="{badge.colour}"/></g>'
        f'<g fill="#fff" font-family="Verdana,\'DejaVu Sans\',Geneva,sans-serif" font-size="11">'
        f"{_text(label, x=_PAD)}{_text(words, x=left + _PAD)}</g></svg>\n"
    ).encode("utf-8", "replace")


def _text(text: str, *, x: int) -> str:
    fitted = f'textLength="{width(text)}" lengthAdjust="spacingAndGlyphs"'
    return f'<text x="{x}" y="14" {fitted} xml:space="preserve">{escape(text)}</text>'
