"""POST /api/v2/tasks:validate: all that a submission would say, and nothing of it is stored."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from argus_ray.actors.adapters import prepare
from argus_ray.core.actions import SetMaintenance
from argus_ray.core.errors import Unavailable
from argus_ray.core.estimates import Basis, Range, Unknown
from argus_ray.core.forecast.model import Newcomer
from argus_ray.disk import payload
from argus_ray.gateway.http.schemas import rfc3339
from tests.gateway.test_presets_api import VERL
from tests.support import builders
from tests.support.gateway import ADMIN, NODE, YAML, Api, Headers, make_api

LIMITS = {"waiting_tasks_per_user": 2, "running_gpus_per_user": 6}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    made = make_api(tmp_path, settings={"verl": VERL, "limits": LIMITS})
    with made.client:
        yield made
    made.world.close()


def ask(api: Api, who: Headers, *presets: str, path: str = "/api/v2/tasks:validate", **overrides: Any) -> Any:
    content = overrides.pop("content", None) or api.world.spec(**overrides)
    return api.client.post(path, params={"preset": presets}, content=content, headers={**who, **YAML})


def validated(api: Api, who: Headers, *presets: str, **overrides: Any) -> Any:
    answer = ask(api, who, *presets, **overrides)
    assert answer.status_code == 200, answer.text
    return answer.json()


def rows(api: Api) -> list[int]:
    with api.world.store.transaction() as db:
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return [db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in sorted(tables)]  # noqa: S608


def test_it_tells_what_a_submission_would_train_and_stores_nothing(api: Api) -> None:
    alice = api.user("alice")
    before = rows(api)
    found = validated(api, alice, "slow")
    assert rows(api) == before and api.wakes == []
    assert (found["valid"], found["refusals"], found["warnings"]) == (True, [], [])
    assert found["gang"]["gpus"] == 4
    assert (found["presets"], found["fit"]["fit"]) == (["slow"], "NOW")
    by_key = {each["key"]: (each["value"], each["source"]) for each in found["settings"]}
    assert by_key["optim.lr"] == (1e-6, "preset slow")

    # What its first attempt is given, but for the name that only an attempt has.
    task_id = ask(api, alice, "slow", path="/api/v2/tasks").json()["task_id"]
    task = api.task(task_id)
    assert api.get(f"/api/v2/tasks/{task_id}", alice)["settings"] == found["settings"]
    site = api.world.settings.site(payload.publish(api.world.shared_root))
    name = f"{task_id}--a01"
    root = f"{api.world.shared_root}/users/alice/jobs/{name}"
    prepared = prepare(task, site, name, root, None)
    stands = found["placeholder"]
    assert [word.replace(stands, name) for word in found["command"]] == list(prepared.command)
    assert {key: value.replace(stands, name) for key, value in found["env"].items()} == dict(prepared.env)


def test_all_that_a_submission_would_refuse_with_the_first_one_first(api: Api) -> None:
    alice = api.user("alice")
    found = validated(api, alice, "none", nnodes=2, train_file=f"{api.world.shared_root}/common/none.parquet")
    assert found["valid"] is False
    fields = [[error["field"] for error in refusal["errors"]] for refusal in found["refusals"]]
    assert fields == [["preset"], ["train_file"], ["nnodes, n_gpus_per_node"]]
    assert {(refusal["status"], refusal["code"]) for refusal in found["refusals"]} == {(400, "invalid_spec")}
    assert found["command"] is None and found["settings"] is None
    assert found["gang"]["gpus"] == 8


@pytest.mark.parametrize(
    "overrides",
    [
        {"nnodes": 0, "workload": "dpo"},
        {"model_id": "../x"},
        {"content": "nnodes: [1\n"},
        {"content": "workload: sft nnodes: 1 n_gpus_per_node: 1"},
        {"train_file": "/etc/passwd"},
    ],
)
def test_its_errors_are_those_of_a_submission(api: Api, overrides: dict[str, Any]) -> None:
    alice = api.user("alice")
    refused = ask(api, alice, path="/api/v2/tasks", **overrides).json()
    (refusal, *_) = validated(api, alice, **overrides)["refusals"]
    assert refusal == {name: refused[name] for name in ("status", "code", "title", "detail", "errors")}


def test_what_is_no_text_is_refused_as_by_a_submission(api: Api) -> None:
    alice = api.user("alice")
    for content, kind in ((b"\xff", YAML), (b"x" * 9000, YAML), (b"a: b", {"Content-Type": "image/png"})):
        answers = [
            api.client.post(path, content=content, headers={**alice, **kind})
            for path in ("/api/v2/tasks", "/api/v2/tasks:validate")
        ]
        assert answers[0].status_code == answers[1].status_code >= 400
        assert answers[0].json()["code"] == answers[1].json()["code"]
    odd = api.client.post("/api/v2/tasks:validate?x=1", content=api.world.spec(), headers={**alice, **YAML})
    assert (odd.status_code, odd.json()["code"]) == (400, "invalid_request")
    refused = ask(api, ADMIN)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request"), "as for a submission"


def test_warnings_and_limits(api: Api) -> None:
    alice, bob = api.user("alice"), api.user("bob")
    api.run(api.submit(alice, n_gpus_per_node=2))
    for who in (alice, alice, bob):
        api.submit(who)
    shutil.rmtree(Path(api.world.shared_root) / "common" / "hf")
    api.a_moment_later()
    found = validated(api, alice)
    assert [warning["field"] for warning in found["warnings"]] == ["model_id"]
    assert [refusal["code"] for refusal in found["refusals"]] == ["queue_full"]
    assert found["refusals"][0]["status"] == 429
    assert found["limits"] == {
        "waiting_tasks": 2,
        "waiting_tasks_limit": 2,
        "others_waiting": 1,
        "gpus_held": 2,
        "gpus_quota": 6,
    }


def test_whether_it_would_fit_now(api: Api) -> None:
    alice = api.user("alice")

    def fit(**overrides: Any) -> tuple[str, str | None]:
        found = validated(api, alice, **overrides)["fit"]
        assert found["summary"]
        return found["fit"], found["reason_code"]

    assert fit(n_gpus_per_node=4) == ("NOW", None)
    assert fit(n_gpus_per_node=5) == ("WOULD_WAIT", "nodes_busy")
    assert fit(n_gpus_per_node=64) == ("NEVER_ON_THIS_POOL", "node_too_small")
    assert fit(nnodes=2, n_gpus_per_node=1) == ("NEVER_ON_THIS_POOL", "pool_too_small")
    api.run(api.submit(alice))
    assert fit(n_gpus_per_node=4) == ("WOULD_WAIT", "quota_used")
    api.nodes = (replace(NODE, barred="programs do not start there"),)
    assert fit(n_gpus_per_node=1) == ("WOULD_WAIT", "nodes_busy")
    api.nodes = ()
    assert fit(n_gpus_per_node=1) == ("UNKNOWN", None)
    api.nodes = (NODE,)
    api.world.service.handle(builders.ADMIN, SetMaintenance(True, "new switches"))
    assert fit(n_gpus_per_node=1) == ("WOULD_WAIT", None)
    found = validated(api, alice, n_gpus_per_node=1)["fit"]
    assert found["maintenance"]["on"] and "new switches" in found["summary"]
    api.world.service.handle(builders.ADMIN, SetMaintenance(False))
    api.ready["disk"] = "less than 2 GiB are free"
    assert fit(n_gpus_per_node=1) == ("WOULD_WAIT", None)
    assert "2 GiB" in validated(api, alice, n_gpus_per_node=1)["fit"]["summary"]


def test_when_it_may_start_if_it_cannot_now(api: Api) -> None:
    alice = api.user("alice")
    asked: list[Newcomer] = []
    answers: list[Range | Unknown | Exception] = []

    async def start_of(newcomer: Newcomer) -> Range | Unknown:
        asked.append(newcomer)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def start(**overrides: Any) -> Any:
        return validated(api, alice, **overrides)["start"]

    assert start(n_gpus_per_node=5) == {"unknown": "not_yet"}, "nobody foretells"
    before = rows(api)
    api.client = TestClient(api.make_app(start_of=start_of))
    assert start(n_gpus_per_node=4) is None and asked == [], "it fits, and nothing waits before it"
    assert start(n_gpus_per_node=64) == {"unknown": "never_fits"} and asked == []
    assert start(workload="dpo") is None and asked == [], "the gang is not known"
    now = api.world.clock.now
    answers += [Range(now, now + 60.5, Basis.ASSUMES_NO_OVERTAKING), Unknown.NO_PACE_YET, Unavailable("gone")]
    assert start(n_gpus_per_node=5) == {
        "earliest": rfc3339(now),
        "latest": rfc3339(now + 60.5),
        "basis": "assumes_no_overtaking",
    }
    assert start(n_gpus_per_node=5) == {"unknown": "no_pace_yet"}
    assert start(n_gpus_per_node=5) == {"unknown": "not_yet"}, "the rest is answered all the same"
    assert [(each.user_id, each.workload, each.gang.gpus) for each in asked] == [("alice", "sft", 5)] * 3
    assert rows(api) == before and api.wakes == []
    api.submit(alice)
    answers.append(Unknown.NO_HISTORY_AHEAD)
    assert start(n_gpus_per_node=4) == {"unknown": "no_history_ahead"}, "there is room, and somebody waits before it"


def test_an_unknown_token_has_no_file_looked_at(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[object] = []
    inputs = api.app.fastapi.state.gateway.inputs
    monkeypatch.setattr(inputs, "_look", lambda spec: looked.append(spec))
    stranger = {"Authorization": "Bearer argus_u_" + "0" * 64}
    assert ask(api, stranger).status_code == 401
    assert looked == []
