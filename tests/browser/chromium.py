"""A real Chromium that talks to nobody but the service."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, ViewportSize, expect, sync_playwright

from tests.required import skip_for_want_of

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
DESKTOP: ViewportSize = {"width": 1360, "height": 900}
PHONE: ViewportSize = {"width": 360, "height": 740}


PATIENCE_MS = 60_000
"""How long a page may take on a machine that has other work."""


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """Debian's browser, or the one that is called `chromium`; skips without it."""
    path = shutil.which("chromium")
    if path is None:
        skip_for_want_of("chromium", "apt-get install chromium")
    with sync_playwright() as playwright:
        expect.set_options(timeout=PATIENCE_MS)
        browser = playwright.chromium.launch(executable_path=path, args=[*FLAGS])
        try:
            yield browser
        finally:
            browser.close()
