import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.chromium import DESKTOP, PATIENCE_MS, running_chromium
from tests.end_to_end.service_process import ServiceProcess, running_service

OpenPage = Callable[..., Page]
UNREACHABLE = re.compile(r"net::ERR_|status of (401|503)")
"""What the browser itself writes about an outage or a missing key, before any script knows."""


# Of the package, because playwright's loop must have ended before tests with loops of their own.
@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser


@pytest.fixture(scope="package")
def service(
    shop_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceProcess]:
    """A service on the shop with its state in memory; tests use visitors of their own."""
    folder = tmp_path_factory.mktemp("console")
    with running_service(shop_bundle, folder, deadline_ms=20_000) as service:
        yield service


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[OpenPage]:
    """Opens a page in a browser that remembers nothing; none may complain in its console."""
    complaints: list[str] = []
    contexts = []

    def open_at(url: str, **chosen: object) -> Page:
        options = {"viewport": DESKTOP, "reduced_motion": "reduce", **chosen}
        context = chromium.new_context(**options)  # type: ignore[arg-type]
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda said: (
                complaints.append(said.text) if said.type in {"error", "warning"} else None
            ),
        )
        page.goto(url)
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert [each for each in complaints if not UNREACHABLE.search(each)] == []
