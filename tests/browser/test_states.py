"""Pages in states that the ordinary morning does not have: stalled, empty, matching nothing, full of hostile names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from reconciler.store import Store
from tests.browser.conftest import dashboard_of, run_beside
from tests.browser.test_pages import WIDER, violations
from tests.web_readonly import hostile, seeded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.browser.conftest import Open


async def make_empty(path: Path) -> None:
    async with await Store.open(path):
        pass


@pytest.fixture(scope="module")
def hostile_dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("hostile") / "store.db"
    run_beside(hostile.seed(path))
    with dashboard_of(path) as url:
        yield url


@pytest.fixture(scope="module")
def empty_dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("empty") / "store.db"
    run_beside(make_empty(path))
    with dashboard_of(path) as url:
        yield url


@pytest.mark.parametrize(
    "path",
    [
        "/clients/build-1",
        "/clients/app-2",
        "/clients?q=zz&label=role%3Dweb&state=drifted",
        f"/source/{seeded.REVISIONS[6]}",
        f"/runs/{seeded.run_id('web-3', 'web', 0)}?q=lock",
        "/events?reason=Healed",
        "/events?client=nobody",
    ],
)
def test_what_is_behind_refused_stalled_or_not_there_fits_and_is_accessible(
    opened: Open, dashboard: str, path: str
) -> None:
    page = opened(dashboard + path)
    assert page.evaluate(WIDER) == 0
    assert violations(page) == []

    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    assert page.evaluate(WIDER) == 0
    assert violations(page) == []


@pytest.mark.parametrize("path", ["/clients", "/source", "/runs", "/events", "/about", "/archives"])
def test_what_is_empty_fits_and_is_accessible(opened: Open, empty_dashboard: str, path):
    page = opened(empty_dashboard + path, width=390)

    assert page.evaluate(WIDER) == 0
    assert violations(page) == []


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/clients",
        "/clients/web-1",
        "/source",
        f"/source/{hostile.REVISION}",
        f"/runs/{hostile.ENDED}",
        f"/runs/{hostile.RUN}",
        "/events",
        "/about",
        "/archives",
        "/backups/web-1/web",
        "/repositories/nas",
    ],
)
def test_what_strangers_say_breaks_no_page(opened: Open, hostile_dashboard: str, path):
    page = opened(hostile_dashboard + path, width=390)

    assert page.evaluate(WIDER) == 0
    assert page.locator("main img, main script").count() == 0
