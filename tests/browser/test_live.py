"""Pages that are kept open: they show what changes, and disturb nobody who reads, types or looks elsewhere.

``test_story`` has the real client; here the store is written directly, so that each moment can be looked at.
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from reconciler.store import Store
from schema.observed import LogLine, Outcome, RunFinished, RunLog, RunProgress, RunStarted, Trigger
from tests.browser.conftest import dashboard_of, run_beside
from tests.web_readonly import seeded
from web_readonly import formats, live

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.browser.conftest import Open

Write = Callable[[Callable[[Store], Coroutine[Any, Any, Any]]], None]

RUN = seeded.run_id("db-2", "postgresql", "now")
STANDS = "window.stillTheSame === true"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(live, "LOOK_SECONDS", 0.05)
    # A busy machine is asked less often by its pages.
    expect.set_options(timeout=30_000)
    yield
    expect.set_options(timeout=5_000)


@pytest.fixture(scope="module")
def fresh_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fresh") / "store.db"
    run_beside(seeded.seed(path, now=datetime.now(UTC)))
    return path


@pytest.fixture
def store(fresh_store: Path, tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    shutil.copy(fresh_store, path)
    return path


@pytest.fixture
def url(store: Path) -> Iterator[str]:
    with dashboard_of(store, now=lambda: datetime.now(UTC)) as url:
        yield url


@pytest.fixture
def write(store: Path) -> Write:
    def write(work: Callable[[Store], Coroutine[Any, Any, Any]]) -> None:
        async def once() -> None:
            async with await Store.open(store) as director:
                await work(director)

        run_beside(once())

    return write


def reported(*reports: Any) -> Callable[[Store], Coroutine[Any, Any, Any]]:
    """Return the work of storing what ``db-2`` reports, each time from an outbox of its own."""
    epoch = secrets.token_hex(16)

    async def work(store: Store) -> None:
        items = list(enumerate(reports, 1))
        now = datetime.now(UTC)
        key = seeded.public_key("db-2")
        await store.ingest(client="db-2", public_key=key, epoch=epoch, items=items, through=len(items), received=now)

    return work


def left(client: str) -> Callable[[Store], Coroutine[Any, Any, Any]]:
    return lambda store: store.disconnected(client=client, public_key=seeded.public_key(client), now=datetime.now(UTC))


def lines(first: int, number: int) -> RunLog:
    now = datetime.now(UTC)
    texts = (LogLine(at=now, level="info", message=f"line {first + one}") for one in range(number))
    return RunLog(run=RUN, first=first, lines=tuple(texts))


def row(page: Page, client: str) -> Any:
    return page.locator("tbody tr", has=page.locator(f"a[href='/clients/{client}']"))


def at_end(page: Page) -> bool:
    return bool(
        page.evaluate("(b => b.scrollHeight - b.scrollTop - b.clientHeight < 8)(document.querySelector('.log'))")
    )


# --- A run ------------------------------------------------------------------------------------------------------------


def test_a_running_run_is_watched_to_its_end_without_loading_the_page_again(
    url: str, opened: Open, write: Write
) -> None:
    page = opened(f"{url}/runs/{RUN}")
    page.evaluate("window.stillTheSame = true")
    progress = RunProgress(at=datetime.now(UTC), run=RUN, backup="postgresql", files=7_654_321, percent=81)
    progress = progress.model_copy(update={"phase": "create", "original_size": 50 * 10**9})
    write(lambda store: store.progress(client="db-2", progress=progress))

    expect(page.locator(".progress")).to_contain_text("7,654,321")
    expect(page.locator("progress")).to_have_attribute("value", "81.0")

    ended = RunFinished(at=datetime.now(UTC), run=RUN, backup="postgresql", outcome=Outcome.WARNED, log_lines=6)
    write(reported(lines(5, 1), ended))

    expect(page.locator(".head .state")).to_have_text("warned")
    expect(page.locator("progress")).to_have_count(0)
    expect(page.locator("#L6")).to_contain_text("line 5")
    expect(page.locator("#voice")).to_contain_text("warned")
    expect(page).to_have_title(re.compile("postgresql on db-2: warned"))
    assert page.evaluate(STANDS)


def test_a_log_is_followed_until_somebody_reads_further_up(url: str, opened: Open, write: Write) -> None:
    write(reported(lines(5, 200)))
    page = opened(f"{url}/runs/{RUN}")
    log = page.locator(".log")
    assert at_end(page)

    write(reported(lines(205, 50)))
    expect(log).to_contain_text("line 254")
    assert at_end(page)

    log.evaluate("box => box.scrollTop = 200")
    write(reported(lines(255, 50)))
    expect(page.locator("section:has(> header #log)")).to_contain_text("305 lines")
    assert log.evaluate("box => box.scrollTop") == 200
    expect(log).not_to_contain_text("line 304")

    log.evaluate("box => box.scrollTop = box.scrollHeight")
    expect(log).to_contain_text("line 304")
    assert at_end(page)


# --- What belongs to people -------------------------------------------------------------------------------------------


def test_what_people_do_on_a_page_is_left_alone_when_it_changes(url: str, opened: Open, write: Write) -> None:
    page = opened(f"{url}/clients")
    expect(row(page, "app-1")).to_contain_text("connected")
    page.locator("main details").first.evaluate("part => part.open = true")
    page.get_by_label("Name").fill("half a na")
    page.evaluate("scrollTo(0, 300)")
    page.evaluate(
        """() => {
            const name = [...document.querySelectorAll("tbody a")].find((one) => one.textContent === "app-3");
            name.kept = true;
            getSelection().selectAllChildren(name);
        }"""
    )
    page.get_by_label("Label").focus(timeout=5_000)
    selected = page.evaluate("getSelection().toString()")

    write(left("app-1"))
    expect(row(page, "app-1")).not_to_contain_text(re.compile(r"^\s*app-1\s*connected"))

    assert page.evaluate("scrollY") == 300
    assert page.get_by_label("Name").input_value() == "half a na"
    assert page.locator("main details").first.evaluate("part => part.open")
    assert page.evaluate("document.activeElement.name") == "label"
    assert page.evaluate("getSelection().toString()") == selected
    assert row(page, "app-3").locator("a").first.evaluate("link => link.kept")


def test_filters_stay_and_rows_come_and_go(url: str, opened: Open, write: Write) -> None:
    page = opened(f"{url}/clients?state=connected")
    expect(row(page, "app-1")).to_have_count(1)
    row(page, "app-2").evaluate("row => row.kept = true")

    write(left("app-1"))

    expect(row(page, "app-1")).to_have_count(0)
    assert row(page, "app-2").evaluate("row => row.kept")
    assert page.url.endswith("/clients?state=connected")


def test_a_new_row_moves_no_other(url: str, opened: Open, write: Write) -> None:
    page = opened(f"{url}/runs")
    first = page.locator("tbody tr").first
    before = first.locator("a").evaluate_all("links => links.map((one) => one.getAttribute('href')).join(' ')")
    first.evaluate("row => row.kept = true")
    first.locator("a").last.focus()

    started = RunStarted(at=datetime.now(UTC), run="e" * 32, backup="system", trigger=Trigger.PERSON)
    write(reported(started))

    expect(page.locator(f"tbody a[href='/runs/{'e' * 32}']")).to_have_count(1)
    # Which row it became depends on the time of day: the sample's runs start at night.
    second = page.locator("tbody tr", has=page.locator(f"a[href='{before.split()[-1]}']"))
    assert second.evaluate("row => row.kept === true && row.contains(document.activeElement)")
    after = second.locator("a").evaluate_all("links => links.map((one) => one.getAttribute('href')).join(' ')")
    assert after == before


# --- Live, paused, hidden, offline ------------------------------------------------------------------------------------


def test_a_person_can_pause_a_tab_and_it_stays_paused(url: str, opened: Open, write: Write) -> None:
    page = opened(f"{url}/clients")
    mark = page.locator("#live")
    expect(mark).to_contain_text("Live")
    mark.click()
    expect(mark).to_contain_text("Paused")
    page.reload()
    expect(mark).to_contain_text("Paused")
    write(left("app-1"))

    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(1_500)
    assert asked == []
    expect(row(page, "app-1")).to_contain_text("connected")

    mark.press("Enter")
    expect(row(page, "app-1")).not_to_contain_text(re.compile(r"^\s*app-1\s*connected"))
    expect(mark).to_contain_text("Live")


def test_a_hidden_tab_asks_nothing_and_looks_once_when_it_is_shown(url: str, opened: Open, write: Write) -> None:
    page = opened(f"{url}/clients?state=connected")
    expect(page.locator("#live")).to_contain_text("Live")
    hide = """(hidden) => {
        Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(hide, True)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    write(left("app-1"))
    page.wait_for_timeout(1_500)
    assert asked == []

    page.evaluate(hide, False)
    expect(row(page, "app-1")).to_have_count(0)
    assert [one for one in asked if "/clients" in one] == [f"{url}/clients?state=connected"]


def test_a_director_that_does_not_answer_is_said_with_the_time_of_what_is_shown(store: Path, browser: Browser) -> None:
    context = browser.new_context()
    page = context.new_page()
    with dashboard_of(store, now=lambda: datetime.now(UTC)) as url:
        page.goto(f"{url}/clients")
        expect(page.locator("#live")).to_contain_text("Live")
        context.route("**/*", lambda route: route.abort())
    expect(page.locator("#stale")).to_have_text(
        re.compile(r"The director does not answer\. You see what was there at \d\d:\d\d:\d\d UTC"), timeout=20_000
    )
    expect(page.locator("#live")).to_contain_text("Offline")
    assert "warn" in (page.locator("#live").get_attribute("class") or "")
    expect(row(page, "app-1")).to_have_count(1)
    context.close()


def test_a_page_that_could_not_be_made_becomes_what_was_asked_for(tmp_path: Path, browser: Browser) -> None:
    path = tmp_path / "later.db"

    async def start() -> None:
        async with await Store.open(path):
            pass

    context = browser.new_context()
    page = context.new_page()
    with dashboard_of(path, now=lambda: datetime.now(UTC)) as url:
        page.goto(url)
        expect(page.locator("main")).to_contain_text("503")
        page.evaluate("window.stillTheSame = true")
        run_beside(start())
        expect(page.locator("main")).to_contain_text("director token create")
        assert page.evaluate(STANDS)
        expect(page.locator("#stale")).to_be_hidden()
    context.close()


def test_without_javascript_there_is_nothing_to_pause_and_a_running_run_renews_itself(url: str, opened: Open) -> None:
    page = opened(f"{url}/runs/{RUN}?pause=yes", script=False)

    expect(page.locator("#live")).to_be_hidden()
    # Chromium with its scripts turned off by a driver still reads <noscript> as if they were on.
    assert "paused · <a" in page.content()
    expect(page.locator(".log li")).to_have_count(5)


# --- Time passes ------------------------------------------------------------------------------------------------------


def test_times_go_on_as_the_director_says_them(url: str, opened: Open) -> None:
    page = opened(f"{url}/clients")
    now = datetime.now(UTC).replace(microsecond=0)
    ages = (0, 4, 6, 59, 61, 89, 3_599, 3_601, 86_399, 200_000, 40_000_000, -3, -61, -7_300)
    moments = [now - timedelta(seconds=age) for age in ages]
    page.evaluate(
        """(moments) => {
            for (const moment of moments) {
                const time = document.createElement("time");
                time.className = "added";
                time.dateTime = moment;
                time.textContent = "just now";
                document.getElementById("main").append(time);
            }
        }""",
        [formats.machine(moment) for moment in moments],
    )
    expect(page.locator("time.added").last).to_have_text("in 2 h", timeout=10_000)

    said = page.locator("time.added").all_inner_texts()
    at = [{formats.relative(moment, now + timedelta(seconds=late)) for late in range(12)} for moment in moments]
    assert [text in allowed for text, allowed in zip(said, at, strict=True)] == [True] * len(ages)
