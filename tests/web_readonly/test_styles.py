"""The stylesheet keeps promises that tests/browser relies on."""

from __future__ import annotations

import re
from importlib import resources

STYLES = (resources.files("web_readonly") / "static" / "style.css").read_text(encoding="utf-8")
_DARK = re.compile(r"@media \(prefers-color-scheme: dark\) \{\n  :root \{\n(.*?)\n  \}\n\}\n", re.DOTALL)
_NAMED_COLOUR = re.compile(r"    --[a-z0-9-]+: (#[0-9a-f]{3,8}|rgb[a]?\([^)]*\)|color-mix\([^;]*\));")


def test_the_dark_theme_is_other_colours_under_the_same_names_and_nothing_else() -> None:
    blocks = _DARK.findall(STYLES)

    assert len(blocks) == STYLES.count("prefers-color-scheme") == 1
    other = [line for line in blocks[0].splitlines() if line.strip() and not _NAMED_COLOUR.fullmatch(line)]
    assert other == []
