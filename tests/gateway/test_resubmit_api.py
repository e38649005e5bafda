"""POST /api/v2/tasks/{task_id}:resubmit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core.states import Outcome
from tests.support.gateway import ADMIN, YAML, Api, Headers


def ended(api: Api, who: Headers, outcome: Outcome = Outcome.APPLICATION) -> str:
    task_id = api.submit(who)
    api.end(api.run(task_id), outcome, 1)
    return task_id


def resubmit(api: Api, task_id: str, who: Headers, **request: Any) -> Any:
    headers = who | request.pop("headers", {})
    return api.client.post(f"/api/v2/tasks/{task_id}:resubmit", headers=headers, **request)


@pytest.mark.parametrize("body", [None, {}, {"resume": False}, {"resume": True}])
def test_it_answers_as_a_submission_does(api: Api, body: dict[str, bool] | None) -> None:
    alice = api.user("alice")
    old = ended(api, alice)
    api.wakes.clear()
    answer = resubmit(api, old, alice, **({} if body is None else {"json": body}))
    assert answer.status_code == 201, answer.text
    new = answer.json()["task_id"]
    settings_from = "task" if body and body.get("resume") else "configuration"
    told = {"task_id": new, "state": "QUEUED", "warnings": [], "resubmitted_from": old}
    assert answer.json() == told | {"presets": [], "settings_from": settings_from}
    assert answer.headers["location"] == f"/api/v2/tasks/{new}"
    assert api.wakes == ["wake"]
    assert api.get(f"/api/v2/tasks/{new}", alice)["resubmitted_from"] == old
    assert api.get(f"/api/v2/tasks/{old}", alice)["resubmitted_from"] is None
    assert (api.task(new).resume_roots is not None) == bool(body and body.get("resume"))
    assert api.client.get(f"/api/v2/tasks/{new}/spec", headers=alice).text == api.task(old).spec_yaml


def test_a_repetition_is_told(api: Api) -> None:
    alice = api.user("alice")
    old = ended(api, alice)
    key = {"Idempotency-Key": "once"}
    first = resubmit(api, old, alice, headers=key)
    again = resubmit(api, old, alice, headers=key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"
    other = resubmit(api, old, alice, headers=key, json={"resume": True})
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


def test_what_is_refused(api: Api) -> None:
    alice, bob = api.user("alice"), api.user("bob")
    running, done = api.submit(alice), ended(api, alice, Outcome.SUCCEEDED)
    api.run(running)
    cases: list[tuple[str, Headers, dict[str, Any], int, str]] = [
        (running, alice, {}, 409, "task_not_ended"),
        (done, alice, {"json": {"resume": True}}, 409, "nothing_to_resume"),
        (done, bob, {}, 404, "task_not_found"),
        ("argus-none", alice, {}, 404, "task_not_found"),
        (done, alice, {"json": {"resume": "yes"}}, 400, "invalid_request"),
        (done, alice, {"json": {"steps": 3}}, 400, "invalid_request"),
        (done, alice, {"params": {"resume": "true"}}, 400, "invalid_request"),
        (done, alice, {"content": "resume: true", "headers": YAML}, 415, "unsupported_media_type"),
    ]
    for task_id, who, request, status, code in cases:
        refused = resubmit(api, task_id, who, **request)
        assert (refused.status_code, refused.json()["code"]) == (status, code), (task_id, request)
    assert len(api.get("/api/v2/tasks", alice)["tasks"]) == 2


def test_an_admin_does_it_in_the_owners_name(api: Api) -> None:
    alice = api.user("alice")
    new = resubmit(api, ended(api, alice), ADMIN).json()["task_id"]
    assert api.get(f"/api/v2/tasks/{new}", alice)["user_id"] == "alice"


def test_a_link_that_leads_out_by_now_is_refused_and_a_key_that_was_used_is_answered(api: Api) -> None:
    alice = api.user("alice")
    old = ended(api, alice)
    key = {**alice, "Idempotency-Key": "k"}
    first = resubmit(api, old, key)
    assert first.status_code == 201
    datasets = Path(api.world.shared_root) / "common" / "datasets"
    elsewhere = datasets.parents[1] / "elsewhere"
    datasets.rename(elsewhere)
    datasets.symlink_to(elsewhere)
    api.a_moment_later()
    refused = resubmit(api, old, alice)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_spec")
    assert all("symbolic link" in error["rule"] for error in refused.json()["errors"])
    again = resubmit(api, old, key)
    assert (again.status_code, again.json()["task_id"]) == (200, first.json()["task_id"])


def test_the_inputs_are_looked_at_again(api: Api) -> None:
    alice = api.user("alice")
    old = ended(api, alice)
    common = Path(api.world.shared_root) / "common"
    shutil.rmtree(common / "hf")
    api.a_moment_later()
    answer = resubmit(api, old, alice)
    assert answer.status_code == 201
    assert [warning["field"] for warning in answer.json()["warnings"]] == ["model_id"]
    shutil.rmtree(common / "datasets")
    api.a_moment_later()
    answer = resubmit(api, old, alice)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_spec")
    assert [error["field"] for error in answer.json()["errors"]] == ["train_file", "val_file"]
