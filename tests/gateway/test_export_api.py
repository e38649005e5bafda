"""POST /api/v2/tasks/{task_id}:export."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core.states import Outcome
from argus_ray.discovery import head_json, sentinel
from tests.support.checkpoints import save
from tests.support.gateway import ADMIN, Api, Headers


@pytest.fixture(autouse=True)
def root_is_proven(api: Api) -> None:
    settings = api.world.settings
    sentinel.begin(head_json.folder(settings.shared_root, settings.cluster_name))


def trained(api: Api, who: Headers, *steps: int, **spec: Any) -> tuple[str, str]:
    """A task that has ended with these checkpoints, and its job root."""
    task_id = api.submit(who, **spec)
    change = api.run(task_id)
    if steps:
        save(change.job_root, steps, spec.get("workload", "sft"))
    api.end(change)
    return task_id, change.job_root


def export(api: Api, task_id: str, who: Headers, **request: Any) -> Any:
    headers = who | request.pop("headers", {})
    return api.client.post(f"/api/v2/tasks/{task_id}:export", headers=headers, **request)


@pytest.mark.parametrize(("body", "step"), [(None, 20), ({}, 20), ({"step": 10}, 10), ({"part": "actor"}, 20)])
def test_it_answers_as_a_submission_does(api: Api, alice: Headers, body: dict[str, Any] | None, step: int) -> None:
    old, root = trained(api, alice, 10, 20)
    api.wakes.clear()
    answer = export(api, old, alice, **({} if body is None else {"json": body}))
    assert answer.status_code == 201, answer.text
    new = answer.json()["task_id"]
    shown = {"task_id": new, "exported_from": old, "step": step, "part": "actor", "state": "QUEUED", "path": None}
    assert answer.json() == shown | {"warnings": []}
    assert answer.headers["location"] == f"/api/v2/tasks/{new}"
    assert api.wakes == ["wake"]
    task = api.get(f"/api/v2/tasks/{new}", alice)
    assert (task["workload"], task["export"], task["exports"]) == ("export", shown, [])
    assert task["gang"] == {"nnodes": 1, "gpus_per_node": 0, "cpus_per_node": 2.0, "gpus": 0, "cpus": 2.0}
    assert (task["progress"], task["stalled_since"]) == (None, None)
    assert api.get(f"/api/v2/tasks/{old}", alice)["exports"] == [shown]
    made = api.task(new).export
    assert made is not None and made.job_root == root
    assert api.client.get(f"/api/v2/tasks/{new}/spec", headers=alice).text.startswith(f"export_of: {old}\n")


def test_the_whole_life_of_one(api: Api, alice: Headers) -> None:
    old, _ = trained(api, alice, 10)
    new = export(api, old, alice).json()["task_id"]
    why = api.get(f"/api/v2/tasks/{new}/explain", alice)
    assert why["summary"].startswith("The task waits for 2 CPUs; it is at the head of the queue")
    change = api.run(new)
    assert api.get("/api/v2/queue", alice)["running"][0]["task_id"] == new
    assert api.client.get(f"/api/v2/tasks/{new}/metrics", headers=alice).status_code == 200
    api.end(change)
    for shown in (
        api.get(f"/api/v2/tasks/{old}", alice)["exports"][0],
        api.get(f"/api/v2/tasks/{new}", alice)["export"],
    ):
        assert (shown["state"], shown["path"]) == ("SUCCEEDED", f"{change.job_root}/export")


def test_one_can_be_canceled(api: Api, alice: Headers) -> None:
    old, _ = trained(api, alice, 10)
    new = export(api, old, alice).json()["task_id"]
    answer = api.client.post(f"/api/v2/tasks/{new}:cancel", headers=alice)
    assert (answer.status_code, answer.json()["state"], answer.json()["export"]["path"]) == (200, "CANCELED", None)


def test_a_critic_of_ppo(api: Api, alice: Headers) -> None:
    old, root = trained(api, alice, 10, workload="ppo")
    assert export(api, old, alice, json={"part": "critic"}).json()["part"] == "critic"
    shutil.rmtree(Path(root) / "checkpoints" / "global_step_10" / "critic" / "huggingface")
    answer = export(api, old, alice, json={"part": "critic"})
    assert (answer.status_code, answer.json()["code"]) == (409, "nothing_to_export")


def test_a_repetition_is_told_whatever_became_of_the_checkpoint(api: Api, alice: Headers) -> None:
    old, root = trained(api, alice, 10)
    key = {"Idempotency-Key": "once"}
    first = export(api, old, alice, headers=key)
    shutil.rmtree(root)
    again = export(api, old, alice, headers=key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"
    other = export(api, old, alice, headers=key, json={"step": 10})
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


def test_what_is_refused(api: Api, alice: Headers) -> None:
    bob = api.user("bob")
    old, _ = trained(api, alice, 10, 20)
    bare, _ = trained(api, alice)
    waits = api.submit(alice)
    new = export(api, old, alice).json()["task_id"]
    cases: list[tuple[str, Headers, dict[str, Any], int, str]] = [
        (old, bob, {}, 404, "task_not_found"),
        ("argus-alice-sft-20260101-000000-0000", alice, {}, 404, "task_not_found"),
        (old, {}, {}, 401, "unauthenticated"),
        (bare, alice, {}, 409, "nothing_to_export"),
        (waits, alice, {}, 409, "nothing_to_export"),
        (new, alice, {}, 409, "nothing_to_export"),
        (old, alice, {"json": {"step": 15}}, 409, "nothing_to_export"),
        (old, alice, {"json": {"step": 0}}, 400, "invalid_request"),
        (old, alice, {"json": {"step": True}}, 400, "invalid_request"),
        (old, alice, {"json": {"step": "10"}}, 400, "invalid_request"),
        (old, alice, {"json": {"part": "optimizer"}}, 400, "invalid_request"),
        (old, alice, {"json": {"part": "critic"}}, 400, "invalid_request"),
        (old, alice, {"json": {"format": "gguf"}}, 400, "invalid_request"),
        (old, alice, {"params": {"step": "10"}}, 400, "invalid_request"),
    ]
    before = len(api.world.all_tasks())
    for task_id, who, request, status, code in cases:
        answer = export(api, task_id, who, **request)
        assert (answer.status_code, answer.json()["code"]) == (status, code), (task_id, request, answer.text)
    assert len(api.world.all_tasks()) == before
    answer = export(api, old, alice, json={"step": 15})
    assert answer.json()["errors"] == [{"field": "step", "rule": "complete checkpoints are there of: 20, 10"}]


def test_a_root_that_is_away_is_no_answer(api: Api, alice: Headers) -> None:
    old, root = trained(api, alice, 10)
    settings = api.world.settings
    proof = sentinel.path_in(head_json.folder(settings.shared_root, settings.cluster_name))
    proof.rename(proof.with_suffix(".away"))
    os.rename(root, f"{root}.away")  # noqa: PTH104
    answer = export(api, old, alice)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")


def test_a_lost_one_is_asked_for_again_by_a_new_export(api: Api, alice: Headers) -> None:
    old, _ = trained(api, alice, 10)
    new = export(api, old, alice).json()["task_id"]
    api.end(api.run(new), Outcome.APPLICATION, 1)
    answer = api.client.post(f"/api/v2/tasks/{new}:resubmit", headers=alice)
    assert answer.status_code == 400 and f"{old}:export" in answer.json()["detail"]
    assert export(api, old, ADMIN).status_code == 201
    assert [each["state"] for each in api.get(f"/api/v2/tasks/{old}", alice)["exports"]] == ["QUEUED", "FAILED"]
