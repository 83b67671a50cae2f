"""The dashboard as a server: what it answers to, to whom, and how it fails."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from typing import TYPE_CHECKING

import aiohttp
import pytest
from yarl import URL

from reconciler.store import Store
from schema.errors import TerminalError, TransientError
from tests.web_readonly import seeded
from tests.web_readonly.visitor import visiting
from web_readonly import answering
from web_readonly import app as app_module
from web_readonly.access import Access
from web_readonly.app import HEADERS, make_app, serving
from web_readonly.reader import Reader

if TYPE_CHECKING:
    from pathlib import Path


def dashboard(path: Path, **options):
    return make_app(Reader(path), now=lambda: seeded.NOW, **options)


# --- Read only --------------------------------------------------------------------------------------------------------


def test_there_is_no_route_but_get_and_head(tmp_path):
    app = dashboard(tmp_path / "store.db")

    assert {route.method for route in app.router.routes()} == {"GET", "HEAD"}


async def test_any_other_method_is_refused_and_says_why(store):
    async with visiting(store) as client:
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
            response = await client.request(method, "/clients", data=b"x")

            assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")
            assert "Nothing can be changed here" in await response.text()


async def test_head_answers_as_get_does_without_a_body(store):
    async with visiting(store) as client:
        response = await client.head("/clients")

        assert (response.status, await response.read()) == (200, b"")


async def test_reading_every_page_leaves_the_store_as_it_was(store):
    before = store.read_bytes()

    async with visiting(store) as client:
        for path in ("/", "/clients", "/clients/web-1", "/backups", "/runs", "/source", "/events", "/about"):
            assert (await client.get(path)).status == 200

    assert store.read_bytes() == before


# --- Headers and names ------------------------------------------------------------------------------------------------


async def test_every_response_forbids_what_a_page_does_not_need(store):
    paths = ("/", "/nope", "/clients?x=1", "/api/v1/overview", "/api/v1/x", "/static/style.css", "/livez", "/metrics")
    async with visiting(store) as client:
        for path in paths:
            response = await client.get(path)

            assert {name: response.headers[name] for name in HEADERS} == HEADERS, path
            assert "unsafe" not in response.headers["Content-Security-Policy"]
            assert "Server" not in response.headers


async def test_pages_are_kept_by_the_browser_alone_and_static_files_by_every_cache(store):
    async with visiting(store) as client:
        page = await client.get("/")
        html = await page.text()
        style = html.partition('href="/static/style.css?')[2].partition('"')[0]
        known = await client.get(f"/static/style.css?{style}")
        unknown = await client.get("/static/style.css?old")

        assert page.headers["Cache-Control"] == "private, no-cache"
        assert known.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert (known.content_type, unknown.headers["Cache-Control"]) == ("text/css", "no-cache")


async def test_no_other_file_can_be_had(store):
    async with visiting(store) as client:
        for name in ("nope.css", "..%2fapp.py", "..%5capp.py", "style.css%00", "style.css%2f"):
            response = await client.get(URL(f"/static/{name}", encoded=True))

            assert response.status == 404, name


async def test_the_names_of_this_machine_are_answered(store):
    hosts = ("localhost", "LOCALHOST:1", "127.0.0.1:8441", "127.0.0.5", "[::1]:8441", "[::1]")
    async with visiting(store) as client:
        answers = {host: (await client.get("/about", headers={"Host": host})).status for host in hosts}

    assert answers == dict.fromkeys(hosts, 200)


async def test_a_site_that_renames_itself_to_this_machine_learns_nothing(store):
    hosts = ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8441", "10.0.0.1", "localhost:x", "")
    async with visiting(store) as client:
        for host in hosts:
            response = await client.get("/api/v1/clients", headers={"Host": host})

            assert response.status == 421, host
            assert "web-1" not in await response.text()


# --- What goes wrong --------------------------------------------------------------------------------------------------


async def test_what_is_not_there_is_a_404_that_helps(store):
    paths = (
        "/nope",
        "/clients/",
        "/clients/nobody",
        "/clients/..%2f..%2fetc",
        "/backups/nothing",
        "/backups/web-1/nothing",
        "/runs/zzz",
        "/runs/" + "f" * 32,
        "/repositories/nowhere",
        "/source/0000000",
        "/source/ab",
        "/api/v1/clients/nobody",
        "/api/v1/nope",
        "/api/v1/runs/zzz/log",
    )
    async with visiting(store) as client:
        for path in paths:
            response = await client.get(path)

            assert response.status == 404, path
            if path.startswith("/api/"):
                assert (await response.json())["error"]["hint"]
            else:
                assert "To the overview" in await response.text()


async def test_a_filter_that_makes_no_sense_is_a_400_that_says_what_would(store):
    wrong = (
        ("/clients?colour=red", "its filters are: q, label, state, limit, after"),
        ("/clients?state=sleepy", "connected, away, drifted"),
        ("/clients?label=web", "write key=value"),
        ("/clients?label=a'b=c", "is not the key of a label"),
        ("/clients?q=a&q=b", "give &#39;q&#39; once"),
        ("/clients?q=" + "x" * 600, "too long"),
        ("/runs?outcome=sad", "running, succeeded"),
        ("/runs?after=nonsense", "start at the first page"),
        ("/archives?after=2026~x", "start at the first page"),
        ("/events?after=-99999999999999999999", "start at the first page"),
        ("/repositories?after=x", "start at the first page"),
        ("/backups?state=fine", "protected, unprotected"),
        ("/?x=1", "it has none"),
    )
    async with visiting(store) as client:
        for path, said in wrong:
            response = await client.get(path)

            assert response.status == 400, path
            assert said in await response.text()


async def test_a_place_in_a_log_is_a_number(store):
    async with visiting(store) as client:
        for after in ("-2", "x", "1" * 40, "٣", "1.5"):
            response = await client.get(f"/runs/{seeded.run_id('web-1', 'system', 0)}", params={"after": after})

            assert response.status == 400, after


async def test_a_missing_store_is_a_503_that_says_what_to_look_at(tmp_path):
    async with visiting(tmp_path / "store.db") as client:
        page = await client.get("/")
        twin = await client.get("/api/v1/overview")

        assert (page.status, twin.status) == (503, 503)
        assert "the director makes it at its first start" in await page.text()
        assert "cannot read the store" in (await twin.json())["error"]["message"]


async def test_a_store_of_another_version_is_a_503(store):
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()

    async with visiting(store) as client:
        response = await client.get("/clients")

        assert response.status == 503
        assert "newer than this program" in await response.text()


async def test_a_damaged_store_is_a_503(tmp_path):
    path = tmp_path / "store.db"
    path.write_bytes(b"no database at all, whatever its name" * 100)

    async with visiting(path) as client:
        response = await client.get("/")

        assert response.status == 503
        assert "damaged" in await response.text()


async def test_a_store_that_appears_later_is_read_without_a_restart(tmp_path):
    path = tmp_path / "store.db"

    async with visiting(path) as client:
        before = (await client.get("/")).status
        async with await Store.open(path):
            pass
        after = (await client.get("/")).status

    assert (before, after) == (503, 200)


async def test_a_fault_of_ours_is_a_500_that_tells_no_detail(store):
    class Faulty(Reader):
        def overview(self, *, now):
            raise RuntimeError("canary of the inside")

    app = make_app(Faulty(store), now=lambda: seeded.NOW)
    async with serving(app, host="127.0.0.1", port=0) as url, aiohttp.ClientSession() as session:
        response = await session.get(url)

        assert response.status == 500
        assert "canary" not in await response.text()


async def test_a_question_that_takes_too_long_is_given_up(store, monkeypatch):
    monkeypatch.setattr(answering, "ANSWER_SECONDS", 0.0)

    async with visiting(store) as client:
        response = await client.get("/clients")

        assert response.status == 503
        assert "did not answer" in await response.text()


async def test_an_oversized_request_is_cut_off(store):
    async with serving(dashboard(store), host="127.0.0.1", port=0) as url, aiohttp.ClientSession() as session:
        async with session.get(f"{url}/clients?q={'x' * 20_000}") as response:
            assert response.status == 400
        async with session.get(url, headers={"X-Long": "x" * 20_000}) as response:
            assert response.status == 400
        async with session.get(url) as response:
            assert response.status == 200


async def test_a_connection_that_never_finishes_its_request_is_closed(store, monkeypatch):
    monkeypatch.setattr(app_module, "IDLE_SECONDS", 0.05)

    async with serving(dashboard(store), host="127.0.0.1", port=0) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"GET / HT")

        assert await reader.read() == b""
        writer.close()


# --- Life -------------------------------------------------------------------------------------------------------------


async def test_it_lives_without_a_store(tmp_path):
    async with visiting(tmp_path / "none.db") as client:
        response = await client.get("/livez")

        assert (response.status, await response.text()) == (200, "ok\n")


async def test_pages_are_compressed_for_who_can_read_that(store):
    async with visiting(store) as client:
        response = await client.get("/", headers={"Accept-Encoding": "gzip"})

        assert response.headers["Content-Encoding"] == "gzip"
        assert "backups are not protected" in await response.text()


async def test_questions_do_not_hold_up_the_loop_of_the_director(store):
    threads: set[str] = set()

    class Watched(Reader):
        def overview(self, *, now):
            threads.add(threading.current_thread().name.partition("_")[0])
            return super().overview(now=now)

    app = make_app(Watched(store), now=lambda: seeded.NOW)
    async with serving(app, host="127.0.0.1", port=0) as url, aiohttp.ClientSession() as session:
        response = await session.get(url)

        assert response.status == 200

    assert threads == {"dashboard"}


# --- Where it listens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.7", "backups.example"])
async def test_it_does_not_listen_where_others_could_reach_it_when_it_asks_for_no_login(tmp_path, host):
    with pytest.raises(TerminalError) as caught:
        async with serving(dashboard(tmp_path / "store.db"), host=host, port=0):
            pass

    assert "other machines can reach it" in caught.value.message
    assert "127.0.0.1" in caught.value.hint


@pytest.mark.parametrize("access", [Access(asks=True), Access(anywhere=True)])
async def test_with_a_login_or_told_so_it_listens_everywhere(store, access):
    async with serving(dashboard(store, access=access), host="0.0.0.0", port=0) as url:
        assert url.startswith("http://0.0.0.0:")


async def test_an_address_in_use_is_said_in_one_sentence(store):
    async with serving(dashboard(store), host="127.0.0.1", port=0) as url:
        port = int(url.rpartition(":")[2])
        with pytest.raises(TransientError, match="is another dashboard running"):
            async with serving(dashboard(store), host="127.0.0.1", port=port):
                pass


async def test_it_serves_until_it_is_cancelled(store):
    app = dashboard(store)
    task = asyncio.create_task(app_module.serve(app, host="127.0.0.1", port=0))
    while not app.frozen:
        await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
