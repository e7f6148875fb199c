"""A real Chromium from Debian, whose pages are checked for accessibility."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium")
PICTURES = Path(__file__).parents[2] / "build" / "screenshots"
"""Where the pictures of the pages are put, to be looked at."""

DESKTOP = {"width": 1280, "height": 860}
PHONE = {"width": 360, "height": 740}


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Chromium until the block ends; Playwright brings none of its own."""
    with sync_playwright() as playwright:
        # Root's own sandbox needs a kernel setting that containers do not have.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Screen:
    """A browser's window, and all that went wrong in it."""

    def __init__(self, browser: Browser, url: str, name: str, **options: Any) -> None:  # noqa: ANN401
        """Open a window.

        Args:
            url: of the server.
            name: of the kind of window, for the pictures.
            options: of the window, as Playwright names them.
        """
        self.name = name
        self._axe = Axe()
        self._context = browser.new_context(
            base_url=url, locale="en-GB", timezone_id="Europe/Berlin", **options
        )
        self._context.set_default_timeout(15_000)
        self.errors: list[str] = []
        self.page = self._context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._told)
        self._has_script = options.get("java_script_enabled", True)

    def _told(self, message: Any) -> None:  # noqa: ANN401 - Playwright's own
        # A page that is refused on purpose is told as a resource that failed to load.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.errors.append(message.text)

    def sign_in(self, token: str) -> Page:
        self.page.goto("/")
        self.page.get_by_label("API key").fill(token)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.get_by_role("heading", name="API keys", level=1).wait_for()
        return self.page

    def look(self, picture: str, heading: str) -> None:
        """Take a picture of the page with a heading, and hold it to be readable by everybody."""
        expect(self.page.get_by_role("heading", level=1)).to_contain_text(heading)
        wide, window = self.page.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert wide <= window, f"{picture} is {wide} pixels wide in a window of {window}"
        if self._has_script:
            PICTURES.mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=PICTURES / f"{picture}-{self.name}.png", full_page=True)
            found = self._axe.run(self.page)
            assert found.violations_count == 0, found.generate_report()

    def close(self) -> None:
        self._context.close()
        assert self.errors == []
