"""The page of one archive: what is in it, how it comes back, and what is said where nothing was told."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from client.contents import FORBIDDEN
from reconciler.core.issue import BackupRow, ClientRow
from reconciler.store import Store
from schema.observed import Archive, ArchiveContents, ArchivesSeen, DirectoryContents, LargeFile, Report
from tests.web_readonly import seeded
from tests.web_readonly.crawl import LEFT, Links
from tests.web_readonly.test_pages import seen
from tests.web_readonly.visitor import Visitor, visiting
from web_readonly.archive_questions import clean_path, rows_below
from web_readonly.reader import Reader

if TYPE_CHECKING:
    from pathlib import Path

    from schema.status import ArchiveStatus


def newest(store: Path, client: str, backup: str, *, number: int = 0, repository: str = "vault") -> ArchiveStatus:
    reader = Reader(store)
    try:
        return reader.archives(client=client, backup=backup, repository=repository, limit=5).items[number]
    finally:
        reader.close()


def place(one: ArchiveStatus) -> str:
    return f"/archives/{one.client}/{one.backup}/{one.repository}/{one.id}"


async def read(visitor: Visitor, path: str) -> str:
    response = await visitor.get(path)
    text = await response.text()
    assert response.status == 200, text
    assert Links(text).forbidden in ([], ["script"])
    assert not LEFT.search(text)
    return text


def commands(html: str) -> list[str]:
    found = re.findall(r'<code class="command[^"]*">(.*?)</code>', html)
    return [one.replace("&#39;", "'").replace("&#34;", '"').replace("&amp;", "&") for one in found]


async def test_a_listed_archive_shows_its_directories_and_the_run_that_made_it(seeded_store):
    one = newest(seeded_store, "web-1", "web")
    async with visiting(seeded_store) as visitor:
        html = await read(visitor, place(one))

    text = seen(html)
    assert "Contents" in text
    assert f"{one.name} newest" in text
    assert "var/www/" in text
    assert "shop/" in text
    assert f'href="/runs/{seeded.run_id("web-1", "web", 0)}"' in html
    assert f'href="/source/{seeded.REVISIONS[5]}"' in html
    assert f'href="{place(one)}?path=var%2Fwww%2Fshop#contents"' in html


async def test_every_list_of_archives_leads_to_the_page(seeded_store):
    one = newest(seeded_store, "web-1", "web")
    async with visiting(seeded_store) as visitor:
        for path in ("/archives?client=web-1", "/backups/web-1/web"):
            assert f'href="{place(one)}"' in await read(visitor, path)


async def test_the_commands_are_those_of_the_path_that_is_looked_at(seeded_store):
    one = newest(seeded_store, "web-1", "web")
    async with visiting(seeded_store) as visitor:
        whole, part = await read(visitor, place(one)), await read(visitor, place(one) + "?path=/var/www/shop/")

    assert commands(whole)[0] == (
        f"mkdir -m 700 /var/tmp/restore && borgmatic --config /etc/borgmatic.d/web.yaml extract --repository vault "
        f"--archive {one.name} --destination /var/tmp/restore"
    )
    assert "--path var/www/shop --destination" in commands(part)[0]
    assert commands(whole)[1] == (
        "borgmatic --config /etc/borgmatic.d/web.yaml "
        "--user-runtime-directory /var/lib/borgmatic-director-client/runtime/of-web "
        f"restore --repository vault --archive {one.name}"
    )
    assert "paths: [&#34;var/www/shop&#34;]" in part
    assert "This version does not read the kind Restore" in seen(part)


@pytest.mark.parametrize("path", ["no/such/directory", "-rf", "re:.*", "x" * 400, "a'b c", "../../etc", "%00"])
async def test_any_path_can_be_asked_for(seeded_store, path):
    one = newest(seeded_store, "web-1", "web")
    async with visiting(seeded_store) as visitor:
        text = seen(await read(visitor, f"{place(one)}?path={quote(path)}"))

    assert "This directory is not told apart" in text


async def test_a_path_that_cannot_be_named_has_no_command(seeded_store):
    one = newest(seeded_store, "web-1", "web")
    async with visiting(seeded_store) as visitor:
        html = await read(visitor, f"{place(one)}?path=a{quote(chr(0xFFFD))}b")

    assert commands(html) == []
    assert "no command can name it for certain" in seen(html)


async def test_where_nothing_was_told_the_page_says_why_and_what_to_type(seeded_store):
    older, forbidden = newest(seeded_store, "web-1", "web", number=1), newest(seeded_store, "mail-1", "mail")
    async with visiting(seeded_store) as visitor:
        old, not_allowed = await read(visitor, place(older)), await read(visitor, place(forbidden))

    assert "Clients look into the newest archive only" in seen(old)
    assert f'href="{place(newest(seeded_store, "web-1", "web"))}"' in old
    assert FORBIDDEN.replace('"', "&#34;") in not_allowed
    for html, one in ((old, older), (not_allowed, forbidden)):
        listing = f"list --repository vault --archive {one.name}"
        assert commands(html)[0] == f"borgmatic --config /etc/borgmatic.d/{one.backup}.yaml {listing}"


async def test_an_archive_that_is_not_there_is_not_found(seeded_store):
    async with visiting(seeded_store) as visitor:
        for path in ("/archives/web-1/web/vault/nothing", "/archives/x/y/z/a", "/api/v1/archives/x/y/z/a"):
            response = await visitor.get(path)
            assert response.status == 404
            assert "there is no archive" in await response.text()


async def test_the_json_has_all_of_it(seeded_store):
    one = newest(seeded_store, "web-1", "web")
    async with visiting(seeded_store) as visitor:
        answer = await (await visitor.get("/api/v1" + place(one))).json()
        part = await (await visitor.get(f"/api/v1{place(one)}?path=/etc/")).json()

    assert (answer["id"], answer["isNewest"], answer["contents"]["listed"]) == (one.id, True, True)
    assert answer["revision"] == seeded.REVISIONS[5]
    assert answer["contents"]["directoryCount"] > 0
    assert {"path", "files", "size"} <= answer["contents"]["directories"][0].keys()
    assert (answer["path"], answer["configuration"]) == ("", "/etc/borgmatic.d/web.yaml")
    assert part["path"] == "etc"
    assert "--path etc" in part["commands"]["extract"]
    assert "kind: Restore" in part["resource"]


# --- What a client could say that is not ours -------------------------------------------------------------------------


def told(*paths: str, **changes: Any) -> ArchiveContents:
    archive = Archive(id="ab" * 32, name="a", start=seeded.NOW)
    report = ArchiveContents(at=seeded.NOW, backup="web", repository="nas", archive=archive, listed=True, files=10)
    rows = tuple(DirectoryContents(path=path, files=10, size=10) for path in paths)
    return report.model_copy(update={"directories": rows, **changes})


@pytest.mark.parametrize(
    "paths", [("",), ("", ""), ("/",), ("/", "//", "///"), ("a", "a"), ("a/b/c",), ("a/",), ("..", "../..")]
)
def test_directories_that_make_no_sense_break_nothing(paths):
    for path in ("", *paths):
        base, rows = rows_below(told(*paths), path)
        assert base is None or len(rows) <= len(paths) + 1


def test_a_directory_that_holds_but_one_other_shares_its_row_and_the_rest_is_told():
    base, rows = rows_below(told("a", "a/b", "a/b/c", files=12, size=10), "")

    assert base is not None
    assert [(row.name, row.path, row.files) for row in rows] == [("a/b/c", "a/b/c", 10), ("", "", 2)]


def test_when_two_levels_are_too_long_there_is_one():
    upper = [f"d{number}" for number in range(60)]

    _, rows = rows_below(told(*upper, *(f"{one}/{inner}" for one in upper for inner in "xyz")), "")

    assert {row.level for row in rows} == {0}


@pytest.mark.parametrize("text, path", [("/", ""), ("/a//b/", "a/b"), ("./a", "a"), ("a b", "a b")])
def test_a_path_is_as_archives_have_it(text, path):
    assert clean_path(text) == path


async def test_hostile_names_are_shown_harmlessly(tmp_path):
    hostile = "<script>alert(1)</script>\u202e\x1b[31m\u200b'\"{{ 7*7 }}"
    archive = Archive(id="ab" * 32, name=f"-{hostile}", start=seeded.NOW)
    seen_there = {"at": seeded.NOW, "backup": "web", "repository": "nas"}
    reports: list[Report] = [
        ArchivesSeen(**seen_there, url="/mnt", available=True, count=1, archives=(archive,)),  # type: ignore[arg-type]
        ArchiveContents(
            **seen_there,  # type: ignore[arg-type]
            archive=archive,
            listed=True,
            files=9,
            directories=tuple(DirectoryContents(path=f"{hostile}/{n}{'x' * 900}", files=1) for n in range(500)),
            largest=tuple(LargeFile(path=hostile * 9, size=2**63 - 1) for _ in range(20)),
        ),
    ]
    repositories = ({"name": "nas", "url": "/mnt", "encryption": "none"},)
    row = BackupRow("web-1", "web", "", "", "", None, suspended=False, repositories=repositories)
    path = tmp_path / "store.db"
    async with await Store.open(path) as store:
        await store.publish(
            clients=[ClientRow("web-1", "key", {}, "", suspended=False)],
            backups=[row],
            issued=[],
            removed_clients=[],
            removed_backups=[],
            at=seeded.NOW,
        )
        items = list(enumerate(reports, 1))
        await store.ingest(client="web-1", public_key="key", epoch="e", items=items, through=2, received=seeded.NOW)

    async with visiting(path) as visitor:
        html = await read(visitor, place(newest(path, "web-1", "web", repository="nas")))

    assert "<script>alert" not in html
    assert "49" not in seen(html)
    assert "is no longer on web-1" in seen(html)
    assert len(html) < 200_000
