"""What strangers say is shown harmlessly, wherever it is shown: every page and its JSON, small enough to be read."""

from __future__ import annotations

import asyncio
import json
from itertools import product
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from yarl import URL

from tests.web_readonly import hostile
from tests.web_readonly.crawl import LEFT, Links, pages_of, walk
from tests.web_readonly.visitor import visiting
from web_readonly.views import VIEWS

if TYPE_CHECKING:
    from pathlib import Path

PARTS = {
    "client": ("web-1", hostile.HOSTILE),
    "backup": ("web", hostile.HOSTILE),
    "repository": ("nas", hostile.HOSTILE),
    "run": (hostile.RUN, hostile.ENDED, hostile.HOSTILE),
    "revision": (hostile.REVISION, hostile.HOSTILE),
    "archive": ("ab" * 8, hostile.HOSTILE),
}
MAX_PAGE = 600_000
"""Of lists of the longest that can be said. A page of anything honest is a tenth of that."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every page that a link leads to, and every view by every name."""
    path: Path = tmp_path_factory.mktemp("hostile") / "store.db"

    async def visit() -> dict[str, str]:
        await hostile.seed(path)
        async with visiting(path) as client:
            # Not every name of theirs leads somewhere, and that is said as harmlessly.
            pages = await walk(client, answers=(200, 400, 404))
            for one in every_path():
                response = await client.get(URL(one, encoded=True))
                assert response.status in {200, 400, 404}, (one, await response.text())
                pages[one] = await response.text()
            return pages

    return asyncio.run(visit())


def every_path() -> list[str]:
    """Return each view's path and its twin's, each part of it an honest name and a hostile one."""
    paths = []
    for view in VIEWS:
        names = [part.strip("{}") for part in view.path.split("/") if part.startswith("{")]
        for values in product(*(PARTS[name] for name in names)):
            parts = {name: quote(value, safe="") for name, value in zip(names, values, strict=True)}
            paths += [view.path.format(**parts)] if view.template else []
            paths += [view.api_path.format(**parts)] if view.api else []
        paths += [f"{view.path}?{name}={quote(hostile.HOSTILE)}" for name in view.filters if not names]
    return paths


def test_no_page_holds_markup_of_theirs(found):
    pages = pages_of(found)

    assert len(pages) > 40
    assert [path for path, text in pages.items() if "<script>" in text or "<img src=x" in text] == []
    assert [path for path, text in pages.items() if Links(text).forbidden] == []


def test_nothing_hides_reorders_or_colours_what_is_read(found):
    assert [path for path, text in found.items() if LEFT.search(text)] == []


def test_no_link_leaves_but_to_the_forge_and_none_runs_anything(found):
    targets = {target for text in pages_of(found).values() for target in Links(text).targets}

    assert all(target.startswith(("/", "?", "#", "https://github.com/")) for target in targets)
    assert not any(target.startswith("//") for target in targets)


def test_no_page_grows_with_what_they_say(found):
    assert {path: len(text) for path, text in pages_of(found).items() if len(text) > MAX_PAGE} == {}


def test_json_is_ascii_and_whole(found):
    for path, text in found.items():
        if path.startswith("/api/"):
            assert text.isascii(), path
            json.loads(text)


def test_it_is_shown_not_hidden(found):
    client = found["/clients/web-1"]

    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in client
    assert "␛[31mred ⟨U+202E⟩gnp.exe" in client
    assert "{{ 7*7 }}" in client
    assert "more characters)" in found["/source"]
    assert "What will change when it applies this" in client


async def test_a_name_that_is_no_text_at_all_is_a_404_or_a_400(store):
    names = ("%ff%fe", "%ed%a0%80", "%00", "%f0%9f", "%2e%2e%2f", "%e2%80%ae", "%0d%0aSet-Cookie:x", "x" * 3_000)
    async with visiting(store) as client:
        for name in names:
            for path in (f"/clients/{name}", f"/runs/{name}", f"/source/{name}", f"/{name}", f"/clients?q={name}"):
                response = await client.get(URL(path, encoded=True))
                text = await response.text()

                assert response.status in {200, 400, 404}, path
                assert not LEFT.search(text), path
                assert "Set-Cookie" not in response.headers
