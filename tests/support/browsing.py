"""A person at a browser: Debian's Chromium, whose pages are watched."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, ViewportSize, expect, sync_playwright

from argus_ray.gateway.console.built import DIST

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DESKTOP: ViewportSize = {"width": 1360, "height": 850}
PHONE: ViewportSize = {"width": 390, "height": 800}
#: Milliseconds that what a test waits for may take on a busy machine.
PATIENCE_MS = 20_000.0
#: What a browser says of each answer that is an error, and of a service that is away; the page shows it by itself.
_BROWSERS_OWN = "Failed to load resource"


def why_not() -> str | None:
    """Why no page can be looked at here; None: it can."""
    if CHROMIUM is None:
        return "no Chromium (apt install chromium)"
    return None if DIST.exists() else "the console is not built (scripts/make-console)"


@contextlib.contextmanager
def a_browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as started:
        # Chromium's own sandbox refuses root, which containers and CI run as.
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Watched:
    """What went wrong on pages: an error in the console, a violation of the policy, a call that leaves the origin."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.faults: list[str] = []

    def watch(self, page: Page) -> None:
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("request", self._asked)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(_BROWSERS_OWN):
            self.faults.append(f"{message.type}: {message.text}")

    def _asked(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https", "ws", "wss") and f"{parts.scheme}://{parts.netloc}" != self.origin:
            self.faults.append(f"left the origin: {request.url}")


def open_page(
    browser: Browser, watched: Watched, place: str = "tasks", *, dark: bool = False, size: ViewportSize = DESKTOP
) -> Page:
    """A page of a browser of its own, that nobody has signed in at. The caller closes its context."""
    context = browser.new_context(viewport=size, color_scheme="dark" if dark else "light", reduced_motion="reduce")
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    watched.watch(page)
    page.goto(f"{watched.origin}/#/{place}")
    return page


def will_show(page: Page, words: str) -> None:
    """From now on it is kept that these words came, however soon they go. The next one ends it."""
    page.evaluate(
        """(words) => {
            window.argusShown = [];
            window.argusLook?.disconnect();
            window.argusLook = new MutationObserver(() => {
                for (const each of document.querySelectorAll("body *"))
                    if (!each.children.length && each.textContent.includes(words)) argusShown.push(each.textContent);
            });
            argusLook.observe(document.body, { subtree: true, childList: true, characterData: true });
        }""",
        words,
    )


def has_shown(page: Page, words: str) -> None:
    """Waits until they have come since `will_show`."""
    page.wait_for_function("(words) => argusShown.some((each) => each.includes(words))", arg=words)


def sign_in(page: Page, token: str) -> None:
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("navigation", name="Pages")).to_be_visible()


def mark(page: Page) -> None:
    """To be gone after a reload."""
    page.evaluate("() => { document.documentElement.dataset.mark = 'there' }")


def is_marked(page: Page) -> None:
    expect(page.locator("html")).to_have_attribute("data-mark", "there")


#: The banner of a page whose service is away.
AWAY = re.compile("reconnecting. What you see is as of")
