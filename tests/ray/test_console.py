"""The console before the real service, through HAProxy: what a researcher and an operator do in a day. Each page is
watched as in tests/console."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest
import yaml
from playwright.sync_api import Browser, Locator, Page, expect

from tests.support import browsing
from tests.support.browsing import Watched, open_page, sign_in
from tests.support.raycluster import Api, Cluster

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(browsing.why_not() is not None, reason=str(browsing.why_not())),
]
#: Milliseconds that a run may take to start.
START_MS = 120_000.0


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing.a_browser() as started:
        yield started


@pytest.fixture
def visit(browser: Browser, cluster: Cluster) -> Iterator[Callable[[Api, str], Page]]:
    watched = Watched(cluster.machine.url)
    pages: list[Page] = []

    def opened(who: Api, place: str) -> Page:
        pages.append(open_page(browser, watched, place))
        sign_in(pages[-1], who.token)
        return pages[-1]

    yield opened
    for page in pages:
        page.context.close()
    assert not watched.faults, "\n".join(watched.faults)


def tab(page: Page, name: str) -> None:
    page.get_by_role("navigation", name="Parts of this task").get_by_role("link", name=name).click()


def typed(page: Page, spec: str) -> Locator:
    page.get_by_label("TaskSpec as YAML").fill(spec)
    return page.get_by_role("region", name="Submission").get_by_role("status")


@pytest.fixture
def user(cluster: Cluster) -> Iterator[Api]:
    """Whose tasks do not outlive the test, whatever becomes of it: they would hold the GPUs of the tests behind it."""
    made = cluster.user()
    yield made
    assert made.request("POST", "/api/v2/tasks:cancel", json={"filter": {}}).status_code == 200


def test_a_day_of_a_researcher(cluster: Cluster, user: Api, visit: Callable[[Api, str], Page]) -> None:
    gate = user.gate()
    plan = cluster.shared / "common" / "plans" / f"console-{user.token[-8:]}.json"
    plan.write_text(json.dumps({"steps": 40, "step_s": 0.2, "wait_for_file": str(gate), "wait_at_step": 21}))
    spec = yaml.safe_dump(
        {
            "workload": "grpo",
            "code_path": str(cluster.shared / "common" / "standin"),
            "model_id": "tiny",
            "train_file": str(plan),
            "val_file": str(plan),
            "nnodes": 1,
            "n_gpus_per_node": 4,
            "total_epochs": 1,
            "total_training_steps": 40,
            "save_freq": 5,
            "test_freq": -1,
            "trainer_device": "cpu",
        },
        sort_keys=False,
    )

    page = visit(user, "submit")
    expect(typed(page, spec.replace("nnodes: 1", "nnodes: 0"))).to_have_text("1 thing to mend")
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.get_by_role("form", name="TaskSpec as a form").get_by_label("Nodes")).to_be_focused()
    expect(typed(page, spec)).to_have_text("Would be accepted now")
    page.get_by_role("button", name="Submit", exact=True).click()
    page.wait_for_url("**/#/task/**")
    task_id = page.url.rsplit("/", 1)[1]

    head = page.locator(".task-head")
    expect(head).to_contain_text("Running", timeout=START_MS)
    expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "50", timeout=START_MS)

    tab(page, "Log")
    log = page.get_by_role("region", name="Log", exact=True)
    expect(log.get_by_text("step:20")).to_be_in_viewport()
    page.keyboard.press("/")
    page.get_by_role("searchbox").fill("step:3 ")
    page.keyboard.press("Enter")
    expect(log.locator("mark").first).to_be_in_viewport()
    page.keyboard.press("Escape")
    tab(page, "Curves")
    score = page.get_by_role("figure", name="critic/score/mean", exact=True)
    plot = score.get_by_role("img")
    expect(plot).to_be_visible()
    label = plot.get_attribute("aria-label") or ""
    box = plot.bounding_box()
    assert box
    page.mouse.move(box["x"] + 120, box["y"] + 80)
    page.mouse.down()
    page.mouse.move(box["x"] + 220, box["y"] + 80)
    page.mouse.up()
    expect(page.get_by_role("button", name="Show all steps")).to_be_visible()

    # It goes on: the curve moves, the zoom stays, and the log follows.
    gate.touch()
    expect(plot).not_to_have_attribute("aria-label", label, timeout=START_MS)
    expect(page.get_by_role("button", name="Show all steps")).to_be_visible()
    tab(page, "Log")
    expect(log.get_by_text("step:40")).to_be_in_viewport(timeout=START_MS)
    expect(head).to_contain_text("It succeeded", timeout=START_MS)

    # A second one is canceled, and goes on from its checkpoint as a third.
    gate.unlink()
    second = user.submit({"step_s": 0.1, "wait_for_file": str(gate), "wait_at_step": 8}, total_training_steps=60)
    page.goto(f"{cluster.machine.url}/#/task/{second}")
    expect(page.get_by_role("progressbar")).not_to_have_attribute("aria-valuenow", "0", timeout=START_MS)
    expect(head).to_contain_text("step 7", timeout=START_MS)
    page.get_by_role("button", name="Cancel…").click()
    page.get_by_role("button", name="Cancel the task").click()
    expect(head).to_contain_text("It was canceled")
    page.get_by_role("button", name="Resume…").click()
    page.get_by_role("button", name="Resume as a new task").click()
    expect(page.get_by_role("region", name="Facts")).to_contain_text("Resubmitted from")
    third = page.url.rsplit("/", 1)[1]
    assert third != second
    gate.touch()
    expect(head).to_contain_text("It succeeded", timeout=START_MS)
    assert user.task(third)["attempts"][0]["command"] != user.task(second)["attempts"][0]["command"]

    page.goto(f"{cluster.machine.url}/#/tasks")
    for each in (task_id, third):
        page.locator(f"#row-{each}").get_by_role("checkbox").check()
    page.get_by_role("link", name="Compare", exact=True).click()
    expect(score.get_by_role("listitem")).to_have_count(2)

    # Nobody else sees any of it.
    other = visit(cluster.user(), f"task/{task_id}")
    expect(other.get_by_role("heading", name="There is no such task")).to_be_visible()
    other.goto(f"{cluster.machine.url}/#/tasks")
    expect(other.get_by_role("heading", name="No tasks yet")).to_be_visible()


def test_a_day_of_an_operator(cluster: Cluster, visit: Callable[[Api, str], Page]) -> None:
    # All nodes are of one machine here, so they share its name: the page must name them by what is theirs alone.
    nodes = cluster.admin.get("/api/v2/nodes")["nodes"]
    worker = next(each["ip"] for each in nodes if not each["is_head"])
    page = visit(cluster.admin, "pool")
    row = page.get_by_role("row").filter(has_text=worker)
    try:
        expect(row).to_contain_text("takes gangs")
        row.get_by_role("button", name="Cordon…").click()
        page.get_by_role("dialog").get_by_label("Reason").fill("a look")
        page.get_by_role("dialog").get_by_role("button", name="Cordon", exact=True).click()
        expect(row).to_contain_text("cordoned")
        row.get_by_role("button", name="Uncordon").click()
        expect(row).to_contain_text("takes gangs")
        expect(page.get_by_role("region", name="Control plane")).to_contain_text("head.json written")
    finally:
        cluster.admin.request("POST", f"/api/v2/nodes/{worker}:uncordon")

    page.goto(f"{cluster.machine.url}/#/users")
    name = "of-the-console"
    page.get_by_role("button", name="Add a user").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Id").fill(name)
    dialog.get_by_role("button", name="Add the user").click()
    page.get_by_role("button", name="Issue a token").click()
    dialog.get_by_label("Label").fill("of a test")
    dialog.get_by_role("button", name="Issue the token").click()
    token = dialog.get_by_text(re.compile("^argus_u_")).inner_text()
    assert cluster.http.get("/api/v2/me", headers={"Authorization": f"Bearer {token}"}).json()["user_id"] == name
