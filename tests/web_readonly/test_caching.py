"""Answers that are kept: for how long, for whom, and what the browser is told."""

from __future__ import annotations

import asyncio
import gzip
import threading
from datetime import timedelta

import pytest
from aiohttp.test_utils import TestClient, TestServer

from reconciler.store import Store
from schema.status import SourceStatus
from tests.web_readonly import seeded
from tests.web_readonly.visitor import visiting
from web_readonly import caching
from web_readonly.app import make_app
from web_readonly.asking import Asked
from web_readonly.caching import Cache, make_body
from web_readonly.reader import Reader

NOW = seeded.NOW


class Maker:
    """Makes a new answer each time it is asked."""

    def __init__(self, size: int = 0) -> None:
        self.made = 0
        self.size = size
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def make(self):
        self.made += 1
        text = f"answer {self.made} ".ljust(self.size)
        await self.go_on.wait()
        return make_body(text.encode())


def asked(*, after=timedelta(0), **query: str) -> Asked:
    return Asked(now=NOW + after, query={name: (value,) for name, value in query.items()})


# --- What is kept -----------------------------------------------------------------------------------------------------


async def test_one_question_is_answered_once_while_nothing_is_written():
    maker, cache = Maker(), Cache(lambda: "1")

    bodies = [await cache.get("page", asked(), maker.make) for _ in range(3)]

    assert [body.content for body in bodies] == [b"answer 1 "] * 3


async def test_after_a_write_it_is_answered_anew():
    versions = iter("122")
    maker, cache = Maker(), Cache(lambda: next(versions))

    bodies = [await cache.get("page", asked(), maker.make) for _ in range(3)]

    assert [body.content for body in bodies] == [b"answer 1 ", b"answer 2 ", b"answer 2 "]


async def test_it_holds_for_a_second_because_pages_say_how_long_ago_things_were():
    maker, cache = Maker(), Cache(lambda: "1")

    for after in (0.0, 0.9, 1.1, 1.2, -5.0):
        await cache.get("page", asked(after=timedelta(seconds=after)), maker.make)

    assert maker.made == 3


async def test_another_page_filter_or_form_has_an_answer_of_its_own():
    maker, cache = Maker(), Cache(lambda: "1")

    await cache.get("text/html /clients", asked(), maker.make)
    await cache.get("application/json /clients", asked(), maker.make)
    await cache.get("text/html /clients", asked(q="web"), maker.make)
    await cache.get("text/html /clients", Asked(now=NOW, path={"client": "web-1"}), maker.make)

    assert maker.made == 4


async def test_without_a_store_nothing_is_kept():
    maker, cache = Maker(), Cache(lambda: "")

    for _ in range(2):
        await cache.get("page", asked(), maker.make)

    assert maker.made == 2


async def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(caching, "MAX_KEPT", 2)
    maker, cache = Maker(), Cache(lambda: "1")

    for name in ("a", "b", "c", "c", "b", "a"):
        await cache.get(name, asked(), maker.make)

    assert maker.made == 4


async def test_an_answer_that_is_too_large_is_given_and_not_kept(monkeypatch):
    monkeypatch.setattr(caching, "MAX_BYTES", 100)
    maker, cache = Maker(size=101), Cache(lambda: "1")

    bodies = [await cache.get("page", asked(), maker.make) for _ in range(2)]

    assert [len(body.content) for body in bodies] == [101, 101]
    assert maker.made == 2


# --- Many at once -----------------------------------------------------------------------------------------------------


async def test_two_hundred_who_ask_at_once_get_one_rendering():
    maker, cache = Maker(), Cache(lambda: "1")
    maker.go_on.clear()
    viewers = [asyncio.create_task(cache.get("page", asked(), maker.make)) for _ in range(200)]
    while not maker.made:
        await asyncio.sleep(0)
    maker.go_on.set()

    assert {(await viewer).content for viewer in viewers} == {b"answer 1 "}


async def test_who_comes_after_a_write_does_not_get_what_was_begun_before_it():
    versions = iter("12")
    maker, cache = Maker(), Cache(lambda: next(versions))
    maker.go_on.clear()
    before = asyncio.create_task(cache.get("page", asked(), maker.make))
    while maker.made < 1:
        await asyncio.sleep(0)
    after = asyncio.create_task(cache.get("page", asked(), maker.make))
    while maker.made < 2:
        await asyncio.sleep(0)
    maker.go_on.set()

    assert ((await before).content, (await after).content) == (b"answer 1 ", b"answer 2 ")


