"""The page of one task: what it does now, why it waits, how it ended, and what can be done about it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from argus_ray.core.states import Outcome
from tests.console.conftest import Visit
from tests.support.browsing import has_shown, will_show
from tests.support.checkpoints import save
from tests.support.showroom import NODES, Showroom

HOSTILE = "<img src=x onerror=\"document.title='owned'\"> \u202egnp.exe"
HARMLESS = "<img src=x onerror=\"document.title='owned'\"> \u2039U+202E\u203agnp.exe"


def find(room: Showroom, user: str, state: str) -> str:
    tasks = room.api.get(f"/api/v2/tasks?state={state}", room.headers(user))["tasks"]
    return str(tasks[0]["task_id"])


def tab(page: Page, name: str) -> None:
    page.get_by_role("navigation", name="Parts of this task").get_by_role("link", name=name).click()


def test_its_state_and_its_steps_move_without_a_reload(visit: Visit, room: Showroom) -> None:
    task_id = room.submit("chen", "sft")
    page = visit("chen", f"task/{task_id}")
    page.evaluate("() => { document.body.dataset.loaded = 'once'; }")
    head = page.get_by_role("banner").or_(page.locator(".task-head")).last
    expect(head).to_contain_text("Queued")
    run = room.start(task_id)
    run.go_on(50)
    expect(head).to_contain_text("Running")
    expect(head).to_contain_text("It runs on 1\u00d74 GPUs (gpu-01): step 50 of 200")
    expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "25")
    run.go_on(10)
    expect(head).to_contain_text("step 60 of 200")
    expect(page.get_by_role("region", name="Attempts")).to_contain_text("running")
    room.end(task_id)
    expect(head).to_contain_text("It succeeded")
    expect(page.get_by_role("region", name="Attempts")).to_contain_text("succeeded")
    expect(page.locator("body")).to_have_attribute("data-loaded", "once")
    assert re.fullmatch(rf"sft {task_id[-4:]} · Argus", page.title())


def test_it_is_canceled_after_a_word_on_what_happens(visit: Visit, room: Showroom) -> None:
    task_id = room.submit("chen", "grpo", n_gpus_per_node=8)
    room.start(task_id).go_on(3)
    page = visit("chen", f"task/{task_id}")
    page.get_by_role("button", name="Cancel…").click()
    dialog = page.get_by_role("dialog", name="Cancel grpo")
    expect(dialog).to_contain_text("8 GPUs become free")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    page.get_by_role("button", name="Cancel…").click()
    dialog.get_by_role("button", name="Cancel the task").click()
    expect(page.locator(".task-head")).to_contain_text("It was canceled")
    expect(page.get_by_role("button", name="Cancel…")).to_have_count(0)
    assert room.api.get(f"/api/v2/tasks/{task_id}", room.headers("chen"))["state"] == "CANCELED"


def test_it_is_resumed_from_a_checkpoint_that_is_named(visit: Visit, room: Showroom) -> None:
    task_id = room.submit("chen", "sft")
    room.start(task_id).go_on(45)
    room.end(task_id, Outcome.APPLICATION, 1, "the disk was full")
    page = visit("chen", f"task/{task_id}")
    page.get_by_role("button", name="Resume…").click()
    dialog = page.get_by_role("dialog", name="Resume sft")
    expect(dialog).to_contain_text("global_step_40 of attempt 1")
    will_show(page, "is in the queue")
    dialog.get_by_role("button", name="Resume as a new task").click()
    has_shown(page, "is in the queue")
    expect(page.locator(".task-head")).to_contain_text("Queued")
    facts = page.get_by_role("region", name="Facts")
    expect(facts).to_contain_text("Resubmitted from")
    facts.get_by_role("link", name=task_id[-4:]).click()
    expect(page.get_by_role("region", name="Facts")).to_contain_text("Resubmitted as")


def test_it_is_exported_and_a_refusal_stays_in_the_window(visit: Visit, room: Showroom) -> None:
    task_id = room.submit("chen", "sft")
    run = room.start(task_id)
    run.go_on(2)
    room.end(task_id)
    page = visit("chen", f"task/{task_id}")
    page.get_by_role("button", name="Export…").click()
    dialog = page.get_by_role("dialog", name="Export sft")
    dialog.get_by_role("button", name="Export").click()
    expect(dialog.get_by_role("alert")).to_contain_text("nothing_to_export")
    save(run.admit.job_root, (20,), "sft")
    dialog.get_by_role("button", name="Export").click()
    expect(page.get_by_role("region", name="Facts")).to_contain_text(f"{task_id[-4:]}, step 20, actor")
    expect(page.get_by_role("button", name="Export…")).to_have_count(0)


def test_it_is_resubmitted_from_the_beginning(visit: Visit, room: Showroom) -> None:
    task_id = room.submit("chen", "sft")
    room.start(task_id).go_on(2)
    room.end(task_id)
    page = visit("chen", f"task/{task_id}")
    expect(page.get_by_role("button", name="Resume…")).to_have_count(0)
    page.get_by_role("button", name="Resubmit…").click()
    page.get_by_role("button", name="Resubmit as a new task").click()
    expect(page.get_by_role("region", name="Facts")).to_contain_text("Resubmitted from")


def test_a_task_of_another_user_is_not_found(visit: Visit, room: Showroom) -> None:
    task_id = find(room, "bob", "RUNNING")
    for place in (f"task/{task_id}", f"task/{task_id}/log", "task/argus-bob-sft-20200101-000000-0000"):
        page = visit("alice", place)
        expect(page.get_by_role("heading", name="There is no such task")).to_be_visible()
        expect(page.get_by_role("navigation", name="Parts of this task")).to_have_count(0)


def test_the_end_of_an_id_is_enough(visit: Visit, room: Showroom) -> None:
    task_id = find(room, "alice", "RUNNING")
    page = visit("alice", f"task/{task_id[-4:]}/events")
    expect(page.get_by_role("region", name="Events")).to_contain_text("accepted")
    assert page.url.endswith(f"#/task/{task_id}/events")
    page.goto(f"{room.url}/#/task/zzzz")
    expect(page.get_by_role("heading", name="There is no such task")).to_be_visible()


def test_of_two_tasks_with_one_end_one_is_chosen(visit: Visit, room: Showroom) -> None:
    both = room.api.get("/api/v2/tasks?limit=2", room.headers("alice"))

    def answer(route: Route) -> None:
        route.fulfill(json=both)

    page = visit("alice")
    page.route(re.compile("id_suffix=beef"), answer)
    page.goto(f"{room.url}/#/task/beef/spec")
    expect(page.get_by_role("heading", name="2 tasks of yours end with beef")).to_be_visible()
    page.get_by_role("link", name=both["tasks"][1]["task_id"]).click()
    expect(page.get_by_role("region", name="TaskSpec")).to_contain_text("workload:")


def test_why_it_waits_is_told_with_what_is_missing(visit: Visit, room: Showroom) -> None:
    waiting = room.submit("alice", "grpo", n_gpus_per_node=8, nnodes=4)
    page = visit("alice", f"task/{waiting}/explain")
    why = page.get_by_role("region", name="Why")
    said = room.api.get(f"/api/v2/tasks/{waiting}/explain", room.headers("alice"))
    expect(why).to_contain_text(said["code"])
    expect(why).to_contain_text(said["sentence"])
    expect(page.locator(".task-head")).to_contain_text(said["sentence"][1:])
    for own in said["own_ahead"]:
        expect(why.get_by_role("link", name=own[-4:])).to_be_visible()
    expect(why).to_contain_text(f"{said['others_ahead']} of others")
    missing = page.get_by_role("region", name="What is missing")
    expect(missing.get_by_role("row")).to_have_count(1 + len(said["shortfall"]))
    expect(page.get_by_role("region", name="When it may start")).to_be_visible()


def test_why_it_failed_is_told_and_what_others_wrote_does_nothing(visit: Visit, room: Showroom) -> None:
    task_id = room.submit("chen", "sft")
    run = room.start(task_id)
    run.go_on(3)
    odd = Path(run.admit.job_root) / "<b>odd \u202egnp.exe"
    odd.write_text("x")
    room.end(task_id, Outcome.APPLICATION, 1, HOSTILE)
    page = visit("chen", f"task/{task_id}")
    expect(page.get_by_role("region", name="Why it failed")).to_contain_text(HARMLESS)
    expect(page.locator(".task-answer")).to_contain_text(HARMLESS)
    expect(page.get_by_role("region", name="Attempts")).to_contain_text(HARMLESS)
    tab(page, "Events")
    expect(page.get_by_role("region", name="Events")).to_contain_text(HARMLESS)
    tab(page, "Files")
    expect(page.get_by_role("region", name="Files")).to_contain_text("<b>odd \u2039U+202E\u203agnp.exe")
    assert page.locator("main img, main b:text('odd')").count() == 0
    assert "owned" not in page.title()
    assert "\u202e" not in page.locator("body").inner_text()


def test_events_stand_with_their_causes(visit: Visit, room: Showroom) -> None:
    page = visit("bob", f"task/{find(room, 'bob', 'RUNNING')}/events")
    table = page.get_by_role("region", name="Events")
    for cause in ("accepted", "admitted", "driver_started", "infrastructure_loss"):
        expect(table.get_by_role("cell", name=cause, exact=True).first).to_be_visible()


def test_the_taskspec_is_as_it_was_submitted(visit: Visit, room: Showroom) -> None:
    task_id = find(room, "alice", "RUNNING")
    page = visit("alice", f"task/{task_id}/spec")
    text = room.api.client.get(f"/api/v2/tasks/{task_id}/spec", headers=room.headers("alice")).text
    spec = page.get_by_role("region", name="TaskSpec")
    assert spec.locator("pre").inner_text().strip() == text.strip()
    expect(spec.get_by_role("link", name="Submit again")).to_have_attribute("href", f"#/submit?from={task_id}")


def test_files_are_walked_and_saved_and_large_ones_go_by_a_command(visit: Visit, room: Showroom) -> None:
    task_id = room.submit("chen", "sft")
    run = room.start(task_id)
    run.go_on(21)
    large = Path(run.admit.job_root) / "checkpoints" / "global_step_20" / "large.pt"
    with large.open("wb") as file:
        file.truncate(1 << 30)
    page = visit("chen", f"task/{task_id}/files")
    files = page.get_by_role("region", name="Files")
    files.get_by_role("link", name="checkpoints/").click()
    files.get_by_role("link", name="global_step_20/").click()
    with page.expect_download() as download:
        files.get_by_role("button", name="Download data.pt").click()
    assert download.value.path().read_bytes() == bytes(14_201)
    files.get_by_role("button", name="Download large.pt").click()
    dialog = page.get_by_role("dialog", name="Too large for a browser")
    expect(dialog).to_contain_text(f"argus files {task_id} --attempt 1 --download checkpoints/global_step_20/large.pt")
    expect(dialog).to_contain_text("curl")
    assert room.token("chen") not in page.content()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    files.get_by_role("link", name="job root").click()
    expect(files.get_by_role("link", name="logs/")).to_be_visible()


def test_rollouts_are_read_by_step_and_score(visit: Visit, room: Showroom) -> None:
    task_id = room.submit("chen", "grpo")
    run = room.start(task_id)
    run.go_on(40)
    samples = Path(run.admit.job_root) / "rollouts" / "40.jsonl"
    long = {"input": HOSTILE, "output": "word " * 4000, "gts": {"a": 1}, "score": 0.5, "step": 40}
    with samples.open("a") as file:
        file.write(json.dumps(long) + "\n")
    page = visit("chen", f"task/{task_id}/rollouts")
    steps = page.get_by_role("region", name="Steps")
    expect(steps.get_by_role("listitem")).to_contain_text(["Step 40", "Step 20"])
    shown = page.get_by_role("region", name="Samples of step 40")
    expect(shown.locator(".sample")).to_have_count(17)
    last = shown.locator(".sample").last
    expect(last).to_contain_text(HARMLESS)
    expect(last).to_contain_text('{"a":1}')
    assert len(last.inner_text()) < 3000
    last.get_by_role("button", name="Show all").first.click()
    expect(last.get_by_role("button", name="Show less")).to_be_visible()
    page.get_by_label("Scores").select_option("low")
    expect(shown.locator(".sample")).to_have_count(6)
    assert "score=low" in page.url
    steps.get_by_role("button", name="Step 20").click()
    expect(page.get_by_role("region", name="Samples of step 20")).to_be_visible()
    page.get_by_role("button", name="Validation").click()
    expect(page.get_by_text("No validation samples.")).to_be_visible()


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("", "argus watch ID"),
        ("log", "argus logs ID -f"),
        ("spec", "argus show ID --yaml"),
        ("files", "argus files ID"),
    ],
)
def test_the_command_for_the_same_is_there(visit: Visit, room: Showroom, name: str, command: str) -> None:
    task_id = find(room, "alice", "RUNNING")
    page = visit("alice", f"task/{task_id}/{name}".rstrip("/"))
    expect(page.locator(".task-command")).to_have_text(command.replace("ID", task_id))
    will_show(page, "Copied")
    page.get_by_role("button", name="Copy as CLI").click()
    has_shown(page, "Copied")


def test_two_attempts_stand_on_one_line_of_time(visit: Visit, room: Showroom) -> None:
    page = visit("bob", f"task/{find(room, 'bob', 'RUNNING')}")
    attempts = page.get_by_role("region", name="Attempts").get_by_role("listitem")
    expect(attempts).to_have_count(2)
    expect(attempts.first).to_contain_text(f"node {NODES[1].hostname} was lost")
    expect(attempts.first).to_contain_text("steps 1 to 63")
    expect(attempts.last).to_contain_text("running")
    attempts.first.get_by_role("link", name="#1").click()
    expect(page.get_by_role("region", name="Log", exact=True)).to_contain_text("step:63")


def test_a_late_answer_takes_no_step_back(visit: Visit, room: Showroom) -> None:
    """What it tells of progress was read before the stream told of more, which it does once."""
    task_id = room.submit("alice", "sft")
    run = room.start(task_id)
    run.go_on(9)
    page = visit("alice", f"task/{task_id}")
    head = page.locator(".task-head")
    expect(head).to_contain_text("step 9 of")

    def late(route: Route) -> None:
        answer = route.fetch()
        body = answer.json()
        body["progress"]["step"] = 9
        route.fulfill(response=answer, json={**body, "workload": "grpo"})

    run.go_on(1)
    expect(head).to_contain_text("step 10 of")
    page.route(f"**/api/v2/tasks/{task_id}", late)
    page.route("**/api/v2/stream*", lambda route: None)  # which would tell it again
    # Asks again for all that is shown.
    page.evaluate("() => document.dispatchEvent(new Event('visibilitychange'))")
    expect(head).to_contain_text("grpo")
    assert "step 10 of" in head.inner_text()
    room.end(task_id)
