"""Takes the pictures of docs/console.md: python -m tests.browser.screenshots BUNDLE FOLDER."""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests.browser.chromium import DESKTOP, PATIENCE_MS, PHONE, running_chromium
from tests.browser.visit import become, operator, settle
from tests.end_to_end.service_process import ServiceProcess, post_event, recommend, running_service

BYTES_MAX = 200_000


@dataclass(frozen=True)
class Picture:
    """One picture: what is looked at, how, and on what."""

    name: str
    scheme: Literal["light", "dark"]
    viewport: ViewportSize


PICTURES = (
    Picture("shop-light", "light", DESKTOP),
    Picture("shop-dark", "dark", DESKTOP),
    Picture("operator-light", "light", DESKTOP),
    Picture("operator-dark", "dark", DESKTOP),
    Picture("phone-light", "light", PHONE),
    Picture("phone-dark", "dark", PHONE),
)


def main() -> None:
    """Take all pictures of the bundle that the command line names."""
    bundle, folder = Path(sys.argv[1]), Path(sys.argv[2])
    with (
        tempfile.TemporaryDirectory() as lines,
        running_service(bundle, Path(lines), deadline_ms=60_000) as service,
        running_chromium() as browser,
    ):
        look_around(service, "Mira")
        for picture in PICTURES:
            path = folder / f"console-{picture.name}.png"
            take(browser, service, picture, path)
            shrink(path)
            size = path.stat().st_size
            if size > BYTES_MAX:
                sys.exit(f"{path} has {size} bytes, more than {BYTES_MAX}: show less")


def shrink(path: Path) -> None:
    """Keep 256 colours, which nobody misses."""
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def take(browser: Browser, service: ServiceProcess, picture: Picture, path: Path) -> None:
    """Take one picture."""
    context = browser.new_context(
        viewport=picture.viewport, color_scheme=picture.scheme, reduced_motion="reduce"
    )
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto(service.url)
    shop(page, "Mira")
    if picture.name.startswith("operator"):
        operator_page(page)
    if picture.viewport is PHONE:
        page.locator(".list").scroll_into_view_if_needed()
        page.evaluate("document.querySelector('.choices').scrollIntoView()")
    page.screenshot(path=path, full_page=picture.name.startswith("operator"))
    context.close()


def look_around(service: ServiceProcess, user: str) -> None:
    """Have the visitor look at the most popular item of each of three categories."""
    with service.client() as client:
        liked: dict[str, str] = {}
        for item in recommend(client, k=100)["items"]:
            liked.setdefault(item["path"][0], item["item_id"])
        for number, item_id in enumerate([*liked.values()][:3]):
            assert post_event(client, str(number), user, item_id).status_code == 200


def shop(page: Page, name: str) -> None:
    """Have the visitor put an item into the cart."""
    become(page, name)
    held = page.locator(".events li").count()
    page.locator(".card").nth(2).get_by_role("button", name="Cart:").click()
    expect(page.locator(".events li")).to_have_count(held + 1)
    settle(page)
    page.locator("#toasts").evaluate("node => node.replaceChildren()")
    page.mouse.move(0, 0)


def operator_page(page: Page) -> None:
    """Have all panels of the operator's page show something."""
    item = page.locator(".card").first.get_attribute("data-item") or ""
    operator(page)
    page.get_by_label("Item id").fill(item)
    page.get_by_role("button", name="Look up").click()
    expect(page.locator(".near li").first).to_be_visible()
    for _ in range(3):
        page.get_by_role("button", name="Compare").click()
        expect(page.locator(".column")).to_have_count(2)
        with page.expect_response("**/metrics"):
            pass
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")


if __name__ == "__main__":
    main()
