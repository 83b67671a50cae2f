"""A visitor who follows every link, and looks whether a page could act by itself."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from typing import TYPE_CHECKING

from web_readonly.pages import NAVIGATION

if TYPE_CHECKING:
    from collections.abc import Container

    from tests.web_readonly.visitor import Visitor

LEFT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\u061c\ud800-\udfff]")


class Links(HTMLParser):
    """What a page links to, and what would let it act by itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.forbidden: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "a":
            self.targets.append(given["href"])
        ours = tag == "script" and given.keys() == {"type", "src"} and given["src"].startswith("/static/live.js?")
        if tag in {"script", "style", "iframe", "object", "embed", "base"} and not ours:
            self.forbidden.append(tag)
        self.forbidden += [name for name in given if name == "style" or name.startswith("on")]
        if tag == "form":
            assert given["method"] == "get"


async def walk(client: Visitor, *, answers: Container[int] = (200,)) -> dict[str, str]:
    """Follow the links from the first page, eight of each kind, and return the pages by path."""
    found: dict[str, str] = {}
    visited: Counter[str] = Counter()
    waiting = [path for path, _ in NAVIGATION]
    while waiting:
        path = waiting.pop().partition("#")[0]
        visited[kind(path)] += path not in found
        if not path or path in found or visited[kind(path)] > 8:
            continue
        response = await client.get(path)
        text = await response.text()
        assert response.status in answers, (path, text)
        found[path] = text
        if response.content_type == "text/html":
            page = Links(text)
            assert page.forbidden == [], path
            base = path.partition("?")[0]
            ours = [target for target in page.targets if not target.startswith("https://")]
            waiting += [base + target if target.startswith("?") else target for target in ours]
    return found


def kind(path: str) -> str:
    """Return what kind of page a path leads to: names of things become stars."""
    place, _, query = path.partition("?")
    words = {"", "api", "v1", *(name.strip("/") for name, _ in NAVIGATION), "overview", "log", "about"}
    filters = sorted(one.partition("=")[0] for one in query.split("&"))
    return "/".join(part if part in words else "*" for part in place.split("/")) + "?".join(["", *filters]).rstrip("?")


def pages_of(found: dict[str, str]) -> dict[str, str]:
    return {path: text for path, text in found.items() if not path.startswith("/api/")}
