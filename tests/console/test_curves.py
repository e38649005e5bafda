"""Curves that grow, and tasks over each other."""

from __future__ import annotations

import contextlib
import re
import threading
import time

from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import Route, expect

from tests.console.conftest import Visit
from tests.support.showroom import Showroom


def started(room: Showroom, user: str = "alice", kind: str = "grpo", steps: int = 60) -> str:
    task_id = room.submit(user, kind)
    room.start(task_id).go_on(steps)
    return task_id


def test_a_curve_grows_before_the_eyes_and_its_zoom_stays(visit: Visit, room: Showroom) -> None:
    task_id = started(room)
    page = visit("alice", f"compare?task={task_id}")
    score = page.get_by_role("figure", name="critic/score/mean", exact=True)
    plot = score.get_by_role("img")
    before = plot.get_attribute("aria-label")
    assert before
    room.running[task_id].go_on(3)
    expect(plot).not_to_have_attribute("aria-label", before)
    expect(page.get_by_role("table").first).to_be_visible()  # which moves what is below it
    box = plot.bounding_box()
    assert box
    page.mouse.move(box["x"] + 120, box["y"] + 80)
    page.mouse.down()
    page.mouse.move(box["x"] + 240, box["y"] + 80)
    page.mouse.up()
    again = page.get_by_role("button", name="Show all steps")
    expect(again).to_be_visible()
    label = plot.get_attribute("aria-label")
    room.running[task_id].go_on(3)
    expect(plot).not_to_have_attribute("aria-label", label or "")
    expect(again).to_be_visible()
    again.click()
    expect(again).to_have_count(0)
    room.end(task_id)


def test_curves_come_though_the_runs_are_quicker_than_the_answer(visit: Visit, room: Showroom) -> None:
    ids = started(room, steps=5), started(room, steps=5)
    page = visit("alice")
    over = threading.Event()

    def steps() -> None:
        while not over.wait(0.2):
            for task_id in ids:
                room.running[task_id].go_on(1)

    def late(route: Route) -> None:
        time.sleep(2)
        with contextlib.suppress(PlaywrightError):  # of a request that was given up
            route.continue_()

    page.route("**/api/v2/curves*", late)
    runs = threading.Thread(target=steps)
    runs.start()
    try:
        page.goto(f"{room.url}/#/compare?task={ids[0]}&task={ids[1]}")
        expect(page.get_by_role("figure", name="critic/score/mean", exact=True)).to_be_visible(timeout=30_000)
    finally:
        over.set()
        runs.join()
    for task_id in ids:
        room.end(task_id)


def test_arrows_move_one_cursor_through_all_charts(visit: Visit, room: Showroom) -> None:
    task_id = started(room, steps=40)
    page = visit("alice", f"compare?task={task_id}")
    score = page.get_by_role("figure", name="critic/score/mean", exact=True)
    entropy = page.get_by_role("figure", name="actor/entropy", exact=True)
    score.get_by_role("img").focus()
    page.keyboard.press("Home")
    expect(score).to_contain_text("step 1")
    expect(entropy).to_contain_text("step 1")
    page.keyboard.press("ArrowRight")
    expect(score).to_contain_text("step 2")
    expect(entropy).to_contain_text("step 2")
    room.end(task_id)


def test_the_numbers_stand_in_a_table_too(visit: Visit, room: Showroom) -> None:
    task_id = started(room, kind="sft", steps=30)
    page = visit("alice", f"compare?task={task_id}")
    loss = page.get_by_role("figure", name="train/loss", exact=True)
    loss.get_by_text("Numbers").click()
    rows = loss.get_by_role("table").get_by_role("row")
    expect(rows).to_have_count(31)
    expect(rows.nth(1)).to_contain_text(re.compile(r"^1\d?\.?\d*"))
    room.end(task_id)


def test_what_differs_stands_beside_each_other_and_a_task_can_be_left_out(visit: Visit, room: Showroom) -> None:
    one, other = started(room, steps=20), room.submit("alice", "grpo", n_gpus_per_node=2, save_freq=7)
    room.start(other).go_on(25)
    page = visit("alice", f"compare?task={one}&task={other}")
    table = page.get_by_role("table").first
    expect(table.get_by_role("row", name="save_freq")).to_contain_text("7")
    expect(table.get_by_role("row", name="model_id")).to_have_count(0)
    expect(page.get_by_role("figure", name="critic/score/mean", exact=True).get_by_role("listitem")).to_have_count(2)
    page.get_by_role("button", name=f"Leave {other[-4:]} out").click()
    expect(page.get_by_role("figure", name="critic/score/mean", exact=True).get_by_role("listitem")).to_have_count(1)
    assert other not in page.url
    for task_id in (one, other):
        room.end(task_id)


def test_a_chart_that_waits_for_its_turn_draws_no_series_that_it_does_not_have(visit: Visit, room: Showroom) -> None:
    one, other = started(room, steps=20), started(room, steps=20)
    page = visit("alice", f"compare?task={one}&task={other}")
    score = page.get_by_role("figure", name="critic/score/mean", exact=True)
    expect(score.get_by_role("listitem")).to_have_count(2)
    # It has just drawn, so what comes next waits; and the page is busy until its turn has come, with a series less.
    page.evaluate(
        """async (button) => {
            const range = document.querySelector("input[type=range]");
            const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 20)));
            for (const value of ["0.5", "0.52", "0.54"]) {
                range.value = value;
                range.dispatchEvent(new Event("input", { bubbles: true }));
                await frame();
            }
            const until = performance.now() + 300;
            while (performance.now() < until);
            button.click();
        }""",
        page.get_by_role("button", name=f"Leave {other[-4:]} out").element_handle(),
    )
    expect(score.get_by_role("listitem")).to_have_count(1)
    for task_id in (one, other):
        room.end(task_id)


def test_a_second_attempt_is_marked_and_the_curve_is_the_models_history(visit: Visit, room: Showroom) -> None:
    page = visit("bob", "tasks")
    running = room.api.get("/api/v2/tasks?state=RUNNING", room.headers("bob"))["tasks"][0]["task_id"]
    page.goto(f"{room.url}/#/compare?task={running}")
    loss = page.get_by_role("figure", name="train/loss", exact=True)
    loss.get_by_text("Numbers").click()
    expect(loss.get_by_role("table").locator("tbody tr")).not_to_have_count(0)
    steps = [
        int(each.replace(",", ""))
        for each in loss.get_by_role("table").locator("tbody td:first-child").all_inner_texts()
    ]
    assert steps == sorted(set(steps)) and steps[0] == 1


def test_another_users_task_is_not_compared(visit: Visit, room: Showroom) -> None:
    task_id = started(room, "alice", steps=5)
    page = visit("bob", f"compare?task={task_id}")
    expect(page.get_by_role("alert").first).to_be_visible()
    expect(page.get_by_role("figure")).to_have_count(0)
    room.end(task_id)
