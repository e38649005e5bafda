"""Each page on a desktop and on a phone, dark and light: looked at by axe-core, measured, and kept as a picture in
build/screens/console for whoever wants to see them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.console.conftest import SCREENS, Visit
from tests.support.showroom import Showroom

AXE = Path(__file__).parents[2] / "argus_ray" / "console" / "node_modules" / "axe-core" / "axe.min.js"
#: What is no page but a whole, and no fault: a page says once what is its main part; a test of one page sees that.
_SERIOUS = ("serious", "critical")
TASK_TABS = ("", "log", "curves", "rollouts", "explain", "events", "spec", "files")


def places(room: Showroom) -> dict[str, str]:
    """By the name of its picture."""
    tasks = room.api.get("/api/v2/tasks?limit=100", room.headers("admin"))["tasks"]
    running = next(each["task_id"] for each in tasks if each["state"] == "RUNNING" and each["workload"] == "grpo")
    failed = next(each["task_id"] for each in tasks if each["state"] == "FAILED")
    done = next(each["task_id"] for each in tasks if each["state"] == "SUCCEEDED" and each["workload"] == "grpo")
    waiting = next(each["task_id"] for each in tasks if each["state"] == "PENDING_RESOURCES")
    found = {name: name for name in ("tasks", "submit", "queue", "usage", "pool", "users", "audit")}
    found |= {f"task-{tab or 'overview'}": f"task/{running}/{tab}".rstrip("/") for tab in TASK_TABS}
    found |= {"task-failed": f"task/{failed}", "task-waiting": f"task/{waiting}/explain"}
    found["compare"] = f"compare?task={running}&task={done}"
    return found


@pytest.mark.parametrize("phone", [False, True], ids=["desktop", "phone"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_no_page_has_a_serious_fault(visit: Visit, room: Showroom, dark: bool, phone: bool) -> None:
    page = visit(None, dark=dark, phone=phone)
    faults: list[str] = []
    SCREENS.mkdir(parents=True, exist_ok=True)
    variant = f"{'phone' if phone else 'desktop'}-{'dark' if dark else 'light'}"

    def look(name: str) -> None:
        settle(page)
        page.screenshot(path=str(SCREENS / f"{name}-{variant}.png"))
        faults.extend(f"{name}: {each}" for each in [*axe(page), *overflow(page)])

    look("sign-in")
    page.get_by_label("Token").fill(room.token("admin"))
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("navigation", name="Pages")).to_be_visible()
    for name, place in places(room).items():
        page.evaluate("(place) => { location.hash = '#/' + place }", place)
        look(name)
    assert not faults, "\n".join(faults)


def settle(page: Page) -> None:
    """Until nothing of it loads any more."""
    expect(page.locator("h1").first).to_be_visible()
    expect(page.locator(".loading")).to_have_count(0)
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def axe(page: Page) -> list[str]:
    if not page.evaluate("() => 'axe' in window"):
        # Not by a tag of a script, which the page's policy refuses.
        page.evaluate(AXE.read_text())
    found: dict[str, Any] = page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{each['id']} ({each['impact']}): {node['html'][:160]} {node['failureSummary'][:300]}"
        for each in found["violations"]
        if each["impact"] in _SERIOUS
        for node in each["nodes"][:3]
    ]


def overflow(page: Page) -> list[str]:
    """A page that is wider than its window is a page that somebody has to push about."""
    wide = page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return [f"{wide} px wider than the window"] if wide > 0 else []
