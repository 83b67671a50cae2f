"""A real Chromium at a real dashboard. What a page does wrong by itself (errors, foreign requests) fails its test."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from playwright.sync_api import sync_playwright

from tests.web_readonly import seeded
from tools.look import FLAGS
from web_readonly.app import make_app, serving
from web_readonly.reader import Reader

if TYPE_CHECKING:
    from datetime import datetime

    from playwright.sync_api import Browser, ConsoleMessage, Page, Request

Theme = Literal["light", "dark"]
Open = Callable[..., "Page"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, as the set-up installs it; its absence is a failure and no reason to skip.

    While it is there, Playwright's loop runs in this thread, where asynchronous tests want theirs: so it ends with the
    module.
    """
    program = shutil.which("chromium")
    assert program is not None, "there is no chromium; run: tools/system-packages chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def seeded_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("seeded") / "store.db"
    run_beside(seeded.seed(path))
    return path


@pytest.fixture(scope="session")
def dashboard(seeded_store: Path) -> Iterator[str]:
    """The URL of a dashboard of the seeded store, where it is always the same morning."""
    with dashboard_of(seeded_store) as url:
        yield url


@pytest.fixture
def opened(browser: Browser) -> Iterator[Open]:
    """``opened(url, width=1440, theme="light", script=True)`` → the page. What went wrong in it fails the test."""
    contexts, wrong = [], []

    def open_page(url: str, *, width: int = 1440, theme: Theme = "light", script: bool = True, **options: Any) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900 if width > 600 else 844},
            color_scheme=theme,
            java_script_enabled=script,
            reduced_motion="reduce",
            **options,
        )
        contexts.append(context)
        context.set_default_timeout(15_000)
        page = context.new_page()

        def said(message: ConsoleMessage) -> None:
            if message.type in {"error", "warning"}:
                wrong.append(f"{url}: console: {message.text}")

        def asked(request: Request) -> None:
            if not _same_origin(request.url, url):
                wrong.append(f"{url} asked for {request.url}")

        page.on("console", said)
        page.on("pageerror", lambda error: wrong.append(f"{url}: {error}"))
        page.on("request", asked)
        page.goto(url, wait_until="load")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def _same_origin(asked: str, url: str) -> bool:
    parts = urlsplit(asked)
    return parts.scheme in {"data", "blob"} or parts.netloc == urlsplit(url).netloc


@contextmanager
def dashboard_of(store: Path, *, now: Callable[[], datetime] = lambda: seeded.NOW, **options: Any) -> Iterator[str]:
    """Serve a store from a thread with a loop of its own, as the browser's tests have none."""
    loop = asyncio.new_event_loop()
    ready: threading.Event = threading.Event()
    stop = asyncio.Event()
    found: list[str] = []

    async def serve() -> None:
        reader = Reader(store)
        try:
            app: web.Application = make_app(reader, now=now, **options)
            async with serving(app, host="127.0.0.1", port=0) as url:
                found.append(url)
                ready.set()
                await stop.wait()
        finally:
            reader.close()

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        finally:
            ready.set()
            loop.close()

    thread = threading.Thread(target=run, name="dashboard")
    thread.start()
    try:
        assert ready.wait(30)
        assert found, "the dashboard did not start"
        yield found[0]
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)
        thread.join(30)


def run_beside(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine beside Playwright, whose own loop runs in this thread."""
    with ThreadPoolExecutor(1) as threads:
        threads.submit(asyncio.run, work).result(110)
