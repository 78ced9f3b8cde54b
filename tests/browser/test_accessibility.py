"""For everybody: by keyboard, with a screen reader, on a phone, in the dark."""

from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.chromium import PHONE
from tests.browser.conftest import OpenPage
from tests.browser.visit import become, give_taste, operator, settle
from tests.end_to_end.service_process import ServiceProcess

STOPS_MAX = 80
Scheme = Literal["light", "dark"]


def findings(page: Page) -> list[str]:
    """What axe calls serious or critical, with the places."""
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {node['html']}"
        for each in found
        if each["impact"] in {"serious", "critical"}
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(
    service: ServiceProcess, open_page: OpenPage, scheme: Scheme
) -> None:
    page = open_page(service.url, color_scheme=scheme)
    become(page, f"in-the-{scheme}")
    assert findings(page) == []
    give_taste(page)
    page.locator(".cover").first.click()
    expect(page.locator(".way").first).to_be_visible()
    assert findings(page) == []
    page.get_by_role("link", name="Its codes and neighbours").click()
    expect(page.locator(".near li").first).to_be_visible()
    expect(page.locator(".place").first).to_be_visible()
    page.get_by_role("button", name="Compare").click()
    expect(page.locator(".verdict")).to_be_visible()
    assert findings(page) == []


def test_the_background_follows_the_system(service: ServiceProcess, open_page: OpenPage) -> None:
    def background(scheme: Scheme) -> str:
        page = open_page(service.url, color_scheme=scheme)
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    assert background("light") == "rgb(248, 246, 241)"
    assert background("dark") == "rgb(20, 19, 17)"


def test_a_phone_never_scrolls_sideways(service: ServiceProcess, open_page: OpenPage) -> None:
    page = open_page(service.url, viewport=PHONE, has_touch=True)

    def overflow() -> int:
        return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))

    become(page, "a visitor with a name that is far too long for a phone of this width")
    assert overflow() <= 0
    for button in ("Switch", "Invent a new visitor"):
        expect(page.get_by_role("button", name=button)).to_be_in_viewport(ratio=1)
    give_taste(page)
    assert findings(page) == []
    assert overflow() <= 0
    page.locator(".cover").first.click()
    expect(page.locator(".way").first).to_be_visible()
    assert overflow() <= 0
    page.get_by_role("link", name="Its codes and neighbours").click()
    expect(page.locator(".near li").first).to_be_visible()
    expect(page.locator(".place").first).to_be_visible()
    page.get_by_role("button", name="Compare").click()
    expect(page.locator(".verdict")).to_be_visible()
    assert overflow() <= 0


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until the focus is there; it must be visible at every stop."""
    for _ in range(STOPS_MAX):
        page.keyboard.press("Tab")
        style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        is_seen = style != "none" or page.evaluate("document.activeElement.matches('.place, body')")
        assert is_seen, page.evaluate("document.activeElement.outerHTML")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"no Tab leads to {selector}")


def test_by_keyboard_alone(service: ServiceProcess, open_page: OpenPage) -> None:
    page = open_page(service.url)
    settle(page)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    tab_to(page, "#visitor-field")
    page.keyboard.type("typist")
    page.keyboard.press("Enter")
    expect(page.locator(".visitor h1")).to_have_text("typist")
    tab_to(page, "#taste")
    page.keyboard.press("Enter")
    expect(page.locator(".events li")).to_have_count(3)
    settle(page)
    tab_to(page, ".card [data-type=cart]")
    page.keyboard.press("Enter")
    expect(page.locator(".events li")).to_have_count(4)
    settle(page)
    expect(page.locator(".card [data-type=cart]:focus")).to_have_count(1)
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    operator(page)
    tab_to(page, ".place")
    page.keyboard.press("Enter")
    expect(page.locator(".tree .crumbs li")).to_have_count(2)
    expect(page.locator(".place:focus")).to_have_count(1)


def test_changes_are_told_to_those_who_do_not_see_them(
    service: ServiceProcess, open_page: OpenPage
) -> None:
    page = open_page(service.url)
    become(page, "listener")
    give_taste(page)
    live = page.locator("#toasts")
    expect(live).to_have_attribute("aria-live", "polite")
    page.get_by_role("button", name="View:").first.click()
    expect(live).to_contain_text("List updated")
