"""Usage, users with their tokens, the audit; and that all but one's own usage is an administrator's."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import expect

from tests.console.conftest import Visit, sign_in
from tests.support.showroom import USERS, Showroom


@pytest.mark.parametrize("place", ["users", "users/bob", "audit", "pool"])
def test_a_user_sees_no_page_of_administrators(visit: Visit, place: str) -> None:
    page = visit("alice", place)
    expect(page.get_by_role("heading", name="For administrators")).to_be_visible()
    menu = page.get_by_role("navigation", name="Pages")
    expect(menu.get_by_role("link")).to_have_text(["Tasks", "Submit", "Queue", "Usage"])


def test_an_administrator_makes_a_user_and_a_token_that_signs_in(visit: Visit, room: Showroom) -> None:
    page = visit("admin", "users")
    page.get_by_role("button", name="Add a user").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Id").fill("Not An Id")
    dialog.get_by_role("button", name="Add the user").click()
    expect(dialog.get_by_label("Id")).to_have_accessible_description(re.compile("1 to 32 of a-z"))
    expect(dialog.get_by_label("Id")).to_have_attribute("aria-invalid", "true")
    dialog.get_by_label("Id").fill("alice")
    dialog.get_by_role("button", name="Add the user").click()
    expect(dialog.get_by_role("alert")).to_contain_text("user_exists")
    dialog.get_by_label("Id").fill("erin")
    dialog.get_by_label("Name").fill("Erin <b>Example</b>")
    dialog.get_by_role("button", name="Add the user").click()

    expect(page.get_by_role("heading", name="Erin <b>Example</b>")).to_be_visible()
    expect(page.get_by_text("cannot sign in")).to_be_visible()
    page.get_by_role("button", name="Issue a token").click()
    dialog.get_by_label("Label").fill("x" * 200)
    dialog.get_by_role("button", name="Issue the token").click()
    expect(dialog.get_by_label("Label")).to_have_accessible_description(re.compile("at most 128"))
    dialog.get_by_label("Label").fill("laptop")
    dialog.get_by_label("Expires").select_option(label="in … days")
    dialog.get_by_label("Days").fill("0")
    expect(dialog.get_by_role("button", name="Issue the token")).to_be_disabled()
    dialog.get_by_label("Days").fill("3")
    dialog.get_by_role("button", name="Issue the token").click()
    shown = dialog.get_by_text(re.compile("^argus_u_"))
    token = shown.inner_text()
    expect(dialog).to_contain_text(f"python3 argus.pyz login {room.url}")
    for _ in range(3):  # a browser lets a page refuse once
        page.keyboard.press("Escape")
        expect(shown).to_be_visible()
    dialog.get_by_role("button", name="Done").click()
    expect(dialog).to_have_count(0)
    expect(page.locator("body")).not_to_contain_text(token)
    tokens = page.get_by_role("region", name="Tokens").locator("tbody tr")
    expect(tokens).to_have_count(1)
    expect(tokens).to_contain_text("laptop")
    expect(tokens).to_contain_text("never")
    [told] = room.api.get("/api/v2/users/erin/tokens", room.headers("admin"))["tokens"]
    assert told["expires_at"] is not None

    of_erin = visit(None)
    sign_in(of_erin, token)
    expect(of_erin.get_by_text("No tasks yet")).to_be_visible()


def test_a_revoked_token_and_a_disabled_user_are_out(visit: Visit, room: Showroom) -> None:
    admin = room.headers("admin")
    room.api.client.post("/api/v2/users", json={"user_id": "frank"}, headers=admin)
    lost, kept = (
        room.api.client.post("/api/v2/users/frank/tokens", json={"label": label}, headers=admin).json()
        for label in ("lost", "kept")
    )
    page = visit("admin", "users/frank")
    page.get_by_role("button", name="Revoke lost").click()
    page.get_by_role("dialog").get_by_role("button", name="Leave it").click()
    page.get_by_role("button", name="Revoke lost").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("row").filter(has_text="lost")).to_contain_text("Revoked")
    assert room.api.client.get("/api/v2/me", headers={"Authorization": f"Bearer {lost['token']}"}).status_code == 401

    page.get_by_role("button", name="Disable").click()
    page.get_by_role("dialog").get_by_role("button", name="Disable").click()
    expect(page.get_by_role("main")).to_contain_text("Disabled")
    assert room.api.client.get("/api/v2/me", headers={"Authorization": f"Bearer {kept['token']}"}).status_code == 403
    page.get_by_role("button", name="Enable").click()
    page.get_by_role("dialog").get_by_role("button", name="Enable").click()
    expect(page.get_by_role("main")).to_contain_text("Active")
    assert room.api.client.get("/api/v2/me", headers={"Authorization": f"Bearer {kept['token']}"}).status_code == 200


def test_an_unknown_user_is_said(visit: Visit) -> None:
    page = visit("admin", "users/nobody")
    expect(page.get_by_role("alert").first).to_contain_text("user_not_found")


def test_users_see_their_own_usage_alone(visit: Visit, room: Showroom) -> None:
    page = visit("bob", "usage")
    total = room.api.get("/api/v2/me", room.headers("bob"))["usage"]["total"]
    tile = page.get_by_role("region", name="Since the beginning")
    expect(tile).to_contain_text(f"Tasks{total['tasks']}")
    expect(tile).to_contain_text(f"Succeeded{total['succeeded']}")
    expect(page.get_by_role("region", name="Now")).to_contain_text("no quota")
    expect(page.get_by_role("heading", name="All users")).to_have_count(0)
    expect(page.get_by_role("main")).not_to_contain_text("alice")


def test_usage_of_the_pool_adds_up(visit: Visit, room: Showroom) -> None:
    page = visit("admin", "usage?since=7d")
    told = room.api.get("/api/v2/usage?by=user&since=7d", room.headers("admin"))["rows"]
    sums = page.get_by_role("region", name="Sums")
    expect(sums.locator("tbody tr")).to_have_count(len(told))
    for each in told:
        row = sums.get_by_role("row").filter(has_text=each["user_id"])
        expect(row.get_by_role("cell").nth(2)).to_have_text(str(each["tasks"]))
        expect(row.get_by_role("cell").nth(3)).to_have_text(str(each["succeeded"]))
    all_tasks = sum(each["tasks"] for each in told)
    expect(sums.locator("tfoot td").nth(2)).to_have_text(str(all_tasks))

    chart = page.get_by_role("figure", name="GPU hours by day and user")
    chart.focus()
    page.keyboard.press("End")
    expect(chart.locator("figcaption")).to_contain_text("alice")
    page.keyboard.press("ArrowLeft")
    expect(chart.locator("figcaption")).to_contain_text("chen")
    page.keyboard.press("Escape")
    expect(chart.locator("figcaption")).to_contain_text("in 8 days")
    page.get_by_text("GPU hours by day as a table").click()
    expect(page.locator(".by-day tbody tr")).to_have_count(8)

    page.get_by_role("button", name="By kind").click()
    expect(sums.locator("tbody th")).to_have_count(3)
    assert "by=workload" in page.url
    page.reload()
    expect(sums.locator("tbody th")).to_have_count(3)


def test_the_audit_is_filtered_by_its_address_and_told_whole(visit: Visit, room: Showroom) -> None:
    page = visit("admin", "audit?actor=alice&action=task.submit")
    entries = page.get_by_role("region", name="Entries").get_by_role("listitem")
    told = room.api.get("/api/v2/audit?actor=alice&action=task.submit", room.headers("admin"))["entries"]
    expect(entries).to_have_count(len(told))
    entries.first.locator("summary").click()
    expect(entries.first).to_contain_text(told[0]["token_id"])
    expect(entries.first.get_by_role("link", name=told[0]["target"])).to_be_visible()
    page.get_by_label("Who did it").fill("chen")
    expect(entries.first).to_contain_text("chen")
    assert "actor=chen" in page.url
    page.get_by_label("Who did it").fill("nobody")
    expect(page.get_by_text("Nothing is like that.")).to_be_visible()
    page.get_by_role("button", name="Show all").click()
    expect(entries).not_to_have_count(0)
    expect(page.get_by_label("Who did it")).to_have_value("")


def test_older_entries_come_as_their_end_is_scrolled_to(visit: Visit, room: Showroom) -> None:
    admin = room.headers("admin")
    for _ in range(130):
        issued = room.api.client.post("/api/v2/users/chen/tokens", headers=admin).json()
        room.api.client.delete(f"/api/v2/users/chen/tokens/{issued['token_id']}", headers=admin)
    page = visit("admin", "audit?user=chen&action=token.issue")
    entries = page.get_by_role("region", name="Entries").get_by_role("listitem")
    expect(entries.first).to_be_visible()
    count = len(room.api.get("/api/v2/audit?user=chen&action=token.issue&limit=500", admin)["entries"])
    assert count > 100
    page.keyboard.press("End")
    page.mouse.wheel(0, 100_000)
    expect(entries).to_have_count(count)
    expect(page.get_by_role("button", name="Show older")).to_have_count(0)


def test_the_live_switch_follows_what_is_done(visit: Visit, room: Showroom) -> None:
    page = visit("admin", "audit?actor=bob")
    entries = page.get_by_role("region", name="Entries").get_by_role("listitem")
    expect(entries.first).to_be_visible()
    before = entries.count()
    streams: list[str] = []
    page.on("request", lambda request: streams.append(request.url) if "/audit/stream" in request.url else None)
    # What is done before the switch is on is not missed.
    room.submit("bob", "sft", n_gpus_per_node=1)
    assert not streams
    page.get_by_role("switch", name="Live").check()
    expect(entries).to_have_count(before + 1)
    room.submit("alice", "sft", n_gpus_per_node=1)
    room.submit("bob", "sft", n_gpus_per_node=1)
    expect(entries).to_have_count(before + 2)
    expect(entries.first).to_have_attribute("data-fresh", "true")
    assert len(streams) == 1 and "actor=bob" in streams[0]
    with page.expect_event("requestfailed", lambda request: "/audit/stream" in request.url):
        page.get_by_role("switch", name="Live").uncheck()


def test_what_a_long_day_has_pushed_out_comes_back_as_it_is_scrolled_to(visit: Visit, room: Showroom) -> None:
    """The page holds 2,000 entries."""
    room.tokens["dave"] = room.api.user("dave")["Authorization"].removeprefix("Bearer ")
    for _ in range(11):
        room.submit("dave", "sft", n_gpus_per_node=1)
    told = room.api.get("/api/v2/audit?limit=500&actor=dave&action=task.submit", room.headers("admin"))["entries"]
    assert 10 < len(told) < 100
    new = [{**told[0], "audit_id": told[0]["audit_id"] + 1 + number} for number in range(1_990)]
    day = "".join(f"event: entry\nid: {each['audit_id']}\ndata: {json.dumps(each)}\n\n" for each in new)
    page = visit("admin", "audit?actor=dave&action=task.submit")
    entries = page.get_by_role("region", name="Entries").get_by_role("listitem")
    expect(entries).to_have_count(len(told))
    page.route("**/audit/stream*", lambda route: route.fulfill(content_type="text/event-stream", body=day), times=1)
    page.get_by_role("switch", name="Live").check()
    expect(entries).to_have_count(2_000)
    expect(page.get_by_role("button", name="Show older")).to_be_attached()
    page.get_by_role("switch", name="Live").uncheck()
    page.evaluate("() => window.scrollTo(0, document.body.scrollHeight)")
    expect(entries).to_have_count(1_990 + len(told))


def test_a_name_may_be_hostile(visit: Visit, room: Showroom) -> None:
    admin = room.headers("admin")
    name = "\u05d3\u05d5\u05d3 <script>alert(1)</script>"
    room.api.client.post("/api/v2/users", json={"user_id": "mallory", "display_name": name}, headers=admin)
    page = visit("admin", "users")
    row = page.get_by_role("row").filter(has_text="mallory")
    expect(row.locator("bdi")).to_have_text(name)
    page.get_by_label("Part of a name").fill("mall")
    expect(page.get_by_role("region", name="Users").locator("tbody tr")).to_have_count(1)
    page.get_by_label("Part of a name").fill("")
    for user in USERS:
        expect(page.get_by_role("link", name=user, exact=True)).to_be_visible()


@pytest.mark.parametrize("place", ["submit?template=ppo", "usage", "users", "users/alice", "audit"])
def test_nothing_is_wider_than_a_phone(visit: Visit, place: str) -> None:
    page = visit("admin", place, phone=True)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    expect(page.locator(".loading")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
