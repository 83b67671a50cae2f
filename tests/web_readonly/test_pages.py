"""Every page of every kind of store: right, escaped, bounded, and without a secret."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from importlib import resources
from itertools import product

import pytest

from reconciler.store import Store
from schema.observed import (
    LogLine,
    Report,
    RunLog,
    RunStarted,
    Trigger,
)
from tests.web_readonly import seeded
from tests.web_readonly.crawl import kind, pages_of, walk
from tests.web_readonly.visitor import Visitor, visiting
from web_readonly.pages import NAVIGATION


async def text_of(client: Visitor, path: str) -> str:
    """Return what a reader of a page sees, in one line."""
    response = await client.get(path)
    assert response.status == 200
    return seen(await response.text())


def seen(html: str) -> str:
    body = html[html.index("<main") :]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


# --- Every page -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def everything(seeded_store) -> dict[str, str]:
    """Every page that can be reached from the first, and its JSON."""

    async def visit() -> dict[str, str]:
        async with visiting(seeded_store) as client:
            return await walk(client)

    return asyncio.run(visit())


def test_every_kind_of_link_leads_somewhere_and_no_page_can_act(everything):
    kinds = {kind(path) for path in everything}
    assert {"/", "/clients/*", "/backups/*", "/backups/*/*", "/runs/*", "/repositories/*", "/api/v1/runs/*"} <= kinds


def test_no_secret_is_in_any_response(everything, seeded_store):
    planted = sqlite3.connect(seeded_store)
    for column in ("issued.envelope", "issued.content", "tokens.hash", "meta.value"):
        table, name = column.split(".")
        rows = planted.execute(f"SELECT CAST({name} AS TEXT) FROM {table}").fetchall()
        assert any(seeded.CANARY in row[0] for row in rows), column
    planted.close()

    assert [path for path, text in everything.items() if seeded.CANARY in text] == []
    assert [path for path, text in everything.items() if "bd1-sealed" in text] == []


async def test_every_page_names_itself_and_marks_where_it_is(store):
    async with visiting(store) as client:
        for path, name in NAVIGATION:
            text = await (await client.get(path)).text()
            assert f'<a href="{path}" aria-current="page">{name}</a>' in text
            assert text.count('aria-current="page"') == 1
            assert len(re.findall(r"<h1\b", text)) == 1
            assert re.search(r"<title>\S.* · Borgmatic Director</title>", text)


async def test_every_page_of_an_empty_store_says_what_to_do_next(tmp_path):
    path = tmp_path / "store.db"
    async with await Store.open(path):
        pass

    async with visiting(path) as client:
        found = pages_of(await walk(client))

    assert "director init my-backups" in found["/"]
    assert "director token create" in found["/"]
    assert "Nothing is backed up yet" in found["/"]
    assert "director token create" in found["/clients"]
    assert "director-client once" in found["/runs"]


# --- Single pages -----------------------------------------------------------------------------------------------------


async def test_the_overview_says_what_is_wrong_and_how_to_mend_it(store):
    async with visiting(store) as client:
        text = await text_of(client, "/")

    assert "3 backups are not protected" in text
    assert f"director acknowledge {seeded.REVISIONS[7]}" in text
    assert "repository &#39;cold&#39; cannot be read: /mnt/cold is not mounted" in text
    assert "18 of 20" in text


async def test_a_client_shows_what_it_should_have_what_it_has_and_how_its_files_differ(store):
    async with visiting(store) as client:
        html = await (await client.get("/clients/web-5")).text()

    assert '<span class="removed">-keep_daily: 7</span><span class="added">+keep_daily: 2</span>' in html
    assert "2 differences" in html
    assert "same content" in html
    assert "backups/web.yaml" in html
    assert "password: (hidden)" in html
    assert "{credential file" in html
    assert "vault.passphrase" in html


async def test_a_client_that_refuses_shows_the_line_that_would_allow_it(store):
    async with visiting(store) as client:
        text = await text_of(client, "/clients/app-2")

    assert "does not allow the option &#39;commands&#39;" in text
    assert "allow_options = [&#34;commands&#34;]" in text
    assert "other content" in text


async def test_clients_are_found_by_text_label_and_state(store):
    async with visiting(store) as client:

        async def names(query: str) -> list[str]:
            response = await client.get(f"/api/v1/clients?{query}")
            return [one["name"] for one in (await response.json())["items"]]

        assert await names("q=web-5") == ["web-5"]
        assert await names("label=role%3Ddb&label=site%3Dnorth") == ["db-1", "db-3"]
        assert await names("state=away") == ["monitor-1", "web-3"]
        assert await names("state=drifted") == ["web-5"]
        assert await names("state=refused") == ["app-2"]
        assert await names("state=stale") == ["mail-2"]
        assert await names("state=revoked") == []
        assert "No client matches" in await text_of(client, "/clients?q=nothing")


async def test_a_waiting_key_shows_the_command_and_the_resource_that_let_it_in(store):
    async with visiting(store) as client:
        text = await text_of(client, "/clients")

    assert "director clients approve laptop-anna" in text
    assert f"spec: {{publicKey: {seeded.public_key('laptop-anna')}}}" in text
    assert "director clients revoke web-8" in text


async def test_a_running_run_renews_itself_without_a_script_unless_it_ended_or_somebody_reads(store):
    running, ended = seeded.run_id("db-2", "postgresql", "now"), seeded.run_id("web-1", "system", 0)

    async with visiting(store) as client:
        now = await (await client.get(f"/runs/{running}")).text()
        then = await (await client.get(f"/runs/{ended}")).text()
        paused = [
            await (await client.get(f"/runs/{running}?{query}")).text()
            for query in ("pause=yes", "level=info", "after=-1")
        ]

    assert '<noscript><meta http-equiv="refresh" content="3"></noscript>' in now
    assert 'value="63.0"' in now
    assert "182,339" in now
    assert 'href="?pause=yes"' in now
    assert not any("http-equiv" in text for text in (then, *paused))
    assert "No such file or directory" in then


async def test_a_failed_run_shows_why_and_the_level_of_each_line(store):
    async with visiting(store) as client:
        html = await (await client.get(f"/runs/{seeded.run_id('web-3', 'web', 0)}")).text()
        only = await text_of(client, f"/runs/{seeded.run_id('web-3', 'web', 0)}?level=error")

    assert "Failed to create/acquire the lock" in html
    assert "borgmatic break-lock" in html
    assert html.count('<span class="level">error</span>') == 2
    assert "Creating archive" not in only


async def test_of_a_long_log_the_end_is_shown_and_the_start_is_one_click_away(tmp_path):
    run, path = "a" * 32, tmp_path / "store.db"
    reports: list[Report] = [
        RunStarted(at=seeded.NOW, run=run, backup="web", trigger=Trigger.SCHEDULE),
        *(
            RunLog(
                run=run,
                first=first,
                lines=tuple(
                    LogLine(at=seeded.NOW, level="info", message=f"line {number} of it")
                    for number in range(first, first + 400)
                ),
            )
            for first in (0, 400, 800)
        ),
    ]
    async with await Store.open(path) as store:
        items = list(enumerate(reports, 1))
        await store.ingest(client="web-1", public_key="k", epoch="e", items=items, through=4, received=seeded.NOW)

    async with visiting(path) as client:
        last = await (await client.get(f"/runs/{run}")).text()
        first = await (await client.get(f"/runs/{run}?after=-1")).text()

    assert "line 699 of it" not in last
    assert "line 700 of it" in last
    assert "line 1199 of it" in last
    assert 'href="?after=-1#log"' in last
    assert "line 0 of it" in first
    assert "?after=499#log" in first


async def test_the_source_shows_its_hold_and_each_problem_with_its_place(store):
    async with visiting(store) as client:
        text = await text_of(client, "/source")
        stalled = await text_of(client, f"/source/{seeded.REVISIONS[6]}")

    assert "waits for a person: MassChangeHeld" in text
    assert f"director acknowledge {seeded.REVISIONS[7]}" in text
    assert "profiles/database.yaml:1:1" in text
    assert "Mira Oduya" in text
    assert seeded.PROBLEMS[0].place in stalled
    assert "did you mean &#39;vault&#39;?" in stalled


async def test_a_backup_shows_objective_and_evidence_on_each_client(store):
    async with visiting(store) as client:
        text = await text_of(client, "/backups/postgresql")
        one = await text_of(client, "/backups/web-3/web")

    assert "db-4 unreadable 1d2h cold unreadable none seen" in text
    assert "on 4 clients" in text
    assert "the objective is 1d2h" in one


async def test_lists_go_on_where_they_stopped(store):
    async with visiting(store) as client:
        found: list[str] = []
        path = "/api/v1/archives"
        while path:
            page = await (await client.get(path)).json()
            found += [f"{one['client']}/{one['repository']}/{one['id']}" for one in page["items"]]
            path = f"/api/v1/archives?after={page['next']}" if page["next"] else ""
        first = await (await client.get("/archives")).text()

    assert len(found) == len(set(found)) > 200
    assert "Next page" in first
    assert "First page" in first


# --- JSON -------------------------------------------------------------------------------------------------------------


async def test_json_has_the_names_of_the_read_model(store):
    async with visiting(store) as client:
        overview = await (await client.get("/api/v1/overview")).json()
        backup = await (await client.get("/api/v1/backups/web-1/web")).json()
        log = await (await client.get(f"/api/v1/runs/{seeded.run_id('web-1', 'system', 0)}/log")).json()

    assert (overview["backups"], overview["withoutObjective"]) == (38, 1)
    assert overview["source"]["url"] == "https://deploy:***@git.example/ops/backups.git"
    assert (backup["rpo"], backup["lastRun"]["outcome"]) == ("1d2h", "succeeded")
    assert log["items"][0]["number"] == 0


# --- The look ---------------------------------------------------------------------------------------------------------


def tokens(css: str) -> dict[str, str]:
    return dict(re.findall(r"--([a-z-]+):\s*(#[0-9a-f]{6});", css))


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa_in_both_themes(theme):
    css = (resources.files("web_readonly") / "static" / "style.css").read_text()
    light, dark = css.split("prefers-color-scheme: dark", 1)
    colours = tokens(light) if theme == "light" else tokens(light) | tokens(dark)
    tones = ("good", "warn", "bad", "busy", "idle")
    grounds = ("ground", "surface", "sunken")
    pairs = [
        *product(("text", "muted", "link", *tones), grounds),
        *((tone, f"{tone}-soft") for tone in tones),
        *product(("text", "muted"), (f"{tone}-soft" for tone in tones)),
    ]

    low = {pair: round(contrast(*(colours[name] for name in pair)), 2) for pair in pairs}

    assert {pair: ratio for pair, ratio in low.items() if ratio < 4.5} == {}


async def test_the_first_page_fits_in_sixty_kilobytes_with_its_style_and_script(store):
    sizes = {}
    async with visiting(store) as client:
        html = await (await client.get("/")).text()
        for path in ("/", *re.findall(r'(?:href|src)="(/static/[^"]+)"', html)):
            response = await client.get(path, headers={"Accept-Encoding": "gzip"})
            sizes[path.partition("?")[0]] = int(response.headers["Content-Length"])

    assert set(sizes) == {"/", "/static/style.css", "/static/live.js", "/static/mark.svg"}
    assert sum(sizes.values()) < 60_000


def test_the_stylesheet_and_templates_ask_no_other_machine():
    folder = resources.files("web_readonly")
    texts = [
        one.read_text() for place in ("static", "templates") for one in (folder / place).iterdir() if one.is_file()
    ]

    addresses = {url for text in texts for url in re.findall(r"(?:https?:)?//[a-z][\w.-]+", text)}

    assert addresses == {"http://www.w3.org"}
    assert not any("@import" in text or "style=" in text for text in texts)
    assert sum(text.count("<script") for text in texts) == 1


def test_json_is_ascii_so_that_nothing_in_it_hides():
    from web_readonly.pages import dump

    assert dump({"a": "\u202e\ud800"}) == b'{"a":"\\u202e\\ud800"}\n'
    assert json.loads(dump({"a": ["ssh://u:secret@h"]})) == {"a": ["ssh://u:***@h"]}
