"""A secret is planted wherever one can come from, and looked for in everything that the dashboard answers.

What is promised stands in SECURITY.md. ``tests/e2e/test_canary.py`` does the same with a director as a process, its log
included.
"""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs
from yarl import URL

from tests.web_readonly import hostile, seeded, test_hostile
from tests.web_readonly.crawl import walk
from tests.web_readonly.test_access import PROXIED, basic, bearer
from tests.web_readonly.visitor import visiting
from web_readonly.views import VIEWS

if TYPE_CHECKING:
    from pathlib import Path

CANARY = "canary2b9e"
SPOKEN = (
    f"ssh://me:{CANARY}@h/x ",
    f"PGPASSWORD={CANARY} pg ",
    f"bd1-viewer.{CANARY} ",
    f"bd1-token.{CANARY} ",
    f"bd1-enroll.{CANARY} ",
    f"https://:{CANARY}@h ",
    f"BORG_PASSPHRASE={CANARY} ",
    f"--password={CANARY} ",
    f"ftp://h/?token={CANARY} ",
)
"""The forms in which a secret is known for one."""
ELSEWHERE = (
    "/metrics",
    "/badge/overview.svg",
    "/badge/web.svg",
    "/api/v1/openapi.json",
    "/livez",
    "/nope",
    "/clients?x=y",
)


async def everything(path: Path) -> dict[str, str]:
    """Return every answer: pages by their links, views by every name, numbers, badges and errors."""
    async with visiting(path) as client:
        found = await walk(client, answers=(200, 400, 404))
        for one in (*test_hostile.every_path(), *ELSEWHERE):
            response = await client.get(URL(one, encoded=True))
            assert response.status in {200, 400, 404}, one
            found[one] = await response.text() + json.dumps(dict(response.headers))
    return found


# Short texts hold a few of them only, so that each stands first once.
@pytest.mark.parametrize("spoken", ["".join(SPOKEN), "".join(reversed(SPOKEN))], ids=["forwards", "backwards"])
def test_a_secret_that_anybody_says_is_in_no_answer_and_in_no_log(tmp_path, monkeypatch, spoken):
    path = tmp_path / "store.db"
    monkeypatch.setattr(hostile, "HOSTILE", spoken)
    monkeypatch.setattr(hostile, "LONG", "")
    monkeypatch.setattr(hostile, "ENDLESS", "E" * 1_000)
    monkeypatch.setattr(hostile, "URL", f"https://git:{CANARY}@git.example/x")
    monkeypatch.setattr(test_hostile, "PARTS", {name: values[:-1] for name, values in test_hostile.PARTS.items()})

    async def visit() -> dict[str, str]:
        await hostile.seed(path)
        return await everything(path)

    with capture_logs() as logs:
        found = asyncio.run(visit())

    assert planted(path) > 20
    assert len(found) > 80
    # An address of ours holds names, and names are no place for a secret: they are shown as they are.
    said = {path: re.sub(r'(?:href|action)="[/?#][^"]*"', "", text) for path, text in found.items()}
    leaks = {path: text[max(0, text.index(CANARY) - 60) :][:90] for path, text in said.items() if CANARY in text}
    assert leaks == {}
    assert CANARY not in json.dumps(logs, default=str)


def planted(path: Path) -> int:
    """Return in how many columns of the store the secret stands: what is not there cannot be found."""
    count = 0
    with sqlite3.connect(path) as store:
        for (table,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for _, column, *_ in store.execute(f"PRAGMA table_info({table})").fetchall():
                rows = store.execute(f'SELECT CAST("{column}" AS TEXT) FROM "{table}"').fetchall()
                count += any(CANARY in (value or "") for (value,) in rows)
    store.close()
    return count


def test_what_the_store_keeps_of_secrets_is_in_no_answer(seeded_store):
    found = asyncio.run(everything(seeded_store))

    assert [path for path, text in found.items() if seeded.CANARY in text] == []
    assert [path for path, text in found.items() if "bd1-sealed" in text] == []


async def test_what_a_visitor_sends_is_in_no_answer_and_in_no_log(store):
    sent = [
        basic("ann", CANARY),
        basic(CANARY, CANARY),
        bearer(CANARY),
        bearer(f"bd1-viewer.{CANARY}"),
        {"Authorization": CANARY},
        {"Cookie": f"director={CANARY}; __Host-director={CANARY}"},
        {"X-Forwarded-For": CANARY},
    ]
    with capture_logs() as logs:
        async with visiting(store, access=PROXIED) as client:
            for headers in sent:
                for path in ("/", "/api/v1/overview", "/metrics", "/login"):
                    response = await client.get(path, headers=headers)
                    assert CANARY not in await response.text() + str(response.headers), (path, headers)
            for form in ({"secret": CANARY}, {"name": "ann", "secret": CANARY}, {"name": CANARY, "secret": CANARY}):
                response = await client.post("/login", data=form)
                assert CANARY not in await response.text() + str(response.headers)

    assert logs
    assert CANARY not in json.dumps(logs, default=str)


def test_every_view_is_visited():
    visited = {path.partition("?")[0] for path in test_hostile.every_path()}

    assert len(visited) >= sum(bool(view.template) + view.api for view in VIEWS)
