"""Submit: the form and its text, the checks, and a draft that nothing takes away."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from argus_ray.cli.templates import text_of
from tests.console.conftest import Visit, sign_in
from tests.support.browsing import has_shown, will_show
from tests.support.showroom import Showroom

GOOD = """\
# Of the week of the fair
workload: grpo   # not ppo

code_path: {common}/code/verl/verl_repo
model_id: 'Qwen/Qwen2.5-0.5B-Instruct'
train_file: "{common}/datasets/gsm8k/rl.parquet"
val_file: {common}/datasets/gsm8k/rl.parquet
nnodes: 1
n_gpus_per_node: 8 # of one node
total_epochs: 1
# total_training_steps: 100
save_freq: 20
test_freq: 10
"""


def good(room: Showroom) -> str:
    return GOOD.format(common=f"{room.api.world.shared_root}/common")


def text(page: Page) -> Locator:
    return page.get_by_label("TaskSpec as YAML")


def form(page: Page) -> Locator:
    return page.get_by_role("form", name="TaskSpec as a form")


def state(page: Page) -> Locator:
    return page.get_by_role("region", name="Submission").get_by_role("status")


def marked(page: Page) -> Locator:
    return page.locator(".yaml-line[data-look=bad]")


def written(page: Page, given: str) -> None:
    """As somebody pastes it, and waits for the verdict."""
    text(page).fill(given)
    expect(state(page)).to_have_text("Would be accepted now")


@pytest.mark.parametrize("kind", ["sft", "grpo", "ppo"])
def test_a_template_is_that_of_the_command(visit: Visit, kind: str) -> None:
    page = visit("alice", f"submit?template={kind}")
    expect(text(page)).to_have_value(text_of(kind, "/private"))
    expect(form(page).get_by_role("radio", name=kind)).to_be_checked()


def test_paths_of_a_template_are_put_where_the_service_has_its_inputs(visit: Visit, room: Showroom) -> None:
    page = visit("alice", "submit?template=sft")
    page.get_by_role("button", name="Change the paths").click()
    root = str(room.api.world.shared_root)
    expect(text(page)).to_have_value(re.compile(rf"train_file: {re.escape(root)}/common/datasets/gsm8k-sft/"))
    assert "# (*) The folder with verl" in text(page).input_value()


def test_a_bad_submission_shows_its_rules_at_their_fields_and_lines(visit: Visit, room: Showroom) -> None:
    page = visit("alice", "submit")
    before = room.api.get("/api/v2/tasks:counts", room.headers("alice"))["total"]
    bad = good(room).replace("nnodes: 1", "nnodes: 0").replace("total_epochs: 1\n", "colour: red\n")
    text(page).fill(bad)
    expect(state(page)).to_have_text("3 things to mend")
    page.keyboard.press("Control+Enter")

    nodes = form(page).get_by_label("Nodes")
    expect(nodes).to_be_focused()
    expect(nodes).to_have_attribute("aria-invalid", "true")
    expect(nodes).to_have_accessible_description(re.compile("greater than or equal to 1"))
    expect(form(page).get_by_label("Epochs")).to_have_accessible_description("is required")
    expect(form(page).get_by_label("Model")).to_have_attribute("aria-invalid", "false")
    expect(marked(page)).to_have_text(["nnodes: 0", "colour: red"])
    findings = page.get_by_role("list", name="What to mend")
    expect(findings.get_by_role("listitem")).to_have_count(3)

    findings.get_by_role("button", name="colour").click()
    expect(text(page)).to_be_focused()
    assert page.evaluate("getSelection().toString()") == "colour: red"
    assert room.api.get("/api/v2/tasks:counts", room.headers("alice"))["total"] == before


def test_a_good_submission_lands_on_its_task(visit: Visit, room: Showroom) -> None:
    page = visit("alice", "submit")
    written(page, good(room))
    checks = page.get_by_role("region", name="Checks")
    expect(checks).to_contain_text("1 node with 8 GPUs")
    expect(checks).to_contain_text("Fits now")
    checks.get_by_text("Command", exact=True).click()
    expect(checks.get_by_label("Command")).to_contain_text("verl.trainer.main_ppo")
    expect(checks.get_by_label("Command")).to_contain_text("algorithm.adv_estimator=grpo")
    will_show(page, "was accepted.")
    page.get_by_role("button", name="Submit", exact=True).click()
    page.wait_for_url("**/#/task/**")
    task_id = page.url.rsplit("/", 1)[1]
    has_shown(page, f"Task {task_id[-4:]} was accepted.")
    spec = room.api.client.get(f"/api/v2/tasks/{task_id}/spec", headers=room.headers("alice"))
    assert spec.text == good(room), "byte for byte as it was typed"

    page.go_back()
    expect(page.get_by_text("This was accepted as")).to_be_visible()
    expect(text(page)).to_have_value(good(room))


def test_the_form_writes_into_the_text_and_leaves_the_rest(visit: Visit, room: Showroom) -> None:
    page = visit("alice", "submit")
    text(page).fill(good(room))
    fields = form(page)
    expected = good(room)
    for label, value, old, new in (
        ("GPUs a node", "4", "n_gpus_per_node: 8 #", "n_gpus_per_node: 4 #"),
        ("Model", "Qwen/Qwen3-8B", "'Qwen/Qwen2.5-0.5B-Instruct'", "'Qwen/Qwen3-8B'"),
        ("Steps at most", "150", "# total_training_steps: 100", "total_training_steps: 150"),
        (
            "Validation data",
            "/x: y #z",
            f"val_file: {room.api.world.shared_root}/common/datasets/gsm8k/rl.parquet",
            'val_file: "/x: y #z"',
        ),
        ("Nodes", "", "nnodes: 1", "nnodes:"),
        ("Save every", "yes", "save_freq: 20", 'save_freq: "yes"'),
    ):
        assert old in expected
        fields.get_by_label(label).fill(value)
        expected = expected.replace(old, new, 1)
        expect(text(page)).to_have_value(expected)
        expect(fields.get_by_label(label)).to_have_value(value)
    fields.get_by_role("radio", name="ppo").check()
    expect(text(page)).to_have_value(expected.replace("workload: grpo   # not", "workload: ppo   # not"))
    fields.get_by_role("radio", name="cpu").check()
    assert text(page).input_value().endswith("test_freq: 10\ntrainer_device: cpu\n")


def test_the_text_writes_into_the_form(visit: Visit, room: Showroom) -> None:
    page = visit("alice", "submit")
    text(page).fill('nnodes: 2\nworkload: "sft"\nmodel_id: |\n  a\n  b\nsave_freq: 010\n')
    fields = form(page)
    expect(fields.get_by_label("Nodes")).to_have_value("2")
    expect(fields.get_by_label("Save every")).to_have_value("010")
    expect(fields.get_by_role("radio", name="sft")).to_be_checked()
    expect(fields.get_by_label("Model")).not_to_be_editable()
    text(page).fill("nnodes: 2\nworkload: [")
    expect(fields.get_by_text("The form goes on when the text is YAML again")).to_be_visible()
    expect(fields.get_by_label("Nodes")).to_be_disabled()
    expect(marked(page)).not_to_have_count(0)
    text(page).fill('{"nnodes": 3, "workload": "ppo"}')
    expect(fields.get_by_label("Nodes")).to_have_value("3")
    fields.get_by_label("Epochs").fill("7")
    expect(text(page)).to_have_value('{"nnodes": 3, "workload": "ppo", "total_epochs": 7}')


def test_letters_of_a_field_stay_as_they_are_typed(visit: Visit, room: Showroom) -> None:
    """A quote that a word needs for a moment (a space at its end) is gone with its reason."""
    page = visit("alice", "submit")
    text(page).fill(good(room))
    field = form(page).get_by_label("Code")
    field.fill("")
    field.press_sequentially("/a b: c")
    expect(field).to_have_value("/a b: c")
    for _ in ": c":
        field.press("Backspace")
    expect(text(page)).to_have_value(re.compile(r"^code_path: /a b$", re.M))


def test_a_file_takes_the_place_of_the_draft_which_can_be_brought_back(
    visit: Visit, room: Showroom, tmp_path: Path
) -> None:
    page = visit("alice", "submit")
    text(page).fill("nnodes: 5\n")
    file = tmp_path / "mine.yaml"
    file.write_bytes(good(room).replace("\n", "\r\n").encode())
    page.get_by_label("A TaskSpec from a file").set_input_files(file)
    expect(text(page)).to_have_value(good(room))
    expect(page.get_by_text("from file mine.yaml")).to_be_visible()
    page.get_by_role("button", name="Bring back what was here").click()
    expect(text(page)).to_have_value("nnodes: 5\n")
    file.write_bytes(b"\xff\xfe\x00PAR1")
    page.get_by_label("A TaskSpec from a file").set_input_files(file)
    expect(page.get_by_text("mine.yaml is no text.")).to_be_visible()
    expect(text(page)).to_have_value("nnodes: 5\n")


def test_presets_are_chosen_in_an_order_and_the_later_one_wins(visit: Visit, room: Showroom) -> None:
    page = visit("alice", "submit")
    written(page, good(room))
    presets = page.get_by_role("region", name="Presets")
    presets.get_by_role("checkbox", name="careful").check()
    presets.get_by_role("checkbox", name="long-answers").check()
    lost = presets.locator("[data-lost]")
    expect(lost).to_have_count(1)
    expect(lost).to_contain_text("gpu_memory_utilization=0.4")
    checks = page.get_by_role("region", name="Checks")
    checks.get_by_text("Settings").click()
    both = checks.get_by_role("listitem").filter(has_text="gpu_memory_utilization")
    expect(both).to_contain_text("=0.7 preset long-answers")
    presets.get_by_role("button", name="careful later").click()
    expect(both).to_contain_text("=0.4 preset careful")
    expect(lost).to_contain_text("gpu_memory_utilization=0.7")
    page.get_by_role("button", name="Submit with 2 presets").click()
    page.wait_for_url("**/#/task/**")
    task = room.api.get(f"/api/v2/tasks/{page.url.rsplit('/', 1)[1]}", room.headers("alice"))
    assert task["presets"] == ["long-answers", "careful"]
    page.goto(f"{room.url}/#/submit?from={task['task_id']}")
    expect(page.get_by_text(f"from task {task['task_id'][-4:]}")).to_be_visible()
    expect(presets.get_by_role("checkbox", name="careful")).to_be_checked()


def test_a_draft_survives_a_reload_and_a_revoked_token(visit: Visit, room: Showroom) -> None:
    admin = room.headers("admin")
    room.api.client.post("/api/v2/users", json={"user_id": "dora"}, headers=admin)
    issued = [room.api.client.post("/api/v2/users/dora/tokens", headers=admin).json() for _ in range(2)]
    page = visit(None, "submit")
    sign_in(page, issued[0]["token"])
    written(page, good(room))
    page.get_by_role("region", name="Presets").get_by_role("checkbox", name="careful").check()
    page.reload()
    expect(text(page)).to_have_value(good(room))
    expect(state(page)).to_have_text("Would be accepted now")

    text(page).focus()
    page.keyboard.press("Control+End")
    page.keyboard.type("# one")
    expect(state(page)).to_have_text("Would be accepted now")
    room.api.client.delete(f"/api/v2/users/dora/tokens/{issued[0]['token_id']}", headers=admin)
    page.keyboard.insert_text(" more")  # at once, before the dialog takes the keys
    expect(page.get_by_role("dialog", name="Sign in")).to_contain_text("nothing on this page is lost")
    sign_in(page, issued[1]["token"])
    expect(text(page)).to_have_value(good(room) + "# one more")
    expect(page.get_by_role("checkbox", name="careful")).to_be_checked()
    expect(state(page)).to_have_text("Would be accepted now")


def test_who_signs_in_after_another_sees_nothing_of_the_draft(visit: Visit, room: Showroom) -> None:
    admin = room.headers("admin")
    issued = room.api.client.post("/api/v2/users/bob/tokens", headers=admin).json()
    page = visit(None, "submit")
    sign_in(page, issued["token"])
    text(page).fill("# of bob\n")
    room.api.client.delete(f"/api/v2/users/bob/tokens/{issued['token_id']}", headers=admin)
    page.keyboard.type("nnodes: 1\n")
    expect(page.get_by_role("dialog", name="Sign in")).to_contain_text("nothing on this page is lost")
    sign_in(page, room.token("chen"))
    expect(page.get_by_text("chen", exact=True)).to_be_visible()
    expect(text(page)).to_have_value("")


def test_without_an_answer_the_checks_wait_and_go_on_by_themselves(visit: Visit, room: Showroom) -> None:
    page = visit("alice", "submit")
    written(page, good(room))
    page.route("**/api/v2/tasks:validate*", lambda route: route.abort("connectionrefused"))
    text(page).press("Control+End")
    page.keyboard.type("# more")
    expect(state(page)).to_have_text("Not checked: the service does not answer")
    expect(text(page)).to_have_value(good(room) + "# more")
    page.unroute("**/api/v2/tasks:validate*")
    expect(state(page)).to_have_text("Would be accepted now")


def test_an_answer_to_an_earlier_text_never_shows(visit: Visit, room: Showroom) -> None:
    page = visit("alice", "submit")
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    held: list[Route] = []

    def hold(route: Route) -> None:
        if "nnodes: 0" in (route.request.post_data or ""):
            held.append(route)
        else:
            route.continue_()

    page.route("**/api/v2/tasks:validate*", hold)
    with page.expect_request("**/api/v2/tasks:validate*"):
        text(page).fill(good(room).replace("nnodes: 1", "nnodes: 0"))
    with page.expect_event("requestfailed", lambda request: "nnodes: 0" in (request.post_data or "")):
        text(page).fill(good(room))
    expect(state(page)).to_have_text("Would be accepted now")
    assert len(held) == 1
    expect(marked(page)).to_have_count(0)


def test_a_double_click_and_a_broken_answer_make_one_task(visit: Visit, room: Showroom) -> None:
    page = visit("chen", "submit")
    total = room.api.get("/api/v2/tasks:counts", room.headers("chen"))["total"]
    written(page, good(room))
    tries: list[dict[str, Any]] = []

    def lost(route: Route) -> None:
        """It is accepted, and the answer goes astray."""
        tries.append({"key": route.request.headers["idempotency-key"]})
        if len(tries) > 1:
            route.continue_()
            return
        route.fetch()
        route.abort("connectionreset")

    page.route("**/api/v2/tasks", lost)
    page.get_by_role("button", name="Submit", exact=True).dblclick()
    page.wait_for_url("**/#/task/**")
    assert room.api.get("/api/v2/tasks:counts", room.headers("chen"))["total"] == total + 1
    assert len(tries) == 2 and tries[0] == tries[1]


def test_a_full_queue_is_told_at_once_and_the_draft_stays(visit: Visit, room: Showroom) -> None:
    page = visit("chen", "submit")
    written(page, good(room))
    tries: list[str] = []

    def full(route: Route) -> None:
        tries.append(route.request.url)
        problem = {"title": "The queue is full", "status": 429, "code": "queue_full", "detail": "200 tasks wait."}
        route.fulfill(status=429, headers={"Retry-After": "30"}, json={"type": "about:blank", **problem})

    page.route("**/api/v2/tasks", full)
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.get_by_role("region", name="Checks")).to_contain_text("200 tasks wait.")
    expect(text(page)).to_have_value(good(room))
    assert len(tries) == 1


def test_copied_as_a_command_it_is_what_the_page_has(visit: Visit, room: Showroom) -> None:
    page = visit("alice", "submit")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    written(page, good(room) + "# TASKSPEC\n" + "#\n")
    page.get_by_role("checkbox", name="careful").check()
    will_show(page, "Copied")
    page.get_by_role("button", name="Copy as CLI").click()
    has_shown(page, "Copied")
    command = page.evaluate("navigator.clipboard.readText()")
    assert command == f"argus submit - --preset careful <<'TASKSPEC'\n{good(room)}# TASKSPEC\n#\nTASKSPEC\n"


def test_an_administrator_is_told_that_no_task_can_be_its_own(visit: Visit, room: Showroom) -> None:
    page = visit("admin", "submit?template=sft")
    expect(page.get_by_role("region", name="Checks")).to_contain_text("the admin token owns no tasks")


def test_hostile_text_is_text(visit: Visit, room: Showroom) -> None:
    page = visit("alice", "submit")
    for hostile in (
        "workload: <img src=x onerror=alert(1)>\nmodel_id: '\u202e</script><script>alert(1)</script>'\n",
        "\u202eevil: 1\n'<b>x</b>': 1\n",
    ):
        text(page).fill(hostile)
        expect(page.locator(".yaml-line").first).to_have_text(hostile.split("\n")[0])
        expect(page.get_by_role("list", name="What to mend").get_by_role("listitem")).not_to_have_count(0)
        expect(text(page)).to_have_value(hostile)
    assert page.locator("main img, main script, main .yaml b").count() == 0


def test_on_a_phone_the_form_and_the_text_take_turns(visit: Visit, room: Showroom) -> None:
    page = visit("alice", "submit?template=grpo", phone=True)
    expect(form(page)).to_be_visible()
    expect(text(page)).to_be_hidden()
    page.get_by_role("radio", name="YAML").check()
    expect(text(page)).to_be_visible()
    expect(form(page)).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    kept = json.loads(page.evaluate("sessionStorage.getItem('argus.draft')"))
    assert kept["owner"] == "alice" and kept["text"] == text_of("grpo", "/private")
