"""Every page in both widths and both themes: it fits, it works without a mouse, and axe-core finds nothing serious."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

import pytest

from tests.browser.samples import PAGES

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.browser.conftest import Open

AXE = (resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
EVERYTHING = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
WIDTHS = (1440, 390)
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def violations(page: Page, *, only: dict[str, object] | list[str] | None = None) -> list[str]:
    page.evaluate(AXE)
    found = page.evaluate("rules => axe.run(rules)", {"runOnly": only or EVERYTHING, "resultTypes": ["violations"]})[
        "violations"
    ]
    return [
        f"{one['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
        for one in found
        if one["impact"] in {"serious", "critical", "moderate"}
        for node in one["nodes"][:5]
    ]


def violations_of_colours(page: Page) -> list[str]:
    """Return what axe-core says of colours, in which alone the themes differ: tests/web_readonly/test_styles.py."""
    return violations(page, only={"type": "rule", "values": ["color-contrast", "link-in-text-block"]})


@pytest.mark.parametrize("path", PAGES)
def test_a_page_fits_its_window_and_is_accessible(opened: Open, dashboard: str, path: str) -> None:
    page = opened(dashboard + path)

    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme="light", reduced_motion="reduce")
        assert (width, page.evaluate(WIDER)) == (width, 0)
        assert (width, "light", violations(page)) == (width, "light", [])
        page.emulate_media(color_scheme="dark", reduced_motion="reduce")
        assert (width, "dark", violations_of_colours(page)) == (width, "dark", [])


@pytest.mark.parametrize("path", PAGES)
def test_a_page_shows_the_same_without_javascript(opened: Open, dashboard: str, path: str) -> None:
    with_script = opened(dashboard + path)
    without = opened(dashboard + path, script=False)

    assert without.locator("main").inner_text() == with_script.locator("main").inner_text()


@pytest.mark.parametrize("path", PAGES)
def test_every_link_and_control_is_reached_by_the_keyboard_and_seen_when_it_is(
    opened: Open, dashboard: str, path: str
) -> None:
    page = opened(dashboard + path)
    # A bar of a timeline is for the mouse alone: its row leads to the same runs.
    controls = "a[href]:not([tabindex='-1']), button, input, select, summary, [tabindex='0']"
    reachable = page.locator(controls).locator("visible=true").count()

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = 1
    for _ in range(reachable + 5):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            """() => {
                const one = document.activeElement;
                if (one === document.body || one === null) return null;
                const style = getComputedStyle(one);
                const seen = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0;
                return seen ? 'seen' : one.outerHTML.slice(0, 200);
            }"""
        )
        if focused is None:
            break
        assert focused == "seen"
        reached += 1

    assert reached >= reachable


def test_the_skip_link_leads_past_the_navigation(opened: Open, dashboard: str) -> None:
    page = opened(dashboard)

    page.keyboard.press("Tab")
    page.keyboard.press("Enter")

    assert page.evaluate("document.activeElement.id") == "main"


def test_no_link_of_any_page_is_dead(opened: Open, dashboard: str) -> None:
    page = opened(dashboard)
    waiting, seen, dead = list(PAGES), set(PAGES), []
    while waiting:
        path = waiting.pop()
        answer = page.request.get(dashboard + path)
        if answer.status != 200:
            dead.append(f"{path}: {answer.status}")
            continue
        if "text/html" not in answer.headers["content-type"]:
            continue
        links = page.evaluate(
            """html => [...new DOMParser().parseFromString(html, 'text/html').querySelectorAll('a[href], use[href]')]
                .map(one => one.getAttribute('href')).filter(href => href.startsWith('/'))""",
            answer.text(),
        )
        fresh = [one for one in (link.partition("#")[0] for link in links) if one not in seen]
        seen.update(fresh)
        waiting += fresh if len(seen) < 1500 else []

    assert dead == []
    assert len(seen) > len(PAGES)
