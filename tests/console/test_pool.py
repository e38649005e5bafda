"""The queue, and what operators do with nodes."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.console.conftest import Visit
from tests.support.showroom import Showroom


def test_a_user_sees_own_places_and_others_as_a_count(visit: Visit, room: Showroom) -> None:
    page = visit("chen", "queue")
    waiting = page.get_by_role("region", name="Waiting")
    expect(waiting.get_by_role("row")).to_have_count(2)
    expect(waiting).to_contain_text("1 task of others stands before your first one")
    expect(page.locator("body")).not_to_contain_text("alice")
    everyone = visit("admin", "queue").get_by_role("region", name="Waiting")
    expect(everyone.get_by_role("row")).to_have_count(5)
    expect(everyone).to_contain_text("alice")


def test_the_queue_moves_by_itself(visit: Visit, room: Showroom) -> None:
    page = visit("bob", "queue")
    waiting = page.get_by_role("region", name="Waiting")
    before = waiting.get_by_role("row")
    expect(before).to_have_count(2)
    task_id = room.submit("bob", "sft")
    expect(before).to_have_count(3)
    room.start(task_id).go_on(7)
    expect(before).to_have_count(2)
    expect(page.get_by_role("region", name="Running")).to_contain_text("7/200")
    room.end(task_id)
    expect(page.get_by_role("region", name="Running")).not_to_contain_text(task_id[-4:])


def test_an_administrator_cordons_drains_and_uncordons(visit: Visit, room: Showroom) -> None:
    page = visit("admin", "pool")
    row = page.get_by_role("row", name="gpu-04")
    expect(page.get_by_role("img", name="gpu-01: alice 8, free 0")).to_be_visible()
    row.get_by_role("button", name="Cordon…").click()
    dialog = page.get_by_role("dialog", name="Cordon gpu-04")
    dialog.get_by_label("Reason").fill("a fan <b>rattles</b>")
    dialog.get_by_role("button", name="Cordon", exact=True).click()
    expect(dialog).to_have_count(0)
    expect(row).to_contain_text("cordoned")
    expect(row).to_contain_text("a fan <b>rattles</b>; admin")
    assert "gpu-04" in str(room.api.get("/api/v2/nodes", room.headers("admin"))["nodes"])
    row.get_by_role("button", name="Drain…").click()
    page.get_by_label("Deadline").fill("2.5")
    page.get_by_role("button", name="Drain", exact=True).click()
    expect(row).to_contain_text("drain")
    row.get_by_role("button", name="Uncordon").click()
    expect(row).to_contain_text("takes gangs")


def test_maintenance_goes_on_and_off(visit: Visit, room: Showroom) -> None:
    page = visit("admin", "pool")
    area = page.get_by_role("region", name="Maintenance")
    area.get_by_label("Reason of the maintenance").fill("new switches")
    area.get_by_role("button", name="Begin maintenance").click()
    expect(area).to_contain_text("new switches; admin")
    assert room.api.get("/api/v2/maintenance", room.headers("admin"))["on"]
    area.get_by_role("button", name="End maintenance").click()
    expect(area.get_by_role("button", name="Begin maintenance")).to_be_visible()


def test_a_user_sees_no_pool(visit: Visit) -> None:
    page = visit("alice", "pool")
    expect(page.get_by_role("heading", name="For administrators")).to_be_visible()
    expect(page.get_by_role("navigation", name="Pages")).not_to_contain_text("Pool")
