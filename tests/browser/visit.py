"""What people do in the console, in their words."""

from playwright.sync_api import Page, expect

GENERATED = ".badge[data-source=generated]"


def become(page: Page, name: str) -> None:
    """Shop as this visitor."""
    page.locator("#visitor-field").fill(name)
    page.get_by_role("button", name="Switch").click()
    expect(page.locator(".visitor h1")).to_have_text(name)
    settle(page)


def settle(page: Page) -> None:
    """Wait until the list is there and up to date."""
    expect(page.locator(".list")).to_have_attribute("aria-busy", "false")
    expect(page.locator(".card").first).to_be_visible()


def give_taste(page: Page) -> None:
    """Let a new visitor look at a few items."""
    page.get_by_role("button", name="Give them a taste").click()
    expect(page.locator(".events li")).to_have_count(3)
    expect(page.locator(GENERATED).first).to_be_visible()
    settle(page)


def shown(page: Page) -> list[str]:
    """The item ids of the cards, best first."""
    ids = page.locator(".card").evaluate_all("cards => cards.map(card => card.dataset.item)")
    return [str(each) for each in ids]


def operator(page: Page) -> None:
    """Go to the operator's page and wait for its panels."""
    page.get_by_role("link", name="Operator").click()
    expect(page.locator(".live table")).to_be_visible()
    expect(page.locator(".place").first).to_be_visible()
