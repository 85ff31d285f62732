"""A headless Chromium for tests that look at pages."""

import os
import shutil
from contextlib import contextmanager

import pytest

INSTALL = "pip install playwright && apt-get install chromium"


@contextmanager
def open_browser():
    """Start the browser of Debian, or skip the test."""
    playwright = pytest.importorskip("playwright.sync_api", reason=f"Browser tests need playwright: {INSTALL}")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        pytest.skip(f"Browser tests need Chromium: {INSTALL}")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A page that is open, with what it requested and what went wrong.

    Args:
        browser: The browser.
        url: Address of the page.
    """

    def __init__(self, browser, url):
        self.page = browser.new_page()
        self.requests, self.errors = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: message.type in ("error", "warning") and self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(url)

    def requests_beyond(self, origin):
        """Return the requests to other hosts."""
        return [url for url in self.requests if not url.startswith((origin, "data:", "blob:", "about:"))]
