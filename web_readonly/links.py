"""Addresses of the pages. Pure; for the templates, and for what is made without them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

if TYPE_CHECKING:
    from collections.abc import Mapping

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.~-]*", re.ASCII)
"""What stays as it is in an address, as almost all names do."""


def link(*parts: str, query: Mapping[str, str | tuple[str, ...]] | None = None) -> str:
    """Return the path of a page: the first part as it is, the others quoted; then the filters that are not empty."""
    path = "/".join([parts[0], *map(_quoted, parts[1:])])
    if not query:
        return path
    given = [
        (name, value)
        for name, values in query.items()
        for value in ([values] if isinstance(values, str) else values)
        if value
    ]
    return f"{path}?{urlencode(given, errors='replace')}" if given else path


def _quoted(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else quote(text, safe="")