async def test_one_viewer_who_goes_away_ends_it_for_no_other():
    maker, cache = Maker(), Cache(lambda: "1")
    maker.go_on.clear()
    first, second = (asyncio.create_task(cache.get("page", asked(), maker.make)) for _ in range(2))
    while not maker.made:
        await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    maker.go_on.set()

    assert (await second).content == b"answer 1 "


async def test_a_fault_is_not_kept():
    maker, cache = Maker(), Cache(lambda: "1")

    async def fail():
        raise ValueError("not today")

    with pytest.raises(ValueError, match="not today"):
        await cache.get("page", asked(), fail)

    assert (await cache.get("page", asked(), maker.make)).content == b"answer 1 "


# --- As browsers see it -----------------------------------------------------------------------------------------------


async def test_who_has_the_newest_answer_is_told_so_without_it(store):
    async with visiting(store) as client:
        for path in ("/", "/clients?state=drifted", "/api/v1/overview", "/api/v1/runs"):
            first = await client.get(path)
            again = await client.get(path, headers={"If-None-Match": first.headers["ETag"]})

            assert (first.status, again.status, await again.read()) == (200, 304, b""), path
            for name in ("ETag", "Cache-Control", "Vary", "Content-Security-Policy"):
                assert again.headers[name] == first.headers[name], (path, name)


async def test_a_tag_of_other_bytes_gets_the_answer(store):
    async with visiting(store) as client:
        other = (await client.get("/clients")).headers["ETag"]
        response = await client.get("/runs", headers={"If-None-Match": f'{other}, "nonsense", W/"weak"'})

        assert response.status == 200


async def test_compressed_bytes_have_a_tag_of_their_own_and_either_is_known(store):
    async with visiting(store) as client:
        packed = await client.get("/", headers={"Accept-Encoding": "gzip, br"})
        plain = await client.get("/", headers={"Accept-Encoding": "identity"})
        known = await client.get("/", headers={"Accept-Encoding": "gzip", "If-None-Match": plain.headers["ETag"]})

        assert (packed.headers["Content-Encoding"], plain.headers.get("Content-Encoding")) == ("gzip", None)
        assert packed.headers["ETag"] != plain.headers["ETag"]
        assert await packed.read() == await plain.read()
        assert known.status == 304


async def test_an_answer_says_of_which_store_it_tells_as_the_stream_does(store):
    async with visiting(store) as client:
        async with client.get("/live") as stream:
            lines = [await stream.content.readline() for _ in range(3)]
        answer = await client.get("/clients")
        again = await client.get("/clients", headers={"If-None-Match": answer.headers["ETag"]})

    version = lines[2].decode().removeprefix("id: ").strip()
    for response in (answer, again):
        assert response.headers["Server-Timing"].startswith(f'store;desc="{version}";dur=')


async def test_a_write_of_the_director_is_seen_at_once(store):
    async with visiting(store) as client, await Store.open(store) as director:
        before = await (await client.get("/api/v1/source")).json()
        await director.set_source(SourceStatus(url="https://example.org/new.git", branch="main"))
        after = await (await client.get("/api/v1/source")).json()

    assert before["url"] != after["url"]
    assert after["url"] == "https://example.org/new.git"


async def test_what_goes_wrong_is_kept_by_nobody(store):
    async with visiting(store) as client:
        for path in ("/nope", "/clients/nobody", "/api/v1/clients?x=1"):
            response = await client.get(path)

            assert response.headers["Cache-Control"] == "no-store", path
            assert "ETag" not in response.headers


async def test_a_page_that_many_ask_for_is_rendered_once(store):
    entered, go_on, asked_for = threading.Event(), threading.Event(), []

    class Slow(Reader):
        def overview(self, *, now):
            asked_for.append(now)
            entered.set()
            go_on.wait(10)
            return super().overview(now=now)

    app = make_app(Slow(store), now=lambda: NOW)
    async with TestClient(TestServer(app, host="127.0.0.1")) as client:
        first = asyncio.create_task(client.get("/"))
        await asyncio.to_thread(entered.wait, 10)
        others = [asyncio.create_task(client.get("/")) for _ in range(20)]
        go_on.set()
        answers = [await (await one).read() for one in (first, *others)]

    assert len(asked_for) == 1
    assert len(set(answers)) == 1


def test_packed_bytes_are_the_same_each_time_and_short_ones_are_left():
    body = make_body(b"x" * 2_000)

    assert gzip.decompress(body.packed) == body.content
    assert make_body(b"x" * 2_000) == body
    assert make_body(b"x").packed == b""
