"""Badges: true words, harmless pictures, for whom the pages are for."""

from __future__ import annotations

import re
from contextlib import closing
from xml.etree import ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.web_readonly import seeded
from tests.web_readonly.visitor import visiting
from web_readonly import badges
from web_readonly.access import Access
from web_readonly.badges import BAD, GOOD, GREY, WAITING, Badge
from web_readonly.reader import Reader
from web_readonly.reader.numbers import Standing

SVG = "{http://www.w3.org/2000/svg}"


def standing(**numbers: int) -> list[Standing]:
    return [
        Standing(state=name.replace("_", "-"), has_archive=name != "waiting", number=number)
        for name, number in numbers.items()
    ]


def read(picture: bytes) -> ET.Element:
    return ET.fromstring(picture)


# --- What they say ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("standings", "words", "colour"),
    [
        (standing(protected=1), "protected", GOOD),
        (standing(protected=8), "protected", GOOD),
        (standing(unprotected=1), "overdue", BAD),
        ([Standing("unprotected", has_archive=False, number=1)], "no archive", BAD),
        (standing(protected=6, unprotected=2), "overdue on 2 of 8", BAD),
        ([*standing(protected=6), Standing("unprotected", has_archive=False, number=2)], "no archive on 2 of 8", BAD),
        (standing(unknown=1), "unknown", WAITING),
        (standing(protected=3, unknown=1), "unknown on 1 of 4", WAITING),
        (standing(without_objective=2), "no objective", GREY),
        (standing(protected=1, without_objective=1), "no objective on 1 of 2", GREY),
        (standing(protected=1, unprotected=1, unknown=1, without_objective=1), "overdue on 1 of 4", BAD),
    ],
)
def test_the_worst_client_is_what_a_backups_badge_tells(standings, words, colour):
    assert badges.of_backup("web", standings) == Badge("web", words, colour)


def test_a_backup_that_is_not_there_has_no_badge():
    assert badges.of_backup("web", []) is None


@pytest.mark.parametrize(
    ("standings", "words", "colour"),
    [
        (standing(protected=1_234), "all protected", GOOD),
        (standing(protected=37, unprotected=3), "3 of 40 unprotected", BAD),
        (standing(protected=1_000, unknown=234), "1,000 of 1,234 protected", WAITING),
        (standing(without_objective=2), "0 of 2 protected", GREY),
        ([], "none yet", GREY),
    ],
)
def test_one_badge_tells_of_everything(standings, words, colour):
    assert badges.of_all(standings) == Badge("backups", words, colour)


def test_it_says_what_the_pages_say(seeded_store):
    with closing(Reader(seeded_store)) as reader:
        overview = reader.overview(now=seeded.NOW)
        badge = badges.of_all(reader.standings(now=seeded.NOW))

    assert badge.words == f"{overview.unprotected} of {overview.backups} unprotected"


# --- The picture ------------------------------------------------------------------------------------------------------


def test_its_title_says_it_to_who_does_not_see():
    picture = read(badges.draw(Badge("web", "overdue on 2 of 8", BAD)))

    title = picture.find(f"{SVG}title")
    assert title is not None
    assert (title.text, picture.get("role")) == ("web: overdue on 2 of 8", "img")
    assert picture.get("aria-labelledby") == title.get("id")


def test_it_needs_no_style_no_script_and_no_other_document():
    picture = badges.draw(badges.unknown("web")).decode()

    assert not re.search(r"style|script|href|@import|data:|onload", picture)
    assert re.findall(r"https?://[^\"]+", picture) == ["http://www.w3.org/2000/svg"]
    assert set(re.findall(r"url\(([^)]+)\)", picture)) == {f"#{read(picture.encode())[1].get('id')}"}


