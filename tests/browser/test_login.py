"""A person at the login: in a real browser, without JavaScript too, and through a link of another site."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.conftest import dashboard_of
from tests.browser.test_pages import violations
from tests.web_readonly.test_access import ASKS, SECRET, TOKEN, VIEWERS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

ELSEWHERE = "http://elsewhere.test/"


@pytest.fixture(scope="module")
def closed(seeded_store: Path) -> Iterator[str]:
    """The URL of a dashboard that asks who comes."""
    with dashboard_of(seeded_store, access=ASKS, viewers=lambda: VIEWERS) as url:
        yield url


@pytest.fixture
def page(browser: Browser, request: Any) -> Iterator[Page]:
    script = getattr(request, "param", True)
    context = browser.new_context(java_script_enabled=script)
    context.set_default_timeout(15_000)
    yield context.new_page()
    context.close()


def log_in(page: Page, *, secret: str, user: str = "") -> None:
    page.get_by_label("User").fill(user)
    page.get_by_label("Password, or viewer token").fill(secret)
    page.get_by_role("button", name="Log in").click()


@pytest.mark.parametrize("page", [True, False], indirect=True, ids=["script", "no script"])
def test_a_person_logs_in_where_they_wanted_to_go_and_out_again(page, closed):
    page.goto(f"{closed}/clients?q=web")
    log_in(page, user="ann", secret="not this one")
    assert page.get_by_role("alert").inner_text() == "That is not right."
    log_in(page, user="ann", secret=SECRET)
    assert page.url == f"{closed}/clients?q=web"
    assert "web-1" in page.inner_text("main")

    page.get_by_role("link", name="Log out").click()
    page.get_by_role("button", name="Log out").click()
    page.goto(f"{closed}/clients")
    assert page.inner_text("h1") == "Log in"


def test_a_token_needs_no_user_and_a_keyboard_is_enough(page, closed):
    page.goto(closed)
    for _ in range(3):  # past the way home and the user
        page.keyboard.press("Tab")
    page.keyboard.type(TOKEN)
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Log out").wait_for()

    cookies = page.context.cookies()
    assert [(one["name"], one["httpOnly"], one["sameSite"]) for one in cookies] == [("director", True, "Strict")]


def test_a_link_of_another_site_leads_to_the_page_and_not_to_the_login(page, closed):
    page.goto(closed)
    log_in(page, secret=TOKEN)
    page.get_by_role("link", name="Log out").wait_for()
    page.route(
        ELSEWHERE, lambda route: route.fulfill(body=f'<a href="{closed}/clients">look</a>', content_type="text/html")
    )
    page.goto(ELSEWHERE)
    page.get_by_role("link", name="look").click()
    page.get_by_role("link", name="Log out").wait_for()

    assert page.url == f"{closed}/clients"


def test_another_site_cannot_log_a_person_in_or_out(page, closed):
    page.goto(closed)
    log_in(page, secret=TOKEN)
    page.get_by_role("link", name="Log out").wait_for()
    form = f'<form method="post" action="{closed}/login"><input name="logout" value="yes"><button>go</button></form>'
    page.route(ELSEWHERE, lambda route: route.fulfill(body=form, content_type="text/html"))
    page.goto(ELSEWHERE)
    page.get_by_role("button", name="go").click()
    page.get_by_text("another site sent this form").wait_for()
    page.goto(f"{closed}/clients")

    assert "web-1" in page.inner_text("main")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_at_the_login(browser, closed, theme):
    context = browser.new_context(color_scheme=theme, viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(closed)
    log_in(page, user="ann", secret="not this one either")
    found = violations(page)
    context.close()

    assert found == []
