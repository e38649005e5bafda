"""Submitting, looking at and canceling tasks."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core.lifecycle import End, FilesMeasured, Hold, Stall
from argus_ray.core.reasons import Code, because
from argus_ray.core.states import Outcome
from argus_ray.core.verl.failures import Failure
from argus_ray.disk import beneath
from tests.support.gateway import ADMIN, YAML, Api, TestClient, bearer_header


def test_submit_answers_with_the_queued_task(api: Api) -> None:
    alice = api.user("alice")
    spec = api.world.spec() + "# a comment, kept\n"
    answer = api.client.post("/api/v2/tasks", content=spec, headers={**alice, **YAML})
    assert answer.status_code == 201
    task_id = answer.json()["task_id"]
    assert answer.json() == {"task_id": task_id, "state": "QUEUED", "warnings": []}
    assert answer.headers["location"] == f"/api/v2/tasks/{task_id}"
    assert api.wakes == ["wake"]

    seen = api.get(f"/api/v2/tasks/{task_id}", alice)
    assert (seen["state"], seen["position"], seen["attempts"]) == ("QUEUED", 1, [])
    assert seen["gang"]["nnodes"] == 1
    assert seen["gang"]["gpus_per_node"] == 4
    assert seen["created_at"] == "2027-01-15T08:00:00.000Z"

    text = api.client.get(f"/api/v2/tasks/{task_id}/spec", headers=alice)
    assert text.content == spec.encode()
    assert text.headers["content-type"] == "text/yaml; charset=utf-8"


def test_a_task_that_makes_no_steps_says_so(api: Api) -> None:
    alice = api.user("alice")
    task_id = api.submit(alice)
    change = api.run(task_id)
    seen = api.get(f"/api/v2/tasks/{task_id}", alice)
    assert (seen["stalled_since"], seen["stalled_why"]) == (None, None)
    api.apply(Stall(change.submission_id, api.world.clock.now - 1800, "its metrics file has not grown"))
    for seen in (api.get(f"/api/v2/tasks/{task_id}", alice), api.get("/api/v2/tasks", alice)["tasks"][0]):
        assert (seen["state"], seen["stalled_since"]) == ("RUNNING", "2027-01-15T07:30:00.000Z")
        assert seen["stalled_why"] == "its metrics file has not grown"
    summary = api.get(f"/api/v2/tasks/{task_id}/explain", alice)["summary"]
    assert summary.endswith("without a new step since 2027-01-15T07:30:00.000Z: its metrics file has not grown")
    api.end(change)
    seen = api.get(f"/api/v2/tasks/{task_id}", alice)
    assert (seen["state"], seen["stalled_since"], seen["stalled_why"]) == ("SUCCEEDED", None, None)


def test_a_task_says_what_it_takes_on_the_disk(api: Api) -> None:
    alice = api.user("alice")
    task_id = api.submit(alice)
    change = api.run(task_id)
    seen = api.get(f"/api/v2/tasks/{task_id}", alice)
    assert (seen["files_at"], seen["attempts"][0]["disk_bytes"]) == ("JOB_ROOT", None)
    api.apply(FilesMeasured(task_id, ((change.submission_id, 12345),)))
    assert api.get(f"/api/v2/tasks/{task_id}", alice)["attempts"][0]["disk_bytes"] == 12345


def test_idempotency_key_returns_the_first_task_also_after_a_restart(api: Api) -> None:
    alice, bob = api.user("alice"), api.user("bob")
    first = api.submit(alice, key="run 1")
    again_api = api
    for restarted in (False, True):
        again_api = api.restart() if restarted else api
        headers = {**alice, **YAML, "Idempotency-Key": "run 1"}
        again = again_api.client.post("/api/v2/tasks", content=api.world.spec(), headers=headers)
        assert (again.status_code, again.json()["task_id"]) == (200, first)
        assert again.headers["idempotency-replayed"] == "true"
        assert again.headers["location"].endswith(first)
        assert again_api.wakes in (["wake"], [])
        other_body = again_api.client.post("/api/v2/tasks", content=api.world.spec(nnodes=2), headers=headers)
        assert (other_body.status_code, other_body.json()["code"]) == (409, "idempotency_conflict")
    assert again_api.submit(bob, key="run 1") != first
    assert len(again_api.get("/api/v2/tasks", alice)["tasks"]) == 1


@pytest.mark.parametrize("key", ["", "x" * 300, "tab\there"])
def test_a_bad_idempotency_key_is_refused(api: Api, key: str) -> None:
    headers = {**api.user("alice"), **YAML, "Idempotency-Key": key}
    refused = api.client.post("/api/v2/tasks", content=api.world.spec(), headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
    assert refused.json()["errors"][0]["field"] == "Idempotency-Key"


def test_inputs_that_are_missing_are_refused_all_at_once(api: Api) -> None:
    alice = api.user("alice")
    common = f"{api.world.shared_root}/common"
    spec = api.world.spec(train_file=f"{common}/a.parquet", val_file=f"{common}/b.parquet", model_id=f"{common}/c")
    answer = api.client.post("/api/v2/tasks", content=spec, headers={**alice, **YAML})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_spec")
    assert answer.json()["errors"] == [
        {"field": field, "rule": "does not exist"} for field in ("model_id", "train_file", "val_file")
    ]
    assert api.get("/api/v2/tasks", alice)["tasks"] == [] and api.wakes == []


def test_who_may_not_submit_learns_nothing_of_files(api: Api) -> None:
    spec = api.world.spec(train_file=f"{api.world.shared_root}/common/a.parquet")
    refused = api.client.post("/api/v2/tasks", content=spec, headers={**bearer_header("argus_u_" + "0" * 64), **YAML})
    assert (refused.status_code, "does not exist" in refused.text) == (401, False)
    refused = api.client.post("/api/v2/tasks", content=spec, headers={**ADMIN, **YAML})
    assert (refused.status_code, "does not exist" in refused.text) == (400, False)


def test_what_is_in_doubt_is_a_warning_in_the_answer_and_in_the_task(api: Api) -> None:
    alice = api.user("alice")
    headers = {**alice, **YAML, "Idempotency-Key": "k"}
    spec = api.world.spec(model_id="someone/else")
    answer = api.client.post("/api/v2/tasks", content=spec, headers=headers)
    assert answer.status_code == 201
    [warning] = answer.json()["warnings"]
    assert warning["field"] == "model_id" and "not in the shared cache" in warning["rule"]
    task = f"/api/v2/tasks/{answer.json()['task_id']}"
    assert api.get(task, alice)["warnings"] == [warning]
    assert f"model_id: {warning['rule']}" in [event["message"] for event in api.get(f"{task}/events", alice)["events"]]
    assert api.client.post("/api/v2/tasks", content=spec, headers=headers).json() == answer.json()


def test_a_repeated_submission_gets_its_answer_also_when_its_files_are_gone(api: Api) -> None:
    alice = api.user("alice")
    task_id = api.submit(alice, key="k")
    shutil.rmtree(Path(api.world.shared_root) / "common" / "datasets")
    api.a_moment_later()
    assert api.submit(alice, key="k") == task_id
    refused = api.client.post("/api/v2/tasks", content=api.world.spec(), headers={**alice, **YAML})
    assert refused.status_code == 400


@pytest.mark.parametrize("leaves_mount_point", [False, True])
def test_while_the_root_of_inputs_is_away_nothing_is_refused_for_good(api: Api, leaves_mount_point: bool) -> None:
    alice = api.user("alice")
    known = api.submit(alice, key="k")
    old = api.submit(alice)
    api.end(api.run(old), Outcome.APPLICATION, 1)
    before = api.get("/api/v2/tasks", alice)
    common = Path(api.world.shared_root) / "common"
    away = common.rename(common.with_name("away"))
    if leaves_mount_point:
        common.mkdir()
    api.a_moment_later()
    post: dict[str, Any] = {"content": api.world.spec(), "headers": {**alice, **YAML}}
    for answer in (
        api.client.post("/api/v2/tasks", **post),
        api.client.post(f"/api/v2/tasks/{old}:resubmit", headers=alice),
    ):
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert str(common) in answer.json()["detail"] and "nothing was submitted" in answer.json()["detail"]
        assert "errors" not in answer.json()
    assert api.submit(alice, key="k") == known, "the key decides first"
    assert api.get("/api/v2/tasks", alice) == before
    # Who may not submit is told of that.
    stranger = api.client.post("/api/v2/tasks", **{**post, "headers": {**bearer_header("x"), **YAML}})
    assert stranger.status_code == 401
    if leaves_mount_point:
        common.rmdir()
    away.rename(common)
    api.a_moment_later()
    assert api.client.post("/api/v2/tasks", **post).status_code == 201


def test_a_disk_that_does_not_answer_refuses_nobody(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(beneath, "plain_file", broken)
    answer = api.client.post("/api/v2/tasks", content=api.world.spec(), headers={**api.user("alice"), **YAML})
    assert answer.status_code == 201
    assert {warning["field"] for warning in answer.json()["warnings"]} >= {"train_file", "val_file"}


def test_why_an_attempt_failed_is_a_field_of_its_own(api: Api) -> None:
    alice = api.user("alice")
    task_id = api.submit(alice)
    attempt = api.run(task_id)
    why = Failure("disk_full", "OSError: No space left on device", "Free space.")
    assert api.get(f"/api/v2/tasks/{task_id}", alice)["attempts"][0]["failure"] is None
    api.apply(End(attempt.submission_id, Outcome.APPLICATION, "the reason", 1, why))
    [seen] = api.get(f"/api/v2/tasks/{task_id}", alice)["attempts"]
    assert seen["failure"] == {"code": why.code, "line": why.line, "hint": why.hint}


def test_reject_non_common_inputs_over_http(api: Api, tmp_path: Path) -> None:
    alice = api.user("alice")
    (tmp_path / "common" / "datasets").mkdir(parents=True, exist_ok=True)
    (tmp_path / "common" / "datasets" / "link").symlink_to("/etc")
    common = f"{api.world.shared_root}/common"
    bad = {
        "train_file": [
            "/etc/passwd", f"{common}/../users/bob/x", "datasets/x", f"{common}/datasets/link/passwd",
            f"{common}\u2215x", f"{common}/a b", f"{common}/-x", f"{common}/x\n", f"{common}/$(id)",
            f"{common}x/y",
        ],
        "val_file": ["/private/elsewhere/x", f"{common}/x/"],
        "code_path": ["/root", f"{common}/a:b"],
        "model_id": [f"{api.world.shared_root}/users/bob", "a/b/c", "../x"],
    }  # fmt: skip
    for field, values in bad.items():
        for value in values:
            refused = api.client.post(
                "/api/v2/tasks", content=api.world.spec(**{field: value}), headers={**alice, **YAML}
            )
            assert (refused.status_code, refused.json()["code"]) == (400, "invalid_spec"), value
            assert [error["field"] for error in refused.json()["errors"]] == [field]
    unknown = api.client.post(
        "/api/v2/tasks", content=api.world.spec(output_dir="/tmp/x", nnodes=0), headers={**alice, **YAML}
    )
    assert sorted(error["field"] for error in unknown.json()["errors"]) == ["nnodes", "output_dir"]
    assert api.get("/api/v2/tasks", alice)["tasks"] == []
    assert api.wakes == []


_ALIAS_BOMB = "\n".join(
    [f"a: &a [{','.join('x' * 9)}]"] + [f"{c}: &{c} [{','.join([f'*{chr(ord(c) - 1)}'] * 9)}]" for c in "bcdefghi"]
)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (_ALIAS_BOMB.encode(), 400, "invalid_spec"),
        (b"x" * (8 * 1024 + 1), 413, "body_too_large"),
        (b"#" * (8 * 1024), 400, "invalid_spec"),
        (b"workload: sft\nworkload: ppo\n", 400, "invalid_spec"),
        (b"workload: \xff\xfe\n", 400, "invalid_spec"),
        (b"workload: s\0ft\n", 400, "invalid_spec"),
        (b"", 400, "invalid_spec"),
        (b"- a\n- b\n", 400, "invalid_spec"),
        (b"!!python/object/apply:os.system ['id']", 400, "invalid_spec"),
        (b"[" * 1_000, 400, "invalid_spec"),
        (b"a: b: c\n", 400, "invalid_spec"),
        (b"a: 1\n---\nb: 2\n", 400, "invalid_spec"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_body_limits(api: Api, body: bytes, status: int, code: str) -> None:
    refused = api.client.post("/api/v2/tasks", content=body, headers={**api.user("alice"), **YAML})
    assert (refused.status_code, refused.json()["code"]) == (status, code)


def test_a_body_in_chunks_has_the_same_limit(api: Api) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield b"#" * 8192

    refused = api.client.post("/api/v2/tasks", content=endless(), headers={**api.user("alice"), **YAML})
    assert (refused.status_code, refused.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/yaml; charset=utf-8"}, 201),
        ({"Content-Type": "application/x-yaml"}, 201),
        ({"Content-Type": "text/yaml"}, 201),
        ({"Content-Type": "text/plain"}, 201),
        ({"Content-Type": "application/json"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "application/yaml; charset=utf-16"}, 415),
        ({"Content-Type": "application/yaml", "Content-Encoding": "gzip"}, 415),
        ({}, 415),
    ],
)
def test_content_types_of_a_submission(api: Api, headers: dict[str, str], status: int) -> None:
    alice = api.user("alice")
    answer = api.client.post("/api/v2/tasks", content=api.world.spec(), headers={**alice, **headers})
    assert answer.status_code == status, answer.text


def test_tasks_are_paged_newest_first(api: Api) -> None:
    alice = api.user("alice")
    submitted = [api.submit(alice) for _ in range(5)]
    seen: list[str] = []
    path = "/api/v2/tasks?limit=2&state=&cursor="
    while path:
        page = api.get(path, alice)
        seen += [task["task_id"] for task in page["tasks"]]
        path = f"/api/v2/tasks?limit=2&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    assert seen == submitted[::-1]


def test_tasks_are_filtered_by_state(api: Api) -> None:
    alice = api.user("alice")
    waits, canceled = api.submit(alice), api.submit(alice)
    api.client.post(f"/api/v2/tasks/{canceled}:cancel", headers=alice)
    for query, expected in [
        ("state=QUEUED", [waits]),
        ("state=CANCELED", [canceled]),
        ("state=QUEUED,CANCELED", [canceled, waits]),
        ("state=QUEUED&state=CANCELED", [canceled, waits]),
        ("state=RUNNING", []),
    ]:
        found = api.get(f"/api/v2/tasks?{query}", alice)["tasks"]
        assert [task["task_id"] for task in found] == expected, query


def test_an_admin_lists_the_tasks_of_a_user(api: Api) -> None:
    task_id = api.submit(api.user("alice"))
    api.submit(api.user("bob"))
    found = api.get("/api/v2/tasks?user_id=alice", ADMIN)["tasks"]
    assert [task["task_id"] for task in found] == [task_id]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"), ("limit=501", "limit"), ("limit=x", "limit"), ("state=WAITING", "state"),
        ("cursor=x", "cursor"), ("cursor=dDE=", "cursor"), ("cursor=ZTU", "cursor"), ("cursor=%00", "cursor"),
        ("cursor=dC0x", "cursor"), ("stat=QUEUED", "stat"),
    ],
)  # fmt: skip
def test_a_bad_query_is_refused_by_field(api: Api, query: str, field: str) -> None:
    refused = api.client.get(f"/api/v2/tasks?{query}", headers=api.user("alice"))
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
    assert [error["field"] for error in refused.json()["errors"]] == [field]


def test_cancel_is_idempotent_and_wakes_the_scheduler(api: Api) -> None:
    alice = api.user("alice")
    task_id = api.submit(alice)
    for _ in range(2):
        canceled = api.client.post(f"/api/v2/tasks/{task_id}:cancel", headers=alice)
        assert (canceled.status_code, canceled.json()["state"]) == (200, "CANCELED")
    assert len(api.wakes) == 3
    running = api.submit(alice)
    api.run(running)
    assert api.client.post(f"/api/v2/tasks/{running}:cancel", headers=alice).json()["state"] == "CANCELED"


def test_a_failing_wake_spoils_nothing(api: Api) -> None:
    def broken() -> None:
        raise RuntimeError("no scheduler")

    alice = api.user("alice")
    api.client = TestClient(api.make_app(wake=broken))
    assert api.get(f"/api/v2/tasks/{api.submit(alice)}", alice)["state"] == "QUEUED"
    assert api.wakes == []


def test_explain_says_what_is_missing_and_who_is_ahead(api: Api) -> None:
    alice, bob = api.user("alice"), api.user("bob")
    first, of_bob, last = api.submit(alice), api.submit(bob), api.submit(alice)
    reason = "needs 1 node with 4 GPUs and 12 CPUs free"
    api.apply(Hold(last, because(Code.POOL_BUSY, nodes=1, gpus=4, cpus=12.0)))
    found = api.get(f"/api/v2/tasks/{last}/explain", alice)
    assert (found["position"], found["own_ahead"], found["others_ahead"]) == (3, [first], 1)
    assert (found["reason"], found["reason_code"]) == (reason, "pool_busy")
    assert found["next_retry_at"] == "2027-01-15T08:01:00.000Z"
    assert f"{reason}; 1 has now" in found["summary"]
    assert of_bob not in str(found)
    head = api.get(f"/api/v2/tasks/{first}/explain", alice)
    assert "head of the queue" in head["summary"]


def test_explain_says_what_each_worker_lacks(api: Api) -> None:
    alice = api.user("alice")
    task_id = api.submit(alice, n_gpus_per_node=6)
    explained = api.get(f"/api/v2/tasks/{task_id}/explain", alice)
    assert explained["shortfall"] == [
        {"gpus_free": 4.0, "cpus_free": 16.0, "gpus_missing": 2.0, "cpus_missing": 2.0, "barred": None}
    ]
    assert "worker-1" not in str(explained) and "10.0.0.2" not in str(explained)
    api.nodes = ()
    assert api.get(f"/api/v2/tasks/{task_id}/explain", alice)["shortfall"] is None, "the rest is answered all the same"
    api.end(api.run(task_id), Outcome.APPLICATION, 1)
    assert api.get(f"/api/v2/tasks/{task_id}/explain", alice)["shortfall"] is None


def test_events_tell_every_move_in_pages(api: Api) -> None:
    alice = api.user("alice")
    task_id = api.submit(alice)
    api.end(api.run(task_id), Outcome.APPLICATION, 1)
    everything = api.get(f"/api/v2/tasks/{task_id}/events", alice)
    states = [event["new_state"] for event in everything["events"]]
    assert states == ["QUEUED", "SUBMITTING", "RUNNING", "FAILED"]
    assert everything["next_cursor"] is None
    page = api.get(f"/api/v2/tasks/{task_id}/events?limit=3", alice)
    rest = api.get(f"/api/v2/tasks/{task_id}/events?limit=3&cursor={page['next_cursor']}", alice)
    assert page["events"] + rest["events"] == everything["events"]


def test_job_dir_written_under_user_jobs(api: Api) -> None:
    alice = api.user("alice")
    task_id = api.submit(alice)
    change = api.admit(task_id)
    [attempt] = api.get(f"/api/v2/tasks/{task_id}", alice)["attempts"]
    assert attempt["submission_id"] == f"{task_id}--a01"
    assert attempt["job_root"] == f"{api.world.shared_root}/users/alice/jobs/{task_id}--a01"
    assert attempt["command"] == list(change.command)
    assert attempt["env"] == dict(change.env)
    assert (attempt["number"], attempt["state"], attempt["outcome"]) == (1, "SUBMITTING", None)


def test_queue_shows_waiting_and_running_tasks(api: Api) -> None:
    alice = api.user("alice")
    runs, waits, done = api.submit(alice), api.submit(alice), api.submit(alice)
    api.run(runs)
    api.end(api.run(done))
    queue = api.get("/api/v2/queue", alice)
    assert [(task["task_id"], task["position"]) for task in queue["pending"]] == [(waits, 1)]
    assert [(task["task_id"], task["state"]) for task in queue["running"]] == [(runs, "RUNNING")]


def test_nodes_are_for_admins(api: Api) -> None:
    [node] = api.get("/api/v2/nodes", ADMIN)["nodes"]
    assert (node["hostname"], node["gpus_total"], node["gpus_free"]) == ("worker-1", 8.0, 4.0)
    api.nodes = ()
    refused = api.client.get("/api/v2/nodes", headers=ADMIN)
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")


def test_explain_tells_of_the_quota_and_of_recent_use(api: Api) -> None:
    alice, bob = api.user("alice"), api.user("bob")
    runs, waits = api.submit(alice), api.submit(alice)
    his = api.submit(bob)
    api.run(runs)
    off = api.get(f"/api/v2/tasks/{waits}/explain", alice)
    assert (off["gpus_held"], off["gpus_quota"], off["recent_gpu_hours"]) == (4, None, None)
    settings = {"limits": {"running_gpus_per_user": 4}, "scheduling": {"fair_share": True}}
    api.world.reopen(settings=settings)
    api = Api(api.world)
    api.apply(Hold(waits, because(Code.OVER_QUOTA, limit=4)))
    api.world.clock.advance(360)
    found = api.get(f"/api/v2/tasks/{waits}/explain", alice)
    assert (found["reason_code"], found["gpus_held"], found["gpus_quota"]) == ("over_quota", 4, 4)
    assert found["recent_gpu_hours"] == pytest.approx(0.4, abs=0.01)
    assert found["summary"] == (
        "The task waits for 4 GPUs; it is at the head of the queue, and who has used the least of late goes first (its "
        "user: 0.4 GPU hours): its user may hold 4 GPUs at a time; what runs and waits before it takes them; it holds "
        "4 now"
    )
    assert api.get(f"/api/v2/tasks/{his}/explain", bob)["recent_gpu_hours"] == 0
    body = api.world.spec(nnodes=2)
    refused = api.client.post("/api/v2/tasks", content=body, headers={**bob, "Content-Type": "application/yaml"})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_spec")
    assert refused.json()["errors"] == [
        {"field": "nnodes, n_gpus_per_node", "rule": "2 x 4 GPUs are 8, and 4 is the most that you may hold at a time"}
    ]