@given(st.text(max_size=300), st.text(max_size=300))
@example("\x1b" * 70, "\u202e" * 70)
def test_whatever_is_in_a_name_it_is_a_picture_of_that_text(label, words):
    picture = badges.draw(Badge(label, words, GREY))
    root = read(picture)

    assert len(picture) < 6_000
    assert int(root.get("width", "0")) <= 2 * 64 * 11 + 28
    assert {element.tag for element in root.iter()} == {
        SVG + name for name in ("svg", "title", "clipPath", "rect", "g", "text")
    }


def test_markup_in_a_name_stays_text():
    picture = badges.draw(Badge('"><script>alert(1)</script>', "&amp;", GREY))

    assert b"<script" not in picture
    assert [text.text for text in read(picture).iter(f"{SVG}text")] == ['"><script>alert(1)</script>', "&amp;"]


def test_the_text_fits_into_its_box():
    for words in ("protected", "overdue on 2 of 8", "WWWWWWWW", "iiiiiiii", "ünïcödé", "備份"):
        root = read(badges.draw(Badge("web", words, GOOD)))
        (_, box), (_, text) = list(root.iter(f"{SVG}rect"))[1:], list(root.iter(f"{SVG}text"))
        start, width = int(text.get("x", "0")), int(text.get("textLength", "0"))

        assert int(box.get("x", "0")) < start
        assert start + width < int(box.get("x", "0")) + int(box.get("width", "0")) == int(root.get("width", "0"))


@pytest.mark.parametrize("colour", [GOOD, BAD, WAITING, GREY, badges._LEFT])
def test_white_words_can_be_read_on_every_colour(colour):
    def linear(value: int) -> float:
        share = value / 255
        return share / 12.92 if share <= 0.03928 else ((share + 0.055) / 1.055) ** 2.4

    red, green, blue = (linear(int(colour[place : place + 2], 16)) for place in (1, 3, 5))
    assert 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05) >= 4.5


# --- Served -----------------------------------------------------------------------------------------------------------


async def test_it_is_served_for_a_minute_and_to_who_has_it_not_again(seeded_store):
    async with visiting(seeded_store) as client:
        first = await client.get("/badge/web.svg")
        again = await client.get("/badge/web.svg", headers={"If-None-Match": first.headers["ETag"]})

        assert (first.status, first.content_type) == (200, "image/svg+xml")
        assert first.headers["Cache-Control"] == "private, max-age=60"
        assert "web: overdue on 1 of 8" in await first.text()
        assert again.status == 304


async def test_one_client_and_everything_have_badges_too(seeded_store):
    async with visiting(seeded_store) as client:
        assert "web: overdue<" in await (await client.get("/badge/web-3/web.svg")).text()
        assert "web: protected<" in await (await client.get("/badge/web-1/web.svg")).text()
        assert "backups: 3 of 38 unprotected" in await (await client.get("/badge/overview.svg")).text()


async def test_a_backup_that_is_not_there_is_a_grey_badge_that_says_so(seeded_store):
    async with visiting(seeded_store) as client:
        for path in ("/badge/nothing.svg", "/badge/web-1/nothing.svg", "/badge/nobody/web.svg", "/badge/%3Cb%3E.svg"):
            response = await client.get(path)

            assert (response.status, response.content_type) == (404, "image/svg+xml"), path
            assert "unknown backup" in await response.text()


async def test_badges_are_for_whom_the_pages_are_for(seeded_store):
    async with visiting(seeded_store, access=Access(asks=True)) as client:
        response = await client.get("/badge/web.svg")

        assert response.status == 401
        assert "overdue" not in await response.text()


async def test_badges_may_be_for_everybody_and_nothing_else_is(seeded_store):
    async with visiting(seeded_store, access=Access(asks=True, open_badges=True)) as client:
        badge = await client.get("/badge/web.svg")
        page = await client.get("/api/v1/overview")

        assert (badge.status, page.status) == (200, 401)
        assert badge.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
        assert page.headers["Cross-Origin-Resource-Policy"] == "same-origin"


async def test_other_sites_cannot_show_a_badge_that_is_not_open(seeded_store):
    async with visiting(seeded_store) as client:
        response = await client.get("/badge/web.svg")

        assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
