"""A person at a browser. Each page is watched: an error in its console, a violation of its policy, a call that leaves
the service's own address fail the test whose page it was."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from argus_ray.gateway.console.built import DIST
from tests.support.builders import memory_folder
from tests.support.showroom import Showroom, showroom

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DESKTOP = {"width": 1360, "height": 850}
PHONE = {"width": 390, "height": 800}
#: Milliseconds that what a test waits for may take on a busy machine.
PATIENCE_MS = 20_000.0
SCREENS = Path(__file__).parents[2] / "build" / "screens" / "console"
#: What a browser says of each answer that is an error; the page shows it by itself.
_BROWSERS_OWN = "Failed to load resource"

expect.set_options(timeout=PATIENCE_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    why = None
    if CHROMIUM is None:
        why = "no Chromium (apt install chromium)"
    elif not DIST.exists():
        why = "the console is not built (scripts/make-console)"
    for item in items:
        if why and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with playwright.sync_playwright() as started:
        # Chromium's own sandbox refuses root, which containers and CI run as.
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def room() -> Iterator[Showroom]:
    with (
        tempfile.TemporaryDirectory(prefix="argus-room-", dir=memory_folder()) as folder,
        showroom(Path(folder)) as made,
    ):
        yield made


class Watched:
    """What went wrong on the pages of a test."""

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


Visit = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser, room: Showroom) -> Iterator[Visit]:
    """`visit("alice", "tasks")`: a page in a browser of its own, signed in; `None`: nobody is."""
    watched = Watched(room.url)
    contexts: list[BrowserContext] = []

    def open_page(who: str | None = "alice", place: str = "tasks", *, dark: bool = False, phone: bool = False) -> Page:
        context = browser.new_context(
            viewport=PHONE if phone else DESKTOP,  # type: ignore[arg-type]
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        watched.watch(page)
        page.goto(f"{room.url}/#/{place}")
        if who is not None:
            sign_in(page, room.token(who))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not watched.faults, "\n".join(watched.faults)


def sign_in(page: Page, token: str) -> None:
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("navigation", name="Pages")).to_be_visible()
