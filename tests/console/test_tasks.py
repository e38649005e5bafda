"""Sign in, and the list of tasks."""

from __future__ import annotations

import re
import time
from datetime import datetime, timezone

from playwright.sync_api import Route, expect

from tests.console.conftest import Visit, sign_in
from tests.support.showroom import Showroom


def test_a_bad_token_is_said_and_a_good_one_enters(visit: Visit, room: Showroom) -> None:
    page = visit(None)
    page.get_by_label("Token").fill("argus_u_" + "0" * 64)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("does not know this token")
    sign_in(page, room.tokens["alice"])
    expect(page.get_by_role("grid", name="Tasks").get_by_role("row").first).to_be_visible()
    page.reload()
    expect(page.get_by_role("grid", name="Tasks").get_by_role("row").first).to_be_visible()


def test_users_see_their_own_tasks_and_admins_all(visit: Visit, room: Showroom) -> None:
    for who in ("alice", "bob", "admin"):
        total = room.api.get("/api/v2/tasks:counts", room.headers(who))["total"]
        expect(visit(who).get_by_role("button", name="All")).to_have_text(f"All {total}")


def test_a_filter_stands_in_the_address_and_survives_a_reload(visit: Visit) -> None:
    page = visit("alice")
    page.get_by_role("button", name="Running").click()
    grid = page.get_by_role("grid", name="Tasks")
    expect(grid.get_by_role("row")).to_have_count(1)
    assert "state=RUNNING" in page.url and "?" in page.url.split("#")[1]
    page.reload()
    expect(grid.get_by_role("row")).to_have_count(1)


def test_a_state_changes_before_the_eyes(visit: Visit, room: Showroom) -> None:
    page = visit("chen")
    task_id = room.submit("chen", "sft")
    row = page.locator(f"#row-{task_id}")
    expect(row).to_contain_text("Queued")
    room.start(task_id).go_on(50)
    expect(row).to_contain_text("Running")
    expect(row).to_contain_text("50/200")
    room.running[task_id].go_on(5)
    expect(row).to_contain_text("55/200")
    room.end(task_id)
    expect(row).to_contain_text("Succeeded")


def test_an_old_task_that_moves_is_not_one_of_the_last_hour(visit: Visit, room: Showroom) -> None:
    listed = room.api.get("/api/v2/tasks?state=RUNNING&limit=200", room.headers("admin"))["tasks"]
    old = min(listed, key=lambda task: str(task["created_at"]))
    hour_ago = datetime.fromtimestamp(room.api.world.clock() - 3600, timezone.utc).isoformat()
    assert old["created_at"] < hour_ago and old["task_id"] in room.running
    page = visit("admin", "tasks?since=1h")
    new = room.submit("chen", "sft")
    expect(page.locator(f"#row-{new}")).to_be_visible()
    room.end(old["task_id"])
    room.start(new)
    expect(page.locator(f"#row-{new}")).to_contain_text("Running")
    expect(page.locator(f"#row-{old['task_id']}")).to_have_count(0)
    room.end(new)


def test_what_the_stream_could_not_tell_is_listed_anew(visit: Visit, room: Showroom) -> None:
    """As after a night in the background: the stream says only that it has not told all."""
    page = visit("chen")
    expect(page.get_by_role("grid", name="Tasks").get_by_role("row").first).to_be_visible()
    told = 'event: hello\ndata: {"now": "2026-01-01T00:00:00.000Z"}\n\nevent: resync\ndata: {}\n\n'
    page.route("**/api/v2/stream*", lambda route: route.fulfill(content_type="text/event-stream", body=told))
    with page.expect_request(re.compile(r"/api/v2/tasks\?")):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    task_id = room.submit("chen", "sft")
    expect(page.locator(f"#row-{task_id}")).to_be_visible()
    page.unroute("**/api/v2/stream*")
    room.start(task_id)
    room.end(task_id)


def test_the_filter_by_id_is_that_of_the_address(visit: Visit, room: Showroom) -> None:
    page = visit("alice")
    grid = page.get_by_role("grid", name="Tasks")
    field = page.get_by_label("End of an id")
    field.fill("0000")
    page.get_by_role("button", name="Show all").click()
    expect(field).to_have_value("")
    expect(grid.get_by_role("row").first).to_be_visible()
    page.go_back()
    expect(field).to_have_value("0000")
    # As fast as a filter comes into the address: what is typed meanwhile stays.
    field.fill("")
    field.press_sequentially("0123456789", delay=210)
    expect(field).to_have_value("0123456789")


def test_a_task_that_is_gone_takes_nobodys_progress_with_it(visit: Visit, room: Showroom) -> None:
    """As after a restore: the page shows one that the service has not."""
    task_id = room.submit("alice", "sft")
    run = room.start(task_id)
    page = visit("alice", "tasks?state=RUNNING")
    row = page.locator(f"#row-{task_id}")
    expect(row).to_be_visible()

    def gone(route: Route) -> None:
        answer = route.fetch()
        body = answer.json()
        body["tasks"].append({**body["tasks"][0], "task_id": body["tasks"][0]["task_id"][:-4] + "0000"})
        route.fulfill(response=answer, json=body)

    page.route(re.compile(r"/api/v2/tasks\?"), gone)
    with page.expect_request(lambda each: "/stream?" in each.url and task_id in each.url and "-0000" not in each.url):
        page.reload()
    expect(page.locator("[id$='-0000']")).to_be_visible()
    steps = row.locator(".c-progress")
    run.go_on(7)
    expect(steps).to_have_text(re.compile(r"^7\b"))
    run.go_on(6)
    expect(steps).to_have_text(re.compile(r"^13\b"))
    room.end(task_id)


def test_it_is_asked_again_when_the_service_says(visit: Visit, room: Showroom) -> None:
    page = visit("alice")
    expect(page.get_by_role("grid", name="Tasks").get_by_role("row").first).to_be_visible()
    asked: list[float] = []

    def busy(route: Route) -> None:
        asked.append(time.monotonic())
        if len(asked) > 1:
            return route.continue_()
        problem = {"type": "about:blank", "title": "Not now", "status": 503, "code": "unavailable", "detail": "Wait."}
        return route.fulfill(status=503, headers={"Retry-After": "3"}, json=problem)

    page.route("**/api/v2/me", busy)
    page.goto(f"{room.url}/#/usage")
    expect(page.get_by_role("region", name="Since the beginning")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)
    assert asked[1] - asked[0] > 2, "seconds; three quarters of three at least"


def test_the_keyboard_goes_through_the_list(visit: Visit) -> None:
    page = visit("alice")
    grid = page.get_by_role("grid", name="Tasks")
    expect(grid.get_by_role("row").first).to_be_visible()
    grid.focus()
    page.keyboard.press("j")
    page.keyboard.press("x")
    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(page.get_by_role("region", name="Chosen tasks")).to_contain_text("2 tasks chosen")
    page.keyboard.press("Escape")
    expect(page.get_by_role("region", name="Chosen tasks")).to_have_count(0)
    page.keyboard.press("/")
    expect(page.get_by_label("End of an id")).to_be_focused()
    grid.focus()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    page.wait_for_url("**/#/task/**")
