"""A person who keeps the dashboard open sees it all happen, on one page that is never loaded again.

The director, the client, Git, borgmatic and Borg are the real programs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.e2e.fleet import Fleet, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.browser.conftest import Open

SOON = 30_000
"""Milliseconds."""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path, pages=True) as fleet:
        fleet.start_director()
        until("the dashboard is served", lambda: "serving" in fleet.log("director"))
        yield fleet


def mark(page: Page) -> None:
    """Leave a mark that a reload would wipe out."""
    page.evaluate("window.neverLoadedAgain = true")


def was_never_loaded_again(page: Page) -> bool:
    return bool(page.evaluate("window.neverLoadedAgain === true"))


@pytest.mark.timeout(300)
def test_from_an_empty_house_to_a_healed_drift(fleet: Fleet, opened: Open) -> None:
    overview = opened(fleet.dashboard)
    mark(overview)
    expect(overview.locator("main")).to_contain_text("director token create")

    fleet.add_machine("atlas")
    fleet.enrol("atlas")
    expect(overview.locator("main")).to_contain_text("asks to be let in", timeout=SOON)

    (fleet.folder / "atlas/source/large").write_bytes(os.urandom(24_000_000))
    fleet.approve_in_source("atlas")
    fleet.write_backup("photos", "atlas", compression="lzma,6")
    fleet.push("Back up the photos")
    until("atlas follows", lambda: fleet.follows("atlas"))
    expect(overview.locator("main")).to_contain_text(re.compile("current"), timeout=SOON)

    with ThreadPoolExecutor(1) as thread:
        once = thread.submit(fleet.client, "atlas", "once", "photos")
        overview.locator("a[href^='/runs/']").first.click(timeout=SOON)
        run = overview
        mark(run)
        expect(run.locator("progress, [role=progressbar]").first).to_be_visible(timeout=SOON)
        expect(run.locator("h1 ~ .state, .head .state").first).to_contain_text("succeeded", timeout=120_000)
        assert was_never_loaded_again(run)
        once.result(60)

    client = opened(fleet.dashboard + "/clients/atlas")
    mark(client)
    with (fleet.folder / "atlas/etc/photos.yaml").open("a") as file:
        file.write("# by hand\n")
    expect(client.locator("main")).to_contain_text("by hand", timeout=60_000)
    expect(client.locator("main")).to_contain_text("healed", timeout=60_000)
    assert was_never_loaded_again(client)
    assert "by hand" not in fleet.managed("atlas")["photos.yaml"].decode()

    events = opened(fleet.dashboard + "/events?reason=Healed")
    events.locator("summary").first.click()
    expect(events.locator("main")).to_contain_text("+# by hand")
