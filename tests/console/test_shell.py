"""What holds on every page: the service may go and come back, a token may be revoked, and nothing is lost."""

from __future__ import annotations

import re
import time

from playwright.sync_api import expect

from tests.console.conftest import Visit, sign_in
from tests.support.browsing import AWAY, is_marked, mark
from tests.support.gateway import bearer_header
from tests.support.showroom import Showroom


def test_the_head_goes_and_comes_back_and_the_page_stays(visit: Visit, room: Showroom) -> None:
    task_id = room.submit("alice", "sft")
    page = visit("alice", "tasks")
    row = page.locator(f"#row-{task_id}")
    expect(row).to_contain_text("Queued")
    mark(page)
    room.go_away()
    expect(page.get_by_text(AWAY)).to_be_visible()
    expect(row).to_contain_text("Queued")
    room.start(task_id).go_on(9)
    room.come_back()
    began = time.monotonic()
    expect(row).to_contain_text("9/200")
    expect(page.get_by_text(AWAY)).to_have_count(0)
    print(f"\ncurrent again {time.monotonic() - began:.1f} s after the return")
    # What happens from now on comes by the stream as before.
    room.running[task_id].go_on(1)
    expect(row).to_contain_text("10/200")
    room.end(task_id)
    expect(row).to_contain_text("Succeeded")
    is_marked(page)


def test_a_page_that_is_opened_while_the_head_is_away_waits_for_it(visit: Visit, room: Showroom) -> None:
    page = visit("bob", "queue")
    expect(page.get_by_role("region", name="Waiting")).to_be_visible()
    room.go_away()
    expect(page.get_by_text(AWAY)).to_be_visible()
    page.evaluate("() => { location.hash = '#/usage' }")
    room.come_back()
    expect(page.get_by_role("heading", name="Usage")).to_be_visible()
    expect(page.get_by_text(AWAY)).to_have_count(0)


def test_a_revoked_token_asks_for_another_over_the_page(visit: Visit, room: Showroom) -> None:
    issued = room.api.client.post("/api/v2/users/alice/tokens", json={}, headers=room.headers("admin")).json()
    page = visit(None, "tasks?state=RUNNING")
    sign_in(page, issued["token"])
    row = page.get_by_role("grid", name="Tasks").get_by_role("row").first
    expect(row).to_be_visible()
    mark(page)
    gone = room.api.client.delete(f"/api/v2/users/alice/tokens/{issued['token_id']}", headers=room.headers("admin"))
    assert gone.status_code == 200
    assert room.api.client.get("/api/v2/me", headers=bearer_header(issued["token"])).status_code == 401
    page.get_by_label("Kind").select_option("sft")
    expect(page.get_by_role("dialog", name="Sign in")).to_contain_text("not valid any more")
    sign_in(page, room.token("alice"))
    expect(page.get_by_role("dialog", name="Sign in")).to_have_count(0)
    is_marked(page)
    assert "state=RUNNING" in page.url and "kind=sft" in page.url


def test_sign_in_lies_over_an_open_window_and_keeps_the_focus(visit: Visit, room: Showroom) -> None:
    admin = room.headers("admin")
    issued = room.api.client.post("/api/v2/users/bob/tokens", headers=admin).json()
    page = visit(None, "tasks")
    sign_in(page, issued["token"])
    task_id = room.submit("bob", "sft", n_gpus_per_node=1)
    page.goto(f"{room.url}/#/task/{task_id}")
    page.get_by_role("button", name="Cancel…").click()
    mine = page.get_by_role("dialog", name=re.compile("^Cancel"))
    expect(mine).to_be_visible()
    room.api.client.delete(f"/api/v2/users/bob/tokens/{issued['token_id']}", headers=admin)
    page.evaluate("() => document.dispatchEvent(new Event('visibilitychange'))")
    over = page.get_by_role("dialog", name="Sign in")
    field = over.get_by_label("Token")
    expect(field).to_be_focused()
    for _ in range(3):  # a browser lets a page refuse once
        page.keyboard.press("Escape")
        expect(field).to_be_visible()
    for _ in range(12):
        page.keyboard.press("Tab")
        assert page.evaluate("() => document.activeElement.matches('body, .sign-in *')")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    sign_in(page, room.token("bob"))
    expect(over).to_have_count(0)
    assert asked[0].endswith("/api/v2/me"), "nothing is asked for while nobody is signed in"
    mine.get_by_role("button", name="Cancel the task").click()
    expect(mine).to_have_count(0)
    expect(page.get_by_role("button", name="Cancel…")).to_have_count(0)


def test_the_token_is_kept_by_this_tab_alone(visit: Visit, room: Showroom) -> None:
    page = visit("alice")
    other = page.context.new_page()
    other.goto(room.url)
    expect(other.get_by_label("Token")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Token")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Token")).to_be_visible()


def test_there_is_one_stream_and_none_while_the_tab_is_hidden(visit: Visit, room: Showroom) -> None:
    page = visit("alice")
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    front = page.context.new_page()
    front.goto("about:blank")
    # Headless Chromium hides no tab that is behind another: the event is what the browser would send.
    page.evaluate(
        """() => {
          Object.defineProperty(document, 'visibilityState', { value: 'hidden', configurable: true });
          document.dispatchEvent(new Event('visibilitychange'));
        }"""
    )
    expect(page.get_by_text("paused", exact=True)).to_be_visible()
    task_id = room.submit("alice", "sft")
    page.evaluate(
        """() => {
          Object.defineProperty(document, 'visibilityState', { value: 'visible', configurable: true });
          document.dispatchEvent(new Event('visibilitychange'));
        }"""
    )
    expect(page.locator(f"#row-{task_id}")).to_be_visible()


def test_the_colours_are_chosen_and_kept(visit: Visit) -> None:
    page = visit("alice")
    page.get_by_role("button", name="Dark colours").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Light colours").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "light")


def test_an_address_that_is_no_page_says_so(visit: Visit) -> None:
    page = visit("alice", "nothing/at/all")
    expect(page.get_by_role("heading", name="There is no such page")).to_be_visible()
