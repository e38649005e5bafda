"""Presets: chosen at a submission, frozen with the task, shown to whom they concern."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core.states import Outcome
from tests.support.gateway import ADMIN, INTERNAL, YAML, Api, Headers, make_api

VERL: dict[str, Any] = {
    "presets": {
        "slow": {"optim.lr": 1e-6},
        "long": {"data.max_length": 512, "optim.lr": 2e-6},
        "hidden": {"optim.weight_decay": 0.5},
    },
    "rules": [
        {"match": {"user": ["bob"]}, "set": {"optim.clip_grad": 0.25}},
        {"match": {"workload": ["sft"]}, "set": {"optim.lr_warmup_steps": 7}},
    ],
    "selectable": ["slow", "long"],
}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    made = make_api(tmp_path, settings={"verl": VERL})
    with made.client:
        yield made
    made.world.close()


def post(api: Api, who: Headers, *presets: str, key: str | None = None, **overrides: Any) -> Any:
    headers = {**who, **YAML} | ({"Idempotency-Key": key} if key else {})
    content = api.world.spec(**overrides)
    return api.client.post("/api/v2/tasks", params={"preset": presets}, content=content, headers=headers)


def settings_of(api: Api, who: Headers, task_id: str) -> dict[str, tuple[Any, str]]:
    found = api.get(f"/api/v2/tasks/{task_id}", who)["settings"]
    return {each["key"]: (each["value"], each["source"]) for each in found}


def with_verl(api: Api, verl: dict[str, Any]) -> Api:
    """Deployed again with other settings of verl."""
    api.world.reopen(settings={"verl": verl})
    return Api(api.world)


def test_a_chosen_preset_wins_over_rules_and_defaults_and_each_value_tells_its_source(api: Api) -> None:
    alice = api.user("alice")
    answer = post(api, alice, "slow", "long")
    assert answer.status_code == 201, answer.text
    task = api.get(f"/api/v2/tasks/{answer.json()['task_id']}", alice)
    assert task["presets"] == ["slow", "long"]
    found = settings_of(api, alice, task["task_id"])
    assert found["optim.lr"] == (2e-6, "preset long"), "the later one wins"
    assert found["data.max_length"] == (512, "preset long")
    assert found["optim.lr_warmup_steps"] == (7, "rule 2")
    assert found["data.train_batch_size"] == (256, "default")
    assert "optim.clip_grad" not in found, "that rule is for bob"
    other_order = post(api, alice, "long", "slow").json()["task_id"]
    assert settings_of(api, alice, other_order)["optim.lr"] == (1e-6, "preset slow")
    plain = post(api, alice).json()["task_id"]
    assert api.get(f"/api/v2/tasks/{plain}", alice)["presets"] == []
    assert settings_of(api, alice, plain)["optim.lr"] == (1e-5, "default")
    for listed in (api.get("/api/v2/tasks", alice)["tasks"], api.get("/api/v2/queue", alice)["pending"]):
        assert len(listed) == 3
        assert not [task for task in listed if "settings" in task or "presets" in task]


def test_a_rule_for_a_user_is_used_for_that_user_alone_whoever_came_before(api: Api) -> None:
    alice, bob = api.user("alice"), api.user("bob")
    mine = [post(api, who).json()["task_id"] for who in (alice, bob, INTERNAL, alice, bob)]
    sources = [settings_of(api, ADMIN, task).get("optim.clip_grad") for task in mine]
    assert sources == [None, (0.25, "rule 1"), None, None, (0.25, "rule 1")]


@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ("preset=none", "invalid_spec", "preset"),
        ("preset=hidden", "invalid_spec", "preset"),
        ("preset=slow&preset=slow", "invalid_request", "preset"),
        ("&".join(f"preset=p{n}" for n in range(17)), "invalid_request", "preset"),
        ("preset=slow&presets=long", "invalid_request", "presets"),
        ("Preset=slow", "invalid_request", "Preset"),
    ],
)
def test_what_cannot_be_chosen(api: Api, query: str, code: str, field: str) -> None:
    alice = api.user("alice")
    refused = api.client.post(f"/api/v2/tasks?{query}", content=api.world.spec(), headers={**alice, **YAML})
    assert (refused.status_code, refused.json()["code"]) == (400, code), refused.text
    (error,) = refused.json()["errors"]
    assert error["field"] == field
    if code == "invalid_spec":
        assert query.partition("=")[2] in error["rule"]
        assert "long, slow" in error["rule"], "those that may be chosen"
        assert "offered: long, slow" in error["rule"], "and no other"
    assert api.get("/api/v2/tasks", alice)["tasks"] == []


def test_an_empty_one_is_none(api: Api) -> None:
    alice = api.user("alice")
    answer = api.client.post("/api/v2/tasks?preset=&preset=", content=api.world.spec(), headers={**alice, **YAML})
    assert answer.status_code == 201
    assert api.task(answer.json()["task_id"]).presets == ()


def test_a_key_is_for_the_same_presets_and_an_edit_of_the_configuration_is_no_conflict(api: Api) -> None:
    alice = api.user("alice")
    first = post(api, alice, "slow", key="k")
    again = post(api, alice, "slow", key="k")
    assert (first.status_code, again.status_code) == (201, 200)
    for others in ((), ("long",), ("slow", "long")):
        refused = post(api, alice, *others, key="k")
        assert (refused.status_code, refused.json()["code"]) == (409, "idempotency_conflict"), others
    before = settings_of(api, alice, first.json()["task_id"])
    for verl in (VERL | {"presets": VERL["presets"] | {"slow": {"optim.lr": 9e-6}}}, {}):
        changed = with_verl(api, verl)
        replayed = post(changed, alice, "slow", key="k")
        assert (replayed.status_code, replayed.json()) == (200, first.json()), verl
        assert settings_of(changed, alice, first.json()["task_id"]) == before, "frozen when it was accepted"
    gone = post(changed, alice, "slow")
    assert (gone.status_code, gone.json()["code"]) == (400, "invalid_spec"), "it is not there any more"


def ended(api: Api, task_id: str) -> str:
    api.end(api.run(task_id), Outcome.APPLICATION, 1)
    return task_id


def resubmit(api: Api, who: Headers, task_id: str, **body: Any) -> Any:
    return api.client.post(f"/api/v2/tasks/{task_id}:resubmit", headers=who, json=body)


def test_what_resumes_goes_on_with_its_settings_and_what_begins_anew_takes_those_of_today(api: Api) -> None:
    alice = api.user("alice")
    old = ended(api, post(api, alice, "slow").json()["task_id"])
    before = settings_of(api, alice, old)
    faster = with_verl(api, VERL | {"presets": VERL["presets"] | {"slow": {"optim.lr": 3e-6}}})
    anew, resumed = resubmit(faster, alice, old), resubmit(faster, ADMIN, old, resume=True)
    for answer, source in ((anew, "configuration"), (resumed, "task")):
        assert answer.status_code == 201, answer.text
        assert (answer.json()["presets"], answer.json()["settings_from"]) == (["slow"], source)
    assert settings_of(faster, alice, anew.json()["task_id"])["optim.lr"] == (3e-6, "preset slow")
    assert settings_of(faster, alice, resumed.json()["task_id"]) == before
    said = [faster.get(f"/api/v2/tasks/{a.json()['task_id']}/events", alice)["events"][0] for a in (anew, resumed)]
    assert said[0]["message"].endswith(f"from {old}, with the settings of today, not its own")
    assert said[1]["message"].endswith("to resume from its newest checkpoint, with its settings")


def test_a_preset_that_is_gone_ends_no_resumption_and_is_named_to_who_begins_anew(api: Api) -> None:
    alice = api.user("alice")
    old = ended(api, post(api, alice, "slow", "long").json()["task_id"])
    before = settings_of(api, alice, old)
    fewer = with_verl(api, VERL | {"selectable": ["long"]})
    refused = resubmit(fewer, alice, old)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_spec")
    assert [error["field"] for error in refused.json()["errors"]] == ["preset"]
    assert "'slow'" in refused.json()["errors"][0]["rule"]
    none = with_verl(fewer, {})
    resumed = resubmit(none, alice, old, resume=True)
    assert resumed.status_code == 201, resumed.text
    assert settings_of(none, alice, resumed.json()["task_id"]) == before


def test_a_task_of_an_earlier_version_has_none(api: Api) -> None:
    alice = api.user("alice")
    token = api.world.issue("alice")[0]
    old = api.world.submit(token).task_id  # as its gateway would have sent it
    task = api.get(f"/api/v2/tasks/{old}", alice)
    assert (task["settings"], task["presets"]) == (None, [])
    ended(api, old)
    resumed = resubmit(api, alice, old, resume=True).json()["task_id"]
    assert api.get(f"/api/v2/tasks/{resumed}", alice)["settings"] is None, "as its own attempts"
    anew = resubmit(api, alice, old).json()["task_id"]
    assert settings_of(api, alice, anew)["optim.lr_warmup_steps"] == (7, "rule 2")


def test_users_see_what_they_may_choose_and_admins_all(api: Api) -> None:
    alice = api.user("alice")
    slow = {"name": "slow", "selectable": True, "set": {"optim.lr": 1e-6}}
    long = {"name": "long", "selectable": True, "set": {"data.max_length": 512, "optim.lr": 2e-6}}
    assert api.get("/api/v2/presets", alice) == {"presets": [slow, long], "rules": None}
    hidden = {"name": "hidden", "selectable": False, "set": {"optim.weight_decay": 0.5}}
    for who in (ADMIN, INTERNAL):
        assert api.get("/api/v2/presets", who) == {
            "presets": [slow, long, hidden],
            "rules": [
                {"number": 1, "match": {"user": ["bob"]}, "use": [], "set": {"optim.clip_grad": 0.25}},
                {"number": 2, "match": {"workload": ["sft"]}, "use": [], "set": {"optim.lr_warmup_steps": 7}},
            ],
        }


def test_no_user_learns_of_anothers_settings(api: Api) -> None:
    alice, bob = api.user("alice"), api.user("bob")
    of_bob = post(api, bob, "long").json()["task_id"]
    for path in (f"/api/v2/tasks/{of_bob}", "/api/v2/presets", "/api/v2/tasks"):
        text = api.client.get(path, headers=alice).text
        assert "clip_grad" not in text and "bob" not in text, path
    assert api.client.get(f"/api/v2/tasks/{of_bob}", headers=alice).status_code == 404
    api.client.post("/api/v2/users/alice:disable", headers=ADMIN)
    for refused in (
        api.client.get("/api/v2/presets", headers=alice),
        post(api, alice, "slow"),
        post(api, alice, "none"),
        api.client.post("/api/v2/tasks:validate", content=api.world.spec(), headers={**alice, **YAML}),
    ):
        assert (refused.status_code, refused.json()["code"]) == (403, "user_disabled")


def test_an_admin_that_is_no_user_submits_nothing(api: Api) -> None:
    for presets in ((), ("slow",), ("none",)):
        refused = post(api, ADMIN, *presets)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
