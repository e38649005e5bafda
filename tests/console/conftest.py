"""A person at a browser. Each page is watched: an error in its console, a violation of its policy, a call that leaves
the service's own address fail the test whose page it was."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.support import browsing
from tests.support.browsing import sign_in as sign_in
from tests.support.builders import memory_folder
from tests.support.showroom import Showroom, showroom

SCREENS = Path(__file__).parents[2] / "build" / "screens" / "console"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if why := browsing.why_not():
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with browsing.a_browser() as started:
        yield started


@pytest.fixture(scope="module")
def room() -> Iterator[Showroom]:
    temporary = tempfile.TemporaryDirectory(prefix="argus-room-", dir=memory_folder())
    with temporary as folder, showroom(Path(folder)) as made:
        yield made


Visit = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser, room: Showroom) -> Iterator[Visit]:
    """`visit("alice", "tasks")`: a page in a browser of its own, signed in; `None`: nobody is."""
    watched = browsing.Watched(room.url)
    pages: list[Page] = []

    def open_page(who: str | None = "alice", place: str = "tasks", *, dark: bool = False, phone: bool = False) -> Page:
        size = browsing.PHONE if phone else browsing.DESKTOP
        pages.append(browsing.open_page(browser, watched, place, dark=dark, size=size))
        if who is not None:
            sign_in(pages[-1], room.token(who))
        return pages[-1]

    yield open_page
    for page in pages:
        page.context.close()
    assert not watched.faults, "\n".join(watched.faults)
