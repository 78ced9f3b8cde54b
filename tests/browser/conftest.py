import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page

from tests.browser.chromium import DESKTOP, PATIENCE_MS, running_chromium
from tests.end_to_end.service_process import ServiceProcess, running_service

OpenPage = Callable[..., Page]
ANSWERS = re.compile(r"/(v1/|readyz$|metrics$)")
"""Addresses of the API: of an error there the browser writes a line of its own, whatever we do."""


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

    def hear(said: ConsoleMessage) -> None:
        if said.type in {"error", "warning"} and not ANSWERS.search(said.location["url"]):
            complaints.append(said.text)

    def open_at(url: str, **chosen: object) -> Page:
        options = {"viewport": DESKTOP, "reduced_motion": "reduce", **chosen}
        context = chromium.new_context(**options)  # type: ignore[arg-type]
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", hear)
        page.goto(url)
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert complaints == []
