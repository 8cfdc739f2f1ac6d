"""Which browser is there, and what does it say of a page?"""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Error, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
LOCAL = ("file:", "data:", "blob:", "about:")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium, that of the machine: Playwright's own is not fetched.

    Raises:
        SystemExit: there is none, or it does not start.
    """
    path = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, channel=None if path else "chrome")
        except Error as error:
            sys.exit(
                f"No Chromium starts here ({error.message.splitlines()[0]}). Install Chromium or Chrome (Debian: `apt "
                "install chromium`), then run this again."
            )
        yield browser
        browser.close()


def listen(page: Page, own: tuple[str, ...] = LOCAL) -> list[str]:
    """A list that fills with errors of the page's console, and with requests that do not start with one of `own`."""
    said: list[str] = []
    page.on("console", lambda line: said.append(f"console: {line.text}") if line.type == "error" else None)
    page.on("pageerror", lambda error: said.append(f"script: {error}"))
    page.on("request", lambda asked: None if asked.url.startswith(own) else said.append(f"request: {asked.url}"))
    return said
