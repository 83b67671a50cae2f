"""The first page answers four questions without a click."""

from __future__ import annotations

import asyncio
import gzip
from importlib import resources
from typing import TYPE_CHECKING

from reconciler.store import Store
from schema.observed import Outcome
from tests.web_readonly import seeded
from tests.web_readonly.test_timeline import seed_fleet
from tests.web_readonly.visitor import visiting
from web_readonly import tones
from web_readonly.reader import Reader

if TYPE_CHECKING:
    from pathlib import Path


async def page(path: Path) -> str:
    async with visiting(path) as client:
        return await (await client.get("/")).text()


def section(html: str, heading: str) -> str:
    start = html.index(f'aria-labelledby="{heading}"')
    return html[start : html.index("</section>", start)]


async def test_the_first_thing_to_do_stands_in_the_verdict_with_its_command(store):
    html = await page(store)
    verdict = html[html.index('aria-label="Verdict"') : html.index('aria-label="Numbers"')]

    assert "3 backups are not protected" in verdict
    assert f"director acknowledge {seeded.REVISIONS[7]}" in verdict
    assert f"director acknowledge {seeded.REVISIONS[7]}" not in section(html, "attention")


async def test_it_says_which_revision_is_where_and_who_refuses_it_and_why(store):
    source = section(await page(store), "source")

    assert "16 current, 1 stale" in source
    assert "1 behind, 1 refuses" in source
    assert seeded.REVISIONS[4][:12] in source
    assert "refuses: the machine&#39;s policy does not allow the option &#39;commands&#39;" in source
    assert "allow_options = [&#34;commands&#34;]" in source


def test_the_verdict_does_not_call_backups_protected_that_are_not_known_to_be(store):
    reader = Reader(store)
    overview = reader.overview(now=seeded.NOW).model_copy(update={"unprotected": 0, "backups": 9, "protected": 7})
    reader.close()

    assert tones.verdict(overview).word == "7 of 9 backups are protected, but something is wrong"
    every = overview.model_copy(update={"protected": 9})
    assert tones.verdict(every).word == "Backups are protected, but something is wrong"


def test_revisions_are_counted_by_how_their_clients_stand(store):
    reader = Reader(store)
    overview = reader.overview(now=seeded.NOW)
    reader.close()

    assert [(one.revision, one.clients) for one in overview.revisions] == [
        (seeded.REVISIONS[5], 17),
        (seeded.REVISIONS[4], 2),
        ("", 1),
    ]
    assert sum(one.clients for one in overview.revisions) + overview.other_revisions == overview.clients
    assert [one.client for one in overview.refusals] == ["app-2"]


async def test_it_shows_what_ran_and_what_runs_next_the_failed_first(store):
    timeline = section(await page(store), "timeline")

    assert timeline.index(">web-3</a>") < timeline.index(">app-4</a>")
    assert timeline.count('<th scope="row">') == 1 + 12
    assert '<circle class="due"' in timeline
    assert "More clients" in timeline


async def test_it_shows_how_all_repositories_grow_with_the_same_as_a_table(store):
    growth = section(await page(store), "growth")

    assert growth.count("<polyline") >= 4
    assert "As a table" in growth
    assert '<th scope="row" class="nowrap">2026-11-23</th>' in growth


async def test_it_holds_archives_against_what_retention_keeps(store):
    growth = section(await page(store), "growth")
    reader = Reader(store)
    wanted = reader.wanted_archives()
    reader.close()

    # Seven daily, four weekly and six monthly: of 42 backups in a repository each.
    assert wanted == 17 * 42
    assert "retention keeps at most 714 when it is full" in growth


async def test_a_first_visit_shows_the_next_command_and_nothing_that_is_empty(tmp_path):
    path = tmp_path / "store.db"
    async with await Store.open(path):
        pass

    html = await page(path)

    assert "director init my-backups" in html
    assert "Not protected" not in html
    assert "<h2 id=" in html
    assert html.count("<section") == 2


async def test_one_client_with_one_backup_is_one_row_without_a_crowd(tmp_path):
    path = tmp_path / "store.db"
    await seed_fleet(path, ("web-1", 3, Outcome.SUCCEEDED), due={"web-1": 2})

    timeline = section(await page(path), "timeline")

    assert timeline.count('<th scope="row">') == 1
    assert "All clients</th>" not in timeline


async def test_long_names_keep_their_ends(tmp_path):
    path, name = tmp_path / "store.db", "web-" + "x" * 58 + "-7"
    await seed_fleet(path, (name, 3, Outcome.SUCCEEDED))

    assert f'aria-label="{name}">web-xxxxx…xxxxxxxx-7</a>' in section(await page(path), "timeline")


def test_it_fits_into_sixty_kilobytes_with_all_that_it_loads(store):
    html = asyncio.run(page(store))
    static = resources.files("web_readonly") / "static"
    loaded = [html.encode(), *(one.read_bytes() for one in static.iterdir() if one.is_file())]

    assert sum(len(gzip.compress(one)) for one in loaded) < 60_000
